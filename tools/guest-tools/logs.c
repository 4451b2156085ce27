/* SPDX-License-Identifier: Apache-2.0
 *
 * Android's log in small: a text file per buffer in LOG_DIR, one record per line, appended with one write():
 *
 *     SECONDS.NANOSECONDS PID TID UID PRIORITY TAG<tab>MESSAGE
 *
 * (realtime clock; newlines in the message as \n, backslashes as \\). A full file is renamed to NAME.1. Whoever
 * does not want to start `log` may append such lines himself.
 */
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_MAX_BYTES (512 * 1024)
#define RECORD_MAX_BYTES 5120 /* Android's largest payload is 4068 */
#define FILTERS_MAX 32

static const char *const BUFFERS[] = { "main", "system", "radio", "events", "crash", "kernel" };
static const char PRIORITIES[] = "VDIWEFS";

static int priority_level(char letter)
{
	const char *found = letter ? strchr(PRIORITIES, letter) : NULL;

	return found ? (int)(found - PRIORITIES) : -1;
}

static bool buffer_known(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(BUFFERS); i++)
		if (strcmp(BUFFERS[i], name) == 0)
			return true;
	return false;
}

static size_t escape(char *out, size_t room, const char *text)
{
	size_t length = 0;

	for (; *text && length + 2 < room; text++) {
		if (*text == '\n' || *text == '\\') {
			out[length++] = '\\';
			out[length++] = *text == '\n' ? 'n' : '\\';
		} else {
			out[length++] = *text;
		}
	}
	return length;
}

static void unescape(char *text)
{
	char *out = text;

	for (; *text; text++) {
		if (*text == '\\' && text[1])
			*out++ = *++text == 'n' ? '\n' : *text;
		else
			*out++ = *text;
	}
	*out = '\0';
}

int log_append(const char *buffer, char priority, const char *tag, const char *message)
{
	char path[64], old[80], record[RECORD_MAX_BYTES];
	struct timespec now;
	struct stat state;
	size_t length;
	int fd, result = 0;

	if (!buffer_known(buffer))
		return -EINVAL;
	snprintf(path, sizeof(path), LOG_DIR "/%s", buffer);
	snprintf(old, sizeof(old), "%s.1", path);
	if (stat(path, &state) == 0 && state.st_size > BUFFER_MAX_BYTES)
		rename(path, old);
	clock_gettime(CLOCK_REALTIME, &now);
	length = (size_t)snprintf(record, sizeof(record) / 2, "%lld.%09ld %d %d %d %c %.128s\t", (long long)now.tv_sec,
				  now.tv_nsec, (int)getpid(), (int)getpid(), (int)getuid(), priority, tag);
	length += escape(record + length, sizeof(record) - length - 1, message);
	record[length++] = '\n';
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (fd < 0)
		return -errno;
	if (write(fd, record, length) != (ssize_t)length)
		result = -EIO;
	close(fd);
	return result;
}

int log_main(int argc, char **argv)
{
	const char *tag = "log", *buffer = "main";
	char message[RECORD_MAX_BYTES] = "";
	char priority = 'I';
	int option, result;

	while ((option = getopt(argc, argv, "+p:t:b:")) != -1) {
		if (option == 'p')
			priority = (char)(optarg[0] & ~0x20);
		else if (option == 't')
			tag = optarg;
		else if (option == 'b')
			buffer = optarg;
		else
			optind = argc + 1;
	}
	if (optind >= argc || priority_level(priority) < 0) {
		fprintf(stderr, "usage: log [-p V|D|I|W|E|F|S] [-t TAG] [-b BUFFER] MESSAGE...\n");
		return 1;
	}
	for (int i = optind; i < argc; i++) {
		size_t used = strlen(message);
		snprintf(message + used, sizeof(message) - used, "%s%s", i > optind ? " " : "", argv[i]);
	}
	result = log_append(buffer, priority, tag, message);
	if (result != 0)
		fprintf(stderr, "log: %s: %s\n", buffer, strerror(-result));
	return result == 0 ? 0 : 1;
}

/* --- logcat ------------------------------------------------------------------------------------------ */

struct record {
	long long seconds;
	long nanoseconds;
	int pid, tid, uid;
	char priority;
	char *tag, *message;
	const char *buffer;
	size_t order;
};

struct filter {
	char tag[128];
	int level;
};

static struct {
	bool buffers[ARRAY_LEN(BUFFERS)];
	bool any_buffer, dump, clear, year, epoch, microseconds, show_uid;
	const char *format;
	struct filter filters[FILTERS_MAX];
	size_t filter_count;
	int default_level;
	int pid;
	long tail;
} wish;

static struct record *records;
static size_t record_count, record_room;

