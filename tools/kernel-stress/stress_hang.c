/* SPDX-License-Identifier: GPL-2.0 */
/* A round that does not end: what it was doing, and where in the kernel everybody in it stands. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stress.h"

#define TASKS_SHOWN_MAX 40
#define GENERATIONS_MAX 8
/* Reading a stack takes a lock of the task that may be what everybody waits for. */
#define STACKS_LIMIT_MS 10000

static size_t read_file(char *text, size_t size, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[length > 0 ? length : 0] = '\0';
	return strlen(text);
}

static pid_t parent_of(pid_t pid)
{
	char path[64], text[512];
	const char *end;
	int parent = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	read_file(text, sizeof(text), path);
	end = strrchr(text, ')');
	if (end)
		sscanf(end + 1, " %*c %d", &parent);
	return parent;
}

static bool belongs_to(pid_t pid, pid_t ancestor)
{
	int i;

	for (i = 0; i < GENERATIONS_MAX && pid > 1; i++) {
		if (pid == ancestor)
			return true;
		pid = parent_of(pid);
	}
	return false;
}

static void show_task(pid_t pid, pid_t tid)
{
	char path[64], text[4096], *line, *rest = text;
	const char *end;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	read_file(text, sizeof(text), path);
	end = strrchr(text, ')');
	dprintf(1, "stress: stack: process %d thread %d state %c\n", pid, tid, end && end[1] ? end[2] : '?');
	snprintf(path, sizeof(path), "/proc/%d/task/%d/stack", pid, tid);
	read_file(text, sizeof(text), path);
	while ((line = strsep(&rest, "\n")) && *line)
		dprintf(1, "stress: stack:   %s\n", line);
}

static void show_stacks(pid_t ancestor)
{
	DIR *processes = opendir("/proc");
	struct dirent *process, *task;
	char path[64];
	int shown = 0;

	while (processes && (process = readdir(processes)) && shown < TASKS_SHOWN_MAX) {
		pid_t pid = atoi(process->d_name);
		DIR *tasks;

		if (pid <= 0 || pid == getpid() || !belongs_to(pid, ancestor))
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task", pid);
		tasks = opendir(path);
		while (tasks && (task = readdir(tasks)) && shown < TASKS_SHOWN_MAX) {
			if (atoi(task->d_name) > 0) {
				show_task(pid, atoi(task->d_name));
				shown++;
			}
		}
		if (tasks)
			closedir(tasks);
	}
}

void explain_hang(unsigned arena, pid_t pid, unsigned seconds)
{
	pid_t child;
	int i;

	complain("hang: arena %u (process %d) has been in round %llu for %u s: %s, victim %d", arena, pid,
		 (unsigned long long)tally->arenas[arena].rounds + 1, seconds,
		 tally->arenas[arena].doing ? tally->arenas[arena].doing : "not begun", tally->arenas[arena].victim);
	child = fork();
	if (child == 0) {
		show_stacks(pid);
		_exit(0);
	}
	for (i = 0; i < STACKS_LIMIT_MS / 100 && waitpid(child, NULL, WNOHANG) == 0; i++)
		nap_us(100000);
	kill(child, SIGKILL);
	put("/proc/sys/kernel/printk", "8");
	put("/proc/sysrq-trigger", "w");
	put("/proc/sysrq-trigger", "t");
}
