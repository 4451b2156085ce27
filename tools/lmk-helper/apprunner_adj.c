/* SPDX-License-Identifier: Apache-2.0 */
#include "apprunner_adj.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ProcessList.CACHED_APP_IMPORTANCE_LEVELS: activities step by 10 from 900, empty processes from 905. */
#define IMPORTANCE_LEVELS 5
/* OomAdjuster.mNumSlots: cached processes share slots once there are more than ten. */
#define SLOTS ((ADJ_CACHED_MAX - ADJ_CACHED_MIN + 1) / 2 / IMPORTANCE_LEVELS)
/* CUR_MAX_CACHED_PROCESSES - CUR_MAX_EMPTY_PROCESSES of a default device. */
#define EMPTY_COUNTED_MAX 16

static const char *const role_names[] = { "app", "home", "service", "empty", "persistent", "fixed" };
static const char *const rest_names[] = { "cached", "perceptible", "visible" };

static int by_name(const char *const *names, int count, const char *name)
{
	for (int i = 0; i < count; i++) {
		if (!strcmp(names[i], name))
			return i;
	}
	return -EINVAL;
}

int adj_role_by_name(const char *name)
{
	return by_name(role_names, sizeof(role_names) / sizeof(role_names[0]), name);
}

int adj_rest_by_name(const char *name)
{
	return by_name(rest_names, sizeof(rest_names) / sizeof(rest_names[0]), name);
}

void adj_init(struct adj_state *state)
{
	memset(state, 0, sizeof(*state));
	state->top = ADJ_NOBODY;
	state->previous = ADJ_NOBODY;
}

struct adj_process *adj_find(struct adj_state *state, int id)
{
	for (int i = 0; i < state->count; i++) {
		if (state->lru[i].id == id)
			return &state->lru[i];
	}
	return NULL;
}

static void move_to_front(struct adj_state *state, int id)
{
	struct adj_process *at = adj_find(state, id);
	struct adj_process moved;

	if (!at)
		return;
	moved = *at;
	memmove(&state->lru[1], &state->lru[0], (size_t)(at - state->lru) * sizeof(moved));
	state->lru[0] = moved;
}

static void show_home(struct adj_state *state)
{
	state->top = ADJ_NOBODY;
	for (int i = 0; i < state->count; i++) {
		if (state->lru[i].role == ADJ_ROLE_HOME) {
			state->top = state->lru[i].id;
			move_to_front(state, state->top);
			return;
		}
	}
}

int adj_start(struct adj_state *state, int id, enum adj_role role, enum adj_rest rest, int fixed_adj)
{
	if (adj_find(state, id))
		return 0;
	if (state->count == ADJ_PROCESSES_MAX)
		return -ENOSPC;
	memmove(&state->lru[1], &state->lru[0], (size_t)state->count * sizeof(state->lru[0]));
	state->lru[0] = (struct adj_process){ .id = id, .role = role, .rest = rest, .fixed_adj = fixed_adj };
	state->count++;
	return 0;
}

void adj_launch(struct adj_state *state, int id)
{
	const struct adj_process *process = adj_find(state, id);
	const struct adj_process *old;

	if (!process || (process->role != ADJ_ROLE_APP && process->role != ADJ_ROLE_HOME) || state->top == id)
		return;
	old = adj_find(state, state->top);
	if (old && old->role == ADJ_ROLE_APP)
		state->previous = state->top;
	state->top = id;
	move_to_front(state, id);
}

void adj_leave(struct adj_state *state, int id)
{
	const struct adj_process *process = adj_find(state, id);

	if (!process || process->role != ADJ_ROLE_APP || state->top != id)
		return;
	state->previous = id;
	show_home(state);
}

void adj_gone(struct adj_state *state, int id)
{
	struct adj_process *at = adj_find(state, id);

	if (!at)
		return;
	state->count--;
	memmove(at, at + 1, (size_t)(&state->lru[state->count] - at) * sizeof(*at));
	if (state->previous == id)
		state->previous = ADJ_NOBODY;
	if (state->top == id)
		show_home(state);
}

/* OomAdjuster.computeOomAdjLSP without the bindings between processes; INT-like "cached" is answered as
 * ADJ_CACHED_MIN and spread over the slots later. */
