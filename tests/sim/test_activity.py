"""The stand-in for ActivityManager: adj, registration, freezing, compaction, restarts, growth, as the app runner."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmk.policy.lmkd.control_packets import ProcPurge, ProcRemove, Subscribe, Target
from lmk.sim.zone import PAGE_KIB
from tests.sim.device import APPS, Device


def test_a_connection_begins_as_activity_manager_begins_it(tmp_path: Path) -> None:
    device = Device(tmp_path, "steps:\n  - launch: big\n  - wait: 2s\n")
    device.until_ms(1_000)
    assert device.connected()
    first = device.packets()[:4]
    assert isinstance(first[0], ProcPurge)
    assert isinstance(first[1], Target)
    assert [packet.event for packet in first[2:] if isinstance(packet, Subscribe)] == [0, 1]


def test_adj_follows_what_the_user_does(tmp_path: Path) -> None:
    steps = """\
steps:
  - launch: big
  - wait: 2s
  - launch: other
  - wait: 2s
  - launch: third
  - wait: 2s
  - background: third
  - wait: 2s
"""
    device = Device(tmp_path, steps)
    device.until_ms(7_900)
    assert device.registered("com.example.big") == [0, 700, 900, 910]
    assert device.registered("com.example.other") == [0, 700, 900]
    assert device.registered("com.example.third") == [0, 700]
    assert device.living("launcher").adj == 0
    assert device.living("big").adj == 910
    # native processes are none of ActivityManager's
    assert device.registered("surfaceflinger") == []
    assert device.registered("system_server") == [-900]


def test_a_launch_ends_when_the_hot_set_is_there(tmp_path: Path) -> None:
    device = Device(
        tmp_path,
        "steps:\n  - launch: big\n  - wait: 5s\n  - launch: other\n  - wait: 5s\n  - launch: big\n  - wait: 5s\n",
    )
    device.until_ms(14_900)
    first, second, again = device.kinds("launch")
    assert (first["cold"], second["cold"], again["cold"]) == (True, True, False)
    # fork, 200 ms of CPU, 25600 pages written, 5120 read
    assert 250 <= first["launch_ms"] <= 450
    assert again["launch_ms"] < 10
    assert first["t_ms"] == 0


def test_cached_apps_freeze_and_are_compacted_after_the_delay(tmp_path: Path) -> None:
    steps = "cached_apps: {freeze: true, freeze_after: 5s, compact: true}\nsteps:\n"
    for name in ("big", "other", "third"):
        steps += f"  - launch: {name}\n  - wait: 2s\n"
    steps += "  - wait: 20s\n  - launch: big\n  - wait: 5s\n"
    device = Device(tmp_path, steps)
    # "big" is cached once two others were opened after it
    device.until_ms(8_900)
    assert not device.living("big").frozen
    device.until_ms(10_500)
    assert device.living("big").frozen
    device.until_ms(12_000)
    big = device.living("big")
    assert big.anon_pages == 0
    assert big.swap_pages * PAGE_KIB == 200 * 1024
    (compacted,) = device.kinds("compacted")
    assert compacted["rss_before_kib"] > 200 * 1024 > compacted["rss_after_kib"]
    device.until_ms(30_900)
    assert not device.living("big").frozen
    warm = device.kinds("launch")[-1]
    assert not warm["cold"]
    assert warm["launch_ms"] > 50
    assert device.memory.events.pswpin >= big.hot.pages


def test_services_come_back_later_and_later(tmp_path: Path) -> None:
    device = Device(tmp_path, "steps:\n  - launch: worker\n  - wait: 40s\n")
    device.until_ms(2_000)
    births = []
    for at_ms in (2_000, 6_000, 14_000):
        device.until_ms(at_ms)
        device.kill("worker")
        device.until_ms(at_ms + 500)
        assert device.process("worker") is None
        births.append(len(device.kinds("spawned")))
    device.until_ms(39_000)
    spawned = [t for t, kind, body in device.listener.events if kind == "spawned" and "worker" in body["app"]]
    died = [t for t, kind, body in device.listener.events if kind == "died" and "worker" in body["app"]]
    delays = [round((birth - death) / 1e9) for birth, death in zip(spawned[1:], died, strict=False)]
    assert delays == [1, 4, 16]


def restarts(device: Device, name: str) -> list[int]:
    """How long after each of its deaths a process was back, in seconds."""
    times: dict[str, list[int]] = {"spawned": [], "died": []}
    for t_ns, kind, body in device.listener.events:
        if kind in times and body["app"] == name:
            times[kind].append(t_ns)
    return [round((birth - death) / 1e9) for birth, death in zip(times["spawned"][1:], times["died"], strict=False)]


def test_services_that_die_together_come_back_ten_seconds_apart(tmp_path: Path) -> None:
    apps, steps = APPS, "steps:\n"
    for i in range(4):
        apps += f"  s{i}: {{role: service, process: com.example.s{i}, anon: 5MiB}}\n"
        steps += f"  - launch: s{i}\n"
    device = Device(tmp_path, steps + "  - wait: 60s\n", apps=apps)
    device.until_ms(2_000)
    for i in range(4):
        device.kill(f"s{i}", queue=False)
    device.until_ms(50_000)
    assert [restarts(device, f"com.example.s{i}") for i in range(4)] == [[1], [11], [21], [31]]


def test_a_service_that_ran_for_a_minute_comes_back_quickly_again(tmp_path: Path) -> None:
    device = Device(tmp_path, "steps:\n  - launch: worker\n  - wait: 3min\n")
    # born at 0, 3, 14 and 137 s
    for at_ms in (2_000, 10_000, 121_000):
        device.until_ms(at_ms)
        device.kill("worker")
    device.until_ms(170_000)
    assert restarts(device, "com.example.worker") == [1, 4, 1]


def test_a_service_that_is_asked_for_starts_at_once_and_afresh(tmp_path: Path) -> None:
    steps = "steps:\n  - launch: worker\n  - wait: 5s\n  - launch: worker\n  - wait: 20s\n"
    device = Device(tmp_path, steps)
    for at_ms in (1_000, 3_000, 8_000):
        device.until_ms(at_ms)
        device.kill("worker")
    device.until_ms(20_000)
    # The second wait of 4 s was cut short at 5 s.
    assert restarts(device, "com.example.worker") == [1, 2, 1]


def test_a_persistent_app_comes_back_at_once(tmp_path: Path) -> None:
    apps = APPS + "  pin: {role: persistent, process: com.example.pin, anon: 5MiB}\n"
    device = Device(tmp_path, "steps:\n  - wait: 20s\n", apps=apps)
    for at_ms in (1_000, 2_000, 3_000):
        device.until_ms(at_ms)
        device.kill("pin")
    device.until_ms(4_000)
    assert restarts(device, "com.example.pin") == [0, 0, 0]


def test_an_app_that_dies_in_front_leaves_home_in_front(tmp_path: Path) -> None:
    device = Device(tmp_path, "steps:\n  - launch: big\n  - wait: 10s\n")
    device.until_ms(3_000)
    assert device.living("launcher").adj == 600
    device.kill("big")
    device.until_ms(4_000)
    assert device.living("launcher").adj == 0
    assert any(isinstance(packet, ProcRemove) for packet in device.packets())
    (death,) = device.kinds("died")
    assert (death["signal"], death["adj"], death["expected"]) == (9, 0, False)


def test_an_exit_of_its_own_is_expected_and_not_repaired(tmp_path: Path) -> None:
    device = Device(
        tmp_path,
        "steps:\n  - launch: worker\n  - wait: 2s\n  - exit: worker\n  - wait: 20s\n  - exit: worker\n  - wait: 1s\n",
    )
    device.until_ms(22_500)
    (death,) = device.kinds("died")
    assert (death["signal"], death["expected"]) == (0, True)
    assert device.process("worker") is None
    assert device.kinds("skipped") == [{"app": "com.example.worker", "why": "dead"}]


def test_growth_counts_only_while_in_use(tmp_path: Path) -> None:
    apps = APPS.replace("anon: 100MiB, file: 20MiB", "anon: 100MiB, growth: 60MiB/min, file: 20MiB")
    device = Device(
        tmp_path, "steps:\n  - launch: other\n  - wait: 21s\n  - background: other\n  - wait: 30s\n", apps=apps
    )
    device.until_ms(21_000)
    grown = device.living("other").written_pages * PAGE_KIB // 1024 - 100
    assert 17 <= grown <= 21
    device.until_ms(50_000)
    assert device.living("other").written_pages * PAGE_KIB // 1024 - 100 <= grown + 1


@pytest.mark.parametrize(("limit", "expected_mib"), [("", 80), ("\n    limit: 30MiB", 30)])
def test_a_leak_grows_at_its_rate_up_to_its_limit(tmp_path: Path, limit: str, expected_mib: int) -> None:
    steps = f"steps:\n  - launch: third\n  - wait: 2s\n  - leak: third\n    rate: 10MiB/s{limit}\n  - wait: 8s\n"
    device = Device(tmp_path, steps)
    device.until_ms(9_990)
    grown_mib = device.living("third").written_pages * PAGE_KIB / 1024 - 50
    assert grown_mib == pytest.approx(expected_mib, abs=2)


def test_growing_over_a_time_takes_that_time(tmp_path: Path) -> None:
    device = Device(
        tmp_path,
        "steps:\n  - launch: third\n  - wait: 2s\n  - grow: third\n    size: 40MiB\n    over: 4s\n  - wait: 6s\n",
    )
    device.until_ms(4_000)
    half_mib = device.living("third").written_pages * PAGE_KIB / 1024 - 50
    device.until_ms(7_000)
    whole_mib = device.living("third").written_pages * PAGE_KIB / 1024 - 50
    assert half_mib == pytest.approx(20, abs=3)
    assert whole_mib == pytest.approx(40, abs=0.1)
