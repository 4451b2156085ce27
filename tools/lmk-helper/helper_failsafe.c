/* SPDX-License-Identifier: Apache-2.0
 *
 * What happens while no host is heard: the helper's only rule of its own. KILL takes the registered process with
 * the highest oom_score_adj when its own PSI trigger fires; HANDBACK gives the device back to the lmkd that was
 * stopped. Everything done is kept in shared memory and told when a host is back.
 */
#include "helper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define POLL_NS (100 * NS_PER_MS)
#define CRITICAL_AVAILABLE_PCT 5
#define CRITICAL_SWAP_FREE_PCT 10
#define CONNECT_STEP_NS (50 * NS_PER_MS)
#define CONNECT_LIMIT_NS (5 * NS_PER_S)
#define BARRIER_MS 2000

static struct {
	int trigger_fd;
	bool is_fifo;
	int64_t gone_ns, next_poll_ns, last_kill_ns;
	bool report_due;
	int64_t report_by_ns;
} self;

enum handback_step { BACK_IDLE, BACK_SERVICES, BACK_CONNECT };
static struct {
	enum handback_step step;
	bool stop, started;
	uint32_t stop_id;
	int64_t next_ns, until_ns;
} back;

void failsafe_init(bool after_death)
{
	memset(&self, 0, sizeof(self));
	memset(&back, 0, sizeof(back));
	self.trigger_fd = -1;
	self.gone_ns = lmk_now_ns();
	if (!after_death)
		return;
	/* What a dead worker had entered is entered anew, with its story so far. */
	shared->failsafe_active = 0;
	shared->failsafe.reason = WHY_WORKER_DIED;
}

static bool any_stopped_service(void)
{
	for (size_t i = 0; i < SERVICES_MAX; i++)
		if (shared->stopped_services[i][0])
			return true;
	return false;
}

/* The host may have been told of changes that it never wrote. */
static void write_all_adj(void)
{
	uint8_t op;

	for (uint32_t i = 0; i < shared->table_high; i++)
		if (shared->table[i].used)
			proc_write_adj(shared->table[i].pid, shared->table[i].oom_score_adj, &op);
}

static void enter(uint8_t why)
{
	uint8_t mode = shared->settings.failsafe_mode;
	int64_t heard_ns = host_last_heard_ns();

	if (shared->failsafe_active)
		return;
	/* Nothing to hand back to, and it has not been done already. */
	if (mode == FAILSAFE_HANDBACK && !any_stopped_service() && !shared->failsafe.handed_back)
		mode = FAILSAFE_KILL;
	shared->failsafe.reason = why;
	shared->failsafe.mode = mode;
	shared->failsafe.silent_since_ns = heard_ns ? heard_ns : self.gone_ns;
	shared->failsafe.entered_ns = lmk_now_ns();
	shared->failsafe_active = 1;
	say('W', "no host (%s): fail-safe, %s", why == WHY_SILENT ? "silent" : why == WHY_HANGUP ? "gone" : "restart",
	    mode == FAILSAFE_KILL ? "killing by oom_score_adj" : "handing back");
	if (mode == FAILSAFE_KILL)
		write_all_adj();
	else
		failsafe_handback(0, false);
}

void failsafe_host_gone(void)
{
	self.gone_ns = lmk_now_ns();
	if (shared->have_settings && !shared->stopping && shared->settings.failsafe_mode == FAILSAFE_KILL)
		enter(WHY_HANGUP);
}

/* Once the last victim's reap and exit are known, or after as long as any kill is waited for. */
static int64_t report_tick(int64_t now_ns)
{
	struct out *out;

	/* Entered again meanwhile: it tells of both when that is over, and needs its mode until then. */
	if (!self.report_due || shared->failsafe_active || !host_connected())
		return INT64_MAX;
	if (now_ns < self.report_by_ns && kill_story_open())
		return self.report_by_ns;
	out = host_begin(MSG_FAILSAFE, 0);
	if (out) {
		out_failsafe(out, &shared->failsafe, shared->failsafe_kills, shared->failsafe_kill_count);
		host_end(true);
	}
	/* If that failed the connection is gone and the next host gets the story. */
	if (!host_connected())
		return INT64_MAX;
	self.report_due = false;
	shared->failsafe_kill_count = 0;
	memset(&shared->failsafe, 0, sizeof(shared->failsafe));
	return INT64_MAX;
}

