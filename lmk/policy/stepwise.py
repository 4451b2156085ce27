"""A policy written as one generator of requests, behind the stepwise protocol."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from lmk.policy.api import Exit, Kill, ReadFile, ReadProcess, Request
from lmk.policy.decision import Decision
from lmk.procfs.meminfo import Meminfo, parse_meminfo

Steps = Generator[Request, Any, Any]


class Clock:
    """The time of the last answer, for the generator to look at."""

    def __init__(self) -> None:
        self.now_ns = 0


class Stepper:
    """Drives a generator: ``start`` and ``step`` of ``lmk.policy.api.Policy``."""

    def __init__(self, clock: Clock, steps: Steps) -> None:
        self._clock = clock
        self._steps = steps

    def start(self, now_ns: int) -> Request:
        """The first request."""
        self._clock.now_ns = now_ns
        return next(self._steps)

    def step(self, answer: object, now_ns: int) -> Request:
        """The next one, or Exit once the generator has returned."""
        self._clock.now_ns = now_ns
        try:
            return self._steps.send(answer)
        except StopIteration:
            return Exit(0)


def read_meminfo() -> Steps:
    """/proc/meminfo as a value; None if it cannot be read."""
    answer = yield ReadFile("/proc/meminfo")
    if isinstance(answer, Meminfo):
        return answer
    return parse_meminfo(answer) if isinstance(answer, str) else None


def kill_process(pid: int, signal: int, *, queue: bool = False) -> Steps:
    """Send a signal by pid; the errno. Name and sizes are read before, so that the record has them."""
    yield ReadProcess(pid, "status")
    yield ReadProcess(pid, "cmdline")
    outcome = yield Kill(pid, None, queue, signal=signal)
    return outcome.errno


def decided(
    strategy: str, reason_text: str, values: Mapping[str, int | float | bool], killed_pids: tuple[int, ...]
) -> Decision:
    """A decision of a policy that knows no levels, tiers or numbered reasons."""
    return Decision(
        strategy=strategy,
        level=0,
        by_event=False,
        evaluations=(),
        values=values,
        reason=-1,
        reason_text=reason_text,
        min_adj=-1000,
        killed_pids=killed_pids,
    )
