"""tools/_setup.sh: what a machine lacks is one clear line, before anything is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def setup(tmp_path: Path, command: str, **programs: str) -> subprocess.CompletedProcess[str]:
    """A command after sourcing the script, with programs (name: shell text) before those of the machine."""
    for name, text in programs.items():
        program = tmp_path / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    bash = shutil.which("bash")
    assert bash is not None
    return subprocess.run(
        [bash, "-c", f"source {ROOT}/tools/_setup.sh; {command}"],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("argument", ["one", "one two"])
def test_missing_packages_without_root_name_the_command(tmp_path: Path, argument: str) -> None:
    absent = {"dpkg_query": "exit 1", "apt_get": "echo must not run; exit 9"}
    done = setup(tmp_path, f"ensure_packages {argument}", id="echo 1000", sudo="exit 1", **absent)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "lmk: Debian packages are missing and neither root nor sudo is at hand; "
        f"as root run: apt-get install {argument}"
    ]


def test_an_installation_that_fails_shows_apts_words(tmp_path: Path) -> None:
    programs = {"dpkg_query": "exit 1", "apt_get": "echo E: no network >&2; exit 100", "id": "echo 0"}
    done = setup(tmp_path, "ensure_packages one", **programs)
    assert done.returncode == 2
    assert "E: no network" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("lmk: apt-get could not install: one; mend the apt configuration")


def test_nothing_is_done_where_everything_is_there(tmp_path: Path) -> None:
    installed = {"dpkg_query": "echo install ok installed", "apt_get": "echo must not run; exit 9"}
    done = setup(tmp_path, "ensure_packages one two", **installed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    done = setup(tmp_path, "LMK_PYTHON=old-python ensure_venv", old_python="exit 1")
    assert done.returncode == 2
    assert done.stderr == "lmk: old-python is older than 3.11; set LMK_PYTHON to a newer interpreter\n"
