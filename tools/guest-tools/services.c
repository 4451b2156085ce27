/* SPDX-License-Identifier: Apache-2.0
 *
 * A small service manager with Android's words. The file has blocks of
 *
 *     service NAME PROGRAM [ARGUMENTS...]
 *         disabled              not started at boot
 *         oneshot               not restarted when it ends
 *         enabled_by PROPERTY   exists only while that property is true
 *         oom_score_adj N
 *         priority N            nice level
 *         rt_priority N         SCHED_FIFO priority
 *         cpus MASK             CPUs it may use
 *         cgroup PATH           cgroup to put it into where that exists (at most two, v2 and v1)
 *         restart_period S      seconds between two starts (5, as on Android)
 *
 * init.svc.NAME says running, stopped, stopping or restarting; init.svc_debug_pid.NAME the process.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sys/resource.h>
#include <unistd.h>

#define SERVICES_MAX 32
#define ARGUMENTS_MAX 16
#define CGROUPS_MAX 2

struct service {
	char name[64];
	char *argv[ARGUMENTS_MAX + 1];
	char enabled_by[128];
	char cgroups[CGROUPS_MAX][128];
	int oom_score_adj;
	int nice, rt_priority;
	unsigned long cpus;	/* 0: all */
	bool has_oom_score_adj, disabled, oneshot;
	long restart_period_s;
	pid_t pid;
	bool wanted;		/* restart it when it ends */
	bool restart_asked;	/* "restart": start again as soon as it is gone */
	long long started_ms, due_ms;
};

static struct service services[SERVICES_MAX];
static size_t service_count;

static struct service *find(const char *name)
{
	for (size_t i = 0; i < service_count; i++)
		if (strcmp(services[i].name, name) == 0)
			return &services[i];
	return NULL;
}

static void set_state(struct service *service, const char *state)
{
	char name[NAME_MAX_BYTES], pid[16] = "";

	snprintf(name, sizeof(name), "init.svc.%s", service->name);
	property_set(name, state);
	if (service->pid)
		snprintf(pid, sizeof(pid), "%d", (int)service->pid);
	snprintf(name, sizeof(name), "init.svc_debug_pid.%s", service->name);
	property_set(name, pid);
}

static void parse_service(char *text)
{
	struct service *service = &services[service_count];
	char *word, *rest = text;
	int count = 0;

	if (service_count == SERVICES_MAX) {
		boot_error("more than %d services", SERVICES_MAX);
		return;
	}
	memset(service, 0, sizeof(*service));
	service->restart_period_s = 5;
	word = strsep(&rest, " \t");
	snprintf(service->name, sizeof(service->name), "%s", word);
	while (count < ARGUMENTS_MAX && (word = strsep(&rest, " \t")))
		if (*word)
			service->argv[count++] = strdup(word);
	service->argv[count] = NULL;
	if (count)
		service_count++;
	else
		boot_error("service %s has no program", service->name);
}

static void add_cgroup(struct service *service, const char *path)
{
	for (size_t i = 0; i < CGROUPS_MAX; i++)
		if (!service->cgroups[i][0]) {
			snprintf(service->cgroups[i], sizeof(service->cgroups[i]), "%s", path);
			return;
		}
	boot_error("service %s: more than %d cgroups", service->name, CGROUPS_MAX);
}

static void parse_option(char *text)
{
	struct service *service;
	char *value = text, *word = strsep(&value, " \t");

	if (!service_count) {
		boot_error("%s: option before the first service", word);
		return;
	}
	service = &services[service_count - 1];
	value = value ? trim(value) : "";
	if (strcmp(word, "disabled") == 0)
		service->disabled = true;
	else if (strcmp(word, "oneshot") == 0)
		service->oneshot = true;
	else if (strcmp(word, "enabled_by") == 0)
		snprintf(service->enabled_by, sizeof(service->enabled_by), "%s", value);
	else if (strcmp(word, "cgroup") == 0)
		add_cgroup(service, value);
	else if (strcmp(word, "restart_period") == 0)
		service->restart_period_s = atol(value);
	else if (strcmp(word, "oom_score_adj") == 0) {
		service->oom_score_adj = atoi(value);
		service->has_oom_score_adj = true;
	} else if (strcmp(word, "priority") == 0)
		service->nice = atoi(value);
	else if (strcmp(word, "rt_priority") == 0)
		service->rt_priority = atoi(value);
	else if (strcmp(word, "cpus") == 0)
		service->cpus = strtoul(value, NULL, 0);
	else
		boot_error("service %s: unknown option %s", service->name, word);
}

