/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "apprunner_events.h"
#include "apprunner_memory.h"
#include "apprunner_run.h"
#include "common.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

#define PAGES_PER_KIB_DIVISOR (PAGE_BYTES / 1024u)
#define RETRY_ADJ_NS (100 * NS_PER_MS)
/* COMPACT_DOWNGRADE_FREE_SWAP_THRESHOLD: below a fifth of free swap only file pages are compacted. */
#define FULL_COMPACT_SWAP_DIVISOR 5
/* Process.THREAD_PRIORITY_BACKGROUND. */
#define NICE_BACKGROUND 10

const char *process_group(const struct process_plan *plan)
{
	return plan->uid >= 10000 ? "apps" : "system";
}

static uint64_t arena_pages(const struct process_plan *plan)
{
	struct sysinfo info;
	uint64_t pages = plan->anon_kib / PAGES_PER_KIB_DIVISOR;

	if (sysinfo(&info) < 0)
		return pages;
	/* All of RAM and swap may be wanted by one giant; it is only address space. */
	pages += (uint64_t)(info.totalram + info.totalswap) * info.mem_unit / PAGE_BYTES * 2;
	if (sizeof(void *) == 4 && pages > (1u << 30) / PAGE_BYTES)
		pages = (1u << 30) / PAGE_BYTES;
	return pages;
}

static struct app_profile make_profile(const struct run *run, int index)
{
	const struct process_plan *plan = &run->timeline.plans[index];
	struct app_profile profile = {
		/* A new life of the same app has new contents. */
		.seed = run->timeline.seed * 1000003u + (uint64_t)index * 4096u + run->next_serial,
		.anon_pages = plan->anon_kib / PAGES_PER_KIB_DIVISOR,
		.file_pages = plan->file_kib / PAGES_PER_KIB_DIVISOR,
		.pinned_pages = plan->pinned_kib / PAGES_PER_KIB_DIVISOR,
		.arena_pages = plan->locked ? plan->anon_kib / PAGES_PER_KIB_DIVISOR + 1 : arena_pages(plan),
		.ratio_permille = plan->ratio_permille,
		.hot_permille = plan->locked ? 0 : plan->hot_permille,
		.cold_start_ms = plan->cold_start_ms,
		.touch_every_ms = plan->touch_every_ms,
		.cpu_permille = plan->cpu_permille,
		.growth_kib_per_min = plan->growth_kib_per_min,
		.locked = plan->locked,
		.active = (plan->role != ADJ_ROLE_APP && plan->role != ADJ_ROLE_HOME) ||
			  plan->rest != ADJ_REST_CACHED,
		.has_file = run->pool_fd >= 0,
	};
	uint64_t before = 0;

	/* Each process has its own part of the pool file, the same in every life; they wrap around its end. */
	for (int i = 0; i < index; i++)
		before += run->timeline.plans[i].file_kib / PAGES_PER_KIB_DIVISOR;
	if (profile.file_pages > run->pool_pages)
		profile.file_pages = run->pool_pages;
	if (run->pool_pages > profile.file_pages)
		profile.file_offset_pages = before % (run->pool_pages - profile.file_pages + 1);
	return profile;
}

struct birth {
	char *argv[2];
	char *envp[2];
	char environment[sizeof(APP_PROFILE_VARIABLE) + 2 * sizeof(struct app_profile) + 2];
	int socket, pool;
	int adj;
};

/*
 * The child, between fork and exec. It waits until it has its oom_score_adj: it must never run with ours (-1000), and if
 * it wrote the value itself, a late child of many would undo what lmkd has been told since.
 */
static void __attribute__((noreturn)) be_born(const struct run *run, const struct process_plan *plan,
					      struct birth *birth)
{
	const struct rlimit unlimited = { .rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY };
	char go;

	if (recv(birth->socket, &go, sizeof(go), 0) != sizeof(go))
		_exit(125);
	setsid();
	cgroup_enter(&run->roots, process_group(plan), plan->uid);
	if (plan->pinned_kib)
		setrlimit(RLIMIT_MEMLOCK, &unlimited);
	/* Above the two fixed numbers first, so that neither overwrites the other. */
	birth->socket = fcntl(birth->socket, F_DUPFD, 16);
	birth->pool = birth->pool >= 0 ? fcntl(birth->pool, F_DUPFD, 16) : -1;
	dup2(birth->socket, APP_SOCKET_FD);
	if (birth->pool >= 0)
		dup2(birth->pool, APP_FILE_FD);
	close(birth->socket);
	close(birth->pool);
	if (geteuid() == 0 && plan->uid != 0 && !plan->locked) {
		if (setgroups(0, NULL) < 0 || setresgid(plan->uid, plan->uid, plan->uid) < 0 ||
		    setresuid(plan->uid, plan->uid, plan->uid) < 0)
			_exit(126);
	}
	execve("/proc/self/exe", birth->argv, birth->envp);
	_exit(127);
}

