"""Time stamps as logs write them, before anybody knows the year, the time zone or when the device booted."""

from __future__ import annotations

import re
from datetime import date
from functools import cache

import attrs

from lmk.units import NS_PER_S

_DAY_S = 86_400
_EPOCH = date(1970, 1, 1).toordinal()

#: ``10-05 14:55:06.670``, with a year, ``T``, up to nanoseconds, a zone.
WALL = re.compile(
    r"(?:(?P<year>\d{4})[-/])?(?P<month>\d\d)[-/](?P<day>\d\d)[ T](?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
    r"(?:[.,](?P<fraction>\d{1,9}))?(?: ?(?P<zone>[+-]\d\d:?\d\d|Z)(?=\s|$))?",
    re.ASCII,
)
#: ``[Sat Jun  8 01:41:08 2024`` (dmesg -T) and syslog's ``Dec  4 10:20:39``.
NAMED = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?(?P<name>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +(?P<day>\d{1,2}) "
    r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?(?: (?P<year>\d{4}))?",
    re.ASCII,
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: Seconds since the epoch below this are seconds since boot (31 years of uptime).
_BOOT_S_MAX = 1_000_000_000


@attrs.frozen(kw_only=True)
class Stamp:
    """``ns`` counts from the epoch; from 1 January of an unknown year (``dated`` False); or from boot (``boot``).

    The device's local time counts as if it were UTC unless the log names its zone.
    """

    ns: int
    dated: bool = True
    boot: bool = False


def wall_stamp(found: re.Match[str]) -> Stamp | None:
    """Of a match of WALL or NAMED; None if there is no such day or time."""
    parts = found.groupdict()
    month = _MONTHS.index(parts["name"]) + 1 if parts.get("name") else int(parts["month"])
    year = int(parts["year"]) if parts["year"] else None
    # A leap year stands in, so that 29 February is a day.
    days = _days(year if year is not None else 2000, month, int(parts["day"]))
    hour, minute, second = int(parts["hour"]), int(parts["minute"]), int(parts["second"])
    if days is None or hour > 23 or minute > 59 or second > 60:
        return None
    if year is None:
        days -= _days(2000, 1, 1) or 0
    seconds = days * _DAY_S + hour * 3600 + minute * 60 + second - _zone_s(parts.get("zone"))
    return Stamp(ns=seconds * NS_PER_S + fraction_ns(parts["fraction"]), dated=year is not None)


def seconds_stamp(seconds: str, fraction: str | None) -> Stamp:
    """``logcat -v epoch`` and ``-v monotonic`` look the same; the size says which it is."""
    whole = int(seconds)
    return Stamp(ns=whole * NS_PER_S + fraction_ns(fraction), boot=whole < _BOOT_S_MAX)


def in_year(stamp: Stamp, anchor_ns: int) -> int:
    """Nanoseconds since the epoch of a stamp without a year: the last such moment up to a day after the anchor."""
    if stamp.dated:
        return stamp.ns
    limit_ns = anchor_ns + _DAY_S * NS_PER_S
    year = date.fromordinal(max(1, limit_ns // NS_PER_S // _DAY_S + _EPOCH)).year
    days, rest_ns = divmod(stamp.ns, _DAY_S * NS_PER_S)
    leap_day = date.fromordinal(date(2000, 1, 1).toordinal() + days)
    for candidate in range(year, year - 9, -1):
        base = _days(candidate, leap_day.month, leap_day.day)
        if base is not None and (found_ns := base * _DAY_S * NS_PER_S + rest_ns) <= limit_ns:
            return found_ns
    return stamp.ns


def fraction_ns(text: str | None) -> int:
    """``670`` after the decimal point as nanoseconds."""
    return int((text or "0").ljust(9, "0")[:9])


@cache
def _days(year: int, month: int, day: int) -> int | None:
    try:
        return date(year, month, day).toordinal() - _EPOCH
    except ValueError:
        return None


def _zone_s(text: str | None) -> int:
    if not text or text == "Z":
        return 0
    digits = text[1:].replace(":", "")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return -seconds if text[0] == "-" else seconds
