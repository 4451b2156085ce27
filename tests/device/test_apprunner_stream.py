"""The host's side of the app runner's stream, against a socket that says what no runner should."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.device.apprunner import AppRunner, parse_event
from lmk.errors import DeviceLostError, TargetError
from tests.device.apprunner_host import Answer


class ScriptedDevice:
    """Every connection is a new socket pair; the test holds the other ends."""

    serial = "scripted"

    def __init__(self, exit_code: int = 0, stderr: str = "") -> None:
        self.peers: list[socket.socket] = []
        self.answer = Answer(exit_code, "", stderr)

    def shell(self, command: str, timeout_s: float = 10.0) -> Answer:
        return self.answer

    def push(self, source: bytes | Path, remote: str, mode: int = 0o644, timeout_s: float = 10.0) -> None:
        assert remote.startswith("/data/local/tmp/lmk-apprunner-")

    def open_abstract(self, name: str, timeout_s: float = 10.0) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.peers.append(theirs)
        return ours


def runner_on(device: ScriptedDevice, tmp_path: Path) -> AppRunner:
    binary = tmp_path / "lmk-apprunner"
    binary.write_bytes(b"program")
    return AppRunner(device, binary=binary)


def line(seq: int, kind: str) -> bytes:
    return b'{"seq":%d,"t_ns":5,"kind":"%s"}\n' % (seq, kind.encode())


def test_a_program_that_does_not_start(tmp_path: Path) -> None:
    device = ScriptedDevice(exit_code=127, stderr="sh: lmk-apprunner: not found\n")
    with pytest.raises(TargetError, match="scripted: lmk-apprunner did not start: sh: lmk-apprunner: not found"):
        runner_on(device, tmp_path).launch()


def test_lines_may_come_in_pieces_and_twice(tmp_path: Path) -> None:
    device = ScriptedDevice()
    runner = runner_on(device, tmp_path)
    runner.launch()
    whole = line(0, "hello") + line(1, "loaded")
    device.peers[0].sendall(whole[:20])
    assert runner.poll(1) == []
    device.peers[0].sendall(whole[20:])
    assert [event.kind for event in runner.poll(1)] == ["hello", "loaded"]
    device.peers[0].close()
    runner.poll(1)
    # The new connection asks for what comes next; what was seen already is left out.
    assert device.peers[1].recv(64) == b"from 2\n"
    device.peers[1].sendall(line(1, "loaded") + line(2, "stopped"))
    assert [event.kind for event in runner.poll(1)] == ["stopped"]
    runner.close()
    device.peers[1].close()


@pytest.mark.parametrize(
    "garbage", [b"hello\n", b"[]\n", b'{"seq":1}\n', b"\xff\n", b'{"seq":"x","t_ns":1,"kind":"a"}\n']
)
def test_what_is_no_event_is_the_targets_fault(tmp_path: Path, garbage: bytes) -> None:
    device = ScriptedDevice()
    runner = runner_on(device, tmp_path)
    runner.launch()
    device.peers[0].sendall(garbage)
    with pytest.raises(TargetError, match="scripted: lmk-apprunner sent"):
        runner.poll(1)
    runner.close()
    device.peers[0].close()


def test_a_refusal_says_why(tmp_path: Path) -> None:
    device = ScriptedDevice()
    runner = runner_on(device, tmp_path)
    runner.launch()
    device.peers[0].sendall(b'{"seq":0,"t_ns":5,"kind":"refused","why":"no timeline is loaded"}\n')
    with pytest.raises(TargetError, match="refuses: no timeline is loaded"):
        runner.prepare(1)
    runner.close()
    device.peers[0].close()


def test_a_device_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmk.device.apprunner._RECONNECT_S", 0.3)
    device = ScriptedDevice()
    runner = runner_on(device, tmp_path)
    runner.launch()

    def refuse(name: str, timeout_s: float = 10.0) -> socket.socket:
        raise DeviceLostError("scripted: offline")

    device.open_abstract = refuse  # type: ignore[method-assign]
    device.peers[0].close()
    with pytest.raises(DeviceLostError, match="lmk-apprunner is gone"):
        runner.poll(1)
    runner.close()


@given(st.binary(max_size=80))
def test_parse_event_raises_only_what_it_says(data: bytes) -> None:
    try:
        parse_event(data)
    except (ValueError, KeyError, TypeError):
        return
