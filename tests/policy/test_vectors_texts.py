"""Recorded kernel texts, mangled: the quick parsers must read what lmkd's slow ones read.

Empty lines mean nothing to lmkd but are nothing a kernel prints, so a text that begins with one takes the slow way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.policy.lmkd.kernel_text import parse_pairs, parse_stat_faults, parse_statm_rss
from lmk.policy.lmkd.versions import behaviour
from lmk.policy.lmkd.watermark import parse_zones, sum_watermarks
from lmk.replay.vectors import find_files, read_scenarios

SUBSET = Path(__file__).resolve().parents[1] / "data" / "vectors"
WANTED = {
    "/proc/meminfo": {"MemFree:": 0, "SwapFree:": 1, "Inactive(file):": 2, "CmaFree:": 3},
    "/proc/vmstat": {"nr_inactive_file": 0, "pgscan_kswapd": 1, "workingset_refault_file": 2, "pgrefill": 3},
}
PIECES = (
    *("\t", "\n", " ", "\r", "\0", "-", "+", "0", "x", "1.5", ",", "(", ")", "é", "9" * 25, "0x5", "010", "kB"),
    *("min", "present", "nr_active_file", "pagesets\n", "  per-node stats\n", "Node 1, zone DMA\n"),
)


@cache
def recorded(name: str) -> list[str]:
    """The distinct texts of one kernel file."""
    texts = {
        step[name]
        for path in find_files([SUBSET])
        for scenario in read_scenarios(path)
        for step in scenario.script.get("raw", ())
        if name in step
    }
    return sorted(texts)


def insert(text: str, at: float, piece: str) -> str:
    where = int(at * len(text))
    return text[:where] + piece + text[where:]


def replace(text: str, at: float, piece: str) -> str:
    where = int(at * len(text))
    return text[:where] + piece + text[where + 1 :]


def cut(text: str, at: float, _: str) -> str:
    return text[: int(at * len(text))]


def repeat_line(text: str, at: float, piece: str) -> str:
    """One line again further up, with another word in place of its number."""
    lines = text.split("\n")
    words = lines[int(at * len(lines))].split(" ")
    return "\n".join([lines[0], " ".join([*words[:-1], piece]), *lines[1:]])


def drop_line(text: str, at: float, _: str) -> str:
    lines = text.split("\n")
    del lines[int(at * len(lines))]
    return "\n".join(lines)


def swap_lines(text: str, at: float, _: str) -> str:
    lines = text.split("\n")
    where = int(at * (len(lines) - 1))
    lines[where : where + 2] = reversed(lines[where : where + 2])
    return "\n".join(lines)


Mangle = Callable[[str, float, str], str]
mangling = st.lists(
    st.tuples(
        st.sampled_from([insert, replace, cut, repeat_line, drop_line, swap_lines]),
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(PIECES),
    ),
    max_size=3,
)


def mangled(text: str, steps: list[tuple[Mangle, float, str]]) -> str:
    for change, at, piece in steps:
        if text:
            text = change(text, at, piece)
    return text


@pytest.mark.parametrize("name", list(WANTED))
@settings(max_examples=400, deadline=None)
@given(pick=st.integers(0), steps=mangling)
def test_pairs(name: str, pick: int, steps: list[tuple[Mangle, float, str]]) -> None:
    texts, wanted = recorded(name), WANTED[name]
    text = mangled(texts[pick % len(texts)], steps)
    assert parse_pairs(text, wanted, 4) == parse_pairs("\n" + text, wanted, 4)


@pytest.mark.parametrize("tag", ["11Q3", "14Q2", "15Q2", "fork-2023-12"])
@settings(max_examples=400, deadline=None)
@given(pick=st.integers(0), steps=mangling)
def test_zones(tag: str, pick: int, steps: list[tuple[Mangle, float, str]]) -> None:
    texts = recorded("/proc/zoneinfo")
    text = mangled(texts[pick % len(texts)], steps)
    quick, slow = parse_zones(text, behaviour(tag)), parse_zones("\n" + text, behaviour(tag))
    assert (quick is None) == (slow is None)
    if quick is not None and slow is not None:
        assert sum_watermarks(quick, quick) == sum_watermarks(slow, slow)


def test_no_number_is_split_in_two() -> None:
    """As sscanf reads: a field that is missing is missing, not the last digits of the one before."""
    assert parse_statm_rss("12345") == 0
    fields = "7 (x) S 1 1 0 0 -1 0 5 0 6 0 1 1 0 0 10 -10 21 0 99"
    assert parse_stat_faults(fields) == (5, 6, 99)
    assert parse_stat_faults(fields.rsplit(" ", 1)[0]) is None
