/* SPDX-License-Identifier: Apache-2.0 */
#include "apprunner_run.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apprunner_events.h"
#include "apprunner_memory.h"
#include "apprunner_restart.h"
#include "common.h"

#define RETRY_SPAWN_NS (500 * NS_PER_MS)
#define NEVER INT64_MAX

static const struct process_plan *plan_of(const struct run *run, int index)
{
	return &run->timeline.plans[index];
}

static double since_zero_ms(const struct run *run, int64_t t_ns)
{
	return run->zero_ns ? (double)(t_ns - run->zero_ns) / 1e6 : 0.0;
}

void run_init(struct run *run)
{
	struct stat status;
	int error;

	adj_init(&run->adj);
	cgroup_find_roots(&run->roots);
	error = cgroup_prepare(&run->roots);
	if (error < 0)
		events_add("cgroup_failed", "\"errno\":%d", -error);
	run->pool_fd = run->pool_path ? open(run->pool_path, O_RDONLY | O_CLOEXEC) : -1;
	if (run->pool_fd >= 0 && fstat(run->pool_fd, &status) == 0)
		run->pool_pages = (uint64_t)status.st_size / PAGE_BYTES;
	else if (run->pool_path)
		events_add("pool_missing", "\"errno\":%d", errno);
}

int run_load(struct run *run, char *text, const char **ret_why)
{
	int line;

	if (run->preparing || run->running) {
		*ret_why = "a timeline is in use";
		return 1;
	}
	line = timeline_parse(&run->timeline, text, ret_why);
	if (line)
		return line;
	memcpy(run->lmkd.minfree, run->timeline.minfree, sizeof(run->lmkd.minfree));
	run->lmkd.minfree_count = run->timeline.minfree_count;
	run->loaded = 1;
	events_add("loaded", "\"processes\":%d,\"steps\":%d,\"end_ms\":%lld,\"pool_kib\":%llu",
		   run->timeline.plans_count, run->timeline.steps_count, (long long)run->timeline.end_ms,
		   (unsigned long long)run->pool_pages * (PAGE_BYTES / 1024));
	return 0;
}

/* Makes a process exist and, if it shows something, tells it so. */
static int begin(struct run *run, int index, int64_t now_ns)
{
	const struct process_plan *plan = plan_of(run, index);
	struct process *process = &run->processes[index];
	int error;

	if (!process->pid) {
		adj_start(&run->adj, index, plan->role, plan->rest, plan->adj);
		adj_launch(&run->adj, index);
		adj_assign(&run->adj);
		error = process_spawn(run, index);
		if (error < 0) {
			adj_gone(&run->adj, index);
			process->restart_ns = now_ns + RETRY_SPAWN_NS;
			return error;
		}
		process->cold = 1;
	} else {
		adj_launch(&run->adj, index);
		process->cold = 0;
	}
	process->restart_ns = 0;
	process->showing = 1;
	process->seen = 0;
	process->show_ns = now_ns;
	process->serial = ++run->next_serial;
	process_thaw(run, index);
	process_send(run, index, APP_SHOW, process->serial, 0, 0);
	return 0;
}

static int home_plan(const struct run *run)
{
	for (int i = 0; i < run->timeline.plans_count; i++) {
		if (plan_of(run, i)->role == ADJ_ROLE_HOME)
			return i;
	}
	return ADJ_NOBODY;
}

/* After any change of what is on top: hides the old one, shows home if home it is, tells lmkd. */
static void top_changed(struct run *run, int old_top, int64_t now_ns)
{
	int home = home_plan(run);

	if (run->adj.top == ADJ_NOBODY && home != ADJ_NOBODY && !run->processes[home].restart_ns) {
		begin(run, home, now_ns);
	} else if (run->adj.top != old_top && run->adj.top == home && home != ADJ_NOBODY &&
		   !run->processes[home].showing) {
		begin(run, home, now_ns);
	}
	if (old_top != ADJ_NOBODY && old_top != run->adj.top)
		process_send(run, old_top, APP_HIDE, 0, 0, 0);
	process_apply_adj(run);
}

static void launch(struct run *run, int index, int64_t now_ns)
{
	const struct process_plan *plan = plan_of(run, index);
	const struct process *process = &run->processes[index];
	int old_top = run->adj.top, cold = !process->pid;

	if (process->pid && plan->role != ADJ_ROLE_APP && plan->role != ADJ_ROLE_HOME)
		return;		/* a service that runs */
	/* Asked for: ActiveServices forgets how often it had to start it again (resetRestartCounter). */
	run->processes[index].restart_delay_ns = 0;
	if (begin(run, index, now_ns) < 0)
		return;
	events_add(plan->role == ADJ_ROLE_APP || plan->role == ADJ_ROLE_HOME ? "launching" : "service_started",
		   "\"app\":\"%s\",\"pid\":%d,\"cold\":%s,\"t_ms\":%.3f", plan->name, (int)process->pid,
		   cold ? "true" : "false", since_zero_ms(run, now_ns));
	top_changed(run, old_top, now_ns);
}

