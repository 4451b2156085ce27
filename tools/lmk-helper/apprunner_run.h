/* SPDX-License-Identifier: Apache-2.0
 *
 * The run: processes as ActivityManager keeps them, and the steps of a timeline carried out on them.
 */
#ifndef LMK_APPRUNNER_RUN_H
#define LMK_APPRUNNER_RUN_H

#include <stdint.h>

#include "apprunner_adj.h"
#include "apprunner_cgroup.h"
#include "apprunner_lmkd.h"
#include "apprunner_timeline.h"

/* What an epoll event is about; the low half of its data is the process's number. */
enum watch { WATCH_LISTEN = 1, WATCH_CLIENT, WATCH_LMKD, WATCH_COMPACT, WATCH_APP, WATCH_DEATH };

struct process {
	pid_t pid;		/* 0: does not exist */
	int pidfd, socket;
	int sent_adj;		/* what lmkd was told (or the file was given) last */
	int dirty;		/* adj must be sent */
	int frozen, compacted, filled;
	int exiting;		/* an exit step asked for it */
	int64_t cached_ns;	/* since when it is a cached app; 0: is not */
	/* the launch in progress */
	int showing, seen, cold;
	uint32_t serial;
	int64_t show_ns;
	int64_t born_ns;
	int64_t restart_ns;	/* when to start it again; 0: not */
	int64_t restart_delay_ns;	/* how long it had to wait for that the last time; 0: it never had */
	uint64_t anon_address, file_address;
};

struct run {
	struct timeline timeline;
	struct process processes[PLANS_MAX];
	struct adj_state adj;
	struct lmkd_client lmkd;
	struct cgroup_roots roots;
	const char *pool_path;
	int pool_fd;		/* -1: no pool file */
	uint64_t pool_pages;
	int epoll;
	int lmkd_watched;
	int lmkd_seen;		/* has been connected once */
	int loaded, preparing, prepared, running, done;
	int64_t zero_ns;	/* when the steps' clock began */
	int next_step;
	uint32_t next_serial;
	int64_t retry_ns;	/* adj values that could not be sent: when to try again; 0: none */
};

/* Opens the pool file and the cgroups. The caller has set the paths. */
void run_init(struct run *run);
/* Takes a timeline (the text is modified). 0, or the line that is wrong. */
int run_load(struct run *run, char *text, const char **ret_why);
/* Starts what runs before any step; an event "prepared" follows once it has filled its memory. */
void run_prepare(struct run *run);
/* The steps' clock starts now. */
void run_go(struct run *run);
/* Carries one step out at once. */
void run_step(struct run *run, const struct step *step);
/* Kills every process and waits for the deaths. */
void run_stop(struct run *run);
/* An event "status" per living process, and one "memory". */
void run_status(struct run *run);
void run_memory_event(const char *when);

/* Everything that is due by now; answers when to call again (CLOCK_MONOTONIC ns). */
int64_t run_due(struct run *run, int64_t now_ns);
/* What epoll reported. */
void run_app_readable(struct run *run, int process);
void run_app_died(struct run *run, int process);
void run_compacted(struct run *run, const struct compact_result *result);
void run_lmkd_readable(struct run *run);

/* --- between apprunner_run.c and apprunner_process.c --- */

/* Forks and execs the app: 0 or -errno (events say what failed). It must be in run->adj already. */
int process_spawn(struct run *run, int process);
void process_send(struct run *run, int process, uint32_t kind, uint32_t serial, uint64_t a, uint64_t b);
/* Sends changed oom_score_adj values, newest process first, and keeps the freezer's clock. */
void process_apply_adj(struct run *run);
void process_freeze(struct run *run, int process);
void process_thaw(struct run *run, int process);
/* Forgets a dead process (descriptors, cgroups, lmkd's record, LRU). */
void process_forget(struct run *run, int process);
const char *process_group(const struct process_plan *plan);

#endif
