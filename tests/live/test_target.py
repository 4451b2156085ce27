"""lmkd's policy on a live target: the real helper as a local process, a /proc tree of our own, a real victim."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from lmk.device.helper_messages import SettingsDone
from lmk.device.helper_requests import Settings
from lmk.device.helper_types import Capability, SettingItem, SettingResult, SettingsFlag
from lmk.engine.kills import KillJournal
from lmk.engine.loop import run_policy
from lmk.engine.observer import RecordingObserver
from lmk.live.clock import DeviceClock
from lmk.live.files import CANDIDATES, SAMPLE_MASK, VICTIM_FIELDS, VMSTAT_NAMES
from lmk.live.listener import RunListener
from lmk.live.steady import SteadyStream
from lmk.live.takeover import TakenTable
from lmk.live.target import LiveTarget
from lmk.policy.api import (
    Kill,
    Killed,
    Memcg,
    MemoryEventSupport,
    OpenMemoryEvents,
    Policy,
    ReapedEvent,
    Request,
    Wait,
    Wakeup,
)
from lmk.policy.lmkd.control_packets import ProcPrio, encode_command
from lmk.policy.none import NonePolicy
from lmk.policy.registry import make_policy
from lmk.policy.scheduled import Schedule, ScheduledKill, ScheduledPolicy
from lmk.record.reader import RecordReader
from lmk.record.writer import RecordWriter
from tests.fakes.helper_peer import LocalHelper, local_helper
from tests.fakes.proc_root import ProcRoot

ZONEINFO = """\
Node 0, zone   Normal
  per-node stats
      nr_inactive_file 100000
      nr_active_file 100000
  pages free     9000
        min      10000
        low      12500
        high     15000
        spanned  500000
        present  500000
        managed  480000
        protection: (0, 0, 0, 0)
      nr_free_pages 9000
  pagesets
    cpu: 0
"""
MEMINFO = """\
MemTotal:        2048000 kB
MemFree:           36000 kB
MemAvailable:      90000 kB
Buffers:            1000 kB
Cached:           300000 kB
SwapCached:            0 kB
Active(anon):     400000 kB
Inactive(anon):   400000 kB
Active(file):     100000 kB
Inactive(file):   100000 kB
SwapTotal:       1000000 kB
SwapFree:         500000 kB
CmaFree:               0 kB
"""


class Both:
    """Two observers."""

    def __init__(self, *observers: Any) -> None:
        self._observers = observers

    def exchanged(self, t_ns: int, request: Request, answer: object) -> None:
        for observer in self._observers:
            observer.exchanged(t_ns, request, answer)


class Scene:
    """A helper, a fake /proc and one registered victim; presses twice: lmkd's first look only notes counters."""

    def __init__(self, helper: LocalHelper, proc: ProcRoot, victim: subprocess.Popen[bytes]) -> None:
        self.helper, self.proc, self.victim = helper, proc, victim
        self._step = self._after = 0
        self.dies = True
        self._until_s = time.monotonic() + 60
        self.sockets: list[Any] = []
        self.taken: TakenTable | None = None
        self.scores: dict[int, int] = {}  # dry run: what the processes' scores become
        self.worker_pid = 0
        self.disaster: Callable[[], None] = lambda: None

    def advance(self) -> str | None:
        """Housekeeping: the next thing that happens to the device."""
        self._step += 1
        if self._step == 1 and self.taken is not None:
            for pid, adj in self.scores.items() or ((self.victim.pid, 900),):
                self.proc.write(f"{pid}/oom_score_adj", f"{adj}\n")
            assert self.taken.refresh() >= 1
        elif self._step == 1:
            client = self.helper.lmkd_client()
            client.send(encode_command(ProcPrio(pid=self.victim.pid, uid=10001, adj=900)))
            self.sockets.append(client)
            self.disaster()
        elif self.dies and self.victim.poll() is not None:
            self._after += 1  # the end of its story is still to come
            if self._after > 4:
                return "seen enough"
        elif not self.dies and self._step > 14:
            return "seen enough"
        else:
            self.scan(self._step)
            with contextlib.suppress(OSError):  # nobody has armed a trigger
                self.proc.press()
        return "too slow" if time.monotonic() > self._until_s else None

    def scan(self, count: int) -> None:
        """kswapd has scanned: lmkd only acts when reclaim has happened."""
        self.proc.write(
            "vmstat",
            f"nr_free_pages 9000\nnr_inactive_file 100000\nnr_active_file 100000\nworkingset_refault_file 5\n"
            f"pgscan_kswapd {1000 + count}\npgscan_direct 500\npgrefill 2000\n",
        )

    def close(self) -> None:
        for client in self.sockets:
            client.close()


