"""What stands around a log message: ``logcat -v`` formats, IDE exports, printk prefixes. One line -> ``LogLine``.

Format names as in logcat's help; docs/import.md lists them. Never raises; a line in no known form is its own text.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs

from lmk.logs.printk import kernel_prefix
from lmk.logs.stamp import NAMED, WALL, Stamp, seconds_stamp, wall_stamp

#: Longer lines are cut: no kill line is anywhere near.
LINE_CHARS_MAX = 4096

KERNEL, LOGCAT, PLAIN = "kernel", "logcat", "plain"


@attrs.frozen(kw_only=True)
class LogLine:
    """``origin``: the kernel's log, logcat, or unknown. ``level`` is one of V D I W E F S or None."""

    text: str
    tag: str | None = None
    stamp: Stamp | None = None
    pid: int | None = None
    level: str | None = None
    origin: str = PLAIN


#: Tags that a line may begin with in excerpts without stamp, pid and level.
KNOWN_TAGS = (
    "lowmemorykiller", "lmkd", "killinfo", "ActivityManager", "Zygote", "libprocessgroup",
    "am_kill", "am_proc_died", "am_proc_start", "am_proc_bound", "am_low_memory", "am_mem_factor", "am_pss",
    "am_meminfo",
)  # fmt: skip
#: Tags of the event buffer by number, as logcat prints them where /system/etc/event-log-tags is not at hand.
EVENT_TAGS = {
    10195355: "killinfo", 30010: "am_proc_bound", 30011: "am_proc_died", 30014: "am_proc_start",
    30017: "am_low_memory", 30023: "am_kill", 30046: "am_meminfo", 30047: "am_pss", 30050: "am_mem_factor",
}  # fmt: skip
_UID = r"(?:(?:\d+|[a-z][\w]*):?)"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
#: Unisoc's platform log id, GitHub's and other runners' own stamps: in front of a whole logcat line.
_OUTER = re.compile(r"(?:[A-Z][0-9A-F]{6}\s+|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6,9}Z\s+)(?=\d)")
#: A quotation mark, a list's bullet, a collector's comma in front of a stamp.
_QUOTED = re.compile(r"\s*[,>|*`\"'#-]+\s*(?=(?:\d{4}-)?\d\d-\d\d \d\d:)", re.ASCII)
_EPOCH = re.compile(r"\s*(?P<seconds>\d{1,10})\.(?P<fraction>\d{3,9})(?=\s+\S)", re.ASCII)
_THREADTIME = re.compile(
    rf"\s+(?:(?P<uid>{_UID})\s+)?(?P<pid>\d+)\s+(?P<tid>\d+)\s+(?P<level>[VDIWEFSA])\s+"
    r"(?P<tag>.*?)\s*:(?: (?P<text>.*))?$",
    re.ASCII,
)
#: crash-utility's logd dump: uid last, no colon.
_NO_COLON = re.compile(
    r"\s+(?P<pid>\d+)\s+(?P<tid>\d+)\s+\d+\s+(?P<level>[VDIWEFSA])\s+(?P<tag>\S+)\s(?P<text>.*)$", re.ASCII
)
#: What people leave when they take the pids out.
_LEVEL_ONLY = re.compile(r"\s+(?P<level>[VDIWEFSA])[ /](?P<tag>[\w.$-]+)\s*:(?: (?P<text>.*))?$", re.ASCII)
_BRIEF = re.compile(
    r"\s*(?P<level>[VDIWEFSA])/(?P<tag>.*?)\s*(?:\(\s*(?:\w+:\s*)?(?P<pid>\d+)\))?:(?: (?P<text>.*))?$", re.ASCII
)
_PROCESS = re.compile(
    r"\s*(?P<level>[VDIWEFSA])\(\s*(?:\w+:\s*)?(?P<pid>\d+)\) (?P<text>.*?)(?:  \((?P<tag>[^()]*)\))?$", re.ASCII
)
_THREAD = re.compile(r"\s*(?P<level>[VDIWEFSA])\(\s*(?P<pid>\d+):\s*(?P<tid>\d+|0x[0-9a-f]+)\) (?P<text>.*)$", re.ASCII)
_STUDIO_OLD = re.compile(
    r"\s+(?P<pid>\d+)-(?P<tid>\d+)/\S+\s+(?P<level>[VDIWEFSA])/(?P<tag>.*?)\s*:(?: (?P<text>.*))?$", re.ASCII
)
_STUDIO = re.compile(
    r"\s+(?P<pid>\d+)-(?P<tid>\d+)\s+(?P<tag>\S.*?)\s{2,}\S+\s+(?P<level>[VDIWEFA])(?:\s{1,2}(?P<text>.*))?$", re.ASCII
)
#: An IDE's table: date, device, level word, pid, tag, message.
_TABLE = re.compile(r"\t[^\t]*\t(?P<level>[A-Z])[a-z]*\t(?P<pid>\d+)\t(?P<tag>[^\t]*)\t(?P<text>.*)$", re.ASCII)
_LONG = re.compile(
    r"\[\s*(?P<stamp>\S+ \S+?)\s+(?:\w+:\s*)?"
    r"(?P<pid>\d+):\s*(?P<tid>\d+|0x[0-9a-f]+)\s+(?P<level>[VDIWEFSA])/(?P<tag>.*?)\s*\]\s*$",
    re.ASCII,
)
_SYSLOG = re.compile(r"\s+(?P<host>\S+)\s+kernel:\s?(?P<text>.*)$")
_BARE = re.compile(rf"\s*(?P<tag>{'|'.join(KNOWN_TAGS)})\s*:(?: (?P<text>.*))?$")
_EVENT_NUMBER = re.compile(r"\[?(\d{4,9})\]?")
_AFTER_STAMP = (_THREADTIME, _BRIEF, _STUDIO_OLD, _TABLE, _STUDIO, _LEVEL_ONLY)


