"""How busy everything else on the host was during a run: /proc/stat less what QEMU, adb and lmk used.

A measured time means little when a compiler ran beside it; a run is marked ``disturbed`` when others used more than
a tenth of the machine's processor time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

DISTURBED_ABOVE = 0.10
#: /proc/stat's cpu line: user nice system idle iowait irq softirq steal (guest is already inside user).
_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)


@frozen(kw_only=True)
class HostLoadResult:
    """``other_fraction``: processor time used by others over all the host's processor time, 0 to 1."""

    duration_s: float
    busy_fraction: float
    own_fraction: float
    other_fraction: float

    @property
    def disturbed(self) -> bool:
        """Whether measurements of this run should be left out."""
        return self.other_fraction > DISTURBED_ABOVE


class HostLoad:
    """Measures from its making until ``finish``; ``pids`` are our long-lived children (QEMU, the adb server)."""

    def __init__(self, pids: Iterable[int] = (), *, proc_root: Path = Path("/proc")) -> None:
        self._proc = proc_root
        self._pids = [os.getpid(), *pids]
        self._started_s = time.monotonic()
        self._busy, self._total = self._machine()
        self._own = {pid: self._process(pid) for pid in self._pids}

    def add(self, pid: int) -> None:
        """Count one more process of ours from now on."""
        self._pids.append(pid)
        self._own[pid] = self._process(pid)

    def finish(self) -> HostLoadResult:
        """The load since the start. A child that has ended and was waited for is counted through this process."""
        busy, total = self._machine()
        own = 0
        for pid in self._pids:
            now = self._process(pid)
            before = self._own[pid]
            if now is not None and before is not None:
                own += max(0, now - before)
        span = max(1, total - self._total)
        busy_ticks = max(0, busy - self._busy)
        return HostLoadResult(
            duration_s=time.monotonic() - self._started_s,
            busy_fraction=min(1.0, busy_ticks / span),
            own_fraction=min(1.0, own / span),
            other_fraction=min(1.0, max(0, busy_ticks - own) / span),
        )

    def _machine(self) -> tuple[int, int]:
        """Busy and all ticks of the whole machine."""
        fields = (self._proc / "stat").read_text().splitlines()[0].split()[1:]
        ticks = [int(field) for field in fields[:8]]
        return sum(ticks[index] for index in _BUSY_FIELDS), sum(ticks)

    def _process(self, pid: int) -> int | None:
        """User and system ticks of a process, its threads and its reaped children; None if it is gone."""
        try:
            text = (self._proc / str(pid) / "stat").read_text()
        except OSError:
            return None
        # The name may hold spaces and brackets: fields start after the last ')'.
        fields = text[text.rindex(")") + 2 :].split()
        return sum(int(field) for field in fields[11:15])
