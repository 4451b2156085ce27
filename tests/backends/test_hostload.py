"""Other people's load on the host, from made-up and real /proc files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lmk.backends.hostload import HostLoad


def write_machine(root: Path, user: int, idle: int, *, nice: int = 0, steal: int = 0) -> None:
    (root / "stat").write_text(f"cpu  {user} {nice} 0 {idle} 7 0 0 {steal} 0 0\ncpu0 1 2 3\n")


def write_process(root: Path, pid: int, utime: int, *, cutime: int = 0) -> None:
    (root / str(pid)).mkdir(exist_ok=True)
    fields = ["S", *["0"] * 10, str(utime), "0", str(cutime), "0", *["0"] * 10]
    (root / str(pid) / "stat").write_text(f"{pid} (we) ird (x) {' '.join(fields)}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    write_machine(tmp_path, 1000, 1000)
    write_process(tmp_path, os.getpid(), 10)
    write_process(tmp_path, 77, 5)
    return tmp_path


def test_what_others_used(proc: Path) -> None:
    load = HostLoad([77], proc_root=proc)
    write_machine(proc, 1060, 1130, nice=5, steal=5)  # 200 ticks, 70 of them busy
    write_process(proc, os.getpid(), 20)
    write_process(proc, 77, 25, cutime=15)
    result = load.finish()
    assert result.busy_fraction == pytest.approx(70 / 200)
    assert result.own_fraction == pytest.approx(45 / 200)
    assert result.other_fraction == pytest.approx(25 / 200)
    assert result.disturbed


def test_only_our_own_load_does_not_disturb(proc: Path) -> None:
    load = HostLoad([77], proc_root=proc)
    write_machine(proc, 1100, 1100)
    write_process(proc, 77, 105)
    assert load.finish().other_fraction == 0
    assert not load.finish().disturbed


def test_a_process_that_has_gone_counts_for_nothing(proc: Path) -> None:
    load = HostLoad([77, 4_000_000], proc_root=proc)
    (proc / "77" / "stat").unlink()
    write_machine(proc, 1100, 1100)
    assert load.finish().other_fraction == pytest.approx(0.5)


def test_the_real_machine() -> None:
    load = HostLoad()
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    result = load.finish()
    assert 0 <= result.other_fraction <= result.busy_fraction <= 1
