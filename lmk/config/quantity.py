"""Sizes, times, rates and shares as a user writes them: ``2GiB``, ``700ms``, ``2MiB/min``, ``75%``.

Arithmetic is exact: what is not a whole number of bytes or of the asked-for time unit is an error, never
rounded. Binary and decimal units are kept apart (1 MB = 1 000 000 B, 1 MiB = 1 048 576 B); a number without
unit is an error, because every guess about it would be wrong for somebody. ``format_*`` gives a text that
parses back to the same value.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

import attrs

SIZE_UNITS: Final = {
    "B": 1,
    "kB": 1000,
    "KiB": 1024,
    "MB": 1000**2,
    "MiB": 1024**2,
    "GB": 1000**3,
    "GiB": 1024**3,
    "TB": 1000**4,
    "TiB": 1024**4,
}
#: In nanoseconds.
TIME_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
}
#: What follows the slash of a rate.
PER_UNITS: Final = ("s", "min", "h")

_NUMBER_AND_UNIT: Final = re.compile(r"\s*([+-]?[0-9]+(?:\.[0-9]+)?)\s*([^\s0-9.+-][^\s]*)?\s*", re.ASCII)
#: In characters; nobody writes longer ones on purpose, and int() refuses thousands of digits.
_LONGEST: Final = 48
#: Spellings people use, and what they most likely mean; suggestions only, never accepted.
_MEANT: Final = {
    "b": "B", "byte": "B", "bytes": "B",
    "k": "KiB", "kb": "kB", "kib": "KiB", "ki": "KiB",
    "m": "MiB", "mb": "MB", "mib": "MiB", "mi": "MiB",
    "g": "GiB", "gb": "GB", "gib": "GiB", "gi": "GiB",
    "t": "TiB", "tb": "TB", "tib": "TiB", "ti": "TiB",
    "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "msec": "ms", "millis": "ms", "usec": "us",
    "mins": "min", "minute": "min", "minutes": "min",
    "hour": "h", "hours": "h", "hr": "h",
    "percent": "%", "pct": "%",
}  # fmt: skip


class InvalidValue(ValueError):  # noqa: N818 - it describes the value; the located error is ConfigError
    """A value that cannot be used: ``cause`` says what was found and what is allowed, ``hint`` the remedy."""

    def __init__(self, cause: str, hint: str = "") -> None:
        super().__init__(f"{cause}; {hint}" if hint else cause)
        self.cause, self.hint = cause, hint


@attrs.frozen(kw_only=True)
class ByteRate:
    """Bytes per span of time, kept exact: ``2MiB/min`` is 2 097 152 bytes in 60 000 ms."""

    amount_bytes: int
    per_ms: int

    @property
    def bytes_per_s(self) -> int:
        """Rounded down."""
        return self.amount_bytes * 1000 // self.per_ms

    def bytes_in(self, span_ms: int) -> int:
        """Bytes that flow in ``span_ms`` milliseconds, rounded down."""
        return self.amount_bytes * span_ms // self.per_ms


def parse_bytes(text: str) -> int:
    """``"2GiB"`` -> 2147483648. Raises InvalidValue; sizes are whole and never negative."""
    number, unit = _split(text, "a size", "2GiB or 350MB")
    if unit not in SIZE_UNITS:
        raise _wrong_unit(text, number, unit, "a size", tuple(SIZE_UNITS))
    return _whole(text, number * SIZE_UNITS[unit], "bytes", "a size")


def parse_duration_ns(text: str) -> int:
    """``"700ms"`` -> 700000000. Raises InvalidValue; times are whole nanoseconds, never negative."""
    number, unit = _split(text, "a time", "700ms or 5s")
    if unit not in TIME_UNITS:
        raise _wrong_unit(text, number, unit, "a time", tuple(TIME_UNITS))
    return _whole(text, number * TIME_UNITS[unit], "nanoseconds", "a time")


def parse_duration_ms(text: str) -> int:
    """``"1.5s"`` -> 1500. Raises InvalidValue where the time is not a whole number of milliseconds."""
    return _whole(text, Fraction(parse_duration_ns(text), TIME_UNITS["ms"]), "milliseconds", "a time")


def parse_rate(text: str) -> ByteRate:
    """``"2MiB/min"`` -> ByteRate(2097152 bytes per 60000 ms). Raises InvalidValue."""
    amount, slash, per = text.partition("/")
    if not slash:
        raise InvalidValue(f"found {text!r}, expected a size per time such as 250MB/s or 2MiB/min")
    per = per.strip()
    if per not in PER_UNITS:
        meant = _MEANT.get(per.lower(), "s")
        hint = f"did you mean {amount.strip()}/{meant if meant in PER_UNITS else 's'}?"
        raise InvalidValue(f"found {text!r}, a rate is per {', '.join(PER_UNITS)}", hint)
    return ByteRate(amount_bytes=parse_bytes(amount), per_ms=TIME_UNITS[per] // TIME_UNITS["ms"])


def parse_percent(text: str) -> Fraction:
    """``"75%"`` -> 75, ``"12.5%"`` -> 25/2. Raises InvalidValue; below zero is refused, above 100 is not."""
    number, unit = _split(text, "a share", "75%")
    if unit != "%":
        raise _wrong_unit(text, number, unit, "a share", ("%",))
    if number < 0:
        raise InvalidValue(f"found {text!r}, a share cannot be negative")
    return number


def parse_bytes_or_percent(text: str, whole_bytes: int) -> int:
    """A size, or a share of ``whole_bytes`` rounded down to bytes: ``"75%"`` of 2 GiB is 1.5 GiB."""
    if text.strip().endswith("%"):
        return int(whole_bytes * parse_percent(text) / 100)
    return parse_bytes(text)


def format_bytes(size_bytes: int) -> str:
    """Shortest exact spelling, binary before decimal: 1572864 -> ``1536KiB``, 350000000 -> ``350MB``."""
    return _format(size_bytes, ("TiB", "GiB", "MiB", "KiB", "TB", "GB", "MB", "kB", "B"), SIZE_UNITS)


def format_duration_ms(span_ms: int) -> str:
    """Shortest exact spelling: 90000 -> ``90s``, 120000 -> ``2min``."""
    return _format(span_ms * TIME_UNITS["ms"], ("h", "min", "s", "ms"), TIME_UNITS)


def format_rate(rate: ByteRate) -> str:
    """``250MB/s``; the span of ``rate`` must be one of PER_UNITS, which every parsed rate's is."""
    per = next(unit for unit in PER_UNITS if TIME_UNITS[unit] == rate.per_ms * TIME_UNITS["ms"])
    return f"{format_bytes(rate.amount_bytes)}/{per}"


