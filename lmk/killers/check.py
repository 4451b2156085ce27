"""Compare: what a real killer did in a case, and what our policy does when it sees what the killer saw."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import attrs

from lmk.engine.loop import run_policy
from lmk.killers.cases import Case
from lmk.killers.target import CGROUP_ROOT, TraceTarget
from lmk.killers.trace import Reading, Signal, Trace
from lmk.policy.api import Policy, Request
from lmk.policy.earlyoom import EarlyoomPolicy
from lmk.policy.oomd import OomdPolicy
from lmk.policy.systemd_oomd import SystemdOomdPolicy
from lmk.units import NS_PER_MS, NS_PER_S

SAME_SECOND_NS = NS_PER_S
_ALIKE_PCT = 20
_LOOK_NS = 4 * NS_PER_S

#: The file each program looks at once per round.
POLL_PATHS: Mapping[str, str] = {
    "earlyoom": "/proc/meminfo",
    "oomd": "/proc/swaps",
    "systemd-oomd": "/proc/meminfo",
}
_POLICIES: Mapping[str, Callable[[Case], Policy]] = {
    "earlyoom": lambda case: EarlyoomPolicy(case.earlyoom),
    "oomd": lambda case: OomdPolicy(case.oomd, interval_s=1),
    "systemd-oomd": lambda case: SystemdOomdPolicy(case.systemd_oomd),
}
_SCORE = re.compile(r"/proc/(\d+)/oom_score")
_GROUP = re.compile(rf"({CGROUP_ROOT}/apps/[^/]+)(?:/[^/]+)?(?=/cgroup\.procs)")


@attrs.frozen
class Kill:
    """When the first signal went to a process, in seconds from the first look, and which."""

    t_s: float
    pid: int
    signal: int


@attrs.frozen(kw_only=True)
class Verdict:
    """One case: kills of the program and of the policy, and how many candidates were like the first victim."""

    case: str
    real: tuple[Kill, ...]
    ours: tuple[Kill, ...]
    alike: int
    reasons: tuple[str, ...]

    @property
    def agree(self) -> bool:
        """The same victims in the same order, each within a second."""
        return len(self.real) == len(self.ours) and all(
            there.pid == here.pid and abs(there.t_s - here.t_s) * NS_PER_S <= SAME_SECOND_NS
            for there, here in zip(self.real, self.ours, strict=False)
        )


def compare(killer: str, case: Case, trace: Trace) -> Verdict:
    """Run our policy on a trace and hold both against each other."""
    target = TraceTarget(trace, POLL_PATHS[killer])
    began_ns = target.now_ns()
    run_policy(_POLICIES[killer](case), target, _Nobody())
    real, ours = _kills(trace.signals, began_ns), _kills(tuple(target.signals), began_ns)
    # A kill that one side has in the last second may be one that the other had no time for.
    settled_s = (trace.end_ns - SAME_SECOND_NS - began_ns) / NS_PER_S
    return Verdict(
        case=case.name,
        real=_settled(real, ours, settled_s),
        ours=_settled(ours, real, settled_s),
        alike=_alike(killer, trace, trace.signals[0]) if trace.signals else 0,
        reasons=tuple(target.reasons),
    )


def _kills(signals: tuple[Signal, ...], began_ns: int) -> tuple[Kill, ...]:
    """The first signal to each process: the programs repeat theirs until it is gone."""
    seen: set[int] = set()
    kills = []
    for signal in signals:
        if signal.pid is not None and signal.pid not in seen:
            seen.add(signal.pid)
            kills.append(Kill((signal.t_ns - began_ns) // NS_PER_MS / 1000, signal.pid, signal.signal))
    return tuple(kills)


def _settled(kills: tuple[Kill, ...], others: tuple[Kill, ...], until_s: float) -> tuple[Kill, ...]:
    known = {other.pid for other in others}
    return tuple(kill for kill in kills if kill.t_s <= until_s or kill.pid in known)


def _alike(killer: str, trace: Trace, first: Signal) -> int:
    """Candidates that the program looked at before its first kill and whose figure is within 20 % of the victim's: by
    oom_score, or by memory, swap or both of their cgroup, whichever finds most."""
    if killer == "earlyoom":
        return _within(_last_seen(trace, first, _SCORE), str(first.pid))
    owner = next((r.path for r in reversed(trace.readings) if _owns(r, first)), "")
    group = _GROUP.match(owner)
    victim = "" if group is None else group[1 if killer == "oomd" else 0]
    depth = 1 if killer == "oomd" else 2
    memory, swap = (
        _last_seen(trace, first, re.compile(rf"({CGROUP_ROOT}/apps(?:/[^/]+){{{depth}}})/{file}"))
        for file in (r"memory\.current", r"memory\.swap\.current")
    )
    whole = {path: size + swap.get(path, 0) for path, size in memory.items()}
    return max(_within(seen, victim) for seen in (memory, swap, whole))


def _owns(reading: Reading, signal: Signal) -> bool:
    near = reading.t_ns <= signal.t_ns and reading.path.endswith("/cgroup.procs")
    return near and str(signal.pid) in reading.text.split()


def _last_seen(trace: Trace, first: Signal, figure: re.Pattern[str]) -> dict[str, int]:
    seen: dict[str, int] = {}
    for reading in trace.readings:
        found = figure.fullmatch(reading.path)
        if found and first.t_ns - _LOOK_NS <= reading.t_ns <= first.t_ns and reading.text.strip().isdecimal():
            seen[found[1]] = int(reading.text)
    return seen


def _within(seen: Mapping[str, int], victim: str) -> int:
    most = seen.get(victim, 0)
    return sum(abs(value - most) * 100 <= _ALIKE_PCT * most for value in seen.values()) if most else 0


class _Nobody:
    """An observer that looks away."""

    def exchanged(self, t_ns: int, request: Request, answer: object) -> None:
        """See ``lmk.engine.loop.Observer``."""
