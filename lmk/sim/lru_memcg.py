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


class _Group:
    """One memory cgroup: its lists, the bin it lies in, and what a visit looks at."""

    __slots__ = ("lru", "members", "number", "offline", "old", "retried", "until_ns")

    def __init__(self, number: int, lru: Lru) -> None:
        self.number = number
        self.lru = lru
        #: Those of the same bin, itself among them.
        self.members: list[_Group] = []
        #: Of the old generation.
        self.old = False
        self.offline = False
        #: Put to the tail of a bin for one more visit (MEMCG_LRU_TAIL).
        self.retried = False
        #: Its page tables are being walked until then, and it is rotated after that; 0: they are not.
        self.until_ns = 0

    def pages(self, anon: int) -> int:
        """What reclaim can take of it."""
        return self.lru.total(FILE) + (self.lru.total(ANON) if anon else 0)

    @property
    def empty(self) -> bool:
        """Whether it has no pages of any kind."""
        return not self.lru.total(ANON) and not self.lru.total(FILE)


class _Pass:
    """A way round the old groups: the bin it is at, and how many follow; groups still to be visited there; what is left
    of the visit of the first of them, and of what the pass is to reclaim."""

    __slots__ = ("bin", "bins_left", "left", "priority", "queue", "wanted")

    def __init__(self) -> None:
        self.bin = self.bins_left = 0
        self.queue: list[_Group] = []
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
        self._groups: dict[int, _Group] = {}
        self._draw = draw
        self._old: list[list[_Group]] = [[] for _ in range(_BINS)]
        self._young: list[list[_Group]] = [[] for _ in range(_BINS)]
        #: How many groups are of the old generation.
        self._olds = 0
        #: kswapd's own, which goes on, and that of whoever reclaims directly.
        self._kswapd, self._direct = _Pass(), _Pass()
        self.passes = 0
        #: kswapd has just been woken: the pass that begins follows on none.
        self._woken = False
        #: How many pages kswapd's last pass, or this one, has looked at; at first enough.
        self._scanned = goal
        #: Groups whose page tables are being walked.
        self._walked: list[_Group] = []
        #: Pages of each kind on all lists.
        self._totals = [0, 0]

    @property
    def refilled(self) -> int:
        """See ``Lru``."""
        return sum(group.lru.refilled for group in self._groups.values())

    def add(self, region: Region, pages: int, *, refault: bool, now_ns: int) -> None:
        """See ``Lru``."""
        self._totals[region.kind] += pages
        self._group(region).lru.add(region, pages, refault=refault, now_ns=now_ns)

    def remove(self, region: Region, pages: int) -> None:
        """See ``Lru``."""
        self._totals[region.kind] -= pages
        self._group(region).lru.remove(region, pages)

    def follow(self, region: Region) -> None:
        """See ``Lru``; a group that is gone with its last page has nothing to follow."""
        group = self._groups.get(region.group)
        if group is not None:
            group.lru.follow(region)

    def counts(self, kind: int) -> tuple[int, int]:
        """See ``Lru``."""
        active = 0
        for group in self._groups.values():
            active += group.lru.counts(kind)[0]
        return active, self._totals[kind] - active

    def total(self, kind: int) -> int:
        """See ``Lru``."""
        return self._totals[kind]

    def mark(self, region: Region) -> int:
        """See ``Lru``."""
        return self._group(region).lru.mark(region)

    def note_refault(self, region: Region, pages: int) -> bool:
        """See ``Lru``."""
        return self._group(region).lru.note_refault(region, pages)

    def note_reclaimed(self, region: Region, pages: int) -> None:
        """See ``Lru``."""
        self._group(region).lru.note_reclaimed(region, pages)

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
        made = self._groups[group] = _Group(group, self._make())
        self._put(made, old=True)

    def begin_pass(self, *, kswapd: bool) -> None:
        """See ``Lru``: what the pass before looked at no longer counts."""
        if kswapd:
            self._kswapd.priority, self._scanned, self._woken = KSWAPD_PRIORITY, self._goal, True
            self._kswapd.end()
        else:
            self._begin(self._direct, SWAP_CLUSTER_MAX)

    def offline(self, group: int) -> None:
        """See ``Lru``; lru_gen_offline_memcg (MEMCG_LRU_OLD): first in a bin of the old ones."""
        removed = self._groups.get(group)
        if removed is not None:
            removed.lru.scrape()
            removed.offline = True
            removed.retried = False
            if removed.empty:
                self._forget(removed)
            else:
                self._move(removed, old=True, first=True)

    def scrape(self) -> None:
        """See ``Lru``: these are the lists of all groups."""

    def _go_on(self, run: _Pass, want: int, anon: int, now_ns: int) -> Batch:
        """A pass goes on where it stopped. kswapd's begins anew when it is over; an allocation's does when it has what
        it wants (the next allocation's, then), and has failed when it has been everywhere without that."""
        nothing = Batch()
        for _ in range(2 * (len(self._groups) + _BINS)):
            if not run.queue:
                if not self._next_bin(run):
                    break
                continue
            group = run.queue[0]
            batch = nothing
            if group.old:
                if run.left <= 0:
                    run.left = _to_scan(group, anon, run.priority)
                if run.left > 0:
                    # evict_folios isolates a batch, whatever is wanted of it
                    looked = min(want if run is self._kswapd else _BATCH_PAGES, run.left)
                    batch = self._take(group, looked, anon, run, now_ns)
                    pages = batch.pages
                    run.left -= pages + batch.kept
                    run.wanted -= pages
            if run.left <= 0 or batch.aged or batch.empty:
                run.left = 0
                del run.queue[0]
                if group.old:
                    self._rotate(group, batch, anon, run.priority, now_ns)
            if run.wanted <= 0:
                if run is self._direct:
                    self._begin(run, SWAP_CLUSTER_MAX)
                else:
                    run.end()
            if not batch.empty:
                return batch
        return nothing

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

    def _take(self, group: _Group, want: int, anon: int, run: _Pass, now_ns: int) -> Batch:
        kswapd = run is self._kswapd
        batch = group.lru.isolate(want, anon=anon, priority=run.priority, kswapd=kswapd, now_ns=now_ns)
        if kswapd:
            self._scanned += batch.pages + batch.met
        if batch.victims:
            self._totals[batch.victims[0][0].kind] -= batch.pages
        return batch

    # ---- bins

    def _end_walks(self, now_ns: int) -> None:
        for group in [group for group in self._walked if group.until_ns <= now_ns]:
            self._leave(group, aged=True)

    def _rotate(self, group: _Group, batch: Batch, anon: int, priority: int, now_ns: int) -> None:
        """What shrink_one says of a group after a visit."""
        if group.offline and group.empty:
            self._forget(group)
            return
        if not batch.aged:
            # lruvec_is_sizable
            pages = group.pages(anon)
            if pages if group.offline else pages >> priority:
                return
        if batch.until_ns > now_ns:
            if not group.until_ns:
                self._walked.append(group)
            group.until_ns = batch.until_ns
        else:
            self._leave(group, aged=batch.aged)

    def _leave(self, group: _Group, *, aged: bool) -> None:
        self._end_walk(group)
        if group.retried or (aged and not group.offline):
            group.retried = False
            self._move(group, old=False)
        else:
            # one retry if offlined or too small
            group.retried = True
            self._move(group, old=True)

    def _end_walk(self, group: _Group) -> None:
        if group.until_ns:
            group.until_ns = 0
            self._walked.remove(group)

    def _move(self, group: _Group, *, old: bool, first: bool = False) -> None:
        """lru_gen_rotate_memcg."""
        group.members.remove(group)
        self._put(group, old=old, first=first)

    def _put(self, group: _Group, *, old: bool, first: bool = False) -> None:
        number = self._draw(_BIN_BITS)
        group.members = members = (self._old if old else self._young)[number]
        if first:
            members.insert(0, group)
        else:
            members.append(group)
            if old:
                for run in (self._kswapd, self._direct):
                    if number == run.bin and run.queue:
                        run.queue.append(group)
        self._set_old(group, old)

    def _set_old(self, group: _Group, old: bool) -> None:
        """Once no group is old all young ones are."""
        self._olds += old - group.old
        group.old = old
        if not self._olds:
            self._old, self._young = self._young, self._old
            self._olds = len(self._groups)
            for other in self._groups.values():
                other.old = True

    def _forget(self, group: _Group) -> None:
        group.members.remove(group)
        self._end_walk(group)
        del self._groups[group.number]
        self._set_old(group, False)

    def _group(self, region: Region) -> _Group:
        group = self._groups.get(region.group)
        if group is None:
            self.online(region.group)
            group = self._groups[region.group]
        return group


def _to_scan(group: _Group, anon: int, priority: int) -> int:
    """get_nr_to_scan: how many pages to look at, in whole batches; of a group that was removed all there are. Asked
    anew after each batch, it has come down to what was looked at when half of them are gone."""
    pages = group.pages(anon)
    if group.offline:
        return -(-pages // 2)
    return -(-(pages >> priority) // _BATCH_PAGES) * _BATCH_PAGES