static int importance(const struct adj_state *state, const struct adj_process *process)
{
	if (process->role == ADJ_ROLE_FIXED)
		return process->fixed_adj;
	if (process->role == ADJ_ROLE_PERSISTENT)
		return ADJ_PERSISTENT;
	if (process->id == state->top)
		return ADJ_FOREGROUND;
	if (process->rest == ADJ_REST_VISIBLE)
		return ADJ_VISIBLE;
	if (process->rest == ADJ_REST_PERCEPTIBLE)
		return ADJ_PERCEPTIBLE;
	if (process->role == ADJ_ROLE_SERVICE)
		return ADJ_SERVICE;
	if (process->role == ADJ_ROLE_HOME)
		return ADJ_HOME;
	if (process->id == state->previous)
		return ADJ_PREVIOUS;
	return ADJ_CACHED_MIN;
}

/* The walk of assignCachedAdjIfNecessary for one kind of cached process. */
struct cached_steps {
	int current, next, factor, step;
};

static struct cached_steps cached_steps(int first, int count)
{
	int factor = (count + SLOTS - 1) / SLOTS;

	return (struct cached_steps){
		.current = first,
		.next = first + IMPORTANCE_LEVELS * 2,
		.factor = factor < 1 ? 1 : factor,
		.step = -1,
	};
}

static int next_cached(struct cached_steps *steps)
{
	if (steps->current != steps->next && ++steps->step >= steps->factor) {
		steps->step = 0;
		steps->current = steps->next;
		steps->next += IMPORTANCE_LEVELS * 2;
		if (steps->next > ADJ_CACHED_MAX)
			steps->next = ADJ_CACHED_MAX;
	}
	return steps->current;
}

void adj_assign(struct adj_state *state)
{
	struct cached_steps activity, empty;
	int services = 0, services_a = 0, activities = 0, empties = 0;

	for (int i = 0; i < state->count; i++) {
		struct adj_process *process = &state->lru[i];

		process->adj = importance(state, process);
		services += process->adj == ADJ_SERVICE && process->role == ADJ_ROLE_SERVICE;
		activities += process->adj == ADJ_CACHED_MIN && process->role == ADJ_ROLE_APP;
		empties += process->adj == ADJ_CACHED_MIN && process->role == ADJ_ROLE_EMPTY;
	}
	activity = cached_steps(ADJ_CACHED_MIN, activities);
	empty = cached_steps(ADJ_CACHED_MIN + IMPORTANCE_LEVELS,
			     empties > EMPTY_COUNTED_MAX ? EMPTY_COUNTED_MAX : empties);
	for (int i = 0; i < state->count; i++) {
		struct adj_process *process = &state->lru[i];

		if (process->role == ADJ_ROLE_SERVICE && process->adj == ADJ_SERVICE) {
			/* The newest third of the services (and one) stay on the A list. */
			if (services_a > services / 3)
				process->adj = ADJ_SERVICE_B;
			else
				services_a++;
		} else if (process->role == ADJ_ROLE_APP && process->adj == ADJ_CACHED_MIN) {
			process->adj = next_cached(&activity);
		} else if (process->role == ADJ_ROLE_EMPTY && process->adj == ADJ_CACHED_MIN) {
			process->adj = next_cached(&empty);
		}
	}
}

static int selftest_line(struct adj_state *state, const char *line)
{
	char word[16], role[16], rest[16];
	int id, adj;

	if (sscanf(line, "%15s %d", word, &id) != 2)
		return -EINVAL;
	if (!strcmp(word, "start")) {
		if (sscanf(line, "%*s %*d %15s %15s %d", role, rest, &adj) != 3)
			return -EINVAL;
		if (adj_role_by_name(role) < 0 || adj_rest_by_name(rest) < 0)
			return -EINVAL;
		return adj_start(state, id, (enum adj_role)adj_role_by_name(role),
				 (enum adj_rest)adj_rest_by_name(rest), adj);
	}
	if (!strcmp(word, "launch"))
		adj_launch(state, id);
	else if (!strcmp(word, "leave"))
		adj_leave(state, id);
	else if (!strcmp(word, "gone"))
		adj_gone(state, id);
	else
		return -EINVAL;
	return 0;
}

int adj_selftest(void)
{
	static struct adj_state state;
	char line[128];

	adj_init(&state);
	while (fgets(line, sizeof(line), stdin)) {
		if (selftest_line(&state, line) < 0) {
			fprintf(stderr, "lmk-apprunner: not an operation: %s", line);
			return 2;
		}
		adj_assign(&state);
		printf("%d %d", state.top, state.previous);
		for (int i = 0; i < state.count; i++)
			printf(" %d:%d", state.lru[i].id, state.lru[i].adj);
		printf("\n");
	}
	return 0;
}