void failsafe_host_heard(void)
{
	if (back.step != BACK_IDLE)
		return;
	if (shared->failsafe_active) {
		shared->failsafe_active = 0;
		shared->failsafe.left_ns = lmk_now_ns();
		self.report_due = true;
		self.report_by_ns = shared->failsafe.left_ns + (int64_t)shared->settings.reap_timeout_ms * NS_PER_MS;
		say('I', "host is back");
	} else if (!self.report_due) {
		/* What was handled in a silence too short for the fail-safe is not the next one's. */
		memset(&shared->failsafe, 0, sizeof(shared->failsafe));
	}
	report_tick(lmk_now_ns());
	lmkd_replay_handled();
}

int failsafe_arm(void)
{
	int fd, error;

	if (self.trigger_fd >= 0) {
		loop_remove(self.trigger_fd);
		close(self.trigger_fd);
		self.trigger_fd = -1;
	}
	if (shared->settings.failsafe_mode == FAILSAFE_OFF || !shared->settings.failsafe_trigger[0])
		return 0;
	fd = trigger_open_psi("/proc/pressure/memory", shared->settings.failsafe_trigger, &self.is_fifo);
	if (fd < 0)
		return fd;
	error = loop_add(fd, self.is_fifo ? EPOLLIN : EPOLLPRI, SRC_FAILSAFE_TRIGGER, 0);
	if (error != 0) {
		close(fd);
		return error;
	}
	self.trigger_fd = fd;
	return 0;
}

/* --- mode kill -------------------------------------------------------------------------------------------- */

static bool memory_critical(void)
{
	int64_t total = proc_meminfo_kib("MemTotal:"), available = proc_meminfo_kib("MemAvailable:");

	return total > 0 && available >= 0 && available * 100 < total * CRITICAL_AVAILABLE_PCT &&
	       proc_meminfo_kib("SwapFree:") * 100 <= proc_meminfo_kib("SwapTotal:") * CRITICAL_SWAP_FREE_PCT;
}

static struct wire_failsafe_kill *new_record(void)
{
	if (shared->failsafe_kill_count == FAILSAFE_KILLS_MAX) {
		shared->failsafe.kills_lost++;
		return NULL;
	}
	return &shared->failsafe_kills[shared->failsafe_kill_count];
}

/* True if a signal was sent. */
static bool kill_process(const struct process *victim, const struct proc_memory *memory)
{
	struct wire_failsafe_kill *record = new_record();
	struct wire_failsafe_kill story = { .pid = victim->pid, .uid = victim->uid, .rss_kib = memory->rss_kib,
					    .oom_score_adj = victim->oom_score_adj, .method = REAP_NONE };
	struct wire_signalled signalled;
	struct kill_wish wish = { .handle = victim->handle, .pid = victim->pid, .signal = SIGKILL,
				  .start_ticks = victim->start_ticks, .method = REAP_AUTO, .flags = KILL_BOOST,
				  .oom_score_adj = victim->oom_score_adj, .received_ns = loop_wake_ns() };

	proc_name(victim->pid, story.name, sizeof(story.name));
	if (record)
		wish.failsafe_index = shared->failsafe_kill_count + 1;
	story.error = -kill_now(&wish, &signalled);
	story.signal_ns = signalled.signal_ns;
	if (record) {
		*record = story;
		shared->failsafe_kill_count++;
	}
	say('I', "fail-safe: Kill '%s' (%d), uid %d, oom_score_adj %d to free %lldkB rss: %s", story.name, story.pid,
	    story.uid, story.oom_score_adj, (long long)story.rss_kib, story.error ? strerror(story.error) : "sent");
	return story.error == 0;
}

