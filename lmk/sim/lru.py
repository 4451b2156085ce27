"""What reclaim needs of a page replacement algorithm, and the balance of anonymous against file pages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from lmk.sim.region import Region

#: include/linux/swap.h: reclaim works in steps of this many pages.
SWAP_CLUSTER_MAX: Final = 32
#: include/linux/mmzone.h: what reclaim starts from; the lower, the more of each list is looked at.
DEF_PRIORITY: Final = 12
#: set_initial_priority: kswapd's goal (the high marks) wants more than that, DEF_PRIORITY / 2 is the limit.
KSWAPD_PRIORITY: Final = 6
MAX_SWAPPINESS: Final = 200


class Batch:
    """What one step of reclaim found: victims by region, pages kept because they are in use, those of them that were
    looked at one by one, page table entries walked (and whether they were, and until when)."""

    __slots__ = ("aged", "kept", "met", "until_ns", "victims", "walked")

    def __init__(self) -> None:
        self.victims: list[tuple[Region, int]] = []
        self.kept = 0
        self.met = 0
        self.walked = 0
        self.aged = False
        self.until_ns = 0

    @property
    def empty(self) -> bool:
        """Whether nothing was found, and nothing will be by trying again."""
        return not self.victims and not self.kept and not self.aged

    @property
    def pages(self) -> int:
        """Victims in all."""
        return sum(pages for _, pages in self.victims)


class Lru(ABC):
    """The page lists of one node (or one memory cgroup)."""

    #: How many passes of kswapd are over.
    passes: int

    @property
    @abstractmethod
    def refilled(self) -> int:
        """Pages taken off an active list so far (pgrefill)."""

    @abstractmethod
    def add(self, region: Region, pages: int, *, refault: bool, now_ns: int) -> None:
        """Pages have just become resident by a fault; the caller has raised ``region.resident``."""

    @abstractmethod
    def remove(self, region: Region, pages: int) -> None:
        """Pages are freed otherwise than by ``isolate``; oldest first. The caller lowers ``region.resident``."""

    @abstractmethod
    def follow(self, region: Region) -> None:
        """The region's accessed bits are about to change."""

    @abstractmethod
    def isolate(self, want: int, *, anon: int, priority: int, kswapd: bool, now_ns: int) -> Batch:
        """Look at about ``want`` pages, all of one kind, and take those off the lists that nobody uses; no more than
        ``anon`` if they are anonymous (0: there is no swap for them)."""

    @abstractmethod
    def begin_pass(self, *, kswapd: bool) -> None:
        """kswapd was woken, or an allocation begins to reclaim."""

    @abstractmethod
    def counts(self, kind: int) -> tuple[int, int]:
        """Active and inactive pages as /proc/meminfo reports them."""

    @abstractmethod
    def total(self, kind: int) -> int:
        """Active and inactive together."""

    @abstractmethod
    def mark(self, region: Region) -> int:
        """The reclaim clock, to be remembered for evicted pages."""

    @abstractmethod
    def note_refault(self, region: Region, pages: int) -> bool:
        """Evicted pages came back. Returns whether they count as part of the working set: then waiting for them is
        a memory stall."""

    @abstractmethod
    def online(self, group: int) -> None:
        """A memory cgroup is made."""

    @abstractmethod
    def offline(self, group: int) -> None:
        """The memory cgroup is removed; its pages stay until they are reclaimed or freed."""

    @abstractmethod
    def scrape(self) -> None:
        """These are the lists of one memory cgroup, and it was removed."""

    @abstractmethod
    def note_reclaimed(self, region: Region, pages: int) -> None:
        """Pages of a region were written out or dropped."""
