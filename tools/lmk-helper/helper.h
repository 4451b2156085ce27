/* SPDX-License-Identifier: Apache-2.0
 *
 * lmk-helper: what the parts of the worker process share. The worker's main thread owns all state here; reaper
 * threads only see the jobs they are handed. Nothing allocates memory after the start.
 *
 * Errors are negative errno values; on the wire they are positive.
 */
#ifndef LMK_HELPER_H
#define LMK_HELPER_H

#include "common.h"
#include "helper_wire.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define TABLE_MAX 4096
#define KILLS_MAX 64
#define REAPERS 4
#define SERVICES_MAX 8
#define SERVICE_NAME_MAX 64
#define FAILSAFE_KILLS_MAX 128
#define PACKET_LOG_MAX 4096
#define PATH_BYTES 512
#define SCRATCH_BYTES (512 * 1024)

/* --- options (helper_main.c) ------------------------------------------------------------------------ */

struct options {
	const char *abstract_name;
	const char *lmkd_socket;	/* as on the device; root is put before it */
	const char *root;		/* "" on a device */
	const char *proc_root;		/* "" : ROOT/proc */
	const char *bin_dir;		/* start, stop, setprop */
	const char *log_file;
	bool tied;			/* end when stdin does */
	char token[128];
};
extern struct options options;
extern int proc_fd;			/* directory of the proc root */

/* ROOT + path, checked for length: 0 or -ENAMETOOLONG. */
int root_path(char *buffer, const char *path);

/* --- what survives the worker (helper_guard.c) -------------------------------------------------------- */

struct process {
	int32_t pid, uid, oom_score_adj, owner_pid;
	uint64_t start_ticks;
	uint64_t order;			/* rises with every registration: lmkd's victim is the oldest of its slot */
	uint32_t handle;
	uint8_t type;
	uint8_t used;			/* written last */
};

struct logged_packet {
	struct wire_control control;
	uint8_t bytes[LMK_PACKET_MAX];
	uint8_t size;
};

struct shared {
	int32_t worker_pid, guardian_pid;
	uint32_t worker_starts;
	int64_t start_ns[5];		/* the last worker starts */
	uint8_t stopping, giving_up;
	uint8_t have_settings;
	struct settings settings;

	struct process table[TABLE_MAX];
	uint32_t table_high;		/* entries from here on were never used */
	uint32_t next_handle;
	uint64_t next_order;

	char stopped_services[SERVICES_MAX][SERVICE_NAME_MAX];

	uint8_t failsafe_active;
	struct wire_failsafe failsafe;
	struct wire_failsafe_kill failsafe_kills[FAILSAFE_KILLS_MAX];
	uint32_t failsafe_kill_count;
	struct logged_packet packets[PACKET_LOG_MAX];
	uint32_t packet_count;

	uint32_t kills, messages_dropped;
};
extern struct shared *shared;
extern int host_listen_fd;		/* kept over worker deaths */
extern int lmkd_listen_fd;

/* Never returns. */
_Noreturn void guard_run_worker(void);
/* Forks a guardian for this worker: 0 or -errno. */
int guard_start(void);
void guard_exited(void);

/* --- the loop (helper_worker.c) ------------------------------------------------------------------------- */

enum source {
	SRC_HOST_LISTEN, SRC_HOST, SRC_LMKD_LISTEN, SRC_LMKD, SRC_TRIGGER, SRC_FAILSAFE_TRIGGER, SRC_REAPER,
	SRC_PROCESS, SRC_KILL, SRC_TRACE, SRC_KMSG, SRC_GUARDIAN, SRC_CHILD, SRC_STDIN,
};

int loop_add(int fd, uint32_t events, enum source source, uint32_t index);
int loop_modify(int fd, uint32_t events, enum source source, uint32_t index);
void loop_remove(int fd);
/* When this turn of the loop woke up. */
int64_t loop_wake_ns(void);
void loop_stop(void);
_Noreturn void worker_main(bool after_death);
/* Applies shared->settings; fills errors[SET_*] with positive errnos. */
void worker_apply_settings(int32_t errors[SET_OOM + 1]);
uint32_t worker_capabilities(void);
void worker_protect(int32_t errors[SET_OOM + 1]);
int worker_lock_memory(void);
extern uint8_t call_process_reap, call_process_mrelease, call_pidfd_open;

/* --- host connections (helper_host.c, helper_request.c) ---------------------------------------------------- */

