/* SPDX-License-Identifier: Apache-2.0
 *
 * What the runner says about itself when asked: its processes, and the memory of the device.
 */
#include <fcntl.h>
#include <stdio.h>

#include "apprunner_events.h"
#include "apprunner_run.h"
#include "common.h"

void run_status(struct run *run)
{
	for (int i = 0; i < run->adj.count; i++) {
		const struct process *process = &run->processes[run->adj.lru[i].id];
		const struct process_plan *plan = &run->timeline.plans[run->adj.lru[i].id];

		events_add("process", "\"app\":\"%s\",\"pid\":%d,\"uid\":%u,\"adj\":%d,\"frozen\":%s,\"filled\":%s",
			   plan->name, (int)process->pid, (unsigned int)plan->uid, process->sent_adj,
			   process->frozen ? "true" : "false", process->filled ? "true" : "false");
	}
	run_memory_event("status");
	events_add("status", "\"loaded\":%s,\"prepared\":%s,\"running\":%s,\"done\":%s,\"lmkd\":%s",
		   run->loaded ? "true" : "false", run->prepared ? "true" : "false",
		   run->running ? "true" : "false", run->done ? "true" : "false",
		   run->lmkd.fd >= 0 ? "true" : "false");
}

static int64_t number_in(const char *text, const char *key)
{
	int64_t value;

	return lmk_find_number(text, key, &value) < 0 ? -1 : value;
}

void run_memory_event(const char *when)
{
	static char meminfo[4096], vmstat[16384];
	char zram[160];
	long long orig = -1, compressed = -1, used = -1;

	if (lmk_read_file(AT_FDCWD, "/proc/meminfo", meminfo, sizeof(meminfo)) < 0)
		meminfo[0] = 0;
	if (lmk_read_file(AT_FDCWD, "/proc/vmstat", vmstat, sizeof(vmstat)) < 0)
		vmstat[0] = 0;
	if (lmk_read_file(AT_FDCWD, "/sys/block/zram0/mm_stat", zram, sizeof(zram)) > 0)
		sscanf(zram, "%lld %lld %lld", &orig, &compressed, &used);
	/* A value that could not be read is -1. */
	events_add("memory",
		   "\"when\":\"%s\",\"mem_total_kib\":%lld,\"mem_free_kib\":%lld,\"mem_available_kib\":%lld,"
		   "\"swap_total_kib\":%lld,\"swap_free_kib\":%lld,\"refault_file_pages\":%lld,"
		   "\"refault_anon_pages\":%lld,\"zram_orig_bytes\":%lld,\"zram_compressed_bytes\":%lld,"
		   "\"zram_used_bytes\":%lld",
		   when, (long long)number_in(meminfo, "MemTotal:"), (long long)number_in(meminfo, "MemFree:"),
		   (long long)number_in(meminfo, "MemAvailable:"), (long long)number_in(meminfo, "SwapTotal:"),
		   (long long)number_in(meminfo, "SwapFree:"), (long long)number_in(vmstat, "workingset_refault_file "),
		   (long long)number_in(vmstat, "workingset_refault_anon "), orig, compressed, used);
}
