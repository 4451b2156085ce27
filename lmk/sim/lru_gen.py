"""Multi-generational LRU in aggregate: generations hold counts of pages per region instead of pages.

Source: mm/vmscan.c (should_run_aging, get_type_to_scan, isolate_folios, try_to_inc_min_seq, inc_max_seq,
reset_ctrl_pos), include/linux/mm_inline.h (lru_gen_folio_seq), mm/workingset.c (lru_gen_refault), Linux 6.12. Only
tier 0 exists: all pages here are accessed through page tables.
"""

from __future__ import annotations

from typing import Final

from lmk.sim.lru import DEF_PRIORITY, MAX_SWAPPINESS, Batch, Lru
from lmk.sim.page_list import PageList
from lmk.sim.region import ANON, FILE, Region

_MIN_NR_GENS: Final = 2
_MAX_NR_GENS: Final = 4
_MIN_LRU_BATCH: Final = 64
_MAX_LRU_BATCH: Final = 64 * _MIN_LRU_BATCH
#: PTRS_PER_PTE: what one page table maps.
_TABLE_PAGES: Final = 512


class GenerationLru(Lru):
    """Implements ``Lru``."""

    def __init__(self, swappiness: int, walk_ns: int = 0) -> None:
        self._refilled = 0
        #: Of kswapd over these lists alone; what the present one has looked at.
        self.passes = self._looked = 0
        self._removed = False
        self._swappiness = swappiness
        #: What a walk takes for each page, where somebody may come meanwhile; 0: nobody does.
        self._walk_ns = walk_ns
        #: The last walk: when it ends, and what it comes across, in its order, with the generations it took it from.
        self._walk_end_ns = 0
        self._walk: list[tuple[Region, int, list[tuple[int, int]]]] = []
        #: Whether somebody raised the generation meanwhile.
        self._overtaken = False
        # lru_gen_init_lruvec
        self._max = _MIN_NR_GENS + 1
        self._min = [0, 0]
        #: Of each kind, oldest first: the generations from ``_min`` to ``_max``.
        self._gens = [[PageList() for _ in range(_MAX_NR_GENS)] for _ in range(2)]
        self._totals = [0, 0]
        # By list, and in all: pages that a walk put into a younger generation and that still lie where they were.
        self._unsorted: list[dict[int, int]] = [{}, {}]
        self._behind = [0, 0]
        #: Regions that the next walk looks at: those that may have accessed bits, and once a walk has left a Bloom
        #: filter those with page tables in it. A dict for its order.
        self._young: dict[Region, None] = {}
        self._filtered = False
        # struct ctrl_pos of tier 0: this generation's counts and the decaying sums of those before
        self._evicted = [0, 0]
        self._refaulted = [0, 0]
        self._old_evicted = [0, 0]
        self._old_refaulted = [0, 0]

    @property
    def refilled(self) -> int:
        """See ``Lru``."""
        return self._refilled

    def add(self, region: Region, pages: int, *, refault: bool, now_ns: int) -> None:  # noqa: ARG002
        """See ``Lru``: folio_add_lru puts faulted pages into the youngest generation."""
        if pages:
            self._gens[region.kind][-1].put(region, pages)
            self._totals[region.kind] += pages
            region.touch(pages, now_ns)
            if not self._filtered:
                self._young[region] = None

    def remove(self, region: Region, pages: int) -> None:
        """See ``Lru``."""
        kind = region.kind
        behind = self._behind[kind]
        if behind and pages:
            self._sort(kind, behind * pages // self._totals[kind])
        for generation in self._gens[kind]:
            held = generation.regions.get(region, 0)
            part = held if held < pages else pages
            if part:
                generation.cut(region, part)
                self._totals[kind] -= part
                pages -= part
            if not pages:
                break
        if region.resident <= 0:
            self._young.pop(region, None)

    def follow(self, region: Region) -> None:
        """See ``Lru``."""
        if not self._filtered:
            self._young[region] = None

    def online(self, group: int) -> None:
        """See ``Lru``: there are no groups here."""

    def offline(self, group: int) -> None:
        """See ``Lru``: there are no groups here."""

    def scrape(self) -> None:
        """See ``Lru``."""
        self._removed = True

    def begin_pass(self, *, kswapd: bool) -> None:
        """See ``Lru``: there is but one group."""

    def counts(self, kind: int) -> tuple[int, int]:
        """See ``Lru``; lru_gen_is_active: the two youngest generations count as active."""
        generations = self._gens[kind]
        active = generations[-1].pages + generations[-_MIN_NR_GENS].pages
        return active, self._totals[kind] - active

    def total(self, kind: int) -> int:
        """See ``Lru``."""
        return self._totals[kind]

    def mark(self, region: Region) -> int:
        """See ``Lru``: lru_gen_eviction stores min_seq."""
        return self._min[region.kind]

    def note_refault(self, region: Region, pages: int) -> bool:
        """See ``Lru``: lru_gen_refault; recent are those evicted from what still is the oldest generation."""
        if region.out_mark != self._min[region.kind]:
            return False
        self._refaulted[region.kind] += pages
        return True

    def note_reclaimed(self, region: Region, pages: int) -> None:
        """See ``Lru``."""
        self._evicted[region.kind] += pages

    def isolate(self, want: int, *, anon: int, priority: int, kswapd: bool, now_ns: int) -> Batch:
        """See ``Lru``."""
        batch = Batch()
        swappiness = self._swappiness if anon else 0
        if not (self._totals[FILE] or (swappiness and self._totals[ANON])):
            return batch
        while batch.empty:
            # get_nr_to_scan: try to get away with not aging at the default priority, which direct reclaim starts with
            if priority < DEF_PRIORITY and self._should_age(swappiness > 0):
                # aging ends the visit; what it found cold is for the next one
                self._age(now_ns, batch, swappiness > 0)
                return batch
            kind = self._kind_to_scan(swappiness)
            # isolate_folios: nothing in the one, then the other; without swap only file pages
            for _ in range(2 if swappiness else 1):
                if self._scan(kind, want if kind == FILE else min(want, anon), now_ns, batch):
                    break
                kind = 1 - kind
            # evict_folios: to have left an empty generation behind is progress, while there are older ones than the two
            # youngest
            advanced = self._advance(swappiness > 0)
            if not advanced or self._max - self._min[ANON if swappiness else FILE] < _MIN_NR_GENS:
                break
        if kswapd:
            self._looked += batch.pages + batch.kept
            if batch.empty or self._looked >= (self._totals[ANON] + self._totals[FILE]) >> priority:
                self._looked = 0
                self.passes += 1
        return batch

    # ---- generations

    def _held(self, region: Region, seq: int) -> int:
        """The region's pages in a generation, which may be gone."""
        at = seq - self._min[region.kind]
        return self._gens[region.kind][at].regions.get(region, 0) if at >= 0 else 0

    def _move(self, region: Region, pages: int, seq: int, to: int) -> None:
        generations, oldest = self._gens[region.kind], self._min[region.kind]
        generations[seq - oldest].cut(region, pages)
        generations[to - oldest].put(region, pages)

    def _should_age(self, can_swap: bool) -> bool:
        oldest = self._min[ANON if can_swap else FILE]
        if oldest + _MIN_NR_GENS > self._max:
            return True
        if oldest + _MIN_NR_GENS < self._max or self._removed:
            # get_nr_to_scan: of a removed group all memory is scraped, whatever lies in which generation
            return False
        young = old = total = 0
        for kind in (ANON, FILE) if can_swap else (FILE,):
            generations = self._gens[kind]
            young += generations[-1].pages
            if len(generations) > _MIN_NR_GENS:
                old += generations[-1 - _MIN_NR_GENS].pages
            total += self._totals[kind]
        return young * _MIN_NR_GENS > total or old * (_MIN_NR_GENS + 2) < total

    def _age(self, now_ns: int, batch: Batch, can_swap: bool) -> None:
        """inc_max_seq after a walk of the page tables: what it finds accessed, and is what it costs, goes to what was
        the youngest generation until then (walk_pte_range). The new one is for pages to come."""
        batch.aged = True
        if self._walk_ns and now_ns < self._walk_end_ns:
            if self._overtaken:
                # A second walk finds nothing where the first has been, and leaves out what that has yet to come to.
                self._begin_generation(can_swap)
            self._overtake(now_ns)
            return
        self._walk = []
        self._overtaken = False
        # By address: what is mapped later lies lower, and an app maps its files after its arena (apprunner_app.c).
        for region in sorted(self._young, key=lambda region: -region.kind):
            accessed = region.accessed(now_ns)
            seen = self._seen(region, accessed)
            if seen:
                self._walk.append((region, seen, self._promote_all(region, accessed, seen)))
                batch.walked += seen
                region.set_accessed(accessed - seen, now_ns)
            else:
                del self._young[region]
            region.watched = seen
        self._filtered = True
        self._begin_generation(can_swap)
        self._walk_end_ns = batch.until_ns = now_ns + batch.walked * self._walk_ns

    def _begin_generation(self, can_swap: bool) -> None:
        """inc_max_seq"""
        self._max = new = self._max + 1
        for kind in (ANON, FILE):
            self._gens[kind].append(PageList())
            if new - self._min[kind] + 1 > _MAX_NR_GENS:
                self._drop_oldest(kind, can_swap)

    def _overtake(self, now_ns: int) -> None:
        """Whoever comes to age a group while its page tables are being walked finds no process left to walk, and raises
        max_seq at once (iterate_mm_list): what the other still comes across goes to the new generation
        (walk_pte_range). It ends where the mapping does that it is in: by then it has enough, or is to let others run
        (walk_pud_range), looks at max_seq and leaves the rest (walk_mm)."""
        left = (self._walk_end_ns - now_ns) // self._walk_ns
        for kind in (ANON, FILE):
            part = [entry for entry in self._walk if entry[0].kind == kind]
            pages = sum(seen for _, seen, _ in part)
            if left < pages or kind == FILE:
                break
            for region, seen, taken in part:
                self._take_back(region, seen, taken, now_ns)
            left -= pages
            self._walk_end_ns -= pages * self._walk_ns
            self._walk = [entry for entry in self._walk if entry[0].kind != kind]
        self._overtaken = True
        for region, seen, _ in reversed(part):
            moved = min(seen, left, self._held(region, self._max - 1))
            left -= min(seen, left)
            if moved:
                self._move(region, moved, self._max - 1, self._max)

    def _take_back(self, region: Region, seen: int, taken: list[tuple[int, int]], now_ns: int) -> None:
        """The walk did not come to these pages after all."""
        kind, young = region.kind, self._max - 1
        region.set_accessed(min(region.resident, region.accessed(now_ns) + seen), now_ns)
        region.watched = 0
        for seq, moved in taken:
            back = min(moved, self._held(region, young))
            if back and seq >= self._min[kind]:
                self._move(region, back, young, seq)
                fresh = min(back, self._unsorted[kind].get(seq, 0))
                self._behind[kind] -= fresh
                if fresh:
                    self._unsorted[kind][seq] -= fresh
                    if not self._unsorted[kind][seq]:
                        del self._unsorted[kind][seq]

    def _seen(self, region: Region, accessed: int) -> int:
        """Accessed pages that a walk comes across (walk_pmd_range): it leaves out page tables that are not in the Bloom
        filter. In it are those of which the walk before found an eighth accessed, and those where reclaim came upon
        accessed pages since (lru_gen_look_around); new page tables are not."""
        if not self._filtered:
            return accessed
        resident = region.resident
        # A table is in it or not, whichever of its pages was met.
        watched = -(-region.watched // _TABLE_PAGES) * _TABLE_PAGES
        if watched > resident:
            watched = resident
        if region.in_use:
            # Touched round and round: what was touched since the last walk comes after what was before it.
            return max(0, accessed + watched - resident)
        return accessed * watched // resident if resident else 0

    def _accessed_in(self, region: Region, seq: int, accessed: int) -> int:
        """Of a region's pages in one generation those whose accessed bit is set, ``accessed`` of all. A bit is cleared
        as its page is made young: pages without it lie in the youngest generations."""
        generations = self._gens[region.kind]
        at = seq - self._min[region.kind]
        held = generations[at].regions.get(region, 0)
        rest = region.resident - accessed
        younger = len(generations) - 1
        while rest > 0 and younger > at:
            rest -= generations[younger].regions.get(region, 0)
            younger -= 1
        if rest <= 0:
            return held
        return held - rest if rest < held else 0

    def _promote_all(self, region: Region, accessed: int, seen: int) -> list[tuple[int, int]]:
        """Make the pages that a walk comes across young; from which generations, and how many."""
        left, taken = seen, []
        for seq in range(self._min[region.kind], self._max):
            if self._held(region, seq):
                moved = min(left, self._accessed_in(region, seq, accessed))
                if moved:
                    left -= moved
                    self._move(region, moved, seq, self._max)
                    self._leave_behind(region.kind, seq, moved)
                    taken.append((seq, moved))
        return taken

    def _leave_behind(self, kind: int, seq: int, pages: int) -> None:
        """folio_update_gen only changes a page's number. Some of these may lie in an older list already."""
        fresh = pages - pages * self._behind[kind] // self._totals[kind]
        if fresh > 0:
            unsorted = self._unsorted[kind]
            unsorted[seq] = unsorted.get(seq, 0) + fresh
            self._behind[kind] += fresh

    def _sort(self, kind: int, pages: int) -> None:
        """sort_folio: pages come to the list where they belong, or are gone; list by list, as walks left some there."""
        unsorted = self._unsorted[kind]
        self._behind[kind] -= min(pages, self._behind[kind])
        for seq, left in list(unsorted.items()):
            if pages < left:
                unsorted[seq] = left - pages
                break
            del unsorted[seq]
            pages -= left
            if not pages:
                break

    def _drop_oldest(self, kind: int, can_swap: bool) -> None:
        """inc_min_seq: the oldest pages join the next generation. Anonymous ones that cannot be swapped keep their
        list, which by then is the youngest generation's (sequence numbers are taken modulo MAX_NR_GENS)."""
        generations = self._gens[kind]
        target = generations[-1 if kind == ANON and not can_swap else 1]
        for region, pages in generations[0].regions.items():
            target.put(region, pages)
        self._forget_oldest(kind)

    def _forget_oldest(self, kind: int) -> None:
        seq = self._min[kind]
        del self._gens[kind][0]
        self._behind[kind] -= self._unsorted[kind].pop(seq, 0)
        self._min[kind] = seq + 1
        # reset_ctrl_pos with carryover
        self._old_evicted[kind] = (self._old_evicted[kind] + self._evicted[kind]) // 2
        self._old_refaulted[kind] = (self._old_refaulted[kind] + self._refaulted[kind]) // 2
        self._evicted[kind] = self._refaulted[kind] = 0

    def _advance(self, can_swap: bool) -> bool:
        """try_to_inc_min_seq; with swap both kinds keep in step. Returns whether there was anything to leave behind."""
        if self._min[ANON] >= self._min[FILE] and not self._is_empty(FILE, self._min[FILE]):
            # As it mostly is: neither has any to leave behind before the other.
            return False
        oldest = list(self._min)
        for kind in (ANON, FILE) if can_swap else (FILE,):
            while oldest[kind] + _MIN_NR_GENS <= self._max and self._is_empty(kind, oldest[kind]):
                oldest[kind] += 1
        if can_swap:
            oldest[ANON] = min(oldest)
            oldest[FILE] = max(oldest[ANON], self._min[FILE])
        advanced = False
        for kind in (ANON, FILE):
            while self._min[kind] < oldest[kind]:
                self._forget_oldest(kind)
                advanced = True
        return advanced

    def _is_empty(self, kind: int, seq: int) -> bool:
        return not self._gens[kind][seq - self._min[kind]].regions and seq not in self._unsorted[kind]

    # ---- eviction

    def _kind_to_scan(self, swappiness: int) -> int:
        if not swappiness:
            return FILE
        if self._min[ANON] < self._min[FILE]:
            return ANON
        if swappiness == 1:
            return FILE
        if swappiness == MAX_SWAPPINESS:
            return ANON
        # get_type_to_scan: positive_ctrl_err(anon, file)
        refaulted_anon = self._refaulted[ANON] + self._old_refaulted[ANON]
        total_anon = self._evicted[ANON] + self._old_evicted[ANON]
        refaulted_file = self._refaulted[FILE] + self._old_refaulted[FILE]
        total_file = self._evicted[FILE] + self._old_evicted[FILE]
        if refaulted_file < _MIN_LRU_BATCH:
            return FILE
        left = refaulted_file * (total_anon + _MIN_LRU_BATCH) * swappiness
        right = (refaulted_anon + 1) * total_file * (MAX_SWAPPINESS - swappiness)
        return FILE if left <= right else ANON

    def _scan(self, kind: int, want: int, now_ns: int, batch: Batch) -> bool:
        """scan_folios and folio_check_references: of so many pages looked at those accessed go to the youngest
        generation. What else was accessed around one of them (lru_gen_look_around: as many pages as are isolated at
        once) is mostly of the same batch, and kept with it. Returns whether it found anything but pages to sort."""
        seq = self._min[kind]
        if seq + _MIN_NR_GENS > self._max:
            return False
        oldest, youngest = self._gens[kind][0], self._gens[kind][-1]
        unsorted = self._unsorted[kind]
        behind = unsorted.get(seq, 0) if unsorted else 0
        if behind:
            # sort_folio: among those that are looked for lie what walks found accessed.
            passed = want * behind // oldest.pages + 1 if oldest.pages else max(want, _MAX_LRU_BATCH)
            if passed > behind:
                passed = behind
            self._sort(kind, passed)
            self._refilled += passed
            batch.kept += passed
        found = bool(oldest.regions) or seq in unsorted
        while want > 0 and oldest.regions:
            region = oldest.first()
            held = oldest.regions[region]
            looked = held if held < want else want
            accessed = region.accessed(now_ns)
            met = -(-looked * self._accessed_in(region, seq, accessed) // held) if accessed else 0
            if met:
                region.set_accessed(accessed - met, now_ns)
                watched = region.watched + met
                region.watched = watched if watched < region.resident else region.resident
                self._young[region] = None
                oldest.cut(region, met)
                youngest.put(region, met)
                batch.kept += met
                batch.met += met
            want -= looked
            looked -= met
            if looked:
                oldest.cut(region, looked)
                self._totals[kind] -= looked
                batch.victims.append((region, looked))
        return found
