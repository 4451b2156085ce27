/* SPDX-License-Identifier: Apache-2.0 */
#include "apprunner_timeline.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

#define SPACE " \t\r"
#define KIB_MAX (1ll << 34)

static const char *const action_names[] = { "launch", "background", "grow", "leak", "touch", "exit" };

/* Splits the next KEY=NUMBER off: 1, 0 at the end of the line, -EINVAL for anything else. */
static int next_pair(char **save, char **ret_key, int64_t *ret_number)
{
	char *word = strtok_r(NULL, SPACE, save), *equals;

	if (!word)
		return 0;
	equals = strchr(word, '=');
	if (!equals)
		return -EINVAL;
	*equals = 0;
	*ret_key = word;
	return lmk_parse_i64(equals + 1, ret_number) < 0 ? -EINVAL : 1;
}

/* Names go into JSON, cgroup-free paths and /proc: letters, digits and a few marks. */
static int name_is_fine(const char *name)
{
	size_t length = strlen(name);

	return length > 0 && length < APP_NAME_MAX &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-") == length;
}

static int set_plan_number(struct process_plan *plan, const char *key, int64_t number)
{
	if (number < (strcmp(key, "adj") ? 0 : -1000) || number > KIB_MAX)
		return -ERANGE;
	if (!strcmp(key, "uid"))
		plan->uid = (uid_t)number;
	else if (!strcmp(key, "adj"))
		plan->adj = (int)number;
	else if (!strcmp(key, "anon_kib"))
		plan->anon_kib = (uint64_t)number;
	else if (!strcmp(key, "file_kib"))
		plan->file_kib = (uint64_t)number;
	else if (!strcmp(key, "pinned_kib"))
		plan->pinned_kib = (uint64_t)number;
	else if (!strcmp(key, "ratio"))
		plan->ratio_permille = (uint32_t)number;
	else if (!strcmp(key, "hot"))
		plan->hot_permille = number > 1000 ? 1000 : (uint32_t)number;
	else if (!strcmp(key, "cold_start_ms"))
		plan->cold_start_ms = (uint32_t)number;
	else if (!strcmp(key, "touch_every_ms"))
		plan->touch_every_ms = number < 100 ? 100 : (uint32_t)number;
	else if (!strcmp(key, "cpu"))
		plan->cpu_permille = number > 1000 ? 1000 : (uint32_t)number;
	else if (!strcmp(key, "growth"))
		plan->growth_kib_per_min = (uint64_t)number;
	else if (!strcmp(key, "autostart"))
		plan->autostart = number != 0;
	else if (!strcmp(key, "restart"))
		plan->restart = number != 0;
	else if (!strcmp(key, "locked"))
		plan->locked = number != 0;
	else
		return -EINVAL;
	return 0;
}

/* process ID NAME ROLE REST key=number... with ids counted from 0 in order. */
static const char *parse_process(struct timeline *timeline, char **save)
{
	struct process_plan *plan = &timeline->plans[timeline->plans_count];
	const char *id = strtok_r(NULL, SPACE, save), *name = strtok_r(NULL, SPACE, save);
	const char *role = strtok_r(NULL, SPACE, save), *rest = strtok_r(NULL, SPACE, save);
	int64_t number;
	char *key;
	int more;

	if (timeline->plans_count == PLANS_MAX)
		return "too many processes";
	if (!rest || lmk_parse_i64(id, &number) < 0 || number != timeline->plans_count)
		return "expected: process ID NAME ROLE REST key=number...";
	if (!name_is_fine(name))
		return "not a name";
	if (adj_role_by_name(role) < 0 || adj_rest_by_name(rest) < 0)
		return "unknown role";
	*plan = (struct process_plan){ .ratio_permille = 2500, .touch_every_ms = 1000 };
	strcpy(plan->name, name);
	plan->role = (enum adj_role)adj_role_by_name(role);
	plan->rest = (enum adj_rest)adj_rest_by_name(rest);
	while ((more = next_pair(save, &key, &number)) > 0) {
		if (set_plan_number(plan, key, number) < 0)
			return "unknown key or number out of range";
	}
	if (more < 0)
		return "expected key=number";
	timeline->plans_count++;
	return NULL;
}

static int set_step_number(struct step *step, const char *key, int64_t number)
{
	if (number < 0 || number > KIB_MAX)
		return -ERANGE;
	if (!strcmp(key, "kib"))
		step->kib = (uint64_t)number;
	else if (!strcmp(key, "over_ms"))
		step->over_ms = (uint64_t)number;
	else if (!strcmp(key, "kib_per_s"))
		step->kib_per_s = (uint64_t)number;
	else if (!strcmp(key, "anon"))
		step->anon_permille = number > 1000 ? 1000 : (uint32_t)number;
	else if (!strcmp(key, "file"))
		step->file_permille = number > 1000 ? 1000 : (uint32_t)number;
	else if (!strcmp(key, "times"))
		step->times = (uint32_t)number;
	else
		return -EINVAL;
	return 0;
}

