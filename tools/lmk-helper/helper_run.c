/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands on the device (start, stop, setprop), one at a time, and log lines.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUN_LIMIT_NS (10 * NS_PER_S)
#define LOG_PAYLOAD_MAX 4068	/* Android's LOGGER_ENTRY_MAX_PAYLOAD */
#define LOG_LINE_MAX 5120
#define LOG_ID_MAIN 0
#define LOG_ID_EVENTS 2
#define EVENT_TAG_KILLINFO 10195355
#define TAG "lmk-helper"

static const char *const COMMANDS[] = { "start", "stop", "setprop" };

static struct {
	pid_t pid;
	int pidfd;
	uint32_t id;
	int64_t started_ns;
	bool is_start;
	char service[SERVICE_NAME_MAX];
	int last_status;
} child;

void run_init(void)
{
	memset(&child, 0, sizeof(child));
	child.pidfd = -1;
}

bool run_busy(void)
{
	return child.pid != 0;
}

int run_last_status(void)
{
	return child.last_status;
}

/* --- services that we stopped: kept in shared memory, so that a crash cannot forget them ----------------- */

static void remember_stopped(const char *name)
{
	size_t i, empty = SERVICES_MAX;

	for (i = 0; i < SERVICES_MAX; i++) {
		if (strcmp(shared->stopped_services[i], name) == 0)
			return;
		if (!shared->stopped_services[i][0] && empty == SERVICES_MAX)
			empty = i;
	}
	if (empty < SERVICES_MAX)
		snprintf(shared->stopped_services[empty], SERVICE_NAME_MAX, "%s", name);
}

static void forget_stopped(const char *name)
{
	for (size_t i = 0; i < SERVICES_MAX; i++)
		if (strcmp(shared->stopped_services[i], name) == 0)
			shared->stopped_services[i][0] = '\0';
}

bool run_next_stopped_service(char *name)
{
	for (size_t i = 0; i < SERVICES_MAX; i++)
		if (shared->stopped_services[i][0]) {
			snprintf(name, SERVICE_NAME_MAX, "%s", shared->stopped_services[i]);
			return true;
		}
	return false;
}

/* --- commands ------------------------------------------------------------------------------------------- */

static _Noreturn void exec_command(const char *path, char *const argv[])
{
	static char *const ENVIRONMENT[] = { "PATH=/system/bin:/system/xbin:/usr/bin:/bin", NULL };
	sigset_t none;
	int null = open("/dev/null", O_RDWR);

	/* Our protection is not for others. */
	lmk_write_file(AT_FDCWD, "/proc/self/oom_score_adj", "0", 1);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	for (int fd = 0; fd <= 2; fd++)
		dup2(null, fd);
	execve(path, argv, ENVIRONMENT);
	_exit(127);
}

int run_start(uint32_t id, char *const argv[])
{
	char path[PATH_BYTES];
	bool known = false;
	int error;

	for (size_t i = 0; i < LMK_ARRAY_LEN(COMMANDS); i++)
		known |= strcmp(argv[0], COMMANDS[i]) == 0;
	if (!known || !argv[1])
		return -EPERM;
	if (run_busy())
		return -EBUSY;
	error = lmk_format(path, sizeof(path), "%s/%s", options.bin_dir, argv[0]);
	if (error < 0)
		return error;
	if (access(path, X_OK) < 0)
		return -errno;
	child.is_start = strcmp(argv[0], "start") == 0;
	snprintf(child.service, sizeof(child.service), "%s", strcmp(argv[0], "setprop") == 0 ? "" : argv[1]);
	if (strcmp(argv[0], "stop") == 0)
		remember_stopped(argv[1]);
	child.pid = fork();
	if (child.pid == 0)
		exec_command(path, argv);
	if (child.pid < 0) {
		child.pid = 0;
		return -errno;
	}
	child.id = id;
	child.started_ns = lmk_now_ns();
	child.pidfd = (int)syscall(SYS_pidfd_open, child.pid, 0);
	if (child.pidfd >= 0)
		loop_add(child.pidfd, EPOLLIN, SRC_CHILD, 0);
	return 0;
}

