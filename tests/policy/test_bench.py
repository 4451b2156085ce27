"""The speed benchmark runs, measures what it says, and answers in JSON."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench" / "policy.py"
#: A busy machine may be slow; ten times the limit is not slow but broken.
SLACK = 10


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_policy", BENCH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_json(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["policy.py", "--json", "--repeat", "20"])
    assert bench.main() in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    assert set(found["results"]) == {"text", "values", "procprio"}
    for row in found["results"].values():
        assert 0 < row["median_us"] < row["limit_us"] * SLACK


def test_a_wake_up_from_text_and_from_values_kills_the_same(bench: ModuleType) -> None:
    rows = []
    for text in (True, False):
        run = bench.Bench({"ro.lmk.kill_heaviest_task": "true"}, text=text)
        run.register(bench.PIDS, 900)
        run.wakeup_ns()
        rows.append(run.policy.processes())
    assert rows[0] == rows[1] and len(rows[0]) == len(bench.PIDS)
