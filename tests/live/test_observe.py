"""``lmk record`` against the real helper over a /proc of our own: it looks, and touches nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lmk.device.helper import HelperStream
from lmk.errors import DeviceLostError
from lmk.live.observe import Ports, observe
from lmk.live.watcher import Watcher
from lmk.policy import api
from lmk.record.reader import RecordReader
from lmk.record.schema import KillRow
from lmk.replay.recorded import load
from tests.fakes.helper_peer import LocalHelper, local_helper, wait_until
from tests.fakes.proc_root import ProcRoot

PROPERTIES = {"init.svc.lmkd": "running", "ro.build.version.release": "14", "sys.boot_completed": "1"}


class Scene(Watcher):
    """A helper, a /proc, a log, and what the watcher was told."""

    def __init__(self, helper: LocalHelper, proc: ProcRoot, pids: list[int], folder: Path) -> None:
        self.helper, self.proc, self.pids, self.folder = helper, proc, pids, folder
        self.log, self._log_end = socket.socketpair()
        self.kills: list[KillRow] = []
        self.played_ms = 0

    def playing(self, done_ms: int, total_ms: int) -> None:
        self.played_ms = done_ms

    def kill(self, row: KillRow, zero_ns: int) -> None:
        self.kills.append(row)

    def say(self, tag: str, text: str) -> None:
        line = f"{time.time():.3f}   501   501 I {tag}: {text}\n"
        self.log.sendall(line.encode())

    def ports(self) -> Ports:
        return Ports(
            connect=self.connect,
            properties=lambda: PROPERTIES,
            memcg=api.Memcg(2),
            open_log=lambda: self._log_end,
            reconnect_s=0.5,
        )

    def connect(self) -> HelperStream:
        try:
            return self.helper.connect()
        except OSError as error:
            raise DeviceLostError("adb: no such socket") from error

    def record(self, duration_s: float | None, meanwhile: Callable[[], None]) -> Path:
        """Observe while ``meanwhile`` happens on a thread of its own."""
        thread = threading.Thread(target=meanwhile)
        thread.start()
        facts = {"target": "adb:test", "android": "14Q2"}
        try:
            observe(self.ports, facts, self.folder / "run", self, duration_s)
        finally:
            thread.join(20)
        return self.folder / "run"

    def pressed(self) -> None:
        self.started()
        self.proc.press()

    def started(self) -> None:
        wait_until(lambda: self.played_ms > 0, "the recording")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    proc = ProcRoot(tmp_path / "proc")
    proc.make_fifo()
    children = [subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"]) for _ in range(2)]
    for number, child in enumerate(children):
        proc.add_process(child.pid, name=f"com.example.app{number}", oom_score_adj=900 + number)
    with local_helper(tmp_path, proc_root=proc.path) as helper:
        made = Scene(helper, proc, [child.pid for child in children], tmp_path)
        yield made
        made.log.close()
    for child in children:
        child.kill()
        child.wait()


def kill_line(pid: int) -> str:
    return (
        f"Kill 'com.example.app1' ({pid}), uid 10001, oom_score_adj 901 to free 40960kB rss, 512kB swap; "
        "reason: low watermark is breached"
    )


def test_samples_processes_and_kills_are_recorded(scene: Scene) -> None:
    victim = scene.pids[1]

    def happen() -> None:
        scene.started()
        scene.proc.press()
        scene.say("lowmemorykiller", kill_line(victim))
        scene.say("am_proc_died", f"[0,{victim},com.example.app1,901,19]")
        scene.say("lowmemorykiller", "Killing spree without a wording")

    path = scene.record(2.5, happen)
    assert [(row.pid, row.killer) for row in scene.kills] == [(victim, "lmkd")]
    with RecordReader(path) as record:
        assert record.meta["complete"]
        assert record.meta["why"] == "the duration is over"
        (kill,) = [row for row in record.kills() if not row.dry]
        assert (kill.pid, kill.name, kill.rss_kib, kill.killer) == (victim, "com.example.app1", 40960, "lmkd")
        assert record.meta["zero_ns"] <= kill.t_ns <= record.meta["zero_ns"] + 3 * 10**9
        (sources,) = record.kill_sources().values()
        assert [source.kind for source in sources] == ["lmkd", "am_died"]
        assert len(record.counters()) >= 4
        (unknown,) = record.device_events("unknown_line")
        assert unknown.body["text"] == "Killing spree without a wording"
        rows = [row for event in record.device_events("processes") for row in event.body["rows"]]
        assert {(row["pid"], row["oom_score_adj"]) for row in rows} == {(scene.pids[0], 900), (victim, 901)}
        assert [(k["pid"], k["name"], k["t_ns"]) for k in record.meta["device_kills"]] == [
            (victim, "com.example.app1", kill.t_ns)
        ]


def test_nothing_on_the_device_is_touched(scene: Scene) -> None:
    before = [scene.proc.read(f"{pid}/oom_score_adj") for pid in scene.pids]
    scene.record(1.5, scene.pressed)
    assert [scene.proc.read(f"{pid}/oom_score_adj") for pid in scene.pids] == before
    for pid in scene.pids:
        os.kill(pid, 0)
    assert not scene.helper.lmkd_socket.exists()


def test_the_record_can_be_replayed(scene: Scene) -> None:
    path = scene.record(1.5, scene.pressed)
    with RecordReader(path) as record:
        world = load(record)
    assert [e for one in world.stimuli for e in one.events if isinstance(e, api.PressureEvent)]
    assert world.size_kib(scene.pids[0], world.end_ns) == (40960, 0)


def test_refused_triggers_are_said_and_computed_from_samples(scene: Scene) -> None:
    fifo = scene.proc.path / "pressure" / "memory"
    fifo.unlink()
    fifo.mkdir()  # opening it for writing fails

    path = scene.record(1.5, scene.started)
    with RecordReader(path) as record:
        assert any("refused the pressure trigger" in note for note in record.meta["notes"])
        assert record.meta["complete"]


def test_ctrl_c_ends_it_like_the_end_of_the_duration(scene: Scene) -> None:
    def interrupt() -> None:
        scene.started()
        import _thread  # the only way to interrupt one's own main thread without a signal

        _thread.interrupt_main()

    path = scene.record(None, interrupt)
    with RecordReader(path) as record:
        assert (record.meta["complete"], record.meta["why"]) == (True, "stopped with Ctrl-C")
        assert record.meta["duration_ms"] >= 0
        assert record.counters()


def test_a_lost_device_leaves_what_was_seen(scene: Scene) -> None:
    def lose() -> None:
        scene.started()
        scene.helper.close()

    with pytest.raises(DeviceLostError):
        scene.record(None, lose)
    with RecordReader(scene.folder / "run") as record:
        assert not record.meta["complete"]
        assert record.counters()


def test_mistakes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from lmk.cli.main import main

    for words, cause in (
        (["--target", "qemu"], "nothing runs there"),
        (["--target", "emulator:none"], "none"),
        (["--target", "emulator:none", "--duration", "1ms"], "less than a second"),
        (["--target", "emulator:none", "--android", "99"], "no such release"),
    ):
        assert main(["record", *words, "--output", str(tmp_path / "o")]) == 2
        assert cause in capsys.readouterr().err
