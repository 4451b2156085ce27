"""``lmk run``: every user error is one clear line and exit code 2, before anything is built or booted."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from pathlib import Path

import pytest

from lmk.cli.main import main
from tests.config.helpers import VALID, write
from tests.fakes.adb_server import FakeAdbServer


@pytest.fixture(autouse=True)
def nothing_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No kernel, no image and no emulator can be found or made: reaching that far would fail with another error."""
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LMK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")


def errors(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    code = main(["run", *argv])
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err.splitlines()


def error(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    lines = errors(capsys, *argv)
    assert len(lines) == 1
    assert lines[0].startswith("lmk: ")
    return lines[0].removeprefix("lmk: ")


def test_unknown_config_and_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert "phone-2bg: no shipped device config of that name" in error(capsys, "phone-2bg")
    assert "did you mean phone-2gb?" in error(capsys, "phone-2bg")
    assert "app-swiching: no shipped scenario" in error(capsys, "phone-2gb", "app-swiching")


def test_wrong_unit_and_unknown_key_name_file_line_and_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, VALID.replace("memory: 2GiB", "memory: 2parsecs"))
    assert f"{path}:" in error(capsys, str(path))
    assert "memory" in error(capsys, str(path))
    path = write(tmp_path, VALID + "storge: {}\n")
    assert "did you mean storage?" in error(capsys, str(path))


def test_unreadable_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert str(path) in error(capsys, str(path))
    assert "is a directory" in error(capsys, str(tmp_path))


def test_unknown_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert error(capsys, "--target", "phone:x").startswith("--target phone:x: no such kind of target; use one of qemu")


def test_emulator_that_is_not_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no emulator named gone is up" in error(capsys, "--target", "emulator:gone")


def test_config_too_large_for_this_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, VALID.replace("memory: 2GiB", "memory: 800GiB"))
    assert "60 %" in error(capsys, str(path))


def test_record_directory_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "run.sqlite").write_text("precious")
    assert "is there already" in error(capsys, "--record", str(tmp_path / "keep"))
    assert (tmp_path / "keep" / "run.sqlite").read_text() == "precious"
    assert "--record /proc/x" in error(capsys, "--record", "/proc/x")


def test_no_adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    assert "adb is not installed; install it with: apt-get install adb" in error(capsys, "--target", "adb:x")


def test_no_such_serial_and_a_phone_without_yes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeAdbServer() as server:
        server.devices = {"phone1": "device", "locked": "unauthorized"}
        server.shell = lambda _: (0, b"[ro.hardware]: [tokay]\n", b"")
        assert isinstance(server.address, tuple)
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.address[1]))
        assert "adb knows no device phone2; it knows: locked, phone1" in error(capsys, "--target", "adb:phone2")
        assert "has not authorized" in error(capsys, "--target", "adb:locked")
        assert "phone1 is not an emulator" in error(capsys, "--target", "adb:phone1")
        assert "--yes" in error(capsys, "--target", "adb:phone1")
        assert not any("kill" in request for request in server.requests)


def test_port_that_somebody_else_has(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        port = listener.getsockname()[1]
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        said = error(capsys, "--target", "adb:x")
        listener.shutdown(socket.SHUT_RDWR)
    assert f"something that is no adb server has the port 127.0.0.1:{port}; end it, or set" in said


def test_port_that_is_not_adbs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "none")
    assert "ANDROID_ADB_SERVER_PORT is 'none'" in error(capsys, "--target", "adb:x")


def test_json_errors_are_objects(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "phone-2bg", "--json"]) == 2
    body = json.loads(capsys.readouterr().out)
    assert body["error"]["owner"] == "user"
    assert body["error"]["exit_code"] == 2


def test_missing_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/nonexistent")
    assert "qemu-system-x86_64 is not installed" in error(capsys)
