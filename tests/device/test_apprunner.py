"""lmk-apprunner on this machine: real processes of a few MiB, temporary directories for sockets and cgroups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from lmk.config.timeline import PlannedProcess, Timeline, TimelineStep
from lmk.device.apprunner import AppEvent, AppRunner
from lmk.device.native import native_binary
from lmk.errors import TargetError
from lmk.policy.lmkd.control_packets import ProcPrio, ProcPurge, ProcRemove, Subscribe, Target
from tests.device.apprunner_host import FakeLmkd, LocalDevice, kill, living, make_pool, wait_until

APP_UID = os.geteuid() or 10100


@pytest.fixture(scope="session")
def binary() -> Path:
    return native_binary("lmk-apprunner", os.uname().machine)


@attrs.frozen
class World:
    device: LocalDevice
    runner: AppRunner
    lmkd_path: Path
    cgroup: Path

    def start(self, timeline: Timeline) -> AppEvent:
        return self.runner.start(timeline, prepare_s=30)

    def until(self, kind: str, timeout_s: float = 20.0, **members: object) -> AppEvent:
        """The next event of that kind with these members; all before it are dropped."""
        for event in self.runner.events(until="stopped", timeout_s=timeout_s):
            if event.kind == kind and all(event.body.get(key) == value for key, value in members.items()):
                return event
        raise AssertionError(f"no {kind}")


@pytest.fixture
def world(tmp_path: Path, binary: Path) -> Iterator[World]:
    cgroup = tmp_path / "cgroup"
    cgroup.mkdir()
    make_pool(tmp_path / "pool", 4096)
    tmp_path.chmod(0o755)
    device = LocalDevice(tmp_path)
    lmkd_path = tmp_path / "lmkd"
    runner = AppRunner(
        device,
        binary=binary,
        arguments=f"--lmkd {lmkd_path} --pool {tmp_path}/pool --cgroup {cgroup} --no-realtime --linger 5",
        socket_name=f"lmk-apprunner-test-{os.getpid()}",
    )
    with runner:
        yield World(device, runner, lmkd_path, cgroup)


def app(id_: int, name: str, **changes: object) -> PlannedProcess:
    planned = PlannedProcess(
        id=id_,
        name=name,
        process_name=name,
        role="app",
        uid=APP_UID,
        anon_kib=4096,
        file_kib=1024,
        ratio_permille=2600,
        hot_permille=500,
        cold_start_ms=10,
        touch_every_ms=100,
    )
    return attrs.evolve(planned, **changes)  # type: ignore[arg-type]


def timeline(*processes: PlannedProcess, steps: tuple[TimelineStep, ...] = (), **changes: object) -> Timeline:
    plain = Timeline(
        scenario="test",
        seed=7,
        processes=processes,
        steps=steps,
        duration_ms=60_000,
        freeze=False,
        freeze_after_ms=100,
        compact=False,
        minfree=((100, 0), (200, 900)),
    )
    return attrs.evolve(plain, **changes)  # type: ignore[arg-type]


def rss_kib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4


def test_an_app_is_born_with_its_own_name_uid_and_memory(world: World) -> None:
    world.start(timeline(app(0, "com.example.camera", anon_kib=8192)))
    world.runner.step("launch 0")
    pid = world.until("filled").body["pid"]
    process = Path(f"/proc/{pid}")
    assert (process / "cmdline").read_bytes() == b"com.example.camera\0"
    assert (process / "comm").read_text() == ".example.camera\n"
    assert f"Uid:\t{APP_UID}\t" in (process / "status").read_text()
    assert rss_kib(pid) >= 8192 + 1024
    mappings = [line for line in (process / "maps").read_text().splitlines() if line.endswith("/pool")]
    assert len(mappings) == 1


def test_cold_and_warm_launches_are_measured(world: World) -> None:
    world.start(timeline(app(0, "one", cold_start_ms=50), app(1, "two")))
    world.runner.step("launch 0")
    cold = world.until("launch", app="one")
    assert cold.body["cold"] is True
    assert cold.body["launch_ms"] >= 50
    assert cold.body["minor_faults"] > 0
    world.until("filled", app="one")
    world.runner.step("launch 1")
    world.until("launch", app="two")
    world.runner.step("launch 0")
    warm = world.until("launch", app="one")
    assert warm.body["cold"] is False
    assert warm.body["pid"] == cold.body["pid"]
    assert warm.body["launch_ms"] < cold.body["launch_ms"]


def test_lmkd_hears_what_activity_manager_would_say(world: World) -> None:
    lmkd = FakeLmkd(world.lmkd_path)
    try:
        world.start(timeline(app(0, "home", role="home", autostart=True), app(1, "one"), app(2, "two")))
        world.until("lmkd_connected")
        world.runner.step("launch 1")
        one = world.until("launch", app="one").body["pid"]
        world.runner.step("launch 2")
        two = world.until("launch", app="two").body["pid"]
        kill(two)
        world.until("died", app="two")
        wait_until(lambda: ProcRemove(two) in lmkd.packets)
        assert lmkd.packets[:4] == [ProcPurge(), Target(((100, 0), (200, 900))), Subscribe(0), Subscribe(1)]
        of_one = [packet.adj for packet in lmkd.packets if isinstance(packet, ProcPrio) and packet.pid == one]
        assert of_one == [0, 700]
        assert {packet.uid for packet in lmkd.packets if isinstance(packet, ProcPrio)} == {APP_UID}
        # PROCPRIO as the framework sends it: four integers, no type.
        assert {len(raw) for raw in lmkd.raw if raw[:4] == b"\0\0\0\1"} == {16}
    finally:
        lmkd.close()


def test_kill_notifications_become_events(world: World) -> None:
    lmkd = FakeLmkd(world.lmkd_path)
    try:
        world.start(timeline(app(0, "one")))
        world.until("lmkd_connected")
        wait_until(lambda: len(lmkd.packets) >= 4)
        lmkd.notify(bytes.fromhex("00000006 0000007b 00002774"))
        assert world.until("lmkd_kill").body == {"pid": 123, "uid": 10100, "rss_kib": None}
        lmkd.notify(bytes.fromhex("00000006 0000007b 00002774 00001000"))
        assert world.until("lmkd_kill").body == {"pid": 123, "uid": 10100, "rss_kib": 4096}
    finally:
        lmkd.close()


@pytest.mark.parametrize("again", [True, False])
def test_a_control_socket_that_comes_back(world: World, again: bool) -> None:
    lmkd = FakeLmkd(world.lmkd_path)
    world.start(timeline(app(0, "one"), reregister=again))
    world.until("lmkd_connected")
    world.runner.step("launch 0")
    pid = world.until("launch").body["pid"]
    lmkd.close()
    world.until("lmkd_lost")
    second = FakeLmkd(world.lmkd_path)
    try:
        world.until("lmkd_connected")
        wait_until(lambda: len(second.packets) >= 4 + again)
        told = [packet.pid for packet in second.packets if isinstance(packet, ProcPrio)]
        assert told == ([pid] if again else [])
    finally:
        second.close()


def test_without_a_control_socket_it_writes_oom_score_adj_itself(world: World) -> None:
    world.start(timeline(app(0, "one"), app(1, "two")))
    world.runner.step("launch 0")
    pid = world.until("launch").body["pid"]
    world.runner.step("launch 1")
    world.until("adj", app="one", adj=700)
    wait_until(lambda: Path(f"/proc/{pid}/oom_score_adj").read_text() == "700\n")


def test_many_births_at_once_leave_every_process_the_adj_that_was_told_last(world: World) -> None:
    # A child that is late wrote the adj of its birth over a newer one, and lmkd's kills of it were refused.
    services = [app(i, f"service{i}", role="service", anon_kib=64, file_kib=0) for i in range(24)]
    steps = tuple(TimelineStep(t_ms=0, action="launch", process=i) for i in range(24))
    world.start(timeline(*services, steps=steps))
    last: dict[int, int] = {}
    for event in world.runner.events(until="stopped", timeout_s=20):
        if event.kind in ("spawned", "adj"):
            last[int(event.body["pid"])] = int(event.body["adj"])
        if event.kind == "filled" and len(last) == 24:
            break
    assert len(last) == 24 and len(set(last.values())) > 1
    for pid, adj in last.items():
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == f"{adj}\n"


def test_the_base_load_is_filled_before_anything_else(world: World) -> None:
    server = app(0, "system_server", role="fixed", adj=0, autostart=True, anon_kib=4096)
    ballast = app(1, "unreclaimable", role="fixed", adj=0, autostart=True, locked=True, uid=0, file_kib=0)
    world.runner.launch()
    world.runner.load(timeline(server, ballast, steps=(TimelineStep(t_ms=0, action="launch", process=0),)))
    world.runner.prepare(30)
    events = world.runner.poll()
    filled = {event.body["app"]: event.body["pid"] for event in events if event.kind == "filled"}
    assert set(filled) == {"system_server", "unreclaimable"}
    assert rss_kib(filled["system_server"]) >= 4096
    if os.geteuid() == 0:
        status = Path(f"/proc/{filled['unreclaimable']}/status").read_text()
        locked_kib = int(next(line for line in status.splitlines() if line.startswith("VmLck")).split()[1])
        assert locked_kib >= 4096


def test_growth_leak_and_touch(world: World) -> None:
    world.start(timeline(app(0, "one", anon_kib=1024)))
    world.runner.step("launch 0")
    pid = world.until("filled").body["pid"]
    world.runner.step("grow 0 kib=4096 over_ms=200")
    assert world.until("grew").body["anon_kib"] == 1024 + 4096
    world.runner.step("leak 0 kib_per_s=100000 kib=8192")
    assert world.until("grew").body["anon_kib"] == 1024 + 4096 + 8192
    assert rss_kib(pid) >= 13 * 1024
    world.runner.step("touch 0 anon=1000 file=1000 times=3")
    assert world.until("touched").body["minor_faults"] > 0
    world.runner.step("exit 0")
    died = world.until("died").body
    assert (died["expected"], died["signal"], died["code"]) == (True, 0, 0)


def test_a_process_that_computes(world: World) -> None:
    world.start(timeline(app(0, "one", cpu_permille=500, touch_every_ms=10_000)))
    world.runner.step("launch 0")
    pid = world.until("filled").body["pid"]

    def cpu_ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    began = cpu_ticks()
    wait_until(lambda: cpu_ticks() - began >= 10)
    world.runner.step("background 0")
    world.runner.step("exit 0")
    world.until("died")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to lock memory")
def test_pinned_memory_is_locked(world: World) -> None:
    world.start(timeline(app(0, "one", pinned_kib=2048)))
    world.runner.step("launch 0")
    pid = world.until("filled").body["pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    assert int(next(line for line in status.splitlines() if line.startswith("VmLck")).split()[1]) >= 2048
    assert rss_kib(pid) >= 4096 + 1024 + 2048


def test_a_killed_app_is_opened_cold_again(world: World) -> None:
    world.start(timeline(app(0, "home", role="home", autostart=True), app(1, "one")))
    world.runner.step("launch 1")
    first = world.until("launch", app="one").body["pid"]
    kill(first)
    died = world.until("died", app="one").body
    assert (died["signal"], died["adj"], died["expected"]) == (9, 0, False)
    assert world.until("home_shown").body["cold"] is False
    world.runner.step("grow 1 kib=4 over_ms=0")
    assert world.until("skipped").body["why"] == "dead"
    world.runner.step("launch 1")
    again = world.until("launch", app="one").body
    assert again["cold"] is True
    assert again["pid"] != first


def test_a_service_comes_back_by_itself(world: World) -> None:
    world.start(timeline(app(0, "sync", role="service", restart=True, cold_start_ms=0)))
    world.runner.step("launch 0")
    first = world.until("filled").body["pid"]
    kill(first)
    died = world.until("died")
    back = world.until("spawned")
    assert back.body["adj"] == 500
    assert back.t_ns - died.t_ns >= 900_000_000


def test_cached_apps_are_frozen_and_compacted(world: World) -> None:
    world.start(timeline(app(0, "one"), app(1, "two"), app(2, "three"), freeze=True, compact=True))
    world.runner.step("launch 0")
    pid = world.until("filled", app="one").body["pid"]
    for other in (1, 2):
        world.runner.step(f"launch {other}")
    world.until("frozen", app="one")
    compacted = world.until("compacted", app="one").body
    # This machine has no swap: as Android does without free swap, only file pages are paged out.
    assert compacted["file"] is True
    freezer = world.cgroup / f"apps/uid_{APP_UID}/pid_{pid}/cgroup.freeze"
    assert freezer.read_text() == "1"
    world.runner.step("launch 0")
    world.until("thawed", app="one")
    assert world.until("launch", app="one").body["cold"] is False
    assert freezer.read_text() == "0"
    assert (freezer.parent / "cgroup.procs").read_text() == str(pid)


def test_steps_happen_when_the_timeline_says(world: World) -> None:
    steps = (
        TimelineStep(t_ms=0, action="launch", process=0),
        TimelineStep(t_ms=300, action="background", process=0),
    )
    world.start(timeline(app(0, "one"), steps=steps, duration_ms=500))
    events = list(world.runner.events(timeout_s=10))
    at = {event.body["action"]: event.body["t_ms"] for event in events if event.kind == "step"}
    assert 0 <= at["launch"] < 100
    assert 300 <= at["background"] < 400
    assert events[-1].kind == "done"
    assert 500 <= events[-1].body["t_ms"] < 600


def test_events_survive_a_lost_connection(world: World) -> None:
    steps = tuple(TimelineStep(t_ms=20 * i, action="background", process=0) for i in range(20))
    world.start(timeline(app(0, "one"), steps=steps, duration_ms=500))
    world.device.streams[-1].close()
    world.runner.close()
    world.runner._connect()
    events = list(world.runner.events(timeout_s=10))
    assert sum(event.kind == "step" for event in events) == 20
    assert [event.seq for event in events] == list(range(events[0].seq, events[0].seq + len(events)))


def test_a_leftover_runner_gives_way(world: World) -> None:
    world.start(timeline(app(0, "one")))
    world.runner.step("launch 0")
    pid = world.until("launch").body["pid"]
    second = AppRunner(
        world.device,
        binary=native_binary("lmk-apprunner", os.uname().machine),
        arguments="--lmkd none --pool none --no-realtime --linger 5",
        socket_name=f"lmk-apprunner-test-{os.getpid()}",
    )
    with second:
        second.start(timeline(app(0, "one")))
        assert not living(pid)


def test_nothing_is_left_after_stop(world: World) -> None:
    world.start(timeline(app(0, "one"), app(1, "two")))
    world.runner.step("launch 0")
    world.runner.step("launch 1")
    pids = [world.until("filled").body["pid"] for _ in range(2)]
    last = world.runner.stop()[-1]
    assert last.kind == "stopped"
    assert not any(living(pid) for pid in pids)


def test_killing_the_runner_takes_its_apps_along(world: World) -> None:
    world.start(timeline(app(0, "one")))
    hello = next(event for event in world.runner.poll(1) if event.kind == "hello")
    world.runner.step("launch 0")
    pid = world.until("filled").body["pid"]
    kill(hello.body["pid"])
    wait_until(lambda: not living(pid))
    world.runner.close()
    world.runner._ended = True


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("lmk-timeline 2\nend 1\n", 1, "version 1"),
        ("process 1 a app cached\nend 1\n", 1, "process ID"),
        ("process 0 a b cached\nend 1\n", 1, "role"),
        ('process 0 a"b app cached\nend 1\n', 1, "name"),
        ("process 0 a app cached uid=x\nend 1\n", 1, "key=number"),
        ("process 0 a app cached colour=1\nend 1\n", 1, "unknown key"),
        ("process 0 a app cached\nat 5 fly 0\nend 1\n", 2, "action"),
        ("process 0 a app cached\nat 5 launch 1\nend 1\n", 2, "process"),
        ("process 0 a app cached\nat 5 launch 0\nat 4 launch 0\nend 1\n", 3, "earlier"),
        ("process 0 a app cached\nat 5\nend 1\n", 2, "expected"),
        ("option freeze yes\nend 1\n", 1, "number"),
        ("hop\n", 1, "unknown statement"),
        ("seed 1\n", 2, "no end"),
    ],
)
def test_bad_timelines_are_refused_with_their_line(world: World, text: str, line: int, why: str) -> None:
    world.runner.launch()
    world.runner._send(f"load {len(text)}\n{text}".encode())
    with pytest.raises(TargetError, match=f"line {line}: .*{why}"):
        world.runner._wait_for("loaded", 5)
