/* SPDX-License-Identifier: Apache-2.0
 *
 * How a victim goes: by itself, and taken apart by a reaper that has the CPU to itself (the victim is pinned to the
 * reaper's CPU, where the reaper runs at real-time priority, so that both never share the work).
 */
#include "calibrate.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

#define NR_PIDFD_OPEN 434
#define NR_PROCESS_MRELEASE 448
#define NR_PROCESS_REAP 600
#define VICTIM_PAGES 12288u
#define SWAPPED_PAGES 4096u
#define RATIO 2500u
#define WAIT_MS 20000

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

struct victim {
	pid_t pid;
	int pidfd;
	int ready[2], go[2];
};

static void live(const struct victim *victim, size_t pages, int swapped, int64_t *exit_ns)
{
	char byte;
	uint8_t *at = pages ? map_pages(pages) : NULL;

	if (pages)
		fill_pages(at, pages, RATIO, (uint64_t)getpid());
	if (swapped)
		madvise(at, pages * 4096u, MADV_PAGEOUT);
	close(victim->go[1]);
	if (write(victim->ready[1], "", 1) != 1)
		_exit(1);
	/* Until it is killed, or asked to go by itself. */
	while (read(victim->go[0], &byte, 1) < 0)
		continue;
	*exit_ns = lmk_now_ns();
	_exit(0);
}

/* 0 or -errno; `exit_ns` is shared memory where a victim that leaves by itself says when. */
static int spawn(struct victim *victim, size_t pages, int swapped, int64_t *exit_ns)
{
	char byte;

	if (pipe(victim->ready) < 0 || pipe(victim->go) < 0)
		return -errno;
	fflush(stdout);
	victim->pid = fork();
	if (victim->pid == 0)
		live(victim, pages, swapped, exit_ns);
	if (victim->pid < 0 || lmk_read_full(victim->ready[0], &byte, 1) < 0)
		return -EIO;
	victim->pidfd = (int)syscall(NR_PIDFD_OPEN, victim->pid, 0);
	return victim->pidfd < 0 ? -errno : 0;
}

static int64_t wait_gone(struct victim *victim)
{
	struct pollfd gone = { .fd = victim->pidfd, .events = POLLIN };
	int64_t gone_ns;

	poll(&gone, 1, WAIT_MS);
	gone_ns = lmk_now_ns();
	waitpid(victim->pid, NULL, 0);
	close(victim->pidfd);
	for (int i = 0; i < 2; i++) {
		if (victim->ready[i] >= 0)
			close(victim->ready[i]);
		if (victim->go[i] >= 0)
			close(victim->go[i]);
	}
	return gone_ns;
}

/* SIGKILL until the pidfd says that it is gone. */
static void kill_alone(const char *name, size_t pages, int swapped, int64_t *exit_ns)
{
	struct victim victim;
	int64_t begin_ns;

	if (spawn(&victim, pages, swapped, exit_ns) < 0) {
		absent(name, "no victim");
		return;
	}
	lmk_sleep_ns(5 * NS_PER_MS);
	begin_ns = lmk_now_ns();
	kill(victim.pid, SIGKILL);
	sample(name, wait_gone(&victim) - begin_ns);
}

/* The end of a process that nobody has to be woken for. */
static void leave(int64_t *exit_ns)
{
	struct victim victim;
	int64_t gone_ns;

	if (spawn(&victim, 0, 0, exit_ns) < 0)
		return;
	if (write(victim.go[1], "", 1) != 1)
		kill(victim.pid, SIGKILL);
	gone_ns = wait_gone(&victim);
	sample("leave", gone_ns - *exit_ns);
}

/* --- a reaper thread ------------------------------------------------------------------------------------ */

struct job {
	long number;
	pid_t pid;
	int pidfd, failed;
	int64_t spent_ns;
};

static void pin(pid_t tid)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	sched_setaffinity(tid, sizeof(cpus), &cpus);
}

/* Kills and reaps without giving the victim a moment in between. */
static void *reap(void *argument)
{
	struct job *job = argument;
	struct sched_param priority = { .sched_priority = 1 };
	int64_t before_ns;

	pin(0);
	pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority);
	kill(job->pid, SIGKILL);
	before_ns = cpu_ns();
	job->failed = syscall(job->number, job->pidfd, 0) < 0 ? errno : 0;
	job->spent_ns = cpu_ns() - before_ns;
	return NULL;
}

static void kill_and_reap(const char *name, long number, size_t pages, int swapped, int64_t *exit_ns)
{
	struct victim victim;
	struct job job = { .number = number };
	pthread_t thread;

	if (spawn(&victim, pages, swapped, exit_ns) < 0)
		return;
	job.pidfd = victim.pidfd;
	job.pid = victim.pid;
	pin(victim.pid);
	lmk_sleep_ns(5 * NS_PER_MS);
	if (pthread_create(&thread, NULL, reap, &job) == 0) {
		pthread_join(thread, NULL);
	} else {
		job.failed = EAGAIN;
		kill(victim.pid, SIGKILL);
	}
	wait_gone(&victim);
	if (job.failed)
		absent(name, strerror(job.failed));
	else
		sample(name, job.spent_ns / (int64_t)pages);
}

void measure_death(void)
{
	int64_t *exit_ns = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (exit_ns == MAP_FAILED)
		return;
	for (int i = 0; i < 4; i++) {
		kill_alone("kill.small", 0, 0, exit_ns);
		leave(exit_ns);
	}
	kill_alone("kill.large", VICTIM_PAGES, 0, exit_ns);
	kill_alone("kill.swapped", SWAPPED_PAGES, 1, exit_ns);
	kill_and_reap("reap.process_reap", NR_PROCESS_REAP, VICTIM_PAGES, 0, exit_ns);
	kill_and_reap("reap.process_mrelease", NR_PROCESS_MRELEASE, VICTIM_PAGES, 0, exit_ns);
	kill_and_reap("reap.swapped", NR_PROCESS_MRELEASE, SWAPPED_PAGES, 1, exit_ns);
	sample("kill.large.pages", VICTIM_PAGES);
	sample("kill.swapped.pages", SWAPPED_PAGES);
	munmap(exit_ns, 4096);
}
