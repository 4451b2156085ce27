/* SPDX-License-Identifier: Apache-2.0
 *
 * A process together with the rest of its own cgroup (Android: .../uid_N/pid_M, the app and what it forked). Where the
 * kernel has cgroup.reap, a write kills them all and frees their memory. Elsewhere: pidfds of all members first,
 * then the signals, then the reaping, shared among the reaper threads, and again until nobody new is found.
 * Runs on reaper threads; only group_open is for the main thread.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CGROUP_ROOT "/sys/fs/cgroup"
#define WORKS 4			/* groups at once; the main thread queues no more than there are threads */
#define MEMBERS_MAX 512		/* per pass: what is left comes with the next one */
#define KNOWN_MAX 4096
#define PASSES_MAX 64
#define LIST_BYTES (64 * 1024)
#define EAGAIN_TRIES 5
#define LOOKS_MAX 3
#define HELP_WAIT_NS (2 * NS_PER_S)

/* One group that is being killed. Helpers come and go; who is the last to leave frees it. */
struct work {
	atomic_uint users;
	/* Pass in the upper half, so that nobody who comes late takes a member of the next pass for one of this. */
	_Atomic uint64_t count, next;
	atomic_uint lost, calls, open;
	atomic_int error;
	uint8_t method;
	uint32_t known_count;
	int fds[MEMBERS_MAX];
	int32_t known[KNOWN_MAX];
	char list[LIST_BYTES];
};

static struct work works[WORKS];

/* The path of a process's cgroup v2 in /proc/PID/cgroup's text, terminated in place; NULL without one. */
static char *unified_path(char *text)
{
	for (char *line = text; line && *line;) {
		char *end = strchr(line, '\n');

		if (end)
			*end++ = '\0';
		if (strncmp(line, "0::", 3) == 0)
			return line + 3;
		line = end;
	}
	return NULL;
}

/* Only a cgroup made for one process: anything else holds processes that nobody meant. */
static bool is_of_one_app(const char *path)
{
	const char *name = strrchr(path, '/');

	if (!name || strncmp(name, "/pid_", 5) != 0 || strstr(path, "/../"))
		return false;
	name += 5;
	return *name && name[strspn(name, "0123456789")] == '\0';
}

int group_open(int32_t pid)
{
	char text[1024], own[1024], full[PATH_BYTES];
	char *path, *own_path;
	uint8_t op;

	if (proc_read_pid(pid, "cgroup", text, sizeof(text), &op) < 0)
		return -ENOENT;
	path = unified_path(text);
	if (!path || !is_of_one_app(path))
		return -ENOENT;
	/* A helper that adbd started may be in adbd's own cgroup. */
	if (proc_read_pid(shared->worker_pid, "cgroup", own, sizeof(own), &op) > 0) {
		own_path = unified_path(own);
		if (own_path && strcmp(own_path, path) == 0)
			return -EPERM;
	}
	if (lmk_format(full, sizeof(full), CGROUP_ROOT "%s", path) < 0)
		return -ENAMETOOLONG;
	return open_path(full, O_RDONLY | O_DIRECTORY);
}

static struct work *take_work(void)
{
	for (size_t i = 0; i < WORKS; i++) {
		unsigned free_users = 0;

		if (atomic_compare_exchange_strong(&works[i].users, &free_users, 1))
			return &works[i];
	}
	return NULL;
}

/* --- one write ---------------------------------------------------------------------------------------------- */

