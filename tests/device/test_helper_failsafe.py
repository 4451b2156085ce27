"""Without a host: /dev/socket/lmkd, the fail-safe, hand-back, the guardian."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from lmk.device.helper import HelperStream
from lmk.device.helper_messages import (
    Armed,
    Control,
    ControlConnection,
    Failsafe,
    Heartbeat,
    Message,
    Pressure,
    Ran,
    Watched,
)
from lmk.device.helper_requests import (
    Arm,
    CloseConnection,
    ControlReply,
    Run,
    Settings,
    Stop,
    Watch,
    WriteAdj,
)
from lmk.device.helper_types import (
    ControlEvent,
    ControlFlag,
    FailsafeMode,
    FailsafeReason,
    FileOp,
    SettingsFlag,
    TableWhich,
    WatchItem,
)
from lmk.errors import DeviceLostError
from lmk.policy.lmkd.control_packets import (
    GetKillCount,
    ProcPrio,
    ProcPurge,
    ProcRemove,
    ProcsPrio,
    decode_notification,
    encode_command,
)
from tests.fakes.helper_peer import LocalHelper, expect, local_helper, nothing_of, wait_until
from tests.fakes.proc_root import ProcRoot

SERVING = Settings(
    flags=SettingsFlag.SERVE_LMKD | SettingsFlag.WRITE_ADJ,
    failsafe_ms=300,
    failsafe_interval_ms=50,
    heartbeat_ms=50,
    main_priority=0,
    reaper_priority=0,
)


@pytest.fixture
def proc(tmp_path: Path) -> ProcRoot:
    root = ProcRoot(tmp_path / "proc")
    root.make_fifo()
    return root


@pytest.fixture
def helper(tmp_path: Path, proc: ProcRoot) -> Iterator[LocalHelper]:
    with local_helper(tmp_path, proc_root=proc.path) as running:
        yield running


@contextlib.contextmanager
def apps(proc: ProcRoot, *adjs: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """One real process per oom_score_adj, with files in the fake /proc."""
    processes = [subprocess.Popen(["sleep", "1000"]) for _ in adjs]
    try:
        for process, adj in zip(processes, adjs, strict=True):
            proc.add_process(process.pid, name=f"app{adj}", oom_score_adj=adj, start_ticks=50)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def register(client: socket.socket, pid: int, adj: int) -> None:
    client.send(encode_command(ProcPrio(pid, 10001, adj, 0)))


def watch(stream: HelperStream, *apps: tuple[subprocess.Popen[bytes], int]) -> None:
    items = tuple(WatchItem(pid=app.pid, uid=1, oom_score_adj=adj) for app, adj in apps)
    assert all(result.error == 0 for result in stream.request(Watch(items=items), Watched).results)


def registered(stream: HelperStream) -> dict[int, int]:
    return {row.pid: row.oom_score_adj for row in stream.table(TableWhich.REGISTERED)}


def dead(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


# --- /dev/socket/lmkd with a host ---------------------------------------------------------------------------------


def test_packets_go_to_the_host_with_all_that_lmkd_would_look_up(helper: LocalHelper, proc: ProcRoot) -> None:
    with apps(proc, 0) as (app,), helper.connect(SERVING) as stream, helper.lmkd_client() as client:
        connect = expect(stream, ControlConnection)[1]
        assert (connect.event, connect.pid, connect.uid) == (ControlEvent.CONNECT, os.getpid(), os.geteuid())
        register(client, app.pid, 900)
        control = expect(stream, Control)[1]
        assert control.packet == encode_command(ProcPrio(app.pid, 10001, 900, 0))
        assert control.connection == connect.connection and control.length == 20
        assert (control.pid, control.uid, control.gid) == (os.getpid(), os.geteuid(), os.getegid())
        assert control.flags == ControlFlag.CREDENTIALS
        (process,) = control.processes
        assert (process.error, process.start_ticks, process.adj_op, process.adj_error) == (0, 50, FileOp.NONE, 0)
        assert process.handle != 0 and f"Tgid:\t{app.pid}".encode() in process.status
        assert proc.adj(app.pid) == 900
        assert registered(stream) == {app.pid: 900}
        assert helper.lmkd_socket.stat().st_mode & 0o777 == 0o660


def test_replies_closing_and_hangup(helper: LocalHelper, proc: ProcRoot) -> None:
    with helper.connect(SERVING) as stream, helper.lmkd_client() as client:
        connection = expect(stream, ControlConnection)[1].connection
        assert stream.done(ControlReply(connection=connection, data=b"\0\0\0\4\0\0\0\7")).error == 0
        assert client.recv(64) == b"\0\0\0\4\0\0\0\7"
        assert stream.done(ControlReply(connection=connection + 1, data=b"x")).error == errno.ENOTCONN
        assert stream.done(CloseConnection(connection=connection)).error == 0
        assert client.recv(64) == b""
        with helper.lmkd_client():
            second = expect(stream, ControlConnection)[1]
            assert second.connection != connection
        hangup = expect(stream, ControlConnection)[1]
        assert (hangup.connection, hangup.event) == (second.connection, ControlEvent.HANGUP)


def test_odd_packets_arrive_as_they_are(helper: LocalHelper, proc: ProcRoot) -> None:
    with helper.connect(SERVING) as stream, helper.lmkd_client() as client:
        client.send(b"\0\0")
        assert expect(stream, Control)[1].packet == b"\0\0"
        client.send(bytes(range(60)))
        control = expect(stream, Control)[1]
        assert (control.length, control.packet) == (60, bytes(range(52)))
        # A client that writes and closes at once: lmkd sees the hang-up only.
        client.send(encode_command(ProcPurge()))
        client.close()
        assert expect(stream, Control)[1].packet == encode_command(ProcPurge())


def test_threads_invalid_values_and_the_dead_are_not_registered(helper: LocalHelper, proc: ProcRoot) -> None:
    with apps(proc, 0) as (app,), helper.connect(SERVING) as stream, helper.lmkd_client() as client:
        register(client, app.pid, 1001)
        process = expect(stream, Control)[1].processes[0]
        assert (process.error, process.adj_op, process.adj_error) == (errno.EINVAL, FileOp.REFUSED, errno.EINVAL)
        proc.add_process(app.pid, tgid=app.pid + 1)
        register(client, app.pid, 900)
        assert expect(stream, Control)[1].processes[0].adj_op == FileOp.REFUSED
        assert proc.adj(app.pid) == 0
        register(client, 2**22 + 3, 900)
        process = expect(stream, Control)[1].processes[0]
        assert (process.error, process.adj_error) == (errno.ESRCH, errno.ENOENT)


def test_only_the_owner_removes(helper: LocalHelper, proc: ProcRoot) -> None:
    with apps(proc, 0, 0) as (first, second), helper.connect(SERVING) as stream, helper.lmkd_client() as client:
        client.send(encode_command(ProcsPrio((ProcPrio(first.pid, 1, 900, 0), ProcPrio(second.pid, 1, 905, 0)))))
        expect(stream, Control)
        assert registered(stream) == {first.pid: 900, second.pid: 905}
        remove = encode_command(ProcRemove(first.pid)).hex()
        program = (
            "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            f"s.connect('{helper.lmkd_socket}'); s.send(bytes.fromhex('{remove}')); input()"
        )
        other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
        assert expect(stream, Control)[1].pid == other.pid
        assert registered(stream) == {first.pid: 900, second.pid: 905}
        other.communicate(b"\n", timeout=10)
        client.send(encode_command(ProcRemove(first.pid)))
        expect(stream, Control)
        assert registered(stream) == {second.pid: 905}


def test_without_write_adj_the_host_writes(helper: LocalHelper, proc: ProcRoot) -> None:
    settings = attrs.evolve(SERVING, flags=SettingsFlag.SERVE_LMKD)
    with apps(proc, 0) as (app,), helper.connect(settings) as stream, helper.lmkd_client() as client:
        register(client, app.pid, 900)
        assert expect(stream, Control)[1].processes[0].adj_op == FileOp.NOT_TRIED
        assert proc.adj(app.pid) == 0
        assert stream.done(WriteAdj(pid=app.pid, start_ticks=50, oom_score_adj=900)).error == 0
        assert proc.adj(app.pid) == 900


# --- the host falls silent -----------------------------------------------------------------------------------------


def test_a_silent_host_is_replaced_by_the_failsafe_and_told(helper: LocalHelper, proc: ProcRoot) -> None:
    with (
        apps(proc, 900, 950, 100) as (cached, previous, visible),
        helper.connect(SERVING) as stream,
        helper.lmkd_client() as client,
    ):
        for app, adj in ((cached, 900), (previous, 950), (visible, 100)):
            register(client, app.pid, adj)
            expect(stream, Control)
        wait_until(lambda: "fail-safe" in helper.log_file.read_text(), "the fail-safe")
        register(client, visible.pid, 0)
        wait_until(lambda: proc.adj(visible.pid) == 0, "a packet being obeyed")
        client.send(encode_command(GetKillCount(-1000, 1000)))
        assert decode_notification(client.recv(64)) == decode_notification(struct.pack(">ii", 4, 0))
        proc.press()
        wait_until(lambda: dead(previous), "the first kill")
        assert not dead(cached)
        time.sleep(0.1)
        proc.press()
        wait_until(lambda: dead(cached), "the second kill")
        time.sleep(0.1)
        proc.press()
        time.sleep(0.3)
        assert not dead(visible)  # below failsafe_min_adj
        failsafe = expect(stream, Failsafe)[1]
        assert (failsafe.reason, failsafe.mode) == (FailsafeReason.SILENT, FailsafeMode.KILL)
        assert failsafe.silent_since_ns < failsafe.entered_ns < failsafe.left_ns
        assert [(kill.pid, kill.oom_score_adj, kill.error, kill.name) for kill in failsafe.kills] == [
            (previous.pid, 950, 0, "app950"),
            (cached.pid, 900, 0, "app900"),
        ]
        assert all(kill.exit_ns > kill.signal_ns for kill in failsafe.kills)
        assert failsafe.packets_handled == 2
        # What was obeyed meanwhile is told, in order, and once.
        replayed = [expect(stream, Control)[1] for _ in range(2)]
        assert [control.flags & ControlFlag.HANDLED for control in replayed] == [ControlFlag.HANDLED] * 2
        assert replayed[0].packet == encode_command(ProcPrio(visible.pid, 10001, 0, 0))
        # With the handle that the host would ask for; written only once, when the packet came.
        (told,) = replayed[0].processes
        assert (told.pid, told.error, told.status_op, told.adj_op) == (visible.pid, 0, *[FileOp.NOT_TRIED] * 2)
        assert told.handle
        stream.ping()
        proc.press()
        nothing_of(stream, Failsafe, 0.1)
        assert not dead(visible)


def test_all_of_a_long_silence_fits_into_what_waits_for_the_host(helper: LocalHelper, proc: ProcRoot) -> None:
    """As many packets as are kept (PACKET_LOG_MAX), sent in one go: what they carry must fit the output buffer."""
    with apps(proc, 900) as (app,), helper.connect(SERVING) as stream, helper.lmkd_client() as client:
        # As long as a real one.
        proc.write(f"{app.pid}/status", proc.read(f"{app.pid}/status") + "Padding:\t0\n" * 100)
        register(client, app.pid, 900)
        expect(stream, Control)
        wait_until(lambda: "fail-safe" in helper.log_file.read_text(), "the fail-safe")
        for sent in range(4096):
            register(client, app.pid, 900 + sent % 2)
        register(client, app.pid, 950)
        wait_until(lambda: proc.adj(app.pid) == 950, "the last packet being obeyed")
        assert expect(stream, Failsafe)[1].packets_lost == 1
        assert all(expect(stream, Control)[1].flags & ControlFlag.HANDLED for _ in range(4096))
        stream.ping()


def test_what_proc_says_protects_too(helper: LocalHelper, proc: ProcRoot) -> None:
    with apps(proc, 0, 900) as (front, cached), helper.connect(SERVING) as stream:
        items = [
            WatchItem(pid=front.pid, uid=1, oom_score_adj=950),
            WatchItem(pid=cached.pid, uid=1, oom_score_adj=900),
        ]
        stream.request(Watch(items=tuple(items)), Watched)
        wait_until(lambda: "fail-safe" in helper.log_file.read_text(), "the fail-safe")
        # Somebody made it the foreground app behind lmkd's back.
        proc.write(f"{front.pid}/oom_score_adj", "0\n")
        proc.press()
        wait_until(lambda: dead(cached), "the kill")
        assert not dead(front)


def test_a_lost_connection_is_covered_at_once_and_a_new_host_learns_it(helper: LocalHelper, proc: ProcRoot) -> None:
    with apps(proc, 900) as (app,):
        with helper.connect(attrs.evolve(SERVING, failsafe_ms=60_000)) as stream:
            watch(stream, (app, 900))
        with helper.lmkd_client() as client:
            client.send(encode_command(ProcRemove(1)))
            wait_until(lambda: "fail-safe" in helper.log_file.read_text(), "the fail-safe")
            proc.press()
            wait_until(lambda: dead(app), "the kill")
            with helper.connect() as again:
                failsafe = expect(again, Failsafe)[1]
                assert failsafe.reason == FailsafeReason.HANGUP
                assert [kill.pid for kill in failsafe.kills] == [app.pid]
                # Told at once, the story would often lack its end.
                assert failsafe.kills[0].exit_ns > failsafe.kills[0].signal_ns
                assert expect(again, Control)[1].flags & ControlFlag.HANDLED
                assert expect(again, ControlConnection)[1].event == ControlEvent.CONNECT


def test_a_kill_that_took_longer_than_it_is_waited_for_is_told_whole_to_whoever_comes_later(
    helper: LocalHelper, proc: ProcRoot
) -> None:
    with apps(proc, 900) as (app,):
        with helper.connect(attrs.evolve(SERVING, failsafe_ms=60_000, reap_timeout_ms=0)) as stream:
            watch(stream, (app, 900))
        wait_until(lambda: "fail-safe" in helper.log_file.read_text(), "the fail-safe")
        proc.press()
        wait_until(lambda: dead(app), "the kill")
        time.sleep(0.3)
        with helper.connect() as again:
            (kill,) = expect(again, Failsafe)[1].kills
            assert kill.pid == app.pid and kill.exit_ns > kill.signal_ns
            assert kill.reap_error != errno.ETIMEDOUT


def test_a_kernel_without_triggers_is_polled(tmp_path: Path) -> None:
    proc = ProcRoot(tmp_path / "proc")  # pressure/memory is a plain file: no trigger
    with local_helper(tmp_path, proc_root=proc.path) as helper, apps(proc, 900) as (app,):
        with helper.connect(SERVING) as stream:
            watch(stream, (app, 900))
        time.sleep(0.5)
        assert not dead(app)
        proc.write("meminfo", "MemTotal: 2048000 kB\nMemAvailable: 60000 kB\nSwapTotal: 1000 kB\nSwapFree: 10 kB\n")
        wait_until(lambda: dead(app), "the kill")


def test_memory_is_looked_at_without_a_trigger(helper: LocalHelper, proc: ProcRoot) -> None:
    with apps(proc, 900) as (app,):
        with helper.connect(SERVING) as stream:
            watch(stream, (app, 900))
        wait_until(lambda: "fail-safe" in helper.log_file.read_text(), "the fail-safe")
        proc.write("meminfo", "MemTotal: 2048000 kB\nMemAvailable: 60000 kB\nSwapTotal: 1000 kB\nSwapFree: 10 kB\n")
        # The trigger exists and stays silent: swap is full, and nobody has stalled long enough yet.
        wait_until(lambda: dead(app), "the kill")


def test_mode_off_does_nothing(helper: LocalHelper, proc: ProcRoot) -> None:
    with apps(proc, 900) as (app,):
        with helper.connect(attrs.evolve(SERVING, failsafe_mode=FailsafeMode.OFF, failsafe_ms=100)) as stream:
            watch(stream, (app, 900))
            assert stream.request(Arm(slot=1, text="some 1 2"), Armed).error == 0
        proc.press()
        time.sleep(0.3)
        assert not dead(app)
        with helper.connect() as again:
            nothing_of(again, Failsafe, 0.1)


def test_a_stopped_host_process_gets_no_stale_samples(helper: LocalHelper, proc: ProcRoot) -> None:
    with helper.connect(attrs.evolve(SERVING, failsafe_trigger="")) as stream:
        stream.request(Arm(slot=1, text="some 1 2"), Armed)
        time.sleep(0.6)
        proc.press()
        time.sleep(0.1)
        messages = list[Message]()
        while (received := stream.next_event(0.2)) is not None and len(messages) < 50:
            messages.append(received.message)
        assert not any(isinstance(message, Pressure) for message in messages)
        assert any(isinstance(message, Heartbeat) for message in messages)


# --- giving the device back ----------------------------------------------------------------------------


class StockLmkd:
    """Owns /dev/socket/lmkd once `start lmkd` has run, and keeps what is registered."""

    def __init__(self, helper: LocalHelper) -> None:
        self._helper = helper
        self.packets: list[bytes] = []
        helper.bin_dir.mkdir(exist_ok=True)
        for verb in ("start", "stop"):
            script = helper.bin_dir / verb
            script.write_text(f'#!/bin/sh\necho "{verb} $1" >> {helper.folder}/services\n')
            script.chmod(0o755)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def services(self) -> list[str]:
        """Commands run so far."""
        path = self._helper.folder / "services"
        return path.read_text().splitlines() if path.exists() else []

    def wait(self) -> list[bytes]:
        """Everything registered, after the client has hung up."""
        self._thread.join(20)
        assert not self._thread.is_alive(), "nobody registered anything"
        return self.packets

    def _run(self) -> None:
        deadline = time.monotonic() + 15
        while "start lmkd" not in self.services():
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
        time.sleep(0.1)  # it takes a while to come up
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(self._helper.lmkd_socket))
            listener.listen(3)
            client, _ = listener.accept()
            with client:
                while packet := client.recv(64):
                    self.packets.append(packet)
                    if packet[:4] == b"\0\0\0\4":
                        client.send(b"\0\0\0\4\0\0\0\0")


def handed_back(packets: list[bytes]) -> list[tuple[int, int]]:
    """(pid, adj) in the order registered; the last packet is the barrier."""
    assert packets[-1] == encode_command(GetKillCount(0, 0))
    return [(struct.unpack(">5i", p)[1], struct.unpack(">5i", p)[3]) for p in packets[:-1]]


def test_handback_starts_the_service_and_registers_everything(helper: LocalHelper, proc: ProcRoot) -> None:
    stock = StockLmkd(helper)
    with apps(proc, 900, 0, 900) as (first, second, third):
        settings = attrs.evolve(SERVING, failsafe_mode=FailsafeMode.HANDBACK)
        with helper.connect(settings) as stream:
            assert stream.request(Run(argv=("stop", "lmkd")), Ran).status == 0
            with helper.lmkd_client() as client:
                for app, adj in ((first, 900), (second, 0), (third, 900), (first, 900)):
                    register(client, app.pid, adj)
                    expect(stream, Control)
        assert handed_back(stock.wait()) == [(second.pid, 0), (third.pid, 900), (first.pid, 900)]
        assert stock.services() == ["stop lmkd", "start lmkd"]
        with helper.connect() as again:
            failsafe = expect(again, Failsafe)[1]
            assert (failsafe.mode, failsafe.handed_back, failsafe.handback_error) == (FailsafeMode.HANDBACK, 1, 0)
            assert failsafe.reregistered == 3
            assert again.request(Run(argv=("stop", "lmkd")), Ran).status == 0  # to be taken over anew


def test_handback_without_a_stopped_service_kills_instead(helper: LocalHelper, proc: ProcRoot) -> None:
    with apps(proc, 900) as (app,):
        with helper.connect(attrs.evolve(SERVING, failsafe_mode=FailsafeMode.HANDBACK)) as stream:
            watch(stream, (app, 900))
        wait_until(lambda: "fail-safe" in helper.log_file.read_text(), "the fail-safe")
        proc.press()
        wait_until(lambda: dead(app), "the kill")


@pytest.mark.parametrize("way", ["request", "sigterm"])
def test_stopping_hands_back(helper: LocalHelper, proc: ProcRoot, way: str) -> None:
    stock = StockLmkd(helper)
    with apps(proc, 900) as (app,), helper.connect(SERVING) as stream:
        stream.request(Run(argv=("stop", "lmkd")), Ran)
        watch(stream, (app, 900))
        if way == "request":
            assert stream.done(Stop(handback=1), timeout_s=20).error == 0
        else:
            os.kill(stream.hello.pid, signal.SIGTERM)
        assert handed_back(stock.wait()) == [(app.pid, 900)]
        assert helper.process.wait(10) == 0
        wait_until(lambda: not helper.pids(), "the guardian's end")
        assert not dead(app)


def test_a_service_that_does_not_start_is_an_error_not_a_hang(helper: LocalHelper, proc: ProcRoot) -> None:
    helper.bin_dir.mkdir()
    (helper.bin_dir / "stop").write_text("#!/bin/sh\n")
    (helper.bin_dir / "stop").chmod(0o755)
    with helper.connect(SERVING) as stream:
        stream.request(Run(argv=("stop", "lmkd")), Ran)
        assert stream.done(Stop(handback=1), timeout_s=20).error == errno.ENOENT


# --- the helper itself dies -----------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_with_everything_it_knew(helper: LocalHelper, proc: ProcRoot) -> None:
    with apps(proc, 900, 950) as (cached, previous), helper.connect(SERVING) as stream:
        items = tuple(WatchItem(pid=app.pid, uid=1, oom_score_adj=adj) for app, adj in ((cached, 900), (previous, 950)))
        stream.request(Watch(items=items), Watched)
        guardian = stream.hello.guardian_pid
        os.kill(stream.hello.pid, signal.SIGKILL)
        with pytest.raises(DeviceLostError):
            expect(stream, Failsafe)
        wait_until(lambda: "restart" in helper.log_file.read_text(), "the guardian taking over")
        proc.press()
        wait_until(lambda: dead(previous), "the fail-safe's kill")
        with helper.lmkd_client() as client:
            register(client, cached.pid, 100)
            wait_until(lambda: proc.adj(cached.pid) == 100, "a packet being obeyed")
        with helper.connect() as again:
            assert (again.hello.pid, again.hello.worker_starts) == (guardian, 2)
            assert again.hello.guardian_pid not in (guardian, stream.hello.pid)
            failsafe = expect(again, Failsafe)[1]
            assert failsafe.reason == FailsafeReason.WORKER_DIED
            assert [kill.pid for kill in failsafe.kills] == [previous.pid]
            assert registered(again) == {cached.pid: 100}


def test_a_crash_while_the_stock_service_is_stopped_starts_it_again(helper: LocalHelper, proc: ProcRoot) -> None:
    stock = StockLmkd(helper)
    with apps(proc, 900) as (app,):
        with helper.connect(attrs.evolve(SERVING, failsafe_mode=FailsafeMode.HANDBACK)) as stream:
            stream.request(Run(argv=("stop", "lmkd")), Ran)
            watch(stream, (app, 900))
            os.kill(stream.hello.pid, signal.SIGSEGV)
            assert handed_back(stock.wait()) == [(app.pid, 900)]
        with helper.connect() as again:
            failsafe = expect(again, Failsafe)[1]
            assert (failsafe.reason, failsafe.handed_back) == (FailsafeReason.WORKER_DIED, 1)


def test_a_killed_guardian_is_replaced(helper: LocalHelper, proc: ProcRoot) -> None:
    with helper.connect(SERVING) as stream:
        first = stream.hello.guardian_pid
        os.kill(first, signal.SIGKILL)

        def replaced() -> bool:
            return expect(stream, Heartbeat)[1].guardian_pid != first

        wait_until(replaced, "a new guardian")
        os.kill(stream.hello.pid, signal.SIGKILL)
        wait_until(lambda: helper.process.poll() is not None, "the worker's end")
    with helper.connect() as again:
        assert again.hello.worker_starts == 2


def test_a_worker_that_keeps_dying_hands_back_and_gives_up(helper: LocalHelper, proc: ProcRoot) -> None:
    stock = StockLmkd(helper)
    with apps(proc, 900) as (app,):
        with helper.connect(SERVING) as stream:
            stream.request(Run(argv=("stop", "lmkd")), Ran)
            watch(stream, (app, 900))
        for starts in range(1, 6):
            with helper.connect() as stream:
                assert stream.hello.worker_starts == starts
                os.kill(stream.hello.pid, signal.SIGKILL)
                with pytest.raises(DeviceLostError):
                    expect(stream, Armed)
        assert handed_back(stock.wait()) == [(app.pid, 900)]
