// SPDX-License-Identifier: GPL-2.0
/*
 * The check that no live process shares a dying process's memory: what it costs as the machine gets more processes
 * and the victim more threads, how often counting is enough, and that its verdict is that of the walk.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODE "/sys/module/oom_kill/parameters/sharing_check_mode"
#define CHECK "oom/mm_sharing_check"
#define CALLS 200
#define BLOCK 20
#define THREADS_MAX 100
#define STACK 16384
#define READERLESS_VICTIMS 500
#define READER_VICTIMS 200

/* All stacks in one mapping, whatever the number of threads: only that number differs between victims. */
static char stacks[THREADS_MAX][STACK] __attribute__((aligned(4096)));

static void *idle(void *arg)
{
	hold();
	return arg;
}

static void start_threads(int threads)
{
	pthread_attr_t attr;
	pthread_t thread;
	int i;

	memset(stacks, 1, sizeof(stacks));
	pthread_attr_init(&attr);
	for (i = 1; i < threads; i++) {
		pthread_attr_setstack(&attr, stacks[i], STACK);
		if (pthread_create(&thread, &attr, idle, NULL))
			_exit(1);
	}
}

static pid_t start_victim(int threads)
{
	int ready;
	pid_t pid = spawn(&ready);

	if (!pid) {
		start_threads(threads);
		say_ready(ready);
		hold();
	}
	await_ready(ready);
	return pid;
}

/*
 * Kill it and hold every thread where its exit begins: dying, its memory intact, for as long as this process traces
 * it. Nobody waits for the threads after that: when the tracer ends they go on with their exit.
 */
static void kill_and_hold(pid_t pid)
{
	pid_t tids[THREADS_MAX + 8];
	struct dirent *entry;
	int count = 0, i, status;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)) && count < THREADS_MAX + 8) {
		if (atoi(entry->d_name) > 0)
			tids[count++] = atoi(entry->d_name);
	}
	if (dir)
		closedir(dir);
	for (i = 0; i < count; i++) {
		if (ptrace(PTRACE_SEIZE, tids[i], NULL, PTRACE_O_TRACEEXIT))
			die("PTRACE_SEIZE");
	}
	kill(pid, SIGKILL);
	for (i = 0; i < count; i++) {
		if (waitpid(tids[i], &status, __WALL) != tids[i] || !WIFSTOPPED(status))
			die("thread %d did not stop at its exit", tids[i]);
	}
}

struct seen {
	long events, visited, threads, counted;
};

static void see_check(const char *line, void *arg)
{
	struct seen *seen = arg;

	seen->events++;
	seen->visited += field(line, "visited", 0);
	seen->threads += field(line, "threads", 0);
	seen->counted += field(line, "visited", 0) == 0;
}

struct sharing {
	int processes, threads;
};

static void time_calls(int pidfd, long long *took)
{
	int i;

	for (i = 0; i < BLOCK; i++) {
		long long start = now_ns();

		if (process_reap(pidfd))
			die("process_reap");
		took[i] = now_ns() - start;
	}
}

/* mode 0 counts, 1 always visits every process: what the kernel did before. */
static void sharing_row(const void *arg)
{
	const struct sharing *wanted = arg;
	static long long took[2][CALLS];
	struct seen seen[2] = { 0 };
	pid_t pid = start_victim(wanted->threads);
	int fd = open_pidfd(pid), mode, i;

	kill_and_hold(pid);
	for (mode = 0; mode < 2; mode++) {
		must_write(MODE, mode ? "1" : "0");
		trace_start(CHECK);
		if (process_reap(fd))
			die("process_reap");
		trace_stop(CHECK);
		trace_each(CHECK, see_check, &seen[mode]);
	}
	/* In turns, so that a disturbance hits both; by blocks, for a walk over 20,000 tasks empties every cache. */
	for (i = 0; i < CALLS; i += BLOCK) {
		for (mode = 0; mode < 2; mode++) {
			must_write(MODE, mode ? "1" : "0");
			time_calls(fd, &took[mode][i]);
		}
	}
	must_write(MODE, "0");
	row("sharing",
	    "\"processes\": %d, \"threads\": %d, \"calls\": %d, \"walk_ns\": %lld, \"walk_visited\": %ld, "
	    "\"count_ns\": %lld, \"count_visited\": %ld, \"count_threads\": %ld",
	    wanted->processes, wanted->threads, CALLS, median(took[1], CALLS), seen[1].visited,
	    median(took[0], CALLS), seen[0].visited, seen[0].threads);
}

static void read_for_ever(pid_t pid)
{
	char path[64], text[4096];

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	for (;;) {
		int fd = open(path, O_RDONLY);

		while (fd >= 0 && read(fd, text, sizeof(text)) > 0)
			;
		if (fd >= 0)
			close(fd);
		else
			_exit(0);
	}
}

/* Fresh victims with 16 threads, killed and reaped at once. Without a check (ESRCH) there is no event. */
static void hit_row(const void *arg)
{
	bool reader = *(const bool *)arg;
	int victims = reader ? READER_VICTIMS : READERLESS_VICTIMS, i, reaped = 0;
	struct seen seen = { 0 };

	must_write(MODE, "0");
	trace_start(CHECK);
	for (i = 0; i < victims; i++) {
		pid_t pid = start_victim(16), helper = 0;
		int fd = open_pidfd(pid), pipe;

		if (reader) {
			helper = spawn(&pipe);
			if (!helper) {
				say_ready(pipe);
				read_for_ever(pid);
			}
			await_ready(pipe);
			nap_ms(3);
		}
		kill(pid, SIGKILL);
		reaped += process_reap(fd) == 0;
		wait_dead(fd, 2000);
		close(fd);
		if (helper)
			kill(helper, SIGKILL);
		collect_children();
	}
	trace_stop(CHECK);
	trace_each(CHECK, see_check, &seen);
	row("hits", "\"reader\": %s, \"victims\": %d, \"reaped\": %d, \"checks\": %ld, \"counted\": %ld",
	    reader ? "true" : "false", victims, reaped, seen.events, seen.counted);
}