static bool is_empty(int group_fd)
{
	int fd = openat(group_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	char byte;
	bool empty = fd < 0 || read(fd, &byte, 1) <= 0;

	if (fd >= 0)
		close(fd);
	return empty;
}

static int write_reap(int group_fd, uint32_t *calls)
{
	int fd = openat(group_fd, "cgroup.reap", O_WRONLY | O_CLOEXEC);
	int error = fd < 0 ? errno : EAGAIN;

	/* EAGAIN: all are killed, some memory could not be freed without blocking. */
	for (int tries = 0; fd >= 0 && error == EAGAIN && tries < EAGAIN_TRIES; tries++) {
		if (tries)
			lmk_sleep_ns(NS_PER_MS);
		++*calls;
		error = write(fd, "1", 1) == 1 ? 0 : errno;
	}
	/*
	 * A fork that begins after the kernel's walk over the cgroup did, and just before its parent is reached, may
	 * add the child after the walk (cgroup.kill has the same gap). Another walk finds it.
	 */
	for (int looks = 1; fd >= 0 && error == 0 && looks < LOOKS_MAX && !is_empty(group_fd); looks++) {
		++*calls;
		error = write(fd, "1", 1) == 1 ? 0 : errno;
	}
	if (fd >= 0)
		close(fd);
	return error;
}

/* --- the same from userspace ---------------------------------------------------------------------------------- */

/* Reaps members until there are no more: on the thread that leads, and on those that help. */
static void reap_members(struct work *work)
{
	for (;;) {
		uint64_t next = atomic_fetch_add(&work->next, 1), count = atomic_load(&work->count);
		uint32_t index = (uint32_t)next;

		if (next >> 32 != count >> 32 || index >= (uint32_t)count)
			return;
		if (work->method != REAP_NONE) {
			int error = sys_reap(work->method, work->fds[index]) < 0 ? errno : 0;

			atomic_fetch_add(&work->calls, 1);
			if (error == ESRCH)
				atomic_fetch_add(&work->lost, 1);
			else if (error)
				atomic_store(&work->error, error);
		}
		close(work->fds[index]);
		atomic_fetch_sub(&work->open, 1);
	}
}

void group_help(uint32_t index)
{
	reap_members(&works[index]);
	atomic_fetch_sub(&works[index].users, 1);
}

static bool is_known(const struct work *work, int32_t pid)
{
	for (uint32_t i = 0; i < work->known_count; i++)
		if (work->known[i] == pid)
			return true;
	return false;
}

static ssize_t read_members(struct work *work, int group_fd)
{
	int fd = openat(group_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	ssize_t length;

	if (fd < 0)
		return -errno;
	length = lmk_reread(fd, work->list, sizeof(work->list));
	close(fd);
	return length;
}

/* Descriptors of members that were not seen before; how many. */
static uint32_t open_members(struct work *work)
{
	char *at = work->list, *end;
	uint32_t count = 0;

	while (count < MEMBERS_MAX && work->known_count < KNOWN_MAX) {
		long pid = strtol(at, &end, 10);
		int fd;

		if (end == at)
			break;
		at = end;
		if (pid <= 1 || pid == shared->worker_pid || pid == shared->guardian_pid || is_known(work, pid))
			continue;
		work->known[work->known_count++] = (int32_t)pid;
		fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
		if (fd >= 0)
			work->fds[count++] = fd;
	}
	return count;
}

static void ask_for_help(struct work *work, uint32_t members)
{
	uint32_t index = (uint32_t)(work - works);

	for (uint32_t i = 1; i < REAPERS && i < members; i++) {
		struct reap_job job = { .group_fd = -1, .help = index + 1 };

		atomic_fetch_add(&work->users, 1);
		if (reaper_queue(&job) != 0) {
			atomic_fetch_sub(&work->users, 1);
			break;
		}
	}
}

/* Until the helpers are done with this pass. A victim that holds its mmap lock in D state keeps one of them. */
static bool wait_for_helpers(struct work *work)
{
	int64_t end_ns = lmk_now_ns() + HELP_WAIT_NS;

	while (atomic_load(&work->open) > 0 && lmk_now_ns() < end_ns)
		lmk_sleep_ns(NS_PER_MS / 5);
	return atomic_load(&work->open) == 0;
}

static void batch(struct work *work, const struct reap_job *job)
{
	work->known_count = 0;
	atomic_store(&work->lost, 0);
	atomic_store(&work->calls, 0);
	atomic_store(&work->error, 0);
	for (uint64_t pass = 0; pass < PASSES_MAX; pass++) {
		uint32_t members = read_members(work, job->group_fd) > 0 ? open_members(work) : 0;

		for (uint32_t i = 0; i < members; i++)
			syscall(SYS_pidfd_send_signal, work->fds[i], SIGKILL, NULL, 0);
		if (pass == 0)
			syscall(SYS_pidfd_send_signal, job->pidfd, SIGKILL, NULL, 0);
		if (members == 0)
			break;
		atomic_store(&work->open, members);
		atomic_store(&work->count, pass << 32 | members);
		atomic_store(&work->next, pass << 32);
		ask_for_help(work, members);
		reap_members(work);
		if (!wait_for_helpers(work))
			break;
	}
}

void group_kill(const struct reap_job *job, struct reap_result *result)
{
	bool any = job->method == REAP_AUTO;
	struct work *work;

	result->begin_ns = lmk_now_ns();
	result->method = REAP_CGROUP;
	result->error = ENOENT;
	if (any || job->method == REAP_CGROUP)
		result->error = write_reap(job->group_fd, &result->calls);
	work = result->error && result->error != EAGAIN && job->method != REAP_CGROUP ? take_work() : NULL;
	if (work) {
		work->method = result->method = any ? reaper_best_method() : job->method;
		batch(work, job);
		result->error = atomic_load(&work->error);
		result->calls = atomic_load(&work->calls);
		result->group_members = work->known_count;
		result->group_lost = atomic_load(&work->lost);
		atomic_fetch_sub(&work->users, 1);
	}
	/* Whatever became of its cgroup, this process dies. */
	syscall(SYS_pidfd_send_signal, job->pidfd, SIGKILL, NULL, 0);
	result->end_ns = lmk_now_ns();
	close(job->group_fd);
}
