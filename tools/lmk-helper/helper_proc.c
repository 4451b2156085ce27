/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading and writing under the proc root. Texts go to the host as the kernel wrote them: parsing lives in one
 * place, in Python, except for the few numbers that kills and the fail-safe need here.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>
#include <unistd.h>

static const char *const FILES[FILE_COUNT] = { "meminfo",	  "vmstat",	 "zoneinfo",
					       "pressure/memory", "pressure/io", "pressure/cpu" };
static const char *const FIELDS[] = { "status", "cmdline", "stat", "statm", "oom_score_adj", "cgroup" };

/* One buffer for the main thread's reads: zoneinfo of a big machine is the longest text. */
char scratch[SCRATCH_BYTES];
static int kept[FILE_COUNT];
static bool is_procfs;	/* not a fake root */

/* Likely victims stay the same from sample to sample, and opening a file costs twice as much as reading it. A
 * descriptor belongs to the process it was opened for, also when another one has got the number. */
#define KEPT_PIDS 4
#define STATUS_BYTES 2048	/* of a process with few groups; a longer text is not kept */
#define STATUS_FRESH_NS (20 * NS_PER_MS)
static struct kept_process {
	uint32_t handle;	/* 0: free */
	uint32_t used;
	int fds[FIELD_COUNT];
	/* The last status that went into a sample, for the kill that may come of it. */
	char status[STATUS_BYTES];
	int64_t status_ns;	/* 0: none */
} kept_processes[KEPT_PIDS];
static uint32_t kept_uses;

void proc_init(void)
{
	struct statfs info;

	is_procfs = fstatfs(proc_fd, &info) == 0 && info.f_type == PROC_SUPER_MAGIC;
	for (size_t i = 0; i < FILE_COUNT; i++)
		kept[i] = -1;
	for (size_t i = 0; i < KEPT_PIDS; i++) {
		kept_processes[i].handle = 0;
		for (size_t field = 0; field < FIELD_COUNT; field++)
			kept_processes[i].fds[field] = -1;
	}
}

