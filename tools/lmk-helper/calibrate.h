/* SPDX-License-Identifier: Apache-2.0
 *
 * lmk-calibrate: micro-workloads that measure what memory costs on this device. One group per call, one line per
 * sample on stdout ("sample NAME VALUE", a number of nanoseconds, KiB or thousandths), "absent NAME WHY" for what this
 * device does not let us measure, "end" when a group is through. The first round counts for nothing.
 */
#ifndef LMK_CALIBRATE_H
#define LMK_CALIBRATE_H

#include <stddef.h>
#include <stdint.h>

/* Compressibility classes: uncompressed / compressed in thousandths; 0: same-filled pages. */
extern const uint32_t CLASSES[];
extern const size_t CLASSES_COUNT;

/* CPU time of the calling thread: what a preempted measurement does not count. */
int64_t cpu_ns(void);
void sample(const char *name, int64_t value);
/* printf-like name. */
void sample_named(int64_t value, const char *format, ...) __attribute__((format(printf, 2, 3)));
void absent(const char *name, const char *why);

/* Anonymous memory without huge pages; exits on failure. */
uint8_t *map_pages(size_t pages);
void fill_pages(uint8_t *at, size_t pages, uint32_t ratio_permille, uint64_t seed);
/* A number from a file of "key value" lines, -1 if there is none. */
int64_t file_number(const char *path, const char *key);

/* Into a memory cgroup of our own, as apps have one, where there are cgroups of version 2: pages are charged to it, and
 * lru_gen ages and evicts it apart. Once for all rounds; 0 or -1. */
int enter_group(void);

/* --- groups: each makes one round of its samples -------------------------------------------------- */

void measure_memory(uint64_t round);
void measure_swap(uint64_t round);
void measure_aging(const char *path, uint64_t round);
void measure_file(const char *path, uint64_t round);
void measure_zram(uint64_t round);
void measure_death(void);
void measure_system(void);
void measure_processes(void);

#endif
