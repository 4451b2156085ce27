"""Every way a process dies: by a policy's kill with or without a reaper, by the OOM killer, of its own accord."""

from __future__ import annotations

from collections.abc import Callable
from errno import ESRCH
from typing import Final, Protocol

from lmk.sim.cpus import NICE_HIGHEST
from lmk.sim.machine import Machine
from lmk.sim.process import SimProcess
from lmk.sim.reaper import Exit, Reap, Teardown
from lmk.sim.timing import PRIORITY_KERNEL
from lmk.sim.zone import PAGE_KIB
from lmk.units import NS_PER_S, NS_PER_US, c_div

#: include/uapi/asm-generic/signal.h
SIGKILL: Final = 9
SIGTERM: Final = 15
#: mm/oom_kill.c
OOM_REAPER_DELAY_NS: Final = 2 * NS_PER_S
OOM_SCORE_ADJ_MIN: Final = -1000


class Listener(Protocol):
    """Who wants to know (lmk.sim.target)."""

    def kill_outcome(self, pid: int, **values: int | str | None) -> None: ...
    def reaped(self, pid: int, release_errno: int, took_ms: int) -> None: ...
    def kernel_oom_kill(self, process: SimProcess, t_ns: int) -> None: ...
    def process_died(self, process: SimProcess, signal: int) -> None: ...