/* Descriptors are kept: opening costs as much as reading. One that fails is opened anew next time. */
static ssize_t read_kept(unsigned file, char *buffer, size_t size, uint8_t *ret_op)
{
	ssize_t length;

	if (kept[file] < 0) {
		kept[file] = openat(proc_fd, FILES[file], O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (kept[file] < 0) {
			*ret_op = OP_OPEN;
			return -errno;
		}
	}
	length = file == FILE_VMSTAT || file == FILE_ZONEINFO ? lmk_reread(kept[file], buffer, size) :
								 lmk_reread_record(kept[file], buffer, size);
	*ret_op = length < 0 ? OP_IO : OP_NONE;
	if (length < 0) {
		close(kept[file]);
		kept[file] = -1;
	}
	return length;
}

/* Which lines of vmstat are wanted: the same ones for as long as the machine runs, so names are compared once. */
#define VMSTAT_LINES_MAX 1024
static struct {
	size_t lines;	/* 0: not known yet */
	bool wanted[VMSTAT_LINES_MAX];
} vmstat;

void proc_settings_changed(void)
{
	vmstat.lines = 0;
}

static bool is_wanted(const char *line)
{
	size_t length = strcspn(line, " ");

	for (const char *name = shared->settings.vmstat_names; *name; name += strcspn(name, ",") + (strchr(name, ',') != NULL))
		if (strcspn(name, ",") == length && memcmp(name, line, length) == 0)
			return true;
	return false;
}

static const char *line_end(const char *line, const char *end)
{
	const char *found = memchr(line, '\n', (size_t)(end - line));

	return found ? found + 1 : end;
}

static size_t count_lines(const char *text, const char *end)
{
	size_t lines = 0;

	for (const char *line = text; line < end; line = line_end(line, end))
		lines++;
	return lines;
}

/* Leaves only the wanted lines; the new length. */
static size_t keep_wanted_lines(char *text, size_t length)
{
	const char *end = text + length, *line = text, *next;
	size_t lines = count_lines(text, end), used = 0;

	if (lines > VMSTAT_LINES_MAX)
		return length;
	for (size_t number = 0; lines != vmstat.lines && number < lines; number++, line = line_end(line, end))
		vmstat.wanted[number] = is_wanted(line);
	vmstat.lines = lines;
	line = text;
	for (size_t number = 0; number < lines; number++, line = next) {
		next = line_end(line, end);
		if (!vmstat.wanted[number])
			continue;
		memmove(text + used, line, (size_t)(next - line));
		used += (size_t)(next - line);
	}
	return used;
}

static void put_files(struct out *out, uint32_t files)
{
	size_t place = out_list_begin(out);
	uint32_t count = 0;

	for (unsigned file = 0; file < FILE_COUNT; file++) {
		uint8_t op;
		ssize_t length;

		if (!(files & 1U << file))
			continue;
		length = read_kept(file, scratch, sizeof(scratch), &op);
		if (file == FILE_VMSTAT && length > 0 && shared->settings.vmstat_names[0])
			length = (ssize_t)keep_wanted_lines(scratch, (size_t)length);
		out_file_text(out, (uint16_t)file, op, length < 0 ? (int)-length : 0, lmk_now_ns(), scratch,
			      length < 0 ? 0 : (size_t)length);
		count++;
	}
	out_list_end(out, place, count);
}

void proc_put_snapshot(struct out *out, uint32_t files, uint32_t candidates, uint16_t fields)
{
	const struct process *process = NULL;
	size_t times = out->used, place;
	uint32_t count = 0;
	struct out patch;

	out_i64(out, lmk_now_ns());
	out_i64(out, 0);
	out_i64(out, trace_direct_start_ns);
	out_i64(out, trace_kswapd_start_ns);
	put_files(out, files);
	place = out_list_begin(out);
	while (count < candidates && (process = table_next_victim(process)) != NULL) {
		proc_put_pid(out, process->pid, process, fields);
		/* Reading memory.stat makes the kernel sum up every CPU's part: only for the likely victim. */
		fields &= (uint16_t)~(1U << FIELD_MEMCG_STAT);
		count++;
	}
	out_list_end(out, place, count);
	if (out->overflow)
		return;
	patch = (struct out){ .data = out->data + times + 8, .size = 8 };
	out_i64(&patch, lmk_now_ns());
}

static int open_pid_file(int32_t pid, const char *name, int flags)
{
	char path[64];
	int fd;

	if (lmk_format(path, sizeof(path), "%d/%s", pid, name) < 0)
		return -EINVAL;
	fd = openat(proc_fd, path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Path of the memory controller's group in the text of /proc/PID/cgroup: 0 or a negative errno. */
static int memcg_stat_path(char *cgroup, char *path, size_t size)
{
	char *next = NULL, *unified = NULL;

	for (char *line = strtok_r(cgroup, "\n", &next); line; line = strtok_r(NULL, "\n", &next)) {
		char *name = strchr(line, ':'), *group = name ? strchr(name + 1, ':') : NULL;

		if (!group)
			continue;
		*group++ = '\0';
		if (strcmp(name + 1, "memory") == 0)
			return lmk_format(path, size, "/dev/memcg%s/memory.stat", group) < 0 ? -ENAMETOOLONG : 0;
		if (strncmp(line, "0:", 2) == 0)
			unified = group;
	}
	if (!unified)
		return -ENOENT;
	return lmk_format(path, size, "/sys/fs/cgroup%s/memory.stat", unified) < 0 ? -ENAMETOOLONG : 0;
}

/* ret_keep: false for the root group, where a process is that may still get a group of its own. */
static int open_memcg_stat(int32_t pid, char *buffer, size_t size, uint8_t *ret_op, bool *ret_keep)
{
	char path[PATH_BYTES];
	ssize_t length = proc_read_pid(pid, "cgroup", buffer, size, ret_op);
	int error;

	if (length < 0)
		return (int)length;
	*ret_op = OP_OPEN;
	error = memcg_stat_path(buffer, path, sizeof(path));
	*ret_keep = error == 0 && !strstr(path, "//memory.stat");
	return error ? error : open_path(path, O_RDONLY);
}

static int open_field(int32_t pid, unsigned field, uint8_t *ret_op, bool *ret_keep)
{
	*ret_op = OP_OPEN;
	*ret_keep = true;
	return field == FIELD_MEMCG_STAT ? open_memcg_stat(pid, scratch, 16384, ret_op, ret_keep) :
					   open_pid_file(pid, FIELDS[field], O_RDONLY);
}

void proc_forget(uint32_t handle)
{
	for (size_t i = 0; i < KEPT_PIDS; i++) {
		struct kept_process *kept_process = &kept_processes[i];

		if (kept_process->handle != handle)
			continue;
		kept_process->handle = 0;
		kept_process->status_ns = 0;
		for (size_t field = 0; field < FIELD_COUNT; field++) {
			if (kept_process->fds[field] >= 0)
				close(kept_process->fds[field]);
			kept_process->fds[field] = -1;
		}
	}
}

/* The process's descriptors; those of the one that was not looked at for longest make room. */
static struct kept_process *keep(const struct process *process)
{
	struct kept_process *found = &kept_processes[0];

	for (size_t i = 0; i < KEPT_PIDS; i++) {
		if (kept_processes[i].handle == process->handle) {
			found = &kept_processes[i];
			break;
		}
		if (kept_processes[i].handle == 0 || (found->handle && kept_processes[i].used < found->used))
			found = &kept_processes[i];
	}
	if (found->handle != process->handle) {
		proc_forget(found->handle);
		found->handle = process->handle;
	}
	found->used = ++kept_uses;
	return found;
}

/* Opens what a sample and a kill will want of the likely victims, so that neither waits for it. */
void proc_keep_ready(void)
{
	const struct process *process = NULL;
	uint32_t wanted = shared->settings.candidate_fields | 1U << FIELD_STATUS | 1U << FIELD_STAT | 1U << FIELD_ADJ;

	for (uint32_t i = 0; i < shared->settings.candidates && i < KEPT_PIDS; i++) {
		process = table_next_victim(process);
		if (!process)
			return;
		for (unsigned field = 0; field < FIELD_COUNT; field++) {
			int *fd = &keep(process)->fds[field];
			bool keep_it;
			uint8_t op;

			if (!(wanted & 1U << field) || *fd >= 0)
				continue;
			*fd = open_field(process->pid, field, &op, &keep_it);
			if (*fd >= 0 && !keep_it)
				close(*fd);
			if (*fd < 0 || !keep_it)
				*fd = -1;
		}
	}
}

/* A field of a process: length or -errno. */
static ssize_t read_field(int32_t pid, const struct process *process, unsigned field, char *buffer, size_t size,
			  uint8_t *ret_op)
{
	int passing = -1, *fd = process ? &keep(process)->fds[field] : &passing;
	bool keep_it = true;
	ssize_t length;

	if (*fd < 0)
		*fd = open_field(pid, field, ret_op, &keep_it);
	if (*fd < 0)
		return *fd;
	length = lmk_reread_record(*fd, buffer, size);
	*ret_op = length < 0 ? OP_IO : OP_NONE;
	if (!process || length < 0 || !keep_it) {
		close(*fd);
		*fd = -1;
	}
	return length;
}

static void keep_status(const struct process *process, const char *text, ssize_t length)
{
	struct kept_process *kept_process = keep(process);

	kept_process->status_ns = 0;
	if (length <= 0 || length >= STATUS_BYTES)
		return;
	memcpy(kept_process->status, text, (size_t)length);
	kept_process->status[length] = '\0';
	kept_process->status_ns = lmk_now_ns();
}

void proc_put_pid(struct out *out, int32_t pid, const struct process *process, uint16_t fields)
{
	struct wire_row row = { .pid = pid };
	size_t place;
	uint32_t count = 0;

	if (process) {
		row.handle = process->handle;
		row.start_ticks = process->start_ticks;
		row.uid = process->uid;
		row.oom_score_adj = process->oom_score_adj;
	}
	out_pid_entry(out, &row);
	place = out_list_begin(out);
	for (unsigned field = 0; field < FIELD_COUNT; field++) {
		uint8_t op;
		ssize_t length;

		if (!(fields & 1U << field))
			continue;
		length = read_field(pid, process, field, scratch, 16384, &op);
		out_pid_text(out, (uint8_t)field, op, length < 0 ? (int)-length : 0, scratch,
			     length < 0 ? 0 : (size_t)length);
		if (process && field == FIELD_STATUS)
			keep_status(process, scratch, length);
		count++;
	}
	out_list_end(out, place, count);
}

ssize_t proc_read_pid(int32_t pid, const char *name, char *buffer, size_t size, uint8_t *ret_op)
{
	int fd = open_pid_file(pid, name, O_RDONLY);
	ssize_t length;

	*ret_op = OP_OPEN;
	if (fd < 0)
		return fd;
	length = lmk_reread_record(fd, buffer, size);
	*ret_op = length < 0 ? OP_IO : OP_NONE;
	close(fd);
	return length;
}

int proc_start_ticks(int32_t pid, const struct process *known, uint64_t *ret_ticks)
{
	char text[1024];
	uint8_t op;
	ssize_t length = read_field(pid, known, FIELD_STAT, text, sizeof(text), &op);

	if (length < 0)
		return length == -ENOENT ? -ESRCH : (int)length;
	return lmk_stat_field(text, 22, ret_ticks);
}

int proc_adj(int32_t pid, const struct process *known, int32_t *ret_adj)
{
	char text[32];
	uint8_t op;
	int64_t value;
	ssize_t length = read_field(pid, known, FIELD_ADJ, text, sizeof(text), &op);

	if (length < 0)
		return length == -ENOENT ? -ESRCH : (int)length;
	text[strcspn(text, "\n")] = '\0';
	if (lmk_parse_i64(text, &value) != 0)
		return -EINVAL;
	*ret_adj = (int32_t)value;
	return 0;
}

int proc_write_adj(int32_t pid, int32_t adj, uint8_t *ret_op)
{
	char text[16];
	int fd, length = lmk_format(text, sizeof(text), "%d", adj);
	int error = 0;

	*ret_op = OP_OPEN;
	fd = open_pid_file(pid, "oom_score_adj", O_WRONLY);
	if (fd < 0)
		return fd;
	if (write(fd, text, (size_t)length) != length)
		error = errno ? -errno : -EIO;
	*ret_op = error ? OP_IO : OP_NONE;
	close(fd);
	return error;
}

int64_t proc_free_pages(void)
{
	struct sysinfo info;
	char text[64];
	int64_t pages;
	ssize_t got;
	int fd;

	/* The same counter as vmstat's, without its hundred others. */
	if (is_procfs && sysinfo(&info) == 0)
		return (int64_t)((uint64_t)info.freeram * info.mem_unit / (uint64_t)sysconf(_SC_PAGESIZE));
	fd = openat(proc_fd, "vmstat", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	/* nr_free_pages is the first line. */
	got = pread(fd, text, sizeof(text) - 1, 0);
	close(fd);
	if (got <= 0)
		return -1;
	text[got] = '\0';
	return lmk_find_number(text, "nr_free_pages ", &pages) == 0 ? pages : -1;
}

int64_t proc_percpu_pages(char *buffer, size_t size)
{
	int64_t pages = 0;

	if (lmk_read_file(proc_fd, "zoneinfo", buffer, size) < 0)
		return 0;
	for (const char *at = strstr(buffer, "count:"); at; at = strstr(at, "count:")) {
		at += 6;
		pages += strtoll(at, NULL, 10);
	}
	return pages;
}

static void parse_memory(const char *status, struct proc_memory *ret_memory)
{
	static const struct { const char *key; size_t offset; } LINES[] = {
		{ "RssAnon:", offsetof(struct proc_memory, anon_kib) },
		{ "RssShmem:", offsetof(struct proc_memory, shmem_kib) },
		{ "VmSwap:", offsetof(struct proc_memory, swap_kib) },
		{ "VmRSS:", offsetof(struct proc_memory, rss_kib) },
	};
	int64_t value;

	for (size_t i = 0; i < LMK_ARRAY_LEN(LINES); i++) {
		/* A process without an mm (zombie) has no such lines: nothing is resident. */
		value = 0;
		lmk_find_number(status, LINES[i].key, &value);
		*(int64_t *)((char *)ret_memory + LINES[i].offset) = value;
	}
	if (lmk_find_number(status, "Uid:", &value) == 0)
		ret_memory->uid = (int32_t)value;
	if (lmk_find_number(status, "Tgid:", &value) == 0)
		ret_memory->tgid = (int32_t)value;
}

int proc_memory(int32_t pid, const struct process *known, struct proc_memory *ret_memory)
{
	char text[8192];
	uint8_t op;
	ssize_t length = read_field(pid, known, FIELD_STATUS, text, sizeof(text), &op);

	*ret_memory = (struct proc_memory){ -1, -1, -1, -1, -1, -1 };
	if (length < 0)
		return length == -ENOENT ? -ESRCH : (int)length;
	parse_memory(text, ret_memory);
	return 0;
}

int proc_memory_sampled(int32_t pid, const struct process *known, struct proc_memory *ret_memory)
{
	const struct kept_process *kept_process = known ? keep(known) : NULL;

	if (!kept_process || !kept_process->status_ns || lmk_now_ns() - kept_process->status_ns > STATUS_FRESH_NS)
		return proc_memory(pid, known, ret_memory);
	*ret_memory = (struct proc_memory){ -1, -1, -1, -1, -1, -1 };
	parse_memory(kept_process->status, ret_memory);
	return 0;
}

void proc_name(int32_t pid, char *name, size_t size)
{
	char text[256];
	uint8_t op;
	ssize_t length = proc_read_pid(pid, "cmdline", text, sizeof(text), &op);

	if (length <= 0 || text[0] == '\0') {
		length = proc_read_pid(pid, "comm", text, sizeof(text), &op);
		if (length < 0)
			text[0] = '\0';
	}
	text[strcspn(text, " \n")] = '\0';
	snprintf(name, size, "%s", text);
}

int64_t proc_meminfo_kib(const char *key)
{
	char text[4096];
	uint8_t op;
	int64_t value;

	if (read_kept(FILE_MEMINFO, text, sizeof(text), &op) < 0)
		return -1;
	return lmk_find_number(text, key, &value) == 0 ? value : -1;
}

int open_path(const char *path, int flags)
{
	char full[PATH_BYTES];
	int error, fd;

	if (strncmp(path, "/proc/", 6) == 0) {
		fd = openat(proc_fd, path + 6, flags | O_CLOEXEC | O_NONBLOCK);
	} else {
		error = root_path(full, path);
		if (error != 0)
			return error;
		fd = open(full, flags | O_CLOEXEC | O_NONBLOCK);
	}
	return fd < 0 ? -errno : fd;
}

