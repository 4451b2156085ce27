/* SPDX-License-Identifier: GPL-2.0 */
/* One round: victims, who looks at them, who kills and reaps them, and the end of all of it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stress.h"

#define NR_REAP 600
#define NR_MRELEASE 448
#define NR_PIDFD_SEND_SIGNAL 424
#define NR_PIDFD_OPEN 434
#define REAPERS_MAX 4
#define VICTIMS_MAX 6

struct reaper {
	pthread_t thread;
	int pidfd;
	unsigned delay_us, calls;
	bool mrelease, failing;
	bool surely_unshared; /* once killed, the victim shares its memory with nobody */
	_Atomic bool *killed;
};

static void count_answer(enum call call, int answer)
{
	tally->answers[call][answer >= 0 && answer < 133 ? answer : 133]++;
}

/* What the calls may answer, whatever happens at the same time. */
static void *reap(void *arg)
{
	struct reaper *me = arg;
	unsigned i;

	inject_faults(me->failing);
	nap_us(me->delay_us);
	for (i = 0; i < me->calls; i++) {
		bool after_kill = *me->killed;
		int answer = syscall(me->mrelease ? NR_MRELEASE : NR_REAP, me->pidfd, 0) ? errno : 0;

		if (me->mrelease && answer == ENOSYS)
			continue;
		count_answer(me->mrelease ? CALL_MRELEASE : CALL_REAP, answer);
		if (answer != 0 && answer != ESRCH && answer != EINVAL && answer != EAGAIN)
			complain("%s answered %s", me->mrelease ? "process_mrelease" : "process_reap", strerror(answer));
		if (answer == EINVAL && after_kill && me->surely_unshared)
			complain("a killed process that shares its memory with nobody could not be reaped");
		nap_us(draw(300));
	}
	inject_faults(false);
	return NULL;
}

/* Holds references to the victim's memory, on and off. */
static void be_reader(pid_t pid)
{
	char path[64], buffer[4096];
	struct iovec local = { buffer, sizeof(buffer) }, remote = { (void *)0x400000, sizeof(buffer) };
	const char *file = chance(50) ? "smaps_rollup" : "maps";

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	for (;;) {
		int fd = open(path, O_RDONLY);

		if (fd < 0)
			_exit(0);
		while (read(fd, buffer, sizeof(buffer)) > 0)
			;
		close(fd);
		syscall(SYS_process_vm_readv, pid, &local, 1, &remote, 1, 0);
	}
}

static pid_t start_process(const struct shape *shape, struct round *round)
{
	pid_t pid = fork();

	if (pid == 0) {
		seed(now_ms() * 7919 + getpid());
		be_victim(shape, round);
	}
	return pid;
}

static pid_t start_reader(pid_t victim)
{
	pid_t pid = fork();

	if (pid == 0)
		be_reader(victim);
	return pid;
}

/* How a victim is kept from running, if at all. */
struct hold {
	bool stopped, frozen_v1, frozen_v2, traced, small;
	char v1[96], v2[96];
};

static void in_directory(char *path, size_t size, const char *directory, const char *file)
{
	if ((size_t)snprintf(path, size, "%s/%s", directory, file) >= size)
		abort();
}

static void put_in(const char *directory, const char *file, const char *text)
{
	char path[128];

	in_directory(path, sizeof(path), directory, file);
	put(path, text);
}

static void apply_hold(struct hold *hold, unsigned arena, pid_t pid)
{
	char path[128];

	snprintf(hold->v1, sizeof(hold->v1), FREEZER "/a%u", arena);
	snprintf(hold->v2, sizeof(hold->v2), CGROUP "/a%u", arena);
	in_directory(path, sizeof(path), hold->v2, "cgroup.procs");
	put_number(path, pid);
	if (hold->frozen_v1) {
		in_directory(path, sizeof(path), hold->v1, "cgroup.procs");
		put_number(path, pid);
		put_in(hold->v1, "freezer.state", "FROZEN");
		tally->frozen++;
	}
	if (hold->frozen_v2) {
		put_in(hold->v2, "cgroup.freeze", "1");
		tally->frozen++;
	}
	if (hold->traced)
		ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_TRACEEXIT);
	if (hold->stopped)
		kill(pid, SIGSTOP);
	if (hold->small) {
		/* The OOM killer comes as soon as the victim wants another page. */
		put_in(hold->v2, "memory.swap.max", "0");
		put_in(hold->v2, "memory.max", "1M");
		tally->ooms++;
	}
}

