/* SPDX-License-Identifier: Apache-2.0 */
#include "calibrate.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "apprunner_memory.h"
#include "common.h"

#define SLEEPERS 64
#define WAKES 50
#define PATH_BYTES 80

const uint32_t CLASSES[] = { 0, 1000, 1500, 2000, 2500, 3500, 6000 };
const size_t CLASSES_COUNT = LMK_ARRAY_LEN(CLASSES);

/* The first round is for caches of every kind, an emulator's translations among them. */
static int warming_up;

int64_t cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

void sample(const char *name, int64_t value)
{
	if (!warming_up)
		printf("sample %s %lld\n", name, (long long)value);
}

void sample_named(int64_t value, const char *format, ...)
{
	char name[64];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(name, sizeof(name), format, arguments);
	va_end(arguments);
	sample(name, value);
}

void absent(const char *name, const char *why)
{
	if (!warming_up)
		printf("absent %s %s\n", name, why);
}

uint8_t *map_pages(size_t pages)
{
	void *at = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED) {
		fprintf(stderr, "mmap of %zu pages: %s\n", pages, strerror(errno));
		exit(1);
	}
	madvise(at, pages * PAGE_BYTES, MADV_NOHUGEPAGE);
	return at;
}

void fill_pages(uint8_t *at, size_t pages, uint32_t ratio_permille, uint64_t seed)
{
	struct page_fill fill = page_fill_for_ratio(ratio_permille);

	for (size_t i = 0; i < pages; i++)
		page_fill_write(&fill, at + i * PAGE_BYTES, seed, i);
}

int64_t file_number(const char *path, const char *key)
{
	static char text[65536];
	int64_t value;

	if (lmk_read_file(AT_FDCWD, path, text, sizeof(text)) < 0 || lmk_find_number(text, key, &value) < 0)
		return -1;
	return value;
}

/* Free memory, with the pages that the CPUs keep for themselves (zoneinfo's page sets), which MemFree leaves out. */
static int64_t free_kib(void)
{
	static char text[65536];
	int64_t kib = file_number("/proc/meminfo", "MemFree:");

	if (lmk_read_file(AT_FDCWD, "/proc/zoneinfo", text, sizeof(text)) < 0)
		return kib;
	for (const char *at = strstr(text, "count:"); at; at = strstr(at, "count:")) {
		at += strlen("count:");
		kib += strtoll(at, NULL, 10) * (sysconf(_SC_PAGESIZE) / 1024);
	}
	return kib;
}

/* --- the system as such ---------------------------------------------------------------------------- */

struct wakes {
	int to[2], back[2];
};

static void *sleeper(void *argument)
{
	const struct wakes *wakes = argument;
	int64_t woken_ns;
	char byte;

	while (read(wakes->to[0], &byte, 1) == 1) {
		woken_ns = lmk_now_ns();
		if (write(wakes->back[1], &woken_ns, sizeof(woken_ns)) != sizeof(woken_ns))
			break;
	}
	return NULL;
}

/* From a write to a pipe until the thread that sleeps on it runs. */
static void measure_wakes(void)
{
	struct wakes wakes;
	pthread_t thread;

	if (pipe(wakes.to) < 0 || pipe(wakes.back) < 0 || pthread_create(&thread, NULL, sleeper, &wakes) != 0) {
		absent("wake", "no thread");
		return;
	}
	for (int i = 0; i < WAKES; i++) {
		int64_t begin_ns, woken_ns;

		lmk_sleep_ns(2 * NS_PER_MS);
		begin_ns = lmk_now_ns();
		if (write(wakes.to[1], "", 1) != 1 || lmk_read_full(wakes.back[0], &woken_ns, sizeof(woken_ns)) < 0)
			break;
		sample("wake", woken_ns - begin_ns);
	}
	close(wakes.to[1]);
	pthread_join(thread, NULL);
	close(wakes.to[0]);
	close(wakes.back[0]);
	close(wakes.back[1]);
}

/* A file of the cgroups that the app with this number has to itself. */
static void group_path(char path[PATH_BYTES], pid_t parent, int index, const char *rest)
{
	snprintf(path, PATH_BYTES, "/sys/fs/cgroup/lmk.birth.%d.%d%s", (int)parent, index, rest);
}

