// SPDX-License-Identifier: GPL-2.0
/*
 * Three ways to kill a cgroup and get its memory back: cgroup.kill, which leaves the freeing to the victims (where that
 * file is missing: SIGKILL for each); what userspace can do on any kernel (pidfds first, then SIGKILL, then
 * process_reap() on several threads, until the cgroup is empty); cgroup.reap, with one and with two writers.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CGROUP "/sys/fs/cgroup/bench"
#define REAP_EVENT "oom/process_reap"
#define VICTIMS_MAX 4096
#define REAPERS 2
#define PASSES_MAX 50
#define ROUNDS 5
#define BACK_LIMIT_MS 1500
#define FORKERS 4
#define CHILDREN_MAX 900
#define STORM_MS 30
#define FROZEN "/mnt/file"

enum way { SIGNALS, KILL, BATCH, REAP, REAP_BY_TWO, WAYS };

static const char *const WAY_NAMES[] = {
	"SIGKILL each", "cgroup.kill", "batch", "cgroup.reap", "cgroup.reap, 2 writers",
};

struct scene {
	const char *name;
	int processes;
	size_t mib_each;
	bool storm, stuck, starved;
};

struct attempt {
	const struct scene *scene;
	enum way way;
	/* How it went. */
	int calls, late, lost, passes;
};

/* --- victims --- */

static void run_on(int cpu, int priority)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus) || setpriority(PRIO_PROCESS, 0, priority))
		die("CPU %d, nice %d", cpu, priority);
}

/* Somebody more important than the victims has their CPU. */
static pid_t start_hog(void)
{
	int ready;
	pid_t pid = spawn(&ready);

	if (!pid) {
		run_on(1, -20);
		say_ready(ready);
		for (;;)
			;
	}
	await_ready(ready);
	return pid;
}

static void fill(size_t bytes)
{
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		_exit(1);
	memset(memory, 1, bytes);
}

static void fork_on(void)
{
	int i;

	for (i = 0; i < CHILDREN_MAX; i++) {
		if (!fork()) {
			fill(64 * 1024);
			hold();
		}
	}
	hold();
}

static void start_in_cgroup(const struct scene *scene, bool stuck)
{
	int ready;
	pid_t pid = spawn(&ready);

	if (pid) {
		await_ready(ready);
		return;
	}
	must_write(CGROUP "/cgroup.procs", "0");
	setpriority(PRIO_PROCESS, 0, 0);
	if (scene->starved)
		run_on(1, 19);
	fill(scene->mib_each * MIB);
	say_ready(ready);
	if (scene->storm)
		fork_on();
	if (stuck) {
		/* The file system is frozen: this sleep ends for no signal. */
		try_write(FROZEN, "x");
	}
	hold();
}

static void freeze(bool on)
{
	int fd = open("/mnt", O_RDONLY);

	if (ioctl(fd, on ? FIFREEZE : FITHAW, 0))
		die("freezing /mnt");
	close(fd);
}

/* After a row that was ended: it may have left the file system frozen, and everything that waits for it. */
static void thaw_anyway(void)
{
	int fd = open("/mnt", O_RDONLY);

	ioctl(fd, FITHAW, 0);
	close(fd);
}

/* --- when is the memory back? --- */

struct watch {
	long wanted_kib[2];
	long long start_ns, back_ns[2];
	volatile bool stop;
};

static void *watch_memory(void *arg)
{
	struct watch *watch = arg;
	int i;

	while (!watch->stop && now_ns() - watch->start_ns < BACK_LIMIT_MS * NS_PER_MS) {
		long now_kib = available_kib();

		for (i = 0; i < 2; i++) {
			if (!watch->back_ns[i] && now_kib >= watch->wanted_kib[i])
				watch->back_ns[i] = now_ns() - watch->start_ns;
		}
		if (watch->back_ns[0] && watch->back_ns[1])
			break;
		nap_ms(1);
	}
	return NULL;
}

/* --- the ways --- */

static int list_processes(pid_t *pids, int max, int *calls)
{
	static char text[64 * 1024];
	ssize_t length = read_text(CGROUP "/cgroup.procs", text, sizeof(text));
	char *at = text;
	int count = 0;

	/* open, read until it returns 0, close */
	*calls += 4;
	while (length > 0 && count < max && *at) {
		pids[count++] = strtol(at, &at, 10);
		while (*at == '\n')
			at++;
	}
	return count;
}

