/* SPDX-License-Identifier: Apache-2.0
 *
 * The threads that free victims' memory. With process_reap that work is charged to the caller, at the caller's
 * priority and on its CPUs, so it runs here and not on the main thread. Jobs and results are fixed-size records in
 * pipes: a write of at most PIPE_BUF bytes is atomic, no lock is held by anybody, and a thread that is stuck
 * (a victim that holds its mmap lock in D state) only takes itself away.
 */
#include "helper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REAPER_STACK (128 * 1024)
#define EAGAIN_TRIES 5		/* an mmu notifier would have blocked: the rest may be freed later */
#define EINVAL_TRIES 3		/* somebody who shares the mm is still alive */
#define RETRY_NS NS_PER_MS
#define MEASURE_STEP_NS NS_PER_MS
#define MEASURE_LIMIT_NS (10 * NS_PER_S)
#define NR_PROCESS_REAP 600
#define NR_PROCESS_MRELEASE 448

_Static_assert(sizeof(struct reap_job) <= PIPE_BUF && sizeof(struct reap_result) <= PIPE_BUF, "atomic pipe writes");

static int jobs[2], measures[2], results[2];
static volatile pid_t tids[REAPERS + 1];

long sys_reap(uint8_t method, int pidfd)
{
	return syscall(method == REAP_PROCESS_REAP ? NR_PROCESS_REAP : NR_PROCESS_MRELEASE, pidfd, 0);
}

uint8_t probe_call(long number, bool check_flags)
{
	if (syscall(number, -1, 0) != -1)
		return CALL_FOREIGN;
	if (errno == ENOSYS)
		return CALL_ABSENT;
	if (errno == EPERM || errno == EACCES)
		return CALL_BLOCKED;
	if (!check_flags)
		return CALL_PRESENT;
	if (errno != EBADF)
		return CALL_FOREIGN;
	/* The real one tests its flags before the descriptor. */
	return syscall(number, -1, 1) == -1 && errno == EINVAL ? CALL_PRESENT : CALL_FOREIGN;
}

static void boost(int32_t pid)
{
	char path[32];
	struct dirent *entry;
	DIR *threads;
	int fd;

	lmk_format(path, sizeof(path), "%d/task", pid);
	fd = openat(proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	threads = fd < 0 ? NULL : fdopendir(fd);
	if (!threads) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(threads)) != NULL) {
		int64_t tid;

		if (lmk_parse_i64(entry->d_name, &tid) == 0)
			setpriority(PRIO_PROCESS, (id_t)tid, -20);
	}
	closedir(threads);
}

uint8_t reaper_best_method(void)
{
	if (call_process_reap == CALL_PRESENT)
		return REAP_PROCESS_REAP;
	return call_process_mrelease == CALL_PRESENT ? REAP_PROCESS_MRELEASE : REAP_NONE;
}

static void reap(const struct reap_job *job, struct reap_result *result)
{
	unsigned again = 0, invalid = 0;

	result->method = job->method == REAP_AUTO ? reaper_best_method() : job->method;
	result->begin_ns = lmk_now_ns();
	while (result->method != REAP_NONE) {
		long done = sys_reap(result->method, job->pidfd);

		result->error = done < 0 ? errno : 0;
		result->calls++;
		if (!(result->error == EAGAIN && ++again < EAGAIN_TRIES) &&
		    !(result->error == EINVAL && ++invalid < EINVAL_TRIES))
			break;
		lmk_sleep_ns(RETRY_NS);
	}
	result->end_ns = lmk_now_ns();
}

static void reap_and_look(const struct reap_job *job)
{
	struct reap_result result = { .slot = job->slot, .generation = job->generation, .anon_kib_after = -1,
				      .shmem_kib_after = -1, .free_pages_after = -1 };
	struct proc_memory memory;

	/* First, as lmkd does: a victim that holds its mmap lock must run before anyone can reap it. */
	if (job->flags & KILL_BOOST)
		boost(job->pid);
	if (job->group_fd >= 0)
		group_kill(job, &result);
	else
		reap(job, &result);
	if (result.method != REAP_NONE) {
		result.free_pages_after = proc_free_pages();
		if (proc_memory(job->pid, NULL, &memory) == 0) {
			result.anon_kib_after = memory.anon_kib;
			result.shmem_kib_after = memory.shmem_kib;
		} else {
			result.anon_kib_after = result.shmem_kib_after = 0;
		}
	}
	lmk_write_full(results[1], &result, sizeof(result));
}

