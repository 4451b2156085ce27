/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections from hosts: who may connect, who controls, frames in, frames out. Nothing here ever waits for a host.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HOSTS 4
#define AUTH_WAIT_NS (5 * NS_PER_S)
#define AUTH_BYTES_MAX 512
#define OUT_BYTES (2 * 1024 * 1024)
#define SHELL_UID 2000
/* Before Settings tell, this much silence lets a new host take over. */
#define SILENCE_DEFAULT_MS 3000

struct host {
	int fd;
	bool authenticated;
	int64_t since_ns, heard_ns, received_ns;
	size_t in_used;
	bool watching_out;
	uint8_t in[WIRE_HEADER + WIRE_REQUEST_MAX];
};

static struct host hosts[HOSTS];
static struct host *controller;

/* Only the controlling host is sent much; the others get one short frame. */
static uint8_t out_buffer[OUT_BYTES];
static size_t out_sent;
static struct out out = { .data = out_buffer, .size = sizeof(out_buffer) };
static size_t frame_start;
static uint16_t frame_type;
static uint32_t frame_id;

int host_init(void)
{
	for (size_t i = 0; i < HOSTS; i++)
		hosts[i].fd = -1;
	controller = NULL;
	out.used = out_sent = 0;
	/* Fault in what a kill's answer needs, so that it never waits for memory. */
	memset(out_buffer, 0, 64 * 1024);
	return loop_add(host_listen_fd, EPOLLIN, SRC_HOST_LISTEN, 0);
}

static int64_t silence_ns(void)
{
	uint32_t ms = shared->have_settings ? shared->settings.failsafe_ms : 0;

	return (int64_t)(ms ? ms : SILENCE_DEFAULT_MS) * NS_PER_MS;
}

bool host_connected(void)
{
	return controller != NULL;
}

bool host_controls(void)
{
	return controller && lmk_now_ns() - controller->heard_ns <= silence_ns();
}

int64_t host_last_heard_ns(void)
{
	return controller ? controller->heard_ns : 0;
}

static void drop(struct host *host)
{
	if (host->fd < 0)
		return;
	loop_remove(host->fd);
	close(host->fd);
	host->fd = -1;
	if (host != controller)
		return;
	controller = NULL;
	out.used = out_sent = 0;
	request_forget();
	failsafe_host_gone();
}

void host_close_all(void)
{
	for (size_t i = 0; i < HOSTS; i++)
		drop(&hosts[i]);
}

/* Sends what the socket takes and asks for EPOLLOUT while something is left. */
static void flush_out(void)
{
	struct host *host = controller;
	bool wait;

	while (host && out_sent < out.used) {
		ssize_t put = send(host->fd, out.data + out_sent, out.used - out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0 && errno != EAGAIN) {
			drop(host);
			return;
		}
		if (put < 0)
			break;
		out_sent += (size_t)put;
	}
	if (!host)
		return;
	if (out_sent == out.used) {
		out.used = out_sent = 0;
	} else if (out_sent > OUT_BYTES / 2) {
		memmove(out.data, out.data + out_sent, out.used - out_sent);
		out.used -= out_sent;
		out_sent = 0;
	}
	wait = out_sent < out.used;
	if (wait != host->watching_out &&
	    loop_modify(host->fd, wait ? EPOLLIN | EPOLLOUT : EPOLLIN, SRC_HOST, (uint32_t)(host - hosts)) == 0)
		host->watching_out = wait;
}

struct out *host_begin(uint16_t type, uint32_t id)
{
	if (!controller)
		return NULL;
	frame_start = out_frame_begin(&out, type, id);
	frame_type = type;
	frame_id = id;
	return &out;
}

void host_end(bool must)
{
	if (out_frame_end(&out, frame_start) == 0) {
		flush_out();
		return;
	}
	if (!must) {
		shared->messages_dropped++;
		return;
	}
	/* With the buffer nearly empty it is the answer that is too long, not the host too slow. */
	if (frame_type != MSG_ERROR && out.used - out_sent < OUT_BYTES / 4) {
		host_send_error(frame_id, EMSGSIZE, frame_type, "the answer is too long");
		return;
	}
	say('W', "host takes its answers too slowly, hanging up");
	drop(controller);
}

void host_abort(void)
{
	out.used = frame_start;
	out.overflow = false;
}

void host_send_error(uint32_t id, int error, uint16_t request_type, const char *text)
{
	if (host_begin(MSG_ERROR, id)) {
		out_error(&out, error, request_type, text);
		host_end(true);
	}
}

void host_send_done(uint32_t id, uint8_t op, int error)
{
	if (id != 0 && host_begin(MSG_DONE, id)) {
		out_u8(&out, op);
		out_i32(&out, error);
		host_end(true);
	}
}

/* To a connection that does not control (yet): one frame and the end. */
static void refuse(struct host *host, int error, const char *text)
{
	uint8_t bytes[256];
	struct out frame = { .data = bytes, .size = sizeof(bytes) };
	size_t start = out_frame_begin(&frame, MSG_ERROR, 0);

	out_error(&frame, error, REQ_AUTH, text);
	if (out_frame_end(&frame, start) == 0)
		(void)!send(host->fd, bytes, frame.used, MSG_NOSIGNAL | MSG_DONTWAIT);
	drop(host);
}

