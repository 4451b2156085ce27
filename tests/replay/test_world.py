"""The recorded world: its texts against the recorder's own, its time rules, its descriptors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmk.policy import api
from lmk.replay.events import Clock, EndOfRecording
from lmk.replay.vectors import find_files, read_scenarios
from lmk.replay.world import World

SUBSET = Path(__file__).resolve().parents[1] / "data" / "vectors"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "vectors"
#: Files of a process that its own replacement hides: the recorder wrote both within one step.
GONE_IN_THE_SAME_STEP = "/dev/memcg/apps/"


def differing_texts(root: Path) -> tuple[int, list[str]]:
    compared, wrong = 0, []
    for path in find_files([root]):
        for scenario in read_scenarios(path):
            if "raw" not in scenario.script:
                continue
            world = World(scenario.script)
            for number, texts in enumerate(scenario.script["raw"]):
                if number:
                    world.apply_step(scenario.script["steps"][number - 1])
                for name, text in texts.items():
                    ours = world.text(name)
                    compared += 1
                    if ours != text and not (ours is None and name.startswith(GONE_IN_THE_SAME_STEP)):
                        wrong.append(f"{scenario.name} {number} {name}: {ours!r} is not {text!r}")
    return compared, wrong


def test_rendered_texts_are_those_the_daemon_read() -> None:
    compared, wrong = differing_texts(SUBSET)
    assert compared > 1000
    assert wrong == []


@pytest.mark.shared
def test_rendered_texts_of_all_recordings() -> None:
    if not SHARED.is_dir():
        pytest.skip("no ../shared/vectors beside the checkout")
    compared, wrong = differing_texts(SHARED)
    assert compared > 150_000
    assert wrong == []


def script(steps: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    return {
        "id": "x",
        "kind": "psi",
        "cfg": {"start_us": 1000, "pidfd": 1, "mrelease": 0, "memcg": "none"},
        "props": {},
        "mi": {"MemFree": 1},
        "vs": {"pgscan_kswapd": 1},
        "psi": {"memory": [[1.5, 0, 0, 7]], "io": [], "cpu": []},
        "zi": {"fmt": "5.10", "nodes": []},
        "procs": [
            {"pid": 5, "uid": 10, "name": "a", "rss": 40, "swap": 0, "death": 20},
            {"pid": 6, "uid": 10, "name": "b", "rss": 80, "swap": 0, "death": -1, "kerr": 1},
        ],
        "setup": [],
        "steps": steps,
        "end": 100_000,
        **changes,
    }


def clock(steps: list[dict[str, Any]], **changes: Any) -> Clock:
    made = script(steps, **changes)
    return Clock(made, World(made))


def test_a_wait_ends_at_its_timeout() -> None:
    time = clock([])
    assert time.wait(11_000) == ()
    assert time.now_us == 11_000


def test_an_event_at_the_moment_of_the_timeout_wins() -> None:
    time = clock([{"t": 11_000, "ev": [["psi", 1]]}])
    time.psi_levels.add(1)
    assert time.wait(11_000) == (api.PressureEvent(1),)


def test_events_nobody_listens_to_end_no_wait() -> None:
    time = clock([{"t": 5000, "ev": [["psi", 1], ["mp", 2], ["mem", 1, 0, 0, 0], ["lmk", "x"], ["hup", 3]]}])
    assert time.wait(11_000) == ()
    assert time.now_us == 11_000


def test_the_recording_ends_instead_of_a_timeout_at_its_end() -> None:
    time = clock([])
    with pytest.raises(EndOfRecording):
        time.wait(100_000)
    assert time.now_us == 100_000


def test_each_wait_returns_one_event_but_a_batch_together() -> None:
    time = clock([{"t": 5000, "ev": [["psi", 1], ["batch", [["psi", 2], ["psi", 0], ["psi", 1]]]]}])
    time.psi_levels |= {1, 2}
    assert time.wait(50_000) == (api.PressureEvent(1),)
    assert time.wait(50_000) == (api.PressureEvent(2), api.PressureEvent(1))


def test_a_dead_pidfd_goes_before_the_rest_of_a_step_and_stays_readable() -> None:
    time = clock([{"t": 5000, "ev": [["exit", 5], ["psi", 1]]}])
    time.psi_levels.add(1)
    time.watched[9] = time.world.processes[5]
    assert time.wait(50_000) == (api.ExitEvent(9),)
    assert time.wait(50_000) == (api.ExitEvent(9),)
    del time.watched[9]
    assert time.wait(50_000) == (api.PressureEvent(1),)


def test_a_death_comes_before_a_step_at_the_same_time() -> None:
    time = clock([{"t": 1020, "ev": [["psi", 1]]}])
    time.psi_levels.add(1)
    victim = time.world.processes[5]
    assert time.world.signal(victim, time.now_us) == 0
    assert time.world.signal(victim, time.now_us + 5) == 0  # the first signal counts
    time.watched[1] = victim
    assert time.wait(50_000) == (api.ExitEvent(1),)
    assert time.now_us == 1020 and 5 not in time.world.processes


def test_signals_that_fail() -> None:
    world = World(script([]))
    assert world.signal(world.processes[6], 0) == 1
    assert world.signal(None, 0) == 3


def test_a_reused_pid_is_another_process() -> None:
    world = World(script([]))
    old = world.processes[5]
    world.apply_step({"t": 1, "new": [{"pid": 5, "uid": 1, "name": "c", "rss": 4, "swap": 0, "death": 0}]})
    assert old.dead and world.signal(old, 0) == 3
    assert world.read_process(5, "cmdline") == "c\0"


def test_kept_descriptors() -> None:
    world = World(script([]))
    assert world.read("/proc/meminfo", True, False) == "MemFree:               1 kB\n"
    world.apply_step({"t": 1, "files": {"/proc/meminfo": None}})
    assert world.read("/proc/meminfo", True, False) == ("read", 3)
    assert world.read("/proc/meminfo", True, False) == ("open", 2)
    world.apply_step({"t": 2, "files": {"/proc/meminfo": 5}})
    assert world.read("/proc/meminfo", True, False) == ("read", 5)
    world.apply_step({"t": 3, "mi": {"MemFree": 9}})
    assert world.read("/proc/meminfo", True, False) == "MemFree:               9 kB\n"


def test_odd_texts_are_never_given_as_values() -> None:
    world = World(script([]))
    assert not isinstance(world.read("/proc/vmstat", True, True), str)
    world.apply_step({"t": 1, "files": {"/proc/vmstat": "garbage"}})
    assert world.read("/proc/vmstat", True, True) == "garbage"


def test_packets_for_a_closed_connection_are_lost() -> None:
    events = [["conn", 0], ["prio", 5, 10, 900, None], ["pkt", 0, "00", [-1, 0]], ["hup", 0], ["rm", 5], ["conn", 0]]
    time = clock([{"t": 5000, "ev": events}])
    assert time.wait(50_000) == (api.ConnectEvent(0),)
    (packet,) = time.wait(50_000)
    assert packet == api.PacketEvent(0, bytes.fromhex("00000001000000050000000a00000384"), (1000, 1000))
    assert time.wait(50_000) == (api.PacketEvent(0, b"\0", None),)
    assert time.wait(50_000) == (api.HangUpEvent(0),)
    assert not time.can_send(0)
    assert time.wait(50_000) == (api.ConnectEvent(1),)
    assert time.connection_number(1) == 0
