"""What reclaim needs of a page replacement algorithm, and the balance of anonymous against file pages."""

from __future__ import annotations

from typing import Protocol

from lmk.sim.region import Region

#: include/linux/swap.h: reclaim works in steps of this many pages.
SWAP_CLUSTER_MAX = 32
MAX_SWAPPINESS = 200


class Batch:
    """What one step of reclaim found: victims by region, pages looked at and kept, page table entries walked."""

    __slots__ = ("kept", "victims", "walked")

    def __init__(self) -> None:
        self.victims: list[tuple[Region, int]] = []
        self.kept = 0
        self.walked = 0

    @property
    def pages(self) -> int:
        """Victims in all."""
        return sum(pages for _, pages in self.victims)


class Lru(Protocol):
    """The page lists of one node (or one memory cgroup)."""

    #: Reclaim scanning that ``pgrefill`` counts: pages taken off an active list.
    refilled: int

    def add(self, region: Region, pages: int, *, refault: bool, now_ns: int) -> None:
        """Pages have just become resident by a fault; the caller has raised ``region.resident``."""

    def remove(self, region: Region, pages: int) -> None:
        """Pages are freed otherwise than by ``isolate``; oldest first. The caller lowers ``region.resident``."""

    def follow(self, region: Region) -> None:
        """The region's accessed bits are about to change."""

    def isolate(self, want: int, *, can_swap: bool, kswapd: bool, now_ns: int) -> Batch:
        """Choose about ``want`` pages to evict, all of one kind, and take them off the lists."""

    def counts(self, kind: int) -> tuple[int, int]:
        """Active and inactive pages as /proc/meminfo reports them."""

    def mark(self, region: Region) -> int:
        """The reclaim clock, to be remembered for evicted pages."""

    def note_refault(self, region: Region, pages: int) -> bool:
        """Evicted pages came back. Returns whether they count as part of the working set: then waiting for them is
        a memory stall."""

    def note_reclaimed(self, kind: int, pages: int) -> None:
        """Pages of this kind were written out or dropped."""
