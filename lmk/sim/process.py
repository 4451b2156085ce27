"""One simulated process: its memory, and its single thread, which works through a queue of small jobs.

The thread behaves like an app process of the guest's app runner (tools/lmk-helper/apprunner_app.c): it burns CPU time,
writes new pages, touches old ones, and stalls in the allocator or on storage while doing so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lmk.config.app_adj import PREVIOUS_ADJ
from lmk.config.timeline import PlannedProcess
from lmk.sim.cpus import NICE_BACKGROUND, NICE_NORMAL, Usage
from lmk.sim.psi import JIFFY_NS
from lmk.sim.region import ANON, FILE, Region
from lmk.sim.runner import Runner
from lmk.sim.zone import PAGE_KIB
from lmk.sim.zram import stored_bytes
from lmk.units import NS_PER_US

if TYPE_CHECKING:
    from lmk.sim.machine import Machine

#: mm/filemap.c, do_sync_mmap_readahead: one read around a fault, VM_READAHEAD_PAGES (128 KiB).
READ_AROUND_PAGES: Final = 32
#: mm/internal.h MAX_RECLAIM_RETRIES: failed rounds of direct reclaim before the OOM killer is asked.
_MAX_RECLAIM_RETRIES: Final = 16

#: Kinds of job.
BURN: Final = 0
NEW: Final = 1
TOUCH: Final = 2
CALL: Final = 3


class Job:
    """A piece of work. ``pages``: how many are left (BURN: nanoseconds); ``faults``: of a TOUCH, those not resident
    when it began, -1 before that."""

    __slots__ = ("call", "faults", "kind", "pages", "region")

    def __init__(
        self, kind: int, pages: int = 0, region: Region | None = None, call: Callable[[int], None] | None = None
    ) -> None:
        self.kind = kind
        self.pages = pages
        self.region = region
        self.call = call
        self.faults = -1


class SimProcess(Runner):
    """See the module's docstring. Also a runner of the machine while it has jobs."""

    def __init__(self, pid: int, plan: PlannedProcess, files: tuple[Region, Region], born_ns: int) -> None:
        super().__init__()
        self.pid = pid
        self.plan = plan
        self.born_ns = born_ns
        # android.os.Process.FIRST_APPLICATION_UID
        self.of_app = plan.uid >= 10000
        self.adj = 0
        self.locked_pages = 0
        anon = plan.anon_kib // PAGE_KIB
        hot = 0 if plan.locked else anon * plan.hot_permille // 1000
        stored = stored_bytes(plan.ratio_permille)
        self.hot = Region(f"{plan.name} hot", ANON, hot, stored, pid)
        self.cold = Region(f"{plan.name} cold", ANON, anon - hot, stored, pid)
        #: What grew or leaked beyond the planned size, in the order of writing, a region per stretch of time.
        self.grown: list[Region] = []
        self.hot_file, self.cold_file = files
        #: Text that it maps and others too: never reclaimed while one of them runs (folio_referenced), so part of its
        #: resident size whatever else is swapped out. lmkd goes on to the next process after one without any.
        self.text_pages = 0
        self.jobs: deque[Job] = deque()
        #: Its other thread, if it has one.
        self.busy = Busy(self) if plan.cpu_permille else None
        self.killed = False
        #: Has given up its address space (exit_mm).
        self.leaving = False
        self.dead = False
        self.frozen = False
        self._debt = 0
        self._debt_is_stall = False
        self._failures = 0

    # ---- sizes

    @property
    def anon_regions(self) -> list[Region]:
        """All anonymous memory that reclaim may take."""
        return [self.hot, self.cold, *self.grown]

    @property
    def anon_pages(self) -> int:
        """RssAnon."""
        return self.locked_pages + self.hot.resident + self.cold.resident + sum(r.resident for r in self.grown)

    @property
    def file_pages(self) -> int:
        """RssFile: pages of its files that are in memory; every one it has read is mapped."""
        return self.text_pages + self.hot_file.cached + self.cold_file.cached

    @property
    def rss_pages(self) -> int:
        """VmRSS."""
        return self.anon_pages + self.file_pages

    @property
    def swap_pages(self) -> int:
        """VmSwap."""
        return self.hot.out + self.cold.out + sum(region.out for region in self.grown)

    @property
    def written_pages(self) -> int:
        """Anonymous pages ever written and not freed."""
        return self.anon_pages + self.swap_pages

    # ---- work

    def burn(self, span_ns: int) -> None:
        """Queue CPU time."""
        if span_ns > 0:
            self.jobs.append(Job(BURN, span_ns))

    def write(self, region: Region | None, pages: int) -> None:
        """Queue the first write of anonymous pages; None: of pages that are pinned as they appear."""
        if pages > 0:
            self.jobs.append(Job(NEW, pages, region))

    def enlarge_hot(self, pages: int) -> None:
        """Pages written to the hot part beyond its planned size belong to it."""
        self.hot.pages += pages

    def touch(self, region: Region, pages: int) -> None:
        """Queue touching pages of a region, from its start."""
        if pages > 0:
            self.jobs.append(Job(TOUCH, pages, region))

    def then(self, call: Callable[[int], None]) -> None:
        """Queue a call with the time at which all before it was done."""
        self.jobs.append(Job(CALL, call=call))

    @property
    def runnable(self) -> bool:
        """See ``Runner``."""
        return bool(self.jobs) and not self.killed and not self.frozen

    @property
    def weight(self) -> int:
        """Whoever is not in use has a nice value of 10 (apprunner_process.c, send_adj; Android's background group)."""
        return NICE_BACKGROUND if self.adj >= PREVIOUS_ADJ else NICE_NORMAL

    @property
    def writes_memory(self) -> bool:
        """See ``Runner``."""
        return self.jobs[0].kind in (NEW, TOUCH)

    def quiet_ns(self, machine: Machine) -> int | None:
        """See ``Runner``."""
        job = self.jobs[0]
        if job.kind == BURN:
            return machine.wall_ns(job.pages) + self._debt
        return None

    def run(self, machine: Machine, span_ns: int) -> Usage:
        """See ``Runner``."""
        usage = Usage()
        wall = span_ns
        if self._debt:
            wall -= self._debt
            if self._debt_is_stall:
                usage.stall += min(self._debt, span_ns)
                self._debt_is_stall = wall < 0
        self.io_waiting = False
        jobs = self.jobs
        while jobs and wall > 0:
            job = jobs[0]
            kind = job.kind
            if kind == TOUCH:
                wall = self._touch_some(machine, job, wall, usage)
            elif kind == BURN:
                need = machine.wall_ns(job.pages)
                if need > wall:
                    job.pages -= machine.cpu_ns(wall) or 1
                    wall = 0
                    break
                wall -= need
                jobs.popleft()
            elif kind == NEW:
                wall = self._write_some(machine, job, wall, usage)
            else:
                jobs.popleft()
                assert job.call is not None
                job.call(machine.now_ns + span_ns - wall)
            if self.killed:
                break
        # A page is not divided: what it took beyond the step is paid in the next one.
        if wall < 0:
            self._debt = -wall
            wall = 0
        else:
            self._debt = 0
        usage.run = span_ns - wall - usage.io
        return usage

    def _write_some(self, machine: Machine, job: Job, wall: int, usage: Usage) -> int:
        pages, wall = self._allocate(machine, job.pages, machine.wall_ns(machine.calibration.fault_ns), wall, usage)
        if pages:
            if self.plan.locked or job.region is None:
                machine.memory.lock_new(pages)
                self.locked_pages += pages
            else:
                machine.memory.write_new(job.region, pages, machine.now_ns)
            job.pages -= pages
            if job.pages <= 0:
                self.jobs.popleft()
        return wall

    def _touch_some(self, machine: Machine, job: Job, wall: int, usage: Usage) -> int:
        region, faults = job.region, job.faults
        assert region is not None
        # What is out lies where the next touch comes.
        missing = region.out
        is_file = region.kind == FILE
        if is_file:
            # region.absent, mostly spelt out
            never_read = region.absent if region.former else region.pages - region.resident - missing
            if never_read > 0:
                missing += never_read
        if faults < 0:
            faults = job.pages if job.pages < missing else missing
            if faults and is_file:
                first_ns = min(wall, machine.calibration.storage_request_us * NS_PER_US)
                usage.io += first_ns
                wall -= first_ns
        job.faults = before = faults if faults < missing else missing
        if before:
            if is_file:
                wall = self._read(machine, job, region, wall, usage)
            else:
                wall = self._swap_in(machine, job, region, wall, usage)
            job.pages -= before - job.faults
            return wall
        # The rest is there: touching it only sets accessed bits.
        there = job.pages if job.pages < region.resident else region.resident
        region.touch(there, machine.now_ns)
        machine.memory.lru.follow(region)
        for former in region.former:
            part = min(job.pages - there, former.resident)
            if part > 0:
                former.mapped = True
                former.touch(part, machine.now_ns)
                machine.memory.lru.follow(former)
                there += part
        wall -= machine.wall_ns(there * machine.calibration.touch_ns)
        self.jobs.popleft()
        return wall

    def _swap_in(self, machine: Machine, job: Job, region: Region, wall: int, usage: Usage) -> int:
        in_ns = machine.memory.swap_ns(region)[1]
        page_ns = machine.wall_ns(in_ns)
        pages, left = self._allocate(machine, job.faults, page_ns, wall, usage)
        if pages and machine.memory.swap_in(region, pages, machine.now_ns):
            # swap_read_folio: reading a page of the working set back is a stall, on the CPU with zram
            usage.stall += min(wall - left, machine.wall_ns(pages * (in_ns - machine.calibration.swap_fault_ns)))
        job.faults -= pages
        return left

    def _read(self, machine: Machine, job: Job, region: Region, wall: int, usage: Usage) -> int:
        self.io_waiting = True
        cpu_ns = machine.wall_ns(machine.read_cpu_ns)
        wait_ns = machine.storage.wait_ns(cpu_ns, machine.readers, machine.now_ns)
        pages, left = self._allocate(machine, job.faults, wait_ns + cpu_ns, wall, usage)
        if pages:
            refaulted = pages if pages < region.out else region.out
            machine.storage.note(pages, machine.now_ns)
            used = wall - left if left > 0 else wall
            io_ns = pages * wait_ns
            if io_ns > used:
                io_ns = used
            usage.io += io_ns
            if machine.memory.read_file(region, pages, refaulted, machine.now_ns):
                usage.io_stall += io_ns
            job.faults -= pages
        return left

    def _allocate(self, machine: Machine, pages: int, page_ns: int, wall: int, usage: Usage) -> tuple[int, int]:
        """Get pages, by direct reclaim if need be; (how many, wall time left). Each costs ``page_ns`` to use.

        mm/page_alloc.c, __alloc_pages_slowpath: below low kswapd is woken, at min the allocation reclaims for itself.
        """
        wanted = wall // page_ns + 1
        if wanted > pages:
            wanted = pages
        zones = machine.memory.zones
        if zones.free - zones.user_low_sum >= wanted:
            # No zone can be below a mark that matters.
            self._failures = 0
            return wanted, wall - wanted * page_ns
        room = machine.note_allocation()
        if room > 0:
            if wanted > room:
                wanted = room
            # Every allocation counts its own (no_progress_loops).
            self._failures = 0
            return wanted, wall - wanted * page_ns
        per_page = page_ns + machine.wall_ns(machine.memory.usual_swap_out_ns)
        want = max(READ_AROUND_PAGES, min(wanted, wall // per_page + 1))
        budget = machine.cpu_ns(wall)
        freed, spent = machine.direct_reclaim(want, budget)
        spent_wall = machine.wall_ns(spent)
        if freed:
            self._failures = 0
        elif spent < budget:
            # It came to its own end, not to that of this step.
            # reclaim_throttle(VMSCAN_THROTTLE_NOPROGRESS) sleeps for up to a jiffy
            spent_wall += min(max(0, wall - spent_wall), JIFFY_NS)
            self._failures += 1
            if self._failures > _MAX_RECLAIM_RETRIES and machine.out_of_memory():
                self._failures = 0
        usage.stall += min(spent_wall, max(0, wall))
        self._debt_is_stall = spent_wall > wall
        # Time passes even where reclaim had nothing at all to look at.
        return 0, wall - max(spent_wall, 1)


class Busy(Runner):
    """The thread of an app that uses its share of a CPU while the app is in use and touches no memory, so it
    goes on while the other thread waits for some (use_cpu in apprunner_app.c)."""

    def __init__(self, process: SimProcess) -> None:
        super().__init__()
        self._process = process
        self.of_app = process.of_app
        self.active = False

    @property
    def runnable(self) -> bool:
        """See ``Runner``."""
        return self.active and not self._process.killed and not self._process.frozen

    @property
    def weight(self) -> int:
        """See ``Runner``."""
        return NICE_NORMAL

    def quiet_ns(self, machine: Machine) -> int | None:  # noqa: ARG002
        """See ``Runner``."""
        return None

    def run(self, machine: Machine, span_ns: int) -> Usage:  # noqa: ARG002
        """See ``Runner``."""
        return Usage(run=span_ns * self._process.plan.cpu_permille // 1000)
