/* SPDX-License-Identifier: Apache-2.0
 *
 * lmk-apprunner stands in for Android's ActivityManager: it runs the processes of a timeline (docs/scenarios.md),
 * sets their oom_score_adj through lmkd's control socket, freezes and compacts cached apps, notices deaths and
 * measures launches. It is controlled by lines over a socket and answers with JSON lines.
 *
 * One thread waits in epoll; a second one only compacts. The memory is locked and allocated at the start.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "apprunner_adj.h"
#include "apprunner_app.h"
#include "apprunner_events.h"
#include "apprunner_memory.h"
#include "apprunner_restart.h"
#include "apprunner_run.h"
#include "common.h"

#define TIMELINE_BYTES_MAX (512u * 1024u)
#define LINE_BYTES_MAX 512u
#define AID_SHELL 2000
/* Above every app, below lmk-helper. */
#define REALTIME_PRIORITY 2
#define EPOLL_EVENTS 32

struct server {
	struct run run;
	int listen_fd, client_fd, compact_fd;
	int client_blocked;		/* waiting for the client to take more */
	int64_t idle_since_ns;		/* nobody connected since; 0: somebody is */
	int64_t linger_ns;
	int finished;
	/* input: lines, or the rest of a timeline */
	char line[LINE_BYTES_MAX];
	size_t line_used;
	char *timeline;
	size_t timeline_used, timeline_wanted;
};

struct options {
	const char *socket, *lmkd, *pool, *memcg_v1, *cgroup;
	int daemon, realtime;
	int64_t linger_s;
};

static struct server server;

static int listen_on(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length = strlen(name);
	int fd, error;

	/* "@name" is in the abstract namespace, anything else a path. */
	if (length >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, name, length);
	if (name[0] == '@')
		address.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	length += offsetof(struct sockaddr_un, sun_path) + (name[0] == '@' ? 0 : 1);
	if (bind(fd, (const struct sockaddr *)&address, (socklen_t)length) < 0 || listen(fd, 4) < 0) {
		error = -errno;
		close(fd);
		return error;
	}
	return fd;
}

static void watch(int fd, enum watch kind)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = (uint64_t)kind << 32 };

	epoll_ctl(server.run.epoll, EPOLL_CTL_ADD, fd, &event);
}

static void drop_client(void)
{
	if (server.client_fd < 0)
		return;
	close(server.client_fd);
	server.client_fd = -1;
	server.client_blocked = 0;
	server.line_used = 0;
	server.timeline_wanted = 0;
	server.idle_since_ns = lmk_now_ns();
	events_set_client(-1);
}

static void flush_client(void)
{
	struct epoll_event event = { .data.u64 = (uint64_t)WATCH_CLIENT << 32 };
	int more = events_flush();

	if (more < 0) {
		drop_client();
	} else if (more != server.client_blocked) {
		server.client_blocked = more;
		event.events = EPOLLIN | (more ? (uint32_t)EPOLLOUT : 0);
		epoll_ctl(server.run.epoll, EPOLL_CTL_MOD, server.client_fd, &event);
	}
}

static void accept_client(void)
{
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t size = sizeof(peer);
	int fd = accept4(server.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
	if (peer.uid != 0 && peer.uid != AID_SHELL && peer.uid != geteuid()) {
		close(fd);
		return;
	}
	/* The newest client wins: an old one may hang on a connection that adb has lost. */
	drop_client();
	server.client_fd = fd;
	server.idle_since_ns = 0;
	watch(fd, WATCH_CLIENT);
	events_set_client(fd);
}

static void load(void)
{
	const char *why = "";
	int line;

	server.timeline[server.timeline_used] = 0;
	line = run_load(&server.run, server.timeline, &why);
	if (line)
		events_add("bad_timeline", "\"line\":%d,\"why\":\"%s\"", line, why);
}

static const char *begin_load(const char *argument)
{
	int64_t bytes;

	if (!argument || lmk_parse_i64(argument, &bytes) < 0 || bytes <= 0 || bytes >= (int64_t)TIMELINE_BYTES_MAX)
		return "expected: load BYTES";
	server.timeline_used = 0;
	server.timeline_wanted = (size_t)bytes;
	return NULL;
}

static const char *begin_steps(int prepare)
{
	struct run *run = &server.run;

	if (!run->loaded)
		return "no timeline is loaded";
	if (prepare ? run->preparing : run->running)
		return "already done";
	if (prepare)
		run_prepare(run);
	else
		run_go(run);
	return NULL;
}

static const char *do_step(char *text)
{
	struct step step;
	const char *why = text ? timeline_parse_step(&server.run.timeline, text, &step) : "expected a step";

	if (!why)
		run_step(&server.run, &step);
	return why;
}

static const char *command(char *line)
{
	char *argument = strchr(line, ' ');
	int64_t number;

	if (argument)
		*argument++ = 0;
	if (!strcmp(line, "load"))
		return begin_load(argument);
	if (!strcmp(line, "prepare") || !strcmp(line, "go"))
		return begin_steps(line[0] == 'p');
	if (!strcmp(line, "do"))
		return do_step(argument);
	if (!strcmp(line, "from")) {
		if (!argument || lmk_parse_i64(argument, &number) < 0 || number < 0)
			return "expected: from SEQ";
		events_rewind((uint64_t)number);
		return NULL;
	}
	if (!strcmp(line, "status")) {
		run_status(&server.run);
		return NULL;
	}
	if (!strcmp(line, "stop")) {
		run_stop(&server.run);
		server.finished = 1;
		return NULL;
	}
	return "unknown command";
}

static void take_input(const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		const char *why;

		if (server.timeline_wanted) {
			size_t left = server.timeline_wanted - server.timeline_used;
			size_t piece = size - i < left ? size - i : left;

			memcpy(server.timeline + server.timeline_used, text + i, piece);
			server.timeline_used += piece;
			i += piece - 1;
			if (server.timeline_used == server.timeline_wanted) {
				server.timeline_wanted = 0;
				load();
			}
			continue;
		}
		if (text[i] != '\n') {
			if (server.line_used < LINE_BYTES_MAX - 1)
				server.line[server.line_used++] = text[i];
			continue;
		}
		server.line[server.line_used] = 0;
		server.line_used = 0;
		why = server.line[0] ? command(server.line) : NULL;
		if (why)
			events_add("refused", "\"why\":\"%s\"", why);
	}
}

