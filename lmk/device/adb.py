"""adb: our own private server, the user's server, and one device behind either. The only importer of adbutils.

adbutils speaks the server's protocol; added here are deadlines for whole operations, pushes checked by hash, shell v2
exit codes, and errors that name the device. A connection that fails never starts an adb server by itself (adbutils
would, on the default port). ``kill-server`` is never sent to anybody: our own server is a child process that dies
with us.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adbutils import AdbClient, AdbConnection, AdbError, AdbTimeout
from attrs import frozen

from lmk import subproc
from lmk.errors import DeviceLostError, HostError, InfraError, UserError

DEFAULT_TIMEOUT_S = 30.0
PUSH_TIMEOUT_S = 120.0
_SERVER_START_TIMEOUT_S = 20.0
_SCRATCH = "lmk-adb-"
_PUSH_CHUNK_BYTES = 64 * 1024  # the sync protocol's largest DATA block
_STDOUT, _STDERR, _EXIT = 1, 2, 3  # shell v2 packet ids (adb's shell_protocol.h)


@frozen(kw_only=True)
class ShellResult:
    """What a command on the device left: its exit code and its two streams, as bytes."""

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        """Standard output as text; bytes that are no UTF-8 are replaced."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error as text."""
        return self.stderr_bytes.decode(errors="replace")


