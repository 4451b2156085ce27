/* SPDX-License-Identifier: Apache-2.0
 *
 * When ActivityManager starts a service again whose process has died (ActiveServices,
 * scheduleServiceRestartLocked). Pure: no I/O, no clock. lmk/config/app_restart.py is the same rule in Python; a
 * test compares the two.
 */
#ifndef LMK_APPRUNNER_RESTART_H
#define LMK_APPRUNNER_RESTART_H

#include <stdint.h>

/* When to start it again. delay_ns: how long it had to wait the last time (0: it never had), ran_ns: how long it
 * has run since; others_ns: when the other services that wait will be started. */
int64_t restart_next(int64_t delay_ns, int64_t ran_ns, int64_t now_ns, const int64_t *others_ns, int count);

/* `lmk-apprunner --restart-selftest`: the arguments of restart_next, a call a line, on stdin; results on stdout. */
int restart_selftest(void);

#endif