static void try_kill(int64_t now_ns)
{
	int64_t interval_ns = (int64_t)shared->settings.failsafe_interval_ms * NS_PER_MS;
	struct process *victim = NULL;
	struct process seen;

	if (kill_pending() || (self.last_kill_ns && now_ns - self.last_kill_ns < interval_ns))
		return;
	while ((victim = table_next_victim(victim)) != NULL) {
		struct proc_memory memory;
		int32_t adj;

		if (victim->oom_score_adj < shared->settings.failsafe_min_adj)
			return;
		/* What /proc says counts as well: it may be in front by now. */
		if (proc_adj(victim->pid, victim, &adj) != 0 || adj < shared->settings.failsafe_min_adj)
			continue;
		if (proc_memory(victim->pid, victim, &memory) != 0 || memory.rss_kib <= 0)
			continue;
		seen = *victim;	/* the kill removes the entry */
		if (kill_process(&seen, &memory)) {
			self.last_kill_ns = now_ns;
			return;
		}
	}
}

void failsafe_kill_story(uint32_t index, const struct wire_failsafe_kill *told)
{
	struct wire_failsafe_kill *kill = &shared->failsafe_kills[index];

	/* The record may be another kill's by now: this one was reported already. */
	if (index >= shared->failsafe_kill_count || kill->pid != told->pid || kill->signal_ns != told->signal_ns)
		return;
	kill->method = told->method;
	kill->reap_error = told->reap_error;
	kill->exit_ns = told->exit_ns;
}

static bool killing(void)
{
	return shared->failsafe_active && shared->failsafe.mode == FAILSAFE_KILL && !host_controls();
}

void failsafe_triggered(void)
{
	if (self.is_fifo)
		trigger_drain(self.trigger_fd);
	if (!killing())
		return;
	self.next_poll_ns = loop_wake_ns() + POLL_NS;
	try_kill(loop_wake_ns());
}

/* All the time, not only after a trigger: with swap full and nothing left to reclaim the kernel gives up, and calls
 * its OOM killer, before anybody has stalled for as long as the trigger asks. */
static int64_t kill_poll(int64_t now_ns)
{
	if (now_ns >= self.next_poll_ns) {
		self.next_poll_ns = now_ns + POLL_NS;
		if (memory_critical())
			try_kill(now_ns);
	}
	return self.next_poll_ns;
}

/* --- mode hand back ----------------------------------------------------------------------------------------- */

void failsafe_handback(uint32_t stop_request_id, bool stop)
{
	back.stop = back.stop || stop;
	if (stop)
		back.stop_id = stop_request_id;
	if (back.step != BACK_IDLE)
		return;
	back.step = BACK_SERVICES;
	back.started = false;
	back.next_ns = 0;
	lmkd_unserve();
}

static void handback_over(int error)
{
	back.step = BACK_IDLE;
	shared->failsafe.handed_back |= back.started;
	shared->failsafe.handback_error = -error;
	say(error ? 'E' : 'I', "handed back: %u processes registered%s%s", shared->failsafe.reregistered,
	    error ? ", " : "", error ? strerror(-error) : "");
	if (!back.stop)
		return;
	host_send_done(back.stop_id, OP_NONE, -error);
	loop_stop();
}

/* Oldest registration first, so that every slot ends up in the same order. */
static const struct process *registered_after(uint64_t order)
{
	const struct process *next = NULL;

	for (uint32_t i = 0; i < shared->table_high; i++) {
		const struct process *p = &shared->table[i];

		if (p->used && p->order > order && (!next || p->order < next->order))
			next = p;
	}
	return next;
}