class Deaths:
    """Carries deaths out on the machine."""

    def __init__(self, machine: Machine, processes: Callable[[], list[SimProcess]], listener: Listener) -> None:
        self._machine = machine
        self._processes = processes
        self._listener = listener
        self._reaper_threads = 0
        self._reaping = 0
        #: The OOM killer's victim, until it is gone (oom_victims).
        self._oom_victim: SimProcess | None = None
        machine.oom = self._out_of_memory

    def start_reaper(self, threads: int) -> None:
        """The policy's reaper threads exist."""
        self._reaper_threads = threads

    def kill(self, process: SimProcess, *, queue: bool, signal: int = SIGKILL) -> bool:
        """A policy kills, now; whether a reaper thread took it. The signal itself is sent ``signal_us`` later."""
        machine, calibration = self._machine, self._machine.calibration
        queued = queue and self._reaping < self._reaper_threads
        if queued:
            self._reaping += 1
        signal_ns = machine.now_ns + calibration.signal_us * NS_PER_US
        outcome: dict[str, int | str | None] = {
            "uid": process.plan.uid,
            "oom_score_adj": process.adj,
            "event_to_signal_us": calibration.signal_us,
            "reap_method": "simulated" if queued else "none",
        }
        self._listener.kill_outcome(process.pid, **outcome)
        machine.at(signal_ns, lambda: self._signalled(process, signal, queued), PRIORITY_KERNEL)
        return queued

    def end(self, process: SimProcess) -> None:
        """A process exits of its own accord."""
        self._begin_exit(process, 0, None)

    def _signalled(self, process: SimProcess, signal: int, queued: bool) -> None:
        machine, calibration = self._machine, self._machine.calibration
        signal_ns = machine.now_ns
        if process.killed:
            if queued:
                self._reaped(process, signal_ns, signal_ns, ESRCH, 0)
            return
        process.killed = True
        anon_kib = process.anon_pages * PAGE_KIB
        teardown = Teardown(process)
        dies_ns = signal_ns + calibration.death_us * NS_PER_US
        machine.at(
            dies_ns,
            lambda: self._begin_exit(process, signal, signal_ns, teardown, hurried=queued),
            PRIORITY_KERNEL,
        )
        if queued:
            starts_ns = signal_ns + calibration.reap_start_us * NS_PER_US
            machine.at(starts_ns, lambda: self._begin_reap(process, teardown, signal_ns, anon_kib), PRIORITY_KERNEL)

    def _begin_reap(self, process: SimProcess, teardown: Teardown, signal_ns: int, anon_kib: int) -> None:
        if process.dead:
            self._reaped(process, signal_ns, self._machine.now_ns, ESRCH, 0)
            return

        def done(t_ns: int) -> None:
            self._reaped(process, signal_ns, t_ns, 0, anon_kib)

        self._machine.add_runner(Reap(teardown, done))

    def _reaped(self, process: SimProcess, signal_ns: int, t_ns: int, error: int, freed_kib: int) -> None:
        self._reaping -= 1
        took_us = (t_ns - signal_ns) // NS_PER_US
        self._listener.kill_outcome(
            process.pid, signal_to_reaped_us=None if error else took_us, reap_errno=error, freed_kib=freed_kib
        )
        self._listener.reaped(process.pid, error, took_us // 1000)

    def _begin_exit(
        self,
        process: SimProcess,
        signal: int,
        signal_ns: int | None,
        teardown: Teardown | None = None,
        *,
        hurried: bool = False,
    ) -> None:
        """``hurried``: whoever reaps it raised its priority (lmkd's reaper threads; the kernel's does not)."""
        machine = self._machine
        process.killed = process.leaving = True
        machine.remove_runner(process)

        def done(t_ns: int) -> None:
            if signal_ns is not None:
                self._listener.kill_outcome(process.pid, signal_to_exit_us=(t_ns - signal_ns) // NS_PER_US)
            machine.at(t_ns, lambda: self._gone(process, signal), PRIORITY_KERNEL)

        weight = NICE_HIGHEST if hurried else process.weight
        machine.add_runner(Exit(teardown or Teardown(process), machine, weight, done))

    def _gone(self, process: SimProcess, signal: int) -> None:
        process.dead = True
        self._machine.memory.hold_process(-1)
        if self._oom_victim is process:
            self._oom_victim = None
        self._listener.process_died(process, signal)

    # ---- the kernel's own

    def _out_of_memory(self) -> bool:
        """out_of_memory: unless a victim is on its way already. False: nobody is left to kill."""
        if self._oom_victim is not None:
            return True
        victim = self._worst()
        if victim is None:
            return False
        machine = self._machine
        self._oom_victim = victim
        if victim.killed:
            # oom_kill_process, task_will_free_mem: it is dying already, so wait for it.
            return True
        machine.memory.events.oom_kill += 1
        self._listener.kernel_oom_kill(victim, machine.now_ns)
        victim.killed = True
        signal_ns = machine.now_ns
        teardown = Teardown(victim)
        dies_ns = signal_ns + machine.calibration.death_us * NS_PER_US
        machine.at(dies_ns, lambda: self._begin_exit(victim, SIGKILL, signal_ns, teardown), PRIORITY_KERNEL)

        def oom_reaper() -> None:
            if not victim.dead and not teardown.done:
                machine.add_runner(Reap(teardown))

        machine.at(signal_ns + OOM_REAPER_DELAY_NS, oom_reaper, PRIORITY_KERNEL)
        return True

    def _worst(self) -> SimProcess | None:
        """oom_badness and select_bad_process: the first one with the most points, of those with an address space."""
        worst, most = None, 0
        for process in self._processes():
            if process.adj == OOM_SCORE_ADJ_MIN or process.leaving:
                continue
            points = self._badness(process)
            if worst is None or points > most:
                worst, most = process, points
        return worst

    def _badness(self, process: SimProcess) -> int:
        return process.rss_pages + process.swap_pages + process.adj * (self._total_pages() // 1000)

    def _total_pages(self) -> int:
        memory = self._machine.memory
        return memory.zones.managed + (memory.zram.slots if memory.zram is not None else 0)

    def oom_score(self, process: SimProcess) -> int:
        """/proc/PID/oom_score (fs/proc/base.c, proc_oom_score)."""
        if process.adj == OOM_SCORE_ADJ_MIN:
            return 0
        # points = (1000 + points * 1000 / totalpages) * 2 / 3
        return max(0, c_div((1000 + c_div(self._badness(process) * 1000, self._total_pages())) * 2, 3))
