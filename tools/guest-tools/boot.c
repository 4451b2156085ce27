/* SPDX-License-Identifier: Apache-2.0
 *
 * What Android's first and second stage init set up, as far as memory management is concerned: mounts, cgroups,
 * sysctls, zram, the data disk. Settings come from BOOT_CONF, one per line. A setting the kernel refuses does not
 * stop the boot: it is noted in BOOT_ERRORS, which the host reads and reports.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define CGROUP2 "/sys/fs/cgroup"
#define PROTECTED_V2 CGROUP2 "/" PROTECTED_CGROUP
#define PROTECTED_V1 "/dev/memcg/" PROTECTED_CGROUP
#define PROTECTED_BYTES (64 << 20)

static long idle_limit_s;

void boot_error(const char *format, ...)
{
	char text[512];
	va_list arguments;
	int fd;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	console("lmk-guest: error: %s", text);
	fd = open(BOOT_ERRORS, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd < 0)
		return;
	dprintf(fd, "%s\n", text);
	close(fd);
}

long boot_idle_limit_s(void)
{
	return idle_limit_s;
}

static int mount_at(const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
	mkdir(target, 0755);
	return mount(source, target, type, flags, data) == 0 ? 0 : -errno;
}

static void mount_required(const char *source, const char *target, const char *type, unsigned long flags,
			   const char *data)
{
	int result = mount_at(source, target, type, flags, data);

	if (result != 0 && result != -EBUSY)
		boot_error("mount %s (%s): %s", target, type, strerror(-result));
}

/* favordynmods: a process enters its group without waiting for a grace period of RCU, tens of milliseconds of every app's
 * start. Android has it so: since 4.9 its kernels do without that wait, mainline's with this option from 6.0 on. */
static void mount_cgroups(unsigned long flags)
{
	static const char usual[] = "nsdelegate,memory_recursiveprot";
	static const char favoured[] = "nsdelegate,memory_recursiveprot,favordynmods";

	if (mount_at("cgroup2", CGROUP2, "cgroup2", flags, favoured) != 0)
		mount_required("cgroup2", CGROUP2, "cgroup2", flags, usual);
}

void boot_mounts(void)
{
	const unsigned long safe = MS_NOSUID | MS_NOEXEC | MS_NODEV;

	mount_required("proc", "/proc", "proc", safe, NULL);
	mount_required("sysfs", "/sys", "sysfs", safe, NULL);
	mount_required("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
	mount_required("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,ptmxmode=0666");
	if (mount_at("tracefs", "/sys/kernel/tracing", "tracefs", safe, NULL) != 0)
		boot_error("the kernel has no tracefs");
	mount_at("debugfs", "/sys/kernel/debug", "debugfs", safe, NULL);
	mount_at("binder", "/dev/binderfs", "binder", safe, NULL);
	mount_cgroups(safe);
	make_dirs("/dev/socket", 0755);
	make_dirs("/dev/block", 0755);
	make_dirs(PROPERTY_DIR, 0755);
	make_dirs(LOG_DIR, 01777);
	symlink("/proc/self/fd", "/dev/fd");
	chmod("/tmp", 01777);
}

/* --- one function per setting ------------------------------------------------------------------------ */

static void set_clock(const char *value)
{
	struct timespec wanted = { .tv_sec = atoll(value) }, now;

	/* A machine with a clock knows better than the moment the overlay was written. */
	clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec < wanted.tv_sec)
		clock_settime(CLOCK_REALTIME, &wanted);
}

static void set_sysctl(char *value)
{
	char path[256];
	char *number = strchr(value, ' ');
	int result;

	if (!number)
		return;
	*number++ = '\0';
	snprintf(path, sizeof(path), "/proc/sys/%s", value);
	if (access(path, F_OK) != 0)
		result = -ENOENT;
	else
		result = write_text(path, number);
	if (result != 0)
		boot_error("sysctl %s = %s: %s", value, number,
			   result == -ENOENT ? "this kernel has no such setting" : strerror(-result));
}

/* The header that mkswap writes, without label and UUID. */
static int write_swap_header(const char *device, uint64_t size_bytes)
{
	static unsigned char page[4096];
	uint32_t version = 1, last_page = (uint32_t)(size_bytes / sizeof(page) - 1);
	int fd = open(device, O_WRONLY | O_CLOEXEC);
	int result = 0;

	if (fd < 0)
		return -errno;
	memcpy(page + 1024, &version, sizeof(version));
	memcpy(page + 1028, &last_page, sizeof(last_page));
	memcpy(page + sizeof(page) - 10, "SWAPSPACE2", 10);
	if (write(fd, page, sizeof(page)) != (ssize_t)sizeof(page) || fsync(fd) != 0)
		result = -errno;
	close(fd);
	return result;
}

