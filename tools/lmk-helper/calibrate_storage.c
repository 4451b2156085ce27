/* SPDX-License-Identifier: Apache-2.0
 *
 * File pages: mapping cached ones, reading cold ones, dropping and reading them again; zram as a block device, for
 * the algorithms that the device does not swap with.
 */
#include "calibrate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "apprunner_memory.h"
#include "common.h"

#define FILE_PAGES 4096u
#define REQUESTS 64u
#define SEQUENTIAL_BYTES (1u << 20)
#define SEQUENTIAL_READS 8u
#define ZRAM_PAGES 512u
#define CHUNK_PAGES 32u
/* Not under /data, which takes no device nodes. */
#define ZRAM_NODE "/dev/lmk-calibrate.zram"
#define OWN_FILE "/data/local/tmp/lmk-calibrate.data"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

static void read_all(volatile const uint8_t *at, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		(void)at[i * PAGE_BYTES];
}

static size_t resident(uint8_t *at, size_t pages)
{
	static unsigned char present[FILE_PAGES];
	size_t count = 0;

	if (mincore(at, pages * PAGE_BYTES, present) < 0)
		return pages;
	for (size_t i = 0; i < pages; i++)
		count += present[i] & 1u;
	return count;
}

/* A file of our own where no pool is given: written once, so that its blocks exist. */
static int open_own(void)
{
	static uint8_t page[PAGE_BYTES];
	struct page_fill fill = page_fill_for_ratio(1000);
	int fd = open(OWN_FILE, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return -1;
	for (size_t i = 0; i < 2 * FILE_PAGES; i++) {
		page_fill_write(&fill, page, 1, i);
		if (lmk_write_full(fd, page, sizeof(page)) < 0)
			break;
	}
	fsync(fd);
	return fd;
}

static uint8_t *map_file(int fd, off_t offset)
{
	void *at = mmap(NULL, FILE_PAGES * PAGE_BYTES, PROT_READ, MAP_SHARED, fd, offset);

	return at == MAP_FAILED ? NULL : at;
}

static void map_cached_and_refault(int fd, off_t offset)
{
	uint8_t *at = map_file(fd, offset);
	int64_t begin_ns, begin_cpu_ns, spent_ns, spent_cpu_ns;
	size_t left;

	if (!at)
		return;
	begin_ns = lmk_now_ns();
	begin_cpu_ns = cpu_ns();
	read_all(at, FILE_PAGES);
	spent_ns = lmk_now_ns() - begin_ns;
	spent_cpu_ns = cpu_ns() - begin_cpu_ns;
	sample("file_read", spent_ns / FILE_PAGES);
	sample("file_read_cpu", spent_cpu_ns / FILE_PAGES);
	munmap(at, FILE_PAGES * PAGE_BYTES);
	at = map_file(fd, offset);
	if (!at)
		return;
	begin_cpu_ns = cpu_ns();
	read_all(at, FILE_PAGES);
	sample("file_fault", (cpu_ns() - begin_cpu_ns) / FILE_PAGES);
	begin_cpu_ns = cpu_ns();
	madvise(at, FILE_PAGES * PAGE_BYTES, MADV_PAGEOUT);
	spent_cpu_ns = cpu_ns() - begin_cpu_ns;
	left = resident(at, FILE_PAGES);
	if (left * 10 > FILE_PAGES) {
		absent("pageout_file", "MADV_PAGEOUT leaves file pages in memory");
	} else {
		sample("pageout_file", spent_cpu_ns / (int64_t)(FILE_PAGES - left));
		begin_ns = lmk_now_ns();
		read_all(at, FILE_PAGES);
		sample("refault", (lmk_now_ns() - begin_ns) / (int64_t)(FILE_PAGES - left));
	}
	munmap(at, FILE_PAGES * PAGE_BYTES);
}

static void direct_reads(const char *path, off_t offset, off_t size, uint64_t round)
{
	void *buffer;
	int64_t begin_ns;
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);

	if (fd < 0 || posix_memalign(&buffer, PAGE_BYTES, SEQUENTIAL_BYTES) != 0) {
		absent("request", "no direct I/O on this file system");
		if (fd >= 0)
			close(fd);
		return;
	}
	for (uint64_t i = 0; i < REQUESTS; i++) {
		/* Spread over the file, never two neighbours. */
		uint64_t page = (i * 2654435761u + round * 40503u) % (uint64_t)(size / PAGE_BYTES);

		begin_ns = lmk_now_ns();
		if (pread(fd, buffer, PAGE_BYTES, (off_t)(page * PAGE_BYTES)) == (ssize_t)PAGE_BYTES)
			sample("request", lmk_now_ns() - begin_ns);
	}
	begin_ns = lmk_now_ns();
	for (off_t i = 0; i < (off_t)SEQUENTIAL_READS; i++)
		if (pread(fd, buffer, SEQUENTIAL_BYTES, offset + i * (off_t)SEQUENTIAL_BYTES) < 0)
			break;
	sample("sequential_kib_per_s", (int64_t)SEQUENTIAL_READS * (SEQUENTIAL_BYTES / 1024) * NS_PER_S /
				       (lmk_now_ns() - begin_ns));
	free(buffer);
	close(fd);
}

