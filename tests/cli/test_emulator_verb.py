"""``lmk emulator`` and ``lmk doctor``: every mistake of the user ends before anything is built or booted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmk.cli.main import main


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))


def run(*arguments: str) -> int:
    return main(["emulator", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["up", "no-such-config"], "no shipped device config"),
        (["up", "go-1gb", "--idle", "soon"], "--idle soon"),
        (["up", "go-1gb", "--idle", "10ms"], "less than a second"),
        (["up", "go-1gb", "--base", "7.0"], "--base 7.0: no such kernel base; one of: 5.10, 6.1, 6.12"),
        (["up", "go-1gb", "--name", "a/b"], "'a/b' is no name for an emulator"),
        (["down", "one"], "no emulator named one is up"),
        (["shell", "one", "true"], "no emulator named one is up"),
    ],
)
def test_user_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "Traceback" not in error
    assert not (tmp_path / "cache" / "kernel").exists()


def test_too_big_for_this_host(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "huge.yaml"
    config.write_text("name: huge\nmemory: 900GiB\ncpus: 2\nandroid: 14\nsource: [test]\n")
    assert run("up", str(config)) == 2
    assert "needs more than 60 %" in capsys.readouterr().err


def test_errors_are_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("down", "--json", "one") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["owner"] == "user" and error["exit_code"] == 2


def test_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert "no emulator is up" in capsys.readouterr().out
    assert run("list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "emulators": []}


def test_doctor_names_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["doctor", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == 1 and answer["ok"] is False
    checks = {check["name"].split(" (")[0]: check for check in answer["checks"]}
    assert checks["adb"]["ok"] is False and "apt-get install adb" in checks["adb"]["remedy"]
    assert {"acceleration", "memory", "cache", "kernels", "guest image"} <= set(checks)
    for check in answer["checks"]:
        assert set(check) == {"name", "ok", "required", "found", "remedy"}


def test_doctor_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) in (0, 2)
    assert "memory:" in capsys.readouterr().out