@contextlib.contextmanager
def idle_process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    proc = ProcRoot(tmp_path / "proc")
    proc.write("meminfo", MEMINFO)
    proc.write("zoneinfo", ZONEINFO)
    proc.make_fifo()
    (tmp_path / "dev/__log_lmk").mkdir(parents=True)
    with idle_process() as victim, local_helper(tmp_path, proc_root=proc.path) as helper:
        proc.add_process(victim.pid, name="com.example.victim", rss_kib=100_000, oom_score_adj=0)
        found = Scene(helper, proc, victim)
        found.scan(0)
        yield found
        found.close()


def play(scene: Scene, policy: Policy, directory: Path, *, dry_run: bool = False) -> RecordReader:
    flags = SettingsFlag.DRY_RUN if dry_run else SettingsFlag.SERVE_LMKD | SettingsFlag.WRITE_ADJ
    settings = Settings(
        flags=flags,
        main_priority=0,
        reaper_priority=0,
        sample_files=SAMPLE_MASK & ~(1 << 3),  # pressure/memory is a FIFO here
        candidates=CANDIDATES,
        candidate_fields=VICTIM_FIELDS,
        vmstat_names=VMSTAT_NAMES,
    )
    with RecordWriter(directory) as writer, SteadyStream(scene.helper.connect) as stream:
        stream.request(settings, SettingsDone)
        scene.worker_pid = stream.hello.pid
        clock = DeviceClock()
        before_ns = time.monotonic_ns()
        clock.observe(before_ns, stream.ping().now_ns, time.monotonic_ns())
        journal = KillJournal(writer, dry=dry_run)
        listener = RunListener(writer, journal, scene.advance)
        target = LiveTarget(
            stream,
            clock,
            listener,
            lambda: {"ro.lmk.log_stats": "true", "sys.boot_completed": "1"},
            memcg=Memcg(2),
            dry_run=dry_run,
        )
        if dry_run:
            scene.taken = TakenTable(stream, target.inject)
            target.follow(scene.taken)
        why = run_policy(policy, target, Both(RecordingObserver(writer, target.woke_ns), journal))
    assert why == "seen enough"
    return RecordReader(directory)


def test_pressure_kills_the_registered_process_and_the_record_tells_all(scene: Scene, tmp_path: Path) -> None:
    with play(scene, make_policy("lmkd", "14Q2"), tmp_path / "run") as record:
        kills = record.kills()
        assert scene.victim.wait(5) == -9
        assert [(k.pid, k.name, k.oom_score_adj, k.killer) for k in kills] == [
            (scene.victim.pid, "com.example.victim", 900, "lmk")
        ]
        kill = kills[0]
        # Both triggers fired; the critical one is told first, as epoll does: after the other it would see no reclaim.
        assert kill.reason == "device is not responding"
        assert (kill.reason_code, kill.min_oom_score_adj, kill.uid) == (1, 0, 10001)
        assert (kill.rss_kib, kill.swap_kib) == (100_000, 512)
        assert kill.event_to_signal_us is not None and 0 < kill.event_to_signal_us < 5_000_000
        assert kill.signal_to_exit_us is not None
        (path,) = record.device_events("kill_path")
        assert abs(sum(value for name, value in path.body.items() if name != "pid") - kill.event_to_signal_us) <= 5
        assert scene.proc.adj(scene.victim.pid) == 900
        texts = [row.text for row in record.logs()]
        assert any(t.startswith("Kill 'com.example.victim'") and "to free 100000kB rss, 512kB swap" in t for t in texts)
        assert [row for row in record.logs() if row.tag == "killinfo"]
        assert record.counters()
        assert list(record.decisions())
    killinfo = (scene.helper.folder / "dev/__log_lmk/events").read_text()
    fields = killinfo[killinfo.index("[") + 1 : killinfo.index("]")].split(",")
    assert (len(fields), fields[0], fields[-1]) == (38, str(scene.victim.pid), "0.000000")


