/* SPDX-License-Identifier: Apache-2.0
 *
 * The helper protocol's bytes; docs/helper-protocol.md is the specification. Little-endian, packed.
 */
#ifndef LMK_HELPER_WIRE_H
#define LMK_HELPER_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_VERSION 1
#define WIRE_MAGIC 0x484b4d4cU
#define WIRE_HEADER 12
#define WIRE_REQUEST_MAX 65536
#define WIRE_MESSAGE_MAX (1U << 20)

enum wire_type {
	REQ_AUTH = 1, REQ_SETTINGS, REQ_ARM, REQ_GET_SAMPLE, REQ_GET_FILES, REQ_GET_PROC, REQ_GET_SIZES,
	REQ_GET_TABLE, REQ_WATCH, REQ_UNWATCH, REQ_KILL, REQ_WRITE_ADJ, REQ_WRITE_FILE, REQ_CONTROL_REPLY,
	REQ_CLOSE, REQ_LOG, REQ_RUN, REQ_STOP, REQ_PING,

	MSG_HELLO = 64, MSG_DONE, MSG_SETTINGS_DONE, MSG_ARMED, MSG_PRESSURE, MSG_SAMPLE, MSG_FILES, MSG_PROC,
	MSG_SIZES, MSG_PROC_TABLE, MSG_WATCHED, MSG_SIGNALLED, MSG_EXITED, MSG_KILLED, MSG_CONTROL,
	MSG_CONTROL_CONNECTION, MSG_OOM, MSG_MEM_EVENTS, MSG_HEARTBEAT, MSG_FAILSAFE, MSG_ERROR, MSG_PONG,
	MSG_RAN,
};

enum { FILE_MEMINFO, FILE_VMSTAT, FILE_ZONEINFO, FILE_PSI_MEMORY, FILE_PSI_IO, FILE_PSI_CPU, FILE_COUNT };
enum { FIELD_STATUS, FIELD_CMDLINE, FIELD_STAT, FIELD_STATM, FIELD_ADJ, FIELD_CGROUP, FIELD_MEMCG_STAT, FIELD_COUNT };
enum { OP_NONE, OP_OPEN, OP_IO, OP_REFUSED, OP_NOT_TRIED };
enum { REAP_AUTO, REAP_PROCESS_REAP, REAP_PROCESS_MRELEASE, REAP_NONE, REAP_CGROUP };
enum { CALL_ABSENT, CALL_PRESENT, CALL_FOREIGN, CALL_BLOCKED };
enum { CAP_PSI = 1, CAP_MEMEVENTS = 2, CAP_TRACE_OOM = 4, CAP_KMSG = 8, CAP_LOCKED = 16, CAP_OOM_PROTECTED = 32 };
enum { FAILSAFE_OFF, FAILSAFE_KILL, FAILSAFE_HANDBACK };
enum { WHY_SILENT = 1, WHY_HANGUP, WHY_WORKER_DIED };
enum { WANT_LMKD = 1, WANT_MEMEVENTS = 2, WANT_OOM = 4, WANT_DRY_RUN = 8, WANT_WRITE_ADJ = 16 };
enum {
	SET_OOM_SCORE_ADJ = 1, SET_MEMORY_LOCK, SET_MAIN_PRIORITY, SET_MAIN_CPUS, SET_REAPER_PRIORITY,
	SET_REAPER_CPUS, SET_FAILSAFE_TRIGGER, SET_LMKD_SOCKET, SET_MEMEVENTS, SET_OOM,
};
enum { KILL_CHECK_ADJ = 1, KILL_BOOST = 2, KILL_MEASURE = 4, KILL_GROUP = 8 };
enum { KILLED_REAP_TIMED_OUT = 1, KILLED_EXIT_NOT_SEEN = 2, KILLED_BACK_NOT_SEEN = 4, KILLED_NO_GROUP = 8 };
enum { CONTROL_CONNECT = 1, CONTROL_HANGUP };
enum { CONTROL_CREDENTIALS = 1, CONTROL_HANGUP_PENDING = 2, CONTROL_HANDLED = 4 };
enum { MEM_DIRECT_BEGIN = 1, MEM_DIRECT_END, MEM_KSWAPD_WAKE, MEM_KSWAPD_SLEEP };
enum { OOM_TRACE = 1, OOM_KMSG };
enum { TRIGGER_PSI, TRIGGER_VMPRESSURE };
enum { TABLE_REGISTERED, TABLE_ALL };

/* --- writing: everything goes into one fixed buffer; the first overflow spoils the frame ------------- */

struct out {
	uint8_t *data;
	size_t size;
	size_t used;
	bool overflow;
};

void out_u8(struct out *out, uint8_t value);
void out_u16(struct out *out, uint16_t value);
void out_u32(struct out *out, uint32_t value);
void out_u64(struct out *out, uint64_t value);
void out_i32(struct out *out, int32_t value);
void out_i64(struct out *out, int64_t value);
void out_text(struct out *out, const char *text);
void out_blob(struct out *out, const void *data, size_t size);
/* A list whose length is known at its end: the place to patch. */
size_t out_list_begin(struct out *out);
void out_list_end(struct out *out, size_t place, uint32_t count);
/* A frame: its start; 0 or -ENOBUFS (nothing of it remains in the buffer). */
size_t out_frame_begin(struct out *out, uint16_t type, uint32_t id);
int out_frame_end(struct out *out, size_t start);

