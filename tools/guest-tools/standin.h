/* SPDX-License-Identifier: Apache-2.0
 *
 * The two halves of the stand-in for the stock lmkd: registrations (standin_lmkd.c) and, where a test asks for them,
 * kills (standin_kill.c).
 */
#ifndef LMK_STANDIN_H
#define LMK_STANDIN_H

#include <stddef.h>
#include <stdint.h>

struct standin_process {
	int32_t pid, uid, adj;
};

/* A descriptor that polls POLLPRI under memory pressure; -ENOENT unless lmk.standin_kill_adj is set. */
int standin_kill_open(void);
/* Kills the process with the highest oom_score_adj that is at least lmk.standin_kill_adj, unless the last victim is
 * still dying. Its pid, to be forgotten; 0 if nobody was killed. */
int32_t standin_kill_one(const struct standin_process *processes, size_t count);

#endif
