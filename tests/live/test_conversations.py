"""lmkd's control socket for real: SOCK_SEQPACKET clients, the helper as a local process, the policy behind it.

What each packet does is checked against the recordings (tests/policy); here bytes go through the sockets, with
senders that are different processes, vanish, or send what no client should.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lmk.device.helper_messages import SettingsDone
from lmk.device.helper_requests import Settings
from lmk.device.helper_types import SettingsFlag
from lmk.engine.loop import run_policy
from lmk.live.clock import DeviceClock
from lmk.live.files import CANDIDATES, SAMPLE_MASK, VICTIM_FIELDS
from lmk.live.steady import SteadyStream
from lmk.live.target import LiveTarget
from lmk.policy import api
from lmk.policy.lmkd import control_packets as cp
from lmk.policy.lmkd.policy import LmkdPolicy
from lmk.policy.lmkd.versions import behaviour
from tests.fakes.helper_peer import LocalHelper, local_helper, wait_until
from tests.fakes.proc_root import ProcRoot

RELEASES = ("13.0", "14Q2", "16")
#: Reads lines of hex, sends each as one message; "close" hangs up.
CLIENT = """
import socket, sys
client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
client.connect(sys.argv[1])
for line in sys.stdin:
    if line.strip() == "close":
        client.close()
    else:
        client.send(bytes.fromhex(line))
    print("done", flush=True)
