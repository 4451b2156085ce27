"""Put everything that several files say on one time axis: nanoseconds since the epoch, or since boot.

logcat writes local time without a year, the kernel seconds since boot. The year comes from the bug report's own date,
from stamps that have one, or from the file's date. A kernel log is placed by processes whose end both logs tell, else
by the bug report's uptime; a log that offers neither is put at the beginning, and that is said.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median_low

import attrs

from lmk.logs.report import Report
from lmk.logs.scan import FileScan
from lmk.logs.stamp import Stamp, in_year
from lmk.units import NS_PER_S

#: Pairs of a kernel and a logcat line about one death agree within this much.
_AGREE_NS = 3 * NS_PER_S
#: The kinds whose lines follow a kill at once.
_PROMPT = frozenset({"died", "am_died", "signal", "lmkd", "killinfo"})
_KERNEL = frozenset({"klmk", "oom", "reap"})

#: (file, boot): one run of the kernel's clock.
Boot = tuple[int, int]


@attrs.frozen(kw_only=True)
class Timeline:
    """``clock``: ``wall`` or ``boot``. ``offsets_ns``: what to add to each boot's stamps. ``notes`` for the user."""

    clock: str
    anchors_ns: Mapping[int, int]
    offsets_ns: Mapping[Boot, int]
    notes: tuple[str, ...] = ()

    def ns(self, file: int, boot: int, stamp: Stamp) -> int:
        """When that was, on this time axis."""
        if stamp.boot:
            return stamp.ns + self.offsets_ns.get((file, boot), 0)
        return in_year(stamp, self.anchors_ns[file])


def make_timeline(scans: Sequence[FileScan], modified_ns: Sequence[int]) -> Timeline:
    """``modified_ns``: when each file was last written, for years that nothing else tells."""
    own = {index: _anchor_ns(scan) for index, scan in enumerate(scans)}
    # Files that come together are of one time: a bug report dates the logs beside it better than their files do.
    dated = max((anchor for anchor in own.values() if anchor is not None), default=None)
    anchors = {
        index: anchor if anchor is not None else dated if dated is not None else modified_ns[index]
        for index, anchor in own.items()
    }
    walls = [
        in_year(stamp, anchors[index])
        for index, scan in enumerate(scans)
        for _, stamp in scan.stamps()
        if not stamp.boot
    ]
    boots = _boots(scans)
    if not walls:
        return Timeline(clock="boot", anchors_ns=anchors, offsets_ns=_stacked(boots))
    offsets: dict[Boot, int] = {}
    notes: list[str] = []
    pairs = _pairs(scans, anchors)
    for boot, (first_ns, _) in boots.items():
        offset = _agreed(pairs.get(boot, ()))
        if offset is None:
            offset = _from_uptime(scans[boot[0]], boot[1])
        if offset is None:
            offset = min(walls) - first_ns
            notes.append(
                f"{scans[boot[0]].name}: nothing ties the kernel's clock of boot {boot[1] + 1} to the time of day; "
                "its lines are put at the beginning"
            )
        offsets[boot] = offset
    return Timeline(clock="wall", anchors_ns=anchors, offsets_ns=offsets, notes=tuple(notes))


def _anchor_ns(scan: FileScan) -> int | None:
    if scan.taken is not None:
        return scan.taken.ns
    return scan.dated.ns if scan.dated is not None else None


def _boots(scans: Sequence[FileScan]) -> dict[Boot, tuple[int, int]]:
    """First and last stamp of each boot that has any."""
    spans: dict[Boot, tuple[int, int]] = {}
    for index, scan in enumerate(scans):
        for boot, stamp in scan.stamps():
            if stamp.boot:
                low, high = spans.get((index, boot), (stamp.ns, stamp.ns))
                spans[(index, boot)] = (min(low, stamp.ns), max(high, stamp.ns))
    return spans


def _stacked(boots: Mapping[Boot, tuple[int, int]]) -> dict[Boot, int]:
    """Several boots and no time of day: one after the other, in the order of the log."""
    offsets: dict[Boot, int] = {}
    end_ns = 0
    for boot, (first_ns, last_ns) in boots.items():
        offsets[boot] = 0 if first_ns >= end_ns else end_ns
        end_ns = last_ns + offsets[boot]
    return offsets


def _pairs(scans: Sequence[FileScan], anchors: Mapping[int, int]) -> dict[Boot, list[int]]:
    """Differences between when logcat and when the kernel tell of the same pid's end."""
    told: dict[int, list[int]] = defaultdict(list)
    for index, scan in enumerate(scans):
        for report in scan.reports:
            if report.pid is not None and report.kind in _PROMPT and report.stamp and not report.stamp.boot:
                told[report.pid].append(in_year(report.stamp, anchors[index]))
    pairs: dict[Boot, list[int]] = defaultdict(list)
    for index, scan in enumerate(scans):
        for report in scan.reports:
            if _kernel_stamp(report) is not None and report.pid is not None:
                kernel_ns = _kernel_stamp(report) or 0
                pairs[(index, report.boot)].extend(ns - kernel_ns for ns in told.get(report.pid, ()))
    return pairs


def _kernel_stamp(report: Report) -> int | None:
    stamp = report.stamp
    return stamp.ns if report.kind in _KERNEL and stamp is not None and stamp.boot else None


def _agreed(differences: Sequence[int]) -> int | None:
    """The difference that most pairs agree on: a pid may have been used twice, so not every pair is one."""
    if not differences:
        return None
    ordered = sorted(differences)
    best: list[int] = []
    start = 0
    for end, value in enumerate(ordered):
        while value - ordered[start] > _AGREE_NS:
            start += 1
        if end + 1 - start > len(best):
            best = ordered[start : end + 1]
    return median_low(best)


def _from_uptime(scan: FileScan, boot: int) -> int | None:
    """The bug report's date less its uptime is the boot, to the minute. Only the last boot is the running one."""
    if scan.taken is None or scan.uptime_ns is None or boot != scan.boots - 1:
        return None
    return scan.taken.ns - scan.uptime_ns
