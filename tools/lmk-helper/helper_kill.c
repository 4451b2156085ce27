/* SPDX-License-Identifier: Apache-2.0
 *
 * Signals. The main thread looks at the victim once more, sends the signal through a pidfd and goes on; reaping
 * happens on the reaper threads, the exit is seen through the pidfd, and the whole story is told when both are
 * over. Nothing here allocates.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MEASURE_WAIT_NS (12 * NS_PER_S)

struct kill_slot {
	struct wire_killed story;
	uint32_t id, generation, failsafe_index;
	int64_t percpu_pages_before;
	int pidfd, group_fd;		/* group_fd: until it is handed over; -1 none */
	uint8_t asked;			/* how the reapers were asked to free it */
	bool used, reap_done, measure_done, told;
};

static struct kill_slot slots[KILLS_MAX];
static uint32_t generations;

void kill_init(void)
{
	memset(slots, 0, sizeof(slots));
}

static void release(struct kill_slot *slot)
{
	if (slot->pidfd >= 0) {
		loop_remove(slot->pidfd);
		close(slot->pidfd);
	}
	slot->used = false;
}

/* A free slot; failing that, the one of a told story whose process simply does not exit. */
static struct kill_slot *take_slot(void)
{
	struct kill_slot *stale = NULL;

	for (size_t i = 0; i < KILLS_MAX; i++) {
		if (!slots[i].used)
			return &slots[i];
		if (slots[i].told && slots[i].reap_done &&
		    (!stale || slots[i].story.signal_ns < stale->story.signal_ns))
			stale = &slots[i];
	}
	if (stale)
		release(stale);
	return stale;
}

/* Signal 0 only asks whether it could be sent: a dry run's kill. */
static bool may_signal(const struct kill_wish *wish, int32_t pid)
{
	if (pid <= 1 || pid == shared->worker_pid || pid == shared->guardian_pid)
		return false;
	return wish->signal == 0 || !(shared->settings.flags & WANT_DRY_RUN);
}

/* The table's entry if it is this very process. */
static const struct process *known_as(int32_t pid, uint64_t start_ticks)
{
	const struct process *process = table_find(pid);

	return process && process->start_ticks == start_ticks ? process : NULL;
}

/* A pidfd of our own for exactly the process that was meant: descriptor or -errno. */
static int identify(const struct kill_wish *wish, struct wire_signalled *answer)
{
	struct process *process = wish->handle ? table_by_handle(wish->handle) : table_find(wish->pid);
	uint64_t ticks;
	int error, fd;

	if (wish->handle && !process)
		return -ESRCH;
	if (process && !wish->handle && wish->start_ticks && wish->start_ticks != process->start_ticks)
		process = NULL;
	if (process) {
		answer->pid = process->pid;
		answer->handle = process->handle;
		answer->start_ticks = process->start_ticks;
		fd = fcntl(table_pidfd(process), F_DUPFD_CLOEXEC, 3);
		if (fd < 0)
			return -errno;
		error = proc_start_ticks(process->pid, process, &ticks);
		if (error == 0 && ticks != process->start_ticks)
			error = -ESTALE;
		if (error == 0)
			return fd;
		close(fd);
		return error;
	}
	answer->start_ticks = wish->start_ticks;
	return pidfd_open_checked(wish->pid, &answer->start_ticks);
}

static int check_adj(const struct kill_wish *wish, int32_t pid, uint64_t start_ticks, int32_t *ret_adj)
{
	int error = proc_adj(pid, known_as(pid, start_ticks), ret_adj);

	if (!(wish->flags & KILL_CHECK_ADJ))
		return 0;
	if (error != 0)
		return error;
	return *ret_adj == wish->oom_score_adj ? 0 : -ECANCELED;
}

static void look_before(struct kill_slot *slot, const struct kill_wish *wish)
{
	const struct process *known = known_as(slot->story.pid, slot->story.start_ticks);
	struct proc_memory memory;

	/* What the decision saw will do for the story; a measurement wants the instant. */
	if (wish->flags & KILL_MEASURE)
		proc_memory(slot->story.pid, known, &memory);
	else
		proc_memory_sampled(slot->story.pid, known, &memory);
	slot->story.anon_kib_before = memory.anon_kib;
	slot->story.shmem_kib_before = memory.shmem_kib;
	slot->story.swap_kib_before = memory.swap_kib;
	slot->story.rss_kib_before = memory.rss_kib;
	slot->story.anon_kib_after = slot->story.shmem_kib_after = -1;
	slot->story.free_pages_after_reap = slot->story.free_pages_after_exit = -1;
	if (wish->flags & KILL_MEASURE)
		slot->percpu_pages_before = proc_percpu_pages(scratch, sizeof(scratch));
	slot->story.free_pages_before = proc_free_pages();
}

