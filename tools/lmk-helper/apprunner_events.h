/* SPDX-License-Identifier: Apache-2.0
 *
 * Events as JSON lines in a ring, read by one client at a time over a socket; kept while nobody listens.
 */
#ifndef LMK_APPRUNNER_EVENTS_H
#define LMK_APPRUNNER_EVENTS_H

#include <stdint.h>

/* Adds {"seq":N,"t_ns":T,"kind":KIND,FIELDS}. `fields` is a printf format of JSON members, or NULL for none.
 * Strings in it are names that the timeline's parser has checked, so nothing needs escaping. */
void events_add(const char *kind, const char *fields, ...) __attribute__((format(printf, 2, 3)));
/* The same with the time it happened, where that is not now. */
void events_add_at(int64_t t_ns, const char *kind, const char *fields, ...)
	__attribute__((format(printf, 3, 4)));

/* A client listens from now on (-1: none does). It gets every event that no client was sent completely. */
void events_set_client(int fd);
/* Rewinds the client to the first event with this number or a later one that is still kept. */
void events_rewind(uint64_t seq);
/* Writes what the client takes: 1 if there is more to write, 0 if not, or -errno (the client is gone). */
int events_flush(void);

#endif