/* --- reading: `bad` sticks; values after it are zero ------------------------------------------------- */

struct in {
	const uint8_t *at;
	size_t left;
	bool bad;
};

uint8_t in_u8(struct in *in);
uint16_t in_u16(struct in *in);
uint32_t in_u32(struct in *in);
uint64_t in_u64(struct in *in);
int32_t in_i32(struct in *in);
/* Copies and terminates; bad if it does not fit or holds a NUL. */
void in_text(struct in *in, char *buffer, size_t size);
const uint8_t *in_blob(struct in *in, size_t *ret_size);
/* A count that the rest of the payload can really hold at `item_bytes` each. */
uint32_t in_count(struct in *in, size_t item_bytes);

/* --- messages with structure of their own -------------------------------------------------------------- */

struct settings {
	uint32_t failsafe_ms;
	uint8_t failsafe_mode;
	int32_t failsafe_min_adj;
	uint32_t failsafe_interval_ms;
	char failsafe_trigger[64];
	uint32_t heartbeat_ms;
	int32_t main_priority, reaper_priority;
	uint64_t main_cpus, reaper_cpus;
	uint32_t sample_files;
	uint16_t candidates, candidate_fields;
	uint32_t flags;
	uint32_t reap_timeout_ms;
	char vmstat_names[1024];
};

struct wire_hello {
	uint8_t process_reap, process_mrelease, pidfd_open;
	uint32_t capabilities, page_bytes, ticks_per_s, cpus;
	int32_t uid, pid, guardian_pid;
	uint32_t worker_starts;
	uint64_t mem_total_kib;
	int64_t now_ns, realtime_ns;
	const char *sysname, *release, *kernel_version, *machine;
};

struct wire_signalled {
	int32_t error, pid;
	uint32_t handle;
	uint64_t start_ticks;
	int64_t received_ns, signal_ns;
};

struct wire_exited {
	uint32_t kill_id;
	int32_t pid;
	uint32_t handle;
	uint64_t start_ticks;
	int64_t exit_ns;
};

struct wire_killed {
	int32_t pid;
	uint32_t handle;
	uint64_t start_ticks;
	int32_t oom_score_adj, signal;
	uint8_t method;
	int32_t reap_error;
	uint32_t reap_calls, flags;
	int64_t received_ns, signal_ns, reap_begin_ns, reap_end_ns, exit_ns, back_ns;
	int64_t anon_kib_before, shmem_kib_before, swap_kib_before, rss_kib_before;
	int64_t anon_kib_after, shmem_kib_after;
	int64_t free_pages_before, free_pages_after_reap, free_pages_after_exit;
	int64_t back_allocatable_ns;
	uint32_t group_members, group_lost;
};

struct wire_failsafe_kill {
	int64_t signal_ns;
	int32_t pid, uid, oom_score_adj, error;
	int64_t rss_kib;
	uint8_t method;
	int32_t reap_error;
	int64_t exit_ns;
	char name[64];
};

struct wire_failsafe {
	uint8_t reason, mode;
	int64_t silent_since_ns, entered_ns, left_ns;
	uint32_t packets_handled, packets_lost;
	uint8_t handed_back;
	int32_t handback_error;
	uint32_t reregistered, kills_lost;
};

struct wire_heartbeat {
	int64_t t_ns;
	uint32_t registered, kills, messages_dropped, worker_starts;
	int32_t guardian_pid;
	uint8_t failsafe_active;
};

struct wire_control {
	uint32_t connection, flags;
	int32_t pid, uid, gid;
	int64_t t_ns;
	uint32_t length;
};

struct wire_row {
	int32_t pid;
	uint32_t handle;
	uint64_t start_ticks;
	int32_t uid, oom_score_adj;
	uint64_t order;
	int32_t owner_pid;
	uint8_t type;
	int64_t rss_pages;
};

void in_settings(struct in *in, struct settings *ret_settings);
void out_hello(struct out *out, const struct wire_hello *hello);
void out_signalled(struct out *out, const struct wire_signalled *signalled);
void out_exited(struct out *out, const struct wire_exited *exited);
void out_killed(struct out *out, const struct wire_killed *killed);
void out_failsafe(struct out *out, const struct wire_failsafe *failsafe, const struct wire_failsafe_kill *kills,
		  uint32_t kill_count);
void out_heartbeat(struct out *out, const struct wire_heartbeat *heartbeat);
/* The fields of Control up to its packet and processes, which follow as blob and list. */
void out_control(struct out *out, const struct wire_control *control);
void out_control_connection(struct out *out, const struct wire_control *peer, uint8_t event);
void out_file_text(struct out *out, uint16_t file, uint8_t op, int error, int64_t read_ns, const void *data,
		   size_t size);
void out_pid_text(struct out *out, uint8_t field, uint8_t op, int error, const void *data, size_t size);
/* The fields of PidEntry up to its list of files. */
void out_pid_entry(struct out *out, const struct wire_row *row);
void out_row(struct out *out, const struct wire_row *row, const char *name);
void out_error(struct out *out, int error, uint16_t request_type, const char *text);

#endif
