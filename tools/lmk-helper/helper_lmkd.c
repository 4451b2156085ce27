/* SPDX-License-Identifier: Apache-2.0
 *
 * /dev/socket/lmkd. While a host controls, packets go to it and the helper only keeps its own table (pidfds are
 * opened here, early). While none does, the helper obeys the packets itself and keeps them for the host's return.
 */
#include "helper.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS 16
#define BACKLOG 3
#define AID_SYSTEM 1000
#define REPLY_MAX 4096

struct client {
	int fd;
	struct wire_control peer;	/* connection id, SO_PEERCRED */
	int32_t last_pid;		/* who sent last: owner of what it registers */
};

static struct client clients[CLIENTS];
static uint32_t next_connection;

void lmkd_init(void)
{
	for (size_t i = 0; i < CLIENTS; i++)
		clients[i].fd = -1;
	if (lmkd_listen_fd >= 0)
		loop_add(lmkd_listen_fd, EPOLLIN, SRC_LMKD_LISTEN, 0);
}

static int bind_socket(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int one = 1, error = 0;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(address.sun_path)) {
		close(fd);
		return -ENAMETOOLONG;
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	unlink(path);	/* what a stopped lmkd left */
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)) < 0 || chmod(path, 0660) < 0 ||
	    listen(fd, BACKLOG) < 0)
		error = -errno;
	if (error != 0) {
		close(fd);
		return error;
	}
	/* As init would; an ordinary user (host tests) may not. */
	(void)!chown(path, AID_SYSTEM, AID_SYSTEM);
	return fd;
}

int lmkd_serve(void)
{
	char path[PATH_BYTES];
	int fd, error;

	if (lmkd_listen_fd >= 0)
		return 0;
	error = root_path(path, options.lmkd_socket);
	fd = error ? error : bind_socket(path);
	if (fd < 0)
		return fd;
	error = loop_add(fd, EPOLLIN, SRC_LMKD_LISTEN, 0);
	if (error != 0) {
		close(fd);
		return error;
	}
	lmkd_listen_fd = fd;
	return 0;
}

static void hang_up(struct client *client, bool tell)
{
	struct out *out;

	if (client->fd < 0)
		return;
	loop_remove(client->fd);
	close(client->fd);
	client->fd = -1;
	/* What the client registered stays, unclaimed. */
	if (client->last_pid)
		table_disown(client->last_pid);
	out = tell ? host_begin(MSG_CONTROL_CONNECTION, 0) : NULL;
	if (out) {
		client->peer.t_ns = lmk_now_ns();
		out_control_connection(out, &client->peer, CONTROL_HANGUP);
		host_end(true);
	}
}

void lmkd_unserve(void)
{
	char path[PATH_BYTES];

	for (size_t i = 0; i < CLIENTS; i++)
		hang_up(&clients[i], true);
	if (lmkd_listen_fd < 0)
		return;
	loop_remove(lmkd_listen_fd);
	close(lmkd_listen_fd);
	lmkd_listen_fd = -1;
	if (root_path(path, options.lmkd_socket) == 0)
		unlink(path);
}

static void announce(struct client *client)
{
	struct out *out = host_begin(MSG_CONTROL_CONNECTION, 0);

	if (!out)
		return;
	out_control_connection(out, &client->peer, CONTROL_CONNECT);
	host_end(true);
}

void lmkd_announce(void)
{
	for (size_t i = 0; i < CLIENTS; i++)
		if (clients[i].fd >= 0)
			announce(&clients[i]);
}

