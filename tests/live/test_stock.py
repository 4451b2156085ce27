"""What a device says about itself, read right."""

from __future__ import annotations

import pytest

from lmk.errors import UserError
from lmk.live.devices import looks_like_emulator, parse_target
from lmk.live.stock import parse_kill_lines, parse_memcg, stock_lmkd_runs
from lmk.policy.api import Memcg
from lmk.procfs.properties import parse_getprop


def test_getprop_with_brackets_and_newlines_in_values() -> None:
    text = "[a.b]: [1]\n[ro.x]: [two [brackets]]\n[multi]: [line one\nline two]\n[empty]: []\n"
    assert parse_getprop(text) == {
        "a.b": "1",
        "ro.x": "two [brackets]",
        "multi": "line one\nline two",
        "empty": "",
    }


def test_stock_lmkd_is_the_service_state_of_init() -> None:
    assert stock_lmkd_runs({"init.svc.lmkd": "running"})
    assert not stock_lmkd_runs({"init.svc.lmkd": "stopped"})
    assert not stock_lmkd_runs({})


@pytest.mark.parametrize(
    ("mounts", "version"),
    [
        ("none /dev/memcg cgroup rw,memory 0 0\nnone /sys/fs/cgroup cgroup2 rw 0 0\n", 1),
        ("none /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n", 2),
        ("none /dev/cpuctl cgroup rw,cpu 0 0\n", 0),
        ("", 0),
    ],
)
def test_memory_controller(mounts: str, version: int) -> None:
    assert parse_memcg(mounts) == Memcg(version)


@pytest.mark.parametrize("text", ["", "qemu:", "adb:", "emulator", "avd:x", "adb"])
def test_unknown_targets_are_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(UserError, match="qemu, emulator:NAME, adb:SERIAL"):
        parse_target(text)


def test_targets() -> None:
    assert str(parse_target("qemu")) == "qemu"
    assert parse_target("adb:10.0.0.1:5555").name == "10.0.0.1:5555"
    assert str(parse_target("emulator:go")) == "emulator:go"


def test_a_phone_is_no_emulator() -> None:
    assert looks_like_emulator({"ro.kernel.qemu": "1"})
    assert looks_like_emulator({"ro.hardware": "cutf_cvm"})
    assert not looks_like_emulator({"ro.hardware": "tokay"})


def test_kill_lines_of_lmkd_old_and_new() -> None:
    log = (
        "I lowmemorykiller: Kill 'com.a' (4711), uid 10123, oom_score_adj 915 to free 183204kB rss, 40960kB swap\n"
        "I lowmemorykiller: Process 4711 was reaped in 3ms\n"
        "I lowmemorykiller: Kill 'com.b:x' (12), uid 10001, oom_adj 900 to free 9kB; reason: low\n"
    )
    assert [(k["pid"], k["name"], k["oom_score_adj"]) for k in parse_kill_lines(log)] == [
        (4711, "com.a", 915),
        (12, "com.b:x", 900),
    ]
