"""lmk compare from the command line: simulated variants, a finished run among them, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmk.cli.main import main
from tests.tune.conftest import TINY

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


def test_unnecessary_kills_are_a_row_where_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = tmp_path / "tiny.yaml"
    tiny.write_text(TINY)
    argv = ["compare", "--scenario", str(tiny), "--config", "go-1gb", "--seeds", "1", "--jobs", "1"]
    argv += ["--policy", "lmkd", "--policy", "none", "--json"]
    assert main([*argv, "--unnecessary"]) == 0
    rows = {metric["name"]: metric for metric in json.loads(capsys.readouterr().out)["metrics"]}
    assert rows["unnecessary_kills"]["baseline_mean"] <= rows["kills"]["baseline_mean"]
    assert rows["unnecessary_kills"]["others"][0]["mean"] == 0
    assert main(argv) == 0
    assert "unnecessary_kills" not in capsys.readouterr().out


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
