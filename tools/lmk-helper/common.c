/* SPDX-License-Identifier: Apache-2.0 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int64_t lmk_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

void lmk_sleep_ns(int64_t duration_ns)
{
	int64_t until = lmk_now_ns() + duration_ns;
	struct timespec at = { .tv_sec = until / NS_PER_S, .tv_nsec = (long)(until % NS_PER_S) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
		continue;
}

int lmk_read_full(int fd, void *buffer, size_t size)
{
	uint8_t *at = buffer;

	while (size > 0) {
		ssize_t got = read(fd, at, size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return -EPIPE;
		at += got;
		size -= (size_t)got;
	}
	return 0;
}

int lmk_write_full(int fd, const void *buffer, size_t size)
{
	const uint8_t *at = buffer;

	while (size > 0) {
		ssize_t put = write(fd, at, size);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		at += put;
		size -= (size_t)put;
	}
	return 0;
}

ssize_t lmk_reread(int fd, char *buffer, size_t size)
{
	size_t used = 0;

	if (size == 0)
		return -EINVAL;
	/* seq_file hands out at most a page at a time: go on until it says 0. */
	while (used < size - 1) {
		ssize_t got = pread(fd, buffer + used, size - 1 - used, (off_t)used);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		used += (size_t)got;
	}
	buffer[used] = '\0';
	return (ssize_t)used;
}

ssize_t lmk_reread_record(int fd, char *buffer, size_t size)
{
	ssize_t got;

	if (size == 0)
		return -EINVAL;
	do
		got = pread(fd, buffer, size - 1, 0);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	buffer[got] = '\0';
	return got;
}

ssize_t lmk_read_file(int dirfd, const char *path, char *buffer, size_t size)
{
	ssize_t length;
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	length = lmk_reread(fd, buffer, size);
	close(fd);
	return length;
}

int lmk_write_file(int dirfd, const char *path, const void *data, size_t size)
{
	ssize_t put;
	int error = 0;
	int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	do
		put = write(fd, data, size);
	while (put < 0 && errno == EINTR);
	if (put < 0)
		error = -errno;
	else if ((size_t)put != size)
		error = -EIO;
	close(fd);
	return error;
}

int lmk_format(char *buffer, size_t size, const char *format, ...)
{
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(buffer, size, format, arguments);
	va_end(arguments);
	if (length < 0)
		return -EINVAL;
	return (size_t)length < size ? length : -ENAMETOOLONG;
}

int lmk_find_number(const char *text, const char *key, int64_t *ret_value)
{
	size_t key_length = strlen(key);

	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		char *end;
		long long value;

		if (*line == '\n')
			line++;
		if (strncmp(line, key, key_length) != 0)
			continue;
		errno = 0;
		value = strtoll(line + key_length, &end, 10);
		if (end == line + key_length || errno)
			return -EINVAL;
		*ret_value = value;
		return 0;
	}
	return -ENOENT;
}

int lmk_stat_field(const char *stat_text, unsigned number, uint64_t *ret_value)
{
	/* comm may hold blanks and parentheses: fields are counted from the last one. */
	const char *at = strrchr(stat_text, ')');
	unsigned long long value;
	char *end;

	if (!at || number < 4)
		return -EINVAL;
	at++;
	for (unsigned field = 3; field <= number; field++) {
		at = strchr(at, ' ');
		if (!at)
			return -EINVAL;
		at++;
	}
	errno = 0;
	value = strtoull(at, &end, 10);
	if (end == at || errno)
		return -EINVAL;
	*ret_value = value;
	return 0;
}

int lmk_parse_i64(const char *text, int64_t *ret_value)
{
	char *end;
	long long value;

	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno)
		return -errno;
	if (end == text || *end != '\0')
		return -EINVAL;
	*ret_value = value;
	return 0;
}

void lmk_put_be16(uint8_t *out, uint16_t value)
{
	out[0] = (uint8_t)(value >> 8);
	out[1] = (uint8_t)value;
}

