"""The device's clock: events in a heap, and between them steps in which CPUs, reclaim and storage do their work.

Nothing happens per tick: while nobody has work the clock jumps to the next event, and a step is as long as what goes on
in it stays alike. Order is decided by (time, priority, sequence), never by a float or by hashing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

from lmk.config.calibration import Calibration
from lmk.config.device import DeviceConfig
from lmk.errors import InfraError
from lmk.sim.cpus import WHOLE, WHOLE_TIME, Share, Usage, beside, demand, on_one_cpu, shares, spread
from lmk.sim.kswapd import Kswapd
from lmk.sim.lru import DEF_PRIORITY
from lmk.sim.memory import Memory
from lmk.sim.psi import Psi
from lmk.sim.region import Region
from lmk.sim.runner import Runner
from lmk.sim.storage import Storage
from lmk.sim.timing import PRIORITY_PROCESS, STEP_MAX_NS, STEP_MIN_NS
from lmk.sim.vmpressure import Vmpressure
from lmk.sim.zone import LOW, MIN
from lmk.units import NS_PER_MS, NS_PER_S, NS_PER_US

#: kernel/sched/fair.c: busy CPUs are balanced every 16 (sd_init, busy_factor) times their number of milliseconds
#: (get_sd_balance_interval); of tasks alike one moves at the second try (detach_tasks, nr_balance_failed). Per CPU.
_BALANCE_NS: Final = 2 * 16 * NS_PER_MS

#: Uptime at which a run begins: a device has booted by then. lmkd ignores limits sent in the first second.
UPTIME_NS: Final = 10 * NS_PER_S


class Machine:
    """One device. ``psi_event``, ``memory_event`` and ``oom`` are set by whoever listens."""

    def __init__(
        self, config: DeviceConfig, calibration: Calibration, *, events_max: int, draw: Callable[[int], int]
    ) -> None:
        self.config = config
        self.calibration = calibration
        self.memory = Memory(config, calibration, draw)
        self.now_ns = UPTIME_NS
        self.cpus = config.cpus
        self.psi = Psi(config.cpus, self._psi_fired, calibration.base_cpu_permille)
        #: Of what apps do, once somebody asks.
        self._apps_psi: Psi | None = None
        self.kswapd = Kswapd()
        self.vmpressure = Vmpressure()
        self.psi_event: Callable[[int], None] = lambda _: None
        self.memory_event: Callable[[int], None] | None = None
        self.oom: Callable[[], bool] = lambda: False
        self.disturbed: Callable[[dict[Region, None]], None] = lambda _: None
        #: Set by whoever has something for the one that waits.
        self.interrupted = False
        #: Events and steps so far; at the limit the run ends with an error.
        self.events = 0
        self._events_max = events_max
        #: What the policy's looks at the device still take of its CPUs.
        self._policy_ns = 0
        self._heap: list[tuple[int, int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._runners: dict[Runner, None] = {}
        self._lanes = [0] * config.cpus
        # Of whoever runs now, or is asked.
        self._share: Share = WHOLE
        # Whether somebody reclaims directly, and whether somebody did in this step.
        self._direct = self._direct_now = False
        self.storage = Storage(config, calibration)
        #: What a file page takes of its reader's CPU.
        self.read_cpu_ns = calibration.file_fault_ns + calibration.file_read_ns
        #: How many wait for storage in this step, and at least one.
        self.readers = 1

    # ---- events

    def at(self, t_ns: int, call: Callable[[], None], priority: int = PRIORITY_PROCESS) -> None:
        """Have something called at a time (now, if that has passed)."""
        self._sequence += 1
        heapq.heappush(self._heap, (max(t_ns, self.now_ns), priority, self._sequence, call))

    def advance(self, until_ns: int | None) -> None:
        """Let time pass until ``until_ns`` or an interrupt, whichever comes first; what else is due at that instant is
        done as well (epoll_wait tells of it in one go). Raises InfraError over budget."""
        heap = self._heap
        while True:
            next_ns = heap[0][0] if heap else None
            poll_ns = self.psi.poll_at_ns
            if poll_ns is not None and (next_ns is None or poll_ns < next_ns):
                next_ns = poll_ns
            if next_ns is not None and next_ns <= self.now_ns:
                self._count()
                if poll_ns is not None and poll_ns <= self.now_ns:
                    self.psi.poll(self.now_ns)
                else:
                    heapq.heappop(heap)[3]()
                continue
            if self.interrupted:
                return
            if until_ns is not None and self.now_ns >= until_ns:
                return
            horizon_ns = until_ns if next_ns is None or (until_ns is not None and until_ns < next_ns) else next_ns
            if horizon_ns is None:
                raise InfraError("the simulated device has nothing left to do", "report this scenario")
            runners = [runner for runner in self._runners if runner.runnable]
            if not runners:
                self._end_direct()
                self._policy_ns = 0
                self.now_ns = horizon_ns
                continue
            self._count()
            self._step(runners, horizon_ns - self.now_ns)

    def _count(self) -> None:
        self.events += 1
        if self.events > self._events_max:
            raise InfraError(
                f"the simulation reached its budget of {self._events_max} events at {self.now_ns / 1e9:.1f} s",
                "a smaller scenario, or a larger --event-budget",
            )

    def apps_psi(self) -> Psi:
        """Memory pressure of the apps' cgroup; it is kept from the first question on."""
        if self._apps_psi is None:
            self._apps_psi = Psi(self.cpus, lambda _: None)
        return self._apps_psi

    # ---- runners

    def add_runner(self, runner: Runner) -> None:
        """From now on it takes part in steps, whenever it is runnable."""
        if runner not in self._runners:
            self._runners[runner] = None
            lanes, lane = self._lanes, 0
            for other in range(1, self.cpus):
                if lanes[other] < lanes[lane]:
                    lane = other
            lanes[lane] += 1
            runner.lane = lane

    def remove_runner(self, runner: Runner) -> None:
        """It no longer does."""
        if runner in self._runners:
            del self._runners[runner]
            self._lanes[runner.lane] -= 1

    def wall_ns(self, cpu_ns: int) -> int:
        """How long CPU time takes at the present share."""
        wanted, cpus = self._share
        # Rounded up, so that what is left of a job always fits into the time it was given.
        return -(-cpu_ns * wanted // cpus) if wanted > cpus else cpu_ns

    def cpu_ns(self, wall_ns: int) -> int:
        """How much CPU time that is."""
        wanted, cpus = self._share
        return wall_ns * cpus // wanted if wanted > cpus else wall_ns

    def look(self) -> None:
        """The policy woke and looks at the device, at the cost of whoever runs there, and meanwhile time passes: what
        it sees the next time is never of the same instant. Looks below the resolution of time take none."""
        look_ns = self.calibration.sample_us * NS_PER_US
        self._policy_ns += look_ns
        until_ns = self.now_ns + look_ns // self.cpus
        if until_ns - self.now_ns >= STEP_MIN_NS:
            while self.now_ns < until_ns:
                self.interrupted = False
                self.advance(until_ns)

    def _looked(self, span_ns: int) -> int:
        """What looks take of each CPU in this step: at most half of it, the rest is paid later."""
        looked_ns = min(self._policy_ns // self.cpus, span_ns // 2)
        self._policy_ns -= looked_ns * self.cpus
        return looked_ns

    # ---- reclaim, called by runners

    def note_allocation(self) -> int:
        """Somebody allocates: kswapd is woken once every zone is below its low mark. Returns the room there is."""
        zones = self.memory.zones
        room = zones.room(MIN)
        # The two marks lie ``gap`` apart: with more room than that some zone is above low.
        if room <= zones.gap and not self.kswapd.awake and not zones.room(LOW):
            self.kswapd.wake(self)
        return room

    def direct_reclaim(self, want: int, budget_ns: int) -> tuple[int, int]:
        """An allocation reclaims for itself; (pages, nanoseconds)."""
        self._direct_now = True
        if not self._direct:
            self._direct = True
            self.reclaim_event(kswapd=False, begin=True)
        self.memory.events.allocstall += 1
        self.memory.revision += 1
        spent = 0
        # do_try_to_free_pages: priority by priority until something is freed
        for priority in range(DEF_PRIORITY, -1, -1):
            left_ns = max(1, budget_ns - spent)
            freed, cost = self.reclaim(want, left_ns, kswapd=False, priority=priority, spent_ns=spent)
            spent += cost
            if freed:
                self.kswapd.progress()
                return freed, spent
            if spent >= budget_ns:
                # A walk of page tables took what there was; the rest is for the next step.
                return 0, spent
        self._tell_levels(self.vmpressure.hopeless())
        return 0, spent

    def reclaim(
        self, want: int, budget_ns: int, *, kswapd: bool, priority: int = DEF_PRIORITY, spent_ns: int = 0
    ) -> tuple[int, int]:
        """A run of reclaim, ``spent_ns`` after the beginning of the step; (pages, nanoseconds)."""
        events = self.memory.events
        scanned = events.pgscan_kswapd + events.pgscan_direct
        freed, cost = self.memory.reclaim(
            want, budget_ns, kswapd=kswapd, priority=priority, now_ns=self.now_ns + spent_ns
        )
        scanned = events.pgscan_kswapd + events.pgscan_direct - scanned
        self._tell_levels(self.vmpressure.note(scanned, min(freed, scanned)))
        return freed, cost

    def _tell_levels(self, levels: tuple[int, ...]) -> None:
        for level in levels:
            self.psi_event(level)

    def _end_direct(self) -> None:
        if self._direct:
            self._direct = False
            self.reclaim_event(kswapd=False, begin=False)

    def out_of_memory(self) -> bool:
        """Nothing can be reclaimed: the OOM killer's turn. Returns whether somebody is dying."""
        return self.oom()

    def reclaim_event(self, *, kswapd: bool, begin: bool) -> None:
        """vmscan tracepoints, as lmkd's memory events number them."""
        if self.memory_event is not None:
            # lmk.policy.api.MemoryEvent
            self.memory_event((3 if begin else 4) if kswapd else (1 if begin else 2))

    def _psi_fired(self, level: int) -> None:
        self.psi_event(level)

    # ---- steps

    def _step(self, runners: list[Runner], limit_ns: int) -> None:
        readers = 0
        for runner in runners:
            if runner.io_waiting:
                readers += 1
        self.readers = readers or 1
        if len(runners) == 1:
            runner = runners[0]
            span_ns = self._span(runners, None, limit_ns)
            self._direct_now = False
            looking_ns = self._looked(span_ns) if self._policy_ns else 0
            share = beside(WHOLE, looking_ns, span_ns)
            self._share = share
            usages = [(runner.lane, runner.run(self, span_ns), share)]
            self._share = WHOLE
        else:
            reading = self._reading() if readers else WHOLE_TIME
            crowded = (len(runners) - readers) * WHOLE_TIME + readers * reading > self.cpus * WHOLE_TIME
            demands = [reading if runner.io_waiting else WHOLE_TIME for runner in runners]
            weights = [r.weight for r in runners]
            turn = 0
            if crowded:
                every_ns = _BALANCE_NS * self.cpus
                turn = self.now_ns // every_ns
                limit_ns = min(limit_ns, every_ns - self.now_ns % every_ns)
            lanes = spread([r.lane for r in runners], weights, demands, self.cpus, turn)
            parts = shares(lanes, weights, demands, self.cpus) if crowded else None
            span_ns = self._span(runners, parts, limit_ns)
            self._direct_now = False
            looking_ns = self._looked(span_ns) if self._policy_ns else 0
            usages = []
            for index, runner in enumerate(runners):
                self._share = beside(WHOLE if parts is None else parts[index], looking_ns, span_ns)
                usages.append((lanes[index], runner.run(self, span_ns), self._share))
            self._share = WHOLE
        if not self._direct_now:
            self._end_direct()
        self.now_ns += span_ns
        # While the policy runs on a CPU nobody else's stall is full there.
        self._account(self.psi, usages, span_ns, looking_ns)
        if self._apps_psi is not None:
            own = [usage for runner, usage in zip(runners, usages, strict=True) if runner.of_app]
            self._account(self._apps_psi, own, span_ns, 0)
        for runner in runners:
            if not runner.runnable:
                self.remove_runner(runner)
        if self.memory.disturbed:
            self.disturbed(self.memory.disturbed)
            self.memory.disturbed = {}

    def _reading(self) -> int:
        """What readers want of a CPU: they map what is read while the next read is under way."""
        return demand(self.read_cpu_ns, self.storage.wait_ns(self.read_cpu_ns, self.readers, self.now_ns))

    def _span(self, runners: list[Runner], parts: list[Share] | None, limit_ns: int) -> int:
        writers = reading = 0
        span_ns = limit_ns
        for index, runner in enumerate(runners):
            if parts is not None:
                self._share = parts[index]
            quiet_ns = runner.quiet_ns(self)
            if quiet_ns is not None and quiet_ns < span_ns:
                span_ns = quiet_ns
            if runner.writes_memory:
                if runner.io_waiting:
                    reading += 1
                else:
                    writers += 1
        self._share = WHOLE
        if writers or reading:
            most_ns = STEP_MAX_NS if self.kswapd.awake else self._fill_ns(min(writers, self.cpus), reading)
            if most_ns < span_ns:
                span_ns = most_ns
        if self._policy_ns:
            # Everything takes longer by what the policy takes.
            span_ns = min(limit_ns, span_ns + min(self._policy_ns // self.cpus, span_ns))
        return span_ns if span_ns > 0 else 1

    def _fill_ns(self, writers: int, reading: int) -> int:
        """How long it takes at least until kswapd wakes: some write as fast as they can, others as storage gives."""
        room = self.memory.zones.room(LOW) + 1
        most_ns = room * self.calibration.fault_ns
        if reading:
            page_ns = self.storage.wait_ns(self.read_cpu_ns, self.readers, self.now_ns) + self.read_cpu_ns
            # room / (writers / fault + reading / page)
            most_ns = most_ns * page_ns // (writers * page_ns + reading * most_ns // room)
        else:
            most_ns //= writers
        return most_ns if most_ns > STEP_MIN_NS else STEP_MIN_NS

    def _account(self, psi: Psi, usages: list[tuple[int, Usage, Share]], span_ns: int, looking_ns: int) -> None:
        """What each CPU did, for PSI (psi_group_change, test_states: full while nobody runs who is not stalled)."""
        if len(usages) == 1 and not looking_ns:
            # Mostly there is one.
            lane, usage, _ = usages[0]
            if usage.run + usage.io:
                psi.account(lane, _alone(usage), self.now_ns)
            return
        lanes: list[list[tuple[Usage, Share]]] = [[] for _ in range(self.cpus)]
        for lane, usage, share in usages:
            lanes[lane].append((usage, share))
        for lane, here in enumerate(lanes):
            if not here:
                continue
            spans = _alone(here[0][0]) if len(here) == 1 else on_one_cpu(here, span_ns)
            if looking_ns and spans[1]:
                some, full, io_some, io_full, cpu, busy = spans
                spans = (some, min(full, max(0, span_ns - looking_ns)), io_some, io_full, cpu, busy)
            if spans[5]:
                psi.account(lane, spans, self.now_ns)


def _alone(usage: Usage) -> tuple[int, int, int, int, int, int]:
    stall = usage.stall + usage.io_stall
    return stall, stall, usage.io, usage.io, 0, usage.run + usage.io
