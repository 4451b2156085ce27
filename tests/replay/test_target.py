"""A recording is a target like any other: the engine's loop drives it, and overrides stand in for answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmk.engine.loop import run_policy
from lmk.engine.target import Target
from lmk.policy import api
from lmk.policy.none import NonePolicy
from lmk.replay.compare import Comparer, Differs
from lmk.replay.run import lmkd_policy
from lmk.replay.target import VectorTarget
from lmk.replay.vectors import Scenario, read_scenarios

PSI = Path(__file__).resolve().parents[1] / "data" / "vectors" / "lmkd" / "aosp-2025-03" / "psi.jsonl.zst"


class Exchanges:
    """Counts what the engine's observer sees."""

    def __init__(self) -> None:
        self.requests: list[api.Request] = []
        self.times_ns: list[int] = []

    def exchanged(self, t_ns: int, request: api.Request, answer: object) -> None:
        self.requests.append(request)
        self.times_ns.append(t_ns)


def scenarios() -> list[Scenario]:
    return list(read_scenarios(PSI))


def test_the_engine_drives_a_recording() -> None:
    for scenario in scenarios():
        comparer, observer = Comparer(scenario.expect, scenario.kind), Exchanges()
        policy = lmkd_policy(scenario.variant)
        comparer.table = policy
        target: Target = VectorTarget(scenario.script, comparer, from_text=False)
        assert run_policy(policy, target, observer) == "end of the recording"
        target.close()
        assert comparer.matched_kills == scenario.kills
        assert observer.times_ns == sorted(observer.times_ns)
        assert target.now_ns() == scenario.script["end"] * 1000


def test_another_policy_differs_at_once() -> None:
    (scenario, *_) = scenarios()
    comparer = Comparer(scenario.expect, scenario.kind)
    with pytest.raises(Differs, match="start-up"):
        VectorTarget(scenario.script, comparer, from_text=False).run(NonePolicy("16"))


def test_an_override_stands_in_for_an_answer() -> None:
    (scenario, *_) = scenarios()
    comparer = Comparer(scenario.expect, scenario.kind)
    target = VectorTarget(
        scenario.script,
        comparer,
        from_text=False,
        overrides={api.ProbePidfd: lambda request, answer: not answer(request)},
    )
    with pytest.raises(Differs) as differs:
        target.run(lmkd_policy(scenario.variant))
    assert "Process polling is" in str(differs.value.difference.ours)


def test_files_are_text_when_wanted() -> None:
    (scenario, *_) = scenarios()
    for from_text in (True, False):
        target = VectorTarget(scenario.script, Comparer(scenario.expect, "psi"), from_text=from_text)
        answer = target.answer(api.ReadFile("/proc/meminfo"))
        assert isinstance(answer, str) == from_text