void measure_file(const char *path, uint64_t round)
{
	struct stat status;
	off_t offset = 0;
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : open_own();

	if (fd < 0 || fstat(fd, &status) < 0 || status.st_size < (off_t)(FILE_PAGES * PAGE_BYTES)) {
		absent("file", "no file to read");
		if (fd >= 0)
			close(fd);
		return;
	}
	/* Another part each round: an emulator's host caches what was read once. */
	offset = (off_t)((round * FILE_PAGES * PAGE_BYTES) % (uint64_t)(status.st_size - FILE_PAGES * PAGE_BYTES + 1));
	posix_fadvise(fd, offset, FILE_PAGES * PAGE_BYTES, POSIX_FADV_DONTNEED);
	map_cached_and_refault(fd, offset);
	posix_fadvise(fd, offset, FILE_PAGES * PAGE_BYTES, POSIX_FADV_DONTNEED);
	close(fd);
	direct_reads(path ? path : OWN_FILE, offset, status.st_size, round);
	if (!path)
		unlink(OWN_FILE);
}

/* --- zram ----------------------------------------------------------------------------------------------- */

static int zram_write(int id, const char *name, const char *value)
{
	char path[96];

	snprintf(path, sizeof(path), "/sys/block/zram%d/%s", id, name);
	return lmk_write_file(AT_FDCWD, path, value, strlen(value));
}

static int open_zram(int id)
{
	char path[96], text[32];
	unsigned major_number, minor_number;

	snprintf(path, sizeof(path), "/sys/block/zram%d/dev", id);
	if (lmk_read_file(AT_FDCWD, path, text, sizeof(text)) < 0 ||
	    sscanf(text, "%u:%u", &major_number, &minor_number) != 2)
		return -1;
	unlink(ZRAM_NODE);
	if (mknod(ZRAM_NODE, S_IFBLK | 0600, makedev(major_number, minor_number)) < 0)
		return -1;
	return open(ZRAM_NODE, O_RDWR | O_DIRECT | O_CLOEXEC);
}

static void store_class(int fd, const char *algorithm, uint32_t ratio, uint64_t round)
{
	uint8_t *data = map_pages(ZRAM_PAGES), *back = map_pages(CHUNK_PAGES);
	size_t chunk = CHUNK_PAGES * PAGE_BYTES;
	int64_t begin_ns;

	fill_pages(data, ZRAM_PAGES, ratio, round * 100 + ratio);
	memset(back, 1, chunk);
	begin_ns = cpu_ns();
	for (size_t at = 0; at < ZRAM_PAGES * PAGE_BYTES; at += chunk)
		if (pwrite(fd, data + at, chunk, (off_t)at) != (ssize_t)chunk)
			return;
	sample_named((cpu_ns() - begin_ns) / ZRAM_PAGES, "zram.%s.write.%u", algorithm, ratio);
	begin_ns = cpu_ns();
	for (size_t at = 0; at < ZRAM_PAGES * PAGE_BYTES; at += chunk)
		if (pread(fd, back, chunk, (off_t)at) != (ssize_t)chunk)
			return;
	sample_named((cpu_ns() - begin_ns) / ZRAM_PAGES, "zram.%s.read.%u", algorithm, ratio);
	munmap(data, ZRAM_PAGES * PAGE_BYTES);
	munmap(back, chunk);
}

static void measure_algorithm(const char *algorithm, uint64_t round)
{
	char number[16];
	int64_t id;
	int fd;

	if (lmk_read_file(AT_FDCWD, "/sys/class/zram-control/hot_add", number, sizeof(number)) < 0) {
		absent("zram", "no second zram device can be made");
		return;
	}
	number[strcspn(number, "\n")] = '\0';
	if (lmk_parse_i64(number, &id) < 0)
		return;
	fd = -1;
	if (zram_write((int)id, "comp_algorithm", algorithm) == 0 && zram_write((int)id, "disksize", "16M") == 0)
		fd = open_zram((int)id);
	if (fd < 0)
		absent(algorithm, "the kernel lacks this algorithm");
	for (size_t i = 0; fd >= 0 && i < CLASSES_COUNT; i++)
		store_class(fd, algorithm, CLASSES[i], round);
	if (fd >= 0)
		close(fd);
	unlink(ZRAM_NODE);
	zram_write((int)id, "reset", "1");
	lmk_write_file(AT_FDCWD, "/sys/class/zram-control/hot_remove", number, strlen(number));
}

void measure_zram(uint64_t round)
{
	static const char *const algorithms[] = { "lz4", "lzo", "lzo-rle", "zstd" };

	for (size_t i = 0; i < LMK_ARRAY_LEN(algorithms); i++)
		measure_algorithm(algorithms[i], round);
}
