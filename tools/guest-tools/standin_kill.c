/* SPDX-License-Identifier: Apache-2.0
 *
 * The killing half of the stand-in for the stock lmkd, so that a dry run has somebody to watch: on pressure it kills
 * the registered process with the highest oom_score_adj and logs it in lmkd's words. It reads no watermark and
 * waits for nothing: it is no lmkd.
 */
#include "guest.h"
#include "standin.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* lmkd's medium level (ro.lmk.psi_partial_stall_ms of a low-memory device): 200 ms of a second. */
#define TRIGGER "some 200000 1000000"
#define MIN_ADJ_PROPERTY "lmk.standin_kill_adj"

static long status_kib(const char *status, const char *key)
{
	const char *found = strstr(status, key);

	return found ? strtol(found + strlen(key), NULL, 10) : 0;
}

static void log_kill(const struct standin_process *victim)
{
	char path[64], status[4096], name[128] = "", message[512];

	snprintf(path, sizeof(path), "/proc/%d/cmdline", victim->pid);
	read_text(path, name, sizeof(name));
	snprintf(path, sizeof(path), "/proc/%d/status", victim->pid);
	if (read_text(path, status, sizeof(status)) < 0)
		status[0] = '\0';
	snprintf(message, sizeof(message),
		 "Kill '%s' (%d), uid %d, oom_score_adj %d to free %ldkB rss, %ldkB swap; reason: stand-in", name,
		 victim->pid, victim->uid, victim->adj, status_kib(status, "\nVmRSS:"), status_kib(status, "\nVmSwap:"));
	log_append("main", 'I', "lowmemorykiller", message);
}

int standin_kill_open(void)
{
	char value[32];
	int fd;

	if (property_get(MIN_ADJ_PROPERTY, value, sizeof(value)) <= 0)
		return -ENOENT;
	fd = open("/proc/pressure/memory", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (write(fd, TRIGGER, sizeof(TRIGGER)) < 0) {
		close(fd);
		return -EINVAL;
	}
	return fd;
}

int32_t standin_kill_one(const struct standin_process *processes, size_t count)
{
	static int32_t dying;
	const struct standin_process *victim = NULL;
	char value[32] = "";
	int32_t pid;

	if (dying && kill(dying, 0) == 0)
		return 0;
	property_get(MIN_ADJ_PROPERTY, value, sizeof(value));
	for (size_t i = 0; i < count; i++)
		if (processes[i].adj >= atoi(value) && (!victim || processes[i].adj > victim->adj))
			victim = &processes[i];
	if (!victim)
		return 0;
	pid = victim->pid;
	log_kill(victim);
	if (kill(pid, SIGKILL) == 0)
		dying = pid;
	return pid;
}
