// SPDX-License-Identifier: GPL-2.0
/*
 * Measures process_reap() and cgroup.reap in a guest. Output: one JSON object per line.
 *
 *   reap_bench sharing PROCESSES...   the check for sharers, by threads of the victim and other processes
 *   reap_bench cgroup COUNT:MIB...    a whole cgroup: cgroup.kill, a batch of process_reap, cgroup.reap
 *
 * Times are CLOCK_MONOTONIC. Counts (processes visited, victims reaped) come from the tracepoints.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NR_PROCESS_REAP 600
#define NR_PIDFD_OPEN 434
#define MIB (1024UL * 1024)
#define CALLS 200
#define TRACING "/sys/kernel/tracing/"
#define MODE "/sys/module/oom_kill/parameters/sharing_check_mode"
#define CGROUP "/sys/fs/cgroup/bench"
#define VICTIMS_MAX 1024
#define THREADS_MAX 128

static void die(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fprintf(stderr, ": %s\n", strerror(errno));
	exit(1);
}

static long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void nap_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

static int try_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);
	int ret = -1;

	if (fd >= 0) {
		ret = write(fd, text, strlen(text)) < 0 ? -1 : 0;
		close(fd);
	}
	return ret;
}

static void must_write(const char *path, const char *text)
{
	if (try_write(path, text))
		die("%s", path);
}

static int compare(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return (x > y) - (x < y);
}

/* Sum of one field of all events of a name in the trace, and how many there were. */
static long trace_sum(const char *event, const char *field, int *events)
{
	FILE *file = fopen(TRACING "trace", "r");
	char line[512], key[64];
	long sum = 0;

	snprintf(key, sizeof(key), " %s=", field);
	*events = 0;
	while (file && fgets(line, sizeof(line), file)) {
		char *value = strstr(line, key);

		if (!strstr(line, event) || !value)
			continue;
		sum += atol(value + strlen(key));
		++*events;
	}
	if (file)
		fclose(file);
	return sum;
}

/* --- the check for sharers */

static void *idle(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static pid_t start_threads(int threads)
{
	int ready[2];
	char byte;
	pid_t pid;
	int i;

	if (pipe(ready))
		die("pipe");
	pid = fork();
	if (!pid) {
		pthread_attr_t attr;
		pthread_t thread;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pthread_attr_init(&attr);
		pthread_attr_setstacksize(&attr, 65536);
		for (i = 1; i < threads; i++) {
			if (pthread_create(&thread, &attr, idle, NULL))
				_exit(1);
		}
		if (write(ready[1], "r", 1) != 1)
			_exit(1);
		idle(NULL);
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		die("victim");
	close(ready[0]);
	return pid;
}

static int list_threads(pid_t pid, pid_t *tids)
{
	struct dirent *entry;
	char path[64];
	int n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)) && n < THREADS_MAX) {
		if (atoi(entry->d_name) > 0)
			tids[n++] = atoi(entry->d_name);
	}
	if (dir)
		closedir(dir);
	return n;
}

/* Every thread is held at its exit, so all of them still use the memory. */
static void sharing_row(int processes, int threads)
{
	pid_t pid = start_threads(threads), tids[THREADS_MAX];
	int n = list_threads(pid, tids), i, mode, status, fd, events;
	long long took[2][CALLS];
	long visited[2];

	for (i = 0; i < n; i++) {
		if (ptrace(PTRACE_SEIZE, tids[i], NULL, PTRACE_O_TRACEEXIT))
			die("PTRACE_SEIZE");
	}
	fd = syscall(NR_PIDFD_OPEN, pid, 0);
	kill(pid, SIGKILL);
	for (i = 0; i < n; i++)
		waitpid(tids[i], &status, __WALL);

	/* Alternate the modes, so that a disturbance hits both. */
	for (mode = 0; mode < 2; mode++) {
		must_write(MODE, mode ? "1" : "0");
		must_write(TRACING "trace", "");
		must_write(TRACING "events/oom/mm_sharing_check/enable", "1");
		if (syscall(NR_PROCESS_REAP, fd, 0))
			die("process_reap");
		must_write(TRACING "events/oom/mm_sharing_check/enable", "0");
		visited[mode] = trace_sum("mm_sharing_check:", "visited", &events);
	}
	for (i = 0; i < CALLS; i++) {
		for (mode = 0; mode < 2; mode++) {
			long long start;

			must_write(MODE, mode ? "1" : "0");
			start = now_ns();
			if (syscall(NR_PROCESS_REAP, fd, 0))
				die("process_reap");
			took[mode][i] = now_ns() - start;
		}
	}
	must_write(MODE, "0");
	for (mode = 0; mode < 2; mode++)
		qsort(took[mode], CALLS, sizeof(took[0][0]), compare);
	printf("{\"row\": \"sharing\", \"processes\": %d, \"threads\": %d, "
	       "\"count_ns\": %lld, \"walk_ns\": %lld, \"count_visited\": %ld, \"walk_visited\": %ld}\n",
	       processes, threads, took[0][CALLS / 2], took[1][CALLS / 2], visited[0], visited[1]);
	fflush(stdout);
	for (i = 0; i < n; i++)
		ptrace(PTRACE_CONT, tids[i], NULL, 0);
	for (i = 0; i < n; i++)
		waitpid(tids[i], &status, __WALL);
	close(fd);
}

