"""lmk compare from the command line: simulated variants, a finished run among them, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmk.cli.main import main

FAST = ["--scenario", "app-switching", "--config", "go-1gb", "--seeds", "2", "--jobs", "1"]


def test_two_policies_on_the_same_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *FAST, "--policy", "lmkd", "--policy", "none", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["variants"] == ["lmkd", "none"]
    assert result["runs"] == {"lmkd": 2, "none": 2}
    kills = next(metric for metric in result["metrics"] if metric["name"] == "kills")
    assert kills["others"][0]["pairs"] == 2
    assert "too few pairs" in kills["others"][0]["verdict"]


def test_a_finished_run_is_a_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "finished"
    assert main(["sim", "go-1gb", "app-switching", "--record", str(record), "--json"]) in (0, 1)
    capsys.readouterr()
    assert main(["compare", *FAST, "--policy", "lmkd@13", "--run", str(record)]) == 0
    assert "finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--policy", "lmk"], "no such policy"),
        (["--policy", "lmkd@99"], "no such release"),
        (["--policy", "earlyoom@1"], "no such release"),
        (["--seeds", "0"], "at least 1"),
        (["--policy", "lmkd"], "only one variant"),
        (["--config", "phone-2gbb"], "phone-2gb"),
        (["--run", "/nowhere"], "no run record"),
    ],
)
def test_mistakes_get_one_line(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*argv, *FAST] if argv == ["--policy", "lmkd"] else [*argv, "--policy", "none", "--policy", "lmkd"]
    assert main(["compare", *argv]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
