"""lmkd's way of reading kernel text: quirks, the fast path, and values instead of text."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.policy.lmkd import kernel_text, watermark
from lmk.policy.lmkd.kernel_text import (
    INT64_MAX,
    INT64_MIN,
    parse_int64,
    parse_pairs,
    parse_psi,
    parse_stat_faults,
    parse_statm_rss,
    parse_statm_sizes,
    parse_status_tag,
    task_name,
)
from lmk.policy.lmkd.versions import TAGS, behaviour
from lmk.policy.lmkd.watermark import HIGH, LOW, MIN, NONE, Watermarks, ZoneMarks, parse_watermarks, parse_zones
from lmk.procfs.psi import parse_pressure
from lmk.procfs.zoneinfo import Zone, Zoneinfo, parse_zoneinfo

FIELDS = {"a_counter": 0, "b_counter": 1}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("12", 12), ("  -7x", -7), ("+3", 3), ("007", 7), ("0x10", 0), ("", None), ("kB", None), ("-", None)),
        *(("99999999999999999999", INT64_MAX), ("-99999999999999999999", INT64_MIN), ("9" * 5000, INT64_MAX)),
        *(("0" * 5000 + "1", INT64_MAX), ("\t5", 5), ("١٢", None), ("5\n6", 5)),
    ],
)
def test_strtoll(text: str, number: int | None) -> None:
    assert parse_int64(text) == number


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("a_counter 5\nb_counter 6\n", [5, 6]),
        ("b_counter   6 kB\n\n\na_counter 5", [5, 6]),
        ("a_counter 5\na_counter 7\n", [7, 0]),
        ("other 1\n", [0, 0]),
        ("", [0, 0]),
        ("a_counter 5\nalone\n", None),
        ("a_counter 5\n  \n", None),
        ("a_counter x\n", None),
        ("a_counter x\na_counter 5\n", None),
        ("other x\na_counter 1\n", [1, 0]),
        ("a_counter 12kB\n", [12, 0]),
        ("a_counter\t5 6\n", [0, 0]),
        ("a_counter 5\0\nalone\n", [5, 0]),
    ],
)
def test_pairs(text: str, numbers: list[int] | None) -> None:
    assert parse_pairs(text, FIELDS, 2) == numbers


LINE = st.lists(
    st.sampled_from(["a_counter", "b_counter", "5", "77 ", "", "x", "\t", "6kB", "18446744073709551616"])
).map(" ".join)


@given(st.lists(LINE).map("\n".join), st.sampled_from(["", "\n"]))
def test_the_fast_path_agrees_with_the_slow_one(text: str, end: str) -> None:
    fast = kernel_text._fast_pairs(text + end, FIELDS, 2)
    if fast is not None:
        assert fast == kernel_text._slow_pairs(text + end, FIELDS, 2)


def test_status_tags_count_only_at_the_start_of_a_line() -> None:
    status = "Name:\tTgid: 5\nxTgid:\t6\nTgid:\t42\nTgid:\t43\nVmRSS:\t    5 kB\n"
    assert parse_status_tag(status, "Tgid:") == 42
    assert parse_status_tag(status, "VmRSS:") == 5
    assert parse_status_tag(status, "VmSwap:") is None
    assert parse_status_tag("Tgid:\t7", "Tgid:") == 7


@pytest.mark.parametrize(
    ("text", "pages"),
    [("9 77 3 1\n", 77), ("9 77", 77), ("9\t77 ", 77), ("x 5", 0), ("9", 0), ("", 0), ("99", 0), ("9 -4 ", -4)],
)
def test_statm(text: str, pages: int) -> None:
    assert parse_statm_rss(text) == pages
    try:
        assert parse_statm_sizes([text, "1 2 3\n"]) == [pages, 2]
    except TypeError:
        assert text != "9 77 3 1\n"


def test_stat() -> None:
    fields = " ".join(str(number) for number in range(4, 30))
    assert parse_stat_faults(f"7 (name) S {fields}") == (10, 12, 22)
    assert parse_stat_faults(f"7 (a name) S {fields}") is None
    assert parse_stat_faults("7 (name) S 1") is None
    assert parse_stat_faults("7 (name) S 11111111111111 22222222222222") is None


@pytest.mark.parametrize(("text", "name"), [("a b\0", "a"), ("a.b:c\0arg\0", "a.b:c"), ("", ""), (" x", "")])
def test_task_name(text: str, name: str) -> None:
    assert task_name(text) == name


@pytest.mark.parametrize(
    ("text", "full", "parsed", "numbers"),
    [
        (
            "some avg10=1.50 avg60=2 avg300=3 total=4\nfull avg10=0.25 avg60=2 avg300=3 total=4\n",
            True,
            True,
            [1.5, 0.25],
        ),
        ("some avg10=1.50 avg60=2.00 avg300=3.00 total=4\n", True, False, [1.5, 0.0]),
        ("some avg10=1.50 avg60=2.00 avg300=3.00 total=4\n", False, True, [1.5, 0.0]),
        ("full avg10=1.50 avg60=2.00 avg300=3.00 total=4\n", False, False, [1.5, 0.0]),
        ("some avg10=1.50 avg60=x\n", False, False, [1.5, 0.0]),
        ("some avg10=x\n", False, False, [0.0, 0.0]),
        ("something avg10=1.50 avg60=2.00 avg300=3.00 total=4\n", False, False, [0.0, 0.0]),
        ("", False, False, [0.0, 0.0]),
    ],
)
def test_pressure(text: str, full: bool, parsed: bool, numbers: list[float]) -> None:
    into = [0.0, 0.0]
    assert parse_psi(text, full, into) == parsed
    assert into == numbers


@given(st.floats(0, 100), st.floats(0, 100))
def test_pressure_from_values_is_pressure_from_text(some: float, full: float) -> None:
    text = "".join(
        f"{kind} avg10={share:.2f} avg60=1.00 avg300=0.50 total=9\n" for kind, share in (("some", some), ("full", full))
    )
    from_text, from_value = [0.0, 0.0], [0.0, 0.0]
    value = parse_pressure(text)
    assert value is not None
    assert parse_psi(text, True, from_text) and parse_psi(value, True, from_value)
    assert from_text == from_value


# ---- zoneinfo


def rendered(info: Zoneinfo, *, zone_format: str = "6.1") -> str:
    """As the kernel prints it."""
    text = ""
    for zone in info.zones:
        get = zone.fields.get
        text += f"Node {zone.node}, zone {zone.name:>8}\n"
        if zone.node_stats is not None:
            text += "  per-node stats\n"
            text += "".join(f"      {name:<12} {number}\n" for name, number in zone.node_stats.items())
        text += f"  pages free     {get('nr_free_pages', 0)}\n"
        if zone_format == "6.1":
            text += "        boost    0\n"
        for name in ("min", "low", "high"):
            text += f"        {name:<8} {get(name, 0)}\n"
        text += f"        spanned  {get('present', 0)}\n        present  {get('present', 0)}\n        managed  5\n"
        text += f"        protection: ({', '.join(map(str, zone.protection))})\n"
        if not get("present", 0):
            continue
        text += f"      nr_free_pages {get('nr_free_pages', 0)}\n      nr_zspages   0\n"
        text += f"      nr_free_cma  {get('nr_free_cma', 0)}\n  pagesets\n    cpu: 0\n              count: 5\n"
    return text


numbers = st.integers(0, 10**7)
ZONE_NAMES = ("DMA", "DMA32", "Normal", "HighMem", "Movable")


@st.composite
def zoneinfos(draw: st.DrawFn) -> Zoneinfo:
    zones = []
    for node in range(draw(st.integers(1, 3))):
        stats: dict[str, int] | None = {
            "nr_stat_a": 1,
            "nr_inactive_file": draw(numbers),
            "nr_active_file": draw(numbers),
        }
        if draw(st.booleans()) and stats is not None:
            stats["workingset_refault"] = 3
        for name in draw(
            st.lists(st.sampled_from(["DMA", "DMA32", "Normal", "HighMem", "Movable"]), min_size=1, unique=True)
        ):
            fields = {key: draw(numbers) for key in ("min", "low", "high", "nr_free_pages", "nr_free_cma")}
            fields["present"] = draw(st.sampled_from([0, 1, 5000, 10**6]))
            own, stats = (stats, None) if fields["present"] else (None, stats)
            protection = tuple(draw(st.lists(numbers, min_size=1, max_size=7)))
            zones.append(Zone(node=node, name=name, fields=fields, protection=protection, node_stats=own))
    return Zoneinfo(zones=tuple(zones))


@settings(max_examples=300, deadline=None)
@given(zoneinfos(), st.sampled_from([*TAGS, "fork-2023-12"]), st.sampled_from(["5.10", "6.1"]))
def test_watermarks_from_values_are_watermarks_from_text(info: Zoneinfo, tag: str, zone_format: str) -> None:
    text = rendered(info, zone_format=zone_format)
    b = behaviour(tag)
    slow = watermark._parse_text(text, b)
    assert _numbers(parse_zones(text, b)) == _numbers(slow)
    if tag != "fork-2023-12":
        assert (parse_watermarks(info, b) is None) == (slow is None)
        assert parse_watermarks(info, b) == parse_watermarks(text, b)
        assert parse_watermarks(parse_zoneinfo(text), b) == parse_watermarks(text, b)


def _numbers(zones: list[ZoneMarks] | None) -> object:
    return zones and [(dict(zone.fields), zone.max_protection) for zone in zones]


TWO_ZONES = Zoneinfo(
    zones=(
        Zone(
            node=0,
            name="DMA32",
            fields={"min": 1000, "low": 1500, "high": 2000, "present": 9},
            protection=(0, 2000, 2000),
            node_stats={"nr_inactive_file": 1, "nr_active_file": 1, "workingset_refault": 1},
        ),
        Zone(
            node=0,
            name="Normal",
            fields={"min": 800, "low": 1200, "high": 1600, "present": 9},
            protection=(0, 0, 0),
        ),
    )
)


def test_protection_is_added_to_all_three_marks() -> None:
    for tag in TAGS:
        marks = parse_watermarks(rendered(TWO_ZONES), behaviour(tag))
        assert marks == Watermarks(3800, 4700, 5600, 5600)


def test_the_lowest_breached_mark() -> None:
    marks = Watermarks(3800, 4700, 5600)
    assert [marks.lowest_breached(free) for free in (3799, 3800, 4699, 4700, 5599, 5600)] == [
        *(MIN, LOW, LOW, HIGH, HIGH, NONE)
    ]


@pytest.mark.parametrize(
    ("change", "parses"),
    [
        (lambda text: text.replace("  pagesets", "  pagesetz"), False),
        (lambda text: text.replace("min      1000", "min      x"), False),
        (lambda text: text.replace("nr_inactive_file", "nr_missing_file"), False),
        (lambda text: text.replace("(0, 2000", "(0x10, 2000"), True),
        (lambda text: text.replace("(0, 2000", "(junk, 2000"), True),
        (lambda text: text.replace("boost    0", "alone"), True),
        (lambda text: text.replace("Node 0", "Nodule 0"), False),
        (lambda _: "", False),
        (lambda text: text[: len(text) // 2], False),
    ],
    ids=range(9),
)
def test_damaged_zoneinfo(change: object, parses: bool) -> None:
    assert callable(change)
    text = change(rendered(attrs.evolve(TWO_ZONES)))
    assert (parse_watermarks(text, behaviour("14Q2")) is not None) == parses
