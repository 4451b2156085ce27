"""Blocks of text that a log carries whole: /proc files, PSI, getprop, dumpsys. Found by their first line.

A block ends with the first line that cannot belong to it.
"""

from __future__ import annotations

import re

import attrs

from lmk.logs.stamp import Stamp

#: A block longer than this is none of ours.
BLOCK_LINES_MAX = 200_000


@attrs.frozen(kw_only=True)
class Capture:
    """``kind``: one of KINDS; ``source``: what the log said the text was (a path, a section's name), often ""."""

    kind: str
    line: int
    stamp: Stamp | None
    boot: int
    source: str
    text: str


@attrs.frozen(kw_only=True)
class _Kind:
    begins: re.Pattern[str]
    goes_on: re.Pattern[str]


def _kind(begins: str, goes_on: str) -> _Kind:
    return _Kind(begins=re.compile(begins, re.ASCII), goes_on=re.compile(goes_on, re.ASCII))


#: In this order: the first whose beginning matches has the line.
KINDS: dict[str, _Kind] = {
    "meminfo": _kind(r"MemTotal: +\d+ kB", r"[A-Za-z][\w() ]*: +\d+(?: kB)?\s*$"),
    "vmstat": _kind(r"nr_free_pages \d+\s*$", r"\w+ -?\d+\s*$"),
    "zoneinfo": _kind(r"Node \d+, zone\s+\S+\s*$", r"Node \d+, zone\s+\S+\s*$|\s+\S"),
    "buddyinfo": _kind(r"Node \d+, zone\s+\S+(?:\s+\d+){2,}\s*$", r"Node \d+, zone\s+\S+(?:\s+\d+){2,}\s*$"),
    "pagetypeinfo": _kind(
        r"Page block order: \d+", r"Pages per block|Free pages count|Number of blocks|Node \d+, zone|\s*$"
    ),
    "psi": _kind(r"(?:some|full) avg10=", r"(?:some|full) avg10="),
    "getprop": _kind(r"\[[^\]\s]+\]: \[", r""),
    "dumpsys-meminfo": _kind(r"Applications Memory Usage|Total (?:PSS|RSS) by ", r""),
    "oom-table": _kind(r"\[ *pid *\] +uid +tgid +total_vm", r"\[ *\d+\] "),
    "app-meminfo": _kind(r"\*\* MEMINFO in pid \d+ \[", r"(?!\*\* MEMINFO)[\s\w(]"),
    "oom-levels": _kind(r"\s+OOM levels:", r"\s+-?\d+: \w+ \("),
    "lru": _kind(r"\s+(?:PERS|Proc) #\s*\d+: ", r"\s+(?:PERS|Proc) #\s*\d+: |\s{6,}(?!ApplicationExit)\S"),
    "lru-list": _kind(r"\s+#\s*\d+: \S+\s.*?\d+:\S+/", r"\s+#\s*\d+: \S"),
    "process-record": _kind(r"\s*\*[A-Z]+\* UID \S+ ProcessRecord\{", r"\s{4,}\S"),
    "exit-info": _kind(r"\s+ApplicationExitInfo #\d+:", r"\s{10,}\S"),
    "checkin": _kind(r"time,\d+,\d+\s*$|vers,\d+", r"[\w-]+,|\s*$"),
}
_SOURCE = re.compile(r"-+ (?P<end>End o|O)utput from (?P<path>\S+) -+")
#: Lines of ``dumpsys meminfo``: sizes with names, headings, totals.
_DUMPSYS = re.compile(
    r"\s*$|\s+[\d,]+ ?(?:K|kB): |Total (?:PSS|RSS) by |\s*(?:Total|Free|Used|Lost) RAM: "
    r"|\s*(?:ZRAM|Tuning|KSM|GPU|ION|DMA-BUF[\w ]*): "
    r"|Uptime: |Applications Memory Usage|\s+\w[\w ]*: +[\d,]+ ?(?:K|kB)"
)
_PROPERTY_END = re.compile(r"\]\s*$")


class Captures:
    """Collects blocks into the list it is given."""

    def __init__(self, found: list[Capture]) -> None:
        self._found = found
        self._kind = ""
        self._lines: list[str] = []
        self._first: tuple[int, Stamp | None, int] = (0, None, 0)
        self._source = ""

    @property
    def busy(self) -> bool:
        """Whether a block is open: every line must then be shown to ``take``."""
        return self._kind != ""

    def section(self, name: str) -> None:
        """The log says that something else begins: its name is the next block's source."""
        self.end_block()
        self._source = name.strip()

    def take(self, number: int, stamp: Stamp | None, boot: int, text: str, tag: str | None) -> bool:
        """Whether the line belongs to a block."""
        if named := _SOURCE.search(text):
            self.section("" if named["end"] == "End o" else named["path"])
            return True
        if tag is not None and tag != "ActivityManager":
            self.end_block()
            return False
        if self._kind and self._goes_on(text):
            self._lines.append(text)
            return True
        self.end_block()
        for name, kind in KINDS.items():
            if kind.begins.match(text):
                self._kind, self._first, self._lines = name, (number, stamp, boot), [text]
                return True
        return False

    def end_block(self) -> None:
        """Close the block that is open, if any."""
        if self._kind:
            line, stamp, boot = self._first
            text = "\n".join(self._lines).rstrip()
            self._found.append(
                Capture(kind=self._kind, line=line, stamp=stamp, boot=boot, source=self._source, text=text + "\n")
            )
        self._kind, self._lines = "", []

    def _goes_on(self, text: str) -> bool:
        if len(self._lines) > BLOCK_LINES_MAX:
            return False
        if self._kind == "getprop":
            # A value may span lines: until it has ended, whatever comes belongs to it.
            return KINDS["getprop"].begins.match(text) is not None or not _PROPERTY_END.search(self._lines[-1])
        if self._kind == "dumpsys-meminfo":
            return _DUMPSYS.match(text) is not None
        return KINDS[self._kind].goes_on.match(text) is not None
