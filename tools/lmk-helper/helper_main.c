/* SPDX-License-Identifier: Apache-2.0
 *
 * lmk-helper: the part of lmk that runs on the device. Options, sockets, shared memory; then the worker.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define TOKEN_BYTES_MIN 16

struct options options = {
	.abstract_name = "lmk-helper",
	.lmkd_socket = "/dev/socket/lmkd",
	.root = "",
	.proc_root = "",
	.bin_dir = "/system/bin",
};
int proc_fd;

static const char USAGE[] =
	"usage: lmk-helper --token-file FILE [--abstract NAME] [--detach] [--log-file FILE]\n"
	"                  [--lmkd-socket PATH] [--bin-dir DIR] [--root DIR] [--proc-root DIR] [--tied]\n"
	"       lmk-helper --selftest-encode | --selftest-decode\n"
	"\n"
	"The token may also be in the environment (LMK_HELPER_TOKEN). The token file is removed once read.\n"
	"--tied ends the helper when its standard input does.\n";

int root_path(char *buffer, const char *path)
{
	int length = lmk_format(buffer, PATH_BYTES, "%s%s", options.root, path);

	return length < 0 ? length : 0;
}

static _Noreturn void fail(const char *what, int error)
{
	fprintf(stderr, "lmk-helper: %s: %s\n", what, strerror(error < 0 ? -error : error));
	exit(2);
}

static void read_token(const char *file)
{
	const char *given = getenv("LMK_HELPER_TOKEN");
	ssize_t length;

	if (file) {
		length = lmk_read_file(AT_FDCWD, file, options.token, sizeof(options.token));
		if (length < 0)
			fail(file, (int)length);
		unlink(file);
		options.token[strcspn(options.token, "\n")] = '\0';
	} else if (given) {
		snprintf(options.token, sizeof(options.token), "%s", given);
		unsetenv("LMK_HELPER_TOKEN");
	}
	if (strlen(options.token) < TOKEN_BYTES_MIN) {
		fprintf(stderr, "lmk-helper: no token of at least %d characters\n", TOKEN_BYTES_MIN);
		exit(2);
	}
}

static int listen_abstract(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length = strlen(name);
	int fd;

	if (length == 0 || length > sizeof(address.sun_path) - 1)
		return -ENAMETOOLONG;
	memcpy(address.sun_path + 1, name, length);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&address,
		 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)) < 0 || listen(fd, 4) < 0) {
		int error = -errno;

		close(fd);
		return error;
	}
	return fd;
}

static void open_proc(void)
{
	char path[PATH_BYTES];
	int error = options.proc_root[0] ? lmk_format(path, sizeof(path), "%s", options.proc_root) :
					   root_path(path, "/proc");

	if (error < 0)
		fail("proc root", error);
	proc_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (proc_fd < 0)
		fail(path, errno);
}

/* Back in the shell once the socket listens, so that whoever started us can connect at once. */
static void detach(void)
{
	pid_t pid = fork();
	int null;

	if (pid < 0)
		fail("fork", errno);
	if (pid > 0) {
		printf("lmk-helper %d listens on @%s\n", pid, options.abstract_name);
		exit(0);
	}
	setsid();
	if (chdir("/") < 0)
		fail("/", errno);
	null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd <= 2; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
}

static bool parse_options(int argc, char **argv, const char **ret_token_file)
{
	static const struct option OPTIONS[] = {
		{ "abstract", required_argument, NULL, 'a' },	 { "token-file", required_argument, NULL, 't' },
		{ "lmkd-socket", required_argument, NULL, 's' }, { "bin-dir", required_argument, NULL, 'b' },
		{ "root", required_argument, NULL, 'r' },	 { "proc-root", required_argument, NULL, 'p' },
		{ "log-file", required_argument, NULL, 'l' },	 { "detach", no_argument, NULL, 'd' },
		{ "tied", no_argument, NULL, 'T' },
		{ "selftest-encode", no_argument, NULL, 'E' },	 { "selftest-decode", no_argument, NULL, 'D' },
		{ NULL, 0, NULL, 0 },
	};
	bool wants_detach = false;
	int option;

	while ((option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1) {
		switch (option) {
		case 'a': options.abstract_name = optarg; break;
		case 't': *ret_token_file = optarg; break;
		case 's': options.lmkd_socket = optarg; break;
		case 'b': options.bin_dir = optarg; break;
		case 'r': options.root = optarg; break;
		case 'p': options.proc_root = optarg; break;
		case 'l': options.log_file = optarg; break;
		case 'T': options.tied = true; break;
		case 'd': wants_detach = true; break;
		case 'E': exit(selftest_encode());
		case 'D': exit(selftest_decode());
		default: fputs(USAGE, stderr); exit(2);
		}
	}
	if (optind != argc) {
		fputs(USAGE, stderr);
		exit(2);
	}
	return wants_detach;
}

int main(int argc, char **argv)
{
	const char *token_file = NULL;
	bool wants_detach = parse_options(argc, argv, &token_file);

	read_token(token_file);
	open_proc();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (shared == MAP_FAILED)
		fail("shared memory", errno);
	host_listen_fd = listen_abstract(options.abstract_name);
	if (host_listen_fd < 0)
		fail(options.abstract_name, host_listen_fd);
	if (wants_detach)
		detach();
	guard_run_worker();
}