static void set_zram(char *value)
{
	char *algorithm = strchr(value, ' ');
	int result;

	if (algorithm)
		*algorithm++ = '\0';
	if (access("/sys/block/zram0", F_OK) != 0) {
		boot_error("zram: the kernel has no zram0");
		return;
	}
	if (algorithm && (result = write_text("/sys/block/zram0/comp_algorithm", algorithm)) != 0)
		boot_error("zram: algorithm %s: %s", algorithm, strerror(-result));
	result = write_text("/sys/block/zram0/disksize", value);
	if (result == 0)
		result = write_swap_header("/dev/zram0", strtoull(value, NULL, 10));
	if (result == 0 && swapon("/dev/zram0", 0) != 0)
		result = -errno;
	if (result != 0)
		boot_error("zram: %s bytes: %s", value, strerror(-result));
	symlink("/dev/zram0", "/dev/block/zram0");
}

static void set_mglru(const char *value)
{
	bool wanted = strcmp(value, "1") == 0;
	int result = write_text("/sys/kernel/mm/lru_gen/enabled", wanted ? "y" : "n");

	if (result != 0 && wanted)
		boot_error("mglru: this kernel has no lru_gen");
}

/* adbd's memory must survive the pressure that is being watched: it is never reclaimed, nor swapped. */
static void protect_v2(void)
{
	int result = mkdir(PROTECTED_V2, 0755) == 0 || errno == EEXIST ? 0 : -errno;

	if (result == 0)
		result = write_format(PROTECTED_V2 "/memory.min", "%d", PROTECTED_BYTES);
	if (result == 0)
		result = write_text(PROTECTED_V2 "/memory.swap.max", "0");
	if (result != 0)
		boot_error("cgroup: adbd is not protected from reclaim: %s", strerror(-result));
}

static void set_memcg(const char *value)
{
	if (strcmp(value, "v1") == 0) {
		mount_required("none", "/dev/memcg", "cgroup", MS_NOSUID | MS_NOEXEC | MS_NODEV, "memory");
		make_dirs("/dev/memcg/apps", 0755);
		make_dirs("/dev/memcg/system", 0755);
		make_dirs(PROTECTED_V1, 0755);
		/* The v1 controller knows no memory.min; never swapping it is what it can do. */
		write_text(PROTECTED_V1 "/memory.swappiness", "0");
		return;
	}
	if (write_text(CGROUP2 "/cgroup.subtree_control", "+memory") != 0)
		boot_error("cgroup: no memory controller in cgroup v2");
	write_text(CGROUP2 "/cgroup.subtree_control", "+cpu");
	write_text(CGROUP2 "/cgroup.subtree_control", "+io");
	protect_v2();
}

static void set_data(char *value)
{
	char *type = strchr(value, ' ');
	int result;

	if (!type)
		return;
	*type++ = '\0';
	/* The virtio disk may be probed a moment after init starts. */
	for (int wait = 0; wait < 200 && access(value, F_OK) != 0; wait++)
		usleep(10000);
	/* noinit_itable: ext4 would write inode tables in the background, beside what is measured. */
	result = mount_at(value, "/data", type, MS_NOSUID | MS_NODEV | MS_NOATIME,
			  strcmp(type, "ext4") == 0 ? "noinit_itable" : NULL);
	if (result != 0)
		boot_error("data disk %s (%s): %s", value, type, strerror(-result));
}

static void data_dirs(void)
{
	make_dirs("/data/local", 0751);
	make_dirs("/data/local/tmp", 0777);
	make_dirs("/data/misc", 0771);
	make_dirs("/data/lmk", 0755);
}

static void apply_line(char *line)
{
	char *value = strchr(line, ' ');

	if (!value)
		return;
	*value++ = '\0';
	if (strcmp(line, "epoch") == 0)
		set_clock(value);
	else if (strcmp(line, "hostname") == 0)
		sethostname(value, strlen(value));
	else if (strcmp(line, "sysctl") == 0)
		set_sysctl(value);
	else if (strcmp(line, "zram") == 0)
		set_zram(value);
	else if (strcmp(line, "mglru") == 0)
		set_mglru(value);
	else if (strcmp(line, "memcg") == 0)
		set_memcg(value);
	else if (strcmp(line, "data") == 0)
		set_data(value);
	else if (strcmp(line, "idle") == 0)
		idle_limit_s = atol(value);
	else
		boot_error("%s: unknown setting %s", BOOT_CONF, line);
}

void boot_apply(const char *path)
{
	char line[1024];
	FILE *file = fopen(path, "re");

	if (!file) {
		boot_error("%s: %s", path, strerror(errno));
	} else {
		while (fgets(line, sizeof(line), file)) {
			char *text = trim(line);
			if (*text && *text != '#')
				apply_line(text);
		}
		fclose(file);
	}
	data_dirs();
}
