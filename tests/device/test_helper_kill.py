"""Kills by the real helper: real children die, reused pids never do, and the story is complete."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmk.device.helper import HelperStream, RequestRefusedError
from lmk.device.helper_messages import Exited, Killed, Pressure, Sample, Signalled, Watched
from lmk.device.helper_requests import GetSample, Kill, Settings, Watch
from lmk.device.helper_types import (
    CallState,
    KilledFlag,
    KillFlag,
    ReapMethod,
    SettingsFlag,
    TableWhich,
    WatchItem,
    WatchResult,
)
from tests.fakes.helper_peer import LocalHelper, expect, local_helper, nothing_of
from tests.fakes.proc_root import ProcRoot

QUIET = Settings(flags=0, failsafe_ms=60_000, main_priority=0, reaper_priority=0)
MIB = 1024


@contextlib.contextmanager
def victim(mib: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A real process with that much touched memory."""
    program = f"b = bytearray(b'x') * ({mib} << 20)\nprint(flush=True)\nimport time\ntime.sleep(1000)"
    process = subprocess.Popen([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])


def watch(stream: HelperStream, pid: int, adj: int = 900) -> WatchResult:
    return stream.request(Watch(items=(WatchItem(pid=pid, uid=0, oom_score_adj=adj),)), Watched).results[0]


def kill(stream: HelperStream, request: Kill) -> tuple[int, Signalled]:
    kill_id = stream.post(request)
    answer = stream.answer(kill_id)
    assert isinstance(answer, Signalled)
    return kill_id, answer


@pytest.fixture
def helper(tmp_path: Path) -> Iterator[LocalHelper]:
    with local_helper(tmp_path) as running:
        yield running


@pytest.fixture
def stream(helper: LocalHelper) -> Iterator[HelperStream]:
    with helper.connect(QUIET) as connected:
        yield connected


def test_a_kill_by_handle_and_its_whole_story(stream: HelperStream) -> None:
    with victim(64) as process:
        entry = watch(stream, process.pid)
        assert entry.error == 0 and entry.start_ticks == start_ticks(process.pid)
        kill_id, signalled = kill(stream, Kill(handle=entry.handle, pid=process.pid, start_ticks=0))
        assert signalled.error == 0 and signalled.handle == entry.handle
        assert signalled.received_ns <= signalled.signal_ns
        exited = expect(stream, Exited)[1]
        assert (exited.kill_id, exited.pid, exited.start_ticks) == (kill_id, process.pid, entry.start_ticks)
        told_id, story = expect(stream, Killed)
        assert told_id == kill_id
        assert story.flags == 0 and story.signal_ns == signalled.signal_ns
        assert story.signal_ns <= story.reap_begin_ns <= story.reap_end_ns
        assert story.exit_ns == exited.exit_ns > story.signal_ns
        assert story.anon_kib_before >= 64 * MIB <= story.rss_kib_before
        assert story.free_pages_before > 0 and story.free_pages_after_exit > 0
        assert process.wait(10) == -signal.SIGKILL
        # The record is gone with the signal, as in lmkd.
        assert stream.table(TableWhich.REGISTERED) == ()


@pytest.mark.parametrize("method", [ReapMethod.AUTO, ReapMethod.PROCESS_MRELEASE, ReapMethod.NONE])
def test_each_way_to_reap(stream: HelperStream, method: ReapMethod) -> None:
    if method == ReapMethod.PROCESS_MRELEASE and stream.hello.process_mrelease != CallState.PRESENT:
        pytest.skip("this kernel has no process_mrelease")
    with victim(16) as process:
        kill(stream, Kill(pid=process.pid, start_ticks=start_ticks(process.pid), method=method, flags=KillFlag.BOOST))
        story = expect(stream, Killed)[1]
        if method != ReapMethod.AUTO:
            assert story.method == method
        if story.method == ReapMethod.NONE:
            assert story.reap_calls == 0 and story.anon_kib_after == -1
        else:
            # ESRCH is usual: exit had begun before anybody could reap.
            assert story.reap_error in (0, errno.ESRCH) and story.reap_calls >= 1
            assert 0 <= story.anon_kib_after < 16 * MIB
        assert process.wait(10) == -signal.SIGKILL