@pytest.mark.parametrize(("tag", "survives"), [("16", True), ("N3", False)])
def test_a_later_lmkd_kills_the_victims_whole_cgroup(scene: Scene, tmp_path: Path, tag: str, survives: bool) -> None:
    pid = scene.victim.pid
    other = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"])
    group = scene.helper.folder / f"sys/fs/cgroup/uid_10001/pid_{pid}"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text(f"{pid}\n{other.pid}\n")
    scene.proc.write(f"{pid}/cgroup", f"0::/uid_10001/pid_{pid}\n")
    try:
        with play(scene, make_policy("lmkd", tag), tmp_path / "run") as record:
            (kill,) = record.kills()
        if kill.reap_method == "none":
            pytest.skip("this kernel has no call to reap with, so lmkd has no reaper threads")
        assert scene.victim.wait(5) == -9
        assert (other.poll() is None) == survives
    finally:
        other.kill()
        other.wait()


def test_dry_run_decides_and_signals_nobody(scene: Scene, tmp_path: Path) -> None:
    scene.dies = False
    with play(scene, make_policy("lmkd", "14Q2"), tmp_path / "run", dry_run=True) as record:
        assert [(k.pid, k.dry) for k in record.kills()] == [(scene.victim.pid, True)]
    assert scene.victim.poll() is None
    assert not scene.helper.lmkd_socket.exists()


def test_a_dry_run_takes_no_foreground_app_while_cached_ones_live(scene: Scene, tmp_path: Path) -> None:
    """Nobody dies and pressure goes on: what would have been killed first is still there to be chosen again."""
    scene.dies = False
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(idle_process()) for _ in range(2)]
        scene.scores = {scene.victim.pid: 0, others[0].pid: 920, others[1].pid: 910}
        for pid in scene.scores:
            # Seen in the foreground first, as every app is.
            scene.proc.add_process(pid, name=f"app{pid}", rss_kib=100_000, oom_score_adj=0)
        with play(scene, make_policy("lmkd", "14Q2"), tmp_path / "run", dry_run=True) as record:
            chosen = [pid for decision in record.decisions() for pid in decision.body["killed_pids"]]
            assert len(chosen) > 1, "pressure went on"
            assert set(chosen) == {others[0].pid}
            assert [(k.pid, k.oom_score_adj) for k in record.kills()] == [(others[0].pid, 920)]
            assert record.failed_kills() == []


def test_without_a_policy_nobody_dies_but_the_socket_is_served(scene: Scene, tmp_path: Path) -> None:
    scene.dies = False
    with play(scene, NonePolicy("14Q2"), tmp_path / "run") as record:
        assert record.kills() == []
    assert scene.victim.poll() is None
    assert scene.proc.adj(scene.victim.pid) == 900


def test_a_worker_that_dies_in_the_middle_is_not_the_end(scene: Scene, tmp_path: Path) -> None:
    def kill_worker() -> None:
        time.sleep(0.3)  # until the registration has arrived
        os.kill(scene.worker_pid, signal.SIGKILL)

    scene.disaster = kill_worker
    with play(scene, make_policy("lmkd", "14Q2"), tmp_path / "run") as record:
        assert [k.pid for k in record.kills()] == [scene.victim.pid]
        assert record.device_events("reconnected")
        assert record.device_events("failsafe")
    assert scene.victim.wait(5) == -9