"""


class Server:
    """The policy, served by the helper, on a thread of its own. Also its observer and listener."""

    def __init__(self, helper: LocalHelper, tag: str, pids: list[int]) -> None:
        self.helper, self.pids = helper, pids
        self.policy = LmkdPolicy(behaviour(tag))
        self.logs: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        wait_until(helper.lmkd_socket.exists, "the control socket")

    def _serve(self) -> None:
        settings = Settings(
            flags=SettingsFlag.SERVE_LMKD | SettingsFlag.WRITE_ADJ,
            main_priority=0,
            reaper_priority=0,
            sample_files=SAMPLE_MASK & ~(1 << 3),
            candidates=CANDIDATES,
            candidate_fields=VICTIM_FIELDS,
        )
        with SteadyStream(self.helper.connect) as stream:
            stream.request(settings, SettingsDone)
            clock = DeviceClock()
            before_ns = time.monotonic_ns()
            clock.observe(before_ns, stream.ping().now_ns, time.monotonic_ns())
            target = LiveTarget(
                stream, clock, self, lambda: {"sys.boot_completed": "1"}, memcg=api.Memcg(2), dry_run=False
            )
            run_policy(self.policy, target, self)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: any(text in line for line in self.logs), f"the log line {text!r} in {self.logs}")

    def rows(self) -> list[tuple[int, int]]:
        return [(row.pid, row.adj) for row in self.policy.processes()]

    # lmk.engine.loop.Observer
    def exchanged(self, t_ns: int, request: api.Request, answer: object) -> None:
        if isinstance(request, api.Log):
            self.logs.append(request.text)

    # lmk.live.intake.Listener
    def sampled(self, t_ns: int, files: Any) -> None: ...

    def kill_outcome(self, pid: int, **values: Any) -> None: ...

    def device_event(self, t_ns: int, kind: str, body: dict[str, Any]) -> None: ...

    def busy(self) -> None: ...

    def idle(self) -> None: ...

    def housekeeping(self) -> str | None:
        return "stopped" if self._stop.is_set() else None


@pytest.fixture(params=RELEASES)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    proc = ProcRoot(tmp_path / "proc")
    proc.make_fifo()
    children = [subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"]) for _ in range(2)]
    for child in children:
        proc.add_process(child.pid)
    with local_helper(tmp_path, proc_root=proc.path) as helper:
        made = Server(helper, request.param, [child.pid for child in children])
        try:
            yield made
        finally:
            made.stop()
    for child in children:
        child.kill()
        child.wait()


@contextlib.contextmanager
def stranger(server: Server) -> Iterator[Any]:
    """A client that is another process; call it with what to send."""
    argv = [sys.executable, "-S", "-c", CLIENT, str(server.helper.lmkd_socket)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def say(data: bytes | str) -> None:
            stdin.write((data.hex() if isinstance(data, bytes) else data) + "\n")
            stdin.flush()
            assert stdout.readline() == "done\n"

        yield say


def ask_kill_count(client: socket.socket) -> cp.Notification:
    client.send(cp.encode_command(cp.GetKillCount(0, 1000)))
    return cp.decode_notification(client.recv(100))


def test_registration_belongs_to_the_process_that_made_it(server: Server) -> None:
    first, second = server.pids
    with server.helper.lmkd_client() as client, stranger(server) as say:
        client.send(cp.encode_command(cp.ProcPrio(first, 10001, 900)))
        assert ask_kill_count(client) == cp.KillCountReply(0)
        assert server.rows() == [(first, 900)]
        say(cp.encode_command(cp.ProcPrio(first, 10001, 100)))
        server.wait_for("attempts to modify a process registered by another client")
        say(cp.encode_command(cp.ProcPrio(second, 10001, 800)))
        wait_until(lambda: len(server.rows()) == 2, "the stranger's registration")
        say(cp.encode_command(cp.ProcPurge()))
        wait_until(lambda: server.rows() == [(first, 900)], "the stranger's purge")


def test_records_of_a_vanished_client_can_be_claimed(server: Server) -> None:
    first, _ = server.pids
    with server.helper.lmkd_client() as client, stranger(server) as say:
        say(cp.encode_command(cp.ProcPrio(first, 10001, 900)))
        wait_until(lambda: server.rows() == [(first, 900)], "the registration")
        say("close")
        server.wait_for("lmkd data connection dropped")
        client.send(cp.encode_command(cp.ProcPrio(first, 10001, 500)))
        assert ask_kill_count(client) == cp.KillCountReply(0)
        assert server.rows() == [(first, 500)]
        assert [row.owner_pid for row in server.policy.processes()] == [os.getpid()]


def test_broken_messages_leave_the_connection_alone(server: Server) -> None:
    first, _ = server.pids
    with server.helper.lmkd_client() as client:
        client.send(b"\0\0\1")
        client.send(struct.pack(">3i", 1, first, 10001))
        client.send(struct.pack(">i", 77))
        client.send(cp.encode_command(cp.Target(tuple((n, n) for n in range(6)))) + bytes(1000))
        client.send(struct.pack(">5i", 1, first, 10001, 900, 0) + b"\1\2\3")
        assert ask_kill_count(client) == cp.KillCountReply(0)
        assert server.rows() == [(first, 900)]
    for line in (
        "Wrong control socket read length len=3",
        "Wrong control socket read length cmd=1 len=12",
        "Received unknown command code 77",
    ):
        assert line in server.logs


def test_a_client_that_vanishes_mid_packet_harms_nobody(server: Server) -> None:
    whole = cp.encode_command(cp.ProcPrio(server.pids[0], 10001, 900))
    with server.helper.lmkd_client() as other:
        # One after the other: a fourth connection would close the three before it.
        for number, length in enumerate((0, 1, 7, 15), start=1):
            with server.helper.lmkd_client() as client:
                client.send(whole[:length])
            dropped = partial(server.logs.count, "lmkd data connection dropped")
            wait_until(lambda n=number, dropped=dropped: dropped() == n, "the drop")  # type: ignore[misc]
            assert ask_kill_count(other) == cp.KillCountReply(0)
    assert server.rows() == []


def test_a_fourth_client_replaces_the_others(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.helper.lmkd_client()) for _ in range(3)]
        for client in clients:
            assert ask_kill_count(client) == cp.KillCountReply(0)
        fourth = stack.enter_context(server.helper.lmkd_client())
        assert ask_kill_count(fourth) == cp.KillCountReply(0)
        assert [client.recv(100) for client in clients] == [b"", b"", b""]


def test_later_commands_answer_only_where_they_exist(server: Server) -> None:
    with server.helper.lmkd_client() as client:
        client.send(cp.encode_command(cp.UpdateProps()))
        assert cp.decode_notification(client.recv(100)) == cp.UpdatePropsReply(0)
        client.send(cp.encode_command(cp.BootCompleted()))
        if server.policy.behaviour.tag == "16":
            assert cp.decode_notification(client.recv(100)) == cp.BootCompletedReply(0)
        else:
            assert ask_kill_count(client) == cp.KillCountReply(0)
            assert "Received unknown command code 10" in server.logs