static void watch(struct run *run, int fd, enum watch kind, int index)
{
	struct epoll_event event = {
		.events = EPOLLIN,
		.data.u64 = (uint64_t)kind << 32 | (uint32_t)index,
	};

	epoll_ctl(run->epoll, EPOLL_CTL_ADD, fd, &event);
}

static void prepare_birth(struct run *run, int index, struct birth *birth)
{
	struct app_profile profile = make_profile(run, index);
	const uint8_t *bytes = (const uint8_t *)&profile;
	size_t used = (size_t)snprintf(birth->environment, sizeof(birth->environment), "%s=", APP_PROFILE_VARIABLE);

	for (size_t i = 0; i < sizeof(profile); i++)
		used += (size_t)snprintf(birth->environment + used, 3, "%02x", bytes[i]);
	birth->argv[0] = run->timeline.plans[index].name;
	birth->envp[0] = birth->environment;
	birth->pool = run->pool_fd;
	birth->adj = adj_find(&run->adj, index)->adj;
}

static void write_adj(pid_t pid, int adj)
{
	char path[40], number[16];

	lmk_format(path, sizeof(path), "/proc/%d/oom_score_adj", (int)pid);
	lmk_format(number, sizeof(number), "%d", adj);
	lmk_write_file(AT_FDCWD, path, number, strlen(number));
}

int process_spawn(struct run *run, int index)
{
	static struct birth birth;
	const struct process_plan *plan = &run->timeline.plans[index];
	struct process *process = &run->processes[index];
	int ends[2], error;
	pid_t pid;

	memset(&birth, 0, sizeof(birth));
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		error = errno;
		events_add("spawn_failed", "\"app\":\"%s\",\"what\":\"socketpair\",\"errno\":%d", plan->name, error);
		return -error;
	}
	prepare_birth(run, index, &birth);
	birth.socket = ends[1];
	pid = fork();
	if (pid == 0) {
		/* Its own copy of our end would keep it waiting for a runner that is gone. */
		close(ends[0]);
		be_born(run, plan, &birth);
	}
	error = errno;
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		events_add("spawn_failed", "\"app\":\"%s\",\"what\":\"fork\",\"errno\":%d", plan->name, error);
		return -error;
	}
	write_adj(pid, birth.adj);
	/* Not ours. From here, too: what send_adj sets later must not be undone by a child that takes its time. */
	setpriority(PRIO_PROCESS, (id_t)pid, 0);
	send(ends[0], "", 1, MSG_NOSIGNAL);
	*process = (struct process){
		.pid = pid,
		.socket = ends[0],
		.pidfd = (int)syscall(SYS_pidfd_open, pid, 0),
		.sent_adj = birth.adj,
		/* lmkd hears of everything but native processes, which ActivityManager does not know. */
		.dirty = birth.adj != ADJ_NATIVE,
		.born_ns = lmk_now_ns(),
		.restart_delay_ns = process->restart_delay_ns,
	};
	if (process->pidfd >= 0)
		fcntl(process->pidfd, F_SETFD, FD_CLOEXEC);
	watch(run, process->socket, WATCH_APP, index);
	watch(run, process->pidfd, WATCH_DEATH, index);
	events_add("spawned", "\"app\":\"%s\",\"pid\":%d,\"uid\":%u,\"adj\":%d", plan->name, (int)pid,
		   (unsigned int)plan->uid, birth.adj);
	return 0;
}

