"""The app runner as a local process, and a control socket that answers it: what its tests stand on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import attrs

from lmk.policy.lmkd.control_packets import Command, Dialect, Malformed, decode_command

PAGE = 4096


@attrs.frozen
class Answer:
    exit_code: int
    stdout: str
    stderr: str


class LocalDevice:
    """This machine, spoken to as a device is: push copies, shell runs, an abstract socket is one here."""

    serial = "local"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[str] = []
        self.streams: list[socket.socket] = []

    def shell(self, command: str, timeout_s: float = 10.0) -> Answer:
        self.commands.append(command)
        local = command.replace("/data/local/tmp/", f"{self.folder}/")
        done = subprocess.run(["sh", "-c", local], capture_output=True, text=True, timeout=timeout_s)
        return Answer(done.returncode, done.stdout, done.stderr)

    def push(self, source: bytes | Path, remote: str, mode: int = 0o644, timeout_s: float = 10.0) -> None:
        target = self.folder / Path(remote).name
        if not target.exists():
            target.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
        target.chmod(mode)

    def open_abstract(self, name: str, timeout_s: float = 10.0) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.connect(f"\0{name}")
        self.streams.append(stream)
        return stream


class FakeLmkd:
    """The server's end of /dev/socket/lmkd: keeps every packet, decoded by the Python codec."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packets: list[Command | Malformed] = []
        self.raw: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen(3)
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                self._connection = connection
                while data := connection.recv(256):
                    self.raw.append(data)
                    self.packets.append(decode_command(data, Dialect()))
        except OSError:
            return

    def notify(self, packet: bytes) -> None:
        assert self._connection is not None
        self._connection.send(packet)

    def close(self) -> None:
        for end in (self._connection, self._listener):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._thread.join(5)
        self.path.unlink(missing_ok=True)


def make_pool(path: Path, pages: int) -> None:
    """A pool file of random (so non-zero and distinct) blocks."""
    path.write_bytes(os.urandom(pages * PAGE))


def living(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, timeout_s: float = 10.0) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.01)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
