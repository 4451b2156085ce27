"""``lmk explain`` on a record: which decision is meant, what it says, and the user's errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmk.cli.main import main
from lmk.policy.decision import Decision, Evaluation
from lmk.record.schema import KillRow
from lmk.record.writer import RecordWriter

MS = 1_000_000


def evaluation(reason: int, free_pages: int) -> Evaluation:
    return Evaluation(
        level=1,
        by_event=True,
        after_kill=False,
        free_pages=free_pages,
        min_pages=10_000,
        low_pages=12_500,
        high_pages=15_000,
        watermark=1 if free_pages < 12_500 else 3,
        reclaim=1,
        thrashing_limit_pct=100,
        reason=reason,
        reason_text="low watermark is breached" if reason == 8 else "",
        min_adj=701 if reason == 8 else 0,
    )


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    quiet = Decision(strategy="psi", level=1, by_event=False, evaluations=(evaluation(-1, 20_000),))
    kill = Decision(
        strategy="psi",
        level=1,
        by_event=True,
        evaluations=(evaluation(8, 11_000),),
        reason=8,
        reason_text="low watermark is breached",
        min_adj=701,
        killed_pids=(42,),
        killed_adjs=(900,),
    )
    with RecordWriter(tmp_path / "run") as writer:
        writer.meta({"android": "14Q2", "properties": {}, "zero_ns": 0})
        writer.decision(1000 * MS, 999 * MS, -1, None, quiet)
        writer.decision(2000 * MS, 1999 * MS, 8, 42, kill)
        writer.kill(KillRow(t_ns=2001 * MS, pid=42, name="com.a", oom_score_adj=900, reason_code=8))
        writer.kill(KillRow(t_ns=3000 * MS, pid=43, name="com.b", killer="kernel_oom"))
    return tmp_path / "run"


def said(capsys: pytest.CaptureFixture[str], code: int, *argv: str) -> str:
    assert main(["explain", *argv]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_the_rule_that_fired_and_how_far_the_others_were(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, 0, str(run_dir))
    assert "At 2.00 s, after a pressure event (psi strategy):" in text
    assert "killed com.a (pid 42), oom_score_adj 900" in text
    assert "LOW_MEM: fired" in text
    assert "free memory 44000 kB < low watermark 50000 kB (6000 kB below)" in text
    assert text == said(capsys, 0, str(run_dir), "--pid", "42") == said(capsys, 0, str(run_dir), "1")


def test_a_moment_without_a_kill(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, 0, str(run_dir), "--at", "1.5s")
    assert "At 1.00 s, after a poll" in text
    assert "LOW_MEM: not met" in text


def test_json(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = json.loads(said(capsys, 0, str(run_dir), "--json"))
    assert body["schema"] == 1
    assert body["killed"] == [{"pid": 42, "name": "com.a", "oom_score_adj": 900}]
    assert {rule["outcome"] for rule in body["rules"]} >= {"fired", "not met"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["7"], "this run has 2 kills"),
        (["--pid", "99"], "process 99 was not killed"),
        (["2"], "killed by the kernel's OOM killer"),
        (["--at", "soon"], "--at soon"),
        (["1", "--pid", "42"], "give one of them"),
    ],
)
def test_user_errors(run_dir: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert message in said(capsys, 2, str(run_dir), *arguments)


def test_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LMK_STATE", str(tmp_path))
    assert "no run is recorded yet" in said(capsys, 2, "last")
    assert "holds no run record" in said(capsys, 2, str(tmp_path / "nothing"))
