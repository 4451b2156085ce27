"""The real helper as a local process: who may connect, bad bytes, samples, files, tables, triggers, logs."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmk.device import helper_wire
from lmk.device.helper import HelperStream, RequestRefusedError
from lmk.device.helper_codec import HEADER, FrameReader
from lmk.device.helper_messages import (
    Armed,
    Done,
    ErrorReply,
    Files,
    Heartbeat,
    Message,
    Pong,
    Pressure,
    Proc,
    Ran,
    Sample,
    SettingsDone,
    Sizes,
    Watched,
)
from lmk.device.helper_requests import (
    Arm,
    Auth,
    GetFiles,
    GetProc,
    GetSample,
    GetSizes,
    Log,
    Ping,
    Run,
    Settings,
    Stop,
    Unwatch,
    Watch,
    WriteAdj,
    WriteFile,
)
from lmk.device.helper_types import FileId, FileOp, PidField, SettingItem, TableWhich, WatchItem
from lmk.errors import DeviceLostError, HelperError
from tests.fakes.helper_peer import TOKEN, LocalHelper, expect, helper_binary, local_helper, nothing_of, wait_until
from tests.fakes.proc_root import MEMINFO, ProcRoot

#: Every request but Stop, and what no version knows.
FUZZED = sorted({*range(1, 24), 64, 255, 65535} - {Stop.code})
QUIET = Settings(flags=0, failsafe_ms=60_000, main_priority=0, reaper_priority=0)


@pytest.fixture
def proc(tmp_path: Path) -> ProcRoot:
    return ProcRoot(tmp_path / "proc")


@pytest.fixture
def helper(tmp_path: Path, proc: ProcRoot) -> Iterator[LocalHelper]:
    with local_helper(tmp_path, proc_root=proc.path) as running:
        yield running


@pytest.fixture
def stream(helper: LocalHelper) -> Iterator[HelperStream]:
    with helper.connect(QUIET) as connected:
        yield connected


@contextlib.contextmanager
def sleeper() -> Iterator[int]:
    """A real process to register."""
    process = subprocess.Popen(["sleep", "1000"])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def answer_of(connection: socket.socket) -> Message | None:
    """The first message on a bare connection, None if it is closed without one."""
    connection.settimeout(10)
    reader = FrameReader()
    while (frame := reader.next()) is None:
        try:
            data = connection.recv(65536)
        except ConnectionResetError:
            return None
        if not data:
            return None
        reader.feed(data)
    return helper_wire.decode_message(frame)


# --- connecting ------------------------------------------------------------------------------------------


def test_hello_says_what_the_device_is(stream: HelperStream) -> None:
    uname = os.uname()
    assert (stream.hello.release, stream.hello.machine) == (uname.release, uname.machine)
    assert stream.hello.mem_total_kib == 2048000
    assert stream.hello.page_bytes == os.sysconf("SC_PAGE_SIZE")
    assert stream.hello.worker_starts == 1
    assert stream.hello.guardian_pid != stream.hello.pid


@pytest.mark.parametrize(
    ("auth", "error"),
    [
        (Auth(token="x" * 21), errno.EACCES),
        (Auth(token=TOKEN[:-1]), errno.EACCES),
        (Auth(token=""), errno.EACCES),
        (Auth(token=TOKEN, version=99), errno.EPROTONOSUPPORT),
        (Auth(token=TOKEN, magic=1), errno.EPROTO),
        (Ping(), errno.EPROTO),
    ],
)
def test_without_the_right_first_message_nobody_gets_in(helper: LocalHelper, auth: Auth | Ping, error: int) -> None:
    with helper.open_socket() as connection:
        connection.sendall(helper_wire.encode(auth, 1))
        reply = answer_of(connection)
        assert isinstance(reply, ErrorReply) and reply.error == error
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_another_uid_is_hung_up_on(helper: LocalHelper) -> None:
    program = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534); s = socket.socket(socket.AF_UNIX)\n"
        f"s.connect('\\0{helper.name}'); s.settimeout(10)\n"
        f"try: s.sendall(bytes.fromhex('{helper_wire.encode(Auth(token=TOKEN), 1).hex()}')); data = s.recv(100)\n"
        "except OSError: data = b''\n"
        "sys.exit(len(data))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 0


def test_one_host_at_a_time_but_a_silent_one_is_replaced(helper: LocalHelper) -> None:
    with helper.connect(Settings(flags=0, failsafe_ms=300, main_priority=0, reaper_priority=0)) as first:
        with pytest.raises(HelperError, match="another host"):
            helper.connect()
        first.ping()
        time.sleep(0.5)
        with helper.connect() as second:
            assert second.ping().now_ns > 0
            with pytest.raises((DeviceLostError, HelperError)):
                first.ping()


def test_garbage_and_half_messages(helper: LocalHelper, stream: HelperStream) -> None:
    for garbage in (b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", HEADER.pack(1 << 30, 1, 0, 0), os.urandom(4096)):
        with helper.open_socket() as connection:
            connection.sendall(garbage)
            reply = answer_of(connection)
            assert reply is None or (isinstance(reply, ErrorReply) and reply.error == errno.EPROTO)
    with helper.open_socket() as half:
        half.sendall(helper_wire.encode(Auth(token=TOKEN), 1)[:-1])
        # The controlling host is not disturbed by any of it.
        assert stream.ping().now_ns > 0


def test_a_host_that_breaks_the_protocol_is_hung_up_on(helper: LocalHelper) -> None:
    with helper.open_socket() as connection:
        connection.sendall(helper_wire.encode(Auth(token=TOKEN), 1) + HEADER.pack(5, 19, 7, 1) + b"xxxxx")
        assert answer_of(connection) is not None  # Hello
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(65536):
                pass
    with helper.connect() as again:
        assert again.ping().now_ns > 0


def test_a_request_in_single_bytes_and_many_in_one_write(helper: LocalHelper) -> None:
    with helper.open_socket() as connection:
        for byte in helper_wire.encode(Auth(token=TOKEN), 1):
            connection.sendall(bytes([byte]))
        assert answer_of(connection) is not None
        connection.sendall(b"".join(helper_wire.encode(Ping(), number) for number in range(1, 201)))
        reader, ids = FrameReader(), list[int]()
        while len(ids) < 200:
            reader.feed(connection.recv(65536))
            while (frame := reader.next()) is not None:
                ids.append(frame.id)
        assert ids == list(range(1, 201))


def test_malformed_and_unknown_requests_are_answered(stream: HelperStream) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        stream.request(GetProc(fields=1, pids=tuple(range(1, 100))), Proc)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(RequestRefusedError):
        stream.request(GetFiles(paths=("/proc/" + "x" * 2000,)), Files)
    assert stream.ping().now_ns > 0


@given(st.lists(st.tuples(st.sampled_from(FUZZED), st.binary(max_size=120)), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arbitrary_payloads_never_hurt_the_helper(
    helper: LocalHelper, stream: HelperStream, frames: list[tuple[int, bytes]]
) -> None:
    connection = stream._socket
    connection.setblocking(True)
    for code, payload in frames:
        connection.sendall(HEADER.pack(len(payload), code, 0, 0) + payload)
    connection.setblocking(False)
    stopper = stream.post(Ping())
    while True:
        try:
            assert isinstance(stream.answer(stopper, final=False), Pong)
            break
        except HelperError as refusal:  # ErrorReply without id, one per malformed frame
            assert not isinstance(refusal, DeviceLostError)
    assert stream.hello.worker_starts == 1 and helper.process.poll() is None


def test_an_answer_that_is_too_long_is_refused_not_cut(stream: HelperStream, proc: ProcRoot) -> None:
    for pid in range(1, 65):
        proc.write(f"{pid}/status", "x" * 16000)
        proc.write(f"{pid}/cmdline", "x" * 16000)
    with pytest.raises(RequestRefusedError) as caught:
        stream.request(GetProc(fields=0b11, pids=tuple(range(1, 65))), Proc)
    assert caught.value.errno == errno.EMSGSIZE
    proc.write("big", "x" * (1 << 20))
    (big,) = stream.request(GetFiles(paths=("/proc/big",)), Files).files
    assert (big.op, big.error, big.data) == (FileOp.IO, errno.EFBIG, b"")


# --- reading -------------------------------------------------------------------------------------------------


def test_sample_is_the_raw_text(stream: HelperStream, proc: ProcRoot) -> None:
    big = "".join(f"pagetype {number} {'9' * 60}\n" for number in range(1500))  # longer than any page
    proc.write("zoneinfo", big)
    sample = stream.request(GetSample(files=0b111111), Sample)
    texts = {FileId(entry.file): entry.data.decode() for entry in sample.files}
    assert texts[FileId.MEMINFO] == MEMINFO
    assert texts[FileId.ZONEINFO] == big
    assert len(texts) == 6
    assert sample.begin_ns <= sample.files[0].read_ns <= sample.end_ns
    proc.write("meminfo", MEMINFO.replace("100000", "200000"))
    again = stream.request(GetSample(files=1 << FileId.MEMINFO), Sample)
    assert b"200000" in again.files[0].data


def test_a_missing_file_is_an_errno_not_an_empty_text(stream: HelperStream, proc: ProcRoot) -> None:
    (proc.path / "pressure/io").unlink()
    sample = stream.request(GetSample(files=1 << FileId.PSI_IO), Sample)
    assert (sample.files[0].op, sample.files[0].error) == (FileOp.OPEN, errno.ENOENT)


def test_files_by_path_only_where_allowed(stream: HelperStream, tmp_path: Path, proc: ProcRoot) -> None:
    cgroup = tmp_path / "sys/fs/cgroup/apps"
    cgroup.mkdir(parents=True)
    (cgroup / "memory.stat").write_text("anon 5\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/secret").write_text("secret")
    paths = ("/proc/meminfo", "/sys/fs/cgroup/apps/memory.stat", "/etc/secret", "/sys/fs/cgroup/../../../etc/secret")
    found = stream.request(GetFiles(paths=(*paths, "/proc/absent", "/proc/..")), Files).files
    assert [entry.data.decode() for entry in found[:2]] == [MEMINFO, "anon 5\n"]
    assert [(entry.op, entry.error) for entry in found[2:]] == [
        (FileOp.REFUSED, errno.EPERM),
        (FileOp.REFUSED, errno.EPERM),
        (FileOp.OPEN, errno.ENOENT),
        (FileOp.REFUSED, errno.EPERM),
    ]


def sampled_vmstat(stream: HelperStream, proc: ProcRoot, text: str) -> str:
    proc.write("vmstat", text)
    return stream.request(GetSample(files=1 << FileId.VMSTAT), Sample).files[0].data.decode()


def test_only_the_wanted_lines_of_vmstat(helper: LocalHelper, proc: ProcRoot) -> None:
    names = "nr_free_pages,pgscan_direct,absent"
    wish = Settings(flags=0, main_priority=0, reaper_priority=0, vmstat_names=names)
    with helper.connect(wish) as connected:
        text = "nr_free_pages 1\nnr_free 2\npgscan_direct 30\npgscan_direct_throttle 4\npgscan 5\n"
        assert sampled_vmstat(connected, proc, text) == "nr_free_pages 1\npgscan_direct 30\n"
        changed = text.replace("30", "31")
        assert sampled_vmstat(connected, proc, changed) == "nr_free_pages 1\npgscan_direct 31\n"
        # Another kernel's lines, which only a test can see.
        assert sampled_vmstat(connected, proc, "pgscan_direct 7") == "pgscan_direct 7"
        assert sampled_vmstat(connected, proc, "") == ""
        connected.request(attrs.evolve(wish, vmstat_names=""), SettingsDone)
        assert sampled_vmstat(connected, proc, text) == text


def test_processes_sizes_and_missing_ones(stream: HelperStream, proc: ProcRoot) -> None:
    proc.add_process(4242, name="com.example.maps", rss_kib=8192)
    mask = 1 << PidField.STATUS | 1 << PidField.CMDLINE | 1 << PidField.OOM_SCORE_ADJ
    found, gone = stream.request(GetProc(fields=mask, pids=(4242, 4243)), Proc).entries
    cmdline = found.text(PidField.CMDLINE)
    assert cmdline is not None and cmdline.data == b"com.example.maps\0--flag\0"
    assert found.text(PidField.STAT) is None and found.handle == 0
    assert [entry.error for entry in gone.files] == [errno.ENOENT] * 3
    sizes = stream.request(GetSizes(pids=(4242, 4243)), Sizes).entries
    assert sizes[0].statm.split()[1] == "2048"
    assert (sizes[1].op, sizes[1].error) == (FileOp.OPEN, errno.ENOENT)


def test_the_table_of_all_processes_comes_in_parts(stream: HelperStream, proc: ProcRoot) -> None:
    for pid in range(1000, 1100):
        proc.add_process(pid, name=f"app{pid}", oom_score_adj=900, start_ticks=pid * 2, uid=pid + 9000, rss_kib=400)
    rows = stream.table(TableWhich.ALL)
    assert sorted(row.pid for row in rows) == list(range(1000, 1100))
    row = next(row for row in rows if row.pid == 1050)
    assert (row.uid, row.oom_score_adj, row.start_ticks, row.name) == (10050, 900, 2100, "app1050")
    assert row.rss_pages == 100


def test_the_table_of_all_processes_tells_what_proc_says_and_not_what_was_registered(
    stream: HelperStream, proc: ProcRoot
) -> None:
    with sleeper() as pid:
        proc.add_process(pid, oom_score_adj=0, start_ticks=77, uid=10001)
        stream.request(Watch(items=(WatchItem(pid=pid, uid=1, oom_score_adj=0),)), Watched)
        proc.write(f"{pid}/oom_score_adj", "900\n")
        (row,) = stream.table(TableWhich.ALL)
        assert (row.oom_score_adj, row.uid) == (900, 10001)
        assert row.handle
        (row,) = stream.table(TableWhich.REGISTERED)
        assert (row.oom_score_adj, row.uid) == (0, 1)


# --- registering and writing -----------------------------------------------------------------------------------


def test_watch_opens_pidfds_and_candidates_are_in_lmkds_order(stream: HelperStream, proc: ProcRoot) -> None:
    with sleeper() as old, sleeper() as new, sleeper() as low:
        for pid, adj in ((old, 900), (new, 900), (low, 800)):
            proc.add_process(pid, oom_score_adj=adj, start_ticks=77, name=f"app{pid}")
        items = [WatchItem(pid=pid, uid=1, oom_score_adj=adj) for pid, adj in ((low, 800), (old, 900), (new, 900))]
        results = stream.request(Watch(items=tuple(items)), Watched).results
        assert [result.error for result in results] == [0, 0, 0]
        sample = stream.request(GetSample(files=0, candidates=9, candidate_fields=1 << PidField.CMDLINE), Sample)
        # Highest adj first, and in a slot the one whose registration is oldest.
        assert [entry.pid for entry in sample.candidates] == [old, new, low]
        stream.request(Watch(items=(WatchItem(pid=old, uid=1, oom_score_adj=900),)), Watched)
        sample = stream.request(GetSample(files=0, candidates=2), Sample)
        assert [entry.pid for entry in sample.candidates] == [new, old]
        assert stream.done(Unwatch(handles=(results[2].handle,))).error == 0
        assert {row.pid for row in stream.table(TableWhich.REGISTERED)} == {low, old}


def test_watch_refuses_the_dead_and_the_reused(stream: HelperStream, proc: ProcRoot) -> None:
    with sleeper() as pid:
        proc.add_process(pid, start_ticks=77)
        items = (
            WatchItem(pid=pid, uid=1, oom_score_adj=0, start_ticks=78),
            WatchItem(pid=2**22 + 5, uid=1, oom_score_adj=0),
        )
        assert [r.error for r in stream.request(Watch(items=items), Watched).results] == [errno.ESTALE, errno.ESRCH]


def test_writing_oom_score_adj_checks_the_start_time(stream: HelperStream, proc: ProcRoot) -> None:
    proc.add_process(4242, start_ticks=77, oom_score_adj=0)
    assert stream.done(WriteAdj(pid=4242, start_ticks=78, oom_score_adj=900)).error == errno.ESTALE
    assert proc.adj(4242) == 0
    assert stream.done(WriteAdj(pid=4242, start_ticks=77, oom_score_adj=900)).error == 0
    assert proc.adj(4242) == 900
    assert stream.done(WriteAdj(pid=4243, oom_score_adj=900)) == Done(op=FileOp.OPEN, error=errno.ENOENT)
    assert stream.done(WriteAdj(pid=4242, oom_score_adj=1001)).error == errno.EINVAL


def test_only_memcg_files_and_oom_score_adj_can_be_written(
    stream: HelperStream, tmp_path: Path, proc: ProcRoot
) -> None:
    low = tmp_path / "sys/fs/cgroup/apps/memory.low"
    low.parent.mkdir(parents=True)
    low.write_text("0")
    proc.add_process(4242)
    assert stream.done(WriteFile(path="/sys/fs/cgroup/apps/memory.low", data=b"8388608")).error == 0
    assert low.read_text() == "8388608"
    assert stream.done(WriteFile(path="/proc/4242/oom_score_adj", data=b"5")).error == 0
    for path in (
        "/proc/meminfo",
        "/proc/sys/vm/swappiness",
        "/sys/fs/cgroup/apps/../x",
        "/etc/passwd",
        "/proc/4242/mem",
    ):
        assert stream.done(WriteFile(path=path, data=b"1")) == Done(op=FileOp.REFUSED, error=errno.EPERM)


# --- triggers, heartbeat -----------------------------------------------------------------------------------------


def test_pressure_carries_sample_and_candidates(stream: HelperStream, proc: ProcRoot) -> None:
    proc.make_fifo()
    with sleeper() as pid:
        proc.add_process(pid, oom_score_adj=900, name="com.example.victim")
        stream.request(Watch(items=(WatchItem(pid=pid, uid=1, oom_score_adj=900),)), Watched)
        assert stream.request(Arm(slot=1, text="some 70000 1000000"), Armed).error == 0
        assert stream.request(Arm(slot=2, text="full 700000 1000000"), Armed).error == 0
        proc.press()
        _, pressure = expect(stream, Pressure)
        # Two descriptors of one FIFO: at least one of the triggers fires.
        assert pressure.fired in (2, 4, 6)
        assert pressure.wake_ns <= pressure.begin_ns <= pressure.end_ns
        text = pressure.snapshot.text(FileId.MEMINFO)
        assert text is not None and text.data.decode() == MEMINFO
        assert [entry.pid for entry in pressure.candidates] == [pid]
        cmdline = pressure.candidates[0].text(PidField.CMDLINE)
        assert cmdline is not None and cmdline.data.startswith(b"com.example.victim")


def test_a_disarmed_trigger_is_silent(stream: HelperStream, proc: ProcRoot) -> None:
    proc.make_fifo()
    stream.request(Arm(slot=1, text="some 70000 1000000"), Armed)
    assert stream.request(Arm(slot=1, text=""), Armed).error == 0
    with pytest.raises(OSError, match="No such device"):
        proc.press()  # nobody reads the FIFO any more
    nothing_of(stream, Pressure, 0.2)


def test_refused_triggers_say_why(stream: HelperStream, proc: ProcRoot) -> None:
    assert stream.request(Arm(slot=9, text="some 1 2"), Armed).error == errno.EINVAL
    assert stream.request(Arm(slot=1, path="/proc/pressure/absent", text="some 1 2"), Armed).error == errno.ENOENT
    # A regular file cannot be polled: what a kernel without PSI polling looks like.
    assert stream.request(Arm(slot=1, text="some 70000 1000000"), Armed).error == errno.EPERM


@pytest.mark.skipif(not Path("/proc/pressure/memory").exists(), reason="this kernel has no PSI")
def test_the_real_psi_file_takes_a_trigger(tmp_path: Path) -> None:
    with local_helper(tmp_path) as helper, helper.connect(QUIET) as stream:
        # Two-second windows are what unprivileged processes may ask for as well.
        error = stream.request(Arm(slot=1, text="some 200000 2000000"), Armed).error
        assert error in (0, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP)
        if error == 0:
            assert stream.request(Arm(slot=1, text="some nonsense"), Armed).error == errno.EINVAL


def test_heartbeats_come_as_asked(helper: LocalHelper) -> None:
    wish = Settings(flags=0, heartbeat_ms=20, main_priority=0, reaper_priority=0)
    with helper.connect(wish) as stream:
        times = [expect(stream, Heartbeat)[1].t_ns for _ in range(4)]
        assert times == sorted(times)
        assert 50e6 < times[-1] - times[0] < 5e9


def test_settings_report_each_part(helper: LocalHelper, proc: ProcRoot) -> None:
    proc.make_fifo()
    with helper.connect() as stream:
        done = stream.request(Settings(main_priority=0, reaper_priority=0, main_cpus=1), SettingsDone)
        errors = {SettingItem(result.item): result.error for result in done.results}
        assert set(errors) == set(SettingItem)
        assert errors[SettingItem.FAILSAFE_TRIGGER] == 0
        assert errors[SettingItem.LMKD_SOCKET] == 0
        assert errors[SettingItem.MAIN_CPUS] == 0
        assert errors[SettingItem.MEMEVENTS] == errno.ENOENT  # no tracefs below --root
        assert os.sched_getaffinity(stream.hello.pid) == {0}
        stream.request(Settings(main_priority=0, flags=0, reaper_priority=0), SettingsDone)
        assert not helper.lmkd_socket.exists()


# --- commands and logs -------------------------------------------------------------------------------------------


def test_only_known_commands_run(helper: LocalHelper, stream: HelperStream) -> None:
    helper.bin_dir.mkdir()
    for name, status in (("start", 0), ("stop", 3)):
        (helper.bin_dir / name).write_text(f"#!/bin/sh\necho $0 $1 >> {helper.folder}/ran\nexit {status}\n")
        (helper.bin_dir / name).chmod(0o755)
    assert stream.request(Run(argv=("start", "lmkd")), Ran) == Ran(error=0, status=0)
    assert stream.request(Run(argv=("stop", "lmkd")), Ran) == Ran(error=0, status=3)
    assert stream.request(Run(argv=("sh", "-c", "true")), Ran).error == errno.EPERM
    assert stream.request(Run(argv=("setprop", "a", "b")), Ran).error == errno.ENOENT
    assert (helper.folder / "ran").read_text().split() == [
        *(f"{helper.bin_dir}/start", "lmkd"),
        *(f"{helper.bin_dir}/stop", "lmkd"),
    ]


def test_logs_go_to_the_guests_store(helper: LocalHelper, stream: HelperStream) -> None:
    (helper.folder / "dev/__log_lmk").mkdir(parents=True)
    assert stream.done(Log(log_id=0, payload=b"\x04lowmemorykiller\0Kill 'a\nb'\0")).error == 0
    event = (10195355).to_bytes(4, "little") + b"\x03\x03" + b"\x00\x2a\0\0\0" + b"\x01" + b"\xff" * 8
    event += b"\x02\x03\0\0\0com"
    assert stream.done(Log(log_id=2, payload=event)).error == 0
    assert stream.done(Log(log_id=0, payload=b"\x04tag without end")).error == errno.EINVAL
    main = (helper.folder / "dev/__log_lmk/main").read_text().splitlines()
    assert main[-1].split(" ", 4)[4] == "I lowmemorykiller\tKill 'a\\nb'" or main[-1].endswith("'a\\nb'")
    assert (helper.folder / "dev/__log_lmk/events").read_text().endswith("I killinfo\t[42,-1,com]\n")


def test_logs_go_to_logd_where_it_is(tmp_path: Path, proc: ProcRoot) -> None:
    (tmp_path / "dev/socket").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as logd:
        logd.bind(str(tmp_path / "dev/socket/logdw"))
        logd.settimeout(10)
        with local_helper(tmp_path, proc_root=proc.path) as helper, helper.connect(QUIET) as stream:
            assert stream.done(Log(log_id=0, payload=b"\x06lowmemorykiller\0hello\0")).error == 0
            while b"lowmemorykiller" not in (record := logd.recv(8192)):
                pass
            assert record[0] == 0 and record[11:] == b"\x06lowmemorykiller\0hello\0"


# --- end ------------------------------------------------------------------------------------------------------------


def test_stop_ends_both_processes(helper: LocalHelper, stream: HelperStream) -> None:
    assert len(helper.pids()) == 2
    assert stream.done(Stop(handback=0)).error == 0
    assert helper.process.wait(10) == 0
    wait_until(lambda: not helper.pids(), "the guardian's end")


def test_options_that_are_wrong_are_refused(tmp_path: Path) -> None:
    def run(*options: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LMK_HELPER_TOKEN": token}
        argv = [str(helper_binary()), *options]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=False)

    assert run("--nonsense").returncode == 2
    assert "token" in run(token="short").stderr
    assert "/absent" in run("--proc-root", "/absent").stderr
    assert "absent" in run("--token-file", str(tmp_path / "absent")).stderr
