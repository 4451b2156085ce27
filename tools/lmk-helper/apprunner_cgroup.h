/* SPDX-License-Identifier: Apache-2.0
 *
 * Each app's cgroups (memory where lmkd looks for it, freezer), and what Android's CachedAppOptimizer does with
 * cached apps: freeze them, and compact (page out) their memory on a thread of its own.
 */
#ifndef LMK_APPRUNNER_CGROUP_H
#define LMK_APPRUNNER_CGROUP_H

#include <stdint.h>
#include <sys/types.h>

struct cgroup_roots {
	const char *memory_v1;	/* /dev/memcg, or NULL */
	const char *unified;	/* /sys/fs/cgroup (v2), or NULL */
};

/* Finds which of the hierarchies exist; arguments that are not NULL are taken as they are. */
void cgroup_find_roots(struct cgroup_roots *roots);
/* Prepares the "apps" and "system" groups (memory controller on v2). 0 or the first -errno. */
int cgroup_prepare(const struct cgroup_roots *roots);
/* Makes ROOT/GROUP/uid_U/pid_P in each hierarchy and moves this process there. Async-signal-safe. */
int cgroup_enter(const struct cgroup_roots *roots, const char *group, uid_t uid);
/* Removes the process's groups; call it after it was reaped. */
void cgroup_remove(const struct cgroup_roots *roots, const char *group, uid_t uid, pid_t pid);
/* cgroup v2 freezer. 0 or -errno. */
int cgroup_freeze(const struct cgroup_roots *roots, const char *group, uid_t uid, pid_t pid, int frozen);

enum compact_kind { COMPACT_FILE = 1, COMPACT_ANON = 2 };

struct compact_job {
	pid_t pid;
	int pidfd;		/* a duplicate; the thread closes it */
	int process;		/* the runner's number of the process */
	unsigned int kinds;
	uint64_t anon_address, anon_pages;
	uint64_t file_address, file_pages;
};

struct compact_result {
	pid_t pid;
	int process;
	unsigned int kinds;
	int error;		/* 0, -ECANCELED or another -errno */
	int64_t begin_ns, end_ns;
	int64_t rss_before_kib, rss_after_kib;
};

/* Starts the thread; results are read from the descriptor it answers (one struct per read), or -errno. */
int compact_start(void);
/* 0, or -EAGAIN if too many jobs wait. */
int compact_submit(const struct compact_job *job);
/* A process is needed again: stop what is done or waits for it. */
void compact_cancel(pid_t pid);

#endif
