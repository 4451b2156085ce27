/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults, touching, paging out and in, aging: CPU time per page, in the thread that does the work.
 */
#include "calibrate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apprunner_memory.h"
#include "common.h"

#define FAULT_PAGES 4096u
#define SWAP_PAGES 1024u
#define AGING_PAGES 8192u
/* More than a last-level cache holds. */
#define SWEEP_BYTES (64u << 20)
#define CACHE_LINE 64u
#define FORGET_PAGES 64u
#define RATIO 2500u
#define LRU_GEN "/sys/kernel/debug/lru_gen"
#define CGROUPS "/sys/fs/cgroup/"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

/* A CPU that holds a translation does not set the accessed bit again. Unmapping more than a few pages makes it forget all
 * (tlb_single_page_flush_ceiling, arch/x86/mm/tlb.c). */
static void forget_translations(void)
{
	uint8_t *at = map_pages(FORGET_PAGES);

	for (size_t i = 0; i < FORGET_PAGES; i++)
		at[i * PAGE_BYTES] = 1;
	munmap(at, FORGET_PAGES * PAGE_BYTES);
}

static void touch(volatile uint8_t *at, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		at[i * PAGE_BYTES + PAGE_BYTES - 1]++;
}

void measure_memory(uint64_t round)
{
	uint8_t *at = map_pages(FAULT_PAGES);
	int64_t begin_ns = cpu_ns(), written_ns;

	fill_pages(at, FAULT_PAGES, RATIO, round);
	written_ns = cpu_ns();
	sample("fault", (written_ns - begin_ns) / FAULT_PAGES);
	forget_translations();
	begin_ns = cpu_ns();
	touch(at, FAULT_PAGES);
	sample("touch", (cpu_ns() - begin_ns) / FAULT_PAGES);
	munmap(at, FAULT_PAGES * PAGE_BYTES);
}

static int64_t own_swap_pages(void)
{
	int64_t kib = file_number("/proc/self/status", "VmSwap:");

	return kib < 0 ? 0 : kib * 1024 / (int64_t)PAGE_BYTES;
}

/* Memory that the pool takes over what compressed data it holds, in thousandths. */
static void sample_overhead(void)
{
	char text[256];
	unsigned long long stored, compressed, used;

	if (lmk_read_file(AT_FDCWD, "/sys/block/zram0/mm_stat", text, sizeof(text)) < 0)
		return;
	if (sscanf(text, "%llu %llu %llu", &stored, &compressed, &used) == 3 && compressed > 0)
		sample("zram_overhead", (int64_t)(used * 1000 / compressed));
}

static void page_out_class(uint32_t ratio, uint64_t round)
{
	uint8_t *at = map_pages(SWAP_PAGES);
	int64_t begin_ns, out_ns, in_ns, before, pages;

	fill_pages(at, SWAP_PAGES, ratio, round * 100 + ratio);
	before = own_swap_pages();
	begin_ns = cpu_ns();
	madvise(at, SWAP_PAGES * PAGE_BYTES, MADV_PAGEOUT);
	out_ns = cpu_ns() - begin_ns;
	pages = own_swap_pages() - before;
	if (pages * 10 < (int64_t)SWAP_PAGES * 9) {
		absent("pageout", "MADV_PAGEOUT leaves the pages in memory (no swap, or it is full)");
	} else {
		if (ratio == RATIO)
			sample_overhead();
		begin_ns = cpu_ns();
		touch(at, SWAP_PAGES);
		in_ns = cpu_ns() - begin_ns;
		sample_named(out_ns / pages, "pageout.%u", ratio);
		sample_named(in_ns / pages, "pagein.%u", ratio);
	}
	munmap(at, SWAP_PAGES * PAGE_BYTES);
}

void measure_swap(uint64_t round)
{
	for (size_t i = 0; i < CLASSES_COUNT; i++)
		page_out_class(CLASSES[i], round);
}

/* --- MGLRU: its debugfs file runs aging and eviction on one memory cgroup ---------------------------- */

/* Our group, named after our pid: one that was removed lives on in lru_gen for a while, under its name. */
static char group[32];

/* What lru_gen says of our group: its id and generations, 0 or -1. */
static int find_generations(unsigned *ret_id, unsigned long *ret_min, unsigned long *ret_max)
{
	FILE *file = fopen(LRU_GEN, "r");
	char line[512], name[256];
	unsigned id = 0;
	unsigned long seq;
	int ours = 0, found = 0;

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file)) {
		name[0] = '\0';
		if (sscanf(line, "memcg %u %255s", &id, name) >= 1) {
			ours = name[0] == '/' && strcmp(name + 1, group) == 0;
			if (ours)
				*ret_id = id;
		} else if (ours && sscanf(line, " node %lu", &seq) != 1 && sscanf(line, " %lu", &seq) == 1) {
			*ret_max = seq;
			if (!found++)
				*ret_min = seq;
		}
	}
	fclose(file);
	return found ? 0 : -1;
}

static int64_t command(const char *text)
{
	int64_t begin_ns = cpu_ns();

	return lmk_write_file(AT_FDCWD, LRU_GEN, text, strlen(text)) < 0 ? -1 : cpu_ns() - begin_ns;
}

static int64_t age(void)
{
	unsigned long oldest, newest;
	unsigned id;
	char text[64];

	if (find_generations(&id, &oldest, &newest) < 0)
		return -1;
	snprintf(text, sizeof(text), "+ %u 0 %lu 1 1", id, newest);
	return command(text);
}