def _format(value: int, units: tuple[str, ...], table: dict[str, int]) -> str:
    exact = [f"{value // table[unit]}{unit}" for unit in units if value % table[unit] == 0]
    return min(exact, key=len)


def _split(text: str, kind: str, example: str) -> tuple[Fraction, str]:
    match = _NUMBER_AND_UNIT.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise InvalidValue(f"found {text!r}, expected {kind} such as {example}")
    if match[2] is None:
        raise InvalidValue(f"found {text!r} without a unit, expected {kind} such as {example}")
    return Fraction(match[1]), match[2]


def _wrong_unit(text: str, number: Fraction, unit: str, kind: str, allowed: tuple[str, ...]) -> InvalidValue:
    other = _kind_of(unit)
    if other is not None and other != kind:
        return InvalidValue(f"found {text!r}, which is {other}, expected {kind} in {', '.join(allowed)}")
    meant = _MEANT.get(unit.lower())
    if meant in allowed:
        written = str(number.numerator) if number.denominator == 1 else str(float(number))
        return InvalidValue(f"found {text!r}, {unit!r} is no unit", f"did you mean {written}{meant}?")
    return InvalidValue(f"found {text!r}, {unit!r} is no unit of {kind}", f"allowed: {', '.join(allowed)}")


def _kind_of(unit: str) -> str | None:
    if unit in SIZE_UNITS:
        return "a size"
    if unit in TIME_UNITS:
        return "a time"
    if unit == "%":
        return "a share"
    return "a rate" if unit.partition("/")[0] in SIZE_UNITS and "/" in unit else None


def _whole(text: str, value: Fraction, unit: str, kind: str) -> int:
    if value < 0:
        raise InvalidValue(f"found {text!r}, {kind} cannot be negative")
    if value.denominator != 1:
        raise InvalidValue(f"found {text!r}, which is not a whole number of {unit}")
    return value.numerator