/*
 * How often does counting suffice while somebody reads the victim's memory map? A reader of smaps_rollup holds a
 * reference to the mm now and then. Fresh victims with 16 threads, killed and reaped at once.
 */
static void hit_rate_row(bool reader)
{
	int i, reaped = 0, counted, events, fd;
	long walks = 0;
	pid_t pid, helper = 0;

	must_write(TRACING "trace", "");
	must_write(TRACING "events/oom/mm_sharing_check/enable", "1");
	for (i = 0; i < CALLS; i++) {
		pid = start_threads(16);
		if (reader) {
			helper = fork();
			if (!helper) {
				char path[64], text[4096];

				snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
				for (;;) {
					int file = open(path, O_RDONLY);

					while (file >= 0 && read(file, text, sizeof(text)) > 0)
						;
					close(file);
				}
			}
			nap_ms(5);
		}
		fd = syscall(NR_PIDFD_OPEN, pid, 0);
		kill(pid, SIGKILL);
		reaped += !syscall(NR_PROCESS_REAP, fd, 0);
		if (helper) {
			kill(helper, SIGKILL);
			waitpid(helper, NULL, 0);
		}
		waitpid(pid, NULL, 0);
		close(fd);
	}
	must_write(TRACING "events/oom/mm_sharing_check/enable", "0");
	{
		FILE *file = fopen(TRACING "trace", "r");
		char line[512];

		counted = 0;
		while (file && fgets(line, sizeof(line), file)) {
			if (!strstr(line, "mm_sharing_check:"))
				continue;
			if (strstr(line, " visited=0 "))
				counted++;
			else
				walks++;
		}
		if (file)
			fclose(file);
	}
	trace_sum("mm_sharing_check:", "visited", &events);
	printf("{\"row\": \"hit_rate\", \"reader\": %s, \"victims\": %d, \"reaped\": %d, \"counted\": %d, \"walked\": %ld}\n",
	       reader ? "true" : "false", CALLS, reaped, counted, walks);
	fflush(stdout);
}

static void sleepers(int want, int *have)
{
	for (; *have < want; ++*have) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork of process %d", *have);
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			idle(NULL);
		}
	}
}

static int bench_sharing(int argc, char **argv)
{
	static const int threads[] = { 1, 2, 16, 100 };
	int have = 0, i;
	unsigned int t;

	try_write("/proc/sys/kernel/pid_max", "200000");
	try_write("/proc/sys/kernel/threads-max", "200000");
	hit_rate_row(false);
	hit_rate_row(true);
	for (i = 0; i < argc; i++) {
		sleepers(atoi(argv[i]), &have);
		nap_ms(500);
		for (t = 0; t < sizeof(threads) / sizeof(threads[0]); t++)
			sharing_row(have, threads[t]);
	}
	signal(SIGTERM, SIG_IGN);
	kill(0, SIGTERM);
	return 0;
}

/* --- a whole cgroup */

static long free_pages(void)
{
	FILE *file = fopen("/proc/vmstat", "r");
	char line[128];
	long pages = -1;

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "nr_free_pages %ld", &pages) == 1)
			break;
	}
	if (file)
		fclose(file);
	return pages;
}

