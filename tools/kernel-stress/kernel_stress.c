/* SPDX-License-Identifier: GPL-2.0 */
/* kernel-stress SECONDS SEED DIRECTORY HANG: the arenas, their watchdog, and the balance at the end. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <linux/fs.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

/* Longer between two looks of the watchdog, which has the highest priority, and the machine stood still. */
#define STANDSTILL_MS 10000
/* Objects more at the end than at the beginning, for each kind that belongs to processes. */
#define LEFT_OVER_MAX 64

struct tally *tally;
const char *disk;
static uint64_t random_state = 1;

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000 - tally->skipped_ms;
}

void now_doing(unsigned arena, const char *what, pid_t victim)
{
	tally->arenas[arena].doing = what;
	tally->arenas[arena].victim = victim;
}

void seed(uint64_t value)
{
	random_state = value * 0x9E3779B97F4A7C15ULL + 1;
}

/* xorshift64*: the top bits are the good ones. */
uint64_t draw(uint64_t below)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return below ? (random_state * 0x2545F4914F6CDD1DULL >> 32) % below : 0;
}

bool chance(unsigned percent)
{
	return draw(100) < percent;
}

void nap_us(unsigned us)
{
	struct timespec ts = { us / 1000000, us % 1000000 * 1000L };

	nanosleep(&ts, NULL);
}

bool put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool good;

	if (fd < 0)
		return false;
	good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return good;
}

bool put_number(const char *path, long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", value);
	return put(path, text);
}

void *shared_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

void complain(const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	dprintf(1, "stress: BAD: %s\n", text);
	tally->bad++;
}

void inject_faults(bool on)
{
	put("/proc/thread-self/make-it-fail", on ? "1" : "0");
}

/* Where the kernel has fault injection: one allocation in ten fails, for the threads that ask for it. */
static void set_up_faults(void)
{
	static const char *const kinds[] = { "failslab", "fail_page_alloc" };
	char path[96];
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const char *const settings[][2] = {
			{ "task-filter", "Y" }, { "probability", "10" }, { "times", "-1" },
			{ "verbose", "0" },	{ "ignore-gfp-wait", "N" },
		};
		size_t j;

		for (j = 0; j < sizeof(settings) / sizeof(settings[0]); j++) {
			snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", kinds[i], settings[j][0]);
			put(path, settings[j][1]);
		}
	}
}

static void set_up_groups(void)
{
	char path[96];
	unsigned i;

	mkdir(CGROUP, 0755);
	put("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	put(CGROUP "/cgroup.subtree_control", "+memory");
	mkdir(FREEZER, 0755);
	if (mount("freezer", FREEZER, "cgroup", 0, "freezer"))
		dprintf(1, "stress: no cgroup v1 freezer: %s\n", strerror(errno));
	for (i = 0; i < ARENAS; i++) {
		snprintf(path, sizeof(path), CGROUP "/a%u", i);
		mkdir(path, 0755);
		snprintf(path, sizeof(path), FREEZER "/a%u", i);
		mkdir(path, 0755);
	}
}

static void be_arena(unsigned arena, uint64_t first_seed, uint64_t end_ms)
{
	struct round *round = shared_memory(sizeof(*round));

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setpriority(PRIO_PROCESS, 0, 0);
	seed(first_seed + arena);
	while (now_ms() < end_ms) {
		tally->arenas[arena].since_ms = now_ms();
		one_round(arena, round);
		tally->arenas[arena].rounds++;
	}
	_exit(0);
}

/* Freezes the file system that blocked victims write to, now and then. */
static void be_disk_freezer(uint64_t end_ms)
{
	int fd = open(disk, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setpriority(PRIO_PROCESS, 0, 0);
	while (fd >= 0 && now_ms() < end_ms) {
		if (ioctl(fd, FIFREEZE, 0) == 0) {
			nap_us(200000);
			ioctl(fd, FITHAW, 0);
		}
		nap_us(300000);
	}
	_exit(0);
}

/* Kinds of kernel objects that every process has some of. */
static const char *const kinds[] = { "mm_struct", "task_struct", "signal_cache", "pid" };
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* Active objects of each kind, after giving back what is only kept for later (or by KASAN); -1: not known. */
static void count_objects(long counts[KINDS])
{
	char path[96], line[256], name[64];
	FILE *file;
	size_t i;
	long active;

	put("/proc/sys/vm/drop_caches", "3");
	for (i = 0; i < KINDS; i++) {
		snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", kinds[i]);
		put(path, "1");
		counts[i] = -1;
	}
	file = fopen("/proc/slabinfo", "r");
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%63s %ld", name, &active) != 2)
			continue;
		for (i = 0; i < KINDS; i++) {
			if (strcmp(name, kinds[i]) == 0)
				counts[i] = active;
		}
	}
	if (file)
		fclose(file);
}

static void check_balance(const long before[KINDS])
{
	long after[KINDS];
	size_t i;
	int tries;

	/* Freed by RCU, by workers, and after a while: give them the time. */
	for (tries = 0; tries < 10; tries++) {
		bool settled = true;

		count_objects(after);
		for (i = 0; i < KINDS; i++)
			settled = settled && after[i] - before[i] <= LEFT_OVER_MAX;
		if (settled)
			break;
		sleep(2);
	}
	for (i = 0; i < KINDS; i++) {
		dprintf(1, "stress: objects %s before %ld after %ld\n", kinds[i], before[i], after[i]);
		if (after[i] < 0)
			complain("how many objects of %s there are is not known", kinds[i]);
		if (after[i] - before[i] > LEFT_OVER_MAX)
			complain("leak: %ld objects of %s more than at the beginning", after[i] - before[i], kinds[i]);
	}
}

static void report(uint64_t seconds)
{
	static const char *const names[CALLS] = { "process_reap", "process_mrelease", "cgroup.reap" };
	unsigned call, answer;

	dprintf(1, "stress: seconds %llu rounds %llu forks %llu execs %llu pagings %llu frozen %llu ooms %llu cgroups %llu\n",
		(unsigned long long)seconds, (unsigned long long)tally->rounds, (unsigned long long)tally->forks,
		(unsigned long long)tally->execs, (unsigned long long)tally->pagings, (unsigned long long)tally->frozen,
		(unsigned long long)tally->ooms, (unsigned long long)tally->cgroups);
	for (call = 0; call < CALLS; call++) {
		for (answer = 0; answer < 134; answer++) {
			if (tally->answers[call][answer])
				dprintf(1, "stress: answers %s %u %llu\n", names[call], answer,
					(unsigned long long)tally->answers[call][answer]);
		}
	}
}

/* Wait for what has ended: our children, and orphans. How many of the children are left. */
static unsigned collect(pid_t *children, unsigned count)
{
	unsigned i, left = 0;
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG | __WALL)) > 0) {
		for (i = 0; i < count; i++) {
			if (children[i] == pid)
				children[i] = 0;
		}
	}
	for (i = 0; i < count; i++)
		left += children[i] != 0;
	return left;
}

