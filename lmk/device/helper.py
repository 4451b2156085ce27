"""The helper on one device: push by content hash, start, connect, and talk to it over one stream.

``HelperStream`` works over any connected socket. It has no thread of its own: whoever waits in ``next_event`` or
``request`` also reads, and sends a sign of life where the wait is long. That is on purpose: if this process
hangs, the helper hears nothing and enters its fail-safe. One stream belongs to one thread.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import shlex
import socket
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from lmk.device import helper_wire
from lmk.device.helper_codec import FrameReader
from lmk.device.helper_messages import Done, ErrorReply, Hello, Killed, Message, Pong, ProcTable
from lmk.device.helper_requests import Auth, GetTable, Ping, Request
from lmk.device.helper_types import PROTOCOL_VERSION, TableRow, TableWhich
from lmk.device.native import native_binary
from lmk.errors import DeviceLostError, HelperError

REMOTE_DIR = "/data/local/tmp"
ABSTRACT_NAME = "lmk-helper"
REQUEST_TIMEOUT_S = 10.0
START_TIMEOUT_S = 30.0
#: Silence after which a waiting stream says something; well below any sensible ``failsafe_ms``.
SIGN_OF_LIFE_S = 0.5
_RECEIVE_BYTES = 1 << 18

_Answer = TypeVar("_Answer")


class Received(NamedTuple):
    """One unsolicited message. ``id`` is the Kill's request id for Killed, otherwise 0."""

    id: int
    message: Message


class RequestRefusedError(HelperError):
    """The helper answered a request with an ErrorReply."""

    def __init__(self, request: Request, reply: ErrorReply) -> None:
        super().__init__(f"helper refused {type(request).__name__}: {reply.text} (errno {reply.error})")
        self.errno = reply.error