struct reaping {
	int *fds;
	int count, next, lost;
};

static void *reap_some(void *arg)
{
	struct reaping *reaping = arg;

	for (;;) {
		int i = __atomic_fetch_add(&reaping->next, 1, __ATOMIC_RELAXED);

		if (i >= reaping->count)
			return NULL;
		if (process_reap(reaping->fds[i]) == -ESRCH)
			__atomic_fetch_add(&reaping->lost, 1, __ATOMIC_RELAXED);
	}
}

/* Without reaping only the signals are sent. */
static void batch(struct attempt *attempt, bool reap)
{
	static pid_t pids[VICTIMS_MAX];
	static int fds[VICTIMS_MAX];
	static bool known[1 << 17];
	pthread_t threads[REAPERS];
	int i, pass;

	for (pass = 0; pass < PASSES_MAX; pass++) {
		struct reaping reaping = { .fds = fds };
		int count = list_processes(pids, VICTIMS_MAX, &attempt->calls);

		for (i = 0; i < count; i++) {
			/* Still listed, but killed: on its way out, or stuck. */
			if (known[pids[i]])
				continue;
			known[pids[i]] = true;
			attempt->late += pass > 0;
			fds[reaping.count] = open_pidfd(pids[i]);
			attempt->calls++;
			reaping.count += fds[reaping.count] >= 0;
		}
		if (!reaping.count)
			break;
		for (i = 0; i < reaping.count; i++)
			syscall(SYS_pidfd_send_signal, fds[i], SIGKILL, NULL, 0);
		for (i = 0; reap && i < REAPERS; i++)
			pthread_create(&threads[i], NULL, reap_some, &reaping);
		for (i = 0; reap && i < REAPERS; i++)
			pthread_join(threads[i], NULL);
		for (i = 0; i < reaping.count; i++)
			close(fds[i]);
		/* signal, close, reap */
		attempt->calls += (reap ? 3 : 2) * reaping.count;
		attempt->lost += reaping.lost;
	}
	attempt->passes = pass;
}

static void *write_reap(void *arg)
{
	(void)arg;
	must_write(CGROUP "/cgroup.reap", "1");
	return NULL;
}

static void go(struct attempt *attempt)
{
	pthread_t second;

	switch (attempt->way) {
	case KILL:
		must_write(CGROUP "/cgroup.kill", "1");
		attempt->calls = 3;
		break;
	case SIGNALS:
	case BATCH:
		batch(attempt, attempt->way == BATCH);
		break;
	case REAP_BY_TWO:
		pthread_create(&second, NULL, write_reap, NULL);
		write_reap(NULL);
		pthread_join(second, NULL);
		attempt->calls = 6;
		break;
	default:
		write_reap(NULL);
		attempt->calls = 3;
	}
}

/* --- one row --- */

struct reaps {
	int count;
	long pages;
	pid_t pids[VICTIMS_MAX];
};

static void see_reap(const char *line, void *arg)
{
	struct reaps *reaps = arg;
	pid_t pid = field(line, "pid", 0);
	int i;

	if (field(line, "ret", -1) != 0)
		return;
	reaps->pages += field(line, "anon", 0);
	for (i = 0; i < reaps->count; i++) {
		if (reaps->pids[i] == pid)
			return;
	}
	if (reaps->count < VICTIMS_MAX)
		reaps->pids[reaps->count++] = pid;
}

/* Processes left after the way returned and the dying had time to leave; the stuck one does not count. */
static int escaped(const struct scene *scene)
{
	static pid_t pids[VICTIMS_MAX];
	int calls = 0, left = 0, tries;

	for (tries = 0; tries < 200; tries++) {
		collect_children();
		left = list_processes(pids, VICTIMS_MAX, &calls) - scene->stuck;
		if (left <= 0)
			return 0;
		nap_ms(10);
	}
	return left;
}