void run_child_exited(void)
{
	struct out *out;
	int status = 0;

	if (child.pid == 0 || waitpid(child.pid, &status, WNOHANG) != child.pid)
		return;
	child.last_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	child.pid = 0;
	if (child.pidfd >= 0) {
		loop_remove(child.pidfd);
		close(child.pidfd);
		child.pidfd = -1;
	}
	/* A service that would not start is not tried for ever. */
	if (child.is_start && child.service[0])
		forget_stopped(child.service);
	if (child.last_status != 0)
		say('E', "%s %s: exit status %d", child.is_start ? "start" : "command", child.service,
		    child.last_status);
	out = child.id ? host_begin(MSG_RAN, child.id) : NULL;
	if (out) {
		out_i32(out, 0);
		out_i32(out, child.last_status);
		host_end(true);
	}
}

int64_t run_tick(int64_t now_ns)
{
	if (child.pid == 0)
		return INT64_MAX;
	run_child_exited();
	if (child.pid == 0)
		return now_ns;
	if (now_ns - child.started_ns > RUN_LIMIT_NS)
		kill(child.pid, SIGKILL);	/* our own child, not waited for: the pid is still its own */
	/* Where pidfds are missing the end is only seen by looking. */
	return child.pidfd >= 0 && now_ns - child.started_ns < RUN_LIMIT_NS ? child.started_ns + RUN_LIMIT_NS :
									      now_ns + 10 * NS_PER_MS;
}

/* --- Android's log --------------------------------------------------------------------------------------- */

static int logd_fd;
static int own_log_fd;

