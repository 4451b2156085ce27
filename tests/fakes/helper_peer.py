"""Two stand-ins for a helper on a device: the real program as a local process, and a scripted peer in Python."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from lmk.device import helper_wire, native
from lmk.device.helper import HelperStream, Received
from lmk.device.helper_codec import FrameReader
from lmk.device.helper_messages import Hello, Message, Pong, SettingsDone
from lmk.device.helper_requests import Auth, Ping, Request, Settings

TOKEN = "correct-horse-battery"
_Message = TypeVar("_Message")
_names = itertools.count(1)


def helper_binary() -> Path:
    """The helper for this machine, built from the sources of this checkout."""
    return native.build("lmk-helper", os.uname().machine)


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Poll; AssertionError naming ``what`` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.005)


class LocalHelper:
    """The real helper as a process of this machine, tied to this one."""

    def __init__(self, folder: Path, *, proc_root: Path | None = None, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.name = f"lmk-test-{os.getpid()}-{next(_names)}"
        self.lmkd_socket = folder / "lmkd"
        self.bin_dir = folder / "bin"
        self.log_file = folder / "helper.log"
        argv = [str(helper_binary()), "--abstract", self.name, "--tied", "--root", str(folder)]
        argv += ["--lmkd-socket", "/lmkd", "--bin-dir", str(self.bin_dir), "--log-file", str(self.log_file)]
        argv += ["--proc-root", str(proc_root or "/proc"), *options]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, env={**os.environ, "LMK_HELPER_TOKEN": TOKEN}, start_new_session=True
        )
        wait_until(self._listens, "the helper's socket")

    def open_socket(self) -> socket.socket:
        """A bare connection, not yet authenticated."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect("\0" + self.name)
        except OSError:
            connection.close()
            raise
        return connection

    def connect(self, settings: Settings | None = None) -> HelperStream:
        """An authenticated stream, with settings applied if given."""
        stream = HelperStream(self.open_socket(), TOKEN)
        if settings is not None:
            stream.request(settings, SettingsDone)
        return stream

    def lmkd_client(self) -> socket.socket:
        """A client of /dev/socket/lmkd."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.settimeout(10)
        client.connect(str(self.lmkd_socket))
        return client

    def pids(self) -> set[int]:
        """Worker and guardian, by their command line."""
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.name.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
        return found

    def close(self) -> None:
        """End it and make sure that nothing of it is left."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            wait_until(lambda: not self._others(), "the helper's end", 10)
            self.process.wait(10)
        finally:
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()

    def _others(self) -> set[int]:
        self.process.poll()
        return {pid for pid in self.pids() if _alive(pid)}

    def _listens(self) -> bool:
        assert self.process.poll() is None, "the helper ended at once"
        with contextlib.suppress(ConnectionRefusedError), self.open_socket():
            return True
        return False


@contextlib.contextmanager
def local_helper(folder: Path, *, proc_root: Path | None = None, options: Sequence[str] = ()) -> Iterator[LocalHelper]:
    """A LocalHelper for one test."""
    helper = LocalHelper(folder, proc_root=proc_root, options=options)
    try:
        yield helper
    finally:
        helper.close()


def _alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def expect(stream: HelperStream, kind: type[_Message], timeout_s: float = 10.0) -> tuple[int, _Message]:
    """The next event of one type, ignoring the others."""
    deadline = time.monotonic() + timeout_s
    while True:
        received: Received | None = stream.next_event(max(deadline - time.monotonic(), 0))
        assert received is not None, f"no {kind.__name__} within {timeout_s} s"
        if isinstance(received.message, kind):
            return received.id, received.message


def nothing_of(stream: HelperStream, kind: type[Message], for_s: float) -> None:
    """Assert that no event of that type comes for a while."""
    deadline = time.monotonic() + for_s
    while (left_s := deadline - time.monotonic()) > 0:
        received = stream.next_event(left_s)
        assert received is None or not isinstance(received.message, kind), received


HELLO = Hello(
    version=1,
    process_reap=1,
    process_mrelease=1,
    pidfd_open=1,
    capabilities=0,
    page_bytes=4096,
    ticks_per_s=100,
    cpus=2,
    uid=0,
    pid=100,
    guardian_pid=101,
    worker_starts=1,
    mem_total_kib=2048000,
    now_ns=1,
    realtime_ns=2,
    sysname="Linux",
    release="6.12.0",
    kernel_version="#1",
    machine="x86_64",
)

Answer = Callable[[Request], Sequence[Message]]


class HelperPeer:
    """Plays the device's side on a socket pair: answers as scripted, records requests, pushes events."""

    def __init__(self, answer: Answer | None = None) -> None:
        """``answer`` gives the messages for each request (id taken from it); Auth and Ping are looked after."""
        self.host_socket, self._socket = socket.socketpair()
        self.requests: list[Request] = []
        self._answer = answer
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def push(self, message: Message, request_id: int = 0) -> None:
        """Send one message, unsolicited unless an id is given."""
        self.push_bytes(helper_wire.encode(message, request_id))

    def push_bytes(self, data: bytes) -> None:
        """Send raw bytes."""
        with self._lock:
            self._socket.sendall(data)

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()

    def __enter__(self) -> HelperPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        reader = FrameReader()
        while True:
            select.select([self._socket], [], [])
            data = self._socket.recv(65536)
            if not data:
                return
            reader.feed(data)
            while (frame := reader.next()) is not None:
                request = helper_wire.decode_request(frame)
                if not isinstance(request, Ping):
                    self.requests.append(request)
                for message in self._replies(request):
                    with contextlib.suppress(OSError):
                        self.push(message, frame.id)

    def _replies(self, request: Request) -> Sequence[Message]:
        if isinstance(request, Auth):
            return [HELLO]
        if isinstance(request, Ping):
            return [Pong(now_ns=1, realtime_ns=2)]
        return self._answer(request) if self._answer is not None else []
