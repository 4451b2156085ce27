"""The host's side of lmk-apprunner: push it, start it, give it a timeline, read what happens.

The runner works on its own clock once started and keeps its events while nobody reads, so a lost connection loses
nothing: ``poll`` connects again and asks for what it has not seen (docs/scenarios.md has the protocol).
"""

from __future__ import annotations

import hashlib
import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import attrs

from lmk.config.timeline import Timeline, timeline_text
from lmk.device.native import native_binary
from lmk.errors import DeviceLostError, TargetError

SOCKET_NAME: Final = "lmk-apprunner"
REMOTE_DIRECTORY: Final = "/data/local/tmp"
#: lmk-apprunner's exit code when another one has the socket.
_IN_USE: Final = 4
_ANSWER_S: Final = 20.0
#: Some gigabytes of dying apps, one after another, in software emulation.
_STOP_S: Final = 60.0
#: Filling the base load and unreclaimable memory of a large device takes this long in software emulation.
PREPARE_S: Final = 180.0
_RECONNECT_S: Final = 30.0
#: Events after which nothing follows on this connection.
_LAST: Final = ("stopped",)


class ShellAnswer(Protocol):
    """What a command on the device left."""

    @property
    def exit_code(self) -> int:
        """Of the command."""

    @property
    def stdout(self) -> str:
        """As text."""

    @property
    def stderr(self) -> str:
        """As text."""


class Device(Protocol):
    """What this module needs of lmk.device.adb.AdbDevice."""

    @property
    def serial(self) -> str:
        """For errors."""

    def shell(self, command: str, timeout_s: float = ...) -> ShellAnswer:
        """Run a command."""

    def push(self, source: bytes | Path, remote: str, mode: int = ..., timeout_s: float = ...) -> None:
        """Copy a file to the device."""

    def open_abstract(self, name: str, timeout_s: float = ...) -> socket.socket:
        """Connect to an abstract socket on the device."""


@attrs.frozen(kw_only=True)
class AppEvent:
    """One event. ``t_ns`` is the device's CLOCK_MONOTONIC; ``body`` holds the members that its kind has."""

    seq: int
    t_ns: int
    kind: str
    body: dict[str, Any]


def parse_event(line: bytes) -> AppEvent:
    """An event from one JSON line. Raises ValueError for anything else."""
    members = json.loads(line)
    if not isinstance(members, dict):
        raise TypeError("an event must be an object")
    return AppEvent(
        seq=int(members.pop("seq")), t_ns=int(members.pop("t_ns")), kind=str(members.pop("kind")), body=members
    )


