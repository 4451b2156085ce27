/* SPDX-License-Identifier: Apache-2.0 */
#include "apprunner_cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "apprunner_memory.h"
#include "common.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif

#define PATH_BYTES 160
/* Between two looks at whether the app is wanted again. */
#define ADVISE_PAGES 1024u
#define JOBS_MAX 64u

static int write_file(const char *path, const char *text)
{
	/* O_CREAT never makes anything in a cgroup file system; it lets the tests use plain directories. */
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	int error = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		error = -errno;
	close(fd);
	return error;
}

static int make_directory(const char *path)
{
	return mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

void cgroup_find_roots(struct cgroup_roots *roots)
{
	if (!roots->memory_v1 && access("/dev/memcg/memory.limit_in_bytes", F_OK) == 0)
		roots->memory_v1 = "/dev/memcg";
	if (!roots->unified && access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0)
		roots->unified = "/sys/fs/cgroup";
}

static int prepare_group(const char *root, const char *group, int unified)
{
	char path[PATH_BYTES];
	int error;

	lmk_format(path, sizeof(path), "%s/%s", root, group);
	error = make_directory(path);
	if (error < 0 || !unified)
		return error;
	lmk_format(path, sizeof(path), "%s/%s/cgroup.subtree_control", root, group);
	return write_file(path, "+memory");
}

int cgroup_prepare(const struct cgroup_roots *roots)
{
	static const char *const groups[] = { "apps", "system" };
	char path[PATH_BYTES];
	int first = 0, error;

	if (roots->unified) {
		lmk_format(path, sizeof(path), "%s/cgroup.subtree_control", roots->unified);
		/* Refused where memory belongs to v1: the v2 groups then serve the freezer alone. */
		write_file(path, "+memory");
	}
	for (size_t i = 0; i < LMK_ARRAY_LEN(groups); i++) {
		error = roots->memory_v1 ? prepare_group(roots->memory_v1, groups[i], 0) : 0;
		first = first ? first : error;
		error = roots->unified ? prepare_group(roots->unified, groups[i], 1) : 0;
		if (!roots->memory_v1)
			first = first ? first : error;
	}
	return first;
}

static int enter_one(const char *root, const char *group, uid_t uid, pid_t pid, int unified)
{
	char path[PATH_BYTES], number[16];
	int error;

	lmk_format(path, sizeof(path), "%s/%s/uid_%u", root, group, (unsigned int)uid);
	error = make_directory(path);
	if (error < 0)
		return error;
	if (unified) {
		lmk_format(path, sizeof(path), "%s/%s/uid_%u/cgroup.subtree_control", root, group,
			   (unsigned int)uid);
		write_file(path, "+memory");
	}
	lmk_format(path, sizeof(path), "%s/%s/uid_%u/pid_%d", root, group, (unsigned int)uid, (int)pid);
	error = make_directory(path);
	if (error < 0)
		return error;
	lmk_format(path, sizeof(path), "%s/%s/uid_%u/pid_%d/cgroup.procs", root, group, (unsigned int)uid,
		   (int)pid);
	lmk_format(number, sizeof(number), "%d", (int)pid);
	return write_file(path, number);
}

int cgroup_enter(const struct cgroup_roots *roots, const char *group, uid_t uid)
{
	int first = 0, error;

	if (roots->memory_v1)
		first = enter_one(roots->memory_v1, group, uid, getpid(), 0);
	if (roots->unified) {
		error = enter_one(roots->unified, group, uid, getpid(), 1);
		first = first ? first : error;
	}
	return first;
}

static void remove_one(const char *root, const char *group, uid_t uid, pid_t pid)
{
	char path[PATH_BYTES];

	lmk_format(path, sizeof(path), "%s/%s/uid_%u/pid_%d", root, group, (unsigned int)uid, (int)pid);
	/* Others of the uid keep its directory busy, and a dying group may be too: both are left behind. */
	rmdir(path);
	lmk_format(path, sizeof(path), "%s/%s/uid_%u", root, group, (unsigned int)uid);
	rmdir(path);
}

void cgroup_remove(const struct cgroup_roots *roots, const char *group, uid_t uid, pid_t pid)
{
	if (roots->memory_v1)
		remove_one(roots->memory_v1, group, uid, pid);
	if (roots->unified)
		remove_one(roots->unified, group, uid, pid);
}

int cgroup_freeze(const struct cgroup_roots *roots, const char *group, uid_t uid, pid_t pid, int frozen)
{
	char path[PATH_BYTES];

	if (!roots->unified)
		return -ENOENT;
	lmk_format(path, sizeof(path), "%s/%s/uid_%u/pid_%d/cgroup.freeze", roots->unified, group,
		   (unsigned int)uid, (int)pid);
	return write_file(path, frozen ? "1" : "0");
}

/* --- compaction ---------------------------------------------------------------------------------- */

static struct compact_job jobs[JOBS_MAX];
static unsigned int jobs_begin, jobs_count;
static pthread_mutex_t jobs_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t jobs_ready = PTHREAD_COND_INITIALIZER;
static atomic_int running_pid, cancelled_pid;
static int result_fd = -1;

static int64_t rss_kib(pid_t pid)
{
	char path[32], text[128];
	long long resident = -1;

	lmk_format(path, sizeof(path), "/proc/%d/statm", (int)pid);
	if (lmk_read_file(AT_FDCWD, path, text, sizeof(text)) > 0)
		sscanf(text, "%*s %lld", &resident);
	return resident < 0 ? -1 : resident * (PAGE_BYTES / 1024);
}

static int advise(const struct compact_job *job, uint64_t address, uint64_t pages)
{
	for (uint64_t at = 0; at < pages; at += ADVISE_PAGES) {
		uint64_t count = pages - at < ADVISE_PAGES ? pages - at : ADVISE_PAGES;
		struct iovec range = {
			.iov_base = (void *)(uintptr_t)(address + at * PAGE_BYTES),
			.iov_len = (size_t)count * PAGE_BYTES,
		};

		if (atomic_load(&cancelled_pid) == job->pid)
			return -ECANCELED;
		if (syscall(SYS_process_madvise, job->pidfd, &range, 1, MADV_PAGEOUT, 0) < 0 && errno != ENOMEM)
			return -errno;
	}
	return 0;
}

static void compact_one(const struct compact_job *job)
{
	struct compact_result result = { .pid = job->pid, .process = job->process, .kinds = job->kinds };

	result.begin_ns = lmk_now_ns();
	result.rss_before_kib = rss_kib(job->pid);
	if (job->kinds & COMPACT_FILE)
		result.error = advise(job, job->file_address, job->file_pages);
	if (!result.error && (job->kinds & COMPACT_ANON))
		result.error = advise(job, job->anon_address, job->anon_pages);
	result.rss_after_kib = rss_kib(job->pid);
	result.end_ns = lmk_now_ns();
	close(job->pidfd);
	/* Smaller than PIPE_BUF: written whole. */
	(void)!write(result_fd, &result, sizeof(result));
}

static void *compact_main(void *unused)
{
	/* Android runs it in the background: never at the expense of the app in front. */
	setpriority(PRIO_PROCESS, 0, 10);
	for (;;) {
		struct compact_job job;

		pthread_mutex_lock(&jobs_lock);
		while (!jobs_count)
			pthread_cond_wait(&jobs_ready, &jobs_lock);
		job = jobs[jobs_begin];
		jobs_begin = (jobs_begin + 1) % JOBS_MAX;
		jobs_count--;
		atomic_store(&cancelled_pid, 0);
		atomic_store(&running_pid, job.pid);
		pthread_mutex_unlock(&jobs_lock);
		if (job.pid)
			compact_one(&job);
		atomic_store(&running_pid, 0);
	}
	return unused;
}

int compact_start(void)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int ends[2], error;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	result_fd = ends[1];
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 * 1024);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	error = pthread_create(&thread, &attributes, compact_main, NULL);
	pthread_attr_destroy(&attributes);
	return error ? -error : ends[0];
}

int compact_submit(const struct compact_job *job)
{
	int error = -EAGAIN;

	pthread_mutex_lock(&jobs_lock);
	if (jobs_count < JOBS_MAX) {
		jobs[(jobs_begin + jobs_count++) % JOBS_MAX] = *job;
		pthread_cond_signal(&jobs_ready);
		error = 0;
	}
	pthread_mutex_unlock(&jobs_lock);
	return error;
}

void compact_cancel(pid_t pid)
{
	pthread_mutex_lock(&jobs_lock);
	for (unsigned int i = 0; i < jobs_count; i++) {
		struct compact_job *job = &jobs[(jobs_begin + i) % JOBS_MAX];

		if (job->pid == pid) {
			close(job->pidfd);
			job->pid = 0;
		}
	}
	if (atomic_load(&running_pid) == pid)
		atomic_store(&cancelled_pid, pid);
	pthread_mutex_unlock(&jobs_lock);
}
