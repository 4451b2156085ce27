/* SPDX-License-Identifier: Apache-2.0
 *
 * /bin/sh as adbd starts it: leaves the cgroup that keeps adbd out of reclaim, adbd's priority and its CPU, so that
 * nothing started from a shell hides in there or runs ahead of others, and becomes mksh, Android's shell.
 */
#include "guest.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

int shell_main(int argc, char **argv)
{
	char groups[2048];

	(void)argc;
	if (read_text("/proc/self/cgroup", groups, sizeof(groups)) > 0 && strstr(groups, PROTECTED_CGROUP)) {
		write_text("/sys/fs/cgroup/cgroup.procs", "0");
		if (access("/dev/memcg/cgroup.procs", W_OK) == 0)
			write_text("/dev/memcg/cgroup.procs", "0");
		set_scheduler(SCHED_OTHER, 0);
		set_cpus(~0UL);
		setpriority(PRIO_PROCESS, 0, 0);
	}
	argv[0] = "sh";
	execv("/usr/bin/mksh", argv);
	perror("sh: /usr/bin/mksh");
	return 126;
}