class HelperStream:
    """Requests, answers and events over one connected stream socket. Closes it in the end."""

    def __init__(self, connection: socket.socket, token: str, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        """Authenticate. HelperError when the helper refuses, DeviceLostError when it does not answer."""
        self._socket = connection
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._reader = FrameReader()
        self._events: deque[Received] = deque()
        self._answers: dict[int, deque[Message]] = {}
        self._last_id = 0
        self._last_sent_s = 0.0
        self._closed = False
        try:
            self.hello = self.request(Auth(token=token), Hello, timeout_s=timeout_s)
        except BaseException:
            self.close()
            raise
        if self.hello.version != PROTOCOL_VERSION:
            self.close()
            raise HelperError(f"helper speaks protocol {self.hello.version}", "push the helper of this lmk version")

    # --- sending -------------------------------------------------------------------------------------

    def send(self, message: Request) -> None:
        """Send without wanting an answer (id 0)."""
        self._send(helper_wire.encode(message, 0))

    def post(self, message: Request, *, as_event: bool = False) -> int:
        """Send and return the id under which ``answer`` (and for a Kill, Killed) will come.

        ``as_event``: the answer comes from ``next_event`` like everything else of that id.
        """
        self._last_id = self._last_id % 0xFFFF_FFFF + 1
        if not as_event:
            self._answers[self._last_id] = deque()
        self._send(helper_wire.encode(message, self._last_id))
        return self._last_id

    def request(self, message: Request, answer: type[_Answer], *, timeout_s: float = REQUEST_TIMEOUT_S) -> _Answer:
        """Send and wait for the answer. RequestRefusedError, or DeviceLostError at the deadline."""
        request_id = self.post(message)
        reply = self.answer(request_id, timeout_s=timeout_s, final=True)
        if isinstance(reply, ErrorReply):
            raise RequestRefusedError(message, reply)
        if not isinstance(reply, answer):
            raise HelperError(f"helper answered {type(message).__name__} with {type(reply).__name__}")
        return reply

    def answer(self, request_id: int, *, timeout_s: float = REQUEST_TIMEOUT_S, final: bool = True) -> Message:
        """The next answer to a posted request; ``final``: forget the id afterwards."""
        deadline = time.monotonic() + timeout_s
        waiting = self._answers[request_id]
        while not waiting:
            self._receive(deadline - time.monotonic(), "an answer")
        if final:
            del self._answers[request_id]
        return waiting.popleft()

    # --- events --------------------------------------------------------------------------------------

    def next_event(self, timeout_s: float | None) -> Received | None:
        """The next unsolicited message, or None after ``timeout_s`` (None: wait for ever)."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._events:
            now = time.monotonic()
            left = SIGN_OF_LIFE_S if deadline is None else deadline - now
            if left <= 0:
                self._take(0)
                break
            self.keep_alive()
            self._take(min(left, SIGN_OF_LIFE_S))
        return self._events.popleft() if self._events else None

    def keep_alive(self) -> None:
        """Say something if nothing was sent for a while; call it in loops that do not wait here."""
        if time.monotonic() - self._last_sent_s > SIGN_OF_LIFE_S / 2:
            self.send(Ping())

    def fileno(self) -> int:
        """For select and poll next to other sources: readable means ``next_event(0)`` has something to read."""
        return self._socket.fileno()

    @property
    def has_events(self) -> bool:
        """Whether an event is queued already (the socket then need not be readable)."""
        return bool(self._events)

    # --- the few requests whose answer is more than one message ---------------------------------------------

    def ping(self, *, timeout_s: float = REQUEST_TIMEOUT_S) -> Pong:
        """One round trip; answers with the device's clocks."""
        return self.request(Ping(), Pong, timeout_s=timeout_s)

    def done(self, message: Request, *, timeout_s: float = REQUEST_TIMEOUT_S) -> Done:
        """A request that is answered with Done."""
        return self.request(message, Done, timeout_s=timeout_s)

    def table(self, which: TableWhich, *, timeout_s: float = REQUEST_TIMEOUT_S) -> tuple[TableRow, ...]:
        """All registered processes, or all of /proc."""
        request = GetTable(which=which)
        request_id = self.post(request)
        rows: list[TableRow] = []
        while True:
            part = self.answer(request_id, timeout_s=timeout_s, final=False)
            if isinstance(part, ProcTable):
                rows += part.rows
            if not isinstance(part, ProcTable) or part.last:
                del self._answers[request_id]
            if isinstance(part, ErrorReply):
                raise RequestRefusedError(request, part)
            if not isinstance(part, ProcTable):
                raise HelperError(f"helper answered GetTable with {type(part).__name__}")
            if part.last:
                return tuple(rows)

    def close(self) -> None:
        """Hang up; the helper goes on alone."""
        if not self._closed:
            self._closed = True
            self._socket.close()

    def __enter__(self) -> HelperStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- bytes -----------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        view = memoryview(data)
        self._last_sent_s = time.monotonic()
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not select.select([], [self._socket], [], left_s)[1]:
                    raise self._lost(f"did not take a request within {REQUEST_TIMEOUT_S:.0f} s") from None
            except OSError as error:
                raise self._lost(error.strerror or str(error)) from error

    def _receive(self, timeout_s: float, what: str) -> None:
        if timeout_s <= 0 or not self._take(min(timeout_s, SIGN_OF_LIFE_S)):
            if timeout_s <= SIGN_OF_LIFE_S:
                raise self._lost(f"no {what.removeprefix('an ')} in time")
            self.keep_alive()

    def _take(self, timeout_s: float) -> bool:
        """Read what is there, waiting at most ``timeout_s`` for the first byte; whether anything came."""
        # An error that was raised for one frame may have left others behind it.
        if self._sort_frames():
            return True
        # poll counts whole milliseconds; rounding up would make short waits (10 ms polling) late.
        if not self._poll.poll(timeout_s * 1000):
            return False
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error
        if not data:
            raise self._lost("hung up")
        self._reader.feed(data)
        self._sort_frames()
        return True

    def _sort_frames(self) -> bool:
        any_frame = False
        while (frame := self._reader.next()) is not None:
            any_frame = True
            self._sort(Received(frame.id, helper_wire.decode_message(frame)))
        return any_frame

    def _sort(self, received: Received) -> None:
        # Killed has its Kill's id but is an event: it may come in one read with the answer, Signalled.
        is_answer = received.id != 0 and not isinstance(received.message, Killed)
        waiting = self._answers.get(received.id) if is_answer else None
        if waiting is not None:
            waiting.append(received.message)
        elif isinstance(received.message, ErrorReply):
            raise HelperError(f"helper: {received.message.text} (errno {received.message.error})")
        elif not (isinstance(received.message, Pong | Done) and received.id == 0):
            self._events.append(received)

    def leftovers(self) -> list[Received]:
        """After a loss: unsolicited messages that had arrived and were not taken."""
        left = list(self._events)
        self._events.clear()
        return left

    def _lost(self, why: str) -> DeviceLostError:
        # What the helper said before the end may have been noticed by a failing send only.
        with contextlib.suppress(OSError, HelperError):
            while not self._closed and (data := self._socket.recv(_RECEIVE_BYTES)):
                self._reader.feed(data)
                while (frame := self._reader.next()) is not None:
                    self._sort(Received(frame.id, helper_wire.decode_message(frame)))
        self.close()
        return DeviceLostError(f"the helper's stream ended: {why}", "see whether the device is still there")


# --- starting it ----------------------------------------------------------------------------------------------


class ShellResult(Protocol):
    """What a shell command left."""

    @property
    def exit_code(self) -> int: ...

    @property
    def stdout(self) -> str: ...

    @property
    def stderr(self) -> str: ...


class Device(Protocol):
    """What the launcher needs of a device (``lmk.device.adb.AdbDevice``)."""

    def shell(self, command: str, timeout_s: float = ...) -> ShellResult: ...

    def push(self, source: bytes | Path, remote: str, mode: int = ..., timeout_s: float = ...) -> None: ...

    def open_abstract(self, name: str, timeout_s: float = ...) -> socket.socket: ...


class HelperProcess:
    """A helper that runs on a device, and the secret to talk to it. ``connect`` may be called again."""

    def __init__(self, device: Device, remote: str, token: str, name: str = ABSTRACT_NAME) -> None:
        self.device, self.remote, self.name = device, remote, name
        self._token = token

    def connect(self, *, timeout_s: float = REQUEST_TIMEOUT_S) -> HelperStream:
        """A new authenticated stream; DeviceLostError or HelperError."""
        return HelperStream(self.device.open_abstract(self.name, timeout_s), self._token, timeout_s=timeout_s)


def start_helper(device: Device, *, options: tuple[str, ...] = (), name: str = ABSTRACT_NAME) -> HelperProcess:
    """Push the helper (once per content) and start it; one left over from an earlier run is ended first.

    ``options`` are passed on, e.g. ("--lmkd-socket", PATH). HelperError when it does not start.
    """
    binary = native_binary("lmk-helper", device.shell("uname -m").stdout.strip())
    remote = f"{REMOTE_DIR}/{remote_name(binary)}"
    device.push(binary, remote, 0o755)
    stop_leftover(device, name)
    token, token_file = secrets.token_hex(16), f"{REMOTE_DIR}/.lmk-{secrets.token_hex(8)}"
    device.push(token.encode(), token_file, 0o600)
    argv = (remote, "--detach", "--abstract", name, "--token-file", token_file, *options)
    result = device.shell(shlex.join(argv), START_TIMEOUT_S)
    if result.exit_code != 0:
        device.shell(f"rm -f {shlex.quote(token_file)}")
        said = (result.stderr or result.stdout).strip().splitlines()
        raise HelperError(
            f"the helper did not start on the device: {said[-1] if said else f'exit code {result.exit_code}'}",
            "see whether the shell may run programs in " + REMOTE_DIR,
        )
    return HelperProcess(device, remote, token, name)


def remote_name(binary: Path) -> str:
    """File name on the device: with the content's hash in it a stale helper can never answer."""
    return f"lmk-helper-{helper_wire.content_hash(binary.read_bytes())}"


def stop_leftover(device: Device, name: str = ABSTRACT_NAME) -> None:
    """End a helper whose host is gone: it starts the services it stopped, registers their processes, exits.

    HelperError if it is still there after 15 s. Helpers under other names are left alone.
    """
    # Both processes of a helper have its command line; the guardian ignores SIGTERM and goes with the worker.
    script = (
        "for p in /proc/[0-9]*; do read -r n < $p/comm 2>/dev/null || continue; "
        "case $n in lmk-helper|lmk-guardian) ;; *) continue ;; esac; "
        f"tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q -e {shlex.quote(f'--abstract {name} ')} || continue; "
        "echo ${p#/proc/}; kill -TERM ${p#/proc/}; done"
    )
    deadline = time.monotonic() + 15
    while device.shell(script).stdout.strip():
        if time.monotonic() > deadline:
            raise HelperError("a helper of an earlier run does not end", "restart the device")
        time.sleep(0.1)
