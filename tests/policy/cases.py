"""Registry of checks that the worked cases and the versions table's test share."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from tests.policy.small_world import MakePolicy

Check = Callable[[str, MakePolicy], None]

#: Columns that section 12 states; 14Q2 is its baseline.
ALL = ("13.0", "14.0", "14Q2", "15.0", "16")
BEFORE_LOW_MEM = ("13.0", "14.0")
SINCE_15 = ("15.0", "15Q1", "15Q2", "16")


@attrs.frozen
class Case:
    """``check(tag, make_policy)`` asserts what lmkd does at that tag."""

    name: str
    tags: tuple[str, ...]
    check: Check


WORKED: list[Case] = []
ROWS: list[Case] = []


def worked(number: int, tags: tuple[str, ...] = ALL) -> Callable[[Check], Check]:
    """A case of section 12, by its number."""

    def register(check: Check) -> Check:
        WORKED.append(Case(f"case-{number:02}", tags, check))
        return check

    return register


def row(name: str, *tags: str) -> Callable[[Check], Check]:
    """A check of one row of the versions table at some tags."""

    def register(check: Check) -> Check:
        ROWS.append(Case(name, tags, check))
        return check

    return register
