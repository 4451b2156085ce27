/* SPDX-License-Identifier: Apache-2.0
 * Chooses the tool by the name the program was called with, or by its first argument. */
#include "guest.h"

#include <libgen.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} TOOLS[] = {
	{ "init", init_main },	   { "getprop", getprop_main }, { "setprop", setprop_main },
	{ "start", start_main },   { "stop", stop_main },	{ "log", log_main },
	{ "logcat", logcat_main }, { "lmkd", standin_lmkd_main },
	{ "sh", shell_main },
};

static int call(const char *name, int argc, char **argv)
{
	for (size_t i = 0; i < ARRAY_LEN(TOOLS); i++)
		if (strcmp(TOOLS[i].name, name) == 0)
			return TOOLS[i].run(argc, argv);
	return -1;
}

int main(int argc, char **argv)
{
	int status = argc > 0 ? call(basename(argv[0]), argc, argv) : -1;

	if (status < 0 && argc > 1)
		status = call(argv[1], argc - 1, argv + 1);
	if (status < 0) {
		fprintf(stderr, "usage: lmk-guest TOOL [ARGUMENTS]; tools:");
		for (size_t i = 0; i < ARRAY_LEN(TOOLS); i++)
			fprintf(stderr, " %s", TOOLS[i].name);
		fputc('\n', stderr);
		return 2;
	}
	return status;
}
