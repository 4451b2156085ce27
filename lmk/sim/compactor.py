"""Compaction of cached apps: MADV_PAGEOUT of their file and anonymous memory, one process after the other.

Source: CachedAppOptimizer (one compaction thread; only file pages while less than a fifth of swap is free) and
mm/madvise.c (madvise_pageout), as the guest's app runner does it (tools/lmk-helper/apprunner_cgroup.c).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from lmk.sim.cpus import NICE_BACKGROUND, Usage
from lmk.sim.machine import Machine
from lmk.sim.process import SimProcess
from lmk.sim.region import ANON, Region
from lmk.sim.runner import Runner
from lmk.sim.timing import STEP_MAX_NS
from lmk.sim.zone import PAGE_KIB

#: COMPACT_DOWNGRADE_FREE_SWAP_THRESHOLD
_SWAP_DIVISOR: Final = 5


class _Order:
    __slots__ = ("anon", "before_kib", "began_ns", "process", "regions")

    def __init__(self, process: SimProcess, *, anon: bool, now_ns: int) -> None:
        self.process = process
        self.anon = anon
        regions = [region for file in (process.hot_file, process.cold_file) for region in (file, *file.former)]
        if anon:
            # What grew later is not part of what the runner advises.
            regions += [process.hot, process.cold]
        self.regions: deque[Region] = deque(regions)
        self.before_kib = process.rss_pages * PAGE_KIB
        self.began_ns = now_ns


class Compactor(Runner):
    """A runner with a queue; ``done`` is told of every finished order."""

    def __init__(self, machine: Machine, done: Callable[[SimProcess, dict[str, Any]], None]) -> None:
        super().__init__()
        self._machine = machine
        self._done = done
        self._orders: deque[_Order] = deque()

    @property
    def runnable(self) -> bool:
        """See ``Runner``."""
        return bool(self._orders)

    @property
    def weight(self) -> int:
        """See ``Runner``."""
        return NICE_BACKGROUND

    def submit(self, process: SimProcess) -> None:
        """Have a process compacted."""
        zram = self._machine.memory.zram
        anon = zram is not None and zram.free >= zram.slots // _SWAP_DIVISOR
        self._orders.append(_Order(process, anon=anon, now_ns=self._machine.now_ns))
        self._machine.add_runner(self)

    def cancel(self, process: SimProcess) -> None:
        """Forget it, also half-way."""
        if self._orders:
            self._orders = deque(order for order in self._orders if order.process is not process)

    def quiet_ns(self, machine: Machine) -> int | None:  # noqa: ARG002
        """See ``Runner``."""
        return STEP_MAX_NS

    def run(self, machine: Machine, span_ns: int) -> Usage:
        """See ``Runner``: no memory stall, MADV_PAGEOUT does not enter one."""
        memory = machine.memory
        budget = machine.cpu_ns(span_ns)
        spent = 0
        while self._orders and spent < budget:
            order = self._orders[0]
            if not order.regions or order.process.killed:
                self._orders.popleft()
                self._finish(order, machine.now_ns + min(span_ns, machine.wall_ns(spent)))
                continue
            region = order.regions[0]
            page_ns = memory.swap_ns(region)[0] if region.kind == ANON else machine.calibration.reclaim_file_ns
            pages = -(-(budget - spent) // page_ns)
            done, cost = memory.page_out(order.regions[0], pages, machine.now_ns)
            spent += cost
            if not done or not order.regions[0].resident:
                order.regions.popleft()
        return Usage(run=min(span_ns, machine.wall_ns(spent)))

    def _finish(self, order: _Order, t_ns: int) -> None:
        body = {
            "file": True,
            "anon": order.anon,
            "errno": 0,
            "ms": (t_ns - order.began_ns) // 1000 / 1000,
            "rss_before_kib": order.before_kib,
            "rss_after_kib": order.process.rss_pages * PAGE_KIB,
        }
        self._done(order.process, body)