void lmkd_accept(void)
{
	struct client *client = NULL;
	struct ucred peer = { 0 };
	socklen_t size = sizeof(peer);
	int one = 1;
	int fd = accept4(lmkd_listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	for (size_t i = 0; !client && i < CLIENTS; i++)
		if (clients[i].fd < 0)
			client = &clients[i];
	if (!client || loop_add(fd, EPOLLIN, SRC_LMKD, (uint32_t)(client - clients)) != 0) {
		close(fd);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof(one));
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
	*client = (struct client){ .fd = fd };
	client->peer = (struct wire_control){ .connection = ++next_connection, .pid = (int32_t)peer.pid,
					      .uid = (int32_t)peer.uid, .gid = (int32_t)peer.gid,
					      .t_ns = lmk_now_ns() };
	announce(client);
}

/* --- what the packets mean ------------------------------------------------------------------------------------ */

/* Calls for each process of a PROCPRIO or PROCS_PRIO that is well formed. */
static void each_process(const uint8_t *packet, size_t size, int32_t owner,
			 void (*action)(const struct lmk_procprio *process, int32_t owner, void *context),
			 void *context)
{
	size_t ints = size / 4, count, stride;
	uint32_t command = ints ? lmk_get_be32(packet) : UINT32_MAX;

	if (command == LMK_PROCPRIO && (ints == 4 || ints == 5)) {
		count = 1;
		stride = ints - 1;
	} else if (command == LMK_PROCS_PRIO && ints > 1 && (ints - 1) % 4 == 0) {
		count = (ints - 1) / 4;
		stride = 4;
	} else {
		return;
	}
	for (size_t i = 0; i < count; i++) {
		const uint8_t *at = packet + 4 + 4 * stride * i;
		struct lmk_procprio process = {
			.pid = (int32_t)lmk_get_be32(at), .uid = (int32_t)lmk_get_be32(at + 4),
			.oom_score_adj = (int32_t)lmk_get_be32(at + 8),
			.type = stride > 3 ? (int32_t)lmk_get_be32(at + 12) : LMK_PROC_TYPE_APP,
		};

		action(&process, owner, context);
	}
}

static bool valid(const struct lmk_procprio *wanted)
{
	return wanted->pid > 0 && wanted->oom_score_adj >= -1000 && wanted->oom_score_adj <= 1000 &&
	       wanted->type >= LMK_PROC_TYPE_APP && wanted->type <= LMK_PROC_TYPE_SERVICE;
}

static int keep(const struct lmk_procprio *wanted, int32_t owner, struct process **ret_process)
{
	if (!valid(wanted))
		return -EINVAL;
	return table_register(wanted->pid, wanted->uid, wanted->oom_score_adj, (uint8_t)wanted->type, owner, 0,
			      ret_process);
}

struct attachment {
	struct out *out;
	uint32_t count;
};

/* lmkd's order: the file gets the adj as sent, unless the status says that the pid is a thread. */
static int write_adj(const struct lmk_procprio *wanted, bool readable, uint8_t *ret_op)
{
	int64_t tgid;

	*ret_op = OP_NOT_TRIED;
	if (!(shared->settings.flags & WANT_WRITE_ADJ))
		return 0;
	*ret_op = OP_REFUSED;
	if (!valid(wanted) || (readable && lmk_find_number(scratch, "Tgid:", &tgid) == 0 && tgid != wanted->pid))
		return -EINVAL;
	return proc_write_adj(wanted->pid, wanted->oom_score_adj, ret_op);
}

/* What is known of one process that a packet names, so that the host need not ask. `length` bytes of its status file
 * are in `scratch`; negative: errno of reading it. */
static void attach(struct attachment *attachment, int32_t pid, const struct process *process, int error, uint8_t op,
		   ssize_t length)
{
	struct out *out = attachment->out;

	out_i32(out, pid);
	out_i32(out, -error);
	out_u32(out, process ? process->handle : 0);
	out_u64(out, process ? process->start_ticks : 0);
	out_u8(out, op);
	out_i32(out, length < 0 ? (int)-length : 0);
	out_blob(out, scratch, length < 0 ? 0 : (size_t)length);
	attachment->count++;
}

static void attach_adj(struct attachment *attachment, uint8_t op, int error)
{
	out_u8(attachment->out, op);
	out_i32(attachment->out, -error);
}

/* Everything lmkd would do for a registration. */
static void carry_out(const struct lmk_procprio *wanted, int32_t owner, void *context)
{
	struct process *process = NULL;
	uint8_t op, adj_op;
	ssize_t length = proc_read_pid(wanted->pid, "status", scratch, 8192, &op);
	int adj_error = write_adj(wanted, length >= 0, &adj_op);
	int error = keep(wanted, owner, &process);

	attach(context, wanted->pid, process, error, op, length);
	attach_adj(context, adj_op, adj_error);
}

/* It was carried out when it came: to do it again would undo what has come since. Without the status file, which only
 * says whether the pid is a thread (then it is not in the table): thousands of packets may have to fit into the output. */
static void look_up(const struct lmk_procprio *wanted, int32_t owner, void *context)
{
	const struct process *process = table_find(wanted->pid);

	(void)owner;
	attach(context, wanted->pid, process, process ? 0 : -ESRCH, OP_NOT_TRIED, 0);
	attach_adj(context, OP_NOT_TRIED, 0);
}

static void obey(const struct lmk_procprio *wanted, int32_t owner, void *context)
{
	struct process *process = NULL;
	uint8_t op;

	(void)context;
	if (keep(wanted, owner, &process) != -EINVAL)
		proc_write_adj(wanted->pid, wanted->oom_score_adj, &op);
}

static void note_removals(const uint8_t *packet, size_t size, int32_t sender)
{
	uint32_t command = size >= 4 ? lmk_get_be32(packet) : UINT32_MAX;
	struct process *process;

	if (command == LMK_PROCREMOVE && size / 4 == 2) {
		process = table_find((int32_t)lmk_get_be32(packet + 4));
		if (process && (process->owner_pid == 0 || process->owner_pid == sender))
			table_remove(process);
	} else if (command == LMK_PROCPURGE && size / 4 == 1) {
		for (uint32_t i = 0; i < shared->table_high; i++) {
			process = &shared->table[i];
			if (process->used && (process->owner_pid == 0 || process->owner_pid == sender))
				table_remove(process);
		}
	}
}

/* --- without a host --------------------------------------------------------------------------------------------- */

static void answer(struct client *client, uint32_t command, int32_t value)
{
	int32_t values[] = { (int32_t)command, value };
	uint8_t packet[8];

	(void)!send(client->fd, packet, lmk_pack_ints(packet, values, 2), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int32_t count_kills(int32_t adj_min, int32_t adj_max)
{
	int32_t count = 0;

	for (uint32_t i = 0; i < shared->failsafe_kill_count; i++) {
		const struct wire_failsafe_kill *kill = &shared->failsafe_kills[i];

		count += kill->error == 0 && kill->oom_score_adj >= adj_min && kill->oom_score_adj <= adj_max;
	}
	return count;
}

/* Only commands that expect an answer; kills are not announced to subscribers from here. */
static void answer_alone(struct client *client, const uint8_t *packet, size_t size)
{
	uint32_t command = size >= 4 ? lmk_get_be32(packet) : UINT32_MAX;

	if (command == LMK_GETKILLCNT && size / 4 == 3)
		answer(client, command, count_kills((int32_t)lmk_get_be32(packet + 4),
						    (int32_t)lmk_get_be32(packet + 8)));
	else if (command == LMK_UPDATE_PROPS && size / 4 == 1)
		answer(client, command, 0);
	else if (command == LMK_BOOT_COMPLETED && size / 4 == 1)
		answer(client, command, 1);
}

static void keep_for_host(const struct wire_control *control, const uint8_t *packet, size_t size)
{
	struct logged_packet *kept;

	shared->failsafe.packets_handled++;
	if (shared->packet_count == PACKET_LOG_MAX) {
		shared->failsafe.packets_lost++;
		return;
	}
	kept = &shared->packets[shared->packet_count];
	kept->control = *control;
	kept->control.flags |= CONTROL_HANDLED;
	kept->size = (uint8_t)size;
	memcpy(kept->bytes, packet, size);
	shared->packet_count++;
}

static void handle_alone(struct client *client, const struct wire_control *control, const uint8_t *packet,
			 size_t size)
{
	each_process(packet, size, control->pid, obey, NULL);
	note_removals(packet, size, control->pid);
	answer_alone(client, packet, size);
	keep_for_host(control, packet, size);
}

static bool tell(const struct wire_control *control, const uint8_t *packet, size_t size,
		 void (*action)(const struct lmk_procprio *process, int32_t owner, void *context))
{
	struct attachment attachment = { .out = host_begin(MSG_CONTROL, 0) };
	size_t place;

	if (!attachment.out)
		return false;
	out_control(attachment.out, control);
	out_blob(attachment.out, packet, size);
	place = out_list_begin(attachment.out);
	each_process(packet, size, control->pid, action, &attachment);
	out_list_end(attachment.out, place, attachment.count);
	host_end(true);
	return true;
}

void lmkd_replay_handled(void)
{
	for (uint32_t i = 0; i < shared->packet_count; i++) {
		const struct logged_packet *kept = &shared->packets[i];

		if (!tell(&kept->control, kept->bytes, kept->size, look_up))
			return;
	}
	shared->packet_count = 0;
}

/* --- with a host ------------------------------------------------------------------------------------------------ */

static void forward(const struct wire_control *control, const uint8_t *packet, size_t size)
{
	if (tell(control, packet, size, carry_out))
		note_removals(packet, size, control->pid);
}

/* The kernel puts credentials first, and there is room for nothing else. */
static struct ucred *credentials(struct msghdr *message)
{
	struct cmsghdr *first = CMSG_FIRSTHDR(message);

	if (!first || first->cmsg_level != SOL_SOCKET || first->cmsg_type != SCM_CREDENTIALS)
		return NULL;
	return (struct ucred *)(void *)CMSG_DATA(first);
}

void lmkd_readable(uint32_t index, uint32_t events)
{
	struct client *client = &clients[index];
	uint8_t packet[LMK_PACKET_MAX];
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(struct ucred))];
	struct iovec part = { packet, sizeof(packet) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = space,
				  .msg_controllen = sizeof(space) };
	struct wire_control control = client->peer;
	struct ucred *sender;
	ssize_t got;
	size_t size;

	if (client->fd < 0)
		return;
	got = recvmsg(client->fd, &message, MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		hang_up(client, true);
		return;
	}
	size = (size_t)got < sizeof(packet) ? (size_t)got : sizeof(packet);
	sender = credentials(&message);
	control.t_ns = loop_wake_ns();
	control.length = (uint32_t)got;
	control.flags = events & EPOLLHUP ? CONTROL_HANGUP_PENDING : 0;
	if (sender) {
		control.flags |= CONTROL_CREDENTIALS;
		control.pid = (int32_t)sender->pid;
		control.uid = (int32_t)sender->uid;
		control.gid = (int32_t)sender->gid;
		client->last_pid = control.pid;
	}
	if (host_controls())
		forward(&control, packet, size);
	else
		handle_alone(client, &control, packet, size);
}

static struct client *find_client(uint32_t connection)
{
	for (size_t i = 0; i < CLIENTS; i++)
		if (clients[i].fd >= 0 && clients[i].peer.connection == connection)
			return &clients[i];
	return NULL;
}

int lmkd_reply(uint32_t connection, const void *data, size_t size)
{
	struct client *client = find_client(connection);
	ssize_t put;

	if (!client)
		return -ENOTCONN;
	if (size == 0 || size > REPLY_MAX)
		return -EINVAL;
	put = send(client->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	return put < 0 ? -errno : 0;
}

int lmkd_close(uint32_t connection)
{
	struct client *client = find_client(connection);

	if (!client)
		return -ENOTCONN;
	hang_up(client, false);
	return 0;
}
