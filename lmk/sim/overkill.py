"""Which kills were unnecessary? Each is left out in a run of its own: same device, same seed, the same up to there.

At the wake-up that led to the kill the killer is held back for a second, the length of a PSI window; then it goes on as
it likes. If it finds no reason to kill anybody within the next nine seconds, the kernel kills nobody either, and memory
stalls everything for less than a tenth of the ten seconds, the device recovered without the kill.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from lmk.engine.loop import run_policy
from lmk.engine.target import RunOver
from lmk.policy.api import Kill, Request, Wait
from lmk.sim.memory import Memory
from lmk.sim.process import SimProcess
from lmk.sim.run import SimPlan, make_target
from lmk.sim.target import SimTarget
from lmk.units import NS_PER_MS, NS_PER_S

HOLD_MS: Final = 1000
WATCH_MS: Final = 10_000
#: Full stall over the watched time.
STALL_MS_MAX: Final = 1000


@attrs.frozen(kw_only=True)
class KillCheck:
    """What became of the device without the kills of one wake-up. Times are the device's clock."""

    woke_ns: int
    pids: tuple[int, ...]
    unnecessary: bool
    #: In words: that it recovered, or why it did not. A kill shortly before the run's end counts as necessary.
    why: str
    #: Memory full stall from the wake-up until the end of the watch.
    stall_ms: int


def check_kills(plan: SimPlan, told: Callable[[int, int], None] = lambda *_: None) -> list[KillCheck]:
    """Every wake-up of a run at which its policy killed. Costs as many runs, each up to its kill. Raises LmkError."""
    woken = _kills(plan)
    found = []
    for index, (woke_ns, pids) in enumerate(woken.items()):
        found.append(_without(plan, woke_ns, tuple(pids)))
        told(index + 1, len(woken))
    return found


def unnecessary_kills(checks: list[KillCheck]) -> int:
    """How many processes died for nothing."""
    return sum(len(check.pids) for check in checks if check.unnecessary)


def _kills(plan: SimPlan) -> dict[int, list[int]]:
    """Pids by the wake-up that led to their kill, in order."""
    observer = _KillObserver()
    run_policy(plan.make_policy(), make_target(plan, _Nobody()), observer)
    return observer.found


def _without(plan: SimPlan, woke_ns: int, pids: tuple[int, ...]) -> KillCheck:
    nobody = _Nobody()
    target = HeldTarget(make_target(plan, nobody), woke_ns, nobody)
    run_policy(plan.make_policy(), target, _KillObserver())
    stall_ms = target.stall_ms()
    why = target.why
    if not why and stall_ms >= STALL_MS_MAX:
        why = "memory stalls everything"
    elif not why and target.now_ns() < woke_ns + WATCH_MS * NS_PER_MS:
        why = "the run ended too early to tell"
    return KillCheck(
        woke_ns=woke_ns,
        pids=pids,
        unnecessary=not why,
        why=why or "the device recovered without it",
        stall_ms=stall_ms,
    )


class HeldTarget:
    """A simulated device (``lmk.engine.target.Target``) whose policy oversleeps once and is then watched."""

    def __init__(self, inner: SimTarget, woke_ns: int, nobody: _Nobody) -> None:
        self._inner = inner
        self._woke_ns = woke_ns
        self._nobody = nobody
        self._held = False
        self._stalled_us = 0
        self._end_ns = woke_ns + WATCH_MS * NS_PER_MS
        #: Why the kill was needed; empty while nothing shows that it was.
        self.why = ""

    def now_ns(self) -> int:
        """See ``Target``."""
        return self._inner.now_ns()

    def answer(self, request: Request) -> object:
        """See ``Target``; the run is over at the next kill, or when it has been watched for long enough."""
        if self._held and isinstance(request, Kill):
            after_s = (self.now_ns() - self._woke_ns) / NS_PER_S
            return self._over(f"it would have killed {after_s:.1f} s later")
        answer = self._inner.answer(request)
        if not isinstance(request, Wait) or isinstance(answer, RunOver):
            return answer
        if not self._held and self.now_ns() >= self._woke_ns:
            self._hold()
        if self._held and self._nobody.kernel_kills:
            return self._over("the kernel's OOM killer struck")
        if self._held and self.now_ns() >= self._end_ns:
            return RunOver("watched for long enough")
        return answer

    def close(self) -> None:
        """See ``Target``."""
        self._inner.close()

    def stall_ms(self) -> int:
        """Full stall since the hold began."""
        return (self._inner.machine.psi.memory_totals_us(self._inner.machine.now_ns)[1] - self._stalled_us) // 1000

    def _over(self, why: str) -> RunOver:
        self.why = why
        return RunOver(why)

    def _hold(self) -> None:
        """Let time pass with nobody awake; what happens meanwhile is there at the next wait."""
        self._held = True
        self._nobody.kernel_kills = 0
        machine = self._inner.machine
        self._stalled_us = machine.psi.memory_totals_us(machine.now_ns)[1]
        machine.at(self._end_ns, self._interrupt)
        until_ns = self._woke_ns + HOLD_MS * NS_PER_MS
        while machine.now_ns < until_ns and not self._inner.over:
            machine.interrupted = False
            machine.advance(until_ns)

    def _interrupt(self) -> None:
        self._inner.machine.interrupted = True


class _KillObserver:
    """Remembers which pids a policy killed, by the wake-up before."""

    def __init__(self) -> None:
        self.found: dict[int, list[int]] = {}
        self._woke_ns = 0

    def exchanged(self, t_ns: int, request: Request, answer: object) -> None:
        """See ``lmk.engine.loop.Observer``."""
        if isinstance(request, Wait):
            self._woke_ns = t_ns
        elif isinstance(request, Kill) and not getattr(answer, "errno", 0):
            pids = self.found.setdefault(self._woke_ns, [])
            if request.pid not in pids:
                pids.append(request.pid)


class _Nobody:
    """A ``SimListener`` that only counts what the kernel kills."""

    def __init__(self) -> None:
        self.kernel_kills = 0

    def started(self, t_ns: int) -> None:
        """See ``SimListener``."""

    def app_event(self, t_ns: int, kind: str, body: dict[str, Any]) -> None:
        """See ``SimListener``."""

    def kill_outcome(self, pid: int, **values: int | str | None) -> None:
        """See ``SimListener``."""

    def kernel_oom_kill(self, process: SimProcess, t_ns: int) -> None:
        """See ``SimListener``."""
        del process, t_ns
        self.kernel_kills += 1

    def sampled(self, t_ns: int, memory: Memory, psi_us: tuple[int, int]) -> None:
        """See ``SimListener``."""
