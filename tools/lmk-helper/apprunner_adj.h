/* SPDX-License-Identifier: Apache-2.0
 *
 * oom_score_adj as Android's ActivityManager (OomAdjuster) assigns it, from a list of processes in
 * least-recently-used order. Pure: no I/O, no clock. lmk/config/app_adj.py is the same model in Python; a
 * test compares the two on random sequences.
 */
#ifndef LMK_APPRUNNER_ADJ_H
#define LMK_APPRUNNER_ADJ_H

#define ADJ_PROCESSES_MAX 128
#define ADJ_NOBODY (-1)

#define ADJ_NATIVE (-1000)
#define ADJ_PERSISTENT (-800)
#define ADJ_FOREGROUND 0
#define ADJ_VISIBLE 100
#define ADJ_PERCEPTIBLE 200
#define ADJ_SERVICE 500
#define ADJ_HOME 600
#define ADJ_PREVIOUS 700
#define ADJ_SERVICE_B 800
#define ADJ_CACHED_MIN 900
#define ADJ_CACHED_MAX 999

enum adj_role {
	ADJ_ROLE_APP,		/* has activities */
	ADJ_ROLE_HOME,		/* the launcher: on top when no app is */
	ADJ_ROLE_SERVICE,	/* a started service, never showed any UI */
	ADJ_ROLE_EMPTY,		/* neither activities nor services */
	ADJ_ROLE_PERSISTENT,	/* android:persistent */
	ADJ_ROLE_FIXED,		/* keeps the value it was given (native and system processes) */
};

/* What a process is while it is not on top. */
enum adj_rest { ADJ_REST_CACHED, ADJ_REST_PERCEPTIBLE, ADJ_REST_VISIBLE };

struct adj_process {
	int id;
	enum adj_role role;
	enum adj_rest rest;
	int fixed_adj;
	int adj;		/* what adj_assign computed */
};

struct adj_state {
	struct adj_process lru[ADJ_PROCESSES_MAX];	/* newest first */
	int count;
	int top;		/* id of the process the user sees, or ADJ_NOBODY */
	int previous;		/* id of the app the user saw before, or ADJ_NOBODY */
};

void adj_init(struct adj_state *state);
/* A process exists now (newest of the list). Nothing happens if the id is known. 0 or -ENOSPC. */
int adj_start(struct adj_state *state, int id, enum adj_role role, enum adj_rest rest, int fixed_adj);
/* The user opens an app (or home): it is on top; the app that was becomes the previous one. */
void adj_launch(struct adj_state *state, int id);
/* The user goes home from an app; nothing happens if it is not on top. */
void adj_leave(struct adj_state *state, int id);
/* The process is gone; if it was on top the user sees home. */
void adj_gone(struct adj_state *state, int id);
/* Fills in `adj` of every process. */
void adj_assign(struct adj_state *state);
/* The process or NULL. */
struct adj_process *adj_find(struct adj_state *state, int id);

/* "app", "home", ... -> the role, or -EINVAL. */
int adj_role_by_name(const char *name);
int adj_rest_by_name(const char *name);

/* `lmk-apprunner --adj-selftest`: operations on stdin, the resulting list after each on stdout. */
int adj_selftest(void);

#endif