def test_a_call_the_kernel_lacks_is_reported_and_harmless(stream: HelperStream) -> None:
    if stream.hello.process_reap == CallState.PRESENT:
        pytest.skip("this kernel has process_reap")
    with victim() as process:
        ticks = start_ticks(process.pid)
        kill(stream, Kill(pid=process.pid, start_ticks=ticks, method=ReapMethod.PROCESS_REAP))
        story = expect(stream, Killed)[1]
        assert (story.method, story.reap_error) == (ReapMethod.PROCESS_REAP, errno.ENOSYS)
        assert process.wait(10) == -signal.SIGKILL


def test_memory_coming_back_is_measured(tmp_path: Path) -> None:
    proc = ProcRoot(tmp_path / "proc")
    with local_helper(tmp_path, proc_root=proc.path) as helper, helper.connect(QUIET) as stream, victim() as process:
        proc.add_process(process.pid, start_ticks=5, rss_kib=8 * MIB)
        kill(stream, Kill(pid=process.pid, start_ticks=5, flags=KillFlag.MEASURE))
        expect(stream, Exited)
        nothing_of(stream, Killed, 0.1)
        pages = 4 * MIB * 1024 // os.sysconf("SC_PAGE_SIZE")
        proc.write("vmstat", f"nr_free_pages {25000 + pages}\n")
        story = expect(stream, Killed)[1]
        assert story.back_ns > story.exit_ns
        assert story.exit_ns < story.back_allocatable_ns
        assert (story.anon_kib_before, story.shmem_kib_before, story.swap_kib_before) == (4 * MIB, 2 * MIB, 512)
        assert story.free_pages_before == 25000


def test_a_reused_pid_is_never_killed(tmp_path: Path) -> None:
    proc = ProcRoot(tmp_path / "proc")
    with local_helper(tmp_path, proc_root=proc.path) as helper, helper.connect(QUIET) as stream, victim() as process:
        proc.add_process(process.pid, start_ticks=111, oom_score_adj=900)
        entry = watch(stream, process.pid)
        # The pid now belongs to a process that started later.
        proc.add_process(process.pid, start_ticks=222, oom_score_adj=900)
        for request in (
            Kill(handle=entry.handle, pid=process.pid, start_ticks=0),
            Kill(pid=process.pid, start_ticks=111),
            Kill(pid=process.pid, start_ticks=333),
        ):
            assert kill(stream, request)[1].error == errno.ESTALE
        assert kill(stream, Kill(handle=entry.handle + 1, pid=process.pid, start_ticks=0))[1].error == errno.ESRCH
        assert process.poll() is None
        nothing_of(stream, Killed, 0.1)


def test_a_process_that_proc_does_not_know_is_gone(tmp_path: Path) -> None:
    proc = ProcRoot(tmp_path / "proc")
    with local_helper(tmp_path, proc_root=proc.path) as helper, helper.connect(QUIET) as stream, victim() as process:
        assert kill(stream, Kill(pid=process.pid, start_ticks=111))[1].error == errno.ESRCH
        assert process.poll() is None


def test_a_dead_process_is_gone_not_killed(stream: HelperStream) -> None:
    with victim() as process:
        entry = watch(stream, process.pid)
        process.kill()
        process.wait()
        exited = expect(stream, Exited)[1]
        assert (exited.kill_id, exited.handle) == (0, entry.handle)
        answer = kill(stream, Kill(handle=entry.handle, pid=process.pid, start_ticks=0))[1]
        assert answer.error == errno.ESRCH
        assert kill(stream, Kill(pid=process.pid, start_ticks=entry.start_ticks))[1].error == errno.ESRCH


def test_oom_score_adj_is_checked_right_before_the_signal(stream: HelperStream) -> None:
    with victim() as process:
        adj = int(Path(f"/proc/{process.pid}/oom_score_adj").read_text())
        ticks = start_ticks(process.pid)
        wrong = Kill(pid=process.pid, start_ticks=ticks, flags=KillFlag.CHECK_ADJ, oom_score_adj=adj + 1)
        assert kill(stream, wrong)[1].error == errno.ECANCELED
        assert process.poll() is None
        right = Kill(pid=process.pid, start_ticks=ticks, flags=KillFlag.CHECK_ADJ, oom_score_adj=adj)
        assert kill(stream, right)[1].error == 0
        assert process.wait(10) == -signal.SIGKILL


def test_some_are_never_signalled(helper: LocalHelper, stream: HelperStream) -> None:
    for pid in (0, 1, -1, stream.hello.pid, stream.hello.guardian_pid):
        assert kill(stream, Kill(pid=pid, start_ticks=1))[1].error == errno.EPERM
    with pytest.raises(RequestRefusedError, match="start time"):
        stream.request(Kill(pid=os.getpid(), start_ticks=0), Signalled)
    assert stream.ping().now_ns > 0


