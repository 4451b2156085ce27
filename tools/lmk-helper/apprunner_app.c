/* SPDX-License-Identifier: Apache-2.0
 *
 * An app process is one thread that alternates between messages and small pieces of work, so that it answers
 * within a few milliseconds even while it fills its memory. Its anonymous memory is one arena of address space;
 * the pages up to `used` have been written. The hot set is the first part of the arena and of the file mapping.
 */
#include "apprunner_app.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "apprunner_memory.h"
#include "common.h"

#define PIECE_PAGES 128u
#define HOT_SLICES 4u

struct app {
	struct app_profile profile;
	struct page_fill fill;
	uint8_t *arena, *pinned;
	volatile const uint8_t *file;
	uint64_t used;			/* anonymous pages written */
	uint64_t pinned_used;
	uint64_t file_seen;		/* file pages read for the first time */
	int started;			/* the cold start is over */
	atomic_int active;
	int filled;
	/* the APP_SHOW in progress */
	int showing;
	uint32_t show_serial;
	uint64_t show_anon, show_file;	/* pages touched so far */
	int64_t burnt_ns;
	struct rusage show_usage;
	/* growth on request */
	uint64_t grow_done, grow_wanted;
	int64_t grow_start_ns, grow_over_ns;
	int growing;
	uint64_t leak_kib_per_s, leak_done, leak_limit;
	int64_t leak_start_ns;
	int64_t growth_ns;		/* growth: last time it was looked at */
	uint64_t growth_rest;		/* KiB * ms not yet grown */
	/* periodic touching */
	int64_t touch_next_ns;
	uint32_t touch_slice;
	/* APP_TOUCH in progress */
	uint64_t sweep_anon, sweep_file, sweep_at;
	uint32_t sweeps;
};

static void answer(uint32_t kind, uint32_t serial, uint64_t a, uint64_t b)
{
	struct app_message message = { .kind = kind, .serial = serial, .a = a, .b = b, .t_ns = lmk_now_ns() };

	/* The runner reads often; if it does not, or has gone, there is nobody to tell. */
	if (send(APP_SOCKET_FD, &message, sizeof(message), MSG_NOSIGNAL) < 0 && errno == EPIPE)
		_exit(0);
}

static void answer_faults(uint32_t kind)
{
	struct rusage now;

	getrusage(RUSAGE_SELF, &now);
	answer(kind, 0, (uint64_t)now.ru_minflt, (uint64_t)now.ru_majflt);
}

static uint64_t hot_of(const struct app *app, uint64_t pages)
{
	return pages * app->profile.hot_permille / 1000u;
}

static void read_profile(struct app_profile *profile)
{
	const char *hex = getenv(APP_PROFILE_VARIABLE);
	uint8_t *out = (uint8_t *)profile;

	for (size_t i = 0; i < sizeof(*profile); i++) {
		unsigned int byte = 0;

		if (!hex || sscanf(hex + 2 * i, "%2x", &byte) != 1)
			_exit(2);
		out[i] = (uint8_t)byte;
	}
}

static void map_pinned(struct app *app)
{
	size_t bytes = (size_t)app->profile.pinned_pages * PAGE_BYTES;
	void *pinned;

	if (!bytes)
		return;
	pinned = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pinned == MAP_FAILED) {
		answer(APP_FAILED, 0, (uint64_t)errno, 0);
		app->profile.pinned_pages = 0;
		return;
	}
	madvise(pinned, bytes, MADV_NOHUGEPAGE);
	if (mlock2(pinned, bytes, MLOCK_ONFAULT) < 0)
		answer(APP_FAILED, 0, (uint64_t)errno, 2);
	app->pinned = pinned;
}