class _Deadline:
    """The end of one whole operation, however many steps it has."""

    def __init__(self, timeout_s: float) -> None:
        self._end = time.monotonic() + timeout_s

    def left_s(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Connection(AdbConnection):  # type: ignore[misc]
    """An adbutils connection that reports a missing server instead of starting one, to TCP or unix sockets."""

    def __init__(self, address: tuple[str, int] | str, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        super().__init__("", 0)

    def _safe_connect(self) -> socket.socket:
        family = socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET
        connection = socket.socket(family)
        try:
            connection.settimeout(self._timeout_s)
            connection.connect(self._address)
        except BaseException:
            connection.close()
            raise
        return connection

    def send_command(self, cmd: str) -> None:
        # adbutils' own send() may write only a part.
        self.conn.sendall(f"{len(cmd.encode()):04x}".encode() + cmd.encode())

    def close(self) -> None:
        # adbutils sleeps 10 ms in here, which a decision within 5 ms cannot afford.
        if not self.closed:
            self.conn.close()
            self._AdbConnection__conn = None


class _Client(AdbClient):  # type: ignore[misc]
    """adbutils' client at one address, never at the one in the environment."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        host, port = address if isinstance(address, tuple) else (address, 1)
        super().__init__(host, port)
        self._address = address

    def make_connection(self, timeout: float | None = None) -> _Connection:
        return _Connection(self._address, timeout or DEFAULT_TIMEOUT_S)

    def open_service(self, serial: str, service: str, timeout_s: float) -> _Connection:
        """A stream to a service on a device. adbutils asks for the server's version first, without deadline."""
        connection = self.make_connection(timeout_s)
        try:
            for command in (f"host:transport:{serial}", service):
                connection.send_command(command)
                connection.check_okay()
        except BaseException:
            connection.close()
            raise
        return connection


class AdbServer:
    """An adb server to talk to: a private one of ours (``start``) or the user's (``of_user``)."""

    def __init__(self, address: tuple[str, int] | str, *, folder: Path | None = None) -> None:
        """``address``: (host, port) or the path of a unix socket; ``folder`` is given up in ``close``."""
        self.address = address
        self._folder = folder
        self._process: subproc.Process | None = None
        self._client = _Client(address)

    @classmethod
    def start(cls) -> AdbServer:
        """Start a private server on a unix socket in a directory of its own: no port, hence no race for one.

        It looks for no emulator, claims no USB device and dies with this process; call from the main thread
        (see lmk.subproc). HostError without adb, InfraError when it does not come up.
        """
        # Unix socket paths end at 107 bytes; a cache or run directory may be deeper than that.
        _sweep_scratch()
        folder = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-"))
        server = cls(str(folder / "socket"), folder=folder)
        try:
            server._spawn()
        except BaseException:
            server.close()
            raise
        return server

    @classmethod
    def of_user(cls) -> AdbServer:
        """The user's server, started as adb itself would if none runs. UserError when that fails."""
        host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS", "127.0.0.1")
        text = os.environ.get("ANDROID_ADB_SERVER_PORT", "5037")
        if not text.isdigit() or not 0 < int(text) < 65536:
            raise UserError(f"ANDROID_ADB_SERVER_PORT is {text!r}", "set it to a port number, or unset it")
        server = cls((host, int(text)))
        if not server.answers():
            if server.listens():
                raise UserError(
                    f"something that is no adb server has the port {host}:{text}",
                    "end it, or set ANDROID_ADB_SERVER_PORT to another port",
                )
            adb = subproc.require_tool("adb", "adb")
            try:
                # Only where nothing answers: start-server replaces a running server of another version.
                subproc.run([adb, "start-server"], timeout_s=_SERVER_START_TIMEOUT_S)
            except InfraError as error:
                raise HostError("the adb server did not start", "try: adb start-server", detail=error.detail) from None
        return server

    def answers(self) -> bool:
        """Whether a server accepts connections at the address."""
        try:
            with self._client.make_connection(2.0) as connection:
                connection.send_command("host:version")
                connection.check_okay()
        except (OSError, AdbError, EOFError):
            return False
        return True

    def listens(self) -> bool:
        """Whether anything at all accepts connections at the address."""
        try:
            self._client.make_connection(2.0).close()
        except (OSError, AdbError):
            return False
        return True

    @property
    def pid(self) -> int | None:
        """Process id of a private server."""
        return self._process.pid if self._process is not None else None

    def ensure(self) -> None:
        """Bring a private server back that has died or no longer answers; the user's is left alone."""
        if self._folder is None or (self._process is not None and self.answers()):
            return
        if self._process is not None:
            subproc.stop(self._process)
        self._spawn()

    def devices(self) -> dict[str, str]:
        """Serial to state ("device", "offline", "unauthorized") of everything the server knows."""
        with _owned("adb server", "listing devices", DEFAULT_TIMEOUT_S), self._client.make_connection() as connection:
            connection.send_command("host:devices")
            connection.check_okay()
            lines = connection.read_string_block().splitlines()
        return dict(line.split("\t", 1) for line in lines if "\t" in line)

    def connect(self, address: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> AdbDevice:
        """Connect to ``host:port``; the device may still be offline (``AdbDevice.wait_online``)."""
        with _owned(address, "adb connect", timeout_s):
            answer = self._client.connect(address, timeout=timeout_s)
        if not answer.startswith(("connected", "already connected")):
            raise DeviceLostError(f"adb connect {address}: {answer}", "see whether the guest still runs")
        return self.device(address)

    def disconnect(self, address: str) -> None:
        """Drop the transport to ``host:port``; an unknown one is no error."""
        with _owned(address, "adb disconnect", DEFAULT_TIMEOUT_S):
            self._client.disconnect(address)

    def device(self, serial: str) -> AdbDevice:
        """The device of this serial, whether it is there or not."""
        return AdbDevice(self, serial)

    def command(self, *arguments: str) -> list[str]:
        """An ``adb`` command line for this server, for what only the real client can do (interactive shells)."""
        adb = subproc.require_tool("adb", "adb")
        if isinstance(self.address, str):
            place = f"localfilesystem:{self.address}"
        else:
            place = f"tcp:{self.address[0]}:{self.address[1]}"
        return [adb, "-L", place, *arguments]

    def close(self) -> None:
        """End a private server; the user's is left alone."""
        if self._process is not None:
            subproc.stop(self._process)
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> AdbServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spawn(self) -> None:
        assert self._folder is not None
        folder = self._folder
        Path(str(self.address)).unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ADB_", "ANDROID_"))}
        # The server's key pair is its own; the guest's adbd asks for none.
        environment |= {"HOME": str(folder), "TMPDIR": str(folder), "ADB_MDNS": "0", "ADB_MDNS_OPENSCREEN": "0"}
        environment |= {"ADB_LOCAL_TRANSPORT_MAX_PORT": "0", "ADB_EMU": "0", "ADB_USB": "0"}
        with (folder / "log").open("ab") as log:
            self._process = subproc.spawn_tied(self.command("nodaemon", "server"), stdout=log, env=environment)
        deadline = time.monotonic() + _SERVER_START_TIMEOUT_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (folder / "log").read_text(errors="replace").splitlines()[-10:]
                raise InfraError("our adb server did not start", "try: adb start-server", detail="\n".join(tail))
            time.sleep(0.01)


class AdbDevice:
    """One device. Every call opens its own stream, so calls may come from any thread."""

    def __init__(self, server: AdbServer, serial: str) -> None:
        self.server = server
        self.serial = serial
        self._client = server._client

    def __repr__(self) -> str:
        return f"AdbDevice({self.serial!r})"

    def shell(self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> ShellResult:
        """Run a command line in the device's shell (shell v2). DeviceLostError at the deadline or without device."""
        streams = {_STDOUT: bytearray(), _STDERR: bytearray()}
        exit_code = None
        with self._stream(f"shell,v2,raw:{command}", f"shell `{command}`", timeout_s) as (connection, deadline):
            while exit_code is None:
                packet, length = struct.unpack("<BI", _receive(connection, 5, deadline))
                data = _receive(connection, length, deadline)
                if packet == _EXIT:
                    exit_code = data[0]
                elif packet in streams:
                    streams[packet] += data
        return ShellResult(
            exit_code=exit_code, stdout_bytes=bytes(streams[_STDOUT]), stderr_bytes=bytes(streams[_STDERR])
        )

    def check_shell(self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> str:
        """Standard output of a command that must succeed; DeviceLostError with its stderr otherwise."""
        result = self.shell(command, timeout_s)
        if result.exit_code != 0:
            said = (result.stderr or result.stdout).strip().splitlines()
            raise DeviceLostError(
                f"{self.serial}: `{_shown(command)}` failed with exit code {result.exit_code}"
                + (f": {said[-1]}" if said else "")
            )
        return result.stdout

    def push(self, source: bytes | Path, remote: str, mode: int = 0o644, timeout_s: float = PUSH_TIMEOUT_S) -> None:
        """Copy bytes or a file to the device and compare hashes there; an equal file is not sent again."""
        data = source if isinstance(source, bytes) else _read_local(source)
        deadline = _Deadline(timeout_s)
        wanted = hashlib.sha256(data).hexdigest()
        if self._remote_hash(remote, deadline) == wanted:
            self.check_shell(f"chmod {mode:o} {shlex.quote(remote)}", deadline.left_s())
            return
        # Idempotent, hence tried again once: a transport that was cut leaves a short file behind.
        for attempt in (1, 2):
            self._send(data, remote, mode, deadline)
            found = self._remote_hash(remote, deadline)
            if found == wanted:
                return
            if attempt == 2:
                raise DeviceLostError(f"{self.serial}: {remote} arrived damaged (sha256 {found or 'unreadable'})")

    def read_bytes(self, remote: str, timeout_s: float = PUSH_TIMEOUT_S) -> bytes:
        """The contents of a file on the device; DeviceLostError if it cannot be read."""
        result = self.shell(f"cat {shlex.quote(remote)}", timeout_s)
        if result.exit_code != 0:
            raise DeviceLostError(f"{self.serial}: {result.stderr.strip() or remote}")
        return result.stdout_bytes

    def open_abstract(self, name: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> socket.socket:
        """A stream to a localabstract socket on the device; blocking, the caller closes it."""
        stream = self._open(f"localabstract:{name}", timeout_s)
        if stream.family == socket.AF_INET:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream

    def open_output(self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> socket.socket:
        """Output of a command that goes on; blocking, closing it ends the command. DeviceLostError."""
        return self._open(f"exec:{command}", timeout_s)

    def _open(self, service: str, timeout_s: float) -> socket.socket:
        with _owned(self.serial, f"opening {service}", timeout_s):
            connection = self._client.open_service(self.serial, service, timeout_s)
        stream: socket.socket = connection.conn
        stream.settimeout(None)
        return stream

    def getprop(self, name: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> str:
        """A property's value, "" if unset."""
        return self.check_shell(f"getprop {shlex.quote(name)}", timeout_s).rstrip("\n")

    def setprop(self, name: str, value: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Set a property; DeviceLostError if the device refuses."""
        self.check_shell(f"setprop {shlex.quote(name)} {shlex.quote(value)}", timeout_s)

    def service(self, name: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> str:
        """All that a service of adbd says (``root:``) until it hangs up."""
        said = bytearray()
        with self._stream(name, name, timeout_s) as (connection, deadline):
            while True:
                connection.settimeout(deadline.left_s())
                if not (chunk := connection.recv(4096)):
                    return said.decode(errors="replace")
                said += chunk

    def state(self) -> str:
        """ "device", "offline", "unauthorized" … as the server says; "absent" if it does not know the serial."""
        return self.server.devices().get(self.serial, "absent")

    def wait_online(self, timeout_s: float) -> None:
        """Until a shell answers. A transport that stays offline is dropped and connected anew on the way."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                self.shell("true", timeout_s=min(5.0, max(0.1, end - time.monotonic())))
            except DeviceLostError:
                if time.monotonic() > end:
                    raise
            else:
                return
            time.sleep(0.05)
            self._reconnect(end)

    def recover(self, timeout_s: float) -> None:
        """After the server or the transport died: server, transport and shell again, or DeviceLostError."""
        self.server.ensure()
        self.wait_online(timeout_s)

    def _reconnect(self, end: float) -> None:
        """Only a network transport can be made anew; the server finds others by itself."""
        try:
            if ":" not in self.serial or self.state() == "device":
                return
            self.server.disconnect(self.serial)
            self.server.connect(self.serial, max(0.1, end - time.monotonic()))
        except DeviceLostError:
            return  # wait_online's deadline decides

    def _remote_hash(self, remote: str, deadline: _Deadline) -> str | None:
        result = self.shell(f"sha256sum {shlex.quote(remote)}", deadline.left_s())
        return result.stdout.split(maxsplit=1)[0] if result.exit_code == 0 and result.stdout else None

    def _send(self, data: bytes, remote: str, mode: int, deadline: _Deadline) -> None:
        target = f"{remote},{0o100000 | mode}".encode()
        left_s = deadline.left_s()
        with self._stream("sync:", f"push to {remote}", left_s) as (connection, step):
            connection.sendall(b"SEND" + struct.pack("<I", len(target)) + target)
            for start in range(0, len(data), _PUSH_CHUNK_BYTES):
                chunk = data[start : start + _PUSH_CHUNK_BYTES]
                connection.settimeout(step.left_s())
                connection.sendall(b"DATA" + struct.pack("<I", len(chunk)) + chunk)
            connection.sendall(b"DONE" + struct.pack("<I", int(time.time())))
            answer, length = struct.unpack("<4sI", _receive(connection, 8, step))
            if answer != b"OKAY":
                reason = _receive(connection, length, step).decode(errors="replace")
                raise DeviceLostError(f"{self.serial}: push to {remote}: {reason}")

    @contextmanager
    def _stream(self, service: str, what: str, timeout_s: float) -> Iterator[tuple[socket.socket, _Deadline]]:
        deadline = _Deadline(timeout_s)
        with (
            _owned(self.serial, what, timeout_s),
            self._client.open_service(self.serial, service, timeout_s) as connection,
        ):
            yield connection.conn, deadline


def user_device(serial: str) -> AdbDevice:
    """A device of the user's own adb server, named by its serial; never one chosen implicitly.

    UserError (exit 2) without adb, without that serial, or when it is offline or unauthorized.
    """
    if not serial:
        raise UserError("no adb serial given", "name one of `adb devices`, as in adb:emulator-5554")
    server = AdbServer.of_user()
    try:
        known = server.devices()
    except DeviceLostError as error:
        raise HostError(f"the adb server does not answer: {error.cause}", "try: adb start-server") from error
    state = known.get(serial)
    if state is None:
        names = ", ".join(sorted(known)) or "none"
        raise UserError(f"adb knows no device {serial}", f"it knows: {names} (see `adb devices`)")
    if state == "unauthorized":
        raise UserError(f"{serial} has not authorized this computer", "accept the dialog on its screen")
    if state != "device":
        raise UserError(f"{serial} is {state}", "see `adb devices`, replug it or restart the emulator")
    return server.device(serial)


@contextmanager
def _owned(serial: str, what: str, timeout_s: float) -> Iterator[None]:
    """Every failure below adb becomes a DeviceLostError that says which device and what was asked of it."""
    try:
        yield
    except (TimeoutError, AdbTimeout) as error:
        raise DeviceLostError(f"{serial}: {_shown(what)} did not answer within {timeout_s:.1f} s") from error
    except AdbError as error:
        raise DeviceLostError(f"{serial}: {_shown(what)}: {error}") from error
    except ConnectionRefusedError as error:
        raise DeviceLostError(f"{serial}: {_shown(what)}: the adb server is gone") from error
    except (OSError, EOFError, struct.error) as error:
        raise DeviceLostError(f"{serial}: {_shown(what)}: connection lost ({error})") from error


def _sweep_scratch() -> None:
    """Remove directories of private servers whose process was killed before it could tidy up."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*-*"):
        owner = folder.name.removeprefix(_SCRATCH).partition("-")[0]
        try:
            if owner.isdigit() and folder.stat().st_uid == os.geteuid() and not Path("/proc", owner).exists():
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # somebody else swept it
            continue


def _receive(connection: socket.socket, count: int, deadline: _Deadline) -> bytes:
    data = bytearray()
    while len(data) < count:
        connection.settimeout(deadline.left_s())
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise EOFError("closed by the device")
        data += chunk
    return bytes(data)


def _read_local(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "check the path and its permissions") from None


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "..."
