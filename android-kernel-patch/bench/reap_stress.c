// SPDX-License-Identifier: GPL-2.0
/*
 * Kills, reaps, execs, forks, shares, swaps, freezes and reads at once, for a while. For a kernel with every check on;
 * what counts is that it does not complain. Prints how much was done.
 *
 *   reap_stress SECONDS [SEED]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NR_PROCESS_REAP 600
#define NR_PROCESS_MRELEASE 448
#define NR_PIDFD_OPEN 434
#define KIB 1024UL
#define REAPERS 3
#define SLOTS 24
#define CGROUP "/sys/fs/cgroup/stress"
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

enum kind { PLAIN, THREADS, SHARER, VFORK, EXEC, FORKER, SWAPPED, LOCKED, SHARED, KINDS };

static const char *const names[KINDS] = {
	"plain", "threads", "sharer", "vfork", "exec", "forker", "swapped", "locked", "shared"
};

static volatile pid_t slots[SLOTS];
static volatile bool over;
static pid_t keeper; /* leads the process group of all victims */
static long done[KINDS], reaped, gone, refused, other, groups, group_errors;

static unsigned int next(unsigned int *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

static void nap_us(long us)
{
	struct timespec ts = { us / 1000000, us % 1000000 * 1000 };

	nanosleep(&ts, NULL);
}

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY), ret;

	if (fd < 0)
		return errno;
	ret = write(fd, text, strlen(text)) < 0 ? errno : 0;
	close(fd);
	return ret;
}

static void *memory(unsigned int *seed, int flags)
{
	size_t size = (64 + next(seed) % 4096) * KIB;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	memset(p, 1, size);
	if (next(seed) % 2)
		madvise(p, size, MADV_PAGEOUT);
	return p;
}

static void *busy(void *arg)
{
	unsigned int seed = (unsigned int)(long)arg;

	for (;;) {
		void *p = memory(&seed, MAP_PRIVATE);

		nap_us(next(&seed) % 3000);
		if (p)
			munmap(p, 64 * KIB);
	}
	return NULL;
}

static int sharer(void *arg)
{
	busy(arg);
	return 0;
}

static void victim(enum kind kind, unsigned int seed)
{
	static char stack[65536];
	pthread_t thread;
	unsigned int i;
	void *p;

	memory(&seed, MAP_PRIVATE);
	switch (kind) {
	case THREADS:
		for (i = 0; i < 1 + next(&seed) % 12; i++)
			pthread_create(&thread, NULL, busy, (void *)(long)next(&seed));
		if (next(&seed) % 4 == 0)
			syscall(SYS_exit, 0);
		break;
	case SHARER:
		clone(sharer, stack + sizeof(stack), CLONE_VM | SIGCHLD, (void *)(long)seed);
		break;
	case VFORK:
		for (;;) {
			if (!vfork()) {
				nap_us(500);
				_exit(0);
			}
		}
	case EXEC:
		nap_us(next(&seed) % 2000);
		execl("/proc/self/exe", "reap_stress", "--again", NULL);
		_exit(1);
	case FORKER:
		signal(SIGCHLD, SIG_IGN);
		for (i = 0;; i++) {
			if (!fork()) {
				memory(&seed, MAP_PRIVATE);
				_exit(0);
			}
			nap_us(1000);
		}
	case SWAPPED:
		for (i = 0; i < 4; i++)
			memory(&seed, MAP_PRIVATE);
		break;
	case LOCKED:
		p = memory(&seed, MAP_PRIVATE);
		if (p)
			mlock(p, 64 * KIB);
		break;
	case SHARED:
		memory(&seed, MAP_SHARED);
		break;
	default:
		break;
	}
	busy((void *)(long)seed);
}

static pid_t start(enum kind kind, unsigned int seed)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setpgid(0, keeper);
		if (next(&seed) % 2)
			write_text(CGROUP "/cgroup.procs", "0");
		victim(kind, seed);
		_exit(0);
	}
	return pid;
}

