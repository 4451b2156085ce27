/* SPDX-License-Identifier: GPL-2.0
 * kernel-stress: kill and reap processes of every shape, many at once, and see that nothing goes wrong but theirs.
 *
 * Arenas (processes) go through rounds. A round makes one victim of random shape, or a cgroup full, kills it and reaps
 * it from several threads while others look at it or use its memory, and waits until all of it is gone. What must hold:
 * only the answers that the calls may give, memory of the living unharmed, an end to every round. The kernel's own
 * complaints are found by who reads its log.
 */
#ifndef KERNEL_STRESS_H
#define KERNEL_STRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define MB (1024UL * 1024)
#define ARENAS 4
#define CGROUP "/sys/fs/cgroup/stress"
#define FREEZER "/tmp/stress-freezer"

enum call { CALL_REAP, CALL_MRELEASE, CALL_CGROUP_REAP, CALLS };

/* What all processes of a run count in; shared memory. */
struct tally {
	_Atomic uint64_t rounds, answers[CALLS][134], forks, execs, pagings, frozen, ooms, cgroups;
	_Atomic uint64_t skipped_ms; /* the whole machine stood still */
	_Atomic int bad;
	struct {
		_Atomic uint64_t rounds, since_ms;
		const char *volatile doing; /* a literal: arenas never exec */
		_Atomic pid_t victim;
	} arenas[ARENAS];
};

/* One victim: how it looks is drawn in random_shape(). */
struct shape {
	unsigned mib, threads;
	bool swapped, locked, shared, file, userfault;
	bool churn; /* threads that map, unmap and protect */
	bool forker, execer; /* processes that it makes all the time */
	bool vm_sharer, vfork; /* who shares its memory */
	bool blocked; /* in a write to a file system that is frozen now and then */
	bool leader_dies;
};

/* Where a round's processes say how they are; shared memory of an arena. */
struct round {
	_Atomic bool ready, stop;
	_Atomic pid_t sharer;
};

extern struct tally *tally;
extern const char *disk; /* a directory on a file system that may be frozen; NULL: none */

/* kernel_stress.c */
uint64_t now_ms(void); /* without the time in which the machine stood still */
void now_doing(unsigned arena, const char *what, pid_t victim); /* for who finds that the arena hangs */
uint64_t draw(uint64_t below); /* 0 .. below-1, from the process's own seed */
bool chance(unsigned percent);
void seed(uint64_t value);
void nap_us(unsigned us);
bool put(const char *path, const char *text); /* write a small file */
bool put_number(const char *path, long value);
void *shared_memory(size_t size);
__attribute__((format(printf, 1, 2))) void complain(const char *format, ...);
void inject_faults(bool on); /* failing allocations, for the calling thread */

/* stress_victim.c */
void random_shape(struct shape *shape);
void be_victim(const struct shape *shape, struct round *round) __attribute__((noreturn));
int be_execed(void); /* what an exec of ourselves runs */

/* stress_hang.c */
void explain_hang(unsigned arena, pid_t pid, unsigned seconds);

/* stress_round.c */
void one_round(unsigned arena, struct round *round);

#endif
