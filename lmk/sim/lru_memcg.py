"""Page replacement with a memory cgroup per app: every group has lists of its own, and reclaim goes round them.

Source: mm/vmscan.c, shrink_many, shrink_one and lru_gen_rotate_memcg (Linux 6.12). Groups lie in the bins of an old and
of a young generation. A pass begins at a random bin of the old one and scans of each group its pages shifted right by
the priority, until enough was reclaimed: so direct reclaim takes all it wants from whoever lies first in a bin. A group
that had to be aged is low on cold pages and moves to the young ones, which are left alone until no old one is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lmk.sim.lru import KSWAPD_PRIORITY, SWAP_CLUSTER_MAX, Batch, Lru
from lmk.sim.region import ANON, FILE, Region

#: MEMCG_NR_BINS, and how many bits choose one.
_BIN_BITS: Final = 3
_BINS: Final = 1 << _BIN_BITS
#: MIN_LRU_BATCH: what is isolated at once.
_BATCH_PAGES: Final = 64


class _Pass:
    """A way round the old groups: the bin it is at, and how many follow; groups still to be visited there; what is left
    of the visit of the first of them, and of what the pass is to reclaim."""

    __slots__ = ("bin", "bins_left", "left", "priority", "queue", "wanted")

    def __init__(self) -> None:
        self.bin = self.bins_left = 0
        self.queue: list[int] = []
        self.left = self.wanted = 0
        self.priority = KSWAPD_PRIORITY

    def end(self) -> None:
        """The next group is that of another pass."""
        self.bins_left = self.left = 0
        self.queue = []


class MemcgLru(Lru):
    """Implements ``Lru``; ``make`` gives a new group its lists. ``goal``: pages after which a pass of kswapd ends.
    ``draw``: random bits, so many."""

    def __init__(self, make: Callable[[], Lru], goal: int, draw: Callable[[int], int]) -> None:
        self._make = make
        self._goal = goal
        self._groups: dict[int, Lru] = {}
        self._draw = draw
        self._old: list[list[int]] = [[] for _ in range(_BINS)]
        self._young: list[list[int]] = [[] for _ in range(_BINS)]
        #: The bin that a group lies in.
        self._bins: dict[int, list[int]] = {}
        #: Groups of the old generation.
        self._olds: set[int] = set()
        self._offline: set[int] = set()
        #: Groups that were put to the tail of a bin for one more visit (MEMCG_LRU_TAIL).
        self._retried: set[int] = set()
        #: kswapd's own, which goes on, and that of whoever reclaims directly.
        self._kswapd, self._direct = _Pass(), _Pass()
        self.passes = 0
        #: kswapd has just been woken: the pass that begins follows on none.
        self._woken = False
        #: How many pages kswapd's last pass, or this one, has looked at; at first enough.
        self._scanned = goal
        #: Groups whose page tables are being walked, and until when: they are rotated after that.
        self._walked: dict[int, int] = {}
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

    def isolate(self, want: int, *, anon: int, priority: int, kswapd: bool, now_ns: int) -> Batch:
        """See ``Lru``: a batch of the group whose turn it is, or of the next one that has anything."""
        if self._walked:
            self._end_walks(now_ns)
        run = self._kswapd
        if not kswapd:
            run = self._direct
            run.priority = priority
        return self._go_on(run, want, anon, now_ns)

    def online(self, group: int) -> None:
        """See ``Lru``; lru_gen_online_memcg: last in a bin of the old ones. What reclaim passes by while there is
        hardly anything in it counts as young."""
        self._groups[group] = self._make()
        self._put(group, old=True)

    def begin_pass(self, *, kswapd: bool) -> None:
        """See ``Lru``: what the pass before looked at no longer counts."""
        if kswapd:
            self._kswapd.priority, self._scanned, self._woken = KSWAPD_PRIORITY, self._goal, True
            self._kswapd.end()
        else:
            self._begin(self._direct, SWAP_CLUSTER_MAX)

    def offline(self, group: int) -> None:
        """See ``Lru``; lru_gen_offline_memcg (MEMCG_LRU_OLD): first in a bin of the old ones."""
        if group in self._groups:
            self._groups[group].scrape()
            self._offline.add(group)
            self._retried.discard(group)
            if any(self._groups[group].total(kind) for kind in (ANON, FILE)):
                self._move(group, old=True, first=True)
            else:
                self._forget(group)

    def scrape(self) -> None:
        """See ``Lru``: these are the lists of all groups."""

    def _go_on(self, run: _Pass, want: int, anon: int, now_ns: int) -> Batch:
        """A pass goes on where it stopped. kswapd's begins anew when it is over; an allocation's does when it has what
        it wants (the next allocation's, then), and has failed when it has been everywhere without that."""
        for _ in range(2 * (len(self._groups) + _BINS)):
            if not run.queue:
                if not self._next_bin(run):
                    break
                continue
            key = run.queue[0]
            batch = Batch()
            if key in self._olds:
                if run.left <= 0:
                    run.left = self._to_scan(key, anon, run.priority)
                if run.left > 0:
                    # evict_folios isolates a batch, whatever is wanted of it
                    looked = min(want if run is self._kswapd else _BATCH_PAGES, run.left)
                    batch = self._take(key, looked, anon, run, now_ns)
                    run.left -= batch.pages + batch.kept
                    run.wanted -= batch.pages
            if batch.empty or batch.aged or run.left <= 0:
                run.left = 0
                run.queue.pop(0)
                if key in self._olds:
                    self._rotate(key, batch, anon, run.priority, now_ns)
            if run.wanted <= 0:
                if run is self._direct:
                    self._begin(run, SWAP_CLUSTER_MAX)
                else:
                    run.end()
            if not batch.empty:
                return batch
        return Batch()

    def _next_bin(self, run: _Pass) -> bool:
        if run.bins_left:
            run.bins_left -= 1
            run.bin = (run.bin + 1) % _BINS
        elif run is self._direct:
            return False
        else:
            if self._scanned < self._goal:
                # balance_pgdat, kswapd_shrink_node: what looked at less than was wanted looks deeper the next time;
                # after the last priority kswapd begins anew.
                run.priority = run.priority - 1 or KSWAPD_PRIORITY
            self._scanned = 0
            self.passes += not self._woken
            self._woken = False
            self._begin(run, self._goal)
            return True
        run.queue = list(self._old[run.bin])
        return True

    def _begin(self, run: _Pass, wanted: int) -> None:
        """get_random_u32_below(MEMCG_NR_BINS)"""
        run.bin, run.bins_left, run.left, run.wanted = self._draw(_BIN_BITS), _BINS - 1, 0, wanted
        run.queue = list(self._old[run.bin])

    def _take(self, key: int, want: int, anon: int, run: _Pass, now_ns: int) -> Batch:
        kswapd = run is self._kswapd
        batch = self._groups[key].isolate(want, anon=anon, priority=run.priority, kswapd=kswapd, now_ns=now_ns)
        if kswapd:
            self._scanned += batch.pages + batch.met
        if batch.victims:
            self._totals[batch.victims[0][0].kind] -= batch.pages
        return batch

    def _to_scan(self, key: int, anon: int, priority: int) -> int:
        """get_nr_to_scan: how many pages to look at, in whole batches; of a group that was removed all there are. Asked
        anew after each batch, it has come down to what was looked at when half of them are gone."""
        pages = self._pages(key, anon)
        if key in self._offline:
            return -(-pages // 2)
        return -(-(pages >> priority) // _BATCH_PAGES) * _BATCH_PAGES

    def _pages(self, key: int, anon: int) -> int:
        group = self._groups[key]
        return group.total(FILE) + (group.total(ANON) if anon else 0)

    # ---- bins

    def _end_walks(self, now_ns: int) -> None:
        for key in [key for key, until_ns in self._walked.items() if until_ns <= now_ns]:
            self._leave(key, aged=True)

    def _rotate(self, key: int, batch: Batch, anon: int, priority: int, now_ns: int) -> None:
        """What shrink_one says of a group after a visit."""
        removed = key in self._offline
        if removed and not any(self._groups[key].total(kind) for kind in (ANON, FILE)):
            self._forget(key)
            return
        if not batch.aged:
            # lruvec_is_sizable
            pages = self._pages(key, anon)
            if pages if removed else pages >> priority:
                return
        if batch.until_ns > now_ns:
            self._walked[key] = batch.until_ns
        else:
            self._leave(key, aged=batch.aged)

    def _leave(self, key: int, *, aged: bool) -> None:
        self._walked.pop(key, None)
        if key in self._retried or (aged and key not in self._offline):
            self._retried.discard(key)
            self._move(key, old=False)
        else:
            # one retry if offlined or too small
            self._retried.add(key)
            self._move(key, old=True)

    def _move(self, key: int, *, old: bool, first: bool = False) -> None:
        """lru_gen_rotate_memcg."""
        self._bins[key].remove(key)
        self._put(key, old=old, first=first)

    def _put(self, key: int, *, old: bool, first: bool = False) -> None:
        number = self._draw(_BIN_BITS)
        place = (self._old if old else self._young)[number]
        place.insert(0 if first else len(place), key)
        self._bins[key] = place
        for run in (self._kswapd, self._direct):
            if old and not first and number == run.bin and run.queue:
                run.queue.append(key)
        if old:
            self._olds.add(key)
        else:
            self._olds.discard(key)
            self._turn()

    def _turn(self) -> None:
        if not self._olds:
            self._old, self._young = self._young, self._old
            self._olds.update(self._groups)

    def _forget(self, key: int) -> None:
        self._bins.pop(key).remove(key)
        self._offline.discard(key)
        self._retried.discard(key)
        self._walked.pop(key, None)
        self._olds.discard(key)
        del self._groups[key]
        self._turn()

    def _group(self, region: Region) -> Lru:
        group = self._groups.get(region.group)
        if group is None:
            self.online(region.group)
            group = self._groups[region.group]
        return group
