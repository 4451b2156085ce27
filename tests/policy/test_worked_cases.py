"""Every worked case of the lmkd reference's section 12, in each version column that it states."""

from __future__ import annotations

import pytest

from lmk.replay.run import lmkd_policy
from tests.policy import cases_later, cases_psi
from tests.policy.cases import WORKED, Case

assert cases_psi and cases_later  # they register the cases
COLUMNS = [
    pytest.param(case, tag, id=f"{case.name}-{case.check.__name__}-{tag}") for case in WORKED for tag in case.tags
]


@pytest.mark.parametrize(("case", "tag"), COLUMNS)
def test_case(case: Case, tag: str) -> None:
    case.check(tag, lmkd_policy)


def test_all_cases_are_there() -> None:
    assert sorted(case.name for case in WORKED) == [f"case-{number:02}" for number in range(1, 76)]