static bool parse_record(char *line, const char *buffer)
{
	struct record record = { .buffer = buffer, .order = record_count };
	int start = 0;
	char *tab;

	if (sscanf(line, "%lld.%9ld %d %d %d %c %n", &record.seconds, &record.nanoseconds, &record.pid, &record.tid,
		   &record.uid, &record.priority, &start) < 6 || !start)
		return false;
	tab = strchr(line + start, '\t');
	if (!tab)
		return false;
	*tab = '\0';
	record.tag = strdup(line + start);
	record.message = strdup(tab + 1);
	unescape(record.message);
	if (record_count == record_room) {
		record_room = record_room ? record_room * 2 : 256;
		records = realloc(records, record_room * sizeof(*records));
	}
	if (!records || !record.tag || !record.message)
		exit(1);
	records[record_count++] = record;
	return true;
}

/* Reads whole lines from an offset; the new offset. */
static long read_file_from(const char *path, long offset, const char *buffer)
{
	char line[RECORD_MAX_BYTES + 256];
	struct stat state;
	FILE *file;

	if (stat(path, &state) != 0)
		return 0;
	if (state.st_size < offset) /* rotated or cleared */
		offset = 0;
	file = fopen(path, "re");
	if (!file)
		return offset;
	fseek(file, offset, SEEK_SET);
	while (fgets(line, sizeof(line), file)) {
		size_t length = strlen(line);
		if (line[length - 1] != '\n')
			break;
		line[length - 1] = '\0';
		parse_record(line, buffer);
		offset = ftell(file);
	}
	fclose(file);
	return offset;
}

static int compare_records(const void *left, const void *right)
{
	const struct record *a = left, *b = right;

	if (a->seconds != b->seconds)
		return a->seconds < b->seconds ? -1 : 1;
	if (a->nanoseconds != b->nanoseconds)
		return a->nanoseconds < b->nanoseconds ? -1 : 1;
	return a->order < b->order ? -1 : a->order > b->order;
}

static bool wanted(const struct record *record)
{
	int level = wish.default_level;

	if (wish.pid && record->pid != wish.pid)
		return false;
	for (size_t i = 0; i < wish.filter_count; i++)
		if (strcmp(wish.filters[i].tag, record->tag) == 0)
			level = wish.filters[i].level;
	return priority_level(record->priority) >= level;
}

static void print_time(const struct record *record)
{
	char text[64];
	time_t seconds = (time_t)record->seconds;
	struct tm local;

	if (wish.epoch)
		printf("%19lld", record->seconds);
	else {
		localtime_r(&seconds, &local);
		strftime(text, sizeof(text), wish.year ? "%Y-%m-%d %H:%M:%S" : "%m-%d %H:%M:%S", &local);
		fputs(text, stdout);
	}
	if (wish.microseconds)
		printf(".%06ld", record->nanoseconds / 1000);
	else
		printf(".%03ld", record->nanoseconds / 1000000);
}

static void print_prefix(const struct record *record)
{
	char uid[16] = "";

	if (strcmp(wish.format, "raw") == 0)
		return;
	if (strcmp(wish.format, "brief") == 0) {
		printf("%c/%-8s(%5d): ", record->priority, record->tag, record->pid);
	} else if (strcmp(wish.format, "tag") == 0) {
		printf("%c/%-8s: ", record->priority, record->tag);
	} else if (strcmp(wish.format, "process") == 0) {
		printf("%c(%5d) ", record->priority, record->pid);
	} else if (strcmp(wish.format, "thread") == 0) {
		printf("%c(%5d:%5d) ", record->priority, record->pid, record->tid);
	} else if (strcmp(wish.format, "time") == 0) {
		print_time(record);
		printf(" %c/%-8s(%5d): ", record->priority, record->tag, record->pid);
	} else {
		if (wish.show_uid)
			snprintf(uid, sizeof(uid), "%5d ", record->uid);
		print_time(record);
		printf(" %s%5d %5d %c %-8s: ", uid, record->pid, record->tid, record->priority, record->tag);
	}
}

static void print_record(const struct record *record)
{
	char *text = record->message;

	/* Every line of a message carries the prefix, as Android prints it. */
	do {
		char *line = strsep(&text, "\n");
		print_prefix(record);
		puts(line);
	} while (text);
}

static void print_records(void)
{
	size_t first = 0;
	static const char *seen[ARRAY_LEN(BUFFERS)];

	if (record_count)
		qsort(records, record_count, sizeof(*records), compare_records);
	if (wish.tail) {
		long left = wish.tail;
		for (first = record_count; first > 0 && left > 0; first--)
			left -= wanted(&records[first - 1]);
	}
	for (size_t i = first; i < record_count; i++) {
		struct record *record = &records[i];
		if (wanted(record)) {
			for (size_t b = 0; b < ARRAY_LEN(BUFFERS); b++)
				if (record->buffer == BUFFERS[b] && !seen[b]) {
					seen[b] = record->buffer;
					printf("--------- beginning of %s\n", record->buffer);
				}
			print_record(record);
		}
	}
	for (size_t i = 0; i < record_count; i++) {
		free(records[i].tag);
		free(records[i].message);
	}
	record_count = 0;
	fflush(stdout);
}