int host_init(void);
void host_accept(void);
/* Reads what has come and carries out the kills in it at once ... */
void host_readable(uint32_t index, uint32_t events);
/* ... the rest later in the turn. */
void host_run_requests(void);
int64_t host_tick(int64_t now_ns);
/* A controlling host is connected / and has been heard of within failsafe_ms. */
bool host_connected(void);
bool host_controls(void);
int64_t host_last_heard_ns(void);
/* NULL if there is no host. Otherwise host_end must follow; must: an answer, which may not be dropped. */
struct out *host_begin(uint16_t type, uint32_t id);
void host_end(bool must);
void host_abort(void);
void host_close_all(void);
void host_send_error(uint32_t id, int error, uint16_t request_type, const char *text);
void host_send_done(uint32_t id, uint8_t op, int error);
void request_run(uint16_t type, uint32_t id, struct in *in);
void request_kill(uint32_t id, struct in *in);
void request_hello(uint32_t id);
int64_t request_tick(int64_t now_ns);	/* table walks */
void request_forget(void);

/* --- /proc (helper_proc.c) ------------------------------------------------------------------------------- */

extern char scratch[SCRATCH_BYTES];

void proc_init(void);
/* A path as on the device, under --proc-root or --root: a non-blocking descriptor or -errno. */
int open_path(const char *path, int flags);
/* The fields of Snapshot into the frame that is being written; trace_drain comes before the frame. */
void proc_put_snapshot(struct out *out, uint32_t files, uint32_t candidates, uint16_t fields);
/* One PidEntry with its files. */
void proc_put_pid(struct out *out, int32_t pid, const struct process *process, uint16_t fields);
/* After the table has changed: opens the files of the likely victims. */
void proc_keep_ready(void);
/* Forgets what depends on shared->settings. */
void proc_settings_changed(void);
/* A registered process has ended or is no longer registered. */
void proc_forget(uint32_t handle);
/* PID/NAME into the buffer: length or -errno; ret_op says what failed. */
ssize_t proc_read_pid(int32_t pid, const char *name, char *buffer, size_t size, uint8_t *ret_op);
/* known: registered as this process, whose files may be open already; NULL on other threads. */
int proc_start_ticks(int32_t pid, const struct process *known, uint64_t *ret_ticks);
int proc_adj(int32_t pid, const struct process *known, int32_t *ret_adj);
int proc_write_adj(int32_t pid, int32_t adj, uint8_t *ret_op);
int64_t proc_free_pages(void);		/* or -1 */
/* Free pages on the CPUs' own lists, which nr_free_pages does not count, summed from zoneinfo; 0 if unread. */
int64_t proc_percpu_pages(char *buffer, size_t size);

struct proc_memory {
	int64_t anon_kib, shmem_kib, swap_kib, rss_kib;	/* -1: unread */
	int32_t uid, tgid;
};
/* 0 or -errno; lines that a zombie lacks count as 0. */
int proc_memory(int32_t pid, const struct process *known, struct proc_memory *ret_memory);
/* The same as the last sample saw it, if that is fresh: reading status costs a third of a millisecond. */
int proc_memory_sampled(int32_t pid, const struct process *known, struct proc_memory *ret_memory);
/* The first word of the command line, else comm. */
void proc_name(int32_t pid, char *name, size_t size);
int64_t proc_meminfo_kib(const char *key);	/* "MemTotal:", or -1 */

/* --- registered processes (helper_table.c) ---------------------------------------------------------------- */

void table_init(bool reopen);
struct process *table_find(int32_t pid);
struct process *table_by_handle(uint32_t handle);
int table_pidfd(const struct process *process);
/* Registers or moves to the front of its slot. start_ticks 0: whoever has the pid. 0 or -errno. */
int table_register(int32_t pid, int32_t uid, int32_t adj, uint8_t type, int32_t owner, uint64_t start_ticks,
		   struct process **ret_process);
void table_remove(struct process *process);
void table_disown(int32_t owner_pid);
void table_exited(uint32_t index);
uint32_t table_count(void);
/* Since the last call somebody was registered or removed. */
bool table_changed(void);
/* The victim lmkd would take next after `previous` (NULL: the first): highest adj, oldest registration. */
struct process *table_next_victim(const struct process *previous);
int pidfd_open_checked(int32_t pid, uint64_t *inout_start_ticks);

/* --- killing (helper_kill.c, helper_group.c, helper_reaper.c) ----------------------------------------------------------------- */

struct kill_wish {
	uint32_t id;			/* the request; 0 for the fail-safe's own */
	uint32_t handle;
	int32_t pid;
	uint64_t start_ticks;
	int32_t signal;
	uint8_t method;
	uint32_t flags;
	int32_t oom_score_adj;
	int64_t received_ns;
	uint32_t failsafe_index;	/* 1 + index in shared->failsafe_kills, 0: none */
};