void log_init(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char path[PATH_BYTES];

	own_log_fd = options.log_file ? open(options.log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
	logd_fd = -1;
	if (root_path(path, "/dev/socket/logdw") != 0 || strlen(path) >= sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, path, strlen(path) + 1);
	logd_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (logd_fd >= 0 && connect(logd_fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		close(logd_fd);
		logd_fd = -1;
	}
}

static int to_logd(uint8_t log_id, const uint8_t *payload, size_t size)
{
	uint8_t header[11];
	struct out out = { .data = header, .size = sizeof(header) };
	struct iovec parts[] = { { header, sizeof(header) }, { (void *)(uintptr_t)payload, size } };
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	out_u8(&out, log_id);
	out_u16(&out, (uint16_t)getpid());
	out_u32(&out, (uint32_t)now.tv_sec);
	out_u32(&out, (uint32_t)now.tv_nsec);
	return writev(logd_fd, parts, 2) < 0 ? -errno : 0;
}

/* The guest's log: one text line per record, newlines escaped, in /dev/__log_lmk/BUFFER. */
static int to_guest(const char *buffer, char priority, const char *tag, const char *message)
{
	char name[64], path[PATH_BYTES], line[LOG_LINE_MAX];
	struct timespec now;
	int fd, length, error;

	clock_gettime(CLOCK_REALTIME, &now);
	if (lmk_format(name, sizeof(name), "/dev/__log_lmk/%s", buffer) < 0 || root_path(path, name) != 0)
		return -ENAMETOOLONG;
	length = lmk_format(line, 512, "%lld.%09ld %d %d %d %c %.128s\t", (long long)now.tv_sec, now.tv_nsec,
			    (int)getpid(), (int)getpid(), (int)getuid(), priority, tag);
	if (length < 0)
		return length;
	for (; *message && (size_t)length < sizeof(line) - 3; message++) {
		if (*message == '\n' || *message == '\\')
			line[length++] = '\\';
		line[length++] = *message == '\n' ? 'n' : *message;
	}
	line[length++] = '\n';
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (fd < 0)
		return -errno;
	error = write(fd, line, (size_t)length) == length ? 0 : -EIO;
	close(fd);
	return error;
}

/* liblog's encoding of an event (type byte, little-endian value; lists have a count) as logcat prints it. */
static void event_text(struct in *in, char *text, size_t size)
{
	size_t used = 0;
	int left = 1;

	text[0] = '\0';
	while (left > 0 && in->left && !in->bad && used + 32 < size) {
		uint8_t type = in_u8(in);
		const uint8_t *at;
		size_t length;

		left--;
		if (used && text[used - 1] != '[')
			text[used++] = ',';
		if (type == 3) {
			left += in_u8(in);
			text[used++] = '[';
			text[used] = '\0';
			continue;
		}
		if (type == 0) {
			used += (size_t)snprintf(text + used, size - used, "%d", in_i32(in));
		} else if (type == 1) {
			used += (size_t)snprintf(text + used, size - used, "%lld", (long long)in_u64(in));
		} else if (type == 4) {
			uint32_t bits = in_u32(in);
			float number;

			memcpy(&number, &bits, sizeof(number));
			used += (size_t)snprintf(text + used, size - used, "%f", (double)number);
		} else if (type == 2) {
			at = in_blob(in, &length);
			length = length < size - used - 32 ? length : size - used - 32;
			used += (size_t)snprintf(text + used, size - used, "%.*s", (int)length,
						 at ? (const char *)at : "");
		} else {
			return;
		}
	}
	if (text[0] == '[')
		snprintf(text + used, size - used, "]");
}

static int event_to_guest(const uint8_t *payload, size_t size)
{
	struct in in = { .at = payload, .left = size };
	int32_t number = in_i32(&in);
	char tag[16], text[LOG_PAYLOAD_MAX];

	event_text(&in, text, sizeof(text));
	if (number == EVENT_TAG_KILLINFO)
		snprintf(tag, sizeof(tag), "killinfo");
	else
		snprintf(tag, sizeof(tag), "%d", number);
	return to_guest("events", 'I', tag, text);
}

int log_android(uint8_t log_id, const uint8_t *payload, size_t size)
{
	static const char *const BUFFERS[] = { "main", "radio", "events", "system", "crash" };
	static const char PRIORITIES[] = "VVVDIWEFS";
	const uint8_t *tag = payload + 1, *tag_end, *message;

	if (size < 4 || size > LOG_PAYLOAD_MAX || log_id >= LMK_ARRAY_LEN(BUFFERS))
		return -EINVAL;
	if (logd_fd >= 0)
		return to_logd(log_id, payload, size);
	if (log_id == LOG_ID_EVENTS)
		return event_to_guest(payload, size);
	tag_end = memchr(tag, 0, size - 1);
	message = tag_end ? tag_end + 1 : NULL;
	if (!message || !memchr(message, 0, size - (size_t)(message - payload)) || payload[0] >= 9)
		return -EINVAL;
	return to_guest(BUFFERS[log_id], PRIORITIES[payload[0]], (const char *)tag, (const char *)message);
}

void say(char priority, const char *format, ...)
{
	static const char LETTERS[] = "??VDIWEF";
	uint8_t payload[1024];
	char *text = (char *)payload + 1 + sizeof(TAG);
	size_t room = sizeof(payload) - 1 - sizeof(TAG);
	const char *letter = strchr(LETTERS, priority);
	va_list arguments;

	payload[0] = (uint8_t)(letter ? letter - LETTERS : 4);
	memcpy(payload + 1, TAG, sizeof(TAG));
	va_start(arguments, format);
	vsnprintf(text, room, format, arguments);
	va_end(arguments);
	log_android(LOG_ID_MAIN, payload, 1 + sizeof(TAG) + strlen(text) + 1);
	if (own_log_fd >= 0)
		dprintf(own_log_fd, "%lld %c %s\n", (long long)(lmk_now_ns() / NS_PER_MS), priority, text);
}