static void map_memory(struct app *app)
{
	const struct app_profile *profile = &app->profile;
	size_t arena_bytes = (size_t)profile->arena_pages * PAGE_BYTES;
	size_t file_bytes = (size_t)profile->file_pages * PAGE_BYTES;
	void *arena = mmap(NULL, arena_bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (arena == MAP_FAILED) {
		answer(APP_FAILED, 0, (uint64_t)errno, 0);
		_exit(1);
	}
	/* A huge page would make 511 neighbours of a touched page resident. */
	madvise(arena, arena_bytes, MADV_NOHUGEPAGE);
	app->arena = arena;
	if (profile->locked && mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
		answer(APP_FAILED, 0, (uint64_t)errno, 2);
	if (profile->has_file && file_bytes > 0) {
		void *file = mmap(NULL, file_bytes, PROT_READ, MAP_SHARED, APP_FILE_FD,
				  (off_t)profile->file_offset_pages * PAGE_BYTES);

		if (file == MAP_FAILED)
			answer(APP_FAILED, 0, (uint64_t)errno, 1);
		else
			app->file = file;
	}
	if (!app->file)
		app->profile.file_pages = 0;
	map_pinned(app);
	answer(APP_BORN, 0, (uint64_t)(uintptr_t)app->arena, (uint64_t)(uintptr_t)app->file);
}

/* Writes up to `count` new pages; fewer once the arena is full. Answers how many. */
static uint64_t grow_pages(struct app *app, uint64_t count)
{
	uint64_t begin = app->used, end = begin + count;

	if (end > app->profile.arena_pages)
		end = app->profile.arena_pages;
	for (; app->used < end; app->used++)
		page_fill_write(&app->fill, app->arena + app->used * PAGE_BYTES, app->profile.seed, app->used);
	return app->used - begin;
}

static int arena_full(const struct app *app)
{
	return app->used == app->profile.arena_pages;
}

static void touch_anon(struct app *app, uint64_t from, uint64_t to)
{
	if (to > app->used)
		to = app->used;
	/* A write keeps the page from being dropped again without a new copy in zram; the byte lies in the random
	 * part of the page, so that the page goes on compressing as before. */
	for (; from < to; from++)
		app->arena[from * PAGE_BYTES + PAGE_BYTES - 1]++;
}

static void touch_file(struct app *app, uint64_t from, uint64_t to)
{
	if (to > app->profile.file_pages)
		to = app->profile.file_pages;
	for (; from < to; from++)
		(void)app->file[from * PAGE_BYTES];
}

static void begin_show(struct app *app, uint32_t serial)
{
	answer(APP_SEEN, serial, 0, 0);
	app->showing = 1;
	app->show_serial = serial;
	app->show_anon = app->show_file = 0;
	app->active = 1;
	app->growth_ns = app->touch_next_ns = lmk_now_ns();
	getrusage(RUSAGE_SELF, &app->show_usage);
}

static void end_show(struct app *app)
{
	struct rusage now;

	getrusage(RUSAGE_SELF, &now);
	app->showing = 0;
	app->started = 1;
	app->touch_next_ns = lmk_now_ns() + app->profile.touch_every_ms * NS_PER_MS / HOT_SLICES;
	answer(APP_SHOWN, app->show_serial, (uint64_t)(now.ru_minflt - app->show_usage.ru_minflt),
	       (uint64_t)(now.ru_majflt - app->show_usage.ru_majflt));
}

/* CPU time of starting up (class loading, layout, drawing) that is not memory. */
static void burn(struct app *app)
{
	struct timespec before, after;
	volatile uint64_t sink = 0;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	do {
		for (uint64_t i = 0; i < 20000; i++)
			sink += i;
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	} while ((after.tv_sec - before.tv_sec) * NS_PER_S + after.tv_nsec - before.tv_nsec < 2 * NS_PER_MS);
	app->burnt_ns += (after.tv_sec - before.tv_sec) * NS_PER_S + after.tv_nsec - before.tv_nsec;
}

/* A thread that uses its share of a CPU while the app is active: drawing, decoding, whatever. It touches nothing,
 * so it goes on while the other thread waits for memory. */
#define CPU_PERIOD_NS (50 * NS_PER_MS)

static void *use_cpu(void *argument)
{
	const struct app *app = argument;
	int64_t busy_ns = CPU_PERIOD_NS / 1000 * app->profile.cpu_permille;

	for (;;) {
		int64_t begin_ns = lmk_now_ns();

		while (atomic_load(&app->active) && lmk_now_ns() - begin_ns < busy_ns)
			continue;
		lmk_sleep_ns(CPU_PERIOD_NS - busy_ns > NS_PER_MS ? CPU_PERIOD_NS - busy_ns : NS_PER_MS);
	}
	return NULL;
}

static void start_cpu_thread(struct app *app)
{
	pthread_attr_t attributes;
	pthread_t thread;

	if (!app->profile.cpu_permille)
		return;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 32 * 1024);
	if (pthread_create(&thread, &attributes, use_cpu, app) != 0)
		answer(APP_FAILED, 0, EAGAIN, 3);
	pthread_attr_destroy(&attributes);
}

/* What is hot of the anonymous memory: a share of all there is, growth included, once the app has started. */
static uint64_t hot_anon(const struct app *app)
{
	uint64_t pages = app->profile.anon_pages;

	return hot_of(app, app->started && app->used > pages ? app->used : pages);
}

/* One piece of the launch in progress: CPU work and the hot part of memory, new or touched again. */
static void show_piece(struct app *app)
{
	uint64_t hot_pages = hot_anon(app);
	uint64_t hot_file = hot_of(app, app->profile.file_pages);

	if (!app->started && app->burnt_ns < app->profile.cold_start_ms * NS_PER_MS) {
		burn(app);
	} else if (app->show_anon < hot_pages) {
		if (app->used < hot_pages)
			grow_pages(app, hot_pages - app->used < PIECE_PAGES ? hot_pages - app->used : PIECE_PAGES);
		else
			touch_anon(app, app->show_anon, app->show_anon + PIECE_PAGES);
		app->show_anon += PIECE_PAGES;
		if (app->used < hot_pages)
			app->show_anon = app->used;
	} else if (app->show_file < hot_file) {
		touch_file(app, app->show_file, app->show_file + PIECE_PAGES);
		app->show_file += PIECE_PAGES;
		if (app->file_seen < app->show_file)
			app->file_seen = app->show_file;
	} else {
		end_show(app);
	}
}

/* One piece of the memory that is not part of the hot set, loaded after the launch. */
static void fill_piece(struct app *app)
{
	if (app->used < app->profile.anon_pages) {
		uint64_t left = app->profile.anon_pages - app->used;

		grow_pages(app, left < PIECE_PAGES ? left : PIECE_PAGES);
	} else if (app->pinned_used < app->profile.pinned_pages) {
		for (uint32_t i = 0; i < PIECE_PAGES && app->pinned_used < app->profile.pinned_pages; i++)
			app->pinned[app->pinned_used++ * PAGE_BYTES] = 1;
	} else if (app->file_seen < app->profile.file_pages) {
		touch_file(app, app->file_seen, app->file_seen + PIECE_PAGES);
		app->file_seen += PIECE_PAGES;
	} else {
		app->filled = 1;
		app->growth_ns = lmk_now_ns();
		answer_faults(APP_FILLED);
	}
}

static uint64_t grow_due(const struct app *app, int64_t now_ns)
{
	uint64_t due = app->grow_wanted;

	if (app->grow_over_ns > 0 && now_ns - app->grow_start_ns < app->grow_over_ns)
		due = (uint64_t)((double)due * (double)(now_ns - app->grow_start_ns) / (double)app->grow_over_ns);
	return due > app->grow_done ? due - app->grow_done : 0;
}

static int grow_piece(struct app *app, int64_t now_ns)
{
	uint64_t due;

	if (!app->growing)
		return 0;
	due = grow_due(app, now_ns);
	app->grow_done += grow_pages(app, due < PIECE_PAGES ? due : PIECE_PAGES);
	if (app->grow_done >= app->grow_wanted || arena_full(app)) {
		app->growing = 0;
		answer(APP_GREW, 0, app->used, (uint64_t)arena_full(app));
	}
	return due > 0;
}

static int leak_piece(struct app *app, int64_t now_ns)
{
	uint64_t due;

	if (!app->leak_kib_per_s)
		return 0;
	due = app->leak_kib_per_s * (uint64_t)((now_ns - app->leak_start_ns) / NS_PER_MS) / 1000u / 4u;
	if (app->leak_limit && due > app->leak_limit)
		due = app->leak_limit;
	if (due <= app->leak_done)
		return 0;
	due -= app->leak_done;
	app->leak_done += grow_pages(app, due < PIECE_PAGES ? due : PIECE_PAGES);
	if ((app->leak_limit && app->leak_done >= app->leak_limit) || arena_full(app)) {
		app->leak_kib_per_s = 0;
		answer(APP_GREW, 0, app->used, (uint64_t)arena_full(app));
	}
	return 1;
}

static void growth_piece(struct app *app, int64_t now_ns)
{
	uint64_t ms = (uint64_t)((now_ns - app->growth_ns) / NS_PER_MS), pages;

	app->growth_ns += (int64_t)ms * NS_PER_MS;
	if (!app->profile.growth_kib_per_min || !app->active || !app->filled)
		return;
	/* Frozen and scheduled-out time does not count: at most a second at once. */
	app->growth_rest += (ms < 1000 ? ms : 1000) * app->profile.growth_kib_per_min;
	pages = app->growth_rest / (60000u * 4u);
	app->growth_rest -= pages * 60000u * 4u;
	grow_pages(app, pages);
}

static int sweep_piece(struct app *app)
{
	uint64_t pages = app->sweep_anon > app->sweep_file ? app->sweep_anon : app->sweep_file;

	if (!app->sweeps)
		return 0;
	if (app->sweep_at < app->sweep_anon)
		touch_anon(app, app->sweep_at, app->sweep_at + PIECE_PAGES);
	if (app->sweep_at < app->sweep_file)
		touch_file(app, app->sweep_at, app->sweep_at + PIECE_PAGES < app->sweep_file ?
			   app->sweep_at + PIECE_PAGES : app->sweep_file);
	app->sweep_at += PIECE_PAGES;
	if (app->sweep_at >= pages) {
		app->sweep_at = 0;
		if (--app->sweeps == 0)
			answer_faults(APP_SWEPT);
	}
	return 1;
}

static void touch_hot_slice(struct app *app, int64_t now_ns)
{
	uint64_t anon = hot_anon(app), file = hot_of(app, app->profile.file_pages);
	uint32_t slice = app->touch_slice++ % HOT_SLICES;

	touch_anon(app, anon * slice / HOT_SLICES, anon * (slice + 1) / HOT_SLICES);
	touch_file(app, file * slice / HOT_SLICES, file * (slice + 1) / HOT_SLICES);
	app->touch_next_ns = now_ns + app->profile.touch_every_ms * NS_PER_MS / HOT_SLICES;
}

/* Does one piece of whatever is due; the milliseconds until there is more to do, or -1. */
static int work(struct app *app)
{
	int64_t now_ns = lmk_now_ns();
	int busy = 0;

	if (app->showing) {
		show_piece(app);
		return 0;
	}
	if (app->started && !app->filled) {
		fill_piece(app);
		busy = 1;
	}
	growth_piece(app, now_ns);
	busy |= grow_piece(app, now_ns) | leak_piece(app, now_ns) | sweep_piece(app);
	if (app->active && app->started && now_ns >= app->touch_next_ns)
		touch_hot_slice(app, now_ns);
	if (busy)
		return 0;
	if (app->growing || app->leak_kib_per_s)
		return 20;
	return app->active ? (int)(app->profile.touch_every_ms / HOT_SLICES) : -1;
}

static void obey(struct app *app, const struct app_message *message)
{
	switch (message->kind) {
	case APP_SHOW:
		begin_show(app, message->serial);
		break;
	case APP_HIDE:
		app->active = app->profile.active;
		break;
	case APP_GROW:
		app->growing = 1;
		app->grow_done = 0;
		app->grow_wanted = message->a;
		app->grow_start_ns = lmk_now_ns();
		app->grow_over_ns = (int64_t)message->b * NS_PER_MS;
		break;
	case APP_LEAK:
		app->leak_kib_per_s = message->a;
		app->leak_done = 0;
		app->leak_limit = message->b;
		app->leak_start_ns = lmk_now_ns();
		break;
	case APP_TOUCH:
		app->sweep_anon = app->used * (message->a >> 32) / 1000u;
		app->sweep_file = app->profile.file_pages * (message->a & 0xffffffffu) / 1000u;
		app->sweep_at = 0;
		app->sweeps = (uint32_t)message->b;
		break;
	case APP_EXIT:
		_exit(0);
	default:
		break;
	}
}

void app_main(void)
{
	static struct app app;
	int wait_ms = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	read_profile(&app.profile);
	unsetenv(APP_PROFILE_VARIABLE);
	app.fill = page_fill_for_ratio(app.profile.ratio_permille);
	map_memory(&app);
	app.active = app.profile.active;
	app.growth_ns = app.touch_next_ns = lmk_now_ns();
	start_cpu_thread(&app);
	for (;;) {
		struct pollfd ready = { .fd = APP_SOCKET_FD, .events = POLLIN };
		struct app_message message;
		ssize_t got;

		if (poll(&ready, 1, wait_ms) > 0) {
			got = recv(APP_SOCKET_FD, &message, sizeof(message), MSG_DONTWAIT);
			if (got == 0)
				_exit(0);
			if (got == (ssize_t)sizeof(message))
				obey(&app, &message);
		}
		wait_ms = work(&app);
	}
}
