"""The tutorial as a reader follows it: every command in its order, in one directory, and every output as printed.

The one step on a real kernel (``tools/run``) is what tests marked ``emulator`` do.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmk.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
TUTORIAL = ROOT / "docs" / "tutorial.md"
#: Shown where commands print more than the page tells.
_LEFT_OUT = "…"
#: What the reader brings along.
_OWN_FILES = {
    "build.prop": "ro.lmk.thrashing_limit=50\n",
    "init.rc": "on boot\n    write /proc/sys/vm/swappiness 100\n",
    "fstab.goldfish": "/dev/block/zram0 none swap defaults zramsize=536870912\n",
    "matrix.yaml": "configs: [tuned/chosen.yaml]\nscenarios: [one-leaker]\nreplicas: 2\nbaseline_replicas: 4\n",
}


def steps() -> Iterator[tuple[str, str]]:
    """Commands, and blocks of what the commands since the last block print; both in the page's order."""
    block: list[str] = []
    for line in [*TUTORIAL.read_text().splitlines(), "the end"]:
        command = re.match(r"    ((?:lmk|tools/run) .*)", line)
        if line.startswith("    ") and command is None:
            block.append(line)
        elif line and block:
            yield "output", "\n".join(block)
            block = []
        if command is not None:
            yield "command", command[1]


def words(text: str) -> str:
    return " ".join(text.split())


def test_every_command_and_every_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LMK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "130")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    for name, text in _OWN_FILES.items():
        (tmp_path / name).write_text(text)
    printed, checked = "", 0
    for kind, text in steps():
        if kind == "output":
            for part in text.split(_LEFT_OUT):
                assert words(part) in words(printed), f"not printed as docs/tutorial.md shows it:\n{part}"
            printed = ""
            checked += 1
        elif text.startswith("lmk "):
            assert main(shlex.split(text)[1:]) == 0, text
            printed += capsys.readouterr().out
    assert checked == 3