const char *timeline_parse_step(const struct timeline *timeline, char *text, struct step *ret_step)
{
	char *save, *key, *word = strtok_r(text, SPACE, &save), *id = word ? strtok_r(NULL, SPACE, &save) : NULL;
	struct step step = { .times = 1 };
	int64_t number;
	size_t action = 0;
	int more;

	if (!id)
		return "expected: ACTION PROCESS key=number...";
	while (action < LMK_ARRAY_LEN(action_names) && strcmp(action_names[action], word))
		action++;
	if (action == LMK_ARRAY_LEN(action_names))
		return "unknown action";
	step.action = (enum step_action)action;
	if (lmk_parse_i64(id, &number) < 0 || number < 0 || number >= timeline->plans_count)
		return "unknown process";
	step.process = (int)number;
	while ((more = next_pair(&save, &key, &number)) > 0) {
		if (set_step_number(&step, key, number) < 0)
			return "unknown key or number out of range";
	}
	if (more < 0)
		return "expected key=number";
	*ret_step = step;
	return NULL;
}

static const char *parse_at(struct timeline *timeline, char **save)
{
	const char *time = strtok_r(NULL, SPACE, save);
	struct step step;
	const char *why;
	int64_t t_ms;

	if (timeline->steps_count == STEPS_MAX)
		return "too many steps";
	if (!time || lmk_parse_i64(time, &t_ms) < 0 || t_ms < 0)
		return "expected: at MILLISECONDS ACTION...";
	if (timeline->steps_count && timeline->steps[timeline->steps_count - 1].t_ms > t_ms)
		return "earlier than the step before";
	/* musl leaves NULL behind the last word. */
	why = *save ? timeline_parse_step(timeline, *save, &step) : "expected an action";
	if (why)
		return why;
	step.t_ms = t_ms;
	timeline->steps[timeline->steps_count++] = step;
	return NULL;
}

/* PAGES:ADJ,... with at most six pairs */
static const char *parse_minfree(struct timeline *timeline, char *text)
{
	char *save, *pair;
	int pages, adj;

	timeline->minfree_count = 0;
	for (pair = strtok_r(text, ",", &save); pair; pair = strtok_r(NULL, ",", &save)) {
		if (timeline->minfree_count == 6 || sscanf(pair, "%d:%d", &pages, &adj) != 2)
			return "expected PAGES:ADJ,...";
		timeline->minfree[timeline->minfree_count][0] = pages;
		timeline->minfree[timeline->minfree_count++][1] = adj;
	}
	return NULL;
}

static const char *parse_option(struct timeline *timeline, char **save)
{
	const char *name = strtok_r(NULL, SPACE, save);
	char *value = strtok_r(NULL, SPACE, save);
	int64_t number = 0;

	if (!value)
		return "expected: option NAME VALUE";
	if (!strcmp(name, "minfree"))
		return parse_minfree(timeline, value);
	if (lmk_parse_i64(value, &number) < 0 || number < 0)
		return "not a number";
	if (!strcmp(name, "freeze"))
		timeline->freeze = number != 0;
	else if (!strcmp(name, "freeze_delay_ms"))
		timeline->freeze_delay_ms = number;
	else if (!strcmp(name, "compact"))
		timeline->compact = number != 0;
	else if (!strcmp(name, "reregister"))
		timeline->reregister = number != 0;
	else
		return "unknown option";
	return NULL;
}

static const char *parse_number(char **save, int64_t *ret_number)
{
	const char *word = strtok_r(NULL, SPACE, save);

	return word && lmk_parse_i64(word, ret_number) == 0 && *ret_number >= 0 ? NULL : "expected a number";
}

static const char *parse_line(struct timeline *timeline, char *line)
{
	char *save, *word = strtok_r(line, SPACE, &save);
	const char *why;
	int64_t number = 0;

	if (!word || *word == '#')
		return NULL;
	if (!strcmp(word, "lmk-timeline")) {
		why = parse_number(&save, &number);
		return why ? why : number == 1 ? NULL : "this runner knows version 1";
	}
	if (!strcmp(word, "seed")) {
		why = parse_number(&save, &number);
		timeline->seed = (uint64_t)number;
		return why;
	}
	if (!strcmp(word, "option"))
		return parse_option(timeline, &save);
	if (!strcmp(word, "process"))
		return parse_process(timeline, &save);
	if (!strcmp(word, "at"))
		return parse_at(timeline, &save);
	if (!strcmp(word, "end"))
		return parse_number(&save, &timeline->end_ms);
	return "unknown statement";
}

int timeline_parse(struct timeline *timeline, char *text, const char **ret_why)
{
	int number = 0;

	memset(timeline, 0, sizeof(*timeline));
	timeline->end_ms = -1;
	timeline->reregister = 1;
	timeline->freeze_delay_ms = 10000;
	while (text) {
		char *end = strchr(text, '\n');
		const char *why;

		number++;
		if (end)
			*end = 0;
		why = parse_line(timeline, text);
		if (why) {
			*ret_why = why;
			return number;
		}
		text = end ? end + 1 : NULL;
	}
	if (timeline->end_ms < 0) {
		*ret_why = "no end statement";
		return number;
	}
	return 0;
}
