/* SPDX-License-Identifier: Apache-2.0
 *
 * A stand-in for the stock lmkd, for tests of taking its place and giving it back: it owns /dev/socket/lmkd,
 * accepts lmkd's packets, sets oom_score_adj as lmkd does, and keeps its list of registered processes in
 * /dev/__lmkd_standin, one "PID UID ADJ" per line. It kills only where lmk.standin_kill_adj is set.
 */
#include "guest.h"
#include "standin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET_PATH "/dev/socket/lmkd"
#define LIST_PATH "/dev/__lmkd_standin"
#define CLIENTS_MAX 3 /* as many as lmkd accepts */
#define PROCESSES_MAX 4096
#define INTS_MAX 13

enum { PROCPRIO = 1, PROCREMOVE = 2, PROCPURGE = 3, GETKILLCNT = 4, UPDATE_PROPS = 7, BOOT_COMPLETED = 10,
       PROCS_PRIO = 11 };

static struct standin_process entries[PROCESSES_MAX];
static size_t entry_count;

static void save_list(void)
{
	FILE *file = fopen(LIST_PATH ".new", "we");

	if (!file)
		return;
	for (size_t i = 0; i < entry_count; i++)
		fprintf(file, "%d %d %d\n", entries[i].pid, entries[i].uid, entries[i].adj);
	fclose(file);
	rename(LIST_PATH ".new", LIST_PATH);
}

static void forget(int32_t pid)
{
	for (size_t i = 0; i < entry_count; i++)
		if (entries[i].pid == pid) {
			entries[i] = entries[--entry_count];
			return;
		}
}

static void remember(const int32_t *record)
{
	char path[64];

	if (record[0] <= 0 || record[2] < -1000 || record[2] > 1000 || entry_count == PROCESSES_MAX)
		return;
	snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", record[0]);
	write_format(path, "%d", record[2]);
	forget(record[0]);
	entries[entry_count++] = (struct standin_process){ record[0], record[1], record[2] };
}

static void answer(int fd, int32_t command, int32_t value)
{
	uint32_t packet[2] = { htonl((uint32_t)command), htonl((uint32_t)value) };

	send(fd, packet, sizeof(packet), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void handle(int fd, const int32_t *values, size_t count)
{
	switch (values[0]) {
	case PROCPRIO:
		if (count == 4 || count == 5)
			remember(values + 1);
		break;
	case PROCS_PRIO:
		for (size_t i = 1; i + 4 <= count; i += 4)
			remember(values + i);
		break;
	case PROCREMOVE:
		if (count == 2)
			forget(values[1]);
		break;
	case PROCPURGE:
		entry_count = 0;
		break;
	case GETKILLCNT:
	case UPDATE_PROPS:
	case BOOT_COMPLETED:
		answer(fd, values[0], 0);
		return;
	default:
		return;
	}
	save_list();
}

/* False when the client is gone. */
static bool serve_client(int fd)
{
	int32_t values[INTS_MAX];
	ssize_t length = recv(fd, values, sizeof(values), 0);
	size_t count;

	if (length <= 0)
		return false;
	count = (size_t)length / sizeof(values[0]);
	for (size_t i = 0; i < count; i++)
		values[i] = (int32_t)ntohl((uint32_t)values[i]);
	if (count)
		handle(fd, values, count);
	return true;
}

static int open_socket(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SOCKET_PATH };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	unlink(SOCKET_PATH);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, CLIENTS_MAX) != 0)
		return -errno;
	chmod(SOCKET_PATH, 0660);
	return fd;
}

static void accept_client(struct pollfd *waiting)
{
	int fd = accept4(waiting[0].fd, NULL, NULL, SOCK_CLOEXEC);

	for (size_t i = 1; i <= CLIENTS_MAX; i++)
		if (waiting[i].fd < 0) {
			waiting[i].fd = fd;
			return;
		}
	close(fd);
}

int standin_lmkd_main(int argc, char **argv)
{
	struct pollfd waiting[2 + CLIENTS_MAX];
	struct pollfd *pressure = &waiting[1 + CLIENTS_MAX];

	if (argc > 1 && strcmp(argv[1], "--reinit") == 0)
		return 0;
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < ARRAY_LEN(waiting); i++)
		waiting[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	waiting[0].fd = open_socket();
	if (waiting[0].fd < 0) {
		fprintf(stderr, "lmkd: %s: %s\n", SOCKET_PATH, strerror(-waiting[0].fd));
		return 1;
	}
	*pressure = (struct pollfd){ .fd = standin_kill_open(), .events = POLLPRI };
	if (pressure->fd < 0 && pressure->fd != -ENOENT)
		log_append("main", 'E', "lowmemorykiller", "no pressure trigger: nobody will be killed");
	save_list();
	log_append("main", 'I', "lowmemorykiller", "stand-in for the stock lmkd started");
	for (;;) {
		if (poll(waiting, ARRAY_LEN(waiting), -1) < 0)
			continue;
		for (size_t i = 1; i <= CLIENTS_MAX; i++)
			if (waiting[i].fd >= 0 && waiting[i].revents && !serve_client(waiting[i].fd)) {
				close(waiting[i].fd);
				waiting[i].fd = -1;
			}
		if (waiting[0].revents)
			accept_client(waiting);
		if (pressure->fd >= 0 && pressure->revents)
			forget(standin_kill_one(entries, entry_count));
	}
}
