"""The active and inactive lists in aggregate: queues of page counts per region instead of pages.

Source: mm/vmscan.c (get_scan_count, prepare_scan_control, inactive_is_low, shrink_active_list,
folio_check_references), mm/swap.c (lru_note_cost), mm/workingset.c (workingset_refault, workingset_test_recent),
Linux 6.12.
"""

from __future__ import annotations

from math import isqrt
from typing import Final

from lmk.sim.lru import DEF_PRIORITY, MAX_SWAPPINESS, Batch, Lru
from lmk.sim.page_list import PageList
from lmk.sim.region import ANON, FILE, Region
from lmk.sim.zone import PAGE_BYTES
from lmk.units import GIB


class ClassicLru(Lru):
    """Implements ``Lru``."""

    def __init__(self, swappiness: int) -> None:
        #: A list is looked at in small parts (get_scan_count), and after each round kswapd looks at the zones.
        self.passes = 0
        self._refilled = 0
        self._swappiness = swappiness
        self._active = [PageList(), PageList()]
        self._inactive = [PageList(), PageList()]
        #: lruvec->anon_cost and file_cost
        self._cost = [0, 0]
        #: Pages evicted and activated so far: the distance that shadow entries measure.
        self._nonresident_age = 0
        #: Regions of which pages were on the active list when they were evicted (PG_workingset in the shadow).
        self._workingset: set[Region] = set()
        #: Pages still to be taken of each kind before the balance is computed again.
        self._due = [0, 0]

    @property
    def refilled(self) -> int:
        """See ``Lru``."""
        return self._refilled

    def add(self, region: Region, pages: int, *, refault: bool, now_ns: int) -> None:
        """See ``Lru``: new pages start inactive, recent refaults active."""
        if not pages:
            return
        lists = self._active if refault and self._is_recent(region) else self._inactive
        lists[region.kind].put_youngest(region, pages)
        region.touch(pages, now_ns)

    def remove(self, region: Region, pages: int) -> None:
        """See ``Lru``."""
        for lists in (self._inactive, self._active):
            held = lists[region.kind].regions.get(region, 0)
            if held and pages:
                lists[region.kind].cut(region, min(held, pages))
                pages -= min(held, pages)

    def follow(self, region: Region) -> None:
        """See ``Lru``: nothing to do, bits are looked at page by page."""

    def online(self, group: int) -> None:
        """See ``Lru``: there are no groups here."""

    def offline(self, group: int) -> None:
        """See ``Lru``: there are no groups here."""

    def scrape(self) -> None:
        """See ``Lru``: these lists are shrunk like others."""

    def begin_pass(self, *, kswapd: bool) -> None:
        """See ``Lru``: there is but one group."""

    def counts(self, kind: int) -> tuple[int, int]:
        """See ``Lru``."""
        return self._active[kind].pages, self._inactive[kind].pages

    def total(self, kind: int) -> int:
        """See ``Lru``."""
        return self._active[kind].pages + self._inactive[kind].pages

    def mark(self, region: Region) -> int:  # noqa: ARG002
        """See ``Lru``."""
        return self._nonresident_age

    def note_refault(self, region: Region, pages: int) -> bool:
        """See ``Lru``."""
        if not self._is_recent(region):
            return False
        self._nonresident_age += pages
        if region not in self._workingset:
            return False
        self._note_cost(region.kind, pages)
        return True

    def note_reclaimed(self, region: Region, pages: int) -> None:
        """See ``Lru``: evictions age what is not resident; writing to swap counts as a cost of reclaim."""
        self._nonresident_age += pages
        if region.kind == ANON:
            self._note_cost(ANON, pages)

    def isolate(self, want: int, *, anon: int, priority: int, kswapd: bool, now_ns: int) -> Batch:  # noqa: ARG002
        """See ``Lru``."""
        self.passes += 1
        batch = Batch()
        can_swap = anon > 0
        kind = self._kind_to_scan(can_swap, want)
        for _ in range(2):
            if kind == ANON and not can_swap:
                kind = FILE
                continue
            self._deactivate(kind, want, now_ns, batch)
            self._scan(kind, want if kind == FILE else min(want, anon), now_ns, batch)
            if batch.victims or batch.kept or not can_swap:
                break
            kind = 1 - kind
        self._due[kind] -= batch.pages + batch.kept
        return batch

    # ---- balance

    def _kind_to_scan(self, can_swap: bool, want: int) -> int:
        if not can_swap:
            return FILE
        if self._due[ANON] <= 0 and self._due[FILE] <= 0:
            fractions = self._fractions()
            whole = max(1, sum(fractions))
            self._due = [
                max(0, left) + 4 * want * part // whole for left, part in zip(self._due, fractions, strict=True)
            ]
        return ANON if self._due[ANON] > self._due[FILE] else FILE

    def _fractions(self) -> list[int]:
        """get_scan_count: the pressure on anonymous and on file pages."""
        # prepare_scan_control: plenty of inactive cache, none of it to be protected
        inactive_file = self._inactive[FILE].pages
        if inactive_file >> DEF_PRIORITY and not self._inactive_is_low(FILE):
            return [0, 1]
        total = self._cost[ANON] + self._cost[FILE]
        anon, file = total + self._cost[ANON], total + self._cost[FILE]
        total = anon + file
        pressure = [
            self._swappiness * (total + 1) // (anon + 1),
            (MAX_SWAPPINESS - self._swappiness) * (total + 1) // (file + 1),
        ]
        sizes = [self._active[kind].pages + self._inactive[kind].pages for kind in (ANON, FILE)]
        return [size * part for size, part in zip(sizes, pressure, strict=True)]

    def _note_cost(self, kind: int, pages: int) -> None:
        """lru_note_cost: costs decay once they exceed a quarter of the lists."""
        self._cost[kind] += pages
        size = sum(lists[kind].pages for lists in (self._active, self._inactive) for kind in (ANON, FILE))
        while sum(self._cost) > max(1, size // 4):
            self._cost = [cost // 2 for cost in self._cost]

    def _inactive_is_low(self, kind: int) -> bool:
        inactive, active = self._inactive[kind].pages, self._active[kind].pages
        gib = (inactive + active) * PAGE_BYTES // GIB
        ratio = isqrt(10 * gib) if gib else 1
        return inactive * ratio < active

    def _is_recent(self, region: Region) -> bool:
        """workingset_test_recent: the distance is within what the page would have had to stay among."""
        if region.out_mark < 0:
            return False
        size = self._active[FILE].pages + self._active[ANON].pages
        size += self._inactive[FILE].pages if region.kind == ANON else self._inactive[ANON].pages
        return self._nonresident_age - region.out_mark <= size

    # ---- lists

    def _deactivate(self, kind: int, want: int, now_ns: int, batch: Batch) -> None:
        """shrink_active_list: referenced or not, pages go to the inactive list and lose their accessed bits."""
        active, inactive = self._active[kind], self._inactive[kind]
        while want > 0 and active.regions and self._inactive_is_low(kind):
            region = active.first()
            moved = min(want, active.regions[region])
            active.cut(region, moved)
            inactive.put_youngest(region, moved)
            accessed = region.accessed(now_ns)
            region.set_accessed(accessed - accessed * moved // max(1, region.resident), now_ns)
            self._workingset.add(region)
            self._refilled += moved
            batch.kept += moved
            batch.met += moved
            want -= moved

    def _scan(self, kind: int, want: int, now_ns: int, batch: Batch) -> None:
        """shrink_inactive_list: pages in use are activated, pages touched once get another round."""
        inactive = self._inactive[kind]
        while want > 0 and inactive.regions:
            region = inactive.first()
            held = inactive.regions[region]
            accessed = region.accessed(now_ns)
            spared = min(held, -(-held * accessed // max(1, region.resident)))
            if spared:
                region.set_accessed(max(0, accessed - spared), now_ns)
                inactive.cut(region, spared)
                if region.in_use or kind == ANON:
                    self._active[kind].put_youngest(region, spared)
                else:
                    inactive.put_youngest(region, spared)
                batch.kept += spared
                batch.met += spared
                if spared == held:
                    want -= SPARED_COST if spared > SPARED_COST else spared
                    continue
                held -= spared
                if not (region.in_use or kind == ANON):
                    # The rotated pages were merged behind; what is left of the old ones is taken from there.
                    held = min(held, inactive.regions[region])
            taken = min(held, want)
            inactive.cut(region, taken)
            batch.victims.append((region, taken))
            want -= taken


#: A wholly spared region ends a batch after about this many pages, so that no batch looks at everything.
SPARED_COST: Final = 32
