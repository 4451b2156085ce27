/* SPDX-License-Identifier: Apache-2.0
 *
 * Pressure triggers that the host arms: PSI (the text is written to the pressure file, which then answers EPOLLPRI)
 * and memcg v1 vmpressure (an eventfd). In a fake proc root a FIFO stands for a pressure file: every byte written to
 * it is an event.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOTS 8

static struct {
	int fd, level_fd;
	bool drained;	/* a FIFO or eventfd: must be read empty */
} slots[SLOTS];
static uint32_t fired;

void trigger_init(void)
{
	for (size_t i = 0; i < SLOTS; i++)
		slots[i].fd = slots[i].level_fd = -1;
	fired = 0;
}

int trigger_open_psi(const char *path, const char *text, bool *ret_is_fifo)
{
	struct stat state;
	int error = 0, fd = open_path(path, O_RDWR);

	if (fd < 0)
		return fd;
	if (fstat(fd, &state) == 0 && S_ISFIFO(state.st_mode)) {
		*ret_is_fifo = true;
		return fd;
	}
	/* With its NUL, as lmkd writes it. */
	if (write(fd, text, strlen(text) + 1) < 0)
		error = -errno;
	if (error != 0) {
		close(fd);
		return error;
	}
	*ret_is_fifo = false;
	return fd;
}

void trigger_drain(int fd)
{
	char bytes[64];

	while (read(fd, bytes, sizeof(bytes)) > 0)
		continue;
}

static int open_vmpressure(const char *path, const char *level, int *ret_level_fd)
{
	char control[PATH_BYTES], line[128];
	const char *slash = strrchr(path, '/');
	int control_fd, error = 0, event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int level_fd = open_path(path, O_RDONLY);

	if (event < 0 || level_fd < 0 || !slash)
		error = event < 0 ? -errno : level_fd < 0 ? level_fd : -EINVAL;
	if (error == 0)
		error = lmk_format(control, sizeof(control), "%.*s/cgroup.event_control", (int)(slash - path), path);
	control_fd = error < 0 ? error : open_path(control, O_WRONLY);
	error = control_fd < 0 ? control_fd : lmk_format(line, sizeof(line), "%d %d %s", event, level_fd, level);
	if (error > 0)
		error = write(control_fd, line, strlen(line) + 1) < 0 ? -errno : 0;
	if (control_fd >= 0)
		close(control_fd);
	if (error != 0) {
		if (event >= 0)
			close(event);
		if (level_fd >= 0)
			close(level_fd);
		return error;
	}
	*ret_level_fd = level_fd;
	return event;
}

static void disarm(uint8_t slot)
{
	if (slots[slot].fd >= 0) {
		loop_remove(slots[slot].fd);
		close(slots[slot].fd);
	}
	if (slots[slot].level_fd >= 0)
		close(slots[slot].level_fd);
	slots[slot].fd = slots[slot].level_fd = -1;
}

int trigger_arm(uint8_t slot, uint8_t kind, const char *path, const char *text)
{
	int fd, error, level_fd = -1;
	bool is_fifo = false;

	if (slot >= SLOTS || kind > TRIGGER_VMPRESSURE || path[0] != '/')
		return -EINVAL;
	disarm(slot);
	if (text[0] == '\0')
		return 0;
	fd = kind == TRIGGER_PSI ? trigger_open_psi(path, text, &is_fifo) : open_vmpressure(path, text, &level_fd);
	if (fd < 0)
		return fd;
	slots[slot].drained = is_fifo || kind == TRIGGER_VMPRESSURE;
	error = loop_add(fd, slots[slot].drained ? EPOLLIN : EPOLLPRI, SRC_TRIGGER, slot);
	if (error != 0) {
		close(fd);
		if (level_fd >= 0)
			close(level_fd);
		return error;
	}
	slots[slot].fd = fd;
	slots[slot].level_fd = level_fd;
	return 0;
}

void trigger_fired(uint32_t slot)
{
	if (slots[slot].fd < 0)
		return;
	if (slots[slot].drained)
		trigger_drain(slots[slot].fd);
	fired |= 1U << slot;
}

void trigger_flush(void)
{
	struct out *out;
	uint32_t which = fired;

	fired = 0;
	/* A host that has gone silent would only find stale samples in its queue. */
	if (which == 0 || !host_controls())
		return;
	trace_drain();
	out = host_begin(MSG_PRESSURE, 0);
	if (!out)
		return;
	out_u32(out, which);
	out_i64(out, loop_wake_ns());
	proc_put_snapshot(out, shared->settings.sample_files, shared->settings.candidates,
			  shared->settings.candidate_fields);
	host_end(false);
}