void process_send(struct run *run, int index, uint32_t kind, uint32_t serial, uint64_t a, uint64_t b)
{
	struct app_message message = { .kind = kind, .serial = serial, .a = a, .b = b };
	struct process *process = &run->processes[index];

	/* A dead reader is noticed through its pidfd. A full socket means an app that has been stuck for long. */
	if (process->pid && send(process->socket, &message, sizeof(message), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
	    errno == EAGAIN)
		events_add("stuck", "\"app\":\"%s\",\"pid\":%d", run->timeline.plans[index].name, (int)process->pid);
}

static void note_cached(struct run *run, int index, int adj)
{
	struct process *process = &run->processes[index];
	enum adj_role role = run->timeline.plans[index].role;
	int cached = adj >= ADJ_CACHED_MIN && (role == ADJ_ROLE_APP || role == ADJ_ROLE_EMPTY);

	if (cached && !process->cached_ns) {
		process->cached_ns = lmk_now_ns();
	} else if (!cached && process->cached_ns) {
		process->cached_ns = 0;
		process_thaw(run, index);
	}
}

static void send_adj(struct run *run, const struct adj_process *entry)
{
	struct process *process = &run->processes[entry->id];
	const struct process_plan *plan = &run->timeline.plans[entry->id];
	int error;

	if (process->sent_adj != entry->adj) {
		events_add("adj", "\"app\":\"%s\",\"pid\":%d,\"adj\":%d,\"old\":%d", plan->name, (int)process->pid,
			   entry->adj, process->sent_adj);
		setpriority(PRIO_PROCESS, (id_t)process->pid, entry->adj >= ADJ_PREVIOUS ? NICE_BACKGROUND : 0);
	}
	process->sent_adj = entry->adj;
	process->dirty = 0;
	if (plan->role == ADJ_ROLE_FIXED && plan->adj == ADJ_NATIVE)
		return;
	error = lmkd_register(&run->lmkd, process->pid, plan->uid, entry->adj);
	if (error == -EAGAIN) {
		process->dirty = 1;
		run->retry_ns = lmk_now_ns() + RETRY_ADJ_NS;
	} else if (error < 0) {
		/* Nobody serves the socket (yet): the kernel at least should know. */
		write_adj(process->pid, entry->adj);
	}
}

void process_apply_adj(struct run *run)
{
	run->retry_ns = 0;
	adj_assign(&run->adj);
	for (int i = 0; i < run->adj.count; i++) {
		const struct adj_process *entry = &run->adj.lru[i];
		const struct process *process = &run->processes[entry->id];

		if (!process->pid)
			continue;
		note_cached(run, entry->id, entry->adj);
		if (process->dirty || process->sent_adj != entry->adj)
			send_adj(run, entry);
	}
}

static void compact(struct run *run, int index)
{
	struct process *process = &run->processes[index];
	const struct process_plan *plan = &run->timeline.plans[index];
	struct sysinfo info = { 0 };
	struct compact_job job = {
		.pid = process->pid,
		.process = index,
		.kinds = COMPACT_FILE | COMPACT_ANON,
		.anon_address = process->anon_address,
		.file_address = process->file_address,
		.file_pages = process->file_address ? plan->file_kib / PAGES_PER_KIB_DIVISOR : 0,
	};

	process->compacted = 1;
	/* What has not been written yet is not resident: advising it does nothing. */
	job.anon_pages = plan->anon_kib / PAGES_PER_KIB_DIVISOR;
	sysinfo(&info);
	if (info.freeswap < info.totalswap / FULL_COMPACT_SWAP_DIVISOR || !info.totalswap)
		job.kinds = COMPACT_FILE;
	if (job.file_pages > run->pool_pages)
		job.file_pages = run->pool_pages;
	job.pidfd = fcntl(process->pidfd, F_DUPFD_CLOEXEC, 16);
	if (job.pidfd >= 0 && compact_submit(&job) < 0)
		close(job.pidfd);
}

void process_freeze(struct run *run, int index)
{
	struct process *process = &run->processes[index];
	const struct process_plan *plan = &run->timeline.plans[index];
	int error = 0;

	if (run->timeline.freeze && !process->frozen) {
		error = cgroup_freeze(&run->roots, process_group(plan), plan->uid, process->pid, 1);
		events_add("frozen", "\"app\":\"%s\",\"pid\":%d,\"errno\":%d", plan->name, (int)process->pid, -error);
	}
	process->frozen = 1;
	if (run->timeline.compact && !process->compacted && process->anon_address)
		compact(run, index);
}

void process_thaw(struct run *run, int index)
{
	struct process *process = &run->processes[index];
	const struct process_plan *plan = &run->timeline.plans[index];

	compact_cancel(process->pid);
	process->compacted = 0;
	if (!process->frozen)
		return;
	process->frozen = 0;
	if (run->timeline.freeze) {
		cgroup_freeze(&run->roots, process_group(plan), plan->uid, process->pid, 0);
		events_add("thawed", "\"app\":\"%s\",\"pid\":%d", plan->name, (int)process->pid);
	}
}

void process_forget(struct run *run, int index)
{
	struct process *process = &run->processes[index];
	const struct process_plan *plan = &run->timeline.plans[index];

	compact_cancel(process->pid);
	close(process->socket);
	if (process->pidfd >= 0)
		close(process->pidfd);
	if (plan->role != ADJ_ROLE_FIXED || plan->adj != ADJ_NATIVE)
		lmkd_remove(&run->lmkd, process->pid);
	cgroup_remove(&run->roots, process_group(plan), plan->uid, process->pid);
	process->pid = 0;
	process->frozen = process->compacted = process->showing = 0;
	process->cached_ns = 0;
	adj_gone(&run->adj, index);
}
