/* SPDX-License-Identifier: Apache-2.0
 *
 * The worker: one epoll loop. In a turn kills come first, then exits and reaps, then /dev/socket/lmkd, then
 * pressure samples, then everything else.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif

#define EVENTS_MAX 64
#define IDLE_NS NS_PER_S
#define PROTECTED_CGROUP "/sys/fs/cgroup/lmk.protected/cgroup.procs"

uint8_t call_process_reap, call_process_mrelease, call_pidfd_open;
static int epoll_fd;
static int64_t wake_ns;
static volatile sig_atomic_t stop_wanted;
static bool stopping;
static bool locked, protected;
static int64_t heartbeat_due_ns;

/* --- epoll -------------------------------------------------------------------------------------------------- */

static int control(int operation, int fd, uint32_t events, enum source source, uint32_t index)
{
	struct epoll_event event = { .events = events, .data.u64 = (uint64_t)source << 32 | index };

	return epoll_ctl(epoll_fd, operation, fd, &event) < 0 ? -errno : 0;
}

int loop_add(int fd, uint32_t events, enum source source, uint32_t index)
{
	return control(EPOLL_CTL_ADD, fd, events, source, index);
}

int loop_modify(int fd, uint32_t events, enum source source, uint32_t index)
{
	return control(EPOLL_CTL_MOD, fd, events, source, index);
}

