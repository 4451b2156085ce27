"""Read a log line by line: reports of kills and deaths, lines nobody understood, events, memory captures.

Every line that speaks of killing ends as (part of) a report, as a known other line, or as an unknown line: none is
dropped. Never raises, whatever the text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Protocol

import attrs

from lmk.logs import am_lines, event_lines, kernel_lines, lmkd_lines
from lmk.logs.captures import Capture, Captures
from lmk.logs.envelope import KERNEL, LOGCAT, LogLine, parse_line
from lmk.logs.report import Report, UnknownLine, report_of
from lmk.logs.stamp import WALL, Stamp, wall_stamp
from lmk.logs.suspect import EMBEDDED, INTEREST, suspicion
from lmk.logs.wording import Wording, first_match
from lmk.units import NS_PER_S

#: Other lines may get between the lines of one message, when several CPUs or processes log at once.
OPEN_LINES_MAX = 24
#: A record that somebody wrapped by hand goes over at most so many further lines.
WRAPPED_LINES_MAX = 4
#: The kernel's clock never goes back; by this much it is another boot. Lines of several CPUs come a little unsorted.
_BOOT_BACK_NS = 5 * NS_PER_S
_SECTION = re.compile(r"-{4,8} (?P<name>[A-Z][A-Za-z0-9 ._/-]*?)(?: \((?P<command>.*?)\)?)? ?-*\s*$")
_DUMPSTATE = re.compile(r"== dumpstate: (.*)")
_UPTIME = re.compile(
    r"Uptime: up (?P<w>\d+) weeks?, (?P<d>\d+) days?, (?P<h>\d+) hours?, (?P<m>\d+) minutes?", re.ASCII
)
#: ``logcat -v long``: message lines follow the header until an empty one.
_EVENT_READERS = {
    "am_kill": ("am_kill", event_lines.read_am_kill),
    "am_proc_died": ("am_died", event_lines.read_am_died),
}


@attrs.frozen(kw_only=True)
class Note:
    """A line that was understood and is no kill: an event of ActivityManager, something lmkd or the kernel said."""

    shape: str
    line: int
    stamp: Stamp | None
    boot: int
    fields: Mapping[str, int | float | str]


@attrs.frozen(kw_only=True)
class KeptLine:
    """A log line worth keeping in the record: lmkd's, the killers' and the dying's."""

    line: int
    stamp: Stamp | None
    boot: int
    level: str
    tag: str
    text: str


class _Found(Protocol):
    @property
    def stamp(self) -> Stamp | None: ...

    @property
    def boot(self) -> int: ...


@attrs.define
class _Open:
    """A kill whose further lines may still come."""

    kind: str
    shape: str
    line: int
    stamp: Stamp | None
    boot: int
    text: str
    fields: dict[str, int | float | str]
    until: int
    wrapped: int = 0


@attrs.define
class FileScan:
    """What one file says. Line numbers count from 1."""

    name: str = ""
    lines: int = 0
    reports: list[Report] = attrs.field(factory=list)
    unknown: list[UnknownLine] = attrs.field(factory=list)
    notes: list[Note] = attrs.field(factory=list)
    kept: list[KeptLine] = attrs.field(factory=list)
    captures: list[Capture] = attrs.field(factory=list)
    #: How many lines of each known other shape there were.
    others: Counter[str] = attrs.field(factory=Counter)
    #: When the bug report was taken, and how long the device had been up then (to the minute).
    taken: Stamp | None = None
    uptime_ns: int | None = None
    #: The last stamp with a year in it, if any.
    dated: Stamp | None = None
    boots: int = 1

    def stamps(self) -> Iterator[tuple[int, Stamp]]:
        """Every stamp of what was found, with its boot."""
        found: tuple[Sequence[_Found], ...] = (self.reports, self.notes, self.kept, self.captures)
        for item in chain.from_iterable(found):
            if item.stamp is not None:
                yield item.boot, item.stamp

    def counts(self) -> Counter[str]:
        """Reports by kind."""
        return Counter(report.kind for report in self.reports)


