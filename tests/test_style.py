"""ruff, mypy and shellcheck as tests, so that one command says everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHELL = [
    *(".ci/run", "tools/run", "tools/test", "tools/lmk", "tools/lock", "tools/_setup.sh"),
    *("tools/stress-kernel", "tools/check-series", "tools/check-killers"),
]


@pytest.mark.parametrize(
    "argv",
    [
        [sys.executable, "-m", "ruff", "check", "."],
        [sys.executable, "-m", "ruff", "format", "--check", "."],
        [sys.executable, "-m", "mypy"],
        ["shellcheck", "-x", *SHELL],
    ],
    ids=["ruff-check", "ruff-format", "mypy", "shellcheck"],
)
def test_clean(argv: list[str]) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
