/* SPDX-License-Identifier: Apache-2.0
 *
 * PID 1: sets the machine up, keeps services running, reaps orphans, answers start and stop, says when adbd
 * listens, and powers an idle guest off when it was told to.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define ADB_PORT 5555
#define READY_POLL_MS 10
#define IDLE_POLL_MS 5000
/* A stray ARP request or TCP keep-alive is not use. */
#define IDLE_NOISE_BYTES 512

struct idle_watch {
	long limit_s;
	long long last_bytes, last_use_ms;
};

static void power(const char *what)
{
	bool restart = strncmp(what, "reboot", 6) == 0;

	console("lmk-guest: power %s", restart ? "reboot" : "off");
	sync();
	reboot(restart ? RB_AUTOBOOT : RB_POWER_OFF);
}

static int open_control(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t length = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(INIT_SOCKET);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	memcpy(address.sun_path + 1, INIT_SOCKET, strlen(INIT_SOCKET));
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) != 0 || listen(fd, 8) != 0)
		boot_error("init: control socket: %s", strerror(errno));
	return fd;
}

static void serve_control(int listener)
{
	struct timeval limit = { .tv_sec = 1 };
	char request[NAME_MAX_BYTES * 2];
	char answer[16];
	ssize_t length;
	int result, fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	length = recv(fd, request, sizeof(request) - 1, 0);
	if (length > 0) {
		request[length] = '\0';
		if (strncmp(request, "power ", 6) == 0)
			power(request + 6);
		result = services_control(request);
		snprintf(answer, sizeof(answer), "%d", result);
		send(fd, answer, strlen(answer), MSG_NOSIGNAL);
	}
	close(fd);
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		services_exited(pid, status);
}

static void check_idle(struct idle_watch *watch)
{
	long long bytes = network_received_bytes(), now = now_ms();

	if (bytes > watch->last_bytes + IDLE_NOISE_BYTES || bytes < watch->last_bytes) {
		watch->last_bytes = bytes;
		watch->last_use_ms = now;
	} else if (now - watch->last_use_ms > watch->limit_s * 1000LL) {
		console("lmk-guest: idle for %ld s", watch->limit_s);
		power("off");
	}
}

/* The lines that tell the host how far the guest is. */
static void announce_ready(void)
{
	char value[32];

	snprintf(value, sizeof(value), "%lld", now_ms());
	property_set("ro.boottime.adbd_ms", value);
	property_set("sys.boot_completed", "1");
	property_set("dev.bootcomplete", "1");
	console("lmk-guest: ready");
}

static int shorter(int left, int right)
{
	if (left < 0)
		return right;
	return right < 0 || left < right ? left : right;
}

static void serve(void)
{
	struct idle_watch watch = { .limit_s = boot_idle_limit_s(), .last_use_ms = now_ms() };
	bool ready = false;
	sigset_t signals;
	struct pollfd waiting[2];

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	waiting[0] = (struct pollfd){ .fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK), .events = POLLIN };
	waiting[1] = (struct pollfd){ .fd = open_control(), .events = POLLIN };
	services_start_all();
	for (;;) {
		struct signalfd_siginfo info;
		int timeout_ms = services_run_due();
		if (!ready)
			timeout_ms = shorter(timeout_ms, READY_POLL_MS);
		else if (watch.limit_s > 0)
			timeout_ms = shorter(timeout_ms, IDLE_POLL_MS);
		poll(waiting, 2, timeout_ms);
		while (read(waiting[0].fd, &info, sizeof(info)) > 0) {
			/* One signal may stand for several children: reap() asks for all. */
		}
		reap();
		if (waiting[1].revents)
			serve_control(waiting[1].fd);
		if (!ready && network_listens(ADB_PORT)) {
			ready = true;
			announce_ready();
		}
		if (watch.limit_s > 0)
			check_idle(&watch);
	}
}

int init_main(int argc, char **argv)
{
	char cpus[32];
	sigset_t all;

	(void)argc;
	(void)argv;
	if (getpid() != 1) {
		fprintf(stderr, "init: only the kernel starts this, as process 1\n");
		return 1;
	}
	umask(022);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	boot_mounts();
	mlockall(MCL_CURRENT | MCL_FUTURE);
	write_text("/proc/self/oom_score_adj", "-1000");
	network_up();
	network_bind(TRANSPORT_CPUS);
	boot_apply(BOOT_CONF);
	if (property_load(PROPERTY_FILE) != 0)
		boot_error("%s: some properties were refused", PROPERTY_FILE);
	snprintf(cpus, sizeof(cpus), "%lu", TRANSPORT_CPUS);
	property_set(TRANSPORT_CPUS_PROPERTY, cpus);
	if (services_load(SERVICES_FILE) != 0)
		boot_error("%s is missing", SERVICES_FILE);
	serve();
	return 0;
}