static void count(int ret)
{
	long *counter = ret == 0 ? &reaped : ret == ESRCH ? &gone : ret == EINVAL ? &refused : &other;

	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

/* Reaps whatever it finds, dying or not. */
static void *reaper(void *arg)
{
	unsigned int seed = (unsigned int)(long)arg;

	while (!over) {
		pid_t pid = slots[next(&seed) % SLOTS];
		long nr = next(&seed) % 8 ? NR_PROCESS_REAP : NR_PROCESS_MRELEASE;
		int fd;

		if (pid <= 0 || (fd = syscall(NR_PIDFD_OPEN, pid, 0)) < 0)
			continue;
		count(syscall(nr, fd, 0) ? errno : 0);
		close(fd);
		if (next(&seed) % 4 == 0)
			nap_us(next(&seed) % 2000);
	}
	return NULL;
}

/* Holds references to the memory of victims now and then. */
static void *reader(void *arg)
{
	static const char *const files[] = { "smaps_rollup", "maps", "mem", "cmdline", "status", "numa_maps" };
	unsigned int seed = (unsigned int)(long)arg;
	char path[64], text[4096];

	while (!over) {
		int fd;

		snprintf(path, sizeof(path), "/proc/%d/%s", slots[next(&seed) % SLOTS], files[next(&seed) % 6]);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			continue;
		while (read(fd, text, sizeof(text)) > 0)
			;
		close(fd);
		nap_us(next(&seed) % 1000);
	}
	return NULL;
}

/* Kills and reaps, freezes and thaws the cgroup. */
static void *grouper(void *arg)
{
	unsigned int seed = (unsigned int)(long)arg;

	while (!over) {
		int ret;

		nap_us(next(&seed) % 60000);
		if (next(&seed) % 4 == 0) {
			write_text(CGROUP "/cgroup.freeze", "1");
			nap_us(next(&seed) % 5000);
		}
		ret = write_text(CGROUP "/cgroup.reap", "1");
		__atomic_fetch_add(ret ? &group_errors : &groups, 1, __ATOMIC_RELAXED);
		write_text(CGROUP "/cgroup.freeze", "0");
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[REAPERS + 4];
	unsigned int seed = argc > 2 ? atoi(argv[2]) : 1;
	time_t end;
	int i, n = 0;

	if (argc > 1 && !strcmp(argv[1], "--again")) {
		seed = getpid();
		victim(next(&seed) % 2 ? EXEC : PLAIN, seed);
	}
	if (argc < 2)
		return 2;
	end = time(NULL) + atoi(argv[1]);
	mkdir(CGROUP, 0755);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	keeper = fork();
	if (!keeper) {
		for (;;)
			pause();
	}
	setpgid(keeper, keeper);
	for (i = 0; i < REAPERS; i++)
		pthread_create(&threads[n++], NULL, reaper, (void *)(long)(seed + i));
	for (i = 0; i < 2; i++)
		pthread_create(&threads[n++], NULL, reader, (void *)(long)(seed + 50 + i));
	if (!access(CGROUP "/cgroup.reap", F_OK)) {
		for (i = 0; i < 2; i++)
			pthread_create(&threads[n++], NULL, grouper, (void *)(long)(seed + 90 + i));
	}
	while (time(NULL) < end) {
		int slot = next(&seed) % SLOTS;
		pid_t pid;

		if (slots[slot] > 0)
			kill(slots[slot], SIGKILL);
		else {
			enum kind kind = next(&seed) % KINDS;

			slots[slot] = start(kind, next(&seed));
			done[kind]++;
		}
		nap_us(next(&seed) % 4000);
		/* Children of victims come to us, too. */
		while ((pid = waitpid(-1, NULL, WNOHANG | __WALL)) > 0) {
			for (i = 0; i < SLOTS; i++) {
				if (slots[i] == pid)
					slots[i] = 0;
			}
		}
	}
	over = true;
	for (i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	write_text(CGROUP "/cgroup.freeze", "0");
	write_text(CGROUP "/cgroup.kill", "1");
	/* Sharers outlive who started them; nobody may be left when all is over. */
	end = time(NULL) + 60;
	while (time(NULL) < end) {
		pid_t pid;

		kill(-keeper, SIGKILL);
		pid = waitpid(-1, NULL, WNOHANG | __WALL);
		if (pid < 0 && errno == ECHILD)
			break;
		if (!pid)
			nap_us(10000);
	}
	printf("victims:");
	for (i = 0; i < KINDS; i++)
		printf(" %s %ld", names[i], done[i]);
	printf("\nreaps: %ld done, %ld gone, %ld refused, %ld other; cgroup.reap: %ld, failed %ld\n", reaped, gone,
	       refused, other, groups, group_errors);
	if (waitpid(-1, NULL, WNOHANG | __WALL) >= 0 || errno != ECHILD) {
		printf("somebody is left\n");
		return 1;
	}
	printf("stress ended well\n");
	return 0;
}
