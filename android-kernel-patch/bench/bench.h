/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Measurements of process_reap(), the sharing check and cgroup.reap in a guest. Every result is one line of JSON
 * that begins with {"row". Times are CLOCK_MONOTONIC; counts come from the kernel's trace events.
 *
 * Nothing here may last for ever: each row is made by a process of its own, in a process group of its own, that is
 * killed with everything it started when its time is over.
 */
#ifndef REAP_BENCH_H
#define REAP_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MIB (1024UL * 1024)
#define TRACING "/sys/kernel/tracing/"
#define NS_PER_MS 1000000LL

/* --- util.c --- */

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* One line of output: {"row": "NAME", ...}. */
void row(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Before the first row, and after the last: how many there were, for who reads them from a console. */
void count_rows(void);
void tell_rows(void);
long long now_ns(void);
void nap_ms(long ms);
int try_write(const char *path, const char *text);
void must_write(const char *path, const char *text);
/* At most size - 1 bytes of a file, as a string; -1 where it cannot be read. */
ssize_t read_text(const char *path, char *text, size_t size);
long long median(long long *values, int count);
/* The kernel's MemAvailable, or -1. */
long available_kib(void);
int open_pidfd(pid_t pid);
long process_reap(int pidfd);
/* Readable within so many ms: the process is dead. */
bool wait_dead(int pidfd, int ms);
/* Bounded: collects every child that is dead already. */
void collect_children(void);

/* Runs one row in a process of its own; says so if it is not over in time, or failed. */
void isolated(const char *what, int limit_s, void (*run)(const void *arg), const void *arg);
/* Rows that would begin after this are left out. */
void set_deadline(int seconds);
bool is_late(void);

/* Forks; the child dies with its parent. The child ends in ready() or hold(). */
pid_t spawn(int *ret_pipe);
void say_ready(int pipe);
void await_ready(int pipe);
_Noreturn void hold(void);

/* --- trace.c --- */

bool has_event(const char *event);
void trace_start(const char *event);
void trace_stop(const char *event);
/* Calls back for each line of that event ("name:" and what follows), oldest first. */
void trace_each(const char *event, void (*seen)(const char *line, void *arg), void *arg);
/* "name=123" in a line, or `otherwise`. */
long field(const char *line, const char *name, long otherwise);

/* --- the measurements --- */

void bench_sharing(int count, char **processes);
void bench_verdicts(int rounds, unsigned int seed);
/* All scenes (NULL), or one; false where there is none of that name. */
bool bench_groups(const char *only);
void bench_speed(void);

#endif