class AppRunner:
    """One runner on one device. Not for use from several threads at once."""

    def __init__(
        self,
        device: Device,
        *,
        arch: str = "x86_64",
        binary: Path | None = None,
        arguments: str = "",
        socket_name: str = SOCKET_NAME,
    ) -> None:
        self._device = device
        self._arch = arch
        self._binary = binary
        self._arguments = arguments
        self._socket_name = socket_name
        self._stream: socket.socket | None = None
        self._buffer = b""
        self._next_seq = 0
        self._pending: list[AppEvent] = []
        self._ended = False

    def start(self, timeline: Timeline, *, prepare_s: float = PREPARE_S) -> AppEvent:
        """All at once: launch the runner, load, prepare and go. Answers the ``started`` event (t_ns: time zero)."""
        self.launch()
        self.load(timeline)
        self.prepare(prepare_s)
        return self.go()

    def launch(self) -> None:
        """Push the runner and start it; one that is left over from an earlier run is stopped first."""
        binary = self._binary or native_binary("lmk-apprunner", self._arch)
        data = binary.read_bytes()
        remote = f"{REMOTE_DIRECTORY}/lmk-apprunner-{hashlib.sha256(data).hexdigest()[:12]}"
        self._device.push(data, remote, 0o755)
        command = f"{remote} --daemon --socket @{self._socket_name} {self._arguments}".rstrip()
        answer = self._device.shell(command, timeout_s=_ANSWER_S)
        if answer.exit_code == _IN_USE:
            self._stop_leftover()
            answer = self._device.shell(command, timeout_s=_ANSWER_S)
        if answer.exit_code != 0:
            said = (answer.stderr or answer.stdout).strip().splitlines()
            raise TargetError(
                f"{self._device.serial}: lmk-apprunner did not start" + (f": {said[-1]}" if said else ""),
                detail="\n".join(said),
            )
        self._connect()

    def load(self, timeline: Timeline) -> AppEvent:
        """Give it the timeline; TargetError if it does not take it."""
        text = timeline_text(timeline).encode()
        self._send(f"load {len(text)}\n".encode() + text)
        return self._wait_for("loaded", _ANSWER_S)

    def prepare(self, timeout_s: float = PREPARE_S) -> AppEvent:
        """Start the base load and wait until its memory is written. TargetError if it takes longer."""
        self._send(b"prepare\n")
        return self._wait_for("prepared", timeout_s)

    def go(self) -> AppEvent:
        """Time zero is now; answers the ``started`` event."""
        self._send(b"go\n")
        return self._wait_for("started", _ANSWER_S)

    def step(self, text: str) -> None:
        """Carry out one step at once, written as in a timeline: ``launch 3`` or ``grow 3 kib=1024``."""
        self._send(f"do {text}\n".encode())

    def status(self) -> None:
        """Ask for a ``process`` event per living process, ``memory`` and ``status``."""
        self._send(b"status\n")

    def fileno(self) -> int:
        """For select; -1 while not connected."""
        return self._stream.fileno() if self._stream is not None else -1

    def poll(self, timeout_s: float = 0.0) -> list[AppEvent]:
        """Events that have come, waiting up to ``timeout_s`` for the first. DeviceLostError if nothing reconnects."""
        if not self._pending:
            self._receive(timeout_s)
        events, self._pending = self._pending, []
        return events

    def events(self, *, until: str = "done", timeout_s: float = 600.0) -> Iterator[AppEvent]:
        """Events as they come, up to and with the first of kind ``until``. TargetError after ``timeout_s``."""
        end = time.monotonic() + timeout_s
        while True:
            # One at a time: what the caller does not take is still there for the next one who asks.
            while self._pending:
                event = self._pending.pop(0)
                yield event
                if event.kind == until or event.kind in _LAST:
                    return
            left_s = end - time.monotonic()
            if left_s <= 0:
                break
            self._receive(min(1.0, left_s))
        raise TargetError(f"{self._device.serial}: no {until!r} event of lmk-apprunner within {timeout_s:.0f} s")

    def stop(self, timeout_s: float = _STOP_S) -> list[AppEvent]:
        """Kill every app and end the runner; answers what it still had to say. Nothing happens if it has ended."""
        if self._stream is None or self._ended:
            return []
        self._send(b"stop\n")
        return list(self.events(until="stopped", timeout_s=timeout_s))

    def close(self) -> None:
        """Disconnect. The runner goes on; it ends by itself a while after the timeline if nobody comes back."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> AppRunner:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        except TargetError:
            return  # gone already; the error that matters is the caller's
        finally:
            self.close()

    def _connect(self) -> None:
        self.close()
        self._buffer = b""
        self._stream = self._device.open_abstract(self._socket_name)
        # Also the first time: a runner that was started long ago has events already.
        self._stream.sendall(f"from {self._next_seq}\n".encode())

    def _stop_leftover(self) -> None:
        with self._device.open_abstract(self._socket_name) as stream:
            stream.settimeout(_ANSWER_S)
            stream.sendall(b"stop\n")
            try:
                while stream.recv(65536):
                    continue
            except OSError:
                return

    def _send(self, data: bytes) -> None:
        if self._stream is None:
            self._connect()
        assert self._stream is not None
        try:
            self._stream.sendall(data)
        except OSError as error:
            raise DeviceLostError(f"{self._device.serial}: lost lmk-apprunner ({error})") from error

    def _wait_for(self, kind: str, timeout_s: float) -> AppEvent:
        """The next event of a kind; the others stay for poll."""
        end = time.monotonic() + timeout_s
        seen = 0
        while True:
            for event in self._pending[seen:]:
                seen += 1
                if event.kind in ("bad_timeline", "refused"):
                    raise TargetError(f"{self._device.serial}: lmk-apprunner refuses: {_why(event)}")
                if event.kind == kind:
                    return event
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise TargetError(
                    f"{self._device.serial}: no {kind!r} event of lmk-apprunner within {timeout_s:.0f} s",
                    detail="\n".join(f"{event.kind} {event.body}" for event in self._pending[-20:]),
                )
            self._receive(min(1.0, left_s))

    def _receive(self, timeout_s: float) -> None:
        """Read what there is into ``_pending``; connects again if the stream has ended before ``stopped``."""
        if self._stream is None or self._ended:
            return
        ready, _, _ = select.select([self._stream], [], [], timeout_s)
        if not ready:
            return
        try:
            data = self._stream.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._reconnect()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            event = parse_event(line)
        except (ValueError, KeyError, TypeError) as error:
            raise TargetError(f"{self._device.serial}: lmk-apprunner sent {line[:80]!r}") from error
        if event.seq < self._next_seq:
            return
        self._next_seq = event.seq + 1
        self._pending.append(event)
        self._ended = event.kind in _LAST

    def _reconnect(self) -> None:
        end = time.monotonic() + _RECONNECT_S
        while True:
            try:
                self._connect()
            except (DeviceLostError, OSError) as error:
                if time.monotonic() > end:
                    raise DeviceLostError(f"{self._device.serial}: lmk-apprunner is gone", detail=str(error)) from error
                time.sleep(0.2)
            else:
                return


def _why(event: AppEvent) -> str:
    place = f"line {event.body['line']}: " if "line" in event.body else ""
    return f"{place}{event.body.get('why', '')}"
