"""What stands in front of a kernel message: level, stamp, CPU, task, vendor additions. Never raises."""

from __future__ import annotations

import re

import attrs

from lmk.logs.stamp import NAMED, WALL, Stamp, fraction_ns, wall_stamp
from lmk.units import NS_PER_S, NS_PER_US


@attrs.frozen(kw_only=True)
class KernelText:
    """``text`` keeps its leading blanks: they mark the further lines of a message."""

    text: str
    stamp: Stamp | None = None


#: /dev/kmsg: priority, sequence number, microseconds since boot, flags.
_KMSG = re.compile(r"(?P<prio>\d+),\d+,(?P<us>\d+),[^;]*;", re.ASCII)
#: In the order in which they are tried; any number of them follow each other.
_PARTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("level", re.compile(r"<\d{1,3}>", re.ASCII)),
    ("words", re.compile(r"(?:kern|user|daemon|syslog|auth)\s*:\w+\s*:", re.ASCII)),  # dmesg -x
    ("boot", re.compile(r"\[\s*(?P<s>\d{1,9})\.(?P<f>\d{1,9})(?:@\d+)?(?:\s*<\s*[\d.]+>)?\s*\]", re.ASCII)),
    ("named", re.compile(rf"\[\s*{NAMED.pattern}\s*\]", re.ASCII)),  # dmesg -T
    ("wall", re.compile(rf"\[?{WALL.pattern}\]?(?=\s)", re.ASCII)),  # dmesg --time-format=iso
    # OPLUS: the wall clock in a form of its own.
    ("oplus", re.compile(r"\[(?P<d>\d{8})_(?P<t>\d\d:\d\d:\d\d)\.(?P<f>\d+)\]", re.ASCII)),
    ("caller", re.compile(r"\[\s*[TC]\d+\]", re.ASCII)),  # CONFIG_PRINTK_CALLER
    ("task", re.compile(r"\[\s*\d+:[^\]]{1,40}\]", re.ASCII)),  # Samsung [cpu: comm: pid], MediaTek [pid:comm]
    ("cpu", re.compile(r"[-.~]?\(\d+\)-?|@\d+(?=\s)|\.\(\d+\)", re.ASCII)),
)


#: A stamp in another language, a log collector's label: nobody knows the form, but what follows is the kernel's.
_LABELS = re.compile(
    r"(?:\s*\[[^\]]{1,40}\])+\s+(?=lowmemorykiller: |send sigkill |oom_reaper: |oom-kill:|Out of memory"
    r"|Memory cgroup out of|Killed process |\S.{0,20} invoked oom-killer)"
)


def kernel_prefix(raw: str) -> KernelText | None:
    """None if the line does not begin as kernel messages do."""
    if kmsg := _KMSG.match(raw):
        return KernelText(text=raw[kmsg.end() :], stamp=Stamp(ns=int(kmsg["us"]) * NS_PER_US, boot=True))
    stamp: Stamp | None = None
    at, found_any = 0, False
    while (part := _next_part(raw, at)) is not None:
        name, found = part
        if name in ("cpu", "task") and not found_any:
            break
        found_any, at = True, found.end()
        stamp = stamp or _stamp(name, found)
    if not found_any:
        labels = _LABELS.match(raw)
        return None if labels is None else KernelText(text=raw[labels.end() :])
    text = raw[at:]
    return KernelText(text=text[1:] if text.startswith(" ") else text, stamp=stamp)


def _next_part(raw: str, at: int) -> tuple[str, re.Match[str]] | None:
    start = at
    while start < len(raw) and raw[start] == " ":
        start += 1
    for name, pattern in _PARTS:
        if found := pattern.match(raw, start):
            return name, found
    return None


def _stamp(name: str, found: re.Match[str]) -> Stamp | None:
    if name == "boot":
        return Stamp(ns=int(found["s"]) * NS_PER_S + fraction_ns(found["f"]), boot=True)
    if name in ("named", "wall"):
        return wall_stamp(found)
    return None
