"""A policy that repeats the kills of another run: the same apps at the same moments, whatever memory looks like."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lmk.policy.api import SIGKILL, ListProcesses, ProcessRow, ReadProcess, Request, StartReaper, Wait
from lmk.policy.stepwise import Clock, Stepper, Steps, decided, kill_process
from lmk.units import NS_PER_MS

#: How often it looks whether the scenario has begun.
_BEGUN_MS = 20


@attrs.frozen(kw_only=True)
class ScheduledKill:
    """``t_ms`` after the scenario's beginning, the process called ``name``."""

    t_ms: float
    name: str


class ScheduledPolicy:
    """See ``lmk.policy.api.Policy``; ``begin`` must be told when the scenario began."""

    name = "scheduled"

    def __init__(self, kills: Sequence[ScheduledKill]) -> None:
        self._kills = sorted(kills, key=lambda kill: kill.t_ms)
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
        for kill in self._kills:
            at_ns = self._zero_ns + int(kill.t_ms * NS_PER_MS)
            while self._clock.now_ns < at_ns:
                yield Wait(max(1, (at_ns - self._clock.now_ns) // NS_PER_MS))
            pid = yield from self._find(kill.name)
            if pid is None:
                self.missed += 1
                continue
            yield from kill_process(pid, SIGKILL, queue=True)
            yield decided("scheduled", "killed in the run that is repeated", {}, (pid,))
        while True:
            yield Wait(None)

    def _find(self, name: str) -> Steps:
        pids = yield ListProcesses()
        for pid in reversed(pids):
            cmdline = yield ReadProcess(pid, "cmdline")
            if isinstance(cmdline, str) and cmdline.rstrip("\0") == name:
                return pid
        return None
