"""Zones: where free pages are, and the watermarks that reclaim and lmkd look at. All numbers are pages of 4 KiB.

Source: mm/page_alloc.c, __setup_per_zone_wmarks, setup_per_zone_lowmem_reserve, calculate_totalreserve_pages,
calculate_min_free_kbytes; mm/khugepaged.c, set_recommended_min_free_kbytes; mm/show_mem.c, si_mem_available.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Final

from lmk.units import GIB, MIB

PAGE_KIB: Final = 4
PAGE_BYTES: Final = 4096
MIN: Final = 0
LOW: Final = 1
HIGH: Final = 2

#: Kernel defaults for what a config leaves out.
_WATERMARK_SCALE_FACTOR: Final = 10
_MIN_FREE_KIB_LIMITS: Final = (128, 262144)
#: pageblock_nr_pages with 2 MiB huge pages, and MIGRATE_PCPTYPES (include/linux/pageblock-flags.h, mmzone.h).
_PAGEBLOCK_PAGES: Final = 512
_PCP_TYPES: Final = 3
#: set_recommended_min_free_kbytes: never more than 5 % of lowmem.
_KHUGEPAGED_PART: Final = 20
#: sysctl_lowmem_reserve_ratio of ZONE_DMA32 and ZONE_NORMAL (CONFIG_ZONE_DMA is off on Android).
_RESERVE_RATIO: Final = (256, 32)
#: hw/i386/pc_q35.c: with less than this everything lies below 4 GiB, else 2 GiB do.
_Q35_LOWMEM_MAX: Final = 0xB0000000
_Q35_LOWMEM: Final = 2 * GIB
#: hw/arm/virt.c puts RAM at 1 GiB, so 3 GiB of it lie below 4 GiB.
_VIRT_LOWMEM: Final = 3 * GIB
#: mm/page_alloc.c, zone_batchsize: pages that a CPU takes for its list, or gives back, at once.
_PCP_BATCH: Final = 63
#: Before Linux 5.14 a list holds at most six of them (pageset_set_high_and_batch); while a zone is being reclaimed
#: four (nr_pcp_high).
_PCP_OLD_BATCHES: Final = 6
_PCP_RECLAIM_BATCHES: Final = 4
#: IO_TLB_DEFAULT_SIZE (include/linux/swiotlb.h).
_BOUNCE_BYTES: Final = 64 * MIB


class Zone:
    """One populated zone."""

    __slots__ = ("free", "managed", "marks", "name", "present", "protection", "reserve", "user_marks")

    def __init__(self, name: str, present: int, managed: int) -> None:
        self.name = name
        self.present = present
        self.managed = managed
        self.free = managed
        self.marks = [0, 0, 0]
        self.protection: tuple[int, ...] = ()
        #: What an allocation for user space must leave (lowmem_reserve of its class, ZONE_MOVABLE).
        self.reserve = 0
        self.user_marks = [0, 0, 0]


class Zones:
    """All zones of the one node, and the pages free in them."""

    def __init__(self, memory_bytes: int, reserved_bytes: int, arch: str, vm: Mapping[str, int]) -> None:
        self.zones = _populated(memory_bytes, reserved_bytes, arch)
        #: Zones without memory, which /proc/zoneinfo shows all the same: Normal if the device is small, and Movable.
        self.empty = ("Movable",) if len(self.zones) > 1 else ("Normal", "Movable")
        self.managed = sum(zone.managed for zone in self.zones)
        self.free = self.managed
        self._top_down = tuple(reversed(self.zones))
        self._single = self.zones[0] if len(self.zones) == 1 else None
        self._set_reserves()
        self._set_marks(vm)
        self.total_reserve = sum(
            min(zone.managed, max(zone.protection, default=0) + zone.marks[HIGH]) for zone in self.zones
        )
        self.low_sum = sum(zone.marks[LOW] for zone in self.zones)
        self.user_low_sum = sum(zone.user_marks[LOW] for zone in self.zones)
        self.high_sum = sum(zone.marks[HIGH] for zone in self.zones)
        #: Free pages on lists of the CPUs' own, which no mark counts.
        self.listed = self._listed_most = self._listed_least = 0
        self._reclaimed = False
        #: Distance from min to low: what allocations may run ahead of kswapd.
        self.gap = sum(zone.marks[LOW] - zone.marks[MIN] for zone in self.zones)

    def fill_lists(self, cpus: int, base: str) -> None:
        """CPUs begin to keep free pages on lists of their own: all together up to the low mark (zone_highsize). What is
        on them goes up and down between that and nothing; here it is half of it."""
        most = self.low_sum if base != "5.10" else cpus * _PCP_OLD_BATCHES * _PCP_BATCH
        self.listed = self._listed_most = most // 2
        self._listed_least = min(self.listed, cpus * _PCP_RECLAIM_BATCHES * _PCP_BATCH)
        self.take(self.listed)

    def room(self, mark: int) -> int:
        """Pages that user space may allocate before every zone is down to ``mark``."""
        room = 0
        for zone in self.zones:
            spare = zone.free - zone.user_marks[mark]
            if spare > 0:
                room += spare
        return room

    def balanced(self) -> bool:
        """pgdat_balanced: one zone above its high mark is enough for kswapd to sleep."""
        return any(zone.free >= zone.user_marks[HIGH] for zone in self.zones)

    def short(self, mark: int) -> int:
        """Pages that zones are below a mark, all together."""
        short = 0
        for zone in self.zones:
            below = zone.user_marks[mark] - zone.free
            if below > 0:
                short += below
        return short

    def reclaim(self, *, active: bool) -> None:
        """ZONE_RECLAIM_ACTIVE: once kswapd has freed something, and until it sleeps, hardly anything stays on the CPUs'
        lists; after that they are filled by what a process gives back."""
        self._reclaimed = active
        if active and self.listed > self._listed_least:
            self.give(self.listed - self._listed_least)
            self.listed = self._listed_least

    def keep(self, pages: int) -> None:
        """A process that ends has given back so many: they stay on the list of its CPU first."""
        kept = min(pages, self._listed_most - self.listed)
        if kept > 0 and not self._reclaimed:
            self.listed += kept
            self.take(kept)

    def take(self, pages: int) -> int:
        """Allocate; the caller has asked ``room``, or is the kernel, which may go below every mark. Returns how many of
        the pages lie in the lower one of two zones."""
        self.free -= pages
        top = self._top_down[0]
        if self._single is not None or top.free - top.user_marks[LOW] >= pages:
            top.free -= pages
            return 0
        before = self.zones[0].free
        self._take_down(pages)
        return before - self.zones[0].free

    def _take_down(self, pages: int) -> None:
        for mark in (LOW, MIN):
            for zone in self._top_down:
                part = zone.free - zone.user_marks[mark]
                if part >= pages:
                    zone.free -= pages
                    return
                if part > 0:
                    zone.free -= part
                    pages -= part
        for zone in self._top_down:
            part = min(pages, zone.free)
            zone.free -= part
            pages -= part

    def give(self, pages: int, lower: int | None = None) -> None:
        """Free pages, ``lower`` of them in the lower one of two zones; None: wherever, taken as spread over the zones
        by what is used there."""
        self.free += pages
        if self._single is not None:
            self._single.free += pages
            return
        first, last = self.zones
        if lower is None:
            used = self.managed - (self.free - pages)
            lower = pages * (first.managed - first.free) // max(1, used)
        lower = max(min(lower, first.managed - first.free), pages - (last.managed - last.free))
        first.free += lower
        last.free += pages - lower

    def available(self, file_lru: int, reclaimable: int) -> int:
        """MemAvailable (si_mem_available)."""
        available = self.free - self.total_reserve
        available += file_lru - min(file_lru // 2, self.low_sum)
        available += reclaimable - min(reclaimable // 2, self.low_sum)
        return max(0, available)

    def _set_reserves(self) -> None:
        for index, zone in enumerate(self.zones):
            above = [0] * (len(self.zones) + 1)
            managed = 0
            ratio = _RESERVE_RATIO[index] if len(self.zones) > 1 else _RESERVE_RATIO[0]
            for upper in range(index + 1, len(self.zones)):
                managed += self.zones[upper].managed
                above[upper] = managed // ratio
            # ZONE_MOVABLE is empty, so its class reserves what the last populated one does.
            above[len(self.zones)] = managed // ratio
            zone.protection = tuple(above)
            zone.reserve = above[-1]

    def _set_marks(self, vm: Mapping[str, int]) -> None:
        scale = vm.get("watermark_scale_factor", _WATERMARK_SCALE_FACTOR)
        min_free_kib = vm.get("min_free_kbytes")
        if min_free_kib is not None:
            self._set_marks_from(min_free_kib, scale)
            return
        lowest, highest = _MIN_FREE_KIB_LIMITS
        # calculate_min_free_kbytes: int_sqrt(lowmem_kbytes * 16)
        min_free_kib = min(highest, max(lowest, isqrt(self.managed * PAGE_KIB * 16)))
        # khugepaged starts before init writes any sysctl, so its share of lowmem is counted with the default factor.
        self._set_marks_from(min_free_kib, _WATERMARK_SCALE_FACTOR)
        self._set_marks_from(max(min_free_kib, self._khugepaged_kib()), scale)

    def _khugepaged_kib(self) -> int:
        """What khugepaged wants free where huge pages are built in, as in gki_defconfig (in madvise mode).

        Two page blocks a zone and, for each pair of migrate types, one more; at most 5 % of lowmem.
        """
        blocks = len(self.zones) * (2 + _PCP_TYPES * _PCP_TYPES)
        buffer_pages = sum(max(0, zone.managed - zone.marks[HIGH]) for zone in self.zones)
        return min(blocks * _PAGEBLOCK_PAGES, buffer_pages // _KHUGEPAGED_PART) * PAGE_KIB

    def _set_marks_from(self, min_free_kib: int, scale: int) -> None:
        for zone in self.zones:
            lowest = min_free_kib // PAGE_KIB * zone.managed // self.managed
            step = max(lowest >> 2, zone.managed * scale // 10000)
            zone.marks = [lowest, lowest + step, lowest + 2 * step]
            zone.user_marks = [mark + zone.reserve for mark in zone.marks]


def reserved_bytes(memory_bytes: int, arch: str, fixed_kib: int, permille: int) -> int:
    """Memory that the kernel takes before the page allocator has it."""
    return fixed_kib * 1024 + memory_bytes * permille // 1000 + bounce_bytes(memory_bytes, arch)


def bounce_bytes(memory_bytes: int, arch: str) -> int:
    """Bounce buffers for devices that reach only 4 GiB: there once some memory lies above that (pci_swiotlb_detect of
    arch/x86/kernel/pci-dma.c, mem_init of arch/arm64/mm/init.c)."""
    return _BOUNCE_BYTES if _low_bytes(memory_bytes, arch) < memory_bytes else 0


def _low_bytes(memory_bytes: int, arch: str) -> int:
    """How much of it lies below 4 GiB."""
    if arch == "arm64":
        return min(memory_bytes, _VIRT_LOWMEM)
    return memory_bytes if memory_bytes < _Q35_LOWMEM_MAX else _Q35_LOWMEM


def _populated(memory_bytes: int, reserved: int, arch: str) -> list[Zone]:
    low = _low_bytes(memory_bytes, arch)
    names = ("DMA", "Normal") if arch == "arm64" else ("DMA32", "Normal")
    sizes = [low, memory_bytes - low]
    zones = []
    for name, size in zip(names, sizes, strict=True):
        if size >= MIB:
            present = size // PAGE_BYTES
            zones.append(Zone(name, present, present - reserved * size // memory_bytes // PAGE_BYTES))
    return zones