void kill_init(void);
/* Signals at once; the answer is filled in either way. 0 or -errno. */
int kill_now(const struct kill_wish *wish, struct wire_signalled *ret_signalled);
void kill_exited(uint32_t slot);
void kill_reaped(void);
int64_t kill_tick(int64_t now_ns);
bool kill_pending(void);
bool kill_story_open(void);

struct reap_job {
	uint32_t slot, generation;
	int32_t pid, pidfd;
	int32_t group_fd;		/* kill its whole cgroup, this one; -1: the process alone, signalled already */
	uint32_t help;			/* 1 + index of a group that other threads began; nothing else is set */
	uint8_t method;
	uint32_t flags;
	int64_t free_pages_before, cached_pages_before, want_pages, signal_ns;
};

struct reap_result {
	uint32_t slot, generation;
	uint8_t is_measure, method;
	int32_t error;			/* positive errno */
	uint32_t calls;
	int64_t begin_ns, end_ns, back_ns, back_allocatable_ns;
	int64_t anon_kib_after, shmem_kib_after, free_pages_after;
	uint32_t group_members, group_lost;
};

/* The directory of the process's own cgroup; -ENOENT if its cgroup is not for it alone. */
int group_open(int32_t pid);
/* On a reaper thread: kills and reaps everybody in job->group_fd, which is closed. */
void group_kill(const struct reap_job *job, struct reap_result *result);
void group_help(uint32_t index);

/* Starts the threads. 0 or -errno. */
int reaper_init(void);
/* Never blocks: 0, or -EAGAIN when the queue is full. */
int reaper_queue(const struct reap_job *job);
int reaper_measure(const struct reap_job *job);
/* 1 if a result was taken, 0 if there is none. */
int reaper_result(struct reap_result *ret_result);
int reaper_fd(void);
/* Priority and CPUs of all reaper threads. */
int reaper_schedule(int priority, uint64_t cpus, int *ret_cpu_error);
int thread_schedule(pid_t tid, int priority);
int thread_affinity(pid_t tid, uint64_t cpus);
uint8_t probe_call(long number, bool check_flags);
long sys_reap(uint8_t method, int pidfd);
uint8_t reaper_best_method(void);

/* --- triggers (helper_trigger.c) --------------------------------------------------------------------------------- */

void trigger_init(void);
int trigger_arm(uint8_t slot, uint8_t kind, const char *path, const char *text);
void trigger_fired(uint32_t slot);
/* Sends one Pressure for everything that fired in this turn. */
void trigger_flush(void);
int trigger_open_psi(const char *path, const char *text, bool *ret_is_fifo);
void trigger_drain(int fd);

/* --- tracefs and kmsg (helper_trace.c) ------------------------------------------------------------------------------ */

void trace_init(void);
int trace_start(bool memevents, bool oom, int *ret_oom_error);
void trace_stop(void);
void trace_readable(void);
void kmsg_readable(void);
int64_t trace_tick(int64_t now_ns);
uint32_t trace_capabilities(void);
/* Before a sample: reads what is there, so that these are current. Not while a frame is being written. */
void trace_drain(void);
extern int64_t trace_direct_start_ns, trace_kswapd_start_ns;

/* --- /dev/socket/lmkd (helper_lmkd.c) -------------------------------------------------------------------------------- */

void lmkd_init(void);
int lmkd_serve(void);
void lmkd_unserve(void);
void lmkd_accept(void);
void lmkd_readable(uint32_t index, uint32_t events);
int lmkd_reply(uint32_t connection, const void *data, size_t size);
int lmkd_close(uint32_t connection);
/* A new host is told who is connected. */
void lmkd_announce(void);
void lmkd_replay_handled(void);

/* --- fail-safe (helper_failsafe.c) ------------------------------------------------------------------------------------- */

void failsafe_init(bool after_death);
void failsafe_host_heard(void);
void failsafe_host_gone(void);
void failsafe_triggered(void);
int failsafe_arm(void);
int64_t failsafe_tick(int64_t now_ns);
void failsafe_kill_story(uint32_t index, const struct wire_failsafe_kill *told);
/* Starts stopped services and registers everything with them; stop: end the helper afterwards. */
void failsafe_handback(uint32_t stop_request_id, bool stop);

/* --- services and logs (helper_run.c) ------------------------------------------------------------------------------------- */

void run_init(void);
/* Starts argv[0] from the bin directory: 0 or -errno; run_finished tells the end. */
int run_start(uint32_t id, char *const argv[]);
void run_child_exited(void);
int64_t run_tick(int64_t now_ns);
bool run_busy(void);
int run_last_status(void);
bool run_next_stopped_service(char *name);
void log_init(void);
int log_android(uint8_t log_id, const uint8_t *payload, size_t size);
/* The helper's own words: Android's log, and --log-file. */
void say(char priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

int selftest_encode(void);
int selftest_decode(void);

#endif
