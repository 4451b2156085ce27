"""A stretch of one process's memory that is used alike: its hot or cold part, anonymous or mapped from a file.

Which pages of it were touched lately is kept as a number, not page by page: the accessed bits of its page table
entries, counted. While the owner is in use the hot part is touched round and round, so the number grows by itself.
"""

from __future__ import annotations

from typing import Final

ANON: Final = 0
FILE: Final = 1


class Region:
    """Pages of one kind. ``resident + out`` of an anonymous one is what was written so far; a file's pages beyond
    ``resident + out`` were never read. ``out`` is in zram, or evicted and remembered by its shadow entries."""

    __slots__ = (
        "_accessed",
        "_period_ns",
        "_stamp_ns",
        "former",
        "group",
        "kind",
        "lower",
        "mapped",
        "name",
        "out",
        "out_mark",
        "pages",
        "resident",
        "stored_bytes",
        "watched",
    )

    def __init__(self, name: str, kind: int, pages: int, stored_bytes: int = 0, group: int = 0) -> None:
        self.name = name
        #: Whose memory cgroup it is charged to, where there is one per app.
        self.group = group
        self.kind = kind
        #: Of a file: what else of it is cached, charged to the groups of its owner's former lives.
        self.former: tuple[Region, ...] = ()
        #: Size it is meant to have.
        self.pages = pages
        self.resident = 0
        #: Of those, pages in the lower one of two zones.
        self.lower = 0
        self.out = 0
        #: The reclaim clock (see Lru.mark) when pages of it were evicted last.
        self.out_mark = -1
        #: One page of it in zram.
        self.stored_bytes = stored_bytes
        #: Whether page tables refer to it; what nobody maps any more is cheaper to evict.
        self.mapped = True
        #: Pages under page tables that MGLRU's next walk looks at (its Bloom filter).
        self.watched = 0
        self._accessed = 0
        self._stamp_ns = 0
        self._period_ns = 0

    def accessed(self, now_ns: int) -> int:
        """Pages whose accessed bit is set."""
        accessed, resident = self._accessed, self.resident
        # Within a step the stamp may lie ahead: whoever ran before has come further in time.
        if self._period_ns and now_ns > self._stamp_ns:
            accessed += resident * (now_ns - self._stamp_ns) // self._period_ns
        return accessed if accessed < resident else resident

    def set_accessed(self, pages: int, now_ns: int) -> None:
        """Reclaim cleared bits: this many are left."""
        self._accessed = pages
        self._stamp_ns = now_ns

    def touch(self, pages: int, now_ns: int) -> None:
        """The owner touched this many resident pages."""
        pages += self._accessed
        if self._period_ns and now_ns > self._stamp_ns:
            pages += self.resident * (now_ns - self._stamp_ns) // self._period_ns
        self._accessed = pages if pages < self.resident else self.resident
        self._stamp_ns = now_ns

    def use(self, period_ns: int, now_ns: int) -> None:
        """From now on all of it is touched once per period; 0: no longer."""
        for region in (self, *self.former):
            region.set_accessed(region.accessed(now_ns), now_ns)
            region._period_ns = period_ns

    def unmap(self, now_ns: int) -> None:
        """The process that mapped this file is gone. Its accessed bits went into PG_referenced (zap_pte_range,
        folio_mark_accessed), which does not keep a clean file page that nobody maps (folio_check_references)."""
        for region in (self, *self.former):
            region._period_ns = 0
            region.set_accessed(0, now_ns)
            region.watched = 0
            region.mapped = False

    @property
    def in_use(self) -> bool:
        """Whether somebody keeps touching it."""
        return self._period_ns > 0

    @property
    def cached(self) -> int:
        """Pages that are in memory, whoever they are charged to."""
        return self.resident + sum(region.resident for region in self.former)

    @property
    def absent(self) -> int:
        """Pages that were never there, or are gone with a group that is."""
        absent = self.pages - self.cached - self.out
        return absent if absent > 0 else 0

    def reopened(self, group: int) -> Region:
        """The same file in the hands of another group: what is cached of it stays charged to whoever read it."""
        region = Region(self.name, self.kind, self.pages, self.stored_bytes, group)
        region.former = tuple(one for one in (self, *self.former) if one.resident)
        return region
