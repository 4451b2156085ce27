/* SPDX-License-Identifier: Apache-2.0
 *
 * The timeline: which processes there are and what happens to them when. One statement per line, described in
 * docs/scenarios.md; lmk/config/timeline.py writes it.
 */
#ifndef LMK_APPRUNNER_TIMELINE_H
#define LMK_APPRUNNER_TIMELINE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "apprunner_adj.h"
#include "apprunner_app.h"

#define PLANS_MAX ADJ_PROCESSES_MAX
#define STEPS_MAX 4096

struct process_plan {
	char name[APP_NAME_MAX];
	enum adj_role role;
	enum adj_rest rest;
	uid_t uid;
	int adj;			/* of role fixed */
	uint64_t anon_kib, file_kib, pinned_kib;
	uint32_t ratio_permille, hot_permille, cold_start_ms, touch_every_ms, cpu_permille;
	uint64_t growth_kib_per_min;
	int autostart, restart, locked;
};

enum step_action { STEP_LAUNCH, STEP_BACKGROUND, STEP_GROW, STEP_LEAK, STEP_TOUCH, STEP_EXIT };

struct step {
	int64_t t_ms;
	enum step_action action;
	int process;			/* index of the plan */
	uint64_t kib, over_ms;		/* grow; leak: kib is the limit */
	uint64_t kib_per_s;
	uint32_t anon_permille, file_permille, times;
};

struct timeline {
	uint64_t seed;
	int64_t end_ms;
	int freeze, compact, reregister;
	int64_t freeze_delay_ms;
	int32_t minfree[6][2];
	int minfree_count;
	struct process_plan plans[PLANS_MAX];
	int plans_count;
	struct step steps[STEPS_MAX];
	int steps_count;
};

/* Parses `text` (modified). 0, or the number of the line that is wrong with ret_why saying what. */
int timeline_parse(struct timeline *timeline, char *text, const char **ret_why);
/* One "ACTION PROCESS key=value..." as in an `at` statement, modified: NULL, or what is wrong. */
const char *timeline_parse_step(const struct timeline *timeline, char *text, struct step *ret_step);

#endif
