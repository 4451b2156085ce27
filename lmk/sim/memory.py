"""All pages of the device: free, on the LRU lists, in zram, or the kernel's own; and what moving them costs.

Every method that works returns nanoseconds of CPU time for its caller to spend. Source for what counts where:
mm/vmscan.c (shrink_folio_list, reclaim_pages), mm/memory.c (do_anonymous_page, do_swap_page), mm/filemap.c,
mm/workingset.c, Linux 6.12.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from lmk.config.calibration import EMULATOR, Calibration, ZramCost
from lmk.config.device import DeviceConfig
from lmk.sim.lru import DEF_PRIORITY, KSWAPD_PRIORITY, SWAP_CLUSTER_MAX, Lru
from lmk.sim.lru_classic import ClassicLru
from lmk.sim.lru_gen import GenerationLru
from lmk.sim.lru_memcg import MemcgLru
from lmk.sim.region import ANON, FILE, Region
from lmk.sim.zone import PAGE_KIB, Zones, reserved_bytes
from lmk.sim.zram import Zram

#: Pages of one aggregated step of reclaim. The kernel isolates MIN_LRU_BATCH at once, however little is wanted of them.
_BATCH_PAGES: Final = 512
_BATCH_PAGES_MIN: Final = 64
#: Bounds a single call: steps that only move pages between generations cost time but free nothing.
_STEPS_MAX: Final = 64
#: Agings within one call: one that must be, and one for what the first found cold.
_AGED_MAX: Final = 2
#: get_swappiness: with less swap than MIN_LRU_BATCH left MGLRU does without (the classic lists use the last slot).
_MGLRU_SWAP_MIN_PAGES: Final = 64
#: The default of vm.swappiness (mm/vmscan.c).
_SWAPPINESS: Final = 60


class Events:
    """vm_event counters and node statistics that only grow (mm/vmstat.c). A plain class, which is compiled."""

    def __init__(self) -> None:
        self.allocstall = 0
        self.oom_kill = 0
        self.pageoutrun = 0
        self.pgactivate = 0
        self.pgfault = 0
        self.pgfree = 0
        self.pgmajfault = 0
        self.pgpgin_kib = 0
        self.pgscan_anon = 0
        self.pgscan_direct = 0
        self.pgscan_file = 0
        self.pgscan_kswapd = 0
        self.pgsteal_anon = 0
        self.pgsteal_direct = 0
        self.pgsteal_file = 0
        self.pgsteal_kswapd = 0
        self.pswpin = 0
        self.pswpout = 0
        self.refault_anon = 0
        self.refault_file = 0
        self.restore_anon = 0
        self.restore_file = 0


def per_app_memcg(config: DeviceConfig) -> bool:
    """ro.config.per_app_memcg, by default on low-RAM devices (lmkd.cpp, ProcessList)."""
    given = config.properties.get("ro.config.per_app_memcg")
    return config.low_ram if given is None else given in ("1", "y", "yes", "on", "true")


class Memory:
    """The state; see the module's docstring."""

    def __init__(self, config: DeviceConfig, calibration: Calibration, draw: Callable[[int], int]) -> None:
        reserved = reserved_bytes(
            config.memory_bytes, config.arch, calibration.kernel_fixed_kib, calibration.kernel_reserved_permille
        )
        self.zones = Zones(config.memory_bytes, reserved, config.arch, config.vm)
        self.zones.fill_lists(config.cpus, config.kernel.base)
        self.zram: Zram | None = None
        if config.zram is not None:
            self.zram = Zram(config.zram.size_bytes, calibration.zram_overhead_permille)
        swappiness = config.vm.get("swappiness", _SWAPPINESS)
        self.zones.take(calibration.kernel_used_kib // PAGE_KIB)
        mglru = config.kernel.mglru and config.kernel.base != "5.10"
        # The emulated guest's app runner always gives every app a group.
        self._groups = per_app_memcg(config) or calibration.kind == EMULATOR
        # A group has the page tables of one process, which a second walker finds taken.
        walk_ns = calibration.aging_ns if self._groups else 0
        make = partial(GenerationLru, swappiness, walk_ns) if mglru else partial(ClassicLru, swappiness)
        #: lru_gen_refault counts a refault only in the group the page was evicted from.
        self._forgets = self._groups and mglru
        self.lru: Lru = MemcgLru(make, self.zones.high_sum, draw) if self._groups else make()
        self.swappiness = swappiness
        self._swap_min_pages = _MGLRU_SWAP_MIN_PAGES if mglru else 1
        self.events = Events()
        self.file_pages = 0
        self.anon_pages = 0
        #: mlocked anonymous memory
        self.locked_pages = 0
        #: The kernel's own, that of processes included.
        self.process_pages = calibration.kernel_used_kib // PAGE_KIB
        self.calibration = calibration
        algorithm = config.zram.algorithm if config.zram is not None else "lz4"
        self._zram_cost: ZramCost = calibration.zram[algorithm]
        #: By compressed size: nanoseconds to swap a page out, and in.
        self._swap_ns: dict[int, tuple[int, int]] = {}
        #: A page's way out, for estimates before the page is known.
        self.usual_swap_out_ns = calibration.reclaim_anon_ns + self._zram_cost.write_ns
        #: What reclaim takes: to look at a page, at an entry of a page table, to drop a mapped page of a file, and one
        #: that nobody maps. At hand, because reading them from an attrs class is what reclaim would spend its time on.
        self._reclaim_ns = (
            calibration.reclaim_scan_ns,
            calibration.aging_ns,
            calibration.reclaim_file_ns,
            calibration.reclaim_cache_ns,
        )
        #: Changes with everything that a sample of the counters would show.
        self.revision = 0
        #: Pages scanned by the group they are charged to (memory.stat's pgscan).
        self.scanned: dict[int, int] = {}
        #: Regions in use that lost pages since somebody looked.
        self.disturbed: dict[Region, None] = {}

    @property
    def total_kib(self) -> int:
        """MemTotal."""
        return self.zones.managed * PAGE_KIB

    @property
    def can_swap(self) -> bool:
        """Whether reclaim may turn to anonymous pages now."""
        return self.zram is not None and self.zram.free >= self._swap_min_pages and self.swappiness > 0

    def swap_ns(self, region: Region) -> tuple[int, int]:
        """What one of a region's pages takes out to zram, and back."""
        found = self._swap_ns.get(region.stored_bytes)
        if found is None:
            write_ns, read_ns = self._zram_cost.of(region.stored_bytes)
            calibration = self.calibration
            found = (calibration.reclaim_anon_ns + write_ns, calibration.swap_fault_ns + read_ns)
            self._swap_ns[region.stored_bytes] = found
        return found

    def available_pages(self) -> int:
        """MemAvailable."""
        return self.zones.available(self.lru.total(FILE), 0)

    # ---- faults; the caller has made sure that there is room

    def write_new(self, region: Region, pages: int, now_ns: int) -> None:
        """First write to anonymous pages."""
        self._arrive(region, pages, refault=False, now_ns=now_ns)
        self.events.pgfault += pages

    def lock_new(self, pages: int) -> None:
        """Anonymous pages that are mlocked as they appear."""
        self.zones.take(pages)
        self.locked_pages += pages
        self.events.pgfault += pages
        self.revision += 1

    def swap_in(self, region: Region, pages: int, now_ns: int) -> bool:
        """Pages come back from zram; their slots are freed at once (SWP_SYNCHRONOUS_IO). Returns whether they were
        part of the working set, so that their reading counts as a stall."""
        assert self.zram is not None
        stall = self.lru.note_refault(region, pages)
        region.out -= pages
        self.zones.give(self.zram.drop(pages, region.stored_bytes))
        self._arrive(region, pages, refault=True, now_ns=now_ns)
        events = self.events
        events.pgfault += pages
        events.pgmajfault += pages
        events.pswpin += pages
        # zram is a block device: submit_bio counts what is read from it
        events.pgpgin_kib += pages * PAGE_KIB
        events.refault_anon += pages
        events.restore_anon += pages if stall else 0
        return stall

    def read_file(self, region: Region, pages: int, refaulted: int, now_ns: int) -> bool:
        """File pages are read, ``refaulted`` of them again. Returns whether waiting for them is a memory stall."""
        stall = False
        events = self.events
        if refaulted:
            stall = self.lru.note_refault(region, refaulted)
            region.out -= refaulted
            events.refault_file += refaulted
            if stall:
                events.restore_file += refaulted
        region.lower += self.zones.take(pages)
        region.resident += pages
        self.file_pages += pages
        self.lru.add(region, pages, refault=refaulted * 2 > pages, now_ns=now_ns)
        self.revision += 1
        # fault_around_bytes, 64 KiB (mm/memory.c)
        events.pgfault += -(-pages // 16)
        events.pgmajfault += -(-pages // SWAP_CLUSTER_MAX)
        events.pgpgin_kib += pages * PAGE_KIB
        return stall

    def _arrive(self, region: Region, pages: int, *, refault: bool, now_ns: int) -> None:
        """Anonymous pages."""
        region.lower += self.zones.take(pages)
        region.resident += pages
        self.anon_pages += pages
        self.lru.add(region, pages, refault=refault, now_ns=now_ns)
        self.revision += 1

    # ---- the end of a process

    def free_resident(self, region: Region, pages: int) -> None:
        """Resident pages of a region are freed for good."""
        self.lru.remove(region, pages)
        self._give(region, pages)
        self.zones.keep(pages)
        region.resident -= pages
        if region.kind == ANON:
            self.anon_pages -= pages
        else:
            self.file_pages -= pages
        self.events.pgfree += pages
        self.revision += 1

    def _give(self, region: Region, pages: int) -> None:
        """Pages of a region, which still counts them, come back in the zones where it has them."""
        lower = region.lower
        if lower:
            lower = lower * pages // region.resident
            region.lower -= lower
        self.zones.give(pages, lower)

    def free_swapped(self, region: Region, pages: int) -> None:
        """Slots of a region are freed for good."""
        assert self.zram is not None
        region.out -= pages
        self.zones.give(self.zram.drop(pages, region.stored_bytes))
        self.revision += 1

    def hold_process(self, sign: int) -> None:
        """The kernel's own memory for one process: comes (1) and goes (-1)."""
        pages = -(-self.calibration.process_kib // PAGE_KIB)
        if sign > 0:
            self.zones.take(pages)
        else:
            self.zones.give(pages)
        self.process_pages += sign * pages
        self.revision += 1

    def open_files(self, files: tuple[Region, Region], group: int) -> tuple[Region, Region]:
        """A new process opens its files. With a memory cgroup of its own it is charged for what it reads itself; what
        is cached already stays with the group that read it (mm/memcontrol.c, mem_cgroup_charge), removed or not."""
        hot, cold = files
        if not self._groups:
            hot.group = cold.group = group
            return files
        opened = hot.reopened(group), cold.reopened(group)
        if not self._forgets:
            for before, after in zip(files, opened, strict=True):
                after.out, after.out_mark = before.out, before.out_mark
        return opened

    # ---- reclaim

    def reclaim(
        self, want: int, budget_ns: int, *, kswapd: bool, now_ns: int, priority: int = DEF_PRIORITY
    ) -> tuple[int, int]:
        """Evict until ``want`` pages are freed or the budget is spent, by a batch more at most; (pages reclaimed,
        nanoseconds). ``priority`` is that of direct reclaim."""
        lru, events = self.lru, self.events
        scan_ns, walk_ns, file_ns, cache_ns = self._reclaim_ns
        if kswapd:
            priority = KSWAPD_PRIORITY
        else:
            lru.begin_pass(kswapd=False)
        reclaimed = spent = scanned = aged = activated = 0
        for _ in range(_STEPS_MAX):
            if reclaimed >= want or spent >= budget_ns:
                break
            part = min(want - reclaimed, (budget_ns - spent) // file_ns)
            part = min(_BATCH_PAGES, max(_BATCH_PAGES_MIN, part))
            anon = self._swappable(max(_BATCH_PAGES_MIN, (budget_ns - spent) // self.usual_swap_out_ns))
            batch = lru.isolate(part, anon=anon, priority=priority, kswapd=kswapd, now_ns=now_ns + spent)
            kept = batch.kept
            spent += kept * scan_ns + batch.walked * walk_ns
            aged += batch.aged
            if batch.empty or aged > _AGED_MAX:
                break
            scanned += batch.met
            activated += kept
            for region, pages in batch.victims:
                scanned += pages
                self.scanned[region.group] = self.scanned.get(region.group, 0) + pages
                self._evict(region, pages)
                reclaimed += pages
                if region.kind == ANON:
                    spent += pages * self.swap_ns(region)[0]
                    events.pgsteal_anon += pages
                else:
                    spent += pages * (file_ns if region.mapped else cache_ns)
                    events.pgsteal_file += pages
            if batch.victims:
                if batch.victims[0][0].kind == ANON:
                    events.pgscan_anon += batch.pages
                else:
                    events.pgscan_file += batch.pages
        events.pgactivate += activated
        if kswapd:
            events.pgscan_kswapd += scanned
            events.pgsteal_kswapd += reclaimed
        else:
            events.pgscan_direct += scanned
            events.pgsteal_direct += reclaimed
        if scanned or aged:
            self.revision += 1
        return reclaimed, spent

    def page_out(self, region: Region, pages: int, now_ns: int) -> tuple[int, int]:
        """MADV_PAGEOUT of a part of a region, accessed or not (reclaim_pages); (pages, nanoseconds)."""
        pages = min(pages, region.resident)
        if region.kind == ANON:
            pages = min(pages, self.zram.free if self.zram is not None else 0)
        if pages <= 0:
            return 0, 0
        self.lru.remove(region, pages)
        self._evict(region, pages)
        region.set_accessed(min(region.resident, region.accessed(now_ns)), now_ns)
        self.revision += 1
        page_ns = self.swap_ns(region)[0] if region.kind == ANON else self.calibration.reclaim_file_ns
        return pages, pages * page_ns

    def _swappable(self, pages: int) -> int:
        """As many of these as swap has room for, none where reclaim may not turn to anonymous pages."""
        if not self.can_swap:
            return 0
        assert self.zram is not None
        return min(pages, self.zram.free)

    def _evict(self, region: Region, pages: int) -> None:
        """Pages that are off the lists leave memory."""
        if region.kind == ANON:
            assert self.zram is not None
            self.events.pswpout += pages
            # The pool grows before the pages it takes in are freed, from the reserves if it must (PF_MEMALLOC).
            grown = self.zram.store(pages, region.stored_bytes)
            self._give(region, pages)
            self.zones.take(grown)
            self.anon_pages -= pages
        else:
            self._give(region, pages)
            self.file_pages -= pages
        region.resident -= pages
        region.out += pages
        region.out_mark = self.lru.mark(region)
        if region.in_use:
            self.disturbed[region] = None
        self.lru.note_reclaimed(region, pages)
