"""``lmk calibrate``: a user's mistake ends before anything is booted."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmk.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "phone"], "--target phone: no such kind of target"),
        (["--config", "no-such"], "no shipped device config"),
        (["--output", "/no/such/directory/x.yaml"], "no such directory"),
        (["--target", "emulator:nobody"], "no emulator named nobody is up"),
    ],
)
def test_user_errors(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LMK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    assert main(["calibrate", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "cache" / "kernel").exists()