static void step_on_living(struct run *run, const struct step *step)
{
	int index = step->process;
	struct process *process = &run->processes[index];

	if (!process->pid) {
		events_add("skipped", "\"app\":\"%s\",\"why\":\"dead\"", plan_of(run, index)->name);
		return;
	}
	/* Whatever an app does, it must run for it: Android thaws an app that gets work. */
	process_thaw(run, index);
	if (process->cached_ns)
		process->cached_ns = lmk_now_ns();
	switch (step->action) {
	case STEP_GROW:
		process_send(run, index, APP_GROW, 0, step->kib / (PAGE_BYTES / 1024), step->over_ms);
		break;
	case STEP_LEAK:
		process_send(run, index, APP_LEAK, 0, step->kib_per_s, step->kib / (PAGE_BYTES / 1024));
		break;
	case STEP_TOUCH:
		process_send(run, index, APP_TOUCH, 0, (uint64_t)step->anon_permille << 32 | step->file_permille,
			     step->times);
		break;
	case STEP_EXIT:
		process->exiting = 1;
		process_send(run, index, APP_EXIT, 0, 0, 0);
		break;
	default:
		break;
	}
}

void run_step(struct run *run, const struct step *step)
{
	static const char *const names[] = { "launch", "background", "grow", "leak", "touch", "exit" };
	int64_t now_ns = lmk_now_ns();
	int old_top = run->adj.top;

	events_add_at(now_ns, "step", "\"action\":\"%s\",\"app\":\"%s\",\"t_ms\":%.3f", names[step->action],
		      plan_of(run, step->process)->name, since_zero_ms(run, now_ns));
	if (step->action == STEP_LAUNCH) {
		launch(run, step->process, now_ns);
	} else if (step->action == STEP_BACKGROUND) {
		adj_leave(&run->adj, step->process);
		if (run->adj.top != old_top)
			top_changed(run, old_top, now_ns);
	} else {
		step_on_living(run, step);
	}
}

static void note_prepared(struct run *run)
{
	if (!run->preparing || run->prepared)
		return;
	for (int i = 0; i < run->timeline.plans_count; i++) {
		const struct process *process = &run->processes[i];

		if (plan_of(run, i)->autostart && (process->restart_ns || (process->pid && !process->filled)))
			return;
	}
	run->prepared = 1;
	run_memory_event("prepared");
	events_add("prepared", NULL);
}

void run_prepare(struct run *run)
{
	int64_t now_ns = lmk_now_ns();

	run->preparing = 1;
	for (int i = 0; i < run->timeline.plans_count; i++) {
		if (plan_of(run, i)->autostart && !run->processes[i].pid)
			begin(run, i, now_ns);
	}
	process_apply_adj(run);
	note_prepared(run);
}

void run_go(struct run *run)
{
	run->zero_ns = lmk_now_ns();
	run->running = 1;
	events_add_at(run->zero_ns, "started", "\"seed\":%llu,\"end_ms\":%lld",
		      (unsigned long long)run->timeline.seed, (long long)run->timeline.end_ms);
}