class LogScanner:
    """Feed it a file's lines, then ``finish``."""

    def __init__(self, name: str = "", file: int = 0) -> None:
        self.result = FileScan(name=name)
        self._file = file
        self._number = 0
        self._open: _Open | None = None
        self._long: LogLine | None = None
        self._orphan: tuple[Stamp, dict[str, int | float | str], int] | None = None
        self._announced: int | None = None
        self._boot = 0
        self._boot_ns: int | None = None
        self._captures = Captures(self.result.captures)

    def feed(self, raw: str) -> None:
        """One line, with or without its end."""
        self._number += 1
        if self._long is None and self._open is None and not self._captures.busy and not INTEREST.search(raw):
            return
        if self._header(raw):
            return
        line = self._in_long(raw)
        if line is None:
            return
        self._clock(line.stamp)
        if self._captures.take(self._number, line.stamp, self._boot, line.text, line.tag):
            return
        self._classify(raw, line)
        if self._open is not None and self._number >= self._open.until:
            self._close()

    def flush(self) -> None:
        """Nothing more came for a while: a kill whose further lines were awaited is complete."""
        self._close()

    def finish(self) -> FileScan:
        """The result; what was open is closed."""
        self._close()
        self._captures.end_block()
        self.result.lines = self._number
        self.result.boots = self._boot + 1
        return self.result

    def _header(self, raw: str) -> bool:
        if raw.startswith("=="):
            if found := _DUMPSTATE.match(raw):
                wall = WALL.match(found[1])
                self.result.taken = wall_stamp(wall) if wall else None
            elif path := re.match(r"==> (\S+) <==", raw):
                self._captures.section(path[1])
            return True
        if found := _UPTIME.match(raw):
            minutes = ((int(found["w"]) * 7 + int(found["d"])) * 24 + int(found["h"])) * 60 + int(found["m"])
            self.result.uptime_ns = minutes * 60 * NS_PER_S
            return True
        if raw.startswith("------") and (found := _SECTION.match(raw)):
            self._captures.section(f"{found['name']} {found['command'] or ''}")
            if re.search(r"KERNEL|KMSG|RAMOOPS|PSTORE", found["name"]):
                self._new_boot()
            return True
        return False

    def _in_long(self, raw: str) -> LogLine | None:
        """The line, of ``-v long`` with what its header said; None for the header itself."""
        line = parse_line(raw)
        if line.origin == LOGCAT and not line.text and raw.lstrip().startswith("["):
            self._long = line
            return None
        if self._long is not None:
            if not raw.strip() or line.origin != "plain" or line.tag is not None:
                self._long = None
            else:
                return attrs.evolve(self._long, text=raw.rstrip("\r\n"))
        return line

    def _clock(self, stamp: Stamp | None) -> None:
        if stamp is None:
            return
        if not stamp.boot:
            if stamp.dated:
                self.result.dated = stamp
            return
        if self._boot_ns is not None and stamp.ns < self._boot_ns - _BOOT_BACK_NS:
            self._new_boot()
        self._boot_ns = max(stamp.ns, self._boot_ns or 0)

    def _new_boot(self) -> None:
        if self._boot_ns is not None:
            self._boot += 1
        self._boot_ns = None

    def _classify(self, raw: str, line: LogLine) -> None:
        if line.tag is None and line.origin == "plain" and not line.stamp:
            if self._wrapped(raw):
                return
            if embedded := EMBEDDED.search(line.text):
                line = attrs.evolve(line, tag=embedded["tag"], text=embedded["text"])
        tag, text = line.tag or "", line.text
        known = (
            self._event(line, tag, text)
            or self._activity_manager(line, tag, text)
            or self._killer(line, text)
            or self._other(line, tag, text)
        )
        if not known and (why := suspicion(line)):
            self._unknown(line, why)
        if known or tag in lmkd_lines.TAGS:
            self._keep(line)

    def _event(self, line: LogLine, tag: str, text: str) -> bool:
        if tag == "killinfo":
            fields = event_lines.read_killinfo(text)
            return fields is not None and self._report("killinfo", f"I{len(fields)}", line, fields)
        reader = _EVENT_READERS.get(tag)
        if reader is not None:
            fields = reader[1](text)
            return fields is not None and self._report(reader[0], tag, line, fields)
        if tag in event_lines.SIMPLE_EVENTS:
            fields = event_lines.read_simple(tag, text)
            return fields is not None and self._note(tag, line, fields)
        return tag in ("am_proc_start", "am_proc_bound")

    def _activity_manager(self, line: LogLine, tag: str, text: str) -> bool:
        plain = not tag and line.origin == "plain"
        if tag == "ActivityManager" or plain:
            if found := first_match(am_lines.PHANTOM_KILLINGS, text):
                return self._matched("phantom", line, found)
            if found := first_match(am_lines.KILLINGS[:2] if plain else am_lines.KILLINGS, text):
                return self._matched("am_text", line, found)
            if found := first_match(am_lines.DEATHS, text):
                fields = found[1]
                adj = am_lines.adj_of_label(str(fields.get("label", "")), str(fields.get("plus", "")))
                if adj is not None:
                    fields["adj"] = adj
                return self._matched("died", line, found)
        if (tag in am_lines.ZYGOTE_TAGS or plain) and (found := first_match(am_lines.SIGNALS, text)):
            return self._matched("signal", line, found)
        return False

    def _killer(self, line: LogLine, text: str) -> bool:
        if found := first_match(lmkd_lines.KILLS, text):
            return self._begin("lmkd", line, found, text)
        if found := first_match(lmkd_lines.KILL_HEADS, text):
            return self._begin("lmkd", line, found, text)
        if found := first_match(kernel_lines.LMK_HEADS, text):
            return self._begin("klmk", line, found, text)
        if found := first_match(kernel_lines.LMK_KILLS, text):
            fields = found[1]
            fields["rss_kib"] = int(fields.pop("pages")) * 4
            return self._matched("klmk", line, found)
        if found := first_match(kernel_lines.OOM_KILLS, text):
            return self._oom(line, found)
        if found := first_match(kernel_lines.REAPS, text):
            return self._matched("reap", line, found)
        return self._part(line, text)

    def _oom(self, line: LogLine, found: tuple[Wording, dict[str, int | str]]) -> bool:
        """Until Linux 4.20 a child may be killed in place of the process that was announced: one kill, not two."""
        wording, fields = found
        announced, self._announced = self._announced, None
        if wording.shape in kernel_lines.ANNOUNCEMENTS:
            self._announced = len(self.result.reports)
        elif announced is not None:
            known = self.result.reports[announced]
            if known.pid != fields["pid"] and self._number - known.line <= OPEN_LINES_MAX:
                extra = {**known.extra, "announced_pid": known.pid or 0}
                pid = int(fields["pid"])
                self.result.reports[announced] = attrs.evolve(known, pid=pid, name=None, extra=extra)
        return self._matched("oom", line, found)

    def _part(self, line: LogLine, text: str) -> bool:
        """A further line of an open kill."""
        part = first_match(kernel_lines.LMK_PARTS, text)
        if part is not None and self._attach("klmk", line, part[1], None):
            return True
        tail = first_match(lmkd_lines.KILL_TAILS, text)
        if tail is None:
            return False
        return self._attach("lmkd", line, tail[1], tail[0].shape) or self._headless(line, tail[1])

    def _attach(self, kind: str, line: LogLine, fields: Mapping[str, int | str], shape: str | None) -> bool:
        if self._open is None or self._open.kind != kind:
            return False
        self._open.fields.update(fields)
        self._open.text += "\n" + line.text
        self._open.until = self._number + OPEN_LINES_MAX
        if shape is not None:
            self._open.shape = shape
        return True

    def _headless(self, line: LogLine, fields: dict[str, int | str]) -> bool:
        """In a log that runs backwards the second line comes first: it waits for one line."""
        if line.stamp is not None:
            self._orphan = (line.stamp, dict(fields), self._number)
        return False

    def _begin(self, kind: str, line: LogLine, found: tuple[Wording, dict[str, int | str]], text: str) -> bool:
        wording, fields = found
        self._close()
        until = self._number + (OPEN_LINES_MAX if kind == "klmk" or wording.shape == "K1" else WRAPPED_LINES_MAX + 1)
        if kind == "lmkd" and "reason" not in fields and (loose := lmkd_lines.LOOSE_FIELDS["reason"].search(text)):
            fields["reason"] = loose[1]
        self._open = _Open(kind, wording.shape, self._number, line.stamp, self._boot, text, {**fields}, until=until)
        if kind == "klmk":
            rest = text[wording.pattern.match(text).end() :]  # type: ignore[union-attr]  # it has just matched
            for part in kernel_lines.LMK_PARTS:
                if inline := part.pattern.search(rest):
                    self._open.fields.update(part.read(inline.group()) or {})
        orphan = self._orphan
        if kind == "lmkd" and orphan is not None and orphan[0] == line.stamp and orphan[2] == self._number - 1:
            self._open.fields.update(orphan[1])
            self.result.unknown = [u for u in self.result.unknown if u.line != orphan[2]]
        self._orphan = None
        return True

    def _wrapped(self, raw: str) -> bool:
        """Whether the line goes on with a record that somebody wrapped: it must add something to it."""
        pending = self._open
        text = raw.strip()
        if pending is None or pending.kind != "lmkd" or not text or raw[:1] not in " \t(":
            return False
        if pending.wrapped >= WRAPPED_LINES_MAX or self._number != pending.line + pending.wrapped + 1:
            return False
        joined = f"{pending.text.rstrip()} {text}"
        fields = _lmkd_fields(joined)
        if fields is None or not (len(fields[1]) > len(pending.fields) or text.startswith("(")):
            return False
        pending.shape, pending.text = fields[0], joined
        pending.fields = fields[1]
        pending.wrapped += 1
        pending.until = self._number + WRAPPED_LINES_MAX
        return True

    def _close(self) -> None:
        pending, self._open = self._open, None
        if pending is None:
            return
        fields = pending.fields
        if (comm := fields.pop("comm", None)) is not None:
            fields["name"] = comm
        if "reason" in fields and (code := lmkd_lines.reason_code(str(fields["reason"]))) is not None:
            fields["reason_code"] = code
        self._add(
            report_of(pending.kind, pending.shape, pending.line, pending.stamp, pending.text, fields), pending.boot
        )

    def _matched(self, kind: str, line: LogLine, found: tuple[Wording, dict[str, int | str]]) -> bool:
        return self._report(kind, found[0].shape, line, found[1])

    def _report(self, kind: str, shape: str, line: LogLine, fields: Mapping[str, int | float | str]) -> bool:
        values = dict(fields)
        if (comm := values.pop("comm", None)) is not None:
            values["name"] = comm
        self._add(report_of(kind, shape, self._number, line.stamp, line.text, values), self._boot)
        return True

    def _add(self, report: Report, boot: int) -> None:
        self.result.reports.append(attrs.evolve(report, file=self._file, boot=boot))

    def _note(self, shape: str, line: LogLine, fields: Mapping[str, int | float | str]) -> bool:
        self.result.notes.append(
            Note(shape=shape, line=self._number, stamp=line.stamp, boot=self._boot, fields=dict(fields))
        )
        return True

    def _other(self, line: LogLine, tag: str, text: str) -> bool:
        for source in (lmkd_lines.OTHERS if line.origin != KERNEL else (), kernel_lines.OTHERS, am_lines.OTHERS):
            if found := first_match(source, text):
                self.result.others[found[0].shape] += 1
                return True
        opening = lmkd_lines.KILL_OPENING.match(text)
        if opening is None or not (tag in lmkd_lines.TAGS or not tag):
            return False
        # Surely a kill, in words nobody has put into a table: counted as one, and shown as unknown wording.
        fields = _loose_fields(opening)
        self._begin("lmkd", line, (_UNFAMILIAR, {k: v for k, v in fields.items() if not isinstance(v, float)}), text)
        return True

    def _unknown(self, line: LogLine, why: str) -> None:
        self.result.unknown.append(
            UnknownLine(file=self._file, line=self._number, stamp=line.stamp, why=why, text=line.text.strip())
        )

    def _keep(self, line: LogLine) -> None:
        self.result.kept.append(
            KeptLine(
                line=self._number, stamp=line.stamp, boot=self._boot, level=line.level or "I",
                tag=line.tag or line.origin, text=line.text,
            )
        )  # fmt: skip


_UNFAMILIAR = Wording(shape="K?", android="", vendor="", template="{rest}")


def _lmkd_fields(text: str) -> tuple[str, dict[str, int | float | str]] | None:
    found = first_match(lmkd_lines.KILLS, text)
    if found is not None:
        return found[0].shape, dict(found[1])
    opening = lmkd_lines.KILL_OPENING.match(text)
    return None if opening is None else (_UNFAMILIAR.shape, _loose_fields(opening))


def _loose_fields(opening: re.Match[str]) -> dict[str, int | float | str]:
    fields: dict[str, int | float | str] = {
        "verb": opening["verb"], "name": opening["name"], "pid": int(opening["pid"])
    }  # fmt: skip
    for name, pattern in lmkd_lines.LOOSE_FIELDS.items():
        if found := pattern.search(opening["rest"]):
            fields[name] = found[1] if name == "reason" else int(found[1])
    return fields


def scan_lines(lines: Iterable[str], name: str = "", file: int = 0) -> FileScan:
    """Everything one file says."""
    scanner = LogScanner(name, file)
    for raw in lines:
        scanner.feed(raw)
    return scanner.finish()
