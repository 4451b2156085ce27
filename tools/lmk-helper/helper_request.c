/* SPDX-License-Identifier: Apache-2.0
 *
 * What the controlling host asks for. Each request is parsed completely before anything is done.
 */
#include "helper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define PIDS_MAX 64
#define SIZES_MAX 4096
#define PATHS_MAX 64
#define ROWS_PER_TURN 16
#define ARGV_MAX 8
#define ARGUMENT_MAX 512

static const char *const READABLE[] = { "/proc/",	       "/sys/fs/cgroup/", "/dev/memcg/",
					"/sys/kernel/mm/",     "/sys/block/",
					"/sys/module/lowmemorykiller/" };
static const char *const CGROUPS[] = { "/sys/fs/cgroup/", "/dev/memcg/" };

/* A GET_TABLE that is being answered, some rows per turn so that kills can come between. */
static struct {
	bool active;
	uint8_t which;
	uint32_t id, next_entry;
	DIR *directory;
} walk;

/* --- answers that need no request ------------------------------------------------------------------------ */

static int64_t realtime_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

void request_hello(uint32_t id)
{
	struct utsname name;
	struct out *out = host_begin(MSG_HELLO, id);
	int64_t total_kib = proc_meminfo_kib("MemTotal:");
	struct wire_hello hello = {
		.process_reap = call_process_reap, .process_mrelease = call_process_mrelease,
		.pidfd_open = call_pidfd_open, .capabilities = worker_capabilities(),
		.page_bytes = (uint32_t)sysconf(_SC_PAGESIZE), .ticks_per_s = (uint32_t)sysconf(_SC_CLK_TCK),
		.cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN), .uid = (int32_t)geteuid(),
		.pid = shared->worker_pid, .guardian_pid = shared->guardian_pid,
		.worker_starts = shared->worker_starts, .mem_total_kib = total_kib < 0 ? 0 : (uint64_t)total_kib,
		.now_ns = lmk_now_ns(), .realtime_ns = realtime_ns(),
	};

	if (!out)
		return;
	uname(&name);
	hello.sysname = name.sysname;
	hello.release = name.release;
	hello.kernel_version = name.version;
	hello.machine = name.machine;
	out_hello(out, &hello);
	host_end(true);
}

/* --- paths ------------------------------------------------------------------------------------------------- */

