"""What oomd knows of a cgroup at one moment, and its moving average (oomd's CgroupContext)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from lmk.policy.api import ListGroups, ReadFile
from lmk.policy.stepwise import Steps
from lmk.procfs.psi import Pressure, parse_pressure

_ROOT: Final = "/sys/fs/cgroup"
_STAT: Final = re.compile(r"^(anon|pgscan) (\d+)$", re.MULTILINE)
#: The average follows the size by a quarter each interval (average_size_decay 4).
_AVERAGE_DECAY: Final = 4
#: Deep enough for /apps/uid_X; below it every process has a group of its own.
_DEPTH_MAX: Final = 2


@attrs.frozen(kw_only=True)
class Cgroup:
    """One cgroup."""

    path: str
    current_bytes: int
    anon_bytes: int
    swap_bytes: int
    pgscan: int
    average_bytes: float
    pressure: Pressure | None

    @property
    def growth(self) -> float:
        """Size now over the moving average."""
        return self.current_bytes / self.average_bytes if self.average_bytes else 0.0


def pressure_of(group: Cgroup, span: int) -> float:
    """Full memory pressure over 10 s (0) or 60 s (1), percent; 0 where it is unknown."""
    if group.pressure is None or group.pressure.full is None:
        return 0.0
    return (group.pressure.full.avg10_pct, group.pressure.full.avg60_pct)[span]


def read_cgroups(before: Mapping[str, Cgroup]) -> Steps:
    """Every cgroup down to those of apps, by path."""
    found: dict[str, Cgroup] = {}
    yield from _read_below("", before, found, 0)
    return found


def _read_below(group: str, before: Mapping[str, Cgroup], found: dict[str, Cgroup], depth: int) -> Steps:
    found[group] = yield from _read_one(group, before)
    if depth < _DEPTH_MAX:
        children = yield ListGroups(group)
        for child in children if isinstance(children, tuple) else ():
            yield from _read_below(child, before, found, depth + 1)


def _read_one(group: str, before: Mapping[str, Cgroup]) -> Steps:
    current = yield from _number(f"{group}/memory.current")
    swap = yield from _number(f"{group}/memory.swap.current")
    text = yield ReadFile(f"{_ROOT}{group}/memory.stat", keep=False)
    stat = {name: int(count) for name, count in _STAT.findall(text)} if isinstance(text, str) else {}
    pressure = yield ReadFile(f"{_ROOT}{group}/memory.pressure", keep=False)
    if isinstance(pressure, str):
        pressure = parse_pressure(pressure)
    old = before.get(group)
    # It begins at nothing, so a new group seems to have grown fourfold.
    average = 0.0 if old is None else old.average_bytes
    average += (current - average) / _AVERAGE_DECAY
    return Cgroup(
        path=group,
        current_bytes=current,
        anon_bytes=stat.get("anon", 0),
        swap_bytes=swap,
        pgscan=stat.get("pgscan", 0),
        average_bytes=average,
        pressure=pressure if isinstance(pressure, Pressure) else None,
    )


def _number(file: str) -> Steps:
    text = yield ReadFile(f"{_ROOT}{file}", keep=False)
    return int(text) if isinstance(text, str) and text.strip().isdecimal() else 0
