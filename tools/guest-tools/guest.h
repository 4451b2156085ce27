/* SPDX-License-Identifier: Apache-2.0
 *
 * lmk-guest: one static program that is the guest's init, service manager, property store, log store and the
 * stand-in for the stock lmkd. The name it is called by selects the tool (main.c).
 *
 * Errors are negative errno values unless a function says otherwise.
 */
#ifndef LMK_GUEST_H
#define LMK_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define PROPERTY_DIR "/dev/__properties_lmk"
#define LOG_DIR "/dev/__log_lmk"
#define INIT_SOCKET "lmk-init" /* abstract, SOCK_SEQPACKET */
#define BOOT_CONF "/lmk/boot.conf"
#define BOOT_ERRORS "/lmk/boot.errors"
#define PROPERTY_FILE "/system/build.prop"
#define SERVICES_FILE "/system/etc/init/services.rc"
#define PROTECTED_CGROUP "lmk.protected" /* adbd and the helper: not reclaimed, not swapped */
#define NAME_MAX_BYTES 256
#define VALUE_MAX_BYTES 4096
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* --- properties (props.c) ------------------------------------------------------------------------ */

/* The value, or -ENOENT; truncated to size. Returns its length. */
int property_get(const char *name, char *value, size_t size);
/* Writes atomically; -EPERM for a ro.* name that already has a value, -EINVAL for a bad name or value. */
int property_set(const char *name, const char *value);
/* "1", "true", "y", "yes", "on" */
bool property_is_true(const char *name);
/* `name=value` lines, # comments; the number of lines refused. */
int property_load(const char *path);
int getprop_main(int argc, char **argv);
int setprop_main(int argc, char **argv);

/* --- services (services.c: init's side; control.c: the commands) ----------------------------------- */

int services_load(const char *path);
/* Starts every service that is neither `disabled` nor waiting for its property. */
void services_start_all(void);
/* "start NAME", "stop NAME", "restart NAME": 0 or -errno (-ENOENT no such service, -EACCES not enabled). */
int services_control(const char *request);
void services_exited(pid_t pid, int status);
/* Restarts what is due; milliseconds until the next one, or -1. */
int services_run_due(void);
/* The process of a service, or 0. */
pid_t services_pid(const char *name);

/* Sends one request to init and waits for its answer: 0 or -errno. */
int init_request(const char *request);
int start_main(int argc, char **argv);
int stop_main(int argc, char **argv);

/* --- boot (boot.c, network.c) ---------------------------------------------------------------------- */

/* Mounts, devices, sysctls, zram, cgroups, data disk; every refusal goes to boot_error. */
void boot_mounts(void);
void boot_apply(const char *path);
void boot_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Seconds without network traffic after which the guest powers off; 0 for never. */
long boot_idle_limit_s(void);
void network_up(void);
/* Have the card's interrupts handled by these CPUs (a mask). */
void network_bind(unsigned long cpus);
/* True once a TCP socket listens on the port. */
bool network_listens(unsigned port);
long long network_received_bytes(void);

/* --- small helpers (util.c) ------------------------------------------------------------------------ */

/* Whole file, NUL-terminated, at most size-1 bytes: length or -errno. */
ssize_t read_text(const char *path, char *buffer, size_t size);
/* One write() to an existing or new file: 0 or -errno. */
int write_text(const char *path, const char *text);
int write_format(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));
long long now_ms(void);
/* Strips leading and trailing white space in place. */
char *trim(char *text);
/* mkdir -p. */
int make_dirs(const char *path, mode_t mode);
void console(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- the other tools --------------------------------------------------------------------------------- */

int init_main(int argc, char **argv);
int log_main(int argc, char **argv);
int logcat_main(int argc, char **argv);
int standin_lmkd_main(int argc, char **argv);
int shell_main(int argc, char **argv);
/* Appends one record to a buffer ("main", "events" …): 0 or -errno. */
int log_append(const char *buffer, char priority, const char *tag, const char *message);

/* Scheduling policy and real-time priority of this process: 0 or a negative errno. */
int set_scheduler(int policy, int priority);
/* The CPUs that this process may use, as a mask. */
int set_cpus(unsigned long cpus);

/* What carries bytes to and from the host runs on this one CPU: the card's interrupts, adbd, the reaper helper (told
 * by the property). On the way a message is handed on three times; from CPU to CPU each time waits for what cannot be
 * interrupted there, and reclaim keeps interrupts off for milliseconds in software emulation. */
#define TRANSPORT_CPUS 1UL
#define TRANSPORT_CPUS_PROPERTY "ro.lmk_guest.transport_cpus"

#endif