/* As every app is started: into a cgroup of its own in its user's, with memory accounted. */
static void enter_own_group(pid_t parent, int index)
{
	char path[PATH_BYTES];

	group_path(path, parent, index, "");
	mkdir(path, 0755);
	group_path(path, parent, index, "/cgroup.subtree_control");
	lmk_write_file(AT_FDCWD, path, "+memory", strlen("+memory"));
	group_path(path, parent, index, "/pid");
	mkdir(path, 0755);
	group_path(path, parent, index, "/pid/cgroup.procs");
	lmk_write_file(AT_FDCWD, path, "0", 1);
}

static void remove_groups(int count)
{
	char path[PATH_BYTES];

	for (int i = 0; i < count; i++) {
		group_path(path, getpid(), i, "/pid");
		rmdir(path);
		group_path(path, getpid(), i, "");
		rmdir(path);
	}
}

/* A process of our own program, like the app runner's: from the request to its first instruction; 0 or -errno. */
static pid_t spawn(int out_fd, int index)
{
	pid_t parent = getpid(), pid = fork();

	if (pid == 0) {
		enter_own_group(parent, index);
		dup2(out_fd, 1);
		execl("/proc/self/exe", "lmk-calibrate", "--born", (char *)NULL);
		_exit(1);
	}
	return pid;
}

/* Starts sleeping processes, and times each start; how many there are. */
static int start_sleepers(pid_t pids[SLEEPERS])
{
	int64_t born_ns;
	int ends[2], made = 0;

	if (pipe(ends) < 0)
		return 0;
	for (; made < SLEEPERS; made++) {
		int64_t begin_ns = lmk_now_ns();

		pids[made] = spawn(ends[1], made);
		if (pids[made] < 0 || lmk_read_full(ends[0], &born_ns, sizeof(born_ns)) < 0)
			break;
		sample("fork", born_ns - begin_ns);
	}
	close(ends[0]);
	close(ends[1]);
	return made;
}

static void end_sleepers(const pid_t pids[SLEEPERS], int count)
{
	for (int i = 0; i < count; i++)
		kill(pids[i], SIGKILL);
	for (int i = 0; i < count; i++)
		waitpid(pids[i], NULL, 0);
	remove_groups(count);
}

void measure_system(void)
{
	pid_t pids[SLEEPERS];

	measure_wakes();
	end_sleepers(pids, start_sleepers(pids));
}

/* What free memory shows of them, while nobody else changes it. */
void measure_processes(void)
{
	int64_t before_kib = free_kib();
	pid_t pids[SLEEPERS];
	int made = start_sleepers(pids);

	if (made)
		sample("process_kib", (before_kib - free_kib()) / made);
	end_sleepers(pids, made);
	/* Removed groups give their memory back a little later. */
	lmk_sleep_ns(NS_PER_S);
}

static int born(void)
{
	int64_t now_ns = lmk_now_ns();

	if (lmk_write_full(1, &now_ns, sizeof(now_ns)) < 0)
		return 1;
	for (;;)
		pause();
}

static int run_group(const char *group, const char *path, uint64_t round)
{
	if (strcmp(group, "memory") == 0)
		measure_memory(round);
	else if (strcmp(group, "swap") == 0)
		measure_swap(round);
	else if (strcmp(group, "aging") == 0)
		measure_aging(path, round);
	else if (strcmp(group, "file") == 0)
		measure_file(path, round);
	else if (strcmp(group, "zram") == 0)
		measure_zram(round);
	else if (strcmp(group, "death") == 0)
		measure_death();
	else if (strcmp(group, "system") == 0)
		measure_system();
	else if (strcmp(group, "processes") == 0)
		measure_processes();
	else
		return -EINVAL;
	return 0;
}

int main(int argc, char **argv)
{
	int64_t first, rounds;

	if (argc == 2 && strcmp(argv[1], "--born") == 0)
		return born();
	if (argc < 4 || lmk_parse_i64(argv[2], &first) < 0 || lmk_parse_i64(argv[3], &rounds) < 0 || first < 0 || rounds < 1) {
		fprintf(stderr, "usage: lmk-calibrate memory|swap|aging|file|zram|death|system|processes FIRST ROUNDS [FILE]\n");
		return 2;
	}
	/* Children that are killed or gone, and readers that left, are told of by return values. */
	signal(SIGPIPE, SIG_IGN);
	/* Where there is none it measures what it can. */
	enter_group();
	/* Each round has a number of its own, also among those of other calls. */
	for (int64_t round = first; round <= first + rounds; round++) {
		warming_up = round == first;
		if (run_group(argv[1], argc > 4 ? argv[4] : NULL, (uint64_t)round) < 0) {
			fprintf(stderr, "no such group: %s\n", argv[1]);
			return 2;
		}
		fflush(stdout);
	}
	printf("end\n");
	return 0;
}