/* True if every arena came to its end. No round may take longer than hang_ms. */
static bool watch(pid_t *children, unsigned count, uint64_t end_ms, uint64_t hang_ms)
{
	uint64_t start_ms = now_ms(), told_ms = start_ms, looked_ms = start_ms;
	unsigned i;

	while (collect(children, count)) {
		uint64_t now = now_ms();

		if (now - looked_ms > STANDSTILL_MS) {
			dprintf(1, "stress: the machine stood still for %llu ms\n", (unsigned long long)(now - looked_ms));
			tally->skipped_ms += now - looked_ms;
			now = looked_ms;
		}
		looked_ms = now;
		for (i = 0; i < ARENAS; i++) {
			if (children[i] && now > tally->arenas[i].since_ms + hang_ms) {
				explain_hang(i, children[i], hang_ms / 1000);
				return false;
			}
		}
		/* It only sleeps and thaws: late, it hangs itself. */
		if (now > end_ms + hang_ms) {
			complain("hang: who freezes the file system has not ended");
			return false;
		}
		if (now - told_ms >= 10000) {
			told_ms = now;
			report((now - start_ms) / 1000);
		}
		nap_us(100000);
	}
	return true;
}

static bool run(uint64_t seconds, uint64_t first_seed, uint64_t hang_ms)
{
	uint64_t start_ms = now_ms(), end_ms = start_ms + seconds * 1000;
	pid_t children[ARENAS + 1];
	unsigned i, count = ARENAS + (disk != NULL);

	for (i = 0; i < ARENAS; i++)
		tally->arenas[i].since_ms = start_ms;
	for (i = 0; i < count; i++) {
		children[i] = fork();
		if (children[i] == 0) {
			if (i < ARENAS)
				be_arena(i, first_seed, end_ms);
			be_disk_freezer(end_ms);
		}
	}
	if (!watch(children, count, end_ms, hang_ms))
		return false;
	/* Orphans, which end by themselves. */
	for (i = 0; i < 100 && waitpid(-1, NULL, WNOHANG | __WALL) >= 0; i++)
		nap_us(50000);
	return true;
}

int main(int argc, char **argv)
{
	long before[KINDS];
	uint64_t seconds, hang_ms, skipped_ms;

	if (argc > 1 && strcmp(argv[1], "--execed") == 0)
		return be_execed();
	if (argc != 5) {
		dprintf(2, "usage: kernel-stress SECONDS SEED DIRECTORY HANG\n");
		return 2;
	}
	seconds = strtoull(argv[1], NULL, 10);
	disk = argv[3];
	hang_ms = strtoull(argv[4], NULL, 10) * 1000;
	tally = shared_memory(sizeof(*tally));
	/* Orphans of killed forkers come to us, not to the guest's init. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	setpriority(PRIO_PROCESS, 0, -20);
	set_up_groups();
	set_up_faults();
	/* The first rounds fill caches that stay. */
	if (!run(3, 1, hang_ms))
		return 1;
	count_objects(before);
	skipped_ms = tally->skipped_ms;
	memset(tally, 0, sizeof(*tally));
	tally->skipped_ms = skipped_ms;
	if (!run(seconds, strtoull(argv[2], NULL, 10), hang_ms))
		return 1;
	check_balance(before);
	report(seconds);
	dprintf(1, "stress: %s\n", tally->bad ? "FAILED" : "PASSED");
	return tally->bad ? 1 : 0;
}
