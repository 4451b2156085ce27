/* SPDX-License-Identifier: Apache-2.0
 *
 * Two processes watch each other through pidfds. The guardian does nothing but wait for the worker's death, and then
 * becomes the worker itself, with a guardian of its own: the table, the settings, the list of stopped services
 * (shared memory) and the listening sockets go on. A worker whose guardian dies starts a new one.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define GIVE_UP_NS (10 * NS_PER_S)
#define DESCRIPTORS_MAX 16384U

struct shared *shared;
int host_listen_fd = -1;
int lmkd_listen_fd = -1;
static int guardian_fd = -1;

static void note_start(void)
{
	size_t last = LMK_ARRAY_LEN(shared->start_ns) - 1;

	memmove(shared->start_ns, shared->start_ns + 1, last * sizeof(shared->start_ns[0]));
	shared->start_ns[last] = lmk_now_ns();
	shared->worker_starts++;
}

static bool dies_too_often(void)
{
	return shared->start_ns[0] != 0 && lmk_now_ns() - shared->start_ns[0] < GIVE_UP_NS;
}

_Noreturn void guard_run_worker(void)
{
	bool after_death = shared->worker_starts > 0;

	if (shared->giving_up)
		_exit(1);
	if (dies_too_often()) {
		/* One last worker, which only hands back. */
		shared->giving_up = 1;
		shared->settings.failsafe_mode = FAILSAFE_HANDBACK;
	}
	note_start();
	worker_main(after_death);
}

static void close_range_of(unsigned first, unsigned last)
{
	if (first > last || syscall(SYS_close_range, first, last, 0) == 0)
		return;
	for (unsigned fd = first; fd <= last && fd < DESCRIPTORS_MAX; fd++)	/* before Linux 5.9 */
		close((int)fd);
}

/* A guardian that held clients' or the host's sockets would hide their hang-up. */
static void close_all_but(const int *kept, size_t count)
{
	unsigned from = 0;

	for (;;) {
		unsigned next = UINT_MAX;

		for (size_t i = 0; i < count; i++)
			if (kept[i] >= 0 && (unsigned)kept[i] >= from && (unsigned)kept[i] < next)
				next = (unsigned)kept[i];
		if (next == UINT_MAX) {
			close_range_of(from, UINT_MAX);
			return;
		}
		if (next > from)
			close_range_of(from, next - 1);
		from = next + 1;
	}
}

static _Noreturn void guardian_main(int worker_fd)
{
	int kept[] = { 0, 1, 2, worker_fd, proc_fd, host_listen_fd, lmkd_listen_fd };
	struct pollfd waiting = { .fd = worker_fd, .events = POLLIN };

	prctl(PR_SET_NAME, "lmk-guardian");
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	thread_schedule(0, 0);
	close_all_but(kept, LMK_ARRAY_LEN(kept));
	lmk_write_file(AT_FDCWD, "/proc/self/oom_score_adj", "-1000", 5);
	worker_lock_memory();
	while (poll(&waiting, 1, -1) != 1)
		continue;
	close(worker_fd);
	if (shared->stopping)
		_exit(0);
	guard_run_worker();
}

int guard_start(void)
{
	int worker_fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	pid_t pid;

	if (worker_fd < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		guardian_main(worker_fd);
	close(worker_fd);
	if (pid < 0)
		return -errno;
	shared->guardian_pid = pid;
	guardian_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (guardian_fd < 0)
		return -errno;
	return loop_add(guardian_fd, EPOLLIN, SRC_GUARDIAN, 0);
}

void guard_exited(void)
{
	loop_remove(guardian_fd);
	close(guardian_fd);
	guardian_fd = -1;
	waitpid(shared->guardian_pid, NULL, WNOHANG);
	if (shared->stopping)
		return;
	say('E', "guardian died, starting another");
	guard_start();
}