static void lift_hold(const struct hold *hold)
{
	if (hold->frozen_v1)
		put_in(hold->v1, "freezer.state", "THAWED");
	if (hold->frozen_v2)
		put_in(hold->v2, "cgroup.freeze", "0");
	if (hold->small) {
		put_in(hold->v2, "memory.max", "max");
		put_in(hold->v2, "memory.swap.max", "max");
	}
}

/* Until no child of this arena is left. Those held at their exit are let go on. */
static void wait_for_all(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR) {
		if (pid > 0 && WIFSTOPPED(status))
			ptrace(PTRACE_CONT, pid, NULL, 0);
		else if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 66)
			tally->bad++;
		else if (pid > 0 && WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
			complain("process %d was ended by signal %d", pid, WTERMSIG(status));
	}
}

static void wait_ready(struct round *round)
{
	int i;

	for (i = 0; i < 2000 && !round->ready; i++)
		nap_us(1000);
}

static void single_round(unsigned arena, struct round *round)
{
	struct reaper reapers[REAPERS_MAX];
	unsigned i, count = 1 + draw(REAPERS_MAX);
	_Atomic bool killed = false;
	struct hold hold = { .stopped = chance(10), .frozen_v1 = chance(15), .frozen_v2 = chance(15), .small = chance(10) };
	pid_t pid, readers[2] = { 0, 0 };
	struct shape shape;
	int pidfd;

	hold.traced = !hold.frozen_v1 && chance(15);
	random_shape(&shape);
	now_doing(arena, "starting the victim", 0);
	pid = start_process(&shape, round);
	if (pid < 0)
		return;
	pidfd = syscall(NR_PIDFD_OPEN, pid, 0);
	if (!chance(20))
		wait_ready(round);
	now_doing(arena, "stopping, freezing or tracing it", pid);
	apply_hold(&hold, arena, pid);
	now_doing(arena, "starting readers and reapers", pid);
	for (i = 0; i < 2; i++)
		readers[i] = chance(30) ? start_reader(pid) : 0;
	for (i = 0; i < count; i++) {
		reapers[i] = (struct reaper){ .pidfd = pidfd, .delay_us = draw(1500), .calls = 1 + draw(6), .killed = &killed };
		reapers[i].mrelease = chance(25);
		reapers[i].failing = chance(25);
		reapers[i].surely_unshared = !shape.vm_sharer && !shape.vfork && !shape.leader_dies;
		pthread_create(&reapers[i].thread, NULL, reap, &reapers[i]);
	}
	nap_us(draw(1000));
	syscall(NR_PIDFD_SEND_SIGNAL, pidfd, SIGKILL, NULL, 0);
	killed = true;
	now_doing(arena, "waiting for the reapers", pid);
	for (i = 0; i < count; i++)
		pthread_join(reapers[i].thread, NULL);
	now_doing(arena, "thawing it", pid);
	lift_hold(&hold);
	round->stop = true;
	for (i = 0; i < 2; i++) {
		if (readers[i] > 0)
			kill(readers[i], SIGKILL);
	}
	now_doing(arena, "waiting for the end of victim, sharers and readers", pid);
	wait_for_all();
	close(pidfd);
}

struct writer {
	pthread_t thread;
	const char *directory;
	unsigned delay_us;
	bool failing, begun;
};

static void *write_reap(void *arg)
{
	struct writer *me = arg;
	char path[128];
	int fd, answer;

	in_directory(path, sizeof(path), me->directory, "cgroup.reap");
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	inject_faults(me->failing);
	nap_us(me->delay_us);
	answer = write(fd, "1", 1) == 1 ? 0 : errno;
	inject_faults(false);
	close(fd);
	count_answer(CALL_CGROUP_REAP, answer);
	/* No memory for what was written (kernfs_fop_write_iter): it never got as far as killing anybody. */
	me->begun = answer != ENOMEM;
	if (answer != 0 && answer != EAGAIN && !(me->failing && answer == ENOMEM))
		complain("cgroup.reap answered %s", strerror(answer));
	return NULL;
}

