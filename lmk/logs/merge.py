"""One death, told by several logs, is one death: put the reports about it together and say who killed.

Reports belong together when they name the same pid (and no different process) within a short time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from lmk.logs.report import KILLERS, Report
from lmk.units import NS_PER_S

#: From the kill to its report by another log.
NEAR_NS = 10 * NS_PER_S
#: ActivityManager may be slow to notice a death while memory is short.
DEATH_NS = 60 * NS_PER_S
DEATHS = frozenset({"died", "am_died", "signal"})
#: Which report knows a field best, for those that more than one has.
_ORDER = ("lmkd", "killinfo", "klmk", "oom", "am_kill", "am_text", "phantom", "am_died", "died", "signal", "reap")
#: The kernel's names have 15 characters: of a longer name the last ones.
COMM_CHARS = 15
#: ``<pre-initialized>`` is a zygote child that has not yet set its name.
_NAMELESS = ("<pre-initialized>", "zygote", "zygote64", "usap32", "usap64", "webview_zygote")


@attrs.frozen(kw_only=True)
class Told:
    """A report on the common time axis; ``timed`` False if its line had no time of its own."""

    ns: int
    report: Report
    timed: bool = True


@attrs.define(kw_only=True)
class Death:
    """All that is told about one process's end, by time. ``killer``: lmkd, kernel_lmk, kernel_oom,
    activity_manager or None: nobody says."""

    told: list[Told] = attrs.field(factory=list)

    @property
    def reports(self) -> list[Report]:
        """Its reports, those first that know most."""
        return sorted((t.report for t in self.told), key=lambda report: _ORDER.index(report.kind))

    @property
    def killer(self) -> str | None:
        """Who killed, by the best report."""
        for report in self.reports:
            if report.kind in KILLERS:
                return KILLERS[report.kind]
            if report.kind in ("am_kill", "am_text", "phantom"):
                return "activity_manager"
        return None

    @property
    def t_ns(self) -> int:
        """When: the killer's own line, else the first."""
        kind = self.reports[0].kind
        return min(told.ns for told in self.told if told.report.kind == kind)

    @property
    def name(self) -> str | None:
        """The longest form of the name that fits the first report's."""
        names = [r.name for r in self.reports if r.name]
        real = [name for name in names if name not in _NAMELESS] or names
        return max(real, key=len) if real else None

    def first(self, field: str) -> int | str | None:
        """An attribute from the report that knows it best."""
        for report in self.reports:
            value: int | str | None = getattr(report, field)
            if value is not None:
                return value
        return None


def merge(told: Iterable[Told]) -> list[Death]:
    """Deaths in the order of their kills. Every report is in exactly one of them; those without a pid are alone."""
    deaths: list[Death] = []
    open_: dict[int, list[Death]] = {}
    for one in sorted(told, key=lambda t: (t.ns, t.report.file, t.report.line)):
        pid = one.report.pid
        home = None if pid is None else next((d for d in reversed(open_.get(pid, [])) if _fits(d, one)), None)
        if home is None:
            home = Death()
            deaths.append(home)
            if pid is not None:
                open_.setdefault(pid, []).append(home)
        home.told.append(one)
    return sorted(deaths, key=lambda death: death.t_ns)


def _fits(death: Death, one: Told) -> bool:
    last = death.told[-1]
    gap_ns = one.ns - last.ns
    kinds = {t.report.kind for t in death.told}
    if one.report.kind in kinds and one.report.kind in DEATHS and not _same_line(death.told, one):
        return False  # a process dies once
    ended = any(kind in DEATHS for kind in kinds)
    limit_ns = DEATH_NS if one.report.kind in DEATHS and not ended else NEAR_NS
    return gap_ns <= limit_ns and all(_same_name(t.report.name, one.report.name) for t in death.told)


def _same_line(told: Sequence[Told], one: Told) -> bool:
    """The same line in two files or twice in one (main and crash buffer of a bug report)."""
    return any(t.report.text == one.report.text and t.ns == one.ns for t in told)


def _same_name(left: str | None, right: str | None) -> bool:
    """Whether two logs may mean the same process; one may know only the kernel's short name."""
    if left is None or right is None or left == right or left in _NAMELESS or right in _NAMELESS:
        return True
    short, long = sorted((left, right), key=len)
    return len(short) <= COMM_CHARS and (long.endswith(short) or long.startswith(short))
