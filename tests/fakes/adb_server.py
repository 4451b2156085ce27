"""An adb server that speaks the real protocol on a free port (or a unix socket), with a made-up device behind it.

What it can be told to do wrong: stall (accept and never answer), drop a connection after so many bytes, store
damaged pushes, refuse services. ``kill`` is recorded, so that a test can prove nobody asked for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType

ShellHandler = Callable[[str], tuple[int, bytes, bytes]]


class FakeAdbServer:
    """One server, one serial by default; start it with ``with``."""

    def __init__(self, *, path: str | None = None) -> None:
        self.devices: dict[str, str] = {"emulator-5554": "device"}
        self.files: dict[str, tuple[int, bytes]] = {}
        self.abstract_sockets: dict[str, Callable[[socket.socket], None]] = {}
        self.requests: list[str] = []
        self.shell: ShellHandler = self.default_shell
        self.stall = False
        self.drop_after_bytes: int | None = None
        self.damage_pushes = 0
        self.refuse_connect = ""
        family = socket.AF_UNIX if path else socket.AF_INET
        self._listener = socket.socket(family)
        self._listener.bind(path if path else ("127.0.0.1", 0))
        self._listener.listen(16)
        self.address: tuple[str, int] | str = path if path else self._listener.getsockname()
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> FakeAdbServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._thread.join(5)

    def default_shell(self, command: str) -> tuple[int, bytes, bytes]:
        """A device that knows sha256sum, chmod, cat and true."""
        words = shlex.split(command)
        if words[0] == "sha256sum":
            if words[1] not in self.files:
                return 1, b"", b"sha256sum: No such file\n"
            digest = hashlib.sha256(self.files[words[1]][1]).hexdigest()
            return 0, f"{digest}  {words[1]}\n".encode(), b""
        if words[0] == "chmod":
            self.files[words[2]] = (int(words[1], 8), self.files[words[2]][1])
            return 0, b"", b""
        if words[0] == "cat":
            return (0, self.files[words[1]][1], b"") if words[1] in self.files else (1, b"", b"cat: no\n")
        return (0, b"", b"") if words[0] == "true" else (127, b"", f"{words[0]}: not found\n".encode())

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            while not self.stall:
                length = int(_exactly(connection, 4), 16)
                request = _exactly(connection, length).decode()
                self.requests.append(request)
                if not self._answer(connection, request):
                    break
            if self.stall:
                return  # kept open, never answered
        connection.close()

    def _answer(self, connection: socket.socket, request: str) -> bool:
        """Answer one request; True if the connection then expects another (a transport was chosen)."""
        if request == "host:version":
            connection.sendall(b"OKAY" + _block("0029"))
        elif request == "host:devices":
            listing = "".join(f"{serial}\t{state}\n" for serial, state in self.devices.items())
            connection.sendall(b"OKAY" + _block(listing))
        elif request.startswith("host:transport:"):
            serial = request.removeprefix("host:transport:")
            state = self.devices.get(serial)
            if state == "device":
                connection.sendall(b"OKAY")
                return True
            _fail(connection, f"device '{serial}' not found" if state is None else f"device {state}")
        elif request.startswith("host:connect:"):
            serial = request.removeprefix("host:connect:")
            if not self.refuse_connect:
                self.devices[serial] = "device"
            connection.sendall(b"OKAY" + _block(self.refuse_connect or f"connected to {serial}"))
        elif request.startswith("host:disconnect:"):
            self.devices.pop(request.removeprefix("host:disconnect:"), None)
            connection.sendall(b"OKAY" + _block("disconnected"))
        else:
            self._service(connection, request)
        return False

    def _service(self, connection: socket.socket, request: str) -> None:
        if request.startswith("shell,v2,raw:"):
            connection.sendall(b"OKAY")
            self._run_shell(connection, request.removeprefix("shell,v2,raw:"))
        elif request == "sync:":
            connection.sendall(b"OKAY")
            self._sync_push(connection)
        elif request.startswith("localabstract:"):
            handler = self.abstract_sockets.get(request.removeprefix("localabstract:"))
            if handler is None:
                _fail(connection, "closed")
            else:
                connection.sendall(b"OKAY")
                handler(connection)
        else:
            _fail(connection, f"unknown service {request}")

    def _run_shell(self, connection: socket.socket, command: str) -> None:
        code, stdout, stderr = self.shell(command)
        packets = b"".join(
            struct.pack("<BI", kind, len(data)) + data for kind, data in ((1, stdout), (2, stderr)) if data
        )
        packets += struct.pack("<BI", 3, 1) + bytes([code])
        if self.drop_after_bytes is not None:
            packets = packets[: self.drop_after_bytes]
        connection.sendall(packets)

    def _sync_push(self, connection: socket.socket) -> None:
        (command, length) = struct.unpack("<4sI", _exactly(connection, 8))
        assert command == b"SEND", command
        path, _, mode = _exactly(connection, length).decode().rpartition(",")
        data = b""
        while True:
            kind, length = struct.unpack("<4sI", _exactly(connection, 8))
            if kind == b"DONE":
                break
            assert kind == b"DATA" and length <= 64 * 1024, (kind, length)
            data += _exactly(connection, length)
            if self.drop_after_bytes is not None and len(data) > self.drop_after_bytes:
                return
        if path.startswith("/system/"):
            reason = b"Read-only file system"
            connection.sendall(b"FAIL" + struct.pack("<I", len(reason)) + reason)
            return
        if self.damage_pushes > 0:
            self.damage_pushes -= 1
            data = data[:-1] + b"?"
        self.files[path] = (int(mode) & 0o7777, data)
        connection.sendall(b"OKAY" + struct.pack("<I", 0))


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data


def _block(text: str) -> bytes:
    return f"{len(text):04x}{text}".encode()


def _fail(connection: socket.socket, reason: str) -> None:
    connection.sendall(b"FAIL" + _block(reason))
