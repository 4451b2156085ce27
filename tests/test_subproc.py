"""Host commands and their deadlines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from lmk import subproc
from lmk.errors import InfraError


def test_a_command_that_does_not_end_is_ended() -> None:
    began_s = time.monotonic()
    with pytest.raises(InfraError, match="did not end within 1 s"):
        subproc.run(["sleep", "60"], timeout_s=1)
    assert time.monotonic() - began_s < 20


def test_all_input_arrives_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subproc, "_WAIT_STEP_S", 0.05)
    data = os.urandom(1 << 20)
    done = subproc.run(["sh", "-c", "sleep 0.3; cat"], stdin=data, timeout_s=60)
    assert done.stdout == data


def test_time_in_which_everything_stood_still_does_not_count() -> None:
    code = (
        "from lmk import subproc\n"
        "subproc._WAIT_STEP_S = 0.2\n"
        "print('ready', flush=True)\n"
        "subproc.run(['sleep', '1'], timeout_s=2)\n"
        "print('done')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=60)
    assert out == "done\n"