static void read_client(void)
{
	char text[4096];

	while (server.client_fd >= 0) {
		ssize_t got = recv(server.client_fd, text, sizeof(text), MSG_DONTWAIT);

		if (got > 0) {
			take_input(text, (size_t)got);
		} else if (got < 0 && errno == EINTR) {
			continue;
		} else {
			if (got == 0 || errno != EAGAIN)
				drop_client();
			return;
		}
	}
}

static void handle(const struct epoll_event *event)
{
	struct compact_result result;
	int index = (int)(event->data.u64 & 0xffffffffu);

	switch ((enum watch)(event->data.u64 >> 32)) {
	case WATCH_LISTEN:
		accept_client();
		break;
	case WATCH_CLIENT:
		if (event->events & EPOLLIN || !(event->events & EPOLLOUT))
			read_client();
		break;
	case WATCH_LMKD:
		run_lmkd_readable(&server.run);
		break;
	case WATCH_COMPACT:
		if (read(server.compact_fd, &result, sizeof(result)) == (ssize_t)sizeof(result))
			run_compacted(&server.run, &result);
		break;
	case WATCH_APP:
		run_app_readable(&server.run, index);
		break;
	case WATCH_DEATH:
		run_app_died(&server.run, index);
		break;
	}
}

static int wait_ms(int64_t next_ns, int64_t now_ns)
{
	if (next_ns == INT64_MAX)
		return -1;
	if (next_ns <= now_ns)
		return 0;
	next_ns = (next_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;
	return next_ns > 60000 ? 60000 : (int)next_ns;
}

/* Nobody is connected and nothing is going on: do not stay for ever. */
static int64_t linger_until(const struct server *state)
{
	if (!state->idle_since_ns || (state->run.running && !state->run.done))
		return INT64_MAX;
	return state->idle_since_ns + state->linger_ns;
}

static void serve(void)
{
	struct epoll_event events[EPOLL_EVENTS];

	while (!server.finished) {
		int64_t now_ns = lmk_now_ns(), next_ns = run_due(&server.run, now_ns), linger_ns;
		int count;

		linger_ns = linger_until(&server);
		if (linger_ns <= now_ns)
			break;
		flush_client();
		count = epoll_wait(server.run.epoll, events, EPOLL_EVENTS,
				   wait_ms(next_ns < linger_ns ? next_ns : linger_ns, now_ns));
		for (int i = 0; i < count; i++)
			handle(&events[i]);
	}
	if (!server.finished)
		run_stop(&server.run);
	/* Before the client sees the end: whoever waited for it may want the name at once. */
	close(server.listen_fd);
	/* The last words: wait a little for the client to take them. */
	for (int i = 0; i < 100 && server.client_fd >= 0 && events_flush() > 0; i++)
		lmk_sleep_ns(10 * NS_PER_MS);
}

/* Out of reach of the memory pressure that we make. Without the rights we run as we are. */
static void protect(const struct options *options)
{
	struct sched_param priority = { .sched_priority = REALTIME_PRIORITY };
	const struct rlimit files = { .rlim_cur = 4096, .rlim_max = 4096 };

	lmk_write_file(AT_FDCWD, "/proc/self/oom_score_adj", "-1000", 5);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	setrlimit(RLIMIT_NOFILE, &files);
	/* By system call: musl's own sched_setscheduler only answers ENOSYS. */
	if (options->realtime)
		syscall(SYS_sched_setscheduler, 0, SCHED_RR | SCHED_RESET_ON_FORK, &priority);
}

static int usage(void)
{
	fputs("usage: lmk-apprunner [--daemon] [--socket @NAME|PATH] [--lmkd PATH|none] [--pool PATH|none]\n"
	      "                     [--memcg-v1 DIR] [--cgroup DIR] [--linger SECONDS] [--no-realtime]\n"
	      "       lmk-apprunner --adj-selftest | --encode-selftest | --restart-selftest\n"
	      "       lmk-apprunner --fill RATIO_PERMILLE PAGES SEED\n", stderr);
	return 2;
}

static int parse_options(int argc, char **argv, struct options *options)
{
	for (int i = 1; i < argc; i++) {
		const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (!strcmp(name, "--daemon")) {
			options->daemon = 1;
			continue;
		}
		if (!strcmp(name, "--no-realtime")) {
			options->realtime = 0;
			continue;
		}
		if (!value)
			return -EINVAL;
		i++;
		if (!strcmp(name, "--socket"))
			options->socket = value;
		else if (!strcmp(name, "--lmkd"))
			options->lmkd = strcmp(value, "none") ? value : NULL;
		else if (!strcmp(name, "--pool"))
			options->pool = strcmp(value, "none") ? value : NULL;
		else if (!strcmp(name, "--memcg-v1"))
			options->memcg_v1 = value;
		else if (!strcmp(name, "--cgroup"))
			options->cgroup = value;
		else if (strcmp(name, "--linger") || lmk_parse_i64(value, &options->linger_s) < 0)
			return -EINVAL;
	}
	return 0;
}

static int start(const struct options *options)
{
	struct run *run = &server.run;

	server.client_fd = -1;
	server.listen_fd = listen_on(options->socket);
	if (server.listen_fd < 0) {
		fprintf(stderr, "lmk-apprunner: cannot listen on %s: %s\n", options->socket,
			strerror(-server.listen_fd));
		return server.listen_fd == -EADDRINUSE ? 4 : 3;
	}
	/* The parent ends once clients can connect, so that the shell that started us returns. */
	if (options->daemon) {
		int null_fd;
		pid_t pid = fork();

		if (pid != 0) {
			printf("%d\n", (int)pid);
			return pid < 0 ? 3 : 0;
		}
		setsid();
		null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		dup2(null_fd, 0);
		dup2(null_fd, 1);
		dup2(null_fd, 2);
	}
	server.timeline = malloc(TIMELINE_BYTES_MAX);
	if (!server.timeline)
		return 3;
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_NAME, "lmk-apprunner");
	protect(options);
	server.linger_ns = options->linger_s * NS_PER_S;
	server.idle_since_ns = lmk_now_ns();
	run->pool_path = options->pool;
	run->roots = (struct cgroup_roots){ .memory_v1 = options->memcg_v1, .unified = options->cgroup };
	run->epoll = epoll_create1(EPOLL_CLOEXEC);
	lmkd_init(&run->lmkd, options->lmkd);
	events_add("hello", "\"version\":1,\"pid\":%d", (int)getpid());
	run_init(run);
	server.compact_fd = compact_start();
	watch(server.listen_fd, WATCH_LISTEN);
	if (server.compact_fd >= 0)
		watch(server.compact_fd, WATCH_COMPACT);
	serve();
	return 0;
}