/* Kernels without cgroup.reap: what a batch of the helper does. */
static void reap_one_by_one(const int *pidfds, unsigned count)
{
	unsigned i;

	for (i = 0; i < count; i++)
		syscall(NR_PIDFD_SEND_SIGNAL, pidfds[i], SIGKILL, NULL, 0);
	for (i = 0; i < count; i++)
		count_answer(CALL_REAP, syscall(NR_REAP, pidfds[i], 0) ? errno : 0);
}

static bool cgroup_is_empty(const char *directory)
{
	char path[128], text[256] = "";
	int i, fd;

	in_directory(path, sizeof(path), directory, "cgroup.events");
	for (i = 0; i < 6000; i++) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
			text[0] = '\0';
		close(fd);
		if (strstr(text, "populated 0"))
			return true;
		/* Zombies do not count; who forked before it was killed may have left orphans, which are killed too. */
		nap_us(10000);
	}
	return false;
}

static void cgroup_round(unsigned arena, struct round *round)
{
	unsigned i, victims = 2 + draw(VICTIMS_MAX - 1), count = 1 + draw(3);
	char directory[96], path[128];
	struct writer writers[3];
	int pidfds[VICTIMS_MAX];
	struct shape shape;
	bool frozen = chance(20), in_kernel, begun = false;

	snprintf(directory, sizeof(directory), CGROUP "/a%u", arena);
	in_directory(path, sizeof(path), directory, "cgroup.reap");
	in_kernel = access(path, W_OK) == 0;
	in_directory(path, sizeof(path), directory, "cgroup.procs");
	now_doing(arena, "filling a cgroup", 0);
	for (i = 0; i < victims; i++) {
		pid_t pid;

		random_shape(&shape);
		/* A sharer looks at what its round shares; one per round. Orphans of forkers are the kernel's to find. */
		shape.vm_sharer = false;
		shape.forker = shape.execer = in_kernel && chance(40);
		pid = start_process(&shape, round);
		pidfds[i] = pid > 0 ? (int)syscall(NR_PIDFD_OPEN, pid, 0) : -1;
		put_number(path, pid);
	}
	tally->cgroups++;
	nap_us(draw(20000));
	if (frozen)
		put_in(directory, "cgroup.freeze", "1");
	for (i = 0; in_kernel && i < count; i++) {
		writers[i] = (struct writer){ .directory = directory, .delay_us = draw(1000), .failing = chance(25) };
		pthread_create(&writers[i].thread, NULL, write_reap, &writers[i]);
	}
	now_doing(arena, in_kernel ? "waiting for the writers of cgroup.reap" : "killing and reaping one by one", 0);
	if (!in_kernel)
		reap_one_by_one(pidfds, victims);
	for (i = 0; in_kernel && i < count; i++) {
		pthread_join(writers[i].thread, NULL);
		begun |= writers[i].begun;
	}
	if (in_kernel && !begun)
		write_reap(&(struct writer){ .directory = directory });
	if (frozen)
		put_in(directory, "cgroup.freeze", "0");
	round->stop = true;
	now_doing(arena, "waiting until the cgroup is empty", 0);
	if (in_kernel && !cgroup_is_empty(directory))
		complain("processes escaped from cgroup.reap");
	for (i = 0; i < victims; i++)
		syscall(NR_PIDFD_SEND_SIGNAL, pidfds[i], SIGKILL, NULL, 0);
	now_doing(arena, "waiting for the end of the cgroup's processes", 0);
	wait_for_all();
	for (i = 0; i < victims; i++)
		close(pidfds[i]);
}

void one_round(unsigned arena, struct round *round)
{
	round->ready = round->stop = false;
	round->sharer = 0;
	if (chance(25))
		cgroup_round(arena, round);
	else
		single_round(arena, round);
	tally->rounds++;
}