static void group_row(const void *arg)
{
	struct attempt attempt = *(const struct attempt *)arg;
	const struct scene *scene = attempt.scene;
	static pid_t pids[VICTIMS_MAX];
	static struct reaps reaps;
	struct watch watch = { 0 };
	long before_kib, filled_kib;
	int i, calls = 0, victims;
	long long returned_ns;
	pthread_t watcher;
	pid_t hog = 0;

	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		die(CGROUP);
	/* As lmkd's reaper threads run. */
	setpriority(PRIO_PROCESS, 0, -20);
	before_kib = available_kib();
	if (scene->stuck)
		freeze(true);
	for (i = 0; i < scene->processes; i++)
		start_in_cgroup(scene, scene->stuck && i == 0);
	if (scene->starved) {
		run_on(0, -20);
		hog = start_hog();
	}
	/* A storm must still be going on when the kill comes. */
	nap_ms(scene->storm ? STORM_MS : 200);
	victims = list_processes(pids, VICTIMS_MAX, &calls);
	filled_kib = available_kib();
	watch.wanted_kib[0] = filled_kib + (before_kib - filled_kib) * 95 / 100;
	watch.wanted_kib[1] = watch.wanted_kib[0] - (scene->stuck ? (long)scene->mib_each * 1024 : 0);
	trace_start(REAP_EVENT);
	watch.start_ns = now_ns();
	pthread_create(&watcher, NULL, watch_memory, &watch);
	go(&attempt);
	returned_ns = now_ns() - watch.start_ns;
	pthread_join(watcher, NULL);
	trace_stop(REAP_EVENT);
	trace_each(REAP_EVENT, see_reap, &reaps);
	if (hog)
		kill(hog, SIGKILL);
	i = escaped(scene);
	if (scene->stuck)
		freeze(false);
	row("group",
	    "\"scene\": \"%s\", \"processes\": %d, \"mib_each\": %zu, \"way\": \"%s\", \"returned_us\": %lld, "
	    "\"back_us\": %lld, \"others_back_us\": %lld, \"calls\": %d, \"victims\": %d, \"reaped\": %d, "
	    "\"reaped_mib\": %ld, \"lost\": %d, \"late\": %d, \"escaped\": %d",
	    scene->name, scene->processes, scene->mib_each, WAY_NAMES[attempt.way], returned_ns / 1000,
	    watch.back_ns[0] / 1000, watch.back_ns[1] / 1000, attempt.calls, victims, reaps.count, reaps.pages / 256,
	    attempt.lost, attempt.late, i);
}

static bool has_file(const char *path)
{
	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		die(CGROUP);
	return access(path, W_OK) == 0;
}

static bool possible(enum way way)
{
	switch (way) {
	case SIGNALS:
		return !has_file(CGROUP "/cgroup.kill");
	case KILL:
		return has_file(CGROUP "/cgroup.kill");
	case BATCH:
		return true;
	default:
		return has_file(CGROUP "/cgroup.reap");
	}
}

bool bench_groups(const char *only)
{
	static const struct scene scenes[] = {
		{ .name = "1 process", .processes = 1, .mib_each = 32 },
		{ .name = "8 processes", .processes = 8, .mib_each = 32 },
		{ .name = "64 processes", .processes = 64, .mib_each = 8 },
		{ .name = "500 processes", .processes = 500, .mib_each = 2 },
		{ .name = "8, on a starved CPU", .processes = 8, .mib_each = 32, .starved = true },
		{ .name = "8, one in D state", .processes = 8, .mib_each = 32, .stuck = true },
		{ .name = "fork storm", .processes = FORKERS, .mib_each = 8, .storm = true },
	};
	struct rlimit files = { VICTIMS_MAX + 64, VICTIMS_MAX + 64 };
	bool found = false;
	unsigned int s;
	int round, way;

	setrlimit(RLIMIT_NOFILE, &files);
	/* Freed pages would stay on per-CPU lists, up to an eighth of memory, and not count as available. */
	try_write("/proc/sys/vm/percpu_pagelist_high_fraction", "2048");
	close(open(FROZEN, O_CREAT | O_WRONLY, 0644));
	for (way = KILL; way < WAYS; way++) {
		if (!possible(way))
			row("absent", "\"what\": \"%s\"", WAY_NAMES[way]);
	}
	for (s = 0; s < sizeof(scenes) / sizeof(scenes[0]); s++) {
		if (only && strcmp(only, scenes[s].name))
			continue;
		found = true;
		for (round = 0; round < ROUNDS; round++) {
			for (way = 0; way < WAYS; way++) {
				struct attempt attempt = { .scene = &scenes[s], .way = way };

				if (!possible(way))
					continue;
				isolated(scenes[s].name, 30, group_row, &attempt);
				if (scenes[s].stuck)
					thaw_anyway();
				nap_ms(100);
			}
		}
	}
	rmdir(CGROUP);
	return found;
}
