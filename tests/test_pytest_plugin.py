"""The pytest plugin as a project of its own uses it: tests/data/example_project, run as it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "data" / "example_project"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "project"))


def run_pytest(project: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *argv]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300, check=False)


def test_the_example_project_passes(project: Path) -> None:
    done = run_pytest(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_a_failing_test_shows_who_was_killed_and_why(project: Path) -> None:
    (project / "test_strict.py").write_text(
        "def test_nobody_dies(lmk_run):\n"
        "    run = lmk_run('app-switching', settings={'ro.lmk.thrashing_limit': 30})\n"
        "    assert run['kills'] == []\n"
    )
    done = run_pytest(project, "test_strict.py")
    assert done.returncode == 1
    assert "lmk run 1" in done.stdout
    assert "com.example." in done.stdout
    assert "watermark is breached" in done.stdout


def test_a_users_mistake_is_one_line(project: Path) -> None:
    (project / "test_typo.py").write_text("def test_typo(lmk_run):\n    lmk_run('app-swiching')\n")
    done = run_pytest(project, "test_typo.py")
    assert done.returncode == 1
    assert "did you mean app-switching?" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.emulator
def test_a_guest_answers_over_adb(project: Path) -> None:
    (project / "test_guest.py").write_text(
        "def test_guest(lmk_device):\n    assert 'lmk' in lmk_device.check_shell('uname -r')\n"
    )
    done = run_pytest(project, "test_guest.py", "--lmk-target", "qemu", "--lmk-config", "go-1gb")
    assert done.returncode == 0, done.stdout + done.stderr