static void answered(struct run *run, int index, const struct app_message *message)
{
	static const char *const failures[] = { "arena", "file", "lock", "thread" };
	const struct process_plan *plan = plan_of(run, index);
	struct process *process = &run->processes[index];

	switch (message->kind) {
	case APP_BORN:
		process->anon_address = message->a;
		process->file_address = message->b;
		break;
	case APP_SEEN:
		process->seen |= message->serial == process->serial;
		break;
	case APP_SHOWN:
		if (!process->showing || message->serial != process->serial)
			break;
		process->showing = 0;
		if (plan->role != ADJ_ROLE_APP && plan->role != ADJ_ROLE_HOME)
			break;
		events_add_at(message->t_ns, plan->role == ADJ_ROLE_HOME ? "home_shown" : "launch",
			      "\"app\":\"%s\",\"pid\":%d,\"cold\":%s,\"t_ms\":%.3f,\"launch_ms\":%.3f,"
			      "\"in_front\":%s,\"minor_faults\":%llu,\"major_faults\":%llu",
			      plan->name, (int)process->pid, process->cold ? "true" : "false",
			      since_zero_ms(run, process->show_ns),
			      (double)(message->t_ns - process->show_ns) / 1e6,
			      run->adj.top == index ? "true" : "false", (unsigned long long)message->a,
			      (unsigned long long)message->b);
		break;
	case APP_FILLED:
		process->filled = 1;
		events_add_at(message->t_ns, "filled", "\"app\":\"%s\",\"pid\":%d,\"after_ms\":%.3f", plan->name,
			      (int)process->pid, (double)(message->t_ns - process->born_ns) / 1e6);
		note_prepared(run);
		break;
	case APP_SWEPT:
		events_add_at(message->t_ns, "touched",
			      "\"app\":\"%s\",\"pid\":%d,\"minor_faults\":%llu,\"major_faults\":%llu", plan->name,
			      (int)process->pid, (unsigned long long)message->a, (unsigned long long)message->b);
		break;
	case APP_GREW:
		events_add_at(message->t_ns, "grew", "\"app\":\"%s\",\"pid\":%d,\"anon_kib\":%llu,\"full\":%s",
			      plan->name, (int)process->pid, (unsigned long long)message->a * (PAGE_BYTES / 1024),
			      message->b ? "true" : "false");
		break;
	case APP_FAILED:
		events_add_at(message->t_ns, "app_failed", "\"app\":\"%s\",\"pid\":%d,\"what\":\"%s\",\"errno\":%d",
			      plan->name, (int)process->pid,
			      message->b < LMK_ARRAY_LEN(failures) ? failures[message->b] : "?", (int)message->a);
		break;
	default:
		break;
	}
}

void run_app_readable(struct run *run, int index)
{
	struct process *process = &run->processes[index];
	struct app_message message;

	while (process->pid) {
		ssize_t got = recv(process->socket, &message, sizeof(message), MSG_DONTWAIT);

		if (got == (ssize_t)sizeof(message)) {
			answered(run, index, &message);
			continue;
		}
		/* End of file: the death follows on the pidfd, this descriptor has nothing more to say. */
		if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
			epoll_ctl(run->epoll, EPOLL_CTL_DEL, process->socket, NULL);
		return;
	}
}

static void plan_restart(struct run *run, int index, int64_t now_ns)
{
	const struct process_plan *plan = plan_of(run, index);
	struct process *process = &run->processes[index];
	int64_t others_ns[PLANS_MAX];
	int count = 0;

	if (!plan->restart || process->exiting)
		return;
	/* ActiveServices: persistent processes are immediately restarted. */
	if (plan->role == ADJ_ROLE_PERSISTENT) {
		process->restart_ns = now_ns;
		return;
	}
	for (int i = 0; i < run->timeline.plans_count; i++) {
		if (i != index && run->processes[i].restart_ns)
			others_ns[count++] = run->processes[i].restart_ns;
	}
	process->restart_ns = restart_next(process->restart_delay_ns, now_ns - process->born_ns, now_ns, others_ns,
					   count);
	process->restart_delay_ns = process->restart_ns - now_ns;
}

void run_app_died(struct run *run, int index)
{
	const struct process_plan *plan = plan_of(run, index);
	struct process *process = &run->processes[index];
	int64_t now_ns = lmk_now_ns();
	int old_top = run->adj.top, missed, status = 0;
	siginfo_t info = { 0 };

	if (!process->pid)
		return;
	run_app_readable(run, index);
	if (waitid(P_PID, (id_t)process->pid, &info, WEXITED | WNOHANG) < 0 || !info.si_pid)
		return;
	status = info.si_status;
	events_add_at(now_ns, "died",
		      "\"app\":\"%s\",\"pid\":%d,\"uid\":%u,\"adj\":%d,\"signal\":%d,\"code\":%d,\"expected\":%s,"
		      "\"launching\":%s,\"t_ms\":%.3f",
		      plan->name, (int)process->pid, (unsigned int)plan->uid, process->sent_adj,
		      info.si_code == CLD_EXITED ? 0 : status, info.si_code == CLD_EXITED ? status : 0,
		      process->exiting ? "true" : "false", process->showing ? "true" : "false",
		      since_zero_ms(run, now_ns));
	/* The user opened an app that was already dying: ActivityManager starts it anew. */
	missed = process->showing && !process->cold && !process->seen && old_top == index;
	plan_restart(run, index, now_ns);
	process_forget(run, index);
	process->exiting = 0;
	if (missed) {
		int64_t asked_ns = process->show_ns;

		if (begin(run, index, now_ns) == 0)
			process->show_ns = asked_ns;
	}
	top_changed(run, old_top == index ? ADJ_NOBODY : old_top, now_ns);
	note_prepared(run);
}