static void hand_to_reapers(struct kill_slot *slot, const struct kill_wish *wish)
{
	struct reap_job job = {
		.slot = (uint32_t)(slot - slots), .generation = slot->generation, .pid = slot->story.pid,
		.pidfd = slot->pidfd, .group_fd = slot->group_fd, .method = wish->method, .flags = wish->flags,
		.free_pages_before = slot->story.free_pages_before, .signal_ns = slot->story.signal_ns,
	};

	slot->asked = wish->method == REAP_AUTO ? reaper_best_method() : wish->method;
	if (reaper_queue(&job) != 0) {
		if (job.group_fd >= 0) {
			/* The signal was left to the thread that now has no job. */
			syscall(SYS_pidfd_send_signal, slot->pidfd, SIGKILL, NULL, 0);
			close(job.group_fd);
		}
		slot->reap_done = true;
		slot->story.method = REAP_NONE;
		slot->story.reap_error = EAGAIN;
	}
	slot->measure_done = true;
	if (wish->flags & KILL_MEASURE && slot->story.anon_kib_before > 0) {
		job.cached_pages_before = slot->percpu_pages_before;
		job.want_pages = slot->story.anon_kib_before * 1024 / sysconf(_SC_PAGESIZE) * 95 / 100;
		slot->measure_done = reaper_measure(&job) != 0;
	}
}

/* Is there a reaper thread for one more job at once? */
static bool reaper_free(void)
{
	unsigned busy = 0;

	for (size_t i = 0; i < KILLS_MAX; i++)
		busy += slots[i].used && !slots[i].reap_done && slots[i].story.signal_ns;
	return busy < REAPERS;
}

/* The whole cgroup is signalled by the thread that reaps it: cgroup.reap takes hold of the memory before it kills. */
static bool left_to_reaper(struct kill_slot *slot, const struct kill_wish *wish)
{
	if (!(wish->flags & KILL_GROUP) || wish->signal != SIGKILL)
		return false;
	slot->group_fd = group_open(slot->story.pid);
	if (slot->group_fd < 0)
		slot->story.flags |= KILLED_NO_GROUP;
	return slot->group_fd >= 0 && reaper_free();
}

static int signal_slot(struct kill_slot *slot, const struct kill_wish *wish, struct wire_signalled *answer)
{
	struct process *process;
	bool left, failed;

	if (wish->signal == SIGKILL)
		look_before(slot, wish);
	left = left_to_reaper(slot, wish);
	answer->signal_ns = slot->story.signal_ns = lmk_now_ns();
	failed = !left && syscall(SYS_pidfd_send_signal, slot->pidfd, wish->signal, NULL, 0) < 0;
	if (failed) {
		int error = -errno;

		if (slot->group_fd >= 0)
			close(slot->group_fd);
		return error;
	}
	if (wish->signal != SIGKILL)
		return 0;
	shared->kills++;
	hand_to_reapers(slot, wish);
	/* As in lmkd, the record goes with the signal: nobody may choose this process again. */
	process = table_find(slot->story.pid);
	if (process && process->start_ticks == slot->story.start_ticks)
		table_remove(process);
	/* The signal is out: should watching fail, the story only ends with EXIT_NOT_SEEN. */
	(void)loop_add(slot->pidfd, EPOLLIN, SRC_KILL, (uint32_t)(slot - slots));
	return 0;
}

int kill_now(const struct kill_wish *wish, struct wire_signalled *ret_signalled)
{
	struct wire_signalled answer = { .pid = wish->pid, .handle = wish->handle, .start_ticks = wish->start_ticks,
					 .received_ns = wish->received_ns };
	struct kill_slot *slot;
	int32_t adj = wish->oom_score_adj;
	int error = 0, fd = -1;

	if (!wish->handle && !may_signal(wish, wish->pid))
		error = -EPERM;
	if (error == 0) {
		fd = identify(wish, &answer);
		error = fd < 0 ? fd : 0;
	}
	if (error == 0 && !may_signal(wish, answer.pid))
		error = -EPERM;
	if (error == 0)
		error = check_adj(wish, answer.pid, answer.start_ticks, &adj);
	slot = error == 0 ? take_slot() : NULL;
	if (error == 0 && !slot)
		error = -EBUSY;
	if (error == 0) {
		*slot = (struct kill_slot){
			.story = { .pid = answer.pid, .handle = answer.handle, .start_ticks = answer.start_ticks,
				   .oom_score_adj = adj, .signal = wish->signal, .received_ns = wish->received_ns,
				   .method = REAP_NONE },
			.id = wish->id, .generation = ++generations, .pidfd = fd, .group_fd = -1, .used = true,
			.failsafe_index = wish->failsafe_index,
		};
		error = signal_slot(slot, wish, &answer);
		if (error != 0 || wish->signal != SIGKILL)
			release(slot);
	} else if (fd >= 0) {
		close(fd);
	}
	answer.error = -error;
	*ret_signalled = answer;
	return error;
}

