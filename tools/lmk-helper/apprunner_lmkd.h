/* SPDX-License-Identifier: Apache-2.0
 *
 * ActivityManager's side of /dev/socket/lmkd (LmkdConnection): connects, registers, hears of kills, and comes
 * back when the daemon does. Never blocks.
 */
#ifndef LMK_APPRUNNER_LMKD_H
#define LMK_APPRUNNER_LMKD_H

#include <stdint.h>
#include <sys/types.h>

struct lmkd_client {
	const char *path;
	int fd;			/* -1: not connected */
	int64_t retry_ns;	/* when to try again */
	int with_type;		/* PROCPRIO has the process type (no Android sends it today) */
	int32_t minfree[6][2];	/* (pages, adj); sent as TARGET after connecting */
	int minfree_count;
	int refused;		/* connecting failed and an event said so */
	uint64_t sent;
};

void lmkd_init(struct lmkd_client *client, const char *path);
/* Connects if it is time. 1: connected just now (register what should be registered), 0: nothing new. */
int lmkd_poll(struct lmkd_client *client, int64_t now_ns);
/* 0, -ENOTCONN, -EAGAIN (the daemon is not reading: try again later) or the error that closed it. */
int lmkd_register(struct lmkd_client *client, pid_t pid, uid_t uid, int adj);
int lmkd_remove(struct lmkd_client *client, pid_t pid);
/* Reads notifications: 0, or -EPIPE once the daemon has gone. */
int lmkd_read(struct lmkd_client *client);

/* `lmk-apprunner --encode-selftest`: commands on stdin, packets in hexadecimal on stdout. */
int lmkd_encode_selftest(void);

#endif
