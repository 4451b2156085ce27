/* SPDX-License-Identifier: Apache-2.0
 *
 * The registered processes. The table itself is shared memory and survives the worker; pidfds are the worker's
 * own and are opened when a process is registered, long before it may have to die.
 */
#include "helper.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

static int pidfds[TABLE_MAX];
static bool changed;

bool table_changed(void)
{
	bool was = changed;

	changed = false;
	return was;
}

/* Opened first, looked at second: a pidfd whose process still has this start time is that process. */
int pidfd_open_checked(int32_t pid, uint64_t *inout_start_ticks)
{
	uint64_t ticks;
	int error, fd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (fd < 0)
		return -errno;
	error = proc_start_ticks(pid, NULL, &ticks);
	if (error == 0 && *inout_start_ticks != 0 && *inout_start_ticks != ticks)
		error = -ESTALE;
	if (error != 0) {
		close(fd);
		return error;
	}
	*inout_start_ticks = ticks;
	return fd;
}

static void open_pidfd(uint32_t index)
{
	struct process *process = &shared->table[index];
	int fd = pidfd_open_checked(process->pid, &process->start_ticks);

	if (fd >= 0 && loop_add(fd, EPOLLIN, SRC_PROCESS, index) != 0) {
		close(fd);
		fd = -1;
	}
	pidfds[index] = fd < 0 ? -1 : fd;
}

static void close_pidfd(uint32_t index)
{
	if (pidfds[index] < 0)
		return;
	loop_remove(pidfds[index]);
	close(pidfds[index]);
	pidfds[index] = -1;
}

void table_init(bool reopen)
{
	for (uint32_t i = 0; i < TABLE_MAX; i++)
		pidfds[i] = -1;
	for (uint32_t i = 0; reopen && i < shared->table_high; i++) {
		if (!shared->table[i].used)
			continue;
		open_pidfd(i);
		if (pidfds[i] < 0)
			shared->table[i].used = 0;
	}
}

struct process *table_find(int32_t pid)
{
	for (uint32_t i = 0; i < shared->table_high; i++)
		if (shared->table[i].used && shared->table[i].pid == pid)
			return &shared->table[i];
	return NULL;
}

struct process *table_by_handle(uint32_t handle)
{
	for (uint32_t i = 0; handle != 0 && i < shared->table_high; i++)
		if (shared->table[i].used && shared->table[i].handle == handle)
			return &shared->table[i];
	return NULL;
}

int table_pidfd(const struct process *process)
{
	return pidfds[process - shared->table];
}

static struct process *free_entry(void)
{
	for (uint32_t i = 0; i < shared->table_high; i++)
		if (!shared->table[i].used)
			return &shared->table[i];
	return shared->table_high < TABLE_MAX ? &shared->table[shared->table_high++] : NULL;
}

static int insert(int32_t pid, uint64_t start_ticks, struct process **ret_process)
{
	struct process *process;
	uint32_t index;
	int error, fd = pidfd_open_checked(pid, &start_ticks);

	if (fd < 0)
		return fd;
	process = free_entry();
	index = (uint32_t)(process - shared->table);
	error = process ? loop_add(fd, EPOLLIN, SRC_PROCESS, index) : -ENOSPC;
	if (error != 0) {
		close(fd);
		return error;
	}
	pidfds[index] = fd;
	*process = (struct process){ .pid = pid, .start_ticks = start_ticks, .handle = ++shared->next_handle };
	*ret_process = process;
	return 0;
}

int table_register(int32_t pid, int32_t uid, int32_t adj, uint8_t type, int32_t owner, uint64_t start_ticks,
		   struct process **ret_process)
{
	struct process *process = table_find(pid);
	int error;

	/* The pid's old process has ended but its pidfd event is still to come: a new process has the number. */
	if (process && start_ticks && process->start_ticks != start_ticks) {
		table_remove(process);
		process = NULL;
	}
	if (!process) {
		error = insert(pid, start_ticks, &process);
		if (error != 0)
			return error;
		process->uid = uid;
		process->owner_pid = owner;
	} else if (process->owner_pid != 0 && process->owner_pid != owner) {
		return -EPERM;
	}
	/* As in lmkd, registering again changes adj and place, and claims a process nobody owns. */
	process->owner_pid = owner;
	process->oom_score_adj = adj;
	process->type = type;
	process->order = ++shared->next_order;
	process->used = 1;
	changed = true;
	*ret_process = process;
	return 0;
}

void table_remove(struct process *process)
{
	process->used = 0;
	changed = true;
	proc_forget(process->handle);
	close_pidfd((uint32_t)(process - shared->table));
}

void table_disown(int32_t owner_pid)
{
	for (uint32_t i = 0; i < shared->table_high; i++)
		if (shared->table[i].used && shared->table[i].owner_pid == owner_pid)
			shared->table[i].owner_pid = 0;
}

void table_exited(uint32_t index)
{
	struct process *process = &shared->table[index];
	struct wire_exited exited = {
		.pid = process->pid, .handle = process->handle, .start_ticks = process->start_ticks,
		.exit_ns = lmk_now_ns(),
	};
	struct out *out;

	if (!process->used)
		return;
	table_remove(process);
	out = host_begin(MSG_EXITED, 0);
	if (out) {
		out_exited(out, &exited);
		host_end(false);
	}
}

uint32_t table_count(void)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < shared->table_high; i++)
		count += shared->table[i].used;
	return count;
}

struct process *table_next_victim(const struct process *previous)
{
	struct process *best = NULL;

	for (uint32_t i = 0; i < shared->table_high; i++) {
		struct process *p = &shared->table[i];

		if (!p->used)
			continue;
		if (previous && (p->oom_score_adj > previous->oom_score_adj ||
				 (p->oom_score_adj == previous->oom_score_adj && p->order <= previous->order)))
			continue;
		if (!best || p->oom_score_adj > best->oom_score_adj ||
		    (p->oom_score_adj == best->oom_score_adj && p->order < best->order))
			best = p;
	}
	return best;
}