static void *reaper_thread(void *argument)
{
	struct reap_job job;

	tids[(intptr_t)argument] = (pid_t)syscall(SYS_gettid);
	prctl(PR_SET_NAME, "lmk-reaper");
	while (lmk_read_full(jobs[0], &job, sizeof(job)) == 0) {
		if (job.help)
			group_help(job.help - 1);
		else
			reap_and_look(&job);
	}
	return NULL;
}

/* Freed pages first go to lists of the freeing CPU (since Linux 6.7 up to an eighth of a zone), where the next
 * allocation finds them but nr_free_pages does not: both instants are measured. */
static void measure(const struct reap_job *job, struct reap_result *result)
{
	static char zoneinfo[128 * 1024];

	do {
		int64_t freed_pages = proc_free_pages() - job->free_pages_before;

		if (freed_pages >= job->want_pages)
			result->back_ns = lmk_now_ns();
		if (!result->back_allocatable_ns &&
		    freed_pages + proc_percpu_pages(zoneinfo, sizeof(zoneinfo)) - job->cached_pages_before >=
			    job->want_pages)
			result->back_allocatable_ns = lmk_now_ns();
		if (!result->back_ns)
			lmk_sleep_ns(MEASURE_STEP_NS);
	} while (!result->back_ns && lmk_now_ns() - job->signal_ns < MEASURE_LIMIT_NS);
}

static void *measure_thread(void *argument)
{
	struct reap_job job;

	tids[(intptr_t)argument] = (pid_t)syscall(SYS_gettid);
	prctl(PR_SET_NAME, "lmk-measure");
	while (lmk_read_full(measures[0], &job, sizeof(job)) == 0) {
		struct reap_result result = { .slot = job.slot, .generation = job.generation, .is_measure = 1 };

		measure(&job, &result);
		lmk_write_full(results[1], &result, sizeof(result));
	}
	return NULL;
}

static int start_thread(void *(*function)(void *), intptr_t index)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int error;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, REAPER_STACK);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	tids[index] = 0;
	error = -pthread_create(&thread, &attributes, function, (void *)index);
	pthread_attr_destroy(&attributes);
	/* The thread id is needed for its priority. */
	while (error == 0 && tids[index] == 0)
		lmk_sleep_ns(NS_PER_MS / 10);
	return error;
}

int reaper_init(void)
{
	int error = 0;

	if (pipe2(jobs, O_CLOEXEC) < 0 || pipe2(measures, O_CLOEXEC) < 0 || pipe2(results, O_CLOEXEC) < 0)
		return -errno;
	/* Threads wait in their reads; the main thread must never wait. */
	if (fcntl(jobs[1], F_SETFL, O_NONBLOCK) < 0 || fcntl(measures[1], F_SETFL, O_NONBLOCK) < 0 ||
	    fcntl(results[0], F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	for (intptr_t i = 0; error == 0 && i < REAPERS; i++)
		error = start_thread(reaper_thread, i);
	return error ? error : start_thread(measure_thread, REAPERS);
}

static int queue(int fd, const struct reap_job *job)
{
	return write(fd, job, sizeof(*job)) == (ssize_t)sizeof(*job) ? 0 : -EAGAIN;
}

int reaper_queue(const struct reap_job *job)
{
	return queue(jobs[1], job);
}

int reaper_measure(const struct reap_job *job)
{
	return queue(measures[1], job);
}

int reaper_result(struct reap_result *ret_result)
{
	return read(results[0], ret_result, sizeof(*ret_result)) == (ssize_t)sizeof(*ret_result);
}

int reaper_fd(void)
{
	return results[0];
}

int thread_schedule(pid_t tid, int priority)
{
	struct sched_param parameter = { .sched_priority = priority };
	/* RESET_ON_FORK: services and commands started from here must not inherit real-time priority. */
	int policy = (priority > 0 ? SCHED_FIFO : SCHED_OTHER) | SCHED_RESET_ON_FORK;

	/* musl's own sched_setscheduler only answers ENOSYS. */
	return syscall(SYS_sched_setscheduler, tid, policy, &parameter) < 0 ? -errno : 0;
}

int thread_affinity(pid_t tid, uint64_t cpus)
{
	if (cpus == 0)
		return 0;
	return syscall(SYS_sched_setaffinity, tid, sizeof(cpus), &cpus) < 0 ? -errno : 0;
}

int reaper_schedule(int priority, uint64_t cpus, int *ret_cpu_error)
{
	int error = 0;

	*ret_cpu_error = 0;
	for (int i = 0; i <= REAPERS; i++) {
		int this_error = thread_schedule(tids[i], priority);
		int cpu_error = thread_affinity(tids[i], cpus);

		error = error ? error : this_error;
		*ret_cpu_error = *ret_cpu_error ? *ret_cpu_error : cpu_error;
	}
	return error;
}