/* lmkd drops packets of a client that hangs up at once: an answer proves that it has read them all. */
static int wait_for_answer(int fd)
{
	struct pollfd waiting = { .fd = fd, .events = POLLIN };
	uint8_t packet[LMK_PACKET_MAX];
	int error = lmk_send_packet(fd, packet, lmk_pack_getkillcnt(packet, 0, 0));

	if (error != 0)
		return error;
	if (poll(&waiting, 1, BARRIER_MS) != 1)
		return -ETIMEDOUT;
	/* Taken, or closing would reset the connection under lmkd's hands. */
	return recv(fd, packet, sizeof(packet), MSG_DONTWAIT) < 0 ? -errno : 0;
}

static int register_all(int fd)
{
	struct timeval limit = { .tv_sec = 2 };
	const struct process *process;
	uint8_t packet[LMK_PACKET_MAX];
	uint64_t order = 0;
	int error = 0;

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	while (error == 0 && (process = registered_after(order)) != NULL) {
		struct lmk_procprio wanted = { process->pid, process->uid, process->oom_score_adj, process->type };

		order = process->order;
		error = lmk_send_packet(fd, packet, lmk_pack_procprio(packet, &wanted, 1));
		shared->failsafe.reregistered += error == 0;
	}
	return error ? error : wait_for_answer(fd);
}

static void start_services(int64_t now_ns)
{
	char name[SERVICE_NAME_MAX];
	char command[] = "start";
	char *argv[] = { command, name, NULL };

	if (run_busy())
		return;
	if (run_next_stopped_service(name)) {
		back.started = true;
		if (run_start(0, argv) != 0)
			handback_over(-ENOENT);
		return;
	}
	if (!back.started) {
		handback_over(0);
		return;
	}
	back.step = BACK_CONNECT;
	back.until_ns = now_ns + CONNECT_LIMIT_NS;
	back.next_ns = now_ns;
}

static void connect_and_register(int64_t now_ns)
{
	char path[PATH_BYTES];
	int error = root_path(path, options.lmkd_socket);
	int fd = error ? error : lmk_connect_seqpacket(path);

	if (fd >= 0) {
		error = register_all(fd);
		close(fd);
		handback_over(error);
	} else if (now_ns >= back.until_ns) {
		handback_over(fd);
	} else {
		back.next_ns = now_ns + CONNECT_STEP_NS;
	}
}

static int64_t handback_tick(int64_t now_ns)
{
	if (back.step == BACK_SERVICES)
		start_services(now_ns);
	else if (back.step == BACK_CONNECT && now_ns >= back.next_ns)
		connect_and_register(now_ns);
	/* While a command runs, its end wakes the loop. */
	if (back.step == BACK_SERVICES)
		return run_busy() ? INT64_MAX : now_ns;
	return back.step == BACK_CONNECT ? back.next_ns : INT64_MAX;
}

/* --- time -------------------------------------------------------------------------------------------------------- */

static int64_t entry_tick(int64_t now_ns)
{
	int64_t wait_ns = (int64_t)shared->settings.failsafe_ms * NS_PER_MS;
	int64_t due_ns = (host_connected() ? host_last_heard_ns() : self.gone_ns) + wait_ns;

	if (!shared->have_settings || shared->settings.failsafe_mode == FAILSAFE_OFF || wait_ns == 0)
		return INT64_MAX;
	if (shared->failsafe.reason == WHY_WORKER_DIED)
		enter(WHY_WORKER_DIED);
	else if (now_ns > due_ns)
		enter(host_connected() ? WHY_SILENT : WHY_HANGUP);
	else
		return due_ns + 1;
	return now_ns;
}

int64_t failsafe_tick(int64_t now_ns)
{
	int64_t handback_ns = handback_tick(now_ns), report_ns = report_tick(now_ns);
	int64_t own_ns = INT64_MAX;

	if (!shared->failsafe_active)
		own_ns = entry_tick(now_ns);
	else if (killing())
		own_ns = kill_poll(now_ns);
	own_ns = own_ns < report_ns ? own_ns : report_ns;
	return own_ns < handback_ns ? own_ns : handback_ns;
}