def parse_line(raw: str) -> LogLine:
    """A line without its end. ``long`` format's header comes back with an empty text: the message follows it."""
    raw = raw[:LINE_CHARS_MAX].rstrip("\r\n")
    if "\x1b" in raw:
        raw = _COLOUR.sub("", raw)
    if quoted := _QUOTED.match(raw):
        raw = raw[quoted.end() :]
    first = raw.lstrip()[:1]
    if first.isalnum() and (outer := _OUTER.match(raw)):
        raw = raw[outer.end() :]
        first = raw[:1]
    for attempt in _ATTEMPTS.get("9" if first.isdigit() else first, _DEFAULT):
        line = attempt(raw)
        if line is not None:
            return line
    return LogLine(text=raw)


def _stamped(raw: str) -> LogLine | None:
    wall = WALL.match(raw) or WALL.match(raw.lstrip())
    if wall is not None:
        raw = wall.string
        stamp, end = wall_stamp(wall), wall.end()
    elif epoch := _EPOCH.match(raw):
        stamp, end = seconds_stamp(epoch["seconds"], epoch["fraction"]), epoch.end()
    else:
        return None
    for pattern in _AFTER_STAMP:
        if found := pattern.match(raw, end):
            if pattern is _THREADTIME and " " in found["tag"]:
                found = _without_colon(raw, end) or found
            return _logcat(found, stamp)
    if syslog := _SYSLOG.match(raw, end):
        return _kernel(syslog["text"], stamp)
    if bare := _BARE.match(raw[end:]):
        return _logcat(bare, stamp)
    if found := _without_colon(raw, end):
        return _logcat(found, stamp)
    return LogLine(text=raw[end:], stamp=stamp) if stamp is not None else None


def _without_colon(raw: str, start: int) -> re.Match[str] | None:
    found = _NO_COLON.match(raw, start)
    return found if found is not None and found["tag"] in KNOWN_TAGS else None


def _letter(raw: str) -> LogLine | None:
    for pattern in (_BRIEF, _THREAD, _PROCESS):
        if found := pattern.match(raw):
            return _logcat(found, None)
    if (named := NAMED.match(raw)) and (syslog := _SYSLOG.match(raw, named.end())):
        return _kernel(syslog["text"], wall_stamp(named))
    return _bare(raw) or _printk(raw)


def _bare(raw: str) -> LogLine | None:
    found = _BARE.match(raw)
    return LogLine(text=found["text"] or "", tag=found["tag"]) if found else None


def _bracket(raw: str) -> LogLine | None:
    if (found := _LONG.match(raw)) and (head := parse_line(f"{found['stamp']} 0 0 I x: x")).stamp is not None:
        return attrs.evolve(_logcat(found, head.stamp), text="")
    return _printk(raw)


def _printk(raw: str) -> LogLine | None:
    found = kernel_prefix(raw)
    return None if found is None else LogLine(text=found.text, stamp=found.stamp, origin=KERNEL, tag=None)


def _kernel(text: str, stamp: Stamp | None) -> LogLine:
    inner = kernel_prefix(text)
    if inner is None:
        return LogLine(text=text, stamp=stamp, origin=KERNEL)
    return LogLine(text=inner.text, stamp=stamp or inner.stamp, origin=KERNEL)


def _logcat(found: re.Match[str], stamp: Stamp | None) -> LogLine:
    parts = found.groupdict()
    tag, text = parts.get("tag"), parts.get("text") or ""
    pid = int(parts["pid"]) if parts.get("pid") else None
    if number := _EVENT_NUMBER.fullmatch(tag or ""):
        tag = EVENT_TAGS.get(int(number[1]), tag)
    # logd hands the kernel's log on under pid 0; a message's further lines have an empty tag there.
    origin = KERNEL if pid == 0 else LOGCAT
    if origin == KERNEL:
        inner = kernel_prefix(f"{tag}: {text}" if tag and tag.startswith(("[", "<")) else text)
        if inner is not None:
            text = inner.text
    return LogLine(text=text, tag=tag or None, stamp=stamp, pid=pid, level=parts.get("level"), origin=origin)


_Attempt = Callable[[str], LogLine | None]
_DEFAULT: tuple[_Attempt, ...] = (_letter,)
_ATTEMPTS: dict[str, tuple[_Attempt, ...]] = {"9": (_stamped, _printk), "[": (_bracket,), "<": (_printk,)}