void run_compacted(struct run *run, const struct compact_result *result)
{
	events_add_at(result->end_ns, "compacted",
		      "\"app\":\"%s\",\"pid\":%d,\"file\":%s,\"anon\":%s,\"errno\":%d,\"ms\":%.3f,"
		      "\"rss_before_kib\":%lld,\"rss_after_kib\":%lld",
		      plan_of(run, result->process)->name, (int)result->pid,
		      result->kinds & COMPACT_FILE ? "true" : "false", result->kinds & COMPACT_ANON ? "true" : "false",
		      -result->error, (double)(result->end_ns - result->begin_ns) / 1e6,
		      (long long)result->rss_before_kib, (long long)result->rss_after_kib);
}

static void lmkd_connected(struct run *run)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = (uint64_t)WATCH_LMKD << 32 };

	epoll_ctl(run->epoll, EPOLL_CTL_ADD, run->lmkd.fd, &event);
	/* ActivityManager registers nothing again with a restarted lmkd; the timeline's option does. */
	if (!run->lmkd_seen || run->timeline.reregister) {
		for (int i = 0; i < run->timeline.plans_count; i++)
			run->processes[i].dirty = run->processes[i].pid != 0;
	}
	run->lmkd_seen = 1;
	process_apply_adj(run);
}

void run_lmkd_readable(struct run *run)
{
	lmkd_read(&run->lmkd);
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t steps_due(struct run *run, int64_t now_ns)
{
	const struct timeline *timeline = &run->timeline;

	while (run->running && run->next_step < timeline->steps_count) {
		int64_t at_ns = run->zero_ns + timeline->steps[run->next_step].t_ms * NS_PER_MS;

		if (at_ns > now_ns)
			return at_ns;
		run_step(run, &timeline->steps[run->next_step++]);
	}
	if (run->running && !run->done) {
		int64_t end_ns = run->zero_ns + timeline->end_ms * NS_PER_MS;

		if (end_ns > now_ns)
			return end_ns;
		run->done = 1;
		run_memory_event("done");
		events_add("done", "\"t_ms\":%.3f", since_zero_ms(run, lmk_now_ns()));
	}
	return NEVER;
}

static int64_t processes_due(struct run *run, int64_t now_ns)
{
	int64_t delay_ns = run->timeline.freeze_delay_ms * NS_PER_MS, next_ns = NEVER;
	int optimizes = run->timeline.freeze || run->timeline.compact;

	for (int i = 0; i < run->timeline.plans_count; i++) {
		struct process *process = &run->processes[i];

		if (optimizes && process->pid && process->cached_ns && !process->frozen) {
			if (process->cached_ns + delay_ns <= now_ns)
				process_freeze(run, i);
			else
				next_ns = earlier(next_ns, process->cached_ns + delay_ns);
		}
		if (process->restart_ns && !process->pid && process->restart_ns <= now_ns) {
			int old_top = run->adj.top;

			process->restart_ns = 0;
			/* begin() launches, which only apps and home take to the top. */
			if (begin(run, i, now_ns) == 0)
				top_changed(run, old_top, now_ns);
		}
		if (process->restart_ns && !process->pid)
			next_ns = earlier(next_ns, process->restart_ns);
	}
	return next_ns;
}

int64_t run_due(struct run *run, int64_t now_ns)
{
	int64_t next_ns;

	if (run->loaded && lmkd_poll(&run->lmkd, now_ns))
		lmkd_connected(run);
	if (run->retry_ns && run->retry_ns <= now_ns)
		process_apply_adj(run);
	next_ns = earlier(steps_due(run, now_ns), processes_due(run, now_ns));
	if (run->loaded && run->lmkd.fd < 0 && run->lmkd.path)
		next_ns = earlier(next_ns, run->lmkd.retry_ns);
	if (run->retry_ns)
		next_ns = earlier(next_ns, run->retry_ns);
	return next_ns;
}

void run_stop(struct run *run)
{
	for (int i = 0; i < run->timeline.plans_count; i++) {
		struct process *process = &run->processes[i];

		process->restart_ns = 0;
		if (process->pid)
			kill(process->pid, SIGKILL);
	}
	for (int i = 0; i < run->timeline.plans_count; i++) {
		struct process *process = &run->processes[i];

		if (process->pid) {
			waitpid(process->pid, NULL, 0);
			process_forget(run, i);
		}
	}
	events_add("stopped", NULL);
}
