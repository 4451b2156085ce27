"""The versions table: each row at the tags around its changes, and that no row can be flipped unnoticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from lmk.policy.lmkd.policy import LmkdPolicy
from lmk.policy.lmkd.versions import DIFFERENCES, TAGS, VENDORS, Difference, behaviour, tag_index
from lmk.replay.run import lmkd_policy, replay
from lmk.replay.vectors import find_files, read_scenarios
from tests.policy import cases_later, cases_psi, cases_rows
from tests.policy.cases import ROWS, WORKED, Case

RECORDINGS = Path(__file__).resolve().parents[1] / "data" / "vectors"
assert cases_psi and cases_later and cases_rows  # they register the cases
CHECKS = [pytest.param(case, tag, id=f"{case.name}-{tag}") for case in ROWS for tag in case.tags]


@pytest.mark.parametrize(("case", "tag"), CHECKS)
def test_row(case: Case, tag: str) -> None:
    case.check(tag, lmkd_policy)


#: One tag before these changes the new value can do nothing: what it acts on does not exist yet.
WITHOUT_EFFECT = {
    ("log_stats_default", "11Q3"): "no statistics packet",
    ("reinit_if_started", "14.0"): "monitors are never delayed",
    ("memevents", "14Q2"): "no command that creates the listener",
}


def boundaries() -> list[Any]:
    """(row, tag, wrong value) on both sides of each change of each row: the value of the other side."""
    found = []
    for row in DIFFERENCES:
        for (_, before), (tag, after) in zip(row.values, row.values[1:], strict=False):
            previous = TAGS[tag_index(tag) - 1]
            found.append(pytest.param(row, tag, before, id=f"{row.name}-{tag}"))
            if (row.name, previous) not in WITHOUT_EFFECT:
                found.append(pytest.param(row, previous, after, id=f"{row.name}-{previous}"))
    return found


@pytest.mark.parametrize(("row", "tag", "wrong"), boundaries())
def test_no_row_can_be_flipped_unnoticed(row: Difference, tag: str, wrong: object) -> None:
    """At the first tag of a change and the last one before it, the other's value breaks at least one check."""
    change: dict[str, Any] = {row.name: wrong}
    flipped = attrs.evolve(behaviour(tag), **change)

    def make(_: str) -> LmkdPolicy:
        return LmkdPolicy(flipped)

    own = [case for case in ROWS if case.name == row.name and tag in case.tags]
    others = [case for case in WORKED if tag in case.tags]
    assert any(breaks(case, tag, make) for case in own + others), f"nothing notices {row.name} at {tag}"


def vendor_changes() -> list[Any]:
    """(vendor, row) for each row that a vendor changes."""
    changes = [(vendor, name) for vendor in VENDORS.values() for name in vendor.changes]
    return [pytest.param(vendor.name, name, id=f"{vendor.name}-{name}") for vendor, name in changes]


@pytest.mark.parametrize(("vendor", "name"), vendor_changes())
def test_no_change_of_a_vendor_can_be_undone_unnoticed(vendor: str, name: str) -> None:
    """With the row as in the release the vendor started from, a recording of the vendor's lmkd differs."""
    change: dict[str, Any] = {name: getattr(behaviour(VENDORS[vendor].base), name)}
    undone = attrs.evolve(behaviour(vendor), **change)
    scenarios = (s for path in find_files([RECORDINGS]) if vendor in path.parts for s in read_scenarios(path))
    assert any(not replay(scenario, lambda _: LmkdPolicy(undone)).matched for scenario in scenarios)


def breaks(case: Case, tag: str, make: Any) -> bool:
    try:
        case.check(tag, make)
    except Exception:
        return True
    return False


def test_rows_name_known_differences() -> None:
    names = {row.name for row in DIFFERENCES}
    assert {case.name for case in ROWS} <= names
    assert {tag for case in ROWS + WORKED for tag in case.tags} <= set(TAGS)
