"""zram as swap: slots in use, and the pool that holds their compressed pages (drivers/block/zram, mm/zsmalloc.c)."""

from __future__ import annotations

from lmk.sim.zone import PAGE_BYTES


def stored_bytes(compressibility_permille: int) -> int:
    """Average bytes in the pool of one page; 0 permille: same-filled pages, of which zram stores no data.

    Ratios too low for zsmalloc come from a mixture of pages stored whole and pages of half the size, as in the
    guest's app runner, so the average is exact all the same.
    """
    if compressibility_permille <= 0:
        return 0
    return min(PAGE_BYTES, PAGE_BYTES * 1000 // compressibility_permille)


class Zram:
    """Counts only; contents are nobody's business here."""

    __slots__ = ("_bytes", "_overhead_permille", "pool_pages", "slots", "used")

    def __init__(self, size_bytes: int, overhead_permille: int) -> None:
        self.slots = size_bytes // PAGE_BYTES
        self.used = 0
        self.pool_pages = 0
        self._bytes = 0
        self._overhead_permille = overhead_permille

    @property
    def free(self) -> int:
        """Slots left."""
        return self.slots - self.used

    def store(self, pages: int, page_bytes: int) -> int:
        """Put pages in; returns by how many pages the pool grew."""
        self.used += pages
        return self._resize(pages * page_bytes)

    def drop(self, pages: int, page_bytes: int) -> int:
        """Free slots; returns by how many pages the pool shrank."""
        self.used -= pages
        return -self._resize(-pages * page_bytes)

    @property
    def compressed_bytes(self) -> int:
        """What is stored, without overhead."""
        return self._bytes

    def _resize(self, change_bytes: int) -> int:
        before = self.pool_pages
        self._bytes += change_bytes
        # Rounded up: the last page is there as soon as it holds anything.
        self.pool_pages = -(-self._bytes * self._overhead_permille // (1000 * PAGE_BYTES))
        return self.pool_pages - before
