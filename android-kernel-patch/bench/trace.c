// SPDX-License-Identifier: GPL-2.0
/* Trace events: switched on for the part that is counted, read as text afterwards. */
#define _GNU_SOURCE
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void enable_path(char *path, size_t size, const char *event)
{
	snprintf(path, size, TRACING "events/%s/enable", event);
}

bool has_event(const char *event)
{
	char path[128];

	enable_path(path, sizeof(path), event);
	return access(path, W_OK) == 0;
}

void trace_start(const char *event)
{
	char path[128];

	must_write(TRACING "trace", "");
	enable_path(path, sizeof(path), event);
	try_write(path, "1");
}

void trace_stop(const char *event)
{
	char path[128];

	enable_path(path, sizeof(path), event);
	try_write(path, "0");
}

void trace_each(const char *event, void (*seen)(const char *line, void *arg), void *arg)
{
	FILE *file = fopen(TRACING "trace", "r");
	char line[512], key[64];

	snprintf(key, sizeof(key), " %s: ", strchr(event, '/') ? strchr(event, '/') + 1 : event);
	while (file && fgets(line, sizeof(line), file)) {
		char *at = line[0] == '#' ? NULL : strstr(line, key);

		if (at)
			seen(line, arg);
	}
	if (file)
		fclose(file);
}

long field(const char *line, const char *name, long otherwise)
{
	char key[64];
	const char *at;

	snprintf(key, sizeof(key), " %s=", name);
	at = strstr(line, key);
	return at ? atol(at + strlen(key)) : otherwise;
}
