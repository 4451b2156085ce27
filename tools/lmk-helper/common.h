/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by lmk-helper and lmk-apprunner: robust I/O, byte order, lmkd's control packets.
 *
 * Errors are negative errno values. No function here allocates memory. Outputs named ret_ are untouched
 * on failure.
 */
#ifndef LMK_COMMON_H
#define LMK_COMMON_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LMK_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define NS_PER_MS 1000000LL
#define NS_PER_S 1000000000LL

/* --- time -------------------------------------------------------------------------------------- */

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t lmk_now_ns(void);
/* Sleeps through signals. */
void lmk_sleep_ns(int64_t duration_ns);

/* --- whole reads and writes -------------------------------------------------------------------- */

/* Repeats over EINTR and short counts. 0 or -errno (-EPIPE at end of file before `size` bytes). */
int lmk_read_full(int fd, void *buffer, size_t size);
int lmk_write_full(int fd, const void *buffer, size_t size);
/* One file from its start, NUL-terminated (so at most size-1 bytes): the length or -errno. */
ssize_t lmk_read_file(int dirfd, const char *path, char *buffer, size_t size);
/* The same on a descriptor kept open (pread from 0). */
ssize_t lmk_reread(int fd, char *buffer, size_t size);
/* For a file that the kernel makes as one record (single_open, as all of a process's): one read gives all of it. */
ssize_t lmk_reread_record(int fd, char *buffer, size_t size);
/* One write() of the whole text to an existing file: 0 or -errno. */
int lmk_write_file(int dirfd, const char *path, const void *data, size_t size);
/* snprintf that answers -ENAMETOOLONG instead of truncating; otherwise the length. */
int lmk_format(char *buffer, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* --- parsing ----------------------------------------------------------------------------------- */

/* The decimal number after `key` at the start of a line ("VmRSS:   12 kB"): 0, -ENOENT or -EINVAL. */
int lmk_find_number(const char *text, const char *key, int64_t *ret_value);
/* Field `number` (1-based, 4 or more) of /proc/PID/stat; safe with any comm. 0 or -EINVAL. */
int lmk_stat_field(const char *stat_text, unsigned number, uint64_t *ret_value);
/* A decimal number, the whole string. 0, -EINVAL or -ERANGE. */
int lmk_parse_i64(const char *text, int64_t *ret_value);

/* --- byte order -------------------------------------------------------------------------------- */

void lmk_put_be16(uint8_t *out, uint16_t value);
void lmk_put_be32(uint8_t *out, uint32_t value);
void lmk_put_be64(uint8_t *out, uint64_t value);
uint32_t lmk_get_be32(const uint8_t *in);
uint64_t lmk_get_be64(const uint8_t *in);

/* --- /dev/socket/lmkd: one datagram per command, 32-bit signed big-endian integers ---------------- */

enum lmk_command {
	LMK_TARGET = 0,
	LMK_PROCPRIO = 1,
	LMK_PROCREMOVE = 2,
	LMK_PROCPURGE = 3,
	LMK_GETKILLCNT = 4,
	LMK_SUBSCRIBE = 5,
	LMK_PROCKILL = 6,
	LMK_UPDATE_PROPS = 7,
	LMK_STAT_KILL_OCCURRED = 8,
	LMK_START_MONITORING = 9,
	LMK_BOOT_COMPLETED = 10,
	LMK_PROCS_PRIO = 11,
};

enum lmk_process_type { LMK_PROC_TYPE_APP = 0, LMK_PROC_TYPE_SERVICE = 1 };

#define LMK_PACKET_MAX 52		/* longest command that lmkd reads */
#define LMK_TARGETS_MAX 6
#define LMK_PROCS_PRIO_MAX 3

struct lmk_procprio {
	int32_t pid;
	int32_t uid;
	int32_t oom_score_adj;
	int32_t type;	/* enum lmk_process_type */
};

/* Each encoder fills `out` (LMK_PACKET_MAX bytes are enough) and returns the packet's length. */
size_t lmk_pack_ints(uint8_t *out, const int32_t *values, size_t count);
size_t lmk_pack_target(uint8_t *out, const int32_t (*pairs)[2], size_t count);
/* with_type false: the 4-integer form of releases that know no process types. */
size_t lmk_pack_procprio(uint8_t *out, const struct lmk_procprio *process, int with_type);
size_t lmk_pack_procs_prio(uint8_t *out, const struct lmk_procprio *processes, size_t count);
size_t lmk_pack_procremove(uint8_t *out, int32_t pid);
size_t lmk_pack_procpurge(uint8_t *out);
size_t lmk_pack_getkillcnt(uint8_t *out, int32_t adj_min, int32_t adj_max);
size_t lmk_pack_subscribe(uint8_t *out, int32_t event);

/* A connected SOCK_SEQPACKET socket at a path such as /dev/socket/lmkd: the descriptor or -errno. */
int lmk_connect_seqpacket(const char *path);
/* One packet: 0 or -errno (-EMSGSIZE if the kernel took only part of it). */
int lmk_send_packet(int fd, const void *packet, size_t size);

#endif