def test_what_was_obeyed_in_a_silence_is_not_written_once_more(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host took its time over them, and undid what had been written since: no kill was of the score it saw."""
    pid = scene.victim.pid

    def silence() -> None:
        written = scene.proc.path / f"{pid}/oom_score_adj"
        while "fail-safe" not in scene.helper.log_file.read_text():
            time.sleep(0.1)
        scene.sockets[0].send(encode_command(ProcPrio(pid=pid, uid=10001, adj=950)))
        while written.read_text().split() != ["950"]:
            time.sleep(0.1)
        scene.proc.write(f"{pid}/oom_score_adj", "945\n")

    def look(count: int) -> None:
        seen.append(scene.proc.adj(pid))
        Scene.scan(scene, count)

    seen: list[int] = []
    monkeypatch.setattr(scene, "scan", look)
    scene.disaster, scene.dies = silence, False
    with play(scene, make_policy("lmkd", "14Q2"), tmp_path / "run") as record:
        (told,) = record.device_events("failsafe")
        assert told.body["packets_handled"] >= 1
    assert set(seen) == {945}


def test_kills_of_another_run_are_carried_out_by_name(scene: Scene, tmp_path: Path) -> None:
    policy = ScheduledPolicy(Schedule(kills=(ScheduledKill(t_ms=300.0, name="com.example.victim"),), looks_ms=(100.0,)))
    policy.begin(time.monotonic_ns())
    with play(scene, policy, tmp_path / "run") as record:
        (kill,) = record.kills()
    assert (kill.pid, kill.name, policy.missed) == (scene.victim.pid, "com.example.victim", 0)
    assert scene.victim.wait(5) == -9


def test_a_process_nobody_could_take_hold_of_is_gone_and_never_signalled_by_its_pid(tmp_path: Path) -> None:
    class NoStream:
        lost = 0

        def next_event(self, _timeout_s: float | None) -> None:
            return None

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"nothing may be asked of the device: {name}")

    with RecordWriter(tmp_path) as writer:
        journal = KillJournal(writer)
        listener = RunListener(writer, journal, lambda: None)
        target = LiveTarget(cast(Any, NoStream()), DeviceClock(), listener, dict, memcg=Memcg(2))
        assert target.answer(Kill(4711, None, True)) == Killed(0, queued=True)
        assert target.answer(Wait(0)) == Wakeup((ReapedEvent(4711, errno.ESRCH, 0, 0),))


@pytest.mark.parametrize("error", [0, errno.ENOENT])
def test_memory_events_are_switched_on_when_the_policy_wants_them(tmp_path: Path, error: int) -> None:
    """Two hundred messages a second under pressure: no policy that ignores them should wait behind them."""
    asked: list[Settings] = []

    class Stream:
        lost = 0
        settings = Settings(flags=SettingsFlag.OOM, heartbeat_ms=77)

        class hello:  # noqa: N801
            capabilities = Capability.TRACE_MEMEVENTS

        def request(self, message: Settings, _answer: type) -> SettingsDone:
            asked.append(message)
            return SettingsDone(results=(SettingResult(item=SettingItem.MEMEVENTS, error=error),))

    with RecordWriter(tmp_path) as writer:
        listener = RunListener(writer, KillJournal(writer), lambda: None)
        target = LiveTarget(cast(Any, Stream()), DeviceClock(), listener, dict, memcg=Memcg(2))
        support = target.answer(OpenMemoryEvents())
    assert isinstance(support, MemoryEventSupport)
    assert support.created is (error == 0)
    assert [(s.flags, s.heartbeat_ms) for s in asked] == [(SettingsFlag.OOM | SettingsFlag.MEMEVENTS, 77)]