def test_a_dry_run_signals_nobody(helper: LocalHelper) -> None:
    settings = Settings(flags=SettingsFlag.DRY_RUN | SettingsFlag.SERVE_LMKD, main_priority=0, reaper_priority=0)
    with helper.connect(settings) as stream, victim() as process:
        answer = kill(stream, Kill(pid=process.pid, start_ticks=start_ticks(process.pid)))[1]
        assert answer.error == errno.EPERM
        # What a dry run does instead: all the checks, and then no signal.
        ticks = start_ticks(process.pid)
        ask = Kill(pid=process.pid, start_ticks=ticks, signal=0, flags=KillFlag.CHECK_ADJ, oom_score_adj=-17)
        assert kill(stream, ask)[1].error == errno.ECANCELED
        assert kill(stream, Kill(pid=process.pid, start_ticks=ticks, signal=0))[1].error == 0
        assert not helper.lmkd_socket.exists()
        assert process.poll() is None


def test_other_signals_have_no_story(stream: HelperStream) -> None:
    with victim() as process:
        ticks = start_ticks(process.pid)
        assert kill(stream, Kill(pid=process.pid, start_ticks=ticks, signal=0))[1].error == 0
        assert kill(stream, Kill(pid=process.pid, start_ticks=ticks, signal=signal.SIGTERM))[1].error == 0
        assert process.wait(10) == -signal.SIGTERM
        nothing_of(stream, Killed, 0.1)


def test_a_kill_overtakes_what_was_sent_before_it(stream: HelperStream) -> None:
    with victim() as process:
        sample_id = stream.post(GetSample(files=0b111111))
        kill_id = stream.post(Kill(pid=process.pid, start_ticks=start_ticks(process.pid)))
        signalled, sample = stream.answer(kill_id), stream.answer(sample_id)
        assert isinstance(signalled, Signalled) and isinstance(sample, Sample)
        # Both arrive in one read unless the machine is busy; then the order is that of sending.
        assert signalled.error == 0
        assert process.wait(10) == -signal.SIGKILL


def test_many_kills_at_once_all_have_their_story(stream: HelperStream) -> None:
    with contextlib.ExitStack() as stack:
        victims = [stack.enter_context(victim()) for _ in range(12)]
        ids = {
            stream.post(Kill(pid=process.pid, start_ticks=start_ticks(process.pid))): process.pid for process in victims
        }
        for kill_id in ids:
            answer = stream.answer(kill_id)
            assert isinstance(answer, Signalled) and answer.error == 0
        stories = dict(expect(stream, Killed) for _ in ids)
        assert {kill_id: story.pid for kill_id, story in stories.items()} == ids


def test_a_victim_that_does_not_exit_is_told_after_the_time_limit(helper: LocalHelper) -> None:
    settings = Settings(flags=0, reap_timeout_ms=200, main_priority=0, reaper_priority=0)
    with helper.connect(settings) as stream:
        tracer = subprocess.Popen([sys.executable, "-c", _HOLD_AT_EXIT], stdout=subprocess.PIPE)
        assert tracer.stdout is not None
        try:
            pid = int(tracer.stdout.readline())
            kill_id, answer = kill(stream, Kill(pid=pid, start_ticks=start_ticks(pid)))
            assert answer.error == 0
            told_id, story = expect(stream, Killed)
            assert told_id == kill_id
            assert story.flags & KilledFlag.EXIT_NOT_SEEN and story.exit_ns == 0
            nothing_of(stream, Exited, 0.1)
        finally:
            # Without its tracer the victim goes on dying.
            tracer.kill()
            tracer.wait()
            tracer.stdout.close()
        assert expect(stream, Exited)[1].kill_id == kill_id


#: Seizes a child with PTRACE_O_TRACEEXIT, which stops it on its way out, dying but not dead.
_HOLD_AT_EXIT = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
pid = os.fork()
if pid == 0:
    time.sleep(1000)
PTRACE_SEIZE, PTRACE_O_TRACEEXIT = 0x4206, 0x40
assert libc.ptrace(PTRACE_SEIZE, pid, None, PTRACE_O_TRACEEXIT) == 0, ctypes.get_errno()
print(pid, flush=True)
time.sleep(1000)
"""


def test_no_pressure_is_sent_without_a_trigger(stream: HelperStream) -> None:
    nothing_of(stream, Pressure, 0.05)
