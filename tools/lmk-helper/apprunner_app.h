/* SPDX-License-Identifier: Apache-2.0
 *
 * One app process: what the runner tells it and what it answers, over a SOCK_SEQPACKET pair, and its main loop.
 */
#ifndef LMK_APPRUNNER_APP_H
#define LMK_APPRUNNER_APP_H

#include <stdint.h>

#define APP_NAME_MAX 64
#define APP_SOCKET_FD 3
#define APP_FILE_FD 4
/* Set in the environment of an app process; its value is a struct app_profile in hexadecimal. */
#define APP_PROFILE_VARIABLE "LMK_APP_PROFILE"

/* Everything an app process knows about itself. */
struct app_profile {
	uint64_t seed;			/* of its page contents */
	uint64_t anon_pages;
	uint64_t file_pages;
	uint64_t pinned_pages;		/* beside anon_pages, mlocked: graphics buffers and the like */
	uint64_t file_offset_pages;	/* where its part of the pool file begins */
	uint64_t arena_pages;		/* address space for anonymous memory, growth included */
	uint32_t ratio_permille;	/* compressibility; 0: same-filled pages */
	uint32_t hot_permille;		/* of anonymous and of file memory */
	uint32_t cold_start_ms;		/* CPU time of a cold start */
	uint32_t touch_every_ms;	/* the hot set is touched this often while active */
	uint64_t growth_kib_per_min;	/* while active */
	uint32_t cpu_permille;		/* of one CPU, used while active */
	int32_t locked;			/* memory is mlocked: nobody can reclaim it */
	int32_t active;			/* active from its start, and without being on top */
	int32_t has_file;		/* APP_FILE_FD is the pool file */
};

enum app_command {
	APP_SHOW = 1,		/* serial; cold start if it has not started: answers APP_SHOWN */
	APP_HIDE,		/* no longer active */
	APP_GROW,		/* a pages over b ms (0: at once) */
	APP_LEAK,		/* a KiB per second until b pages more (0: no limit) */
	APP_TOUCH,		/* a: anon permille << 32 | file permille; b: times */
	APP_EXIT,
};

enum app_answer {
	APP_BORN = 101,		/* a: address of the arena, b: of the file mapping */
	APP_SEEN,		/* serial of an APP_SHOW that was read */
	APP_SHOWN,		/* serial; a: minor, b: major faults since APP_SHOW */
	APP_FILLED,		/* all of its initial memory was written; a, b: faults so far */
	APP_GREW,		/* a: pages now, b: 1 if the arena is full */
	APP_SWEPT,		/* an APP_TOUCH is over; a, b: faults so far */
	APP_FAILED,		/* a: errno, b: 0 arena, 1 file, 2 lock, 3 thread */
};

struct app_message {
	uint32_t kind;
	uint32_t serial;
	uint64_t a, b;
	int64_t t_ns;		/* answers: when it happened */
};

/* Runs an app process from its environment; does not return. */
void app_main(void) __attribute__((noreturn));

#endif
