// SPDX-License-Identifier: GPL-2.0
/*
 *   reap_bench [-t SECONDS] groups [SCENE] | speed | verdicts [ROUNDS [SEED]] | sharing PROCESSES...
 */
#define _GNU_SOURCE
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

int main(int argc, char **argv)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (argc > 2 && !strcmp(argv[1], "-t")) {
		set_deadline(atoi(argv[2]));
		argc -= 2;
		argv += 2;
	}
	count_rows();
	if ((argc == 2 || argc == 3) && !strcmp(argv[1], "groups")) {
		if (!bench_groups(argc == 3 ? argv[2] : NULL))
			return fprintf(stderr, "no scene %s\n", argv[2]), 2;
	} else if (argc == 2 && !strcmp(argv[1], "speed"))
		bench_speed();
	else if (argc >= 2 && !strcmp(argv[1], "verdicts"))
		bench_verdicts(argc > 2 ? atoi(argv[2]) : 500, argc > 3 ? atoi(argv[3]) : 1);
	else if (argc > 2 && !strcmp(argv[1], "sharing"))
		bench_sharing(argc - 2, argv + 2);
	else
		return fprintf(stderr, "usage: reap_bench [-t SECONDS] groups|speed|verdicts|sharing ...\n"), 2;
	tell_rows();
	return 0;
}