/* Fills the caches with something else: nobody touched for long what reclaim takes. Locked, so it is never taken. */
static void sweep_caches(void)
{
	static uint8_t *at;

	if (!at) {
		at = map_pages(SWEEP_BYTES / PAGE_BYTES);
		mlock(at, SWEEP_BYTES);
	}
	for (size_t i = 0; i < SWEEP_BYTES; i += CACHE_LINE)
		at[i]++;
}

/* Pages that nobody touched for three generations leave memory as kswapd makes them leave: off the lists, through the
 * reverse map, and out. ``swappiness`` 0: file pages, otherwise anonymous ones. With ``accessed`` they are touched before
 * reclaim looks at them, and stay. Nanoseconds, or -1. */
static int64_t evict(unsigned swappiness, unsigned pages, uint8_t *accessed)
{
	unsigned long oldest, newest;
	unsigned id;
	char text[64];

	if (age() < 0 || age() < 0 || age() < 0)
		return -1;
	if (accessed) {
		forget_translations();
		touch(accessed, pages);
	} else {
		sweep_caches();
	}
	if (find_generations(&id, &oldest, &newest) < 0 || newest < oldest + 2)
		return -1;
	snprintf(text, sizeof(text), "- %u 0 %lu %u %u", id, newest - 2, swappiness, pages);
	return command(text);
}

static void evict_anon(uint64_t round)
{
	uint8_t *at = map_pages(AGING_PAGES);
	int64_t before, pages, out_ns;

	fill_pages(at, AGING_PAGES, RATIO, round);
	before = own_swap_pages();
	out_ns = evict(200, AGING_PAGES, NULL);
	pages = own_swap_pages() - before;
	munmap(at, AGING_PAGES * PAGE_BYTES);
	if (out_ns > 0 && pages * 2 > AGING_PAGES)
		sample("evict", out_ns / pages);
	else
		absent("evict", "lru_gen leaves cold pages in memory (no swap, or it is full)");
}

/* Clean file pages, mapped or not: what nobody maps needs no look for its page tables, and no CPU has to forget it. */
static void evict_file(const char *name, const char *path, uint64_t round, int mapped)
{
	size_t bytes = FAULT_PAGES * PAGE_BYTES, left = 0;
	static unsigned char present[FAULT_PAGES];
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	volatile uint8_t *at = MAP_FAILED;
	struct stat status;
	off_t offset;
	int64_t out_ns;

	if (fd < 0 || fstat(fd, &status) < 0 || status.st_size < (off_t)bytes)
		goto out;
	offset = (off_t)(round * bytes % (uint64_t)(status.st_size - (off_t)bytes + 1)) / PAGE_BYTES * PAGE_BYTES;
	/* Whoever reads them first is charged for them. */
	posix_fadvise(fd, offset, (off_t)bytes, POSIX_FADV_DONTNEED);
	at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, offset);
	if (at == MAP_FAILED)
		goto out;
	for (size_t i = 0; i < FAULT_PAGES; i++)
		(void)at[i * PAGE_BYTES];
	if (!mapped) {
		/* As when a process ends; mapped anew, but not touched, for mincore. */
		munmap((void *)at, bytes);
		at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, offset);
		if (at == MAP_FAILED)
			goto out;
	}
	out_ns = evict(0, FAULT_PAGES, NULL);
	if (mincore((void *)at, bytes, present) == 0)
		for (size_t i = 0; i < FAULT_PAGES; i++)
			left += present[i] & 1u;
	if (out_ns > 0 && left * 2 < FAULT_PAGES)
		sample(name, out_ns / (int64_t)(FAULT_PAGES - left));
	else
		absent(name, "lru_gen leaves cold file pages in memory");
	munmap((void *)at, bytes);
out:
	if (at == MAP_FAILED)
		absent(name, "no file to read");
	if (fd >= 0)
		close(fd);
}

static void leave_group(void)
{
	char path[64];

	lmk_write_file(AT_FDCWD, CGROUPS "cgroup.procs", "0", 1);
	snprintf(path, sizeof(path), CGROUPS "%s", group);
	rmdir(path);
}

int enter_group(void)
{
	char path[64];

	if (group[0])
		return 0;
	snprintf(group, sizeof(group), "lmk.calibrate.%d", (int)getpid());
	snprintf(path, sizeof(path), CGROUPS "%s", group);
	if (mkdir(path, 0755) < 0)
		return -1;
	snprintf(path, sizeof(path), CGROUPS "%s/cgroup.procs", group);
	if (lmk_write_file(AT_FDCWD, path, "0", 1) < 0)
		return -1;
	return atexit(leave_group);
}

void measure_aging(const char *path, uint64_t round)
{
	uint8_t *at;
	int64_t walked_ns, scanned_ns;

	if (access(LRU_GEN, W_OK) < 0 || enter_group() < 0) {
		absent("aging", "needs " LRU_GEN " and a cgroup of version 2");
		return;
	}
	at = map_pages(AGING_PAGES);
	fill_pages(at, AGING_PAGES, RATIO, round);
	walked_ns = age();	/* new pages are accessed pages */
	if (walked_ns > 0) {
		forget_translations();
		touch(at, AGING_PAGES);
		walked_ns = age();
	}
	if (walked_ns > 0)
		sample("aging", walked_ns / AGING_PAGES);
	else
		absent("aging", "lru_gen refuses to age our group");
	scanned_ns = evict(200, AGING_PAGES, at);
	if (scanned_ns > 0)
		sample("scan", scanned_ns / AGING_PAGES);
	else
		absent("scan", "lru_gen refuses to evict from our group");
	munmap(at, AGING_PAGES * PAGE_BYTES);
	evict_anon(round);
	evict_file("evict_file", path, round, 1);
	evict_file("evict_cache", path, round, 0);
}
