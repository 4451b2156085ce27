"""Page replacement with a memory cgroup per app: every group has lists of its own, and reclaim goes round them.

Source: mm/vmscan.c, shrink_many, shrink_one and lru_gen_rotate_memcg (Linux 6.12): a visit scans a group's pages
shifted right by the priority, then the next group's turn comes. A group that had to be aged is low on cold pages and
moves to the young groups, which are left alone until all others have been aged as well.
"""

from __future__ import annotations

from collections.abc import Callable

from lmk.sim.lru import DEF_PRIORITY, Batch, Lru
from lmk.sim.region import ANON, FILE, Region

#: MIN_LRU_BATCH: a visit is worth at least this.
_VISIT_PAGES_MIN = 64


class MemcgLru:
    """Implements ``Lru``; ``make`` gives a new group its lists."""

    def __init__(self, make: Callable[[], Lru]) -> None:
        self._make = make
        self._groups: dict[int, Lru] = {}
        #: The order in which groups come up, first the next one; and those that are left alone meanwhile.
        self._round: list[int] = []
        self._young: list[int] = []
        self._left = 0
        self._offline: set[int] = set()
        self._retried: set[int] = set()
        #: Pages of each kind on all lists.
        self._totals = [0, 0]

    @property
    def refilled(self) -> int:
        """See ``Lru``."""
        return sum(group.refilled for group in self._groups.values())

    def add(self, region: Region, pages: int, *, refault: bool, now_ns: int) -> None:
        """See ``Lru``."""
        self._totals[region.kind] += pages
        self._group(region).add(region, pages, refault=refault, now_ns=now_ns)

    def remove(self, region: Region, pages: int) -> None:
        """See ``Lru``."""
        self._totals[region.kind] -= pages
        self._group(region).remove(region, pages)

    def follow(self, region: Region) -> None:
        """See ``Lru``; a group that is gone with its last page has nothing to follow."""
        group = self._groups.get(region.group)
        if group is not None:
            group.follow(region)

    def counts(self, kind: int) -> tuple[int, int]:
        """See ``Lru``."""
        active = inactive = 0
        for group in self._groups.values():
            some_active, some_inactive = group.counts(kind)
            active += some_active
            inactive += some_inactive
        return active, inactive

    def total(self, kind: int) -> int:
        """See ``Lru``."""
        return self._totals[kind]

    def mark(self, region: Region) -> int:
        """See ``Lru``."""
        return self._group(region).mark(region)

    def note_refault(self, region: Region, pages: int) -> bool:
        """See ``Lru``."""
        return self._group(region).note_refault(region, pages)

    def note_reclaimed(self, region: Region, pages: int) -> None:
        """See ``Lru``."""
        self._group(region).note_reclaimed(region, pages)

    def isolate(self, want: int, *, can_swap: bool, priority: int, now_ns: int) -> Batch:
        """See ``Lru``: a batch of the group whose turn it is, or of the next one that has anything."""
        patient = priority == DEF_PRIORITY
        for _ in range(len(self._round) + (0 if patient and self._round else len(self._young))):
            if not self._round:
                self._round, self._young = self._young, []
            key = self._round[0]
            group = self._groups[key]
            if self._left <= 0:
                self._left = self._visit(key, can_swap=can_swap, priority=priority)
            if self._left > 0:
                batch = group.isolate(min(want, self._left), can_swap=can_swap, priority=priority, now_ns=now_ns)
                taken = batch.pages
                if taken:
                    self._totals[batch.victims[0][0].kind] -= taken
                self._left -= taken + batch.kept
                if batch.aged:
                    self._rotate(key)
                elif self._left <= 0:
                    self._round.append(self._round.pop(0))
                if not batch.empty:
                    return batch
                if patient and group.total(FILE) + group.total(ANON) >> priority:
                    # Out of cold pages, but not to be aged yet: it keeps its turn (lruvec_is_sizable).
                    self._left = 0
                    self._round.append(self._round.pop(0))
                    continue
            self._leave_alone()
        return Batch()

    def offline(self, group: int) -> None:
        """See ``Lru``; lru_gen_offline_memcg (MEMCG_LRU_OLD): among the old ones."""
        if group in self._groups:
            self._offline.add(group)
            (self._round if group in self._round else self._young).remove(group)
            # The bins are random and a pass begins with a random one: on average halfway round.
            self._round.insert((len(self._round) + 1) // 2, group)

    def _rotate(self, key: int) -> None:
        """shrink_one of a group that had to be aged: one that was removed stays among the old ones for one more visit
        (MEMCG_LRU_TAIL)."""
        if key in self._offline and key not in self._retried:
            self._retried.add(key)
            self._left = 0
            self._round.append(self._round.pop(0))
        else:
            self._retried.discard(key)
            self._leave_alone()

    def _visit(self, key: int, *, can_swap: bool, priority: int) -> int:
        group = self._groups[key]
        pages = group.total(FILE) + (group.total(ANON) if can_swap else 0)
        if not pages:
            return 0
        if key in self._offline:
            # get_nr_to_scan: try to scrape all its memory if this memcg was deleted
            return pages
        return max(_VISIT_PAGES_MIN, pages >> priority)

    def _leave_alone(self) -> None:
        key = self._round.pop(0)
        self._left = 0
        if key in self._offline and not any(self._groups[key].total(kind) for kind in (ANON, FILE)):
            self._offline.discard(key)
            self._retried.discard(key)
            del self._groups[key]
        else:
            self._young.append(key)

    def _group(self, region: Region) -> Lru:
        group = self._groups.get(region.group)
        if group is None:
            group = self._groups[region.group] = self._make()
            self._round.append(region.group)
        return group
