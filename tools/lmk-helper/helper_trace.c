/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory events and kernel OOM kills, from a tracefs instance of our own (nobody else's tracing is touched) and
 * from /dev/kmsg. Reclaim events can come by the thousand: they are read at most every 5 ms and sent in batches,
 * but always before a sample, so that the reclaim state in it is current.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#define INSTANCE "instances/lmk"
#define BATCH_MAX 256
#define PAUSE_NS (5 * NS_PER_MS)
#define LINE_MAX_BYTES 1024

static const char *const ROOTS[] = { "/sys/kernel/tracing", "/sys/kernel/debug/tracing" };
static const struct { const char *name, *path; uint8_t event; } EVENTS[] = {
	{ "mm_vmscan_direct_reclaim_begin", "vmscan/mm_vmscan_direct_reclaim_begin", MEM_DIRECT_BEGIN },
	{ "mm_vmscan_direct_reclaim_end", "vmscan/mm_vmscan_direct_reclaim_end", MEM_DIRECT_END },
	{ "mm_vmscan_kswapd_wake", "vmscan/mm_vmscan_kswapd_wake", MEM_KSWAPD_WAKE },
	{ "mm_vmscan_kswapd_sleep", "vmscan/mm_vmscan_kswapd_sleep", MEM_KSWAPD_SLEEP },
};
#define MARK_VICTIM "oom/mark_victim"

struct mem_event {
	uint8_t event;
	int64_t t_ns;
	int32_t pid;
};

int64_t trace_direct_start_ns, trace_kswapd_start_ns;
static struct mem_event batch[BATCH_MAX];
static uint32_t batch_count, batch_dropped;
static int pipe_fd, kmsg_fd;
static int64_t paused_until_ns;
static char partial[LINE_MAX_BYTES];
static size_t partial_used;
static bool want_oom;

void trace_init(void)
{
	pipe_fd = kmsg_fd = -1;
	batch_count = batch_dropped = 0;
	partial_used = 0;
	paused_until_ns = 0;
	trace_direct_start_ns = trace_kswapd_start_ns = 0;
	want_oom = false;
}

static bool tracefs_file(char *buffer, const char *name)
{
	char path[PATH_BYTES];

	for (size_t i = 0; i < LMK_ARRAY_LEN(ROOTS); i++) {
		if (lmk_format(path, sizeof(path), "%s/%s", ROOTS[i], name) < 0 || root_path(buffer, path) != 0)
			continue;
		if (access(buffer, F_OK) == 0)
			return true;
	}
	return false;
}

static int write_instance(const char *name, const char *value)
{
	char path[PATH_BYTES], full[PATH_BYTES];

	if (lmk_format(path, sizeof(path), INSTANCE "/%s", name) < 0)
		return -ENAMETOOLONG;
	if (!tracefs_file(full, path))
		return -ENOENT;
	return lmk_write_file(AT_FDCWD, full, value, strlen(value));
}

static int enable(const char *event, bool on)
{
	char path[PATH_BYTES];

	if (lmk_format(path, sizeof(path), "events/%s/enable", event) < 0)
		return -ENAMETOOLONG;
	return write_instance(path, on ? "1" : "0");
}

uint32_t trace_capabilities(void)
{
	char path[PATH_BYTES], name[128];
	uint32_t found = CAP_MEMEVENTS;

	for (size_t i = 0; i < LMK_ARRAY_LEN(EVENTS); i++) {
		lmk_format(name, sizeof(name), "events/%s", EVENTS[i].path);
		if (!tracefs_file(path, name))
			found = 0;
	}
	if (tracefs_file(path, "events/" MARK_VICTIM))
		found |= CAP_TRACE_OOM;
	if (root_path(path, "/dev/kmsg") == 0 && access(path, R_OK) == 0)
		found |= CAP_KMSG;
	return found;
}

static int open_instance(void)
{
	char path[PATH_BYTES], full[PATH_BYTES];
	int error;

	if (pipe_fd >= 0)
		return 0;
	if (!tracefs_file(path, "instances"))
		return -ENOENT;
	error = lmk_format(full, sizeof(full), "%s/lmk", path);
	if (error < 0)
		return error;
	if (mkdir(full, 0700) < 0 && errno != EEXIST)
		return -errno;
	/* Timestamps on CLOCK_MONOTONIC; wake readers at the first event, not at a half-full buffer. */
	write_instance("trace_clock", "mono");
	write_instance("buffer_size_kb", "256");
	write_instance("buffer_percent", "0");
	if (!tracefs_file(full, INSTANCE "/trace_pipe"))
		return -ENOENT;
	pipe_fd = open(full, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return pipe_fd < 0 ? -errno : 0;
}

static int start_kmsg(void)
{
	char path[PATH_BYTES];

	if (kmsg_fd >= 0)
		return 0;
	if (root_path(path, "/dev/kmsg") != 0)
		return -ENAMETOOLONG;
	kmsg_fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (kmsg_fd < 0)
		return -errno;
	lseek(kmsg_fd, 0, SEEK_END);
	return loop_add(kmsg_fd, EPOLLIN, SRC_KMSG, 0);
}

int trace_start(bool memevents, bool oom, int *ret_oom_error)
{
	bool was_open = pipe_fd >= 0;
	int error, trace_oom, kmsg, events = 0;

	*ret_oom_error = 0;
	want_oom = oom;
	if (!memevents && !oom) {
		trace_stop();
		return 0;
	}
	error = open_instance();
	for (size_t i = 0; error == 0 && i < LMK_ARRAY_LEN(EVENTS); i++)
		events = events ? events : enable(EVENTS[i].path, memevents);
	trace_oom = error ? error : enable(MARK_VICTIM, oom);
	if (error == 0 && !was_open)
		error = loop_add(pipe_fd, EPOLLIN, SRC_TRACE, 0);
	kmsg = oom ? start_kmsg() : 0;
	/* One source is enough. */
	*ret_oom_error = oom && trace_oom != 0 && kmsg != 0 ? kmsg : 0;
	if (!memevents)
		return 0;
	return error ? error : events;
}

void trace_stop(void)
{
	char path[PATH_BYTES];

	if (pipe_fd >= 0) {
		loop_remove(pipe_fd);
		close(pipe_fd);
		if (tracefs_file(path, INSTANCE))
			rmdir(path);
	}
	if (kmsg_fd >= 0) {
		loop_remove(kmsg_fd);
		close(kmsg_fd);
	}
	pipe_fd = kmsg_fd = -1;
	trace_direct_start_ns = trace_kswapd_start_ns = 0;
}

static void send_oom(uint8_t source, int64_t t_ns, int32_t pid, const char *text)
{
	struct out *out = host_begin(MSG_OOM, 0);

	if (!out)
		return;
	out_u8(out, source);
	out_i64(out, t_ns);
	out_i32(out, pid);
	out_text(out, text);
	host_end(true);
}

static void flush_batch(void)
{
	struct out *out;

	if (batch_count == 0)
		return;
	out = host_controls() ? host_begin(MSG_MEM_EVENTS, 0) : NULL;
	if (out) {
		out_u32(out, batch_dropped);
		out_u32(out, batch_count);
		for (uint32_t i = 0; i < batch_count; i++) {
			out_u8(out, batch[i].event);
			out_i64(out, batch[i].t_ns);
			out_i32(out, batch[i].pid);
		}
		host_end(false);
	}
	batch_count = batch_dropped = 0;
}

/* lmkd keeps one value for all reclaimers: the first end clears it. */
static void note(uint8_t event, int64_t t_ns, int32_t pid)
{
	if (event == MEM_DIRECT_BEGIN)
		trace_direct_start_ns = t_ns;
	else if (event == MEM_DIRECT_END)
		trace_direct_start_ns = 0;
	else if (event == MEM_KSWAPD_WAKE)
		trace_kswapd_start_ns = t_ns;
	else
		trace_kswapd_start_ns = 0;
	if (batch_count == BATCH_MAX) {
		memmove(batch, batch + 1, sizeof(batch) - sizeof(batch[0]));
		batch_count--;
		batch_dropped++;
	}
	batch[batch_count++] = (struct mem_event){ event, t_ns, pid };
}

/* "12.345678: " at the start of the text: behind it, or NULL. */
static char *parse_stamp(char *text, int64_t *ret_ns)
{
	char *at, *end;
	long long seconds, microseconds;

	if (*text < '0' || *text > '9')
		return NULL;
	seconds = strtoll(text, &at, 10);
	if (at[0] != '.' || at[1] < '0' || at[1] > '9')
		return NULL;
	microseconds = strtoll(at + 1, &end, 10);
	if (end - at != 7 || end[0] != ':' || end[1] != ' ')
		return NULL;
	*ret_ns = seconds * NS_PER_S + microseconds * 1000;
	return end + 2;
}

/* "          comm-PID     [CPU] flags SECONDS.MICROSECONDS: event: fields": comm always takes 16 columns. */
static void parse_line(char *line)
{
	char *at, *name = NULL, *fields, *pid_text;
	int32_t pid;
	int64_t t_ns;

	if (strlen(line) < 20 || line[16] != '-')
		return;
	pid = (int32_t)strtol(line + 17, &at, 10);
	at = strchr(at, ']');
	for (int word = 0; at && !name && word < 3; word++) {
		at += strcspn(at, " ");
		at += strspn(at, " ");
		name = parse_stamp(at, &t_ns);
	}
	fields = name ? strchr(name, ':') : NULL;
	if (!fields)
		return;
	*fields++ = '\0';
	for (size_t i = 0; i < LMK_ARRAY_LEN(EVENTS); i++)
		if (strcmp(name, EVENTS[i].name) == 0)
			note(EVENTS[i].event, t_ns, pid);
	if (strcmp(name, "mark_victim") == 0) {
		pid_text = strstr(fields, "pid=");
		send_oom(OOM_TRACE, t_ns, pid_text ? (int32_t)strtol(pid_text + 4, NULL, 10) : 0,
			 fields + strspn(fields, " "));
	}
}

static void parse_text(char *text, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (text[i] != '\n') {
			if (partial_used < sizeof(partial) - 1)
				partial[partial_used++] = text[i];
			continue;
		}
		partial[partial_used] = '\0';
		parse_line(partial);
		partial_used = 0;
	}
}

void trace_drain(void)
{
	char text[4096];
	ssize_t got;

	if (pipe_fd < 0)
		return;
	/* Bounded: a storm of events must not keep the loop from its other work. */
	for (int i = 0; i < 64 && (got = read(pipe_fd, text, sizeof(text))) > 0; i++)
		parse_text(text, (size_t)got);
	flush_batch();
}

void trace_readable(void)
{
	trace_drain();
	paused_until_ns = lmk_now_ns() + PAUSE_NS;
	loop_modify(pipe_fd, 0, SRC_TRACE, 0);
}

int64_t trace_tick(int64_t now_ns)
{
	flush_batch();
	if (paused_until_ns == 0 || pipe_fd < 0)
		return INT64_MAX;
	if (now_ns < paused_until_ns)
		return paused_until_ns;
	paused_until_ns = 0;
	loop_modify(pipe_fd, EPOLLIN, SRC_TRACE, 0);
	return INT64_MAX;
}

/* "PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;Out of memory: Killed process 123 (name) total-vm:..." */
void kmsg_readable(void)
{
	char record[8192];
	ssize_t got;

	for (int i = 0; i < 256; i++) {
		char *text, *killed;

		got = read(kmsg_fd, record, sizeof(record) - 1);
		if (got < 0 && errno == EPIPE)	/* we were overtaken: the next read goes on at the oldest record */
			continue;
		if (got <= 0)
			return;
		record[got] = '\0';
		text = strchr(record, ';');
		killed = text ? strstr(text, "Killed process ") : NULL;
		if (!killed || !strstr(text, "ut of memory"))
			continue;
		text[strcspn(text, "\n")] = '\0';
		/* The printk clock is not CLOCK_MONOTONIC: the time of reading is closer to it. */
		send_oom(OOM_KMSG, lmk_now_ns(), (int32_t)strtol(killed + 15, NULL, 10), text + 1);
	}
}
