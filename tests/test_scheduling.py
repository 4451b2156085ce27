"""Short slices for what carries decisions: asked of the kernel, and read back where it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmk import subproc


def test_every_thread_of_a_process_gets_a_short_slice() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    try:
        assert subproc.prefer_latency(child.pid) == 1
        found = re.search(r"se\.slice\s*:\s*(\d+)", _sched(child.pid))
        if found is None:
            pytest.skip("this kernel does not show slices in /proc/PID/sched")
        if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 12):
            assert int(found[1]) == 100_000
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == os.getpriority(os.PRIO_PROCESS, 0)
    finally:
        child.kill()
        child.wait()


def test_a_childs_nice_value_counts_against_us() -> None:
    """With autogroups only tasks of one session are weighed by their nice values."""
    child = subproc.spawn_tied([sys.executable, "-S", "-c", "import time; time.sleep(60)"], nice=5)
    try:
        assert os.getsid(child.pid) == os.getsid(0)
        assert os.getpgid(child.pid) == child.pid  # the terminal's Ctrl-C is for us
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)
    finally:
        child.kill()
        child.wait()


def test_a_process_that_is_gone_is_no_error() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    assert subproc.prefer_latency(child.pid) == 0


def _sched(pid: int) -> str:
    path = Path(f"/proc/{pid}/sched")
    return path.read_text() if path.exists() else ""
