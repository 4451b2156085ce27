"""Kernel text as lmkd reads it, quirks included (reference: sections 4.1 and 4.4).

These parsers copy the C++ ones token for token: ``strtok`` on blanks only, ``strtoll`` with trailing
junk and saturation, ``sscanf``. For anything but lmkd use ``lmk.procfs``. None of them ever raises.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence

from lmk.procfs.psi import Pressure
from lmk.units import c_int32

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1

_DECIMAL = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)", re.ASCII)
_ANY_BASE = re.compile(r"[ \t\n\v\f\r]*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", re.ASCII)


def c_string(text: str) -> str:
    """What C sees of a buffer: everything up to the first NUL."""
    end = text.find("\0")
    return text if end < 0 else text[:end]


def parse_int64(text: str) -> int | None:
    """``strtoll`` in base 10: leading white space and trailing junk are ignored, overflow saturates."""
    if text.isdecimal() and len(text) < 19 and text.isascii():
        return int(text)
    match = _DECIMAL.match(text)
    if match is None:
        return None
    digits = match.group(1)
    if len(digits) > 24:  # int() of a huge text is slow and may refuse
        return INT64_MIN if digits[0] == "-" else INT64_MAX if digits.strip("+0") else 0
    return min(max(int(digits), INT64_MIN), INT64_MAX)


def parse_any_base(text: str) -> int:
    """``strtoll`` in base 0; 0 when there is no number."""
    match = _ANY_BASE.match(text)
    if match is None:
        return 0
    sign, digits = match.groups()
    digits = digits[:40]
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10
    number = int(digits, base)
    return min(max(-number if sign == "-" else number, INT64_MIN), INT64_MAX)


def blank_tokens(line: str) -> list[str]:
    """``strtok`` with a blank as the only delimiter."""
    return [token for token in line.split(" ") if token]


def nonempty_lines(text: str) -> list[str]:
    """``strtok`` with newline: empty lines vanish."""
    return [line for line in c_string(text).split("\n") if line]


def parse_pairs(text: str, wanted: Mapping[str, int], size: int) -> list[int] | None:
    """``name number`` lines into an array; a name that is missing leaves 0, the last of several wins.

    None where a line has fewer than two tokens or a wanted name has no number: lmkd then gives up on
    the whole file.
    """
    fast = _fast_pairs(text, wanted, size)
    return _slow_pairs(text, wanted, size) if fast is None else fast


def _slow_pairs(text: str, wanted: Mapping[str, int], size: int) -> list[int] | None:
    """Line by line, token by token."""
    numbers = [0] * size
    for line in nonempty_lines(text):
        tokens = blank_tokens(line)
        if len(tokens) < 2:
            return None
        index = wanted.get(tokens[0])
        if index is not None:
            number = parse_int64(tokens[1])
            if number is None:
                return None
            numbers[index] = number
    return numbers


#: White space that ``str.split`` knows but lmkd's ``strtok`` does not take for a delimiter, and NUL.
_ODD_CHARACTERS = ("\t", "\r", "\v", "\f", "\0", "\x1c", "\x1d", "\x1e", "\x1f")


def _fast_pairs(text: str, wanted: Mapping[str, int], size: int) -> list[int] | None:
    """``parse_pairs`` for text as kernels print it; None for anything else, which the slow way then reads."""
    if not text.isascii() or text[-1:] != "\n":
        return None
    for character in _ODD_CHARACTERS:
        if character in text:
            return None
    lines = text[:-1].split("\n")
    try:
        # dict() refuses a line that has not two words.
        words = dict([line.split(None, 2)[:2] for line in lines])
    except ValueError:
        return None
    if len(words) != len(lines):
        return None  # a name occurs twice
    numbers = [0] * size
    for name, index in wanted.items():
        number = words.get(name)
        if number is not None:
            if not number.isdecimal() or len(number) > 18:
                return None
            numbers[index] = int(number)
    return numbers


# ---- /proc/pid


def parse_status_tag(status: str, tag: str) -> int | None:
    """The number after a tag (with its colon) at the start of a line; the first such line counts."""
    start = status.find("\n" + tag) + 1
    if start == 0 or status.startswith(tag):
        if not status.startswith(tag):
            return None
        start = 0
    match = _DECIMAL.match(status, start + len(tag))
    if match is None:
        return None
    digits = match.group(1)
    return int(digits) if len(digits) < 19 else parse_int64(digits)


_STATM = re.compile(r"[ \t\n\v\f\r]*+[+-]?[0-9]++[ \t\n\v\f\r]*+([+-]?[0-9]++)", re.ASCII)


_STATM_PLAIN = re.compile(r"[0-9]{1,9} ([0-9]{1,9}) ", re.ASCII)


def parse_statm_sizes(texts: Sequence[str]) -> list[int]:
    """``parse_statm_rss`` of many. TypeError when one is not text as kernels print it."""
    match = _STATM_PLAIN.match
    return [int(match(text)[1]) for text in texts]  # type: ignore[index]


def parse_statm_rss(statm: str) -> int:
    """Resident pages by ``sscanf("%d %d ")``; 0 when there is no second number."""
    match = _STATM.match(c_string(statm))
    return c_int32(parse_int64(match.group(1)) or 0) if match else 0


# Possessive: sscanf never gives characters back.
_STAT = re.compile(
    r"\s*+[+-]?\d++\s*+\S++\s*+\S++"
    + r"\s*+[+-]?\d++" * 6
    + r"\s*+([+-]?\d++)\s*+[+-]?\d++\s*+([+-]?\d++)"
    + r"\s*+[+-]?\d++" * 9
    + r"\s*+([+-]?\d++)",
    re.ASCII,
)


def parse_stat_faults(stat: str) -> tuple[int, int, int] | None:
    """Minor faults, major faults and start time in ticks of ``/proc/<pid>/stat``, by lmkd's ``sscanf``:
    a process name with a blank breaks it (None)."""
    match = _STAT.match(c_string(stat))
    if match is None:
        return None
    minor, major, start = (parse_int64(group) or 0 for group in match.groups())
    return minor, major, start


def task_name(cmdline: str) -> str:
    """Name of a process from ``cmdline``: up to the first NUL or blank."""
    return c_string(cmdline).partition(" ")[0]


# ---- /proc/pressure

_FLOAT = r"\s*([+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|inf(?:inity)?|nan))"
_PSI_STEPS = tuple(
    re.compile(pattern, re.ASCII | re.IGNORECASE)
    for pattern in (r"\s*(\S{1,4})", r"\s*avg10=" + _FLOAT, r"\s*avg60=" + _FLOAT, r"\s*avg300=" + _FLOAT)
)
_PSI_TOTAL = re.compile(r"\s*total=\s*[+-]?\d", re.ASCII)
_PSI_ROW = re.compile(
    r"(some|full) avg10=(\d{1,9}\.\d\d) avg60=\d{1,9}\.\d\d avg300=\d{1,9}\.\d\d total=\d{1,18}", re.ASCII
)

_F32 = struct.Struct("f")


def float32(number: float) -> float:
    """Rounded to the nearest C ``float``."""
    try:
        return float(_F32.unpack(_F32.pack(number))[0])
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def parse_psi_row(line: str, kind: str) -> tuple[bool, float | None]:
    """One row by lmkd's ``sscanf``: did it parse, and avg10 if that much was assigned (even if not)."""
    match = _PSI_ROW.fullmatch(line)
    if match is not None:
        return match.group(1) == kind, float32(float(match.group(2)))
    at, found = 0, []
    for step in _PSI_STEPS:
        match = step.match(line, at)
        if match is None:
            break
        found.append(match.group(1))
        at = match.end()
    avg10 = float32(float(found[1])) if len(found) > 1 else None
    complete = len(found) == len(_PSI_STEPS) and _PSI_TOTAL.match(line, at) is not None
    return complete and found[0] == kind, avg10


def parse_psi(answer: str | Pressure, full: bool, into: list[float]) -> bool:
    """avg10 of the rows ``some`` and (``full``) ``full`` into a list of two. Numbers that were read before
    something turned out wrong stay in the list, as in lmkd. False: the file did not parse."""
    if isinstance(answer, Pressure):
        into[0] = float32(answer.some.avg10_pct)
        if full and answer.full is not None:
            into[1] = float32(answer.full.avg10_pct)
        return not full or answer.full is not None
    lines = nonempty_lines(answer)
    for index, kind in enumerate(("some", "full")[: 2 if full else 1]):
        if index >= len(lines):
            return False
        parsed, avg10 = parse_psi_row(lines[index], kind)
        if avg10 is not None:
            into[index] = avg10
        if not parsed:
            return False
    return True