void lmk_put_be32(uint8_t *out, uint32_t value)
{
	lmk_put_be16(out, (uint16_t)(value >> 16));
	lmk_put_be16(out + 2, (uint16_t)value);
}

void lmk_put_be64(uint8_t *out, uint64_t value)
{
	lmk_put_be32(out, (uint32_t)(value >> 32));
	lmk_put_be32(out + 4, (uint32_t)value);
}

uint32_t lmk_get_be32(const uint8_t *in)
{
	return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}

uint64_t lmk_get_be64(const uint8_t *in)
{
	return (uint64_t)lmk_get_be32(in) << 32 | lmk_get_be32(in + 4);
}

size_t lmk_pack_ints(uint8_t *out, const int32_t *values, size_t count)
{
	for (size_t i = 0; i < count; i++)
		lmk_put_be32(out + 4 * i, (uint32_t)values[i]);
	return 4 * count;
}

size_t lmk_pack_target(uint8_t *out, const int32_t (*pairs)[2], size_t count)
{
	int32_t values[1 + 2 * LMK_TARGETS_MAX] = { LMK_TARGET };

	if (count > LMK_TARGETS_MAX)
		count = LMK_TARGETS_MAX;
	for (size_t i = 0; i < count; i++) {
		values[1 + 2 * i] = pairs[i][0];
		values[2 + 2 * i] = pairs[i][1];
	}
	return lmk_pack_ints(out, values, 1 + 2 * count);
}

size_t lmk_pack_procprio(uint8_t *out, const struct lmk_procprio *process, int with_type)
{
	int32_t values[] = { LMK_PROCPRIO, process->pid, process->uid, process->oom_score_adj, process->type };

	return lmk_pack_ints(out, values, with_type ? 5 : 4);
}

size_t lmk_pack_procs_prio(uint8_t *out, const struct lmk_procprio *processes, size_t count)
{
	int32_t values[1 + 4 * LMK_PROCS_PRIO_MAX] = { LMK_PROCS_PRIO };

	if (count > LMK_PROCS_PRIO_MAX)
		count = LMK_PROCS_PRIO_MAX;
	for (size_t i = 0; i < count; i++) {
		values[1 + 4 * i] = processes[i].pid;
		values[2 + 4 * i] = processes[i].uid;
		values[3 + 4 * i] = processes[i].oom_score_adj;
		values[4 + 4 * i] = processes[i].type;
	}
	return lmk_pack_ints(out, values, 1 + 4 * count);
}

size_t lmk_pack_procremove(uint8_t *out, int32_t pid)
{
	int32_t values[] = { LMK_PROCREMOVE, pid };

	return lmk_pack_ints(out, values, LMK_ARRAY_LEN(values));
}

size_t lmk_pack_procpurge(uint8_t *out)
{
	int32_t values[] = { LMK_PROCPURGE };

	return lmk_pack_ints(out, values, LMK_ARRAY_LEN(values));
}

size_t lmk_pack_getkillcnt(uint8_t *out, int32_t adj_min, int32_t adj_max)
{
	int32_t values[] = { LMK_GETKILLCNT, adj_min, adj_max };

	return lmk_pack_ints(out, values, LMK_ARRAY_LEN(values));
}

size_t lmk_pack_subscribe(uint8_t *out, int32_t event)
{
	int32_t values[] = { LMK_SUBSCRIBE, event };

	return lmk_pack_ints(out, values, LMK_ARRAY_LEN(values));
}

int lmk_connect_seqpacket(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, error;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		error = -errno;
		close(fd);
		return error;
	}
	return fd;
}

int lmk_send_packet(int fd, const void *packet, size_t size)
{
	ssize_t put;

	do
		put = send(fd, packet, size, MSG_NOSIGNAL);
	while (put < 0 && errno == EINTR);
	if (put < 0)
		return -errno;
	return (size_t)put == size ? 0 : -EMSGSIZE;
}
