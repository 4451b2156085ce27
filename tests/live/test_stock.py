"""What a device says about itself, read right."""

from __future__ import annotations

import pytest

from lmk.config.device import load_device_config
from lmk.config.find import find_config
from lmk.config.override import override
from lmk.errors import UserError
from lmk.live.devices import looks_like_emulator, parse_target, with_config
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


@pytest.mark.parametrize("text", ["", "qemu:", "adb:", "emulator", "avd", "adb"])
def test_unknown_targets_are_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(UserError, match=r"qemu, emulator:NAME, avd:NAME, .*adb:SERIAL"):
        parse_target(text)


def test_targets() -> None:
    assert str(parse_target("qemu")) == "qemu"
    assert parse_target("adb:10.0.0.1:5555").name == "10.0.0.1:5555"
    assert str(parse_target("emulator:go")) == "emulator:go"


def test_a_phone_is_no_emulator() -> None:
    assert looks_like_emulator({"ro.kernel.qemu": "1"})
    assert looks_like_emulator({"ro.hardware": "cutf_cvm"})
    assert not looks_like_emulator({"ro.hardware": "tokay"})


def test_kill_lines_since_the_start_and_on_the_devices_own_clock() -> None:
    tag = "I lowmemorykiller:"
    log = (
        "--------- beginning of main\n"
        f"1700000009.999    77    77 {tag} Kill 'com.old' (1), uid 10001, oom_score_adj 900 to free 9kB rss\n"
        f"1700000010.250    77    77 {tag} Kill 'com.new:x' (2), uid 10002, oom_score_adj 915 to free 9kB rss\n"
        f"1700000010.300    77    77 {tag} Process 2 was reaped in 3ms\n"
        f"11-25 10:00:00.000    77    77 {tag} Kill 'com.when' (3), uid 10003, oom_score_adj 910 to free 9kB rss\n"
    )
    kills = parse_kill_lines(log, now_ns=5_000_000_000, realtime_ns=1_700_000_010_000_000_000)
    assert kills == [{"t_ns": 5_250_000_000, "pid": 2, "name": "com.new:x", "uid": 10002, "oom_score_adj": 915}]


def test_kill_lines_of_every_age() -> None:
    log = (
        "1700000010.100  1  1 I lowmemorykiller: Kill 'com.a' (4711), uid 10123, oom_score_adj 915 to free 1kB rss\n"
        "1700000010.200  1  1 I lowmemorykiller: Kill 'com.b:x' (12), uid 10001, oom_adj 900 to free 9kB; reason: low\n"
    )
    assert [(k["pid"], k["name"], k["oom_score_adj"]) for k in parse_kill_lines(log, 0, 0)] == [
        (4711, "com.a", 915),
        (12, "com.b:x", 900),
    ]


def test_the_configs_settings_win_over_the_images() -> None:
    config = override(load_device_config(find_config("go-1gb")), {"ro.lmk.thrashing_limit": "7"})
    device = {"ro.lmk.thrashing_limit": "100", "ro.lmk.use_psi": "true", "ro.product.model": "x"}
    merged = with_config(device, config)
    assert merged["ro.lmk.thrashing_limit"] == "7"
    assert (merged["ro.lmk.use_psi"], merged["ro.product.model"]) == ("true", "x")