void host_accept(void)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);
	struct host *host = NULL;
	int fd = accept4(host_listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	for (size_t i = 0; !host && i < HOSTS; i++)
		if (hosts[i].fd < 0)
			host = &hosts[i];
	if (!host || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
	    (peer.uid != 0 && peer.uid != SHELL_UID && peer.uid != geteuid()) ||
	    loop_add(fd, EPOLLIN, SRC_HOST, (uint32_t)(host - hosts)) != 0) {
		close(fd);
		return;
	}
	host->fd = fd;
	host->authenticated = host->watching_out = false;
	host->in_used = 0;
	host->since_ns = host->heard_ns = lmk_now_ns();
}

static bool same_token(const char *given)
{
	size_t size = strlen(options.token);
	unsigned char difference = strlen(given) != size;

	/* Every byte is compared, so that the time taken tells nothing. */
	for (size_t i = 0; i < size && strlen(given) == size; i++)
		difference |= (unsigned char)(given[i] ^ options.token[i]);
	return difference == 0;
}

static void authenticate(struct host *host, uint16_t type, uint32_t id, struct in *in)
{
	char token[sizeof(options.token)];
	uint32_t magic = in_u32(in);
	uint16_t version = in_u16(in);

	in_text(in, token, sizeof(token));
	if (type != REQ_AUTH || in->bad || magic != WIRE_MAGIC) {
		refuse(host, EPROTO, "the first message must be Auth");
	} else if (version != WIRE_VERSION) {
		refuse(host, EPROTONOSUPPORT, "another protocol version");
	} else if (!same_token(token)) {
		refuse(host, EACCES, "wrong token");
	} else if (controller && host_controls()) {
		refuse(host, EBUSY, "another host controls this helper");
	} else {
		if (controller)
			drop(controller);
		controller = host;
		host->authenticated = true;
		host->heard_ns = lmk_now_ns();
		request_hello(id);
		failsafe_host_heard();
		lmkd_announce();
	}
}

static uint32_t peek32(const uint8_t *at)
{
	struct in in = { .at = at, .left = 4 };

	return in_u32(&in);
}

/* The next whole frame at `at`, its size in bytes; 0: not there yet, -1: not this protocol. */
static ssize_t frame_at(const struct host *host, size_t at, uint16_t *ret_type, uint32_t *ret_id, struct in *ret_in)
{
	const uint8_t *header = host->in + at;
	struct in in = { .at = header, .left = WIRE_HEADER };
	uint32_t length;
	uint16_t zero;

	if (host->in_used - at < WIRE_HEADER)
		return 0;
	length = in_u32(&in);
	*ret_type = in_u16(&in);
	zero = in_u16(&in);
	*ret_id = in_u32(&in);
	if (zero != 0 || length > (host->authenticated ? WIRE_REQUEST_MAX : AUTH_BYTES_MAX))
		return -1;
	if (host->in_used - at - WIRE_HEADER < length)
		return 0;
	*ret_in = (struct in){ .at = header + WIRE_HEADER, .left = length };
	return (ssize_t)(WIRE_HEADER + length);
}

/* Kills come before everything else that arrived with them. A frame that is done gets type 0. */
static void run_kills(struct host *host)
{
	size_t at = 0;
	uint16_t type;
	uint32_t id;
	struct in in;
	ssize_t size;

	while ((size = frame_at(host, at, &type, &id, &in)) > 0) {
		if (type == REQ_KILL) {
			request_kill(id, &in);
			if (host->fd < 0)
				return;
			host->in[at + 4] = 0;
		}
		at += (size_t)size;
	}
}

void host_readable(uint32_t index, uint32_t events)
{
	struct host *host = &hosts[index];
	ssize_t got;

	if (host->fd < 0)
		return;
	if (events & EPOLLOUT && host == controller)
		flush_out();
	if (host->fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	got = recv(host->fd, host->in + host->in_used, sizeof(host->in) - host->in_used, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		drop(host);
		return;
	}
	host->in_used += (size_t)got;
	host->received_ns = loop_wake_ns();
	if (!host->authenticated)
		return;
	host->heard_ns = lmk_now_ns();
	run_kills(host);
	if (host == controller && (shared->failsafe_active || shared->packet_count))
		failsafe_host_heard();
}

static void run_frames(struct host *host)
{
	size_t at = 0;
	uint16_t type;
	uint32_t id;
	struct in in;
	ssize_t size = 0;

	while (host->fd >= 0 && (size = frame_at(host, at, &type, &id, &in)) > 0) {
		at += (size_t)size;
		if (!host->authenticated)
			authenticate(host, type, id, &in);
		else if (type != 0)
			request_run(type, id, &in);
	}
	if (host->fd < 0)
		return;
	if (size < 0) {
		say('W', "a host sent bytes that are not the protocol (%08x)", peek32(host->in + at));
		refuse(host, EPROTO, "not a frame of the helper protocol");
		return;
	}
	memmove(host->in, host->in + at, host->in_used - at);
	host->in_used -= at;
}

void host_run_requests(void)
{
	for (size_t i = 0; i < HOSTS; i++)
		if (hosts[i].fd >= 0 && hosts[i].in_used)
			run_frames(&hosts[i]);
}

int64_t host_tick(int64_t now_ns)
{
	int64_t next_ns = INT64_MAX;

	for (size_t i = 0; i < HOSTS; i++) {
		if (hosts[i].fd < 0 || hosts[i].authenticated)
			continue;
		if (now_ns - hosts[i].since_ns > AUTH_WAIT_NS)
			refuse(&hosts[i], ETIMEDOUT, "no Auth within 5 s");
		else if (hosts[i].since_ns + AUTH_WAIT_NS < next_ns)
			next_ns = hosts[i].since_ns + AUTH_WAIT_NS;
	}
	return next_ns;
}