static void grow(int want, int *have)
{
	for (; *have < want && !is_late(); ++*have) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork of process %d", *have);
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			hold();
		}
	}
}

void bench_sharing(int count, char **processes)
{
	static const int threads[] = { 1, 2, 16, 100 };
	static const bool with_reader[] = { false, true };
	struct sharing wanted = { 0 };
	unsigned int t;
	int i;

	if (access(MODE, W_OK)) {
		row("absent", "\"what\": \"sharing_check_mode\"");
		return;
	}
	try_write("/proc/sys/kernel/pid_max", "100000");
	try_write("/proc/sys/kernel/threads-max", "200000");
	isolated("hits", 90, hit_row, &with_reader[0]);
	isolated("hits with a reader", 90, hit_row, &with_reader[1]);
	for (i = 0; i < count; i++) {
		grow(atoi(processes[i]), &wanted.processes);
		nap_ms(300);
		for (t = 0; t < sizeof(threads) / sizeof(threads[0]); t++) {
			wanted.threads = threads[t];
			isolated("sharing", 60, sharing_row, &wanted);
		}
	}
}

/* --- the same verdict as the walk --- */

enum kind { PLAIN, LEAVING, READER, VFORK, SHARER, DYING_SHARER, KINDS };

static unsigned int state;

static unsigned int random_below(unsigned int limit)
{
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state % limit;
}

static int sharer(void *arg)
{
	int pid = syscall(SYS_getpid);

	/* Threads of another process run on this memory: system calls only. */
	syscall(SYS_write, *(int *)arg, &pid, sizeof(pid));
	for (;;)
		syscall(SYS_pause);
	return 0;
}

static void *leave_soon(void *arg)
{
	nap_ms(1);
	return arg;
}

/* A process of that kind, with the pid of who shares its memory, or 0. */
static pid_t start_kind(enum kind kind, int threads, pid_t *ret_sharer)
{
	static char stack[STACK];
	int ready, word = 0;
	pid_t pid = spawn(&ready);

	if (!pid) {
		start_threads(threads);
		if (kind == LEAVING) {
			pthread_t thread;

			pthread_create(&thread, NULL, leave_soon, NULL);
		}
		if (kind == SHARER || kind == DYING_SHARER)
			clone(sharer, stack + STACK, CLONE_VM | SIGCHLD, &ready);
		else if (kind == VFORK)
			clone(sharer, stack + STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, &ready);
		else if (write(ready, &word, sizeof(word)) != sizeof(word))
			_exit(1);
		hold();
	}
	if (read(ready, &word, sizeof(word)) != sizeof(word))
		die("a process did not get ready");
	close(ready);
	*ret_sharer = word;
	return pid;
}

static int warnings(void)
{
	static char log[1 << 20];
	int length = klogctl(3, log, sizeof(log) - 1), count = 0;
	char *at = log;

	log[length > 0 ? length : 0] = 0;
	while ((at = strstr(at, "live user that was not counted")) != NULL) {
		count++;
		at++;
	}
	return count;
}

struct verdicts {
	int rounds;
	unsigned int seed;
};

static void verdict_row(const void *arg)
{
	const struct verdicts *wanted = arg;
	int i, shared = 0, reaped = 0, gone = 0, wrong = 0, before = warnings();
	struct seen seen = { 0 };

	state = wanted->seed | 1;
	must_write(MODE, "2");
	trace_start(CHECK);
	for (i = 0; i < wanted->rounds; i++) {
		enum kind kind = random_below(KINDS);
		int threads = 1 + random_below(24), fd, pipe;
		pid_t other, reader = 0, pid = start_kind(kind, threads, &other);
		bool live = kind == VFORK || kind == SHARER;
		long ret;

		fd = open_pidfd(pid);
		if (kind == READER) {
			reader = spawn(&pipe);
			if (!reader) {
				say_ready(pipe);
				read_for_ever(pid);
			}
			await_ready(pipe);
		}
		if (kind == DYING_SHARER)
			kill(other, SIGKILL);
		kill(pid, SIGKILL);
		ret = process_reap(fd);
		shared += ret == -EINVAL;
		reaped += ret == 0;
		gone += ret == -ESRCH;
		/* What must be is known here: a sharer that lives forbids the reap, nothing else does. */
		wrong += live ? ret == 0 : ret != 0 && ret != -ESRCH;
		if (other)
			kill(other, SIGKILL);
		if (reader)
			kill(reader, SIGKILL);
		wait_dead(fd, 2000);
		close(fd);
		collect_children();
	}
	trace_stop(CHECK);
	trace_each(CHECK, see_check, &seen);
	must_write(MODE, "0");
	row("verdicts",
	    "\"rounds\": %d, \"seed\": %u, \"compared\": %ld, \"reaped\": %d, \"gone\": %d, \"shared\": %d, "
	    "\"wrong\": %d, \"contradictions\": %d",
	    wanted->rounds, wanted->seed, seen.events, reaped, gone, shared, wrong, warnings() - before);
}

void bench_verdicts(int rounds, unsigned int seed)
{
	struct verdicts wanted = { rounds, seed };

	if (access(MODE, W_OK)) {
		row("absent", "\"what\": \"sharing_check_mode\"");
		return;
	}
	isolated("verdicts", 120, verdict_row, &wanted);
}