int main(int argc, char **argv)
{
	struct options options = {
		.socket = "@lmk-apprunner",
		.lmkd = "/dev/socket/lmkd",
		.pool = "/data/lmk/filepool",
		.linger_s = 120,
		.realtime = 1,
	};
	int64_t ratio, pages, seed;

	if (getenv(APP_PROFILE_VARIABLE)) {
		size_t length = strlen(argv[0]);

		/* As zygote does: the end of a package name says more than its beginning. */
		prctl(PR_SET_NAME, argv[0] + (length > 15 ? length - 15 : 0));
		app_main();
	}
	if (argc == 2 && !strcmp(argv[1], "--adj-selftest"))
		return adj_selftest();
	if (argc == 2 && !strcmp(argv[1], "--encode-selftest"))
		return lmkd_encode_selftest();
	if (argc == 2 && !strcmp(argv[1], "--restart-selftest"))
		return restart_selftest();
	if (argc == 5 && !strcmp(argv[1], "--fill") && lmk_parse_i64(argv[2], &ratio) == 0 &&
	    lmk_parse_i64(argv[3], &pages) == 0 && lmk_parse_i64(argv[4], &seed) == 0)
		return page_fill_selftest((uint32_t)ratio, (uint64_t)pages, (uint64_t)seed);
	if (parse_options(argc, argv, &options) < 0)
		return usage();
	return start(&options);
}