static bool has_prefix(const char *path, const char *const *prefixes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strncmp(path, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	return false;
}

static bool climbs(const char *path)
{
	for (const char *at = strstr(path, ".."); at; at = strstr(at + 1, ".."))
		if (at[-1] == '/' && (at[2] == '/' || at[2] == '\0'))
			return true;
	return false;
}

static bool may_read(const char *path)
{
	return has_prefix(path, READABLE, LMK_ARRAY_LEN(READABLE)) && !climbs(path);
}

static bool may_write(const char *path)
{
	const char *name = strrchr(path, '/');

	if (!may_read(path) || !name)
		return false;
	if (strncmp(path, "/proc/", 6) == 0)
		return strspn(path + 6, "0123456789") > 0 &&
		       strcmp(path + 6 + strspn(path + 6, "0123456789"), "/oom_score_adj") == 0;
	return has_prefix(path, CGROUPS, LMK_ARRAY_LEN(CGROUPS)) &&
	       (strncmp(name, "/memory.", 8) == 0 || strncmp(name, "/cgroup.", 8) == 0);
}

static ssize_t read_path(const char *path, char *buffer, size_t size, uint8_t *ret_op)
{
	ssize_t length;
	int fd;

	*ret_op = OP_REFUSED;
	if (!may_read(path))
		return -EPERM;
	*ret_op = OP_OPEN;
	fd = open_path(path, O_RDONLY);
	if (fd < 0)
		return fd;
	length = lmk_reread(fd, buffer, size);
	/* Half a file must not pass for a whole one. */
	if (length == (ssize_t)size - 1)
		length = -EFBIG;
	*ret_op = length < 0 ? OP_IO : OP_NONE;
	close(fd);
	return length;
}

static int write_path(const char *path, const void *data, size_t size, uint8_t *ret_op)
{
	int fd, error = 0;

	*ret_op = OP_REFUSED;
	if (!may_write(path))
		return -EPERM;
	*ret_op = OP_OPEN;
	fd = open_path(path, O_WRONLY);
	if (fd < 0)
		return fd;
	if (write(fd, data, size) != (ssize_t)size)
		error = errno ? -errno : -EIO;
	*ret_op = error ? OP_IO : OP_NONE;
	close(fd);
	return error;
}

/* --- reading requests -------------------------------------------------------------------------------------- */

static void get_sample(uint32_t id, struct in *in)
{
	uint32_t files = in_u32(in);
	uint16_t candidates = in_u16(in), fields = in_u16(in);
	struct out *out;

	if (in->bad)
		return;
	trace_drain();
	out = host_begin(MSG_SAMPLE, id);
	if (!out)
		return;
	proc_put_snapshot(out, files, candidates, fields);
	host_end(true);
}

static void get_files(uint32_t id, struct in *in)
{
	uint32_t count = in_count(in, 2);
	char path[PATH_BYTES];
	struct out *out;

	if (count > PATHS_MAX)
		in->bad = true;
	out = in->bad ? NULL : host_begin(MSG_FILES, id);
	if (!out)
		return;
	out_u32(out, count);
	for (uint32_t i = 0; i < count; i++) {
		uint8_t op;
		ssize_t length;

		in_text(in, path, sizeof(path));
		length = read_path(path, scratch, sizeof(scratch), &op);
		out_file_text(out, (uint16_t)i, op, length < 0 ? (int)-length : 0, lmk_now_ns(), scratch,
			      length < 0 ? 0 : (size_t)length);
	}
	if (in->bad)
		host_abort();
	else
		host_end(true);
}

static void get_proc(uint32_t id, struct in *in)
{
	uint16_t fields = in_u16(in);
	uint32_t count = in_count(in, 4);
	struct out *out;

	if (count > PIDS_MAX)
		in->bad = true;
	out = in->bad ? NULL : host_begin(MSG_PROC, id);
	if (!out)
		return;
	out_u32(out, count);
	for (uint32_t i = 0; i < count; i++) {
		int32_t pid = in_i32(in);

		proc_put_pid(out, pid, table_find(pid), fields);
	}
	host_end(true);
}

static void get_sizes(uint32_t id, struct in *in)
{
	uint32_t count = in_count(in, 4);
	struct out *out;

	if (count > SIZES_MAX)
		in->bad = true;
	out = in->bad ? NULL : host_begin(MSG_SIZES, id);
	if (!out)
		return;
	out_u32(out, count);
	for (uint32_t i = 0; i < count; i++) {
		int32_t pid = in_i32(in);
		char text[256];
		uint8_t op;
		ssize_t length = proc_read_pid(pid, "statm", text, sizeof(text), &op);

		out_i32(out, pid);
		out_u8(out, op);
		out_i32(out, length < 0 ? (int)-length : 0);
		out_text(out, length < 0 ? "" : text);
	}
	host_end(true);
}

/* --- the table ---------------------------------------------------------------------------------------------- */

void request_forget(void)
{
	if (walk.directory)
		closedir(walk.directory);
	walk.directory = NULL;
	walk.active = false;
}

static void get_table(uint32_t id, struct in *in)
{
	int fd;

	request_forget();
	walk.which = in_u8(in);
	walk.id = id;
	walk.next_entry = 0;
	if (in->bad)
		return;
	if (walk.which == TABLE_ALL) {
		fd = openat(proc_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		walk.directory = fd < 0 ? NULL : fdopendir(fd);
		if (!walk.directory) {
			host_send_error(id, errno, REQ_GET_TABLE, "cannot list processes");
			return;
		}
	}
	walk.active = true;
}

static bool next_pid(int32_t *ret_pid, const struct process **ret_process)
{
	struct dirent *entry;
	int64_t pid;

	if (!walk.directory) {
		while (walk.next_entry < shared->table_high && !shared->table[walk.next_entry].used)
			walk.next_entry++;
		if (walk.next_entry >= shared->table_high)
			return false;
		*ret_process = &shared->table[walk.next_entry++];
		*ret_pid = (*ret_process)->pid;
		return true;
	}
	while ((entry = readdir(walk.directory)) != NULL) {
		if (lmk_parse_i64(entry->d_name, &pid) != 0 || pid <= 0)
			continue;
		*ret_pid = (int32_t)pid;
		*ret_process = table_find((int32_t)pid);
		return true;
	}
	return false;
}

static bool put_row(struct out *out, int32_t pid, const struct process *process)
{
	struct wire_row row = { .pid = pid, .rss_pages = -1, .uid = -1 };
	struct proc_memory memory;
	char name[256];

	if (proc_start_ticks(pid, NULL, &row.start_ticks) != 0 || proc_memory(pid, NULL, &memory) != 0 ||
	    proc_adj(pid, NULL, &row.oom_score_adj) != 0)
		return false;
	proc_name(pid, name, sizeof(name));
	row.uid = memory.uid;
	row.rss_pages = memory.rss_kib < 0 ? -1 : memory.rss_kib * 1024 / sysconf(_SC_PAGESIZE);
	/* A pid's former process may still be in the table. */
	if (process && process->start_ticks == row.start_ticks) {
		row.handle = process->handle;
		row.order = process->order;
		/* Of all processes /proc is asked: beside another lmkd nobody tells us of a change. */
		if (walk.which == TABLE_REGISTERED) {
			row.uid = process->uid;
			row.oom_score_adj = process->oom_score_adj;
		}
		row.owner_pid = process->owner_pid;
		row.type = process->type;
	}
	out_row(out, &row, name);
	return true;
}

int64_t request_tick(int64_t now_ns)
{
	const struct process *process;
	struct out *out;
	size_t place, last_at;
	uint32_t count = 0;
	bool last = false;
	int32_t pid;

	if (!walk.active)
		return INT64_MAX;
	out = host_begin(MSG_PROC_TABLE, walk.id);
	if (!out)
		return INT64_MAX;
	last_at = out->used;
	out_u8(out, 0);
	place = out_list_begin(out);
	for (int looked = 0; looked < ROWS_PER_TURN && !last; looked++) {
		last = !next_pid(&pid, &process);
		if (!last)
			count += put_row(out, pid, process);
	}
	out_list_end(out, place, count);
	if (last && !out->overflow)
		out->data[last_at] = 1;
	if (last)
		request_forget();
	host_end(true);
	return last ? INT64_MAX : now_ns;
}

static void watch(uint32_t id, struct in *in)
{
	uint32_t count = in_count(in, 20);
	struct out *out = in->bad ? NULL : host_begin(MSG_WATCHED, id);

	if (!out)
		return;
	out_u32(out, count);
	for (uint32_t i = 0; i < count; i++) {
		int32_t pid = in_i32(in), uid = in_i32(in), adj = in_i32(in);
		uint64_t ticks = in_u64(in);
		struct process *process = NULL;
		struct process *known = table_find(pid);
		int error = table_register(pid, uid, adj, LMK_PROC_TYPE_APP, known ? known->owner_pid : 0, ticks,
					   &process);

		out_i32(out, pid);
		out_i32(out, -error);
		out_u32(out, process ? process->handle : 0);
		out_u64(out, process ? process->start_ticks : 0);
	}
	host_end(true);
}

static void unwatch(uint32_t id, struct in *in)
{
	uint32_t count = in_count(in, 4);
	int error = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct process *process = table_by_handle(in_u32(in));

		if (process)
			table_remove(process);
		else
			error = ESRCH;
	}
	if (!in->bad)
		host_send_done(id, OP_NONE, error);
}

/* --- acting requests ------------------------------------------------------------------------------------------ */

void request_kill(uint32_t id, struct in *in)
{
	struct wire_signalled answer;
	struct kill_wish wish = { .id = id, .received_ns = loop_wake_ns() };
	struct out *out;

	wish.handle = in_u32(in);
	wish.pid = in_i32(in);
	wish.start_ticks = in_u64(in);
	wish.signal = in_i32(in);
	wish.method = in_u8(in);
	wish.flags = in_u32(in);
	wish.oom_score_adj = in_i32(in);
	if (in->bad || wish.method > REAP_CGROUP || (wish.method == REAP_CGROUP && !(wish.flags & KILL_GROUP)) || wish.signal < 0 || wish.signal > 64) {
		host_send_error(id, EINVAL, REQ_KILL, "malformed Kill");
		return;
	}
	/* A kill without identity would hit whoever has the pid by now. */
	if (wish.handle == 0 && wish.start_ticks == 0) {
		host_send_error(id, EINVAL, REQ_KILL, "Kill needs a handle or a start time");
		return;
	}
	kill_now(&wish, &answer);
	out = host_begin(MSG_SIGNALLED, id);
	if (out) {
		out_signalled(out, &answer);
		host_end(true);
	}
}

static void settings(uint32_t id, struct in *in)
{
	int32_t errors[SET_OOM + 1] = { 0 };
	struct out *out;

	in_settings(in, &shared->settings);
	if (in->bad)
		return;
	shared->have_settings = 1;
	worker_apply_settings(errors);
	out = host_begin(MSG_SETTINGS_DONE, id);
	if (!out)
		return;
	out_u32(out, SET_OOM);
	for (uint8_t item = SET_OOM_SCORE_ADJ; item <= SET_OOM; item++) {
		out_u8(out, item);
		out_i32(out, errors[item]);
	}
	host_end(true);
}

static void arm(uint32_t id, struct in *in)
{
	uint8_t slot = in_u8(in), kind = in_u8(in);
	char path[PATH_BYTES], text[256];
	struct out *out;
	int error;

	in_text(in, path, sizeof(path));
	in_text(in, text, sizeof(text));
	if (in->bad)
		return;
	error = trigger_arm(slot, kind, path, text);
	out = host_begin(MSG_ARMED, id);
	if (out) {
		out_u8(out, slot);
		out_i32(out, -error);
		host_end(true);
	}
}

static void write_adj(uint32_t id, struct in *in)
{
	int32_t pid = in_i32(in);
	uint64_t wanted = in_u64(in), ticks = 0;
	int32_t adj = in_i32(in);
	uint8_t op = OP_OPEN;
	int error = 0;

	if (in->bad)
		return;
	if (pid <= 0 || adj < -1000 || adj > 1000)
		error = -EINVAL;
	if (error == 0 && wanted != 0)
		error = proc_start_ticks(pid, NULL, &ticks);
	if (error == 0 && wanted != 0 && ticks != wanted)
		error = -ESTALE;
	if (error == 0)
		error = proc_write_adj(pid, adj, &op);
	host_send_done(id, error ? op : OP_NONE, -error);
}

static void write_file(uint32_t id, struct in *in)
{
	char path[PATH_BYTES];
	const uint8_t *data;
	uint8_t op;
	size_t size;
	int error;

	in_text(in, path, sizeof(path));
	data = in_blob(in, &size);
	if (in->bad)
		return;
	error = write_path(path, data, size, &op);
	host_send_done(id, op, -error);
}

static void control_reply(uint32_t id, struct in *in)
{
	uint32_t connection = in_u32(in);
	size_t size;
	const uint8_t *data = in_blob(in, &size);

	if (!in->bad)
		host_send_done(id, OP_NONE, -lmkd_reply(connection, data, size));
}

static void close_connection(uint32_t id, struct in *in)
{
	uint32_t connection = in_u32(in);

	if (!in->bad)
		host_send_done(id, OP_NONE, -lmkd_close(connection));
}

static void android_log(uint32_t id, struct in *in)
{
	uint8_t log_id = in_u8(in);
	size_t size;
	const uint8_t *payload = in_blob(in, &size);

	if (!in->bad)
		host_send_done(id, OP_NONE, -log_android(log_id, payload, size));
}

static void run(uint32_t id, struct in *in)
{
	static char arguments[ARGV_MAX][ARGUMENT_MAX];
	char *argv[ARGV_MAX + 1] = { NULL };
	uint32_t count = in_count(in, 2);
	struct out *out;
	int error;

	if (count == 0 || count > ARGV_MAX)
		in->bad = true;
	for (uint32_t i = 0; !in->bad && i < count; i++) {
		in_text(in, arguments[i], ARGUMENT_MAX);
		argv[i] = arguments[i];
	}
	if (in->bad)
		return;
	error = run_start(id, argv);
	out = error != 0 ? host_begin(MSG_RAN, id) : NULL;
	if (out) {
		out_i32(out, -error);
		out_i32(out, -1);
		host_end(true);
	}
}

static void stop(uint32_t id, struct in *in)
{
	uint8_t handback = in_u8(in);

	if (in->bad)
		return;
	if (handback) {
		failsafe_handback(id, true);
		return;
	}
	host_send_done(id, OP_NONE, 0);
	loop_stop();
}

static void ping(uint32_t id, struct in *in)
{
	struct out *out = id ? host_begin(MSG_PONG, id) : NULL;

	(void)in;
	if (!out)
		return;
	out_i64(out, lmk_now_ns());
	out_i64(out, realtime_ns());
	host_end(true);
}

void request_run(uint16_t type, uint32_t id, struct in *in)
{
	static void (*const RUN[])(uint32_t id, struct in *in) = {
		[REQ_SETTINGS] = settings, [REQ_ARM] = arm, [REQ_GET_SAMPLE] = get_sample,
		[REQ_GET_FILES] = get_files, [REQ_GET_PROC] = get_proc, [REQ_GET_SIZES] = get_sizes,
		[REQ_GET_TABLE] = get_table, [REQ_WATCH] = watch, [REQ_UNWATCH] = unwatch,
		[REQ_KILL] = request_kill, [REQ_WRITE_ADJ] = write_adj, [REQ_WRITE_FILE] = write_file,
		[REQ_CONTROL_REPLY] = control_reply, [REQ_CLOSE] = close_connection, [REQ_LOG] = android_log,
		[REQ_RUN] = run, [REQ_STOP] = stop, [REQ_PING] = ping,
	};

	if (type >= LMK_ARRAY_LEN(RUN) || !RUN[type]) {
		host_send_error(id, EOPNOTSUPP, type, "unknown request");
		return;
	}
	RUN[type](id, in);
	if (in->bad)
		host_send_error(id, EINVAL, type, "malformed request");
}
