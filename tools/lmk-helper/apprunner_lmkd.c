/* SPDX-License-Identifier: Apache-2.0 */
#include "apprunner_lmkd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "apprunner_events.h"
#include "common.h"

/* LmkdConnection.LMKD_RECONNECT_DELAY_MS. */
#define RETRY_NS NS_PER_S
/* STAT_KILL_OCCURRED is the longest notification. */
#define NOTIFICATION_MAX 256

void lmkd_init(struct lmkd_client *client, const char *path)
{
	memset(client, 0, sizeof(*client));
	client->path = path;
	client->fd = -1;
}

static void disconnect(struct lmkd_client *client)
{
	close(client->fd);
	client->fd = -1;
	client->retry_ns = lmk_now_ns() + RETRY_NS;
	events_add("lmkd_lost", NULL);
}

static int send_packet(struct lmkd_client *client, const uint8_t *packet, size_t size)
{
	ssize_t sent;

	if (client->fd < 0)
		return -ENOTCONN;
	sent = send(client->fd, packet, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent == (ssize_t)size) {
		client->sent++;
		return 0;
	}
	if (sent < 0 && errno == EAGAIN)
		return -EAGAIN;
	disconnect(client);
	return -EPIPE;
}

/* Non-blocking: a daemon that is stopped with a full backlog must not stop us too. */
static int connect_now(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, error;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	error = -errno;
	close(fd);
	return error;
}

int lmkd_poll(struct lmkd_client *client, int64_t now_ns)
{
	uint8_t packet[LMK_PACKET_MAX];
	int fd;

	if (client->fd >= 0 || now_ns < client->retry_ns || !client->path)
		return 0;
	fd = connect_now(client->path);
	if (fd < 0) {
		if (!client->refused)
			events_add("lmkd_absent", "\"errno\":%d", -fd);
		client->refused = 1;
		client->retry_ns = now_ns + RETRY_NS;
		return 0;
	}
	client->fd = fd;
	client->refused = 0;
	events_add("lmkd_connected", NULL);
	/* The order of LmkdConnection's onConnect. */
	send_packet(client, packet, lmk_pack_procpurge(packet));
	if (client->minfree_count > 0)
		send_packet(client, packet, lmk_pack_target(packet, (const int32_t(*)[2])client->minfree,
							    (size_t)client->minfree_count));
	send_packet(client, packet, lmk_pack_subscribe(packet, 0));
	send_packet(client, packet, lmk_pack_subscribe(packet, 1));
	return client->fd >= 0;
}

int lmkd_register(struct lmkd_client *client, pid_t pid, uid_t uid, int adj)
{
	uint8_t packet[LMK_PACKET_MAX];
	struct lmk_procprio process = { .pid = pid, .uid = (int32_t)uid, .oom_score_adj = adj };

	return send_packet(client, packet, lmk_pack_procprio(packet, &process, client->with_type));
}

int lmkd_remove(struct lmkd_client *client, pid_t pid)
{
	uint8_t packet[LMK_PACKET_MAX];

	return send_packet(client, packet, lmk_pack_procremove(packet, pid));
}

static void notified(const uint8_t *packet, ssize_t size)
{
	uint32_t command = size >= 4 ? lmk_get_be32(packet) : UINT32_MAX;

	/* "6, pid, uid", with the rss in KiB since 15Q1. */
	if (command == LMK_PROCKILL && size == 12)
		events_add("lmkd_kill", "\"pid\":%d,\"uid\":%d,\"rss_kib\":null", (int)lmk_get_be32(packet + 4),
			   (int)lmk_get_be32(packet + 8));
	else if (command == LMK_PROCKILL && size >= 16)
		events_add("lmkd_kill", "\"pid\":%d,\"uid\":%d,\"rss_kib\":%d", (int)lmk_get_be32(packet + 4),
			   (int)lmk_get_be32(packet + 8), (int)lmk_get_be32(packet + 12));
	else if (command == LMK_STAT_KILL_OCCURRED && size >= 84)
		events_add("lmkd_kill_statistics", "\"uid\":%d,\"adj\":%d,\"min_adj\":%d,\"reason\":%d",
			   (int)lmk_get_be32(packet + 52), (int)lmk_get_be32(packet + 56),
			   (int)lmk_get_be32(packet + 60), (int)lmk_get_be32(packet + 72));
}

int lmkd_read(struct lmkd_client *client)
{
	uint8_t packet[NOTIFICATION_MAX];

	while (client->fd >= 0) {
		ssize_t got = recv(client->fd, packet, sizeof(packet), MSG_DONTWAIT);

		if (got > 0) {
			notified(packet, got);
		} else if (got < 0 && errno == EINTR) {
			continue;
		} else if (got < 0 && errno == EAGAIN) {
			return 0;
		} else {
			disconnect(client);
			return -EPIPE;
		}
	}
	return 0;
}

static size_t encode_line(char *line, uint8_t *packet)
{
	int32_t numbers[12];
	int32_t pairs[LMK_TARGETS_MAX][2];
	size_t count = 0;
	char *save, *word = strtok_r(line, " \n", &save), *number;

	while (word && (number = strtok_r(NULL, " \n", &save)) && count < LMK_ARRAY_LEN(numbers))
		numbers[count++] = (int32_t)strtol(number, NULL, 10);
	if (!word)
		return 0;
	if (!strcmp(word, "procprio") && count == 3)
		return lmk_pack_procprio(packet, &(struct lmk_procprio){ numbers[0], numbers[1], numbers[2], 0 }, 0);
	if (!strcmp(word, "procremove") && count == 1)
		return lmk_pack_procremove(packet, numbers[0]);
	if (!strcmp(word, "procpurge"))
		return lmk_pack_procpurge(packet);
	if (!strcmp(word, "subscribe") && count == 1)
		return lmk_pack_subscribe(packet, numbers[0]);
	if (!strcmp(word, "target") && count % 2 == 0) {
		for (size_t i = 0; i < count; i++)
			pairs[i / 2][i % 2] = numbers[i];
		return lmk_pack_target(packet, (const int32_t(*)[2])pairs, count / 2);
	}
	return 0;
}

int lmkd_encode_selftest(void)
{
	char line[256];
	uint8_t packet[LMK_PACKET_MAX];

	while (fgets(line, sizeof(line), stdin)) {
		size_t size = encode_line(line, packet);

		for (size_t i = 0; i < size; i++)
			printf("%02x", packet[i]);
		printf("\n");
	}
	return 0;
}