static int choose_buffers(char *list)
{
	for (char *name = strtok(list, ","); name; name = strtok(NULL, ",")) {
		bool found = false;
		for (size_t i = 0; i < ARRAY_LEN(BUFFERS); i++) {
			bool chosen = strcmp(name, BUFFERS[i]) == 0 || strcmp(name, "all") == 0 ||
				      (strcmp(name, "default") == 0 &&
				       (i == 0 || i == 1 || strcmp(BUFFERS[i], "crash") == 0));
			wish.buffers[i] |= chosen;
			found |= chosen;
		}
		if (!found) {
			fprintf(stderr, "logcat: Unknown -b buffer '%s'\n", name);
			return -EINVAL;
		}
	}
	wish.any_buffer = true;
	return 0;
}

static int choose_format(const char *name)
{
	static const char *const FORMATS[] = { "brief", "process", "raw", "tag", "thread", "threadtime", "time" };

	for (size_t i = 0; i < ARRAY_LEN(FORMATS); i++)
		if (strcmp(name, FORMATS[i]) == 0) {
			wish.format = FORMATS[i];
			return 0;
		}
	if (strcmp(name, "year") == 0)
		wish.year = true;
	else if (strcmp(name, "epoch") == 0)
		wish.epoch = true;
	else if (strcmp(name, "usec") == 0)
		wish.microseconds = true;
	else if (strcmp(name, "uid") == 0)
		wish.show_uid = true;
	else {
		fprintf(stderr, "logcat: Invalid parameter \"%s\" to -v\n", name);
		return -EINVAL;
	}
	return 0;
}

static int add_filter(const char *text)
{
	struct filter *filter = &wish.filters[wish.filter_count];
	const char *colon = strrchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : strlen(text);
	int level = colon ? priority_level((char)(colon[1] & ~0x20)) : 0;

	if (colon && colon[1] == '*')
		level = 0;
	if (level < 0 || length >= sizeof(filter->tag) || wish.filter_count == FILTERS_MAX) {
		fprintf(stderr, "logcat: Invalid filter expression '%s'\n", text);
		return -EINVAL;
	}
	if (length == 1 && text[0] == '*') {
		wish.default_level = level;
		return 0;
	}
	memcpy(filter->tag, text, length);
	filter->tag[length] = '\0';
	filter->level = level;
	wish.filter_count++;
	return 0;
}

static int parse_options(int argc, char **argv)
{
	int option, result = 0;

	wish.format = "threadtime";
	while (result == 0 && (option = getopt(argc, argv, "b:v:t:T:dcsP:")) != -1) {
		if (option == 'b')
			result = choose_buffers(optarg);
		else if (option == 'v')
			result = choose_format(optarg);
		else if (option == 't' || option == 'T') {
			wish.tail = atol(optarg);
			wish.dump |= option == 't';
		} else if (option == 'd')
			wish.dump = true;
		else if (option == 'c')
			wish.clear = true;
		else if (option == 's')
			wish.default_level = priority_level('S');
		else
			result = -EINVAL;
	}
	for (int i = optind; result == 0 && i < argc; i++)
		result = strncmp(argv[i], "--pid=", 6) == 0 ? (wish.pid = atoi(argv[i] + 6), 0) : add_filter(argv[i]);
	for (size_t i = 0; !wish.any_buffer && i < ARRAY_LEN(BUFFERS); i++)
		wish.buffers[i] = i < 2 || strcmp(BUFFERS[i], "crash") == 0;
	return result;
}

static void clear_buffers(void)
{
	char path[80];

	for (size_t i = 0; i < ARRAY_LEN(BUFFERS); i++) {
		if (!wish.buffers[i])
			continue;
		snprintf(path, sizeof(path), LOG_DIR "/%s", BUFFERS[i]);
		unlink(path);
		snprintf(path, sizeof(path), LOG_DIR "/%s.1", BUFFERS[i]);
		unlink(path);
	}
}

int logcat_main(int argc, char **argv)
{
	long offsets[ARRAY_LEN(BUFFERS)] = { 0 };
	char path[80];

	if (parse_options(argc, argv) != 0) {
		fprintf(stderr, "usage: logcat [-d] [-c] [-s] [-b BUFFER,...] [-v FORMAT] [-t COUNT] [TAG:PRIORITY...]\n");
		return 1;
	}
	if (wish.clear) {
		clear_buffers();
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(BUFFERS); i++)
		if (wish.buffers[i]) {
			snprintf(path, sizeof(path), LOG_DIR "/%s.1", BUFFERS[i]);
			read_file_from(path, 0, BUFFERS[i]);
		}
	for (;;) {
		for (size_t i = 0; i < ARRAY_LEN(BUFFERS); i++)
			if (wish.buffers[i]) {
				snprintf(path, sizeof(path), LOG_DIR "/%s", BUFFERS[i]);
				offsets[i] = read_file_from(path, offsets[i], BUFFERS[i]);
			}
		print_records();
		wish.tail = 0;
		if (wish.dump)
			return 0;
		usleep(100000);
	}
}
