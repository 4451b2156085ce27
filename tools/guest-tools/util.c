/* SPDX-License-Identifier: Apache-2.0 */
#include "guest.h"

#include <sys/syscall.h>
#include <sched.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

ssize_t read_text(const char *path, char *buffer, size_t size)
{
	size_t length = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	while (length + 1 < size) {
		ssize_t got = read(fd, buffer + length, size - 1 - length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			int error = errno;
			close(fd);
			return -error;
		}
		if (got == 0)
			break;
		length += (size_t)got;
	}
	close(fd);
	buffer[length] = '\0';
	return (ssize_t)length;
}

int write_text(const char *path, const char *text)
{
	size_t length = strlen(text);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int result = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, length) != (ssize_t)length)
		result = -errno;
	close(fd);
	return result;
}

int write_format(const char *path, const char *format, ...)
{
	char text[VALUE_MAX_BYTES];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	return write_text(path, text);
}

long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

char *trim(char *text)
{
	size_t length;

	while (isspace((unsigned char)*text))
		text++;
	length = strlen(text);
	while (length > 0 && isspace((unsigned char)text[length - 1]))
		text[--length] = '\0';
	return text;
}

int make_dirs(const char *path, mode_t mode)
{
	char part[512];

	if (strlen(path) >= sizeof(part))
		return -ENAMETOOLONG;
	strcpy(part, path);
	for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(part, 0755) != 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	if (mkdir(part, mode) != 0 && errno != EEXIST)
		return -errno;
	return chmod(path, mode) == 0 ? 0 : -errno;
}

void console(const char *format, ...)
{
	char text[1024];
	va_list arguments;
	int length, fd;

	va_start(arguments, format);
	length = vsnprintf(text, sizeof(text) - 2, format, arguments);
	va_end(arguments);
	if (length < 0)
		return;
	if ((size_t)length > sizeof(text) - 3)
		length = (int)sizeof(text) - 3;
	text[length++] = '\n';
	fd = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, text, (size_t)length) < 0) {
		/* Nobody listens on the console: there is nobody to tell. */
	}
	close(fd);
}

/* musl leaves sched_setscheduler() out, since POSIX means the process and Linux the thread. */
int set_cpus(unsigned long cpus)
{
	return syscall(SYS_sched_setaffinity, 0, sizeof(cpus), &cpus) < 0 ? -errno : 0;
}

int set_scheduler(int policy, int priority)
{
	struct sched_param param = { .sched_priority = priority };

	return syscall(SYS_sched_setscheduler, 0, policy, &param) < 0 ? -errno : 0;
}
