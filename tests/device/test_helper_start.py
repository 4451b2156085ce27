"""Getting the helper onto a device and running: a local stand-in for the device, the real helper."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from lmk.device.helper import REMOTE_DIR, HelperProcess, remote_name, start_helper, stop_leftover
from lmk.device.helper_messages import Heartbeat, SettingsDone
from lmk.device.helper_requests import Settings, Stop
from lmk.errors import HelperError
from tests.fakes.helper_peer import expect, helper_binary, wait_until


@attrs.frozen(kw_only=True)
class Result:
    exit_code: int
    stdout: str
    stderr: str


class LocalDevice:
    """This machine as a device: REMOTE_DIR is a temporary directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pushes: list[tuple[str, int]] = []
        self.commands: list[str] = []

    def shell(self, command: str, timeout_s: float = 30.0) -> Result:
        self.commands.append(command)
        local = command.replace(REMOTE_DIR, str(self.folder))
        done = subprocess.run(["sh", "-c", local], capture_output=True, text=True, timeout=timeout_s, check=False)
        return Result(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def push(self, source: bytes | Path, remote: str, mode: int = 0o644, timeout_s: float = 30.0) -> None:
        self.pushes.append((remote, mode))
        path = Path(remote.replace(REMOTE_DIR, str(self.folder)))
        data = source if isinstance(source, bytes) else source.read_bytes()
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
        path.chmod(mode)

    def open_abstract(self, name: str, timeout_s: float = 30.0) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout_s)
        connection.connect("\0" + name)
        return connection


@pytest.fixture
def device(tmp_path: Path) -> LocalDevice:
    return LocalDevice(tmp_path)


@pytest.fixture
def name() -> str:
    return f"lmk-start-{os.getpid()}"


@pytest.fixture
def process(device: LocalDevice, name: str) -> Iterator[HelperProcess]:
    yield start_helper(device, name=name, options=("--root", str(device.folder), "--proc-root", "/proc"))
    stop_leftover(device, name)


def test_pushed_by_content_hash_and_started_detached(
    device: LocalDevice, process: HelperProcess, tmp_path: Path
) -> None:
    with process.connect() as stream:
        assert stream.hello.release == os.uname().release
    assert (f"{REMOTE_DIR}/{remote_name(helper_binary())}", 0o755) in device.pushes
    # The token came in a file that only the owner may read, is not in any command line, and the file is gone.
    assert device.pushes[-1][1] == 0o600
    assert not any(process._token in command for command in device.commands)
    assert [path.name for path in tmp_path.iterdir()] == [remote_name(helper_binary())]


def test_a_new_connection_after_the_old_one_is_gone(process: HelperProcess) -> None:
    with process.connect() as first:
        pid = first.hello.pid
    with process.connect() as second:
        assert second.hello.pid == pid


def test_a_leftover_of_an_earlier_run_is_ended_first(device: LocalDevice, process: HelperProcess, name: str) -> None:
    with process.connect() as stream:
        old = stream.hello.pid
        again = start_helper(device, name=name, options=("--root", str(device.folder), "--proc-root", "/proc"))
        with again.connect() as fresh:
            assert fresh.hello.pid != old
    wait_until(lambda: not Path(f"/proc/{old}").exists(), "the old helper's end")


def test_a_helper_that_stops_leaves_nothing(device: LocalDevice, process: HelperProcess) -> None:
    with process.connect() as stream:
        guardian = stream.hello.guardian_pid
        stream.done(Stop(handback=0))
    wait_until(lambda: not Path(f"/proc/{guardian}").exists(), "the guardian's end")


def test_a_helper_that_cannot_start_says_why(device: LocalDevice, name: str) -> None:
    with pytest.raises(HelperError, match="/absent"):
        start_helper(device, name=name, options=("--proc-root", "/absent"))


def test_settings_survive_a_reconnect(process: HelperProcess, name: str) -> None:
    settings = Settings(flags=0, heartbeat_ms=30, failsafe_ms=60_000, main_priority=0, reaper_priority=0)
    with process.connect() as stream:
        stream.request(settings, SettingsDone)
    with process.connect() as stream:
        assert expect(stream, Heartbeat)[1].worker_starts == 1
