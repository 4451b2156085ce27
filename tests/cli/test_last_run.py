"""``last``: the run that ended last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lmk.cli.runs import find_run
from lmk.errors import UserError


def test_of_two_that_began_in_one_second_the_one_that_ended_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMK_STATE", str(tmp_path))
    with pytest.raises(UserError, match="no run is recorded yet"):
        find_run("last")
    for name, ended in (("20261126-113920-sim-phone-2gb", 1), ("20261126-113920-phone-2gb", 2)):
        file = tmp_path / "runs" / name / "run.sqlite"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, ns=(ended, ended))
    (tmp_path / "runs" / "unfinished").mkdir()
    assert find_run("last").name == "20261126-113920-phone-2gb"
