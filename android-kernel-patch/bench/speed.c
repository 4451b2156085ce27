// SPDX-License-Identifier: GPL-2.0
/*
 * Where a reap's time goes. Victims of one size: one mapping, many mappings, very many, pages in zram. Each is taken in
 * three ways: its exit alone; held at its exit, so that the reaper works alone; killed and reaped at once, so that reaper
 * and exit meet. Beside the times: TLB flushes, and pages that went away while the reaper worked.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define VICTIM_MIB 64
#define RUNS 7
#define COUNTED_RUNS 3
#define REAP_EVENT "oom/process_reap"
#define FLUSH_EVENT "tlb/tlb_flush"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

enum shape { ONE, MANY, VERY_MANY, SWAPPED, SHAPES };
enum manner { EXIT, HELD, MET, MANNERS };

static const char *const SHAPE_NAMES[] = { "one mapping", "1024 mappings", "4096 mappings", "in zram" };
static const int MAPPINGS[] = { 1, 1024, 4096, 1 };
static const char *const MANNER_NAMES[] = { "exit alone", "reaper alone", "reaper and exit" };

struct trial {
	enum shape shape;
	enum manner manner;
};

struct outcome {
	long long reap_ns, over_ns;
	long pages, flushes, lost;
};

static void shape_memory(enum shape shape)
{
	size_t size = VICTIM_MIB * MIB, part = size / MAPPINGS[shape], at;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		_exit(1);
	for (at = 0; at < size; at += 4096)
		/* Not all alike: zram keeps pages of one repeated word for free. */
		*(size_t *)(memory + at) = at * 2654435761U, memory[at + 2048] = at >> 12;
	/* Every second one differs, so that they stay apart. */
	for (at = 0; part < size && at < size; at += 2 * part)
		mprotect(memory + at, part, PROT_READ);
	if (shape == SWAPPED)
		madvise(memory, size, MADV_PAGEOUT);
}

static pid_t start_victim(enum shape shape)
{
	int ready;
	pid_t pid = spawn(&ready);

	if (!pid) {
		shape_memory(shape);
		say_ready(ready);
		hold();
	}
	await_ready(ready);
	return pid;
}

static const char *const EVENTS[] = { REAP_EVENT, FLUSH_EVENT };

static void count_events(bool on)
{
	unsigned int e;

	for (e = 0; e < sizeof(EVENTS) / sizeof(EVENTS[0]); e++) {
		if (has_event(EVENTS[e]))
			(on ? trace_start : trace_stop)(EVENTS[e]);
	}
}

static void take(const struct trial *trial, struct outcome *outcome, bool counted)
{
	pid_t pid = start_victim(trial->shape);
	int fd = open_pidfd(pid), status;
	long long start;

	if (trial->manner == HELD) {
		if (ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_TRACEEXIT))
			die("PTRACE_SEIZE");
		kill(pid, SIGKILL);
		waitpid(pid, &status, __WALL);
	}
	if (counted)
		count_events(true);
	start = now_ns();
	if (trial->manner != HELD)
		kill(pid, SIGKILL);
	if (trial->manner != EXIT) {
		if (process_reap(fd))
			outcome->lost++;
		outcome->reap_ns = now_ns() - start;
	}
	if (trial->manner != HELD && wait_dead(fd, 5000))
		outcome->over_ns = now_ns() - start;
	if (counted)
		count_events(false);
	if (trial->manner == HELD)
		ptrace(PTRACE_DETACH, pid, NULL, NULL);
	wait_dead(fd, 5000);
	close(fd);
	collect_children();
}

static void see_any(const char *line, void *arg)
{
	(void)line;
	++*(long *)arg;
}

static void see_pages(const char *line, void *arg)
{
	*(long *)arg += field(line, "anon", 0) + field(line, "swap", 0);
}

static void speed_row(const void *arg)
{
		const struct trial *trial = arg;
	long long reap[RUNS], over[RUNS], pages[COUNTED_RUNS], flushes[COUNTED_RUNS];
	struct outcome total = { 0 };
	int i;

	for (i = 0; i < RUNS; i++) {
		take(trial, &total, false);
		reap[i] = total.reap_ns;
		over[i] = total.over_ns;
	}
	for (i = 0; i < COUNTED_RUNS; i++) {
		struct outcome outcome = { 0 };

		take(trial, &outcome, true);
		trace_each(REAP_EVENT, see_pages, &outcome.pages);
		trace_each(FLUSH_EVENT, see_any, &outcome.flushes);
		pages[i] = outcome.pages;
		flushes[i] = outcome.flushes;
	}
	row("speed",
	    "\"victim\": \"%s\", \"mib\": %d, \"manner\": \"%s\", \"runs\": %d, \"lost\": %ld, \"reap_us\": %lld, "
	    "\"over_us\": %lld, \"reaper_pages\": %lld, \"tlb_flushes\": %lld",
	    SHAPE_NAMES[trial->shape], VICTIM_MIB, MANNER_NAMES[trial->manner], RUNS, total.lost,
	    median(reap, RUNS) / 1000, median(over, RUNS) / 1000, median(pages, COUNTED_RUNS),
	    median(flushes, COUNTED_RUNS));
}

void bench_speed(void)
{
	struct trial trial;
	int shape, manner;

	for (shape = 0; shape < SHAPES; shape++) {
		for (manner = 0; manner < MANNERS; manner++) {
			trial = (struct trial){ shape, manner };
			isolated(SHAPE_NAMES[shape], 60, speed_row, &trial);
		}
	}
}
