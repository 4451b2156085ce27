/* SPDX-License-Identifier: Apache-2.0
 *
 * A page is a stretch that repeats one word, then random bytes to its end: an LZ compressor makes of it the random
 * part plus a small overhead, whichever algorithm it is. The order matters: lzo and lz4 skip ever faster through
 * data that does not compress and would miss the start of a stretch that came after. zram keeps a page that does
 * not shrink to about 3/4 uncompressed, so ratios near 1 cannot be had on every page: they are mixed from
 * incompressible pages and pages of ratio 2.
 */
#include "apprunner_memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common.h"

/* Lengths, offsets, headers and the first word of a page, as measured: lzo, lz4 and zstd within 16 bytes. */
#define OVERHEAD_BYTES 28u
/* Above this zsmalloc's huge class stores the page whole (3264 bytes with chains of 4 pages). */
#define COMPRESSED_BYTES_MAX 3072u
#define MIXED_BYTES (PAGE_BYTES / 2u)
#define RANDOM_BYTES_MIN 16u

struct page_fill page_fill_for_ratio(uint32_t ratio_permille)
{
	struct page_fill fill = { 0 };
	uint32_t wanted;

	if (ratio_permille == 0) {
		fill.same_filled = 1;
		return fill;
	}
	wanted = (uint32_t)((uint64_t)PAGE_BYTES * 1000u / ratio_permille);
	if (wanted > PAGE_BYTES)
		wanted = PAGE_BYTES;
	if (wanted > COMPRESSED_BYTES_MAX) {
		fill.raw_permyriad = (wanted - MIXED_BYTES) * 10000u / (PAGE_BYTES - MIXED_BYTES);
		wanted = MIXED_BYTES;
	}
	fill.random_bytes = wanted > OVERHEAD_BYTES + RANDOM_BYTES_MIN ? wanted - OVERHEAD_BYTES : RANDOM_BYTES_MIN;
	return fill;
}

static uint64_t mix(uint64_t value)
{
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
	return value ^ (value >> 31);
}

static uint64_t next_random(uint64_t *state)
{
	/* xorshift64: one page's worth has no repeats a compressor could find. */
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void fill_random(uint8_t *out, uint32_t bytes, uint64_t *state)
{
	for (uint32_t at = 0; at < bytes; at += sizeof(uint64_t)) {
		uint64_t word = next_random(state);

		memcpy(out + at, &word, sizeof(word));
	}
}

void page_fill_write(const struct page_fill *fill, uint8_t *page, uint64_t seed, uint64_t index)
{
	uint64_t state = mix(seed * 0x9e3779b97f4a7c15ull + index) | 1u;
	uint32_t at = 0;
	uint64_t word;

	if (fill->same_filled) {
		memset(page, 0x5a, PAGE_BYTES);
		return;
	}
	/* A golden-ratio sequence spreads the incompressible pages evenly over the index. */
	if ((index * 0x9e3779b97f4a7c15ull >> 32) * 10000u >> 32 < fill->raw_permyriad) {
		fill_random(page, PAGE_BYTES, &state);
		return;
	}
	word = next_random(&state);
	for (; at < PAGE_BYTES - fill->random_bytes; at += sizeof(word))
		memcpy(page + at, &word, sizeof(word));
	fill_random(page + at, PAGE_BYTES - at, &state);
}

int page_fill_selftest(uint32_t ratio_permille, uint64_t pages, uint64_t seed)
{
	static uint8_t page[PAGE_BYTES];
	struct page_fill fill = page_fill_for_ratio(ratio_permille);

	for (uint64_t index = 0; index < pages; index++) {
		page_fill_write(&fill, page, seed, index);
		if (lmk_write_full(1, page, sizeof(page)) < 0)
			return 3;
	}
	return 0;
}
