"""Recorded behaviour of the real lmkd: the policy must do exactly what was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmk.replay.run import Outcome, plan, replay, replay_all
from lmk.replay.show import one_line
from lmk.replay.vectors import find_files, read_scenarios

SUBSET = Path(__file__).resolve().parents[1] / "data" / "vectors"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "vectors"
#: About half a minute on two cores; --all-vectors takes a few minutes.
SAMPLE = 800


def differing(outcomes: list[Outcome]) -> list[str]:
    return [one_line(outcome) for outcome in outcomes if not outcome.matched]


@pytest.mark.parametrize("path", find_files([SUBSET]), ids=lambda path: f"{path.parent.name}-{path.name[:4]}")
def test_checked_in_recordings(path: Path) -> None:
    outcomes = [replay(scenario) for scenario in read_scenarios(path)]
    assert len(outcomes) >= 3
    assert differing(outcomes) == []


@pytest.mark.parametrize("from_text", [False, True])
def test_text_and_values_give_the_same(from_text: bool) -> None:
    for path in find_files([SUBSET / "lmkd" / "aosp-2025-03"]):
        outcomes = [replay(scenario, from_text=from_text) for scenario in read_scenarios(path)]
        assert differing(outcomes) == []


@pytest.mark.shared
def test_all_recordings(request: pytest.FixtureRequest) -> None:
    if not SHARED.is_dir():
        pytest.skip("no ../shared/vectors beside the checkout")
    sample = None if request.config.getoption("--all-vectors") else SAMPLE
    outcomes = list(replay_all(plan(find_files([SHARED]), sample=sample), jobs=2))
    assert len(outcomes) >= (7000 if sample is None else SAMPLE // 2)
    assert {(o.variant, o.kind) for o in outcomes} >= {("14Q2", "psi"), ("16", "mem"), ("fork-2023-12", "ctrl")}
    assert differing(outcomes) == []
