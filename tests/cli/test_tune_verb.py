"""lmk tune from the command line: a small real study, kill -9 in the middle, Ctrl-C, and mistakes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lmk.cli.main import main
from lmk.config.device import load_device_config
from tests.tune.conftest import TINY

SPACE = ["--space", "swap_free_low_percentage=0..30", "--space", "vm.swappiness=20..200:5"]
QUICK = ["--unseen", "0", "--sensitivity", "0", "--no-rates"]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def words(tiny: Path, output: Path, *more: str) -> list[str]:
    return ["tune", "go-1gb", "--scenario", str(tiny), *SPACE, "--output", str(output), "--json", *more]


def test_a_study_and_all_that_is_said_of_its_winner(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    more = ["--trials", "24", "--batch", "4", "--seeds", "2", "--unseen", "3", "--sensitivity", "2", "--workers", "1"]
    more += ["--no-rates", "--seed", "2"]
    calibration = ["--calibration", "emulator-tcg", "--space", "upgrade_pressure=10..90"]
    assert main(words(tiny, folder, *more, *calibration)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema"] == 1
    assert result["stock"]["trial"] == 0
    assert sum(result["trials"][state] for state in ("complete", "stopped", "failed")) == 25
    assert set(result["importances"]) == {"cold_starts", "psi_full_ms"}
    assert "vmpressure" in result["dead"]["upgrade_pressure"]
    assert "software emulation" in result["warnings"][0]
    assert {sheet["name"] for sheet in result["sensitivity"]} == {"swap_free_low_percentage", "vm.swappiness"}
    assert Path(result["files"]["plot"]).read_bytes().startswith(b"\x89PNG")
    assert json.loads(Path(result["files"]["result"]).read_text())["stock"] == result["stock"]
    chosen = result["chosen"]
    assert chosen["trial"] != 0, "this study finds something: else the test shows nothing"
    assert result["unseen"]["runs"] == {"stock": 3, "tuned": 3}
    assert result["rates"] is None
    config = load_device_config(result["files"]["yaml"])
    assert config.name == "go-1gb-tuned"
    assert "emulator-tcg" in config.sources[0].text
    prop = Path(result["files"]["prop"]).read_text()
    for name, value in chosen["changed"].items():
        assert (f"ro.lmk.{name}={value}" in prop) or f"{name}={value}" in prop


def _runs(study: Path) -> int:
    if not study.exists():
        return 0
    with closing(sqlite3.connect(f"file:{study}?mode=ro", uri=True)) as database:
        try:
            return int(database.execute("SELECT count(*) FROM run").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # it has no tables yet


def _begin(argv: list[str], study: Path, runs: int) -> subprocess.Popen[str]:
    """Start ``lmk`` and wait until so many runs are in its file."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lmk", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    deadline_s = time.monotonic() + 300
    while _runs(study) < runs and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return process


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(a[key] == b[key] for key in ("trials", "stock", "pareto", "chosen", "importances"))


def test_kill_9_loses_nothing_and_counts_nothing_twice(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--trials", "12", "--batch", "6", "--seeds", "4", "--workers", "2", *QUICK]
    assert main(words(tiny, tmp_path / "whole", *size)) == 0
    whole = json.loads(capsys.readouterr().out)

    study = tmp_path / "killed.sqlite"
    argv = words(tiny, tmp_path / "killed", *size, "--study", str(study))
    process = _begin(argv, study, 15)
    assert process.poll() is None, "it was to be killed in the middle"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=300)  # ends only when the workers, which hold the pipe, have ended too
    kept = _runs(study)
    assert kept >= 15

    assert main([*argv, "--resume"]) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert _same(resumed, whole)
    assert resumed["runs"]["found"] == kept
    assert resumed["runs"]["made"] + kept >= whole["runs"]["made"]
    with closing(sqlite3.connect(study)) as database:
        assert database.execute("SELECT count(*) FROM run").fetchone()[0] == kept + resumed["runs"]["made"]


def test_ctrl_c_ends_with_the_best_so_far(tiny: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.sqlite"
    argv = words(tiny, tmp_path / "out", "--trials", "500", "--seeds", "4", "--workers", "2", "--study", str(study))
    process = _begin(argv, study, 30)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    result = json.loads(out)
    assert result["interrupted"]
    assert result["pareto"]
    assert result["unseen"] is None
    assert Path(result["files"]["plot"]).is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--trials", "0"], "--trials 0: must be at least 1"),
        (["--workers", "0"], "--workers 0: must be at least 1"),
        (["--confirm", "qemu", "--scenario", "day"], "day is for the simulator alone"),
        (["--confirm", "qemu", "--confirm-window", "9h+5min"], "--confirm-window 9h+5min: not a piece"),
        (["--confirm", "qemu", "--confirm-window", "1h+5s"], "the window ends at 3605000 ms"),
        (["--confirm-window", "1s+5s"], "nothing is confirmed"),
        (["--confirm", "qemu", "--confirm-runs", "0"], "--confirm-runs 0: must be at least 1"),
        (["--resume"], "does not say what"),
        (["--resume", "--study", "/nowhere/s.sqlite"], "there is no such study"),
        (["--objective", "cold"], "no such figure"),
        (["--constraint", "kills=3"], "not a comparison"),
        (["--calibration", "publishd"], "did you mean published"),
        (["--space", "swap_free_low_percentage"], "given twice"),
    ],
)
def test_mistakes_get_one_line(
    more: list[str], message: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tiny, tmp_path / "out", *more)) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert json.loads(captured.out)["error"]["owner"] == "user"