void loop_remove(int fd)
{
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

int64_t loop_wake_ns(void)
{
	return wake_ns;
}

void loop_stop(void)
{
	stopping = true;
	shared->stopping = 1;
}

/* --- our own standing ----------------------------------------------------------------------------------------- */

static void probe_calls(void)
{
	call_process_reap = probe_call(600, true);
	call_process_mrelease = probe_call(448, true);
	call_pidfd_open = probe_call(SYS_pidfd_open, false);
}

uint32_t worker_capabilities(void)
{
	uint32_t found = trace_capabilities();

	if (faccessat(proc_fd, "pressure/memory", R_OK, 0) == 0)
		found |= CAP_PSI;
	return found | (locked ? CAP_LOCKED : 0) | (protected ? CAP_OOM_PROTECTED : 0);
}

/* Every page of the program, now: mlockall(ONFAULT) alone would leave code that has not run yet to be read from the
 * disk in the middle of a kill. Locking everything would keep megabytes of buffers resident that are rarely used. */
int worker_lock_memory(void)
{
	char *line, *rest;
	int error = 0;

	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
		return -errno;
	if (lmk_read_file(AT_FDCWD, "/proc/self/maps", scratch, sizeof(scratch)) < 0)
		return -ENOENT;
	for (line = strtok_r(scratch, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char *at;
		unsigned long first = strtoul(line, &at, 16);
		unsigned long last = *at == '-' ? strtoul(at + 1, &at, 16) : 0;

		if (!strchr(line, '/') || strncmp(at, " r", 2) != 0)
			continue;
		if (mlock((const void *)first, last - first) < 0)
			error = -errno;
	}
	return error;
}

/* What a kill touches besides: buffers and tables that would otherwise get their first page then. */
static void touch_memory(void)
{
	volatile char stack[64 * 1024];

	for (size_t i = 0; i < sizeof(stack); i += 4096)
		stack[i] = 0;
	memset(scratch, 0, 128 * 1024);
}

void worker_protect(int32_t errors[SET_OOM + 1])
{
	struct rlimit files = { 16384, 16384 };
	char pid[16];
	int error;

	/* The real /proc, whatever --proc-root says: this is about this very process. */
	error = lmk_write_file(AT_FDCWD, "/proc/self/oom_score_adj", "-1000", 5);
	errors[SET_OOM_SCORE_ADJ] = -error;
	protected = error == 0;
	error = worker_lock_memory();
	errors[SET_MEMORY_LOCK] = -error;
	locked = error == 0;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0 && getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	lmk_format(pid, sizeof(pid), "%d", getpid());
	/* Where the guest has prepared it: neither reclaimed nor swapped. */
	lmk_write_file(AT_FDCWD, PROTECTED_CGROUP, pid, strlen(pid));
}

void worker_apply_settings(int32_t errors[SET_OOM + 1])
{
	const struct settings *settings = &shared->settings;
	bool dry = settings->flags & WANT_DRY_RUN;
	int error, other;

	worker_protect(errors);
	proc_settings_changed();
	errors[SET_MAIN_PRIORITY] = -thread_schedule(0, settings->main_priority);
	errors[SET_MAIN_CPUS] = -thread_affinity(0, settings->main_cpus);
	errors[SET_REAPER_PRIORITY] = -reaper_schedule(settings->reaper_priority, settings->reaper_cpus, &other);
	errors[SET_REAPER_CPUS] = -other;
	errors[SET_FAILSAFE_TRIGGER] = -failsafe_arm();
	error = trace_start(settings->flags & WANT_MEMEVENTS, settings->flags & WANT_OOM, &other);
	errors[SET_MEMEVENTS] = -error;
	errors[SET_OOM] = -other;
	if (settings->flags & WANT_LMKD && !dry)
		errors[SET_LMKD_SOCKET] = -lmkd_serve();
	else
		lmkd_unserve();
	heartbeat_due_ns = 0;
}

/* --- time ------------------------------------------------------------------------------------------------------- */

static int64_t heartbeat_tick(int64_t now_ns)
{
	int64_t every_ns = (int64_t)shared->settings.heartbeat_ms * NS_PER_MS;
	struct wire_heartbeat beat;
	struct out *out;

	if (every_ns == 0 || !shared->have_settings || !host_controls())
		return INT64_MAX;
	if (now_ns < heartbeat_due_ns)
		return heartbeat_due_ns;
	heartbeat_due_ns = now_ns + every_ns;
	out = host_begin(MSG_HEARTBEAT, 0);
	if (!out)
		return INT64_MAX;
	beat = (struct wire_heartbeat){
		.t_ns = now_ns, .registered = table_count(), .kills = shared->kills,
		.messages_dropped = shared->messages_dropped, .worker_starts = shared->worker_starts,
		.guardian_pid = shared->guardian_pid, .failsafe_active = shared->failsafe_active,
	};
	out_heartbeat(out, &beat);
	host_end(false);
	return heartbeat_due_ns;
}

/* Everything that is due; milliseconds until the next of it. */
static int run_timers(void)
{
	int64_t (*const ticks[])(int64_t) = { kill_tick, run_tick,	failsafe_tick, host_tick,
					      trace_tick, heartbeat_tick, request_tick };
	int64_t now_ns = lmk_now_ns(), next_ns = now_ns + IDLE_NS, wait_ns;

	for (size_t i = 0; i < LMK_ARRAY_LEN(ticks); i++) {
		int64_t due_ns = ticks[i](now_ns);

		next_ns = due_ns < next_ns ? due_ns : next_ns;
	}
	wait_ns = next_ns - lmk_now_ns();
	return wait_ns <= 0 ? 0 : (int)((wait_ns + NS_PER_MS - 1) / NS_PER_MS);
}

/* --- the loop ------------------------------------------------------------------------------------------------------ */

static int stage_of(enum source source)
{
	switch (source) {
	case SRC_HOST:
		return 0;
	case SRC_KILL:
	case SRC_REAPER:
	case SRC_PROCESS:
	case SRC_FAILSAFE_TRIGGER:
		return 1;
	case SRC_LMKD:
		return 2;
	case SRC_TRIGGER:
		return 3;
	default:
		return 4;
	}
}

/* --tied: whoever started us holds the other end, and it closes however he dies. */
static void stdin_readable(void)
{
	char bytes[64];

	if (read(0, bytes, sizeof(bytes)) <= 0)
		loop_stop();
}

static void dispatch(enum source source, uint32_t index, uint32_t events)
{
	switch (source) {
	case SRC_HOST_LISTEN: host_accept(); break;
	case SRC_HOST: host_readable(index, events); break;
	case SRC_LMKD_LISTEN: lmkd_accept(); break;
	case SRC_LMKD: lmkd_readable(index, events); break;
	case SRC_TRIGGER: trigger_fired(index); break;
	case SRC_FAILSAFE_TRIGGER: failsafe_triggered(); break;
	case SRC_REAPER: kill_reaped(); break;
	case SRC_PROCESS: table_exited(index); break;
	case SRC_KILL: kill_exited(index); break;
	case SRC_TRACE: trace_readable(); break;
	case SRC_KMSG: kmsg_readable(); break;
	case SRC_GUARDIAN: guard_exited(); break;
	case SRC_CHILD: run_child_exited(); break;
	case SRC_STDIN: stdin_readable(); break;
	}
}

static void turn(const struct epoll_event *events, int count)
{
	for (int stage = 0; stage <= 4; stage++) {
		for (int i = 0; i < count; i++) {
			enum source source = (enum source)(events[i].data.u64 >> 32);

			if (stage_of(source) == stage)
				dispatch(source, (uint32_t)events[i].data.u64, events[i].events);
		}
		if (stage == 3)
			trigger_flush();
	}
	host_run_requests();
	if (table_changed())
		proc_keep_ready();
}

static void on_signal(int number)
{
	(void)number;
	stop_wanted = 1;
}

static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
}

static void start(bool after_death)
{
	int32_t errors[SET_OOM + 1] = { 0 };
	int error;

	prctl(PR_SET_NAME, "lmk-helper");
	catch_signals();
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	stopping = false;
	stop_wanted = 0;
	shared->worker_pid = getpid();
	worker_protect(errors);
	log_init();
	proc_init();
	probe_calls();
	run_init();
	touch_memory();
	kill_init();
	trigger_init();
	trace_init();
	failsafe_init(after_death);
	table_init(after_death);
	lmkd_init();
	error = host_init();
	if (error == 0)
		error = guard_start();
	if (error == 0)
		error = reaper_init();
	if (error == 0)
		error = loop_add(reaper_fd(), EPOLLIN, SRC_REAPER, 0);
	if (error == 0 && options.tied)
		error = loop_add(0, EPOLLIN, SRC_STDIN, 0);
	if (error != 0) {
		fprintf(stderr, "lmk-helper: cannot start: %s\n", strerror(-error));
		exit(1);
	}
	if (after_death) {
		say('E', "worker died, this is start %u", shared->worker_starts);
		if (shared->have_settings)
			worker_apply_settings(errors);
	}
}

_Noreturn void worker_main(bool after_death)
{
	struct epoll_event events[EVENTS_MAX];
	bool stop_begun = false;

	start(after_death);
	while (!stopping) {
		int count = epoll_wait(epoll_fd, events, EVENTS_MAX, run_timers());

		wake_ns = lmk_now_ns();
		turn(events, count < 0 ? 0 : count);
		if (stop_wanted && !stop_begun) {
			stop_begun = true;
			shared->stopping = 1;
			failsafe_handback(0, true);
		}
	}
	shared->stopping = 1;
	trace_stop();
	lmkd_unserve();
	host_close_all();
	exit(0);
}
