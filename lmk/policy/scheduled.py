"""A policy that repeats another run: the same apps die at the same moments, and the device is looked at as often,
whatever memory looks like."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lmk.policy.api import SIGKILL, ListProcesses, ProcessRow, ReadFile, ReadProcess, Request, StartReaper, Wait
from lmk.policy.stepwise import Clock, Stepper, Steps, decided, kill_process
from lmk.units import NS_PER_MS

#: How often it looks whether the scenario has begun.
_BEGUN_MS = 20
#: How long before a kill it looks for the process: on a device that takes a round trip for each one there is.
_LOOK_AHEAD_MS = 200
#: What happens at a moment, in this order.
_FIND, _LOOK, _KILL = range(3)


@attrs.frozen(kw_only=True)
class ScheduledKill:
    """``t_ms`` after the scenario's beginning, the process called ``name``."""

    t_ms: float
    name: str


@attrs.frozen(kw_only=True)
class Schedule:
    """What another run's policy did: its kills, and the moments (ms after the beginning) at which it took a sample."""

    kills: tuple[ScheduledKill, ...]
    looks_ms: tuple[float, ...] = ()


class ScheduledPolicy:
    """See ``lmk.policy.api.Policy``; ``begin`` must be told when the scenario began."""

    name = "scheduled"

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._clock = Clock()
        self._stepper = Stepper(self._clock, self._steps())
        self._zero_ns: int | None = None
        #: Kills whose process did not exist when its time had come.
        self.missed = 0

    def begin(self, zero_ns: int) -> None:
        """The scenario began."""
        self._zero_ns = zero_ns

    def start(self, now_ns: int) -> Request:
        """The first request."""
        return self._stepper.start(now_ns)

    def step(self, answer: object, now_ns: int) -> Request:
        """The next one."""
        return self._stepper.step(answer, now_ns)

    def processes(self) -> Sequence[ProcessRow]:
        """It keeps no table."""
        return ()

    def _steps(self) -> Steps:
        yield StartReaper(1, "fifo")
        while self._zero_ns is None:
            yield Wait(_BEGUN_MS)
        kills = self._schedule.kills
        moments = [(t_ms, _LOOK, 0) for t_ms in self._schedule.looks_ms]
        for index, kill in enumerate(kills):
            moments += [(kill.t_ms - _LOOK_AHEAD_MS, _FIND, index), (kill.t_ms, _KILL, index)]
        found: dict[int, int | None] = {}
        for t_ms, what, index in sorted(moments):
            at_ns = self._zero_ns + int(t_ms * NS_PER_MS)
            while self._clock.now_ns < at_ns:
                yield Wait(max(1, (at_ns - self._clock.now_ns) // NS_PER_MS))
            if what == _LOOK:
                yield ReadFile("/proc/meminfo")
            elif what == _FIND:
                found[index] = yield from self._find(kills[index].name)
            else:
                yield from self._kill(kills[index].name, found[index])
        while True:
            yield Wait(None)

    def _kill(self, name: str, pid: int | None) -> Steps:
        if pid is None and (pid := (yield from self._find(name))) is None:
            self.missed += 1
            return
        yield from kill_process(pid, SIGKILL, queue=True)
        yield decided("scheduled", "killed in the run that is repeated", {}, (pid,))

    def _find(self, name: str) -> Steps:
        pids = yield ListProcesses()
        for pid in reversed(pids):
            cmdline = yield ReadProcess(pid, "cmdline")
            if isinstance(cmdline, str) and cmdline.split("\0")[0] == name:
                return pid
        return None