/* The fail-safe's story may be waiting for a host: what comes late, after long enough, still belongs to it. */
static void tell_failsafe(const struct kill_slot *slot)
{
	const struct wire_killed *story = &slot->story;
	struct wire_failsafe_kill told = { .pid = story->pid, .signal_ns = story->signal_ns, .method = story->method,
					   .reap_error = story->reap_error, .exit_ns = story->exit_ns };

	if (!slot->failsafe_index)
		return;
	if (!slot->reap_done) {
		told.method = slot->asked;
		told.reap_error = ETIMEDOUT;
	}
	failsafe_kill_story(slot->failsafe_index - 1, &told);
}

static void tell(struct kill_slot *slot)
{
	struct out *out;

	slot->told = true;
	tell_failsafe(slot);
	if (slot->id == 0)
		return;
	out = host_begin(MSG_KILLED, slot->id);
	if (out) {
		out_killed(out, &slot->story);
		host_end(true);
	}
}

static void advance(struct kill_slot *slot)
{
	bool over = slot->reap_done && slot->measure_done && slot->story.exit_ns != 0;

	if (over && !slot->told)
		tell(slot);
	else if (over)
		tell_failsafe(slot);
	if (over)
		release(slot);
}

void kill_exited(uint32_t index)
{
	struct kill_slot *slot = &slots[index];
	struct pollfd dead = { .fd = slot->pidfd, .events = POLLIN };
	struct wire_exited exited;
	struct out *out;

	/* The event may be for a slot's former process, given up earlier in this turn of the loop. */
	if (!slot->used || slot->story.exit_ns || poll(&dead, 1, 0) != 1)
		return;
	slot->story.exit_ns = lmk_now_ns();
	exited = (struct wire_exited){ .kill_id = slot->id, .pid = slot->story.pid, .handle = slot->story.handle,
				       .start_ticks = slot->story.start_ticks, .exit_ns = slot->story.exit_ns };
	out = host_begin(MSG_EXITED, 0);
	if (out) {
		out_exited(out, &exited);
		host_end(true);
	}
	slot->story.free_pages_after_exit = proc_free_pages();
	loop_remove(slot->pidfd);	/* it stays readable; the reaper may still need the descriptor */
	advance(slot);
}

void kill_reaped(void)
{
	struct reap_result result;

	while (reaper_result(&result)) {
		struct kill_slot *slot = &slots[result.slot];

		if (!slot->used || slot->generation != result.generation)
			continue;
		if (result.is_measure) {
			slot->measure_done = true;
			slot->story.back_ns = result.back_ns;
			slot->story.back_allocatable_ns = result.back_allocatable_ns;
			slot->story.flags |= result.back_ns ? 0 : KILLED_BACK_NOT_SEEN;
		} else {
			slot->reap_done = true;
			slot->story.method = result.method;
			slot->story.reap_error = result.error;
			slot->story.reap_calls = result.calls;
			slot->story.group_members = result.group_members;
			slot->story.group_lost = result.group_lost;
			slot->story.reap_begin_ns = result.begin_ns;
			slot->story.reap_end_ns = result.end_ns;
			slot->story.anon_kib_after = result.anon_kib_after;
			slot->story.shmem_kib_after = result.shmem_kib_after;
			slot->story.free_pages_after_reap = result.free_pages_after;
		}
		advance(slot);
	}
}

int64_t kill_tick(int64_t now_ns)
{
	int64_t next_ns = INT64_MAX;

	for (size_t i = 0; i < KILLS_MAX; i++) {
		struct kill_slot *slot = &slots[i];
		int64_t wait_ns = (int64_t)shared->settings.reap_timeout_ms * NS_PER_MS;
		int64_t due_ns;

		if (!slot->used || slot->told)
			continue;
		if (!slot->measure_done && wait_ns < MEASURE_WAIT_NS)
			wait_ns = MEASURE_WAIT_NS;
		due_ns = slot->story.signal_ns + wait_ns;
		if (due_ns <= now_ns) {
			slot->story.flags |= slot->reap_done ? 0 : KILLED_REAP_TIMED_OUT;
			slot->story.flags |= slot->story.exit_ns ? 0 : KILLED_EXIT_NOT_SEEN;
			tell(slot);
		} else if (due_ns < next_ns) {
			next_ns = due_ns;
		}
	}
	return next_ns;
}

static bool has_given(const struct kill_slot *slot)
{
	return slot->story.exit_ns ||
	       (slot->reap_done && slot->story.method != REAP_NONE && slot->story.reap_error == 0);
}

/* A victim whose memory is not back yet and who has not been given up either. */
bool kill_pending(void)
{
	for (size_t i = 0; i < KILLS_MAX; i++)
		if (slots[i].used && !slots[i].told && !has_given(&slots[i]))
			return true;
	return false;
}

/* A kill of the fail-safe whose end is not known yet. */
bool kill_story_open(void)
{
	for (size_t i = 0; i < KILLS_MAX; i++)
		if (slots[i].used && !slots[i].told && slots[i].failsafe_index)
			return true;
	return false;
}