int services_load(const char *path)
{
	char line[1024];
	FILE *file = fopen(path, "re");

	if (!file)
		return -errno;
	while (fgets(line, sizeof(line), file)) {
		char *text = trim(line);
		if (*text == '#' || *text == '\0')
			continue;
		if (strncmp(text, "service ", 8) == 0)
			parse_service(trim(text + 8));
		else
			parse_option(text);
	}
	fclose(file);
	return 0;
}

static void become_service(const struct service *service)
{
	static char *const ENVIRONMENT[] = {
		"PATH=/system/bin:/system/xbin:/usr/bin:/usr/sbin",
		"ANDROID_ROOT=/system",
		"ANDROID_DATA=/data",
		"HOME=/data/local/tmp",
		"TMPDIR=/data/local/tmp",
		NULL,
	};
	sigset_t none;
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);

	if (service->has_oom_score_adj)
		write_format("/proc/self/oom_score_adj", "%d", service->oom_score_adj);
	for (size_t i = 0; i < CGROUPS_MAX && service->cgroups[i][0]; i++) {
		char path[192];
		snprintf(path, sizeof(path), "%s/cgroup.procs", service->cgroups[i]);
		if (access(path, W_OK) == 0)
			write_text(path, "0");
	}
	if (service->nice)
		setpriority(PRIO_PROCESS, 0, service->nice);
	if (service->rt_priority)
		set_scheduler(SCHED_FIFO, service->rt_priority);
	if (service->cpus)
		set_cpus(service->cpus);
	setsid();
	if (fd >= 0) {
		dup2(open("/dev/null", O_RDONLY), 0);
		dup2(fd, 1);
		dup2(fd, 2);
	}
	for (int other = 3; other < 64; other++)
		close(other);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(service->argv[0], service->argv, ENVIRONMENT);
	_exit(127);
}

static bool enabled(const struct service *service)
{
	return !service->enabled_by[0] || property_is_true(service->enabled_by);
}

static int start_service(struct service *service)
{
	pid_t child;

	if (!enabled(service))
		return -EACCES;
	service->wanted = !service->oneshot;
	service->due_ms = 0;
	if (service->pid)
		return 0;
	child = fork();
	if (child < 0)
		return -errno;
	if (child == 0)
		become_service(service);
	service->pid = child;
	service->started_ms = now_ms();
	set_state(service, "running");
	return 0;
}

static int stop_service(struct service *service)
{
	service->wanted = false;
	service->due_ms = 0;
	if (!service->pid) {
		set_state(service, "stopped");
		return 0;
	}
	set_state(service, "stopping");
	/* The child may not have reached setsid() yet: then it is no group leader, but still ours. */
	if (kill(-service->pid, SIGKILL) != 0)
		kill(service->pid, SIGKILL);
	return 0;
}

void services_start_all(void)
{
	for (size_t i = 0; i < service_count; i++)
		if (!services[i].disabled && enabled(&services[i]) && start_service(&services[i]) != 0)
			boot_error("service %s did not start", services[i].name);
}

int services_control(const char *request)
{
	const char *name = strchr(request, ' ');
	struct service *service = name ? find(name + 1) : NULL;

	if (!service)
		return -ENOENT;
	if (strncmp(request, "start ", 6) == 0)
		return start_service(service);
	if (strncmp(request, "stop ", 5) == 0)
		return stop_service(service);
	if (strncmp(request, "restart ", 8) == 0) {
		if (!service->pid)
			return start_service(service);
		stop_service(service);
		service->restart_asked = true;
		return 0;
	}
	return -EINVAL;
}

void services_exited(pid_t pid, int status)
{
	for (size_t i = 0; i < service_count; i++) {
		struct service *service = &services[i];
		if (service->pid != pid)
			continue;
		service->pid = 0;
		if (!service->restart_asked && service->wanted)
			console("lmk-guest: service %s ended (status 0x%x)", service->name, status);
		if (service->restart_asked) {
			service->restart_asked = false;
			start_service(service);
		} else if (service->wanted) {
			service->due_ms = service->started_ms + service->restart_period_s * 1000;
			set_state(service, "restarting");
		} else {
			set_state(service, "stopped");
		}
		return;
	}
}

int services_run_due(void)
{
	long long now = now_ms(), next = -1;

	for (size_t i = 0; i < service_count; i++) {
		struct service *service = &services[i];
		if (!service->due_ms)
			continue;
		if (service->due_ms <= now) {
			service->due_ms = 0;
			if (start_service(service) != 0)
				set_state(service, "stopped");
		} else if (next < 0 || service->due_ms - now < next) {
			next = service->due_ms - now;
		}
	}
	return (int)next;
}

pid_t services_pid(const char *name)
{
	struct service *service = find(name);

	return service ? service->pid : 0;
}
