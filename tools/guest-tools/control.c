/* SPDX-License-Identifier: Apache-2.0
 * The client side of init's control socket: start, stop. */
#include "guest.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_TIMEOUT_MS 5000
#define STOP_TIMEOUT_MS 5000

int init_request(const char *request)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t length = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(INIT_SOCKET);
	char answer[32] = "";
	struct pollfd waiting;
	int result = -EIO;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	memcpy(address.sun_path + 1, INIT_SOCKET, strlen(INIT_SOCKET));
	waiting = (struct pollfd){ .fd = fd, .events = POLLIN };
	if (connect(fd, (struct sockaddr *)&address, length) != 0 || send(fd, request, strlen(request), 0) < 0)
		result = -errno;
	else if (poll(&waiting, 1, ANSWER_TIMEOUT_MS) != 1)
		result = -ETIMEDOUT;
	else if (recv(fd, answer, sizeof(answer) - 1, 0) > 0)
		result = atoi(answer);
	close(fd);
	return result;
}

static int refused(const char *verb, const char *name, int result)
{
	const char *why = result == -ENOENT   ? "no such service"
			  : result == -EACCES ? "its property does not enable it"
					      : strerror(-result);

	fprintf(stderr, "Unable to %s service '%s': %s\n", verb, name, why);
	return 1;
}

static int for_each(const char *verb, int argc, char **argv)
{
	char request[NAME_MAX_BYTES * 2];
	int status = 0;

	if (argc < 2) {
		fprintf(stderr, "usage: %s SERVICE...\n", verb);
		return 1;
	}
	for (int i = 1; i < argc; i++) {
		int result;
		snprintf(request, sizeof(request), "%s %s", verb, argv[i]);
		result = init_request(request);
		if (result != 0)
			status = refused(verb, argv[i], result);
	}
	return status;
}

int start_main(int argc, char **argv)
{
	return for_each("start", argc, argv);
}

/* Unlike Android's, it waits until the process is gone: whoever stops lmkd wants its socket. */
int stop_main(int argc, char **argv)
{
	int status = for_each("stop", argc, argv);
	long long deadline = now_ms() + STOP_TIMEOUT_MS;

	for (int i = 1; i < argc; i++) {
		char name[NAME_MAX_BYTES], state[32] = "";
		snprintf(name, sizeof(name), "init.svc.%s", argv[i]);
		while (property_get(name, state, sizeof(state)) > 0 && strcmp(state, "stopping") == 0) {
			if (now_ms() > deadline) {
				fprintf(stderr, "service '%s' is still stopping\n", argv[i]);
				return 1;
			}
			usleep(5000);
		}
	}
	return status;
}
