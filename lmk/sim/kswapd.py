"""kswapd: background reclaim, as one more thread of the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lmk.sim.cpus import NICE_NORMAL, Usage
from lmk.sim.lru import DEF_PRIORITY
from lmk.sim.process import READ_AROUND_PAGES
from lmk.sim.runner import Runner
from lmk.sim.timing import PRIORITY_KERNEL, STEP_MAX_NS
from lmk.sim.zone import HIGH
from lmk.units import NS_PER_MS

if TYPE_CHECKING:
    from lmk.sim.machine import Machine

#: mm/vmscan.c MAX_RECLAIM_RETRIES: after so many fruitless runs kswapd leaves reclaim to the allocators.
_FAILURES_MAX: Final = 16
#: mm/vmscan.c, kswapd_try_to_sleep: HZ / 10.
_NAP_NS: Final = 100 * NS_PER_MS


class Kswapd(Runner):
    """Background reclaim from the low to the high watermark (mm/vmscan.c, balance_pgdat)."""

    def __init__(self) -> None:
        super().__init__()
        self.awake = False
        #: When the nap ends after which it sleeps until somebody wakes it; 0 while it runs or sleeps.
        self._nap_until_ns = 0
        self._failures = 0
        self._fruitless = 0
        self._debt = 0
        #: What is left to do of this pass.
        self._wanted = 0

    @property
    def runnable(self) -> bool:
        """See ``Runner``."""
        return self.awake

    @property
    def weight(self) -> int:
        """See ``Runner``."""
        return NICE_NORMAL

    def quiet_ns(self, machine: Machine) -> int | None:  # noqa: ARG002
        """See ``Runner``."""
        return STEP_MAX_NS

    def progress(self) -> None:
        """Somebody reclaimed something: it may try again."""
        self._failures = 0

    def wake(self, machine: Machine) -> None:
        """wakeup_kswapd: unless it has given up."""
        if not self.awake and self._failures < _FAILURES_MAX:
            self.awake = True
            self._nap_until_ns = 0
            self._begin(machine)
            machine.add_runner(self)

    def _begin(self, machine: Machine) -> None:
        self._wanted = 0
        machine.memory.lru.begin_pass(kswapd=True)
        machine.memory.events.pageoutrun += 1
        machine.memory.revision += 1
        machine.reclaim_event(kswapd=True, begin=True)

    def _nap(self, machine: Machine, spent_ns: int) -> None:
        """kswapd_try_to_sleep: whoever allocates may have used up already what was reclaimed, so it looks again before
        it waits for the low mark."""
        self.awake = False
        machine.memory.zones.reclaim(active=False)
        machine.remove_runner(self)
        until_ns = self._nap_until_ns = machine.now_ns + machine.wall_ns(spent_ns) + _NAP_NS

        def end() -> None:
            if self._nap_until_ns != until_ns:
                return
            self._nap_until_ns = 0
            if self._failures < _FAILURES_MAX and not machine.memory.zones.balanced():
                self.wake(machine)
            else:
                machine.reclaim_event(kswapd=True, begin=False)

        machine.at(until_ns, end, PRIORITY_KERNEL)

    def _note(self, freed: int) -> bool:
        """Whether to stop after this pass: a run of balance_pgdat ends after DEF_PRIORITY fruitless ones."""
        if freed:
            self._failures = self._fruitless = 0
            return False
        self._fruitless += 1
        if self._fruitless < DEF_PRIORITY:
            return False
        self._fruitless = 0
        self._failures += 1
        return True

    def run(self, machine: Machine, span_ns: int) -> Usage:
        """See ``Runner``: all of its time counts as a memory stall (psi_memstall_enter in balance_pgdat)."""
        memory = machine.memory
        zones, lru = memory.zones, memory.lru
        budget = machine.cpu_ns(span_ns)
        spent = self._debt
        done = False
        while spent < budget:
            short = zones.short(HIGH)
            if self._wanted <= 0 or not short:
                # Between passes one zone above its high mark is enough (pgdat_balanced). A pass goes on until all are,
                # or as much was reclaimed as the high marks add up to (kswapd_shrink_node, should_abort_scan).
                if zones.balanced():
                    done = True
                    break
                self._wanted = zones.high_sum
            passes = lru.passes
            freed, cost = machine.reclaim(max(READ_AROUND_PAGES, short), budget - spent, kswapd=True, spent_ns=spent)
            spent += cost
            if freed:
                zones.reclaim(active=True)
            self._wanted = self._wanted - freed if lru.passes == passes else 0
            if self._note(freed):
                if self._failures >= _FAILURES_MAX:
                    done = True
                    break
                self._begin(machine)
        if done:
            self._nap(machine, spent)
        # A walk of all page tables may take longer than a step.
        self._debt = max(0, spent - budget) if self.awake else 0
        wall = min(span_ns, machine.wall_ns(spent))
        return Usage(run=wall, stall=wall)
