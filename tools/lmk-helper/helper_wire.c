/* SPDX-License-Identifier: Apache-2.0 */
#include "helper_wire.h"

#include <errno.h>
#include <string.h>

static uint8_t *out_take(struct out *out, size_t size)
{
	uint8_t *at;

	if (out->overflow || out->size - out->used < size) {
		out->overflow = true;
		return NULL;
	}
	at = out->data + out->used;
	out->used += size;
	return at;
}

static void put_le(uint8_t *at, uint64_t value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

static void out_le(struct out *out, uint64_t value, size_t size)
{
	uint8_t *at = out_take(out, size);

	if (at)
		put_le(at, value, size);
}

void out_u8(struct out *out, uint8_t value)
{
	out_le(out, value, 1);
}

void out_u16(struct out *out, uint16_t value)
{
	out_le(out, value, 2);
}

void out_u32(struct out *out, uint32_t value)
{
	out_le(out, value, 4);
}

void out_u64(struct out *out, uint64_t value)
{
	out_le(out, value, 8);
}

void out_i32(struct out *out, int32_t value)
{
	out_le(out, (uint32_t)value, 4);
}

void out_i64(struct out *out, int64_t value)
{
	out_le(out, (uint64_t)value, 8);
}

static void out_bytes(struct out *out, const void *data, size_t size)
{
	uint8_t *at = out_take(out, size);

	if (at && size)
		memcpy(at, data, size);
}

void out_text(struct out *out, const char *text)
{
	size_t size = strnlen(text, UINT16_MAX);

	out_u16(out, (uint16_t)size);
	out_bytes(out, text, size);
}

void out_blob(struct out *out, const void *data, size_t size)
{
	out_u32(out, (uint32_t)size);
	out_bytes(out, data, size);
}

size_t out_list_begin(struct out *out)
{
	size_t place = out->used;

	out_u32(out, 0);
	return place;
}

void out_list_end(struct out *out, size_t place, uint32_t count)
{
	if (!out->overflow)
		put_le(out->data + place, count, 4);
}

size_t out_frame_begin(struct out *out, uint16_t type, uint32_t id)
{
	size_t start = out->used;

	out->overflow = false;
	out_u32(out, 0);
	out_u16(out, type);
	out_u16(out, 0);
	out_u32(out, id);
	return start;
}

int out_frame_end(struct out *out, size_t start)
{
	size_t payload = out->used - start - WIRE_HEADER;

	if (out->overflow || payload > WIRE_MESSAGE_MAX) {
		out->used = start;
		out->overflow = false;
		return -ENOBUFS;
	}
	put_le(out->data + start, payload, 4);
	return 0;
}

static const uint8_t *in_take(struct in *in, size_t size)
{
	const uint8_t *at = in->at;

	if (in->bad || in->left < size) {
		in->bad = true;
		return NULL;
	}
	in->at += size;
	in->left -= size;
	return at;
}

static uint64_t in_le(struct in *in, size_t size)
{
	const uint8_t *at = in_take(in, size);
	uint64_t value = 0;

	for (size_t i = 0; at && i < size; i++)
		value |= (uint64_t)at[i] << 8 * i;
	return value;
}

uint8_t in_u8(struct in *in)
{
	return (uint8_t)in_le(in, 1);
}

uint16_t in_u16(struct in *in)
{
	return (uint16_t)in_le(in, 2);
}

uint32_t in_u32(struct in *in)
{
	return (uint32_t)in_le(in, 4);
}

uint64_t in_u64(struct in *in)
{
	return in_le(in, 8);
}

int32_t in_i32(struct in *in)
{
	return (int32_t)(uint32_t)in_le(in, 4);
}

void in_text(struct in *in, char *buffer, size_t size)
{
	size_t length = in_u16(in);
	const uint8_t *at = in_take(in, length);

	buffer[0] = '\0';
	if (!at)
		return;
	if (length >= size || memchr(at, 0, length)) {
		in->bad = true;
		return;
	}
	memcpy(buffer, at, length);
	buffer[length] = '\0';
}

const uint8_t *in_blob(struct in *in, size_t *ret_size)
{
	size_t size = in_u32(in);
	const uint8_t *at = in_take(in, size);

	*ret_size = at ? size : 0;
	return at;
}

uint32_t in_count(struct in *in, size_t item_bytes)
{
	uint32_t count = in_u32(in);

	if (in->bad || count > in->left / item_bytes) {
		in->bad = true;
		return 0;
	}
	return count;
}

void in_settings(struct in *in, struct settings *ret_settings)
{
	struct settings s = { 0 };

	s.failsafe_ms = in_u32(in);
	s.failsafe_mode = in_u8(in);
	s.failsafe_min_adj = in_i32(in);
	s.failsafe_interval_ms = in_u32(in);
	in_text(in, s.failsafe_trigger, sizeof(s.failsafe_trigger));
	s.heartbeat_ms = in_u32(in);
	s.main_priority = in_i32(in);
	s.reaper_priority = in_i32(in);
	s.main_cpus = in_u64(in);
	s.reaper_cpus = in_u64(in);
	s.sample_files = in_u32(in);
	s.candidates = in_u16(in);
	s.candidate_fields = in_u16(in);
	s.flags = in_u32(in);
	s.reap_timeout_ms = in_u32(in);
	in_text(in, s.vmstat_names, sizeof(s.vmstat_names));
	if (s.failsafe_mode > FAILSAFE_HANDBACK)
		in->bad = true;
	if (!in->bad)
		*ret_settings = s;
}

void out_hello(struct out *out, const struct wire_hello *hello)
{
	out_u16(out, WIRE_VERSION);
	out_u8(out, hello->process_reap);
	out_u8(out, hello->process_mrelease);
	out_u8(out, hello->pidfd_open);
	out_u32(out, hello->capabilities);
	out_u32(out, hello->page_bytes);
	out_u32(out, hello->ticks_per_s);
	out_u32(out, hello->cpus);
	out_i32(out, hello->uid);
	out_i32(out, hello->pid);
	out_i32(out, hello->guardian_pid);
	out_u32(out, hello->worker_starts);
	out_u64(out, hello->mem_total_kib);
	out_i64(out, hello->now_ns);
	out_i64(out, hello->realtime_ns);
	out_text(out, hello->sysname);
	out_text(out, hello->release);
	out_text(out, hello->kernel_version);
	out_text(out, hello->machine);
}

void out_signalled(struct out *out, const struct wire_signalled *signalled)
{
	out_i32(out, signalled->error);
	out_i32(out, signalled->pid);
	out_u32(out, signalled->handle);
	out_u64(out, signalled->start_ticks);
	out_i64(out, signalled->received_ns);
	out_i64(out, signalled->signal_ns);
}

void out_exited(struct out *out, const struct wire_exited *exited)
{
	out_u32(out, exited->kill_id);
	out_i32(out, exited->pid);
	out_u32(out, exited->handle);
	out_u64(out, exited->start_ticks);
	out_i64(out, exited->exit_ns);
}

void out_killed(struct out *out, const struct wire_killed *killed)
{
	out_i32(out, killed->pid);
	out_u32(out, killed->handle);
	out_u64(out, killed->start_ticks);
	out_i32(out, killed->oom_score_adj);
	out_i32(out, killed->signal);
	out_u8(out, killed->method);
	out_i32(out, killed->reap_error);
	out_u32(out, killed->reap_calls);
	out_u32(out, killed->flags);
	out_i64(out, killed->received_ns);
	out_i64(out, killed->signal_ns);
	out_i64(out, killed->reap_begin_ns);
	out_i64(out, killed->reap_end_ns);
	out_i64(out, killed->exit_ns);
	out_i64(out, killed->back_ns);
	out_i64(out, killed->anon_kib_before);
	out_i64(out, killed->shmem_kib_before);
	out_i64(out, killed->swap_kib_before);
	out_i64(out, killed->rss_kib_before);
	out_i64(out, killed->anon_kib_after);
	out_i64(out, killed->shmem_kib_after);
	out_i64(out, killed->free_pages_before);
	out_i64(out, killed->free_pages_after_reap);
	out_i64(out, killed->free_pages_after_exit);
	out_i64(out, killed->back_allocatable_ns);
	out_u32(out, killed->group_members);
	out_u32(out, killed->group_lost);
}

void out_failsafe(struct out *out, const struct wire_failsafe *failsafe, const struct wire_failsafe_kill *kills,
		  uint32_t kill_count)
{
	out_u8(out, failsafe->reason);
	out_u8(out, failsafe->mode);
	out_i64(out, failsafe->silent_since_ns);
	out_i64(out, failsafe->entered_ns);
	out_i64(out, failsafe->left_ns);
	out_u32(out, failsafe->packets_handled);
	out_u32(out, failsafe->packets_lost);
	out_u8(out, failsafe->handed_back);
	out_i32(out, failsafe->handback_error);
	out_u32(out, failsafe->reregistered);
	out_u32(out, failsafe->kills_lost);
	out_u32(out, kill_count);
	for (uint32_t i = 0; i < kill_count; i++) {
		out_i64(out, kills[i].signal_ns);
		out_i32(out, kills[i].pid);
		out_i32(out, kills[i].uid);
		out_i32(out, kills[i].oom_score_adj);
		out_i32(out, kills[i].error);
		out_i64(out, kills[i].rss_kib);
		out_u8(out, kills[i].method);
		out_i32(out, kills[i].reap_error);
		out_i64(out, kills[i].exit_ns);
		out_text(out, kills[i].name);
	}
}

void out_heartbeat(struct out *out, const struct wire_heartbeat *heartbeat)
{
	out_i64(out, heartbeat->t_ns);
	out_u32(out, heartbeat->registered);
	out_u32(out, heartbeat->kills);
	out_u32(out, heartbeat->messages_dropped);
	out_u32(out, heartbeat->worker_starts);
	out_i32(out, heartbeat->guardian_pid);
	out_u8(out, heartbeat->failsafe_active);
}

void out_control(struct out *out, const struct wire_control *control)
{
	out_u32(out, control->connection);
	out_u32(out, control->flags);
	out_i32(out, control->pid);
	out_i32(out, control->uid);
	out_i32(out, control->gid);
	out_i64(out, control->t_ns);
	out_u32(out, control->length);
}

void out_control_connection(struct out *out, const struct wire_control *peer, uint8_t event)
{
	out_u32(out, peer->connection);
	out_u8(out, event);
	out_i32(out, peer->pid);
	out_i32(out, peer->uid);
	out_i32(out, peer->gid);
	out_i64(out, peer->t_ns);
}

void out_file_text(struct out *out, uint16_t file, uint8_t op, int error, int64_t read_ns, const void *data,
		   size_t size)
{
	out_u16(out, file);
	out_u8(out, op);
	out_i32(out, error);
	out_i64(out, read_ns);
	out_blob(out, data, size);
}

void out_pid_text(struct out *out, uint8_t field, uint8_t op, int error, const void *data, size_t size)
{
	out_u8(out, field);
	out_u8(out, op);
	out_i32(out, error);
	out_blob(out, data, size);
}

void out_pid_entry(struct out *out, const struct wire_row *row)
{
	out_i32(out, row->pid);
	out_u32(out, row->handle);
	out_u64(out, row->start_ticks);
	out_i32(out, row->uid);
	out_i32(out, row->oom_score_adj);
}

void out_row(struct out *out, const struct wire_row *row, const char *name)
{
	out_pid_entry(out, row);
	out_u64(out, row->order);
	out_i32(out, row->owner_pid);
	out_u8(out, row->type);
	out_i64(out, row->rss_pages);
	out_text(out, name);
}

void out_error(struct out *out, int error, uint16_t request_type, const char *text)
{
	out_i32(out, error);
	out_u16(out, request_type);
	out_text(out, text);
}
