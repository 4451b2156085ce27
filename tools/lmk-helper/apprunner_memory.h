/* SPDX-License-Identifier: Apache-2.0
 *
 * Page contents that compress to a wanted size, the same within a few percent under lz4, lzo and zstd.
 */
#ifndef LMK_APPRUNNER_MEMORY_H
#define LMK_APPRUNNER_MEMORY_H

#include <stdint.h>

#define PAGE_BYTES 4096u

struct page_fill {
	uint32_t random_bytes;		/* of a compressible page; the rest repeats */
	uint32_t raw_permyriad;		/* pages of 10,000 that do not compress at all */
	int same_filled;		/* every word equal: zram stores no data for such a page */
};

/* ratio_permille: uncompressed / compressed * 1000 (1000...20000), or 0 for same-filled pages. */
struct page_fill page_fill_for_ratio(uint32_t ratio_permille);

/* Fills one page; (seed, index) decide its contents, and no two of them are equal. */
void page_fill_write(const struct page_fill *fill, uint8_t *page, uint64_t seed, uint64_t index);

/* `lmk-apprunner --fill RATIO_PERMILLE PAGES SEED`: raw pages on stdout. */
int page_fill_selftest(uint32_t ratio_permille, uint64_t pages, uint64_t seed);

#endif
