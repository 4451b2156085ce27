/* SPDX-License-Identifier: GPL-2.0 */
/* What is killed: processes with memory, threads, children and sharers of every kind. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stress.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define PATTERN 0x5a
#define SHARER_STACK (64UL * 1024)

void random_shape(struct shape *shape)
{
	*shape = (struct shape){
		.mib = 1 + draw(8),
		.threads = chance(60) ? draw(12) : 0,
		.swapped = chance(30),
		.locked = chance(15),
		.shared = chance(30),
		.file = chance(30),
		.userfault = chance(15),
		.churn = chance(50),
		.forker = chance(25),
		.execer = chance(15),
		.vm_sharer = chance(20),
		.vfork = chance(10),
		.blocked = disk != NULL && chance(15),
		.leader_dies = chance(10),
	};
}

static void *filled(size_t size, int flags)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		_exit(0);
	memset(p, PATTERN, size);
	return p;
}

/* Failing is fine: what is wanted is that some have it. */
static void register_userfault(void *p, size_t size)
{
	unsigned long long api[3] = { 0xAA, 0, 0 };
	unsigned long long reg[4] = { (unsigned long)p, size, 1, 0 };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0 || ioctl(fd, _IOWR(0xAA, 0x3F, api), api))
		return;
	ioctl(fd, _IOWR(0xAA, 0x00, reg), reg);
}

static char *make_memory(const struct shape *shape)
{
	size_t size = shape->mib * MB;
	char *p = filled(size, MAP_PRIVATE);
	int fd;

	if (shape->swapped) {
		madvise(p, size, MADV_PAGEOUT);
		tally->pagings++;
	}
	if (shape->locked)
		mlock(p, size / 2);
	if (shape->shared)
		filled(MB, MAP_SHARED);
	if (shape->userfault)
		register_userfault(filled(MB, MAP_PRIVATE), MB);
	fd = shape->file ? open("/proc/self/exe", O_RDONLY | O_CLOEXEC) : -1;
	if (fd >= 0) {
		char *q = mmap(NULL, 64 * 1024, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);

		if (q != MAP_FAILED)
			memset(q, 1, 32 * 1024);
		close(fd);
	}
	return p;
}

/* Page faults, and the mmap lock taken for writing, all the time. */
static void *churn(void *arg)
{
	bool hard = arg != NULL;

	for (;;) {
		char *p = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			continue;
		memset(p, 1, MB / 4);
		if (hard) {
			mprotect(p, MB / 2, PROT_READ);
			madvise(p, MB, MADV_DONTNEED);
		}
		munmap(p, MB);
		nap_us(draw(2000));
	}
	return NULL;
}

static void make_threads(const struct shape *shape)
{
	pthread_attr_t attr;
	pthread_t thread;
	unsigned i;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 * 1024);
	for (i = 0; i < shape->threads; i++) {
		if (pthread_create(&thread, &attr, churn, shape->churn ? (void *)1 : NULL))
			break;
	}
}

/*
 * Shares a victim's memory and outlives it for a while. As long as it lives nobody may take that memory: a page that
 * reads as something else, or a SIGBUS, is the worst that can happen.
 */
struct sharer {
	struct round *round;
	volatile char *memory;
	size_t size;
};

static int be_sharer(void *arg)
{
	struct sharer *sharer = arg;
	size_t i;

	while (!sharer->round->stop) {
		for (i = 0; i < sharer->size; i += 4096) {
			if (sharer->memory[i] != PATTERN) {
				complain("memory of a live process was taken at offset %zu", i);
				_exit(66);
			}
		}
		nap_us(500);
	}
	_exit(0);
}

static void make_sharer(const struct shape *shape, struct round *round, char *memory)
{
	struct sharer *sharer = filled(sizeof(*sharer), MAP_PRIVATE);
	char *stack = filled(SHARER_STACK, MAP_PRIVATE);

	*sharer = (struct sharer){ .round = round, .memory = memory, .size = shape->mib * MB };
	/* A child of the arena, which ends it and learns how it ended. */
	round->sharer = clone(be_sharer, stack + SHARER_STACK, CLONE_VM | CLONE_PARENT | SIGCHLD, sharer);
}

static void *keep_forking(void *arg)
{
	bool exec = arg != NULL;

	for (;;) {
		bool failing = chance(30);
		pid_t pid;

		/* The child, too, starts with allocations that fail. */
		if (failing)
			inject_faults(true);
		pid = fork();
		if (failing && pid != 0)
			inject_faults(false);
		if (pid == 0) {
			if (exec)
				execl("/proc/self/exe", "kernel-stress", "--execed", NULL);
			nap_us(draw(1000));
			_exit(0);
		}
		if (pid > 0) {
			if (exec)
				tally->execs++;
			else
				tally->forks++;
			waitpid(pid, NULL, 0);
		}
		nap_us(draw(3000));
	}
	return NULL;
}

static void *keep_vforking(void *arg)
{
	for (;;) {
		if (vfork() == 0) {
			usleep(2000);
			_exit(0);
		}
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	return arg;
}

static void *keep_writing(void *arg)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%d", disk, getpid());
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	unlink(path);
	while (fd >= 0 && write(fd, path, sizeof(path)) > 0 && lseek(fd, 0, SEEK_SET) == 0)
		nap_us(500);
	return arg;
}

void be_victim(const struct shape *shape, struct round *round)
{
	char *memory;
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memory = make_memory(shape);
	make_threads(shape);
	if (shape->vm_sharer)
		make_sharer(shape, round, memory);
	if (shape->forker)
		pthread_create(&thread, NULL, keep_forking, NULL);
	if (shape->execer)
		pthread_create(&thread, NULL, keep_forking, (void *)1);
	if (shape->vfork)
		pthread_create(&thread, NULL, keep_vforking, NULL);
	if (shape->blocked)
		pthread_create(&thread, NULL, keep_writing, NULL);
	round->ready = true;
	if (shape->leader_dies)
		syscall(SYS_exit, 0);
	for (;;)
		pause();
}

int be_execed(void)
{
	filled(MB, MAP_PRIVATE);
	nap_us(1000);
	return 0;
}
