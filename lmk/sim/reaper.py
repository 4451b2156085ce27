"""How a killed process goes: its own exit and, beside it, a reaper thread, both freeing the same memory.

Source: kernel/exit.c and mm/mmap.c (exit_mmap), mm/oom_kill.c (process_mrelease, __oom_reap_task_mm): the reaper frees
anonymous memory, resident or swapped, never file pages; file pages stay in the page cache when their last user goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lmk.sim.cpus import NICE_HIGHEST, Usage
from lmk.sim.process import SimProcess
from lmk.sim.runner import Runner
from lmk.units import NS_PER_US

if TYPE_CHECKING:
    from lmk.sim.machine import Machine


class Teardown:
    """The memory of a dying process that is still to be freed."""

    def __init__(self, process: SimProcess) -> None:
        self.process = process
        #: How many free it at once: the exit, the reaper.
        self.workers = 0
        self.reaping = False
        #: mlocked pages are reaped too since 6.1.
        self.locked = process.locked_pages

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return not self.locked and all(not r.resident and not r.out for r in self.process.anon_regions)

    def cost_ns(self, page_ns: int, swap_ns: int) -> int:
        """What freeing the rest takes."""
        pages = self.locked + sum(region.resident for region in self.process.anon_regions)
        return pages * page_ns + self.process.swap_pages * swap_ns

    def free(self, machine: Machine, budget_ns: int, page_ns: int, swap_ns: int) -> int:
        """Free within the budget (at least a page); nanoseconds spent."""
        memory = machine.memory
        spent = 0
        if self.locked:
            pages = min(self.locked, budget_ns // page_ns + 1)
            memory.zones.give(pages)
            memory.locked_pages -= pages
            self.locked -= pages
            self.process.locked_pages -= pages
            spent += pages * page_ns
        for region in self.process.anon_regions:
            if spent < budget_ns and region.resident:
                pages = min(region.resident, (budget_ns - spent) // page_ns + 1)
                memory.free_resident(region, pages)
                spent += pages * page_ns
            if spent < budget_ns and region.out:
                pages = min(region.out, (budget_ns - spent) // swap_ns + 1)
                memory.free_swapped(region, pages)
                spent += pages * swap_ns
        return spent


class Exit(Runner):
    """The victim's own way out, at its share of the CPUs."""

    def __init__(self, teardown: Teardown, machine: Machine, weight: int, done: Callable[[int], None]) -> None:
        super().__init__()
        self._weight = weight
        self._teardown = teardown
        self._done = done
        self._base_ns = machine.calibration.exit_base_us * NS_PER_US
        # Unmapping its file pages costs like freeing others, though they stay.
        self._base_ns += teardown.process.file_pages * machine.calibration.exit_ns
        teardown.workers += 1

    @property
    def runnable(self) -> bool:
        """See ``Runner``."""
        return True

    @property
    def weight(self) -> int:
        """See ``Runner``."""
        return self._weight

    def quiet_ns(self, machine: Machine) -> int | None:
        """See ``Runner.quiet_ns``: a step ends when this does."""
        calibration = machine.calibration
        rest_ns = self._teardown.cost_ns(calibration.exit_ns, calibration.swap_free_ns)
        if rest_ns:
            return machine.wall_ns(-(-rest_ns // self._teardown.workers))
        return None if self._teardown.reaping else machine.wall_ns(self._base_ns)

    def run(self, machine: Machine, span_ns: int) -> Usage:
        """See ``Runner.run``."""
        calibration = machine.calibration
        budget = machine.cpu_ns(span_ns)
        spent = 0
        if not self._teardown.done:
            spent = self._teardown.free(machine, budget, calibration.exit_ns, calibration.swap_free_ns)
        # exit_mmap takes the mmap lock for writing: only when the reaper has let go of it does the rest follow.
        if self._teardown.done and not self._teardown.reaping:
            part = min(self._base_ns, max(0, budget - spent))
            self._base_ns -= part
            spent += part
            if self._base_ns <= 0:
                machine.remove_runner(self)
                self._done(machine.now_ns + min(span_ns, machine.wall_ns(spent)))
        return Usage(run=min(span_ns, machine.wall_ns(spent)))


class Reap(Runner):
    """A reaper thread at its own, high priority, so it is not slowed down by others."""

    def __init__(self, teardown: Teardown, done: Callable[[int], None] = lambda _: None) -> None:
        super().__init__()
        self._teardown = teardown
        self._done = done
        teardown.workers += 1
        teardown.reaping = True

    @property
    def runnable(self) -> bool:
        """See ``Runner``."""
        return True

    @property
    def weight(self) -> int:
        """See ``Runner``."""
        return NICE_HIGHEST

    def quiet_ns(self, machine: Machine) -> int | None:
        """See ``Runner.quiet_ns``."""
        calibration = machine.calibration
        rest_ns = self._teardown.cost_ns(calibration.reap_ns, calibration.swap_free_ns)
        return -(-rest_ns // self._teardown.workers)

    def run(self, machine: Machine, span_ns: int) -> Usage:
        """See ``Runner.run``."""
        calibration = machine.calibration
        spent = self._teardown.free(machine, span_ns, calibration.reap_ns, calibration.swap_free_ns)
        if self._teardown.done:
            machine.remove_runner(self)
            self._teardown.reaping = False
            self._teardown.workers -= 1
            self._done(machine.now_ns + min(span_ns, spent))
        return Usage(run=min(span_ns, spent))
