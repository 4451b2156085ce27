"""adb over its real wire: a fake server answers, nothing is patched."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmk.device.adb import AdbDevice, AdbServer, user_device
from lmk.errors import DeviceLostError, HostError, UserError
from tests.fakes.adb_server import FakeAdbServer

SERIAL = "emulator-5554"


@pytest.fixture
def fake() -> Iterator[FakeAdbServer]:
    with FakeAdbServer() as server:
        yield server


@pytest.fixture
def device(fake: FakeAdbServer) -> AdbDevice:
    return AdbServer(fake.address).device(SERIAL)


@pytest.fixture
def users_server(fake: FakeAdbServer, monkeypatch: pytest.MonkeyPatch) -> FakeAdbServer:
    assert isinstance(fake.address, tuple)
    monkeypatch.setenv("ANDROID_ADB_SERVER_ADDRESS", fake.address[0])
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(fake.address[1]))
    return fake


def test_shell_keeps_exit_code_and_streams_apart(fake: FakeAdbServer, device: AdbDevice) -> None:
    fake.shell = lambda command: (7, b"out \xff", f"err {command}".encode())
    result = device.shell("some command")
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (7, b"out \xff", "err some command")
    assert result.stdout == "out \N{REPLACEMENT CHARACTER}"


def test_check_shell_names_command_and_reason(fake: FakeAdbServer, device: AdbDevice) -> None:
    with pytest.raises(DeviceLostError, match=r"emulator-5554: `frobnicate` failed with exit code 127: frobnicate"):
        device.check_shell("frobnicate")


def test_shell_deadline_covers_the_whole_operation(fake: FakeAdbServer, device: AdbDevice) -> None:
    def slow(command: str) -> tuple[int, bytes, bytes]:
        time.sleep(1)
        return 0, b"", b""

    fake.shell = slow
    began = time.monotonic()
    with pytest.raises(DeviceLostError, match=r"did not answer within 0\.2 s"):
        device.shell("sleep 3", timeout_s=0.2)
    assert time.monotonic() - began < 2


def test_stalled_server_ends_at_the_deadline(fake: FakeAdbServer, device: AdbDevice) -> None:
    fake.stall = True
    with pytest.raises(DeviceLostError, match="did not answer"):
        device.shell("true", timeout_s=0.2)


@pytest.mark.parametrize("after", range(12))
def test_shell_cut_anywhere_is_a_lost_device(fake: FakeAdbServer, device: AdbDevice, after: int) -> None:
    fake.shell = lambda command: (0, b"ab", b"")
    fake.drop_after_bytes = after
    with pytest.raises(DeviceLostError, match="connection lost"):
        device.shell("echo ab", timeout_s=5)


def test_push_is_checked_by_hash_and_sent_once(fake: FakeAdbServer, device: AdbDevice) -> None:
    data = bytes(range(256)) * 1000
    device.push(data, "/data/local/tmp/helper", mode=0o755)
    assert fake.files["/data/local/tmp/helper"] == (0o755, data)
    device.push(data, "/data/local/tmp/helper", mode=0o700)
    assert fake.requests.count("sync:") == 1
    assert fake.files["/data/local/tmp/helper"][0] == 0o700


def test_push_of_a_file_and_of_nothing(fake: FakeAdbServer, device: AdbDevice, tmp_path: Path) -> None:
    source = tmp_path / "program"
    source.write_bytes(b"content")
    device.push(source, "/data/a")
    device.push(b"", "/data/empty")
    assert fake.files["/data/a"][1] == b"content"
    assert fake.files["/data/empty"][1] == b""
    assert device.read_bytes("/data/a") == b"content"


def test_push_of_a_missing_file_is_the_users_error(device: AdbDevice, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        device.push(tmp_path / "absent", "/data/a")


def test_damaged_push_is_repeated_once(fake: FakeAdbServer, device: AdbDevice) -> None:
    fake.damage_pushes = 1
    device.push(b"abc", "/data/a")
    assert fake.files["/data/a"][1] == b"abc"
    assert fake.requests.count("sync:") == 2


def test_push_damaged_twice_is_an_error(fake: FakeAdbServer, device: AdbDevice) -> None:
    fake.damage_pushes = 2
    with pytest.raises(DeviceLostError, match="/data/a arrived damaged"):
        device.push(b"abc", "/data/a")


def test_push_refused_by_the_device(device: AdbDevice) -> None:
    with pytest.raises(DeviceLostError, match="Read-only file system"):
        device.push(b"abc", "/system/bin/x")


def test_push_cut_in_the_middle(fake: FakeAdbServer, device: AdbDevice) -> None:
    fake.drop_after_bytes = 100_000
    with pytest.raises(DeviceLostError, match="connection lost"):
        device.push(bytes(1_000_000), "/data/a", timeout_s=10)


def test_open_abstract_is_a_plain_stream(fake: FakeAdbServer, device: AdbDevice) -> None:
    def echo(peer: socket.socket) -> None:
        peer.sendall(peer.recv(100).upper())

    fake.abstract_sockets["lmk-helper"] = echo
    with device.open_abstract("lmk-helper") as stream:
        stream.sendall(b"ping")
        assert stream.recv(100) == b"PING"
        assert stream.gettimeout() is None


def test_open_abstract_nobody_listens(device: AdbDevice) -> None:
    with pytest.raises(DeviceLostError, match="localabstract:absent: closed"):
        device.open_abstract("absent")


def test_device_gone_and_offline(fake: FakeAdbServer, device: AdbDevice) -> None:
    fake.devices = {}
    with pytest.raises(DeviceLostError, match="device 'emulator-5554' not found"):
        device.shell("true")
    fake.devices = {SERIAL: "offline"}
    with pytest.raises(DeviceLostError, match="device offline"):
        device.shell("true")
    assert device.state() == "offline"


def test_wait_online_connects_anew(fake: FakeAdbServer) -> None:
    device = AdbServer(fake.address).device("127.0.0.1:5")
    fake.devices = {"127.0.0.1:5": "offline"}
    device.wait_online(5)
    assert "host:connect:127.0.0.1:5" in fake.requests


def test_refused_connect_says_what_adb_said(fake: FakeAdbServer) -> None:
    fake.refuse_connect = "failed to connect to 127.0.0.1:5"
    with pytest.raises(DeviceLostError, match="failed to connect"):
        AdbServer(fake.address).connect("127.0.0.1:5")


def test_no_server_is_no_reason_to_start_one(tmp_path: Path) -> None:
    device = AdbServer(str(tmp_path / "nothing")).device(SERIAL)
    with pytest.raises(DeviceLostError, match=r"connection lost|adb server is gone"):
        device.shell("true")


def test_user_device_by_serial(users_server: FakeAdbServer) -> None:
    device = user_device(SERIAL)
    assert device.shell("true").exit_code == 0
    device.server.close()
    assert not [request for request in users_server.requests if "kill" in request]


@pytest.mark.parametrize(
    ("devices", "serial", "message"),
    [
        ({}, "R58M", "adb knows no device R58M; it knows: none"),
        ({"a": "device", "b": "device"}, "R58M", "it knows: a, b"),
        ({"R58M": "unauthorized"}, "R58M", "has not authorized this computer"),
        ({"R58M": "offline"}, "R58M", "R58M is offline"),
        ({"only": "device"}, "", "no adb serial given"),
    ],
)
def test_user_device_errors(users_server: FakeAdbServer, devices: dict[str, str], serial: str, message: str) -> None:
    users_server.devices = devices
    with pytest.raises(UserError, match=message) as caught:
        user_device(serial)
    assert caught.value.exit_code == 2


def test_user_device_without_adb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(unused.getsockname()[1]))
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(HostError, match="adb is not installed"):
            user_device(SERIAL)


def test_bad_port_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "many")
    with pytest.raises(UserError, match="ANDROID_ADB_SERVER_PORT is 'many'"):
        user_device(SERIAL)


def test_private_server_lives_apart_and_comes_back() -> None:
    pytest.importorskip("adbutils")
    with AdbServer.start() as server:
        assert server.devices() == {}
        assert isinstance(server.address, str) and Path(server.address).is_socket()
        first = server.pid
        assert first is not None
        server._process.kill()  # type: ignore[union-attr]
        server._process.wait()  # type: ignore[union-attr]
        assert not server.answers()
        server.ensure()
        assert server.answers() and server.pid != first
    assert not Path(server.address).exists()
