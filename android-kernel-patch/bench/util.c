// SPDX-License-Identifier: GPL-2.0
/* What every measurement needs: time, files, processes that cannot outlive their row. */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NR_PROCESS_REAP 600
#define NR_PIDFD_OPEN 434

static long long deadline_ns;
/* Shared with the processes that make the rows. */
static int *rows_printed;

void die(const char *format, ...)
{
	int error = errno;
	va_list ap;

	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fprintf(stderr, ": %s\n", strerror(error));
	_exit(1);
}

void row(const char *name, const char *format, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	/* One write, so that no two rows mix. */
	printf("{\"row\": \"%s\", %s}\n", name, text);
	fflush(stdout);
	__atomic_fetch_add(rows_printed, 1, __ATOMIC_RELAXED);
}

void count_rows(void)
{
	rows_printed = mmap(NULL, sizeof(*rows_printed), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (rows_printed == MAP_FAILED)
		die("mmap");
}

void tell_rows(void)
{
	row("total", "\"rows\": %d", *rows_printed);
}

long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

void nap_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

int try_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);
	int ret = -1;

	if (fd >= 0) {
		ret = write(fd, text, strlen(text)) < 0 ? -1 : 0;
		close(fd);
	}
	return ret;
}

void must_write(const char *path, const char *text)
{
	if (try_write(path, text))
		die("%s", path);
}

ssize_t read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t length = 0, got;

	if (fd < 0)
		return -1;
	while ((got = read(fd, text + length, size - 1 - length)) > 0)
		length += got;
	close(fd);
	text[length] = 0;
	return length;
}

static int compare(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return (x > y) - (x < y);
}

long long median(long long *values, int count)
{
	qsort(values, count, sizeof(*values), compare);
	return count ? values[count / 2] : 0;
}

long available_kib(void)
{
	static int fd = -1;
	char text[512];
	ssize_t length;
	char *at;

	if (fd < 0)
		fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	length = pread(fd, text, sizeof(text) - 1, 0);
	if (length <= 0)
		return -1;
	text[length] = 0;
	at = strstr(text, "MemAvailable:");
	return at ? atol(at + strlen("MemAvailable:")) : -1;
}

int open_pidfd(pid_t pid)
{
	return syscall(NR_PIDFD_OPEN, pid, 0);
}

long process_reap(int pidfd)
{
	return syscall(NR_PROCESS_REAP, pidfd, 0) ? -errno : 0;
}

bool wait_dead(int pidfd, int ms)
{
	struct pollfd dead = { .fd = pidfd, .events = POLLIN };

	return poll(&dead, 1, ms) == 1;
}

void collect_children(void)
{
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

/* --- rows that cannot last for ever --- */

void set_deadline(int seconds)
{
	deadline_ns = now_ns() + seconds * 1000000000LL;
}

bool is_late(void)
{
	return deadline_ns && now_ns() > deadline_ns;
}

void isolated(const char *what, int limit_s, void (*run)(const void *arg), const void *arg)
{
	int fd, status = 0;
	pid_t pid;

	if (is_late()) {
		row("left_out", "\"what\": \"%s\"", what);
		return;
	}
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		setpgid(0, 0);
		prctl(PR_SET_CHILD_SUBREAPER, 1);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run(arg);
		fflush(stdout);
		_exit(0);
	}
	setpgid(pid, pid);
	fd = open_pidfd(pid);
	if (!wait_dead(fd, limit_s * 1000))
		row("overdue", "\"what\": \"%s\", \"limit_s\": %d", what, limit_s);
	else if (waitpid(pid, &status, WNOHANG) == pid && status)
		row("failed", "\"what\": \"%s\", \"status\": %d", what, status);
	kill(-pid, SIGKILL);
	wait_dead(fd, 5000);
	close(fd);
	collect_children();
}

pid_t spawn(int *ret_pipe)
{
	int ends[2];
	pid_t pid, parent = getpid();

	if (pipe(ends))
		die("pipe");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* The parent may be gone already. */
		if (getppid() != parent)
			_exit(1);
		close(ends[0]);
		*ret_pipe = ends[1];
		return 0;
	}
	close(ends[1]);
	*ret_pipe = ends[0];
	return pid;
}

void say_ready(int pipe)
{
	if (write(pipe, "r", 1) != 1)
		_exit(1);
	close(pipe);
}

void await_ready(int pipe)
{
	char byte;

	if (read(pipe, &byte, 1) != 1)
		die("a process did not get ready");
	close(pipe);
}

void hold(void)
{
	for (;;)
		pause();
}
