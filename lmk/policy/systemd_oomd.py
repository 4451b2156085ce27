"""systemd-oomd, for comparison: swap and memory pressure limits per cgroup, whole cgroups die.

From oomd.conf(5), systemd-oomd.service(8) and systemd.resource-control(5), and its observable behaviour, compared with
the program in docs/killers.md. The default setting is the one Fedora ships, on Android's groups: ManagedOOMSwap=kill
on the root, ManagedOOMMemoryPressure=kill on ``/apps``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from lmk.policy.api import SIGKILL, ListGroups, ProcessRow, ReadFile, Request, StartReaper, Wait
from lmk.policy.stepwise import Clock, Stepper, Steps, decided, kill_process, read_meminfo
from lmk.procfs.psi import Pressure, parse_pressure
from lmk.units import NS_PER_MS, NS_PER_S

CGROUP_ROOT: Final = "/sys/fs/cgroup"
PRESSURE_GROUP: Final = "/apps"
#: Only groups with more than this share of all swap are worth killing for it.
_SWAP_SHARE_MIN_PCT: Final = 5
_SWAP_INTERVAL_MS: Final = 150
_PRESSURE_INTERVAL_MS: Final = 1000
#: After a kill for pressure it lets things settle.
_POST_ACTION_DELAY_NS: Final = 15 * NS_PER_S
#: Pressure without reclaim for so long is an echo of what is over.
_RECLAIM_LAST_NS: Final = 30 * NS_PER_S
_PGSCAN: Final = re.compile(r"^pgscan (\d+)$", re.MULTILINE)


@attrs.frozen(kw_only=True)
class Settings:
    """oomd.conf: SwapUsedLimit, DefaultMemoryPressureLimit and DefaultMemoryPressureDurationSec."""

    swap_used_limit_pct: int = 90
    pressure_limit_pct: int = 60
    pressure_duration_s: int = 30


@attrs.frozen(kw_only=True)
class Group:
    """A candidate: a cgroup without children. Bytes and pages."""

    path: str
    swap_bytes: int
    current_bytes: int
    pgscan: int


class SystemdOomdPolicy:
    """See ``lmk.policy.api.Policy``."""

    name = "systemd-oomd"

    def __init__(self, settings: Settings = Settings()) -> None:
        self._settings = settings
        self._clock = Clock()
        self._stepper = Stepper(self._clock, self._run())
        #: Pages scanned, of the candidates at the last look and of the monitored group itself.
        self._pgscan: dict[str, int] = {}
        self._group_pgscan: int | None = None
        self._reclaimed_ns: int | None = None
        self._hit_since_ns: int | None = None
        self._settled_ns = 0
        self._pressure_due_ns = 0

    def start(self, now_ns: int) -> Request:
        """See ``Policy``."""
        return self._stepper.start(now_ns)

    def step(self, answer: object, now_ns: int) -> Request:
        """See ``Policy``."""
        return self._stepper.step(answer, now_ns)

    def processes(self) -> Sequence[ProcessRow]:
        """It keeps no table of processes."""
        return ()

    def _run(self) -> Steps:
        yield StartReaper(0, "fifo")
        while True:
            # The timer is set as the work begins.
            until_ns = self._clock.now_ns + _SWAP_INTERVAL_MS * NS_PER_MS
            yield from self._check_swap()
            if self._clock.now_ns >= self._pressure_due_ns:
                self._pressure_due_ns = self._clock.now_ns + _PRESSURE_INTERVAL_MS * NS_PER_MS
                yield from self._check_pressure()
            while self._clock.now_ns < until_ns:
                yield Wait(max(1, -(-(until_ns - self._clock.now_ns) // NS_PER_MS)))

    def _check_swap(self) -> Steps:
        meminfo = yield from read_meminfo()
        total, swap_total = meminfo.get("MemTotal") or 0, meminfo.get("SwapTotal") or 0
        used, swap_used = total - (meminfo.get("MemAvailable") or 0), swap_total - (meminfo.get("SwapFree") or 0)
        limit_pct = self._settings.swap_used_limit_pct
        if used * 100 <= limit_pct * total or swap_used * 100 <= limit_pct * swap_total:
            return
        least = swap_total * 1024 * _SWAP_SHARE_MIN_PCT // 100
        groups = [group for group in (yield from _candidates("")) if group.swap_bytes > least]
        if groups:
            worst = max(groups, key=lambda group: (group.swap_bytes, group.path))
            text = f"memory used {used * 100 // total} % and swap used {swap_used * 100 // swap_total} %"
            text += f" are above {limit_pct} %"
            yield from self._kill(worst.path, text, {"swap_bytes": worst.swap_bytes})

    def _check_pressure(self) -> Steps:
        settings, now_ns = self._settings, self._clock.now_ns
        pressure = yield from _pressure(PRESSURE_GROUP)
        scanned = yield from _pgscan(PRESSURE_GROUP)
        if self._group_pgscan is not None and scanned > self._group_pgscan:
            self._reclaimed_ns = now_ns
        self._group_pgscan = scanned
        if pressure is None or pressure.full is None or pressure.full.avg10_pct <= settings.pressure_limit_pct:
            self._hit_since_ns = None
            return
        if self._hit_since_ns is None:
            self._hit_since_ns = now_ns
        # Candidates are looked at only while the limit is exceeded: the first time all that was ever scanned counts.
        groups = yield from _candidates(PRESSURE_GROUP)
        before, self._pgscan = self._pgscan, {group.path: group.pgscan for group in groups}
        if now_ns - self._hit_since_ns < settings.pressure_duration_s * NS_PER_S or now_ns < self._settled_ns:
            return
        if self._reclaimed_ns is None or now_ns - self._reclaimed_ns > _RECLAIM_LAST_NS:
            return
        yield from self._kill_most_scanned(groups, before, pressure.full.avg10_pct)

    def _kill_most_scanned(self, groups: Sequence[Group], before: Mapping[str, int], avg10_pct: float) -> Steps:
        """Whose pages reclaim looked at most since the last look; the larger one of two that are alike."""
        settings = self._settings
        ranks = [
            (_rate(group.pgscan, before.get(group.path, 0)), group.current_bytes, group.path)
            for group in groups
            if group.pgscan or group.current_bytes
        ]
        if not ranks:
            return
        rate, _, path = max(ranks)
        text = f"memory pressure of {PRESSURE_GROUP} is {avg10_pct:.2f} % > {settings.pressure_limit_pct} %"
        text += f" for {settings.pressure_duration_s} s"
        yield from self._kill(path, text, {"pgscan_rate": rate, "full_avg10_pct": avg10_pct})
        self._settled_ns = self._clock.now_ns + _POST_ACTION_DELAY_NS

    def _kill(self, group: str, text: str, values: dict[str, int | float | bool]) -> Steps:
        procs = yield ReadFile(f"{CGROUP_ROOT}{group}/cgroup.procs", keep=False)
        killed = []
        for word in procs.split() if isinstance(procs, str) else ():
            if not (yield from kill_process(int(word), SIGKILL)):
                killed.append(int(word))  # noqa: PERF401 - a yield cannot be in a comprehension
        yield decided(self.name, f"{group}: {text}", values, tuple(killed))


def _candidates(group: str) -> Steps:
    """Groups below one (itself, if it has none) with their figures, by path."""
    children = yield ListGroups(group)
    if not isinstance(children, tuple) or not children:
        return [] if not group else [(yield from _figures(group))]
    found: list[Group] = []
    for child in children:
        found += yield from _candidates(child)
    return found


def _rate(pgscan: int, before: int) -> int:
    """A counter that fell is that of a new group of the same name."""
    return pgscan - before if before <= pgscan else pgscan


def _figures(group: str) -> Steps:
    swap = yield ReadFile(f"{CGROUP_ROOT}{group}/memory.swap.current", keep=False)
    current = yield ReadFile(f"{CGROUP_ROOT}{group}/memory.current", keep=False)
    return Group(
        path=group,
        swap_bytes=int(swap) if isinstance(swap, str) else 0,
        current_bytes=int(current) if isinstance(current, str) else 0,
        pgscan=(yield from _pgscan(group)),
    )


def _pgscan(group: str) -> Steps:
    stat = yield ReadFile(f"{CGROUP_ROOT}{group}/memory.stat", keep=False)
    scanned = _PGSCAN.search(stat) if isinstance(stat, str) else None
    return int(scanned[1]) if scanned else 0


def _pressure(group: str) -> Steps:
    answer = yield ReadFile(f"{CGROUP_ROOT}{group}/memory.pressure", keep=False)
    if isinstance(answer, Pressure):
        return answer
    return parse_pressure(answer) if isinstance(answer, str) else None
