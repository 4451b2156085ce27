/* SPDX-License-Identifier: Apache-2.0 */
#include "apprunner_events.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common.h"

#define RING_BYTES (1u << 20)
#define LINE_BYTES_MAX 1024u

static char ring[RING_BYTES];
/* Positions count bytes since the start and are taken modulo RING_BYTES. */
static uint64_t ring_begin, ring_end;
static uint64_t cursor;		/* next byte for the client */
static uint64_t line_begin;	/* start of the line the cursor is in */
static uint64_t next_seq;
static uint64_t dropped;
static int client = -1;

static uint64_t line_after(uint64_t at)
{
	while (at < ring_end && ring[at % RING_BYTES] != '\n')
		at++;
	return at < ring_end ? at + 1 : ring_end;
}

static void make_room(size_t bytes)
{
	while (ring_end - ring_begin + bytes > RING_BYTES) {
		ring_begin = line_after(ring_begin);
		dropped++;
	}
	if (line_begin < ring_begin) {
		/* A half-sent line cannot be completed any more; the newline keeps the next one readable. */
		line_begin = ring_begin;
		cursor = ring_begin;
	}
}

static void ring_put(const char *text, size_t bytes)
{
	make_room(bytes);
	for (size_t i = 0; i < bytes; i++)
		ring[ring_end++ % RING_BYTES] = text[i];
}

static void add(int64_t t_ns, const char *kind, const char *fields, va_list arguments)
{
	char line[LINE_BYTES_MAX];
	int used = snprintf(line, sizeof(line), "{\"seq\":%llu,\"t_ns\":%lld,\"kind\":\"%s\"%s",
			    (unsigned long long)next_seq++, (long long)t_ns, kind, fields ? "," : "");
	int more = fields ? vsnprintf(line + used, sizeof(line) - (size_t)used - 3, fields, arguments) : 0;

	if (more < 0 || (size_t)(used + more) >= sizeof(line) - 3)
		more = 0;	/* cannot happen with bounded names; a short line is better than a broken one */
	used += more;
	line[used++] = '}';
	line[used++] = '\n';
	ring_put(line, (size_t)used);
}

void events_add(const char *kind, const char *fields, ...)
{
	va_list arguments;

	va_start(arguments, fields);
	add(lmk_now_ns(), kind, fields, arguments);
	va_end(arguments);
}

void events_add_at(int64_t t_ns, const char *kind, const char *fields, ...)
{
	va_list arguments;

	va_start(arguments, fields);
	add(t_ns, kind, fields, arguments);
	va_end(arguments);
}

void events_set_client(int fd)
{
	client = fd;
	cursor = line_begin;
	if (fd >= 0 && dropped) {
		uint64_t lost = dropped;

		dropped = 0;
		events_add("dropped", "\"events\":%llu", (unsigned long long)lost);
	}
}

void events_rewind(uint64_t seq)
{
	for (uint64_t at = ring_begin; at < ring_end; at = line_after(at)) {
		char head[32];
		unsigned long long found;
		size_t bytes = 0;

		for (; bytes < sizeof(head) - 1 && at + bytes < ring_end; bytes++)
			head[bytes] = ring[(at + bytes) % RING_BYTES];
		head[bytes] = 0;
		if (sscanf(head, "{\"seq\":%llu", &found) == 1 && found >= seq) {
			line_begin = cursor = at;
			return;
		}
	}
	line_begin = cursor = ring_end;
}

int events_flush(void)
{
	while (client >= 0 && cursor < ring_end) {
		uint64_t at = cursor % RING_BYTES;
		uint64_t bytes = ring_end - cursor;
		ssize_t sent;

		if (bytes > RING_BYTES - at)
			bytes = RING_BYTES - at;
		sent = send(client, ring + at, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return errno == EAGAIN ? 1 : -errno;
		cursor += (uint64_t)sent;
		while (line_begin < cursor) {
			uint64_t next = line_after(line_begin);

			if (next > cursor)
				break;
			line_begin = next;
		}
	}
	return 0;
}