static bool empty(void)
{
	char text[128] = "";
	int fd = open(CGROUP "/cgroup.events", O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		die("cgroup.events");
	close(fd);
	return strstr(text, "populated 0");
}

static pid_t start_in_cgroup(size_t size)
{
	int ready[2];
	char byte, *p;
	pid_t pid;

	if (pipe(ready))
		die("pipe");
	pid = fork();
	if (!pid) {
		close(ready[0]);
		must_write(CGROUP "/cgroup.procs", "0");
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			_exit(1);
		memset(p, 1, size);
		if (write(ready[1], "r", 1) != 1)
			_exit(1);
		idle(NULL);
	}
	close(ready[1]);
	if (pid < 0 || read(ready[0], &byte, 1) != 1)
		die("victim");
	close(ready[0]);
	return pid;
}

struct batch {
	int *fds;
	int count;
	int next;
	int reaped;
};

static void *batch_thread(void *arg)
{
	struct batch *batch = arg;

	for (;;) {
		int i = __atomic_fetch_add(&batch->next, 1, __ATOMIC_RELAXED);

		if (i >= batch->count)
			return NULL;
		if (!syscall(NR_PROCESS_REAP, batch->fds[i], 0))
			__atomic_fetch_add(&batch->reaped, 1, __ATOMIC_RELAXED);
	}
}

/* The baseline: what userspace can do with pidfds. Returns how many were reaped. */
static int kill_batch(const pid_t *pids, int count, int *calls)
{
	static int fds[VICTIMS_MAX];
	struct batch batch = { .fds = fds, .count = count };
	pthread_t threads[2];
	int i;

	for (i = 0; i < count; i++)
		fds[i] = syscall(NR_PIDFD_OPEN, pids[i], 0);
	must_write(CGROUP "/cgroup.kill", "1");
	for (i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, batch_thread, &batch);
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < count; i++)
		close(fds[i]);
	/* read cgroup.procs (open, read, close), open and close pidfds, write cgroup.kill, reap */
	*calls = 3 + 2 * count + 3 + count;
	return batch.reaped;
}

static void cgroup_row(const char *way, int count, size_t mib)
{
	static pid_t pids[VICTIMS_MAX];
	long before, filled, wanted;
	long long start, returned, back = 0;
	int i, calls = 3, reaped = 0, events = 0;
	long anon;

	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		die(CGROUP);
	before = free_pages();
	for (i = 0; i < count; i++)
		pids[i] = start_in_cgroup(mib * MIB);
	nap_ms(100);
	filled = free_pages();
	wanted = filled + (before - filled) * 95 / 100;
	must_write(TRACING "trace", "");
	must_write(TRACING "events/oom/process_reap/enable", "1");

	start = now_ns();
	if (!strcmp(way, "kill"))
		must_write(CGROUP "/cgroup.kill", "1");
	else if (!strcmp(way, "batch"))
		reaped = kill_batch(pids, count, &calls);
	else
		must_write(CGROUP "/cgroup.reap", "1");
	returned = now_ns() - start;
	while (now_ns() - start < 10000000000LL) {
		if (free_pages() >= wanted) {
			back = now_ns() - start;
			break;
		}
		nap_ms(1);
	}
	must_write(TRACING "events/oom/process_reap/enable", "0");
	anon = trace_sum("process_reap:", "anon", &events);
	if (!strcmp(way, "reap"))
		reaped = events;
	for (i = 0; i < count; i++)
		waitpid(pids[i], NULL, 0);
	printf("{\"row\": \"cgroup\", \"way\": \"%s\", \"processes\": %d, \"mib_each\": %zu, \"returned_us\": %lld, "
	       "\"back_us\": %lld, \"system_calls\": %d, \"reaped\": %d, \"reaped_mib\": %ld, \"escaped\": %d}\n",
	       way, count, mib, returned / 1000, back / 1000, calls, reaped, anon / 256, !empty());
	fflush(stdout);
	rmdir(CGROUP);
}

static int bench_cgroup(int argc, char **argv)
{
	static const char *const ways[] = { "kill", "batch", "reap" };
	int i, round, count;
	unsigned int w;
	size_t mib;

	for (i = 0; i < argc; i++) {
		if (sscanf(argv[i], "%d:%zu", &count, &mib) != 2 || count > VICTIMS_MAX)
			die("COUNT:MIB expected, not %s", argv[i]);
		for (round = 0; round < 5; round++) {
			for (w = 0; w < sizeof(ways) / sizeof(ways[0]); w++)
				cgroup_row(ways[w], count, mib);
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "sharing"))
		return bench_sharing(argc - 2, argv + 2);
	if (argc > 2 && !strcmp(argv[1], "cgroup"))
		return bench_cgroup(argc - 2, argv + 2);
	fprintf(stderr, "usage: reap_bench sharing PROCESSES... | cgroup COUNT:MIB...\n");
	return 2;
}
