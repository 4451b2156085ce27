"""A device's answers as a device config."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.config.device import SystemProcess
from lmk.config.dump import dump_device
from lmk.config.probe import PROBE_COMMAND, probed_device
from lmk.config.report import check_text
from lmk.errors import UserError
from lmk.units import GIB, MIB

#: As a 4 GB phone with root answers; made up, in the forms of the real files.
ANSWER = """\
@@lmk /proc/meminfo
MemTotal:        3748752 kB
SwapTotal:       2097148 kB
@@lmk /proc/cpuinfo
processor\t: 0
processor\t: 1
@@lmk /proc/swaps
Filename\t\t\t\tType\t\tSize\tUsed\tPriority
/dev/block/zram0                        partition\t2097148\t0\t32758
@@lmk /proc/mounts
none /dev/memcg cgroup rw,nosuid,memory 0 0
@@lmk /sys/block/zram0/disksize
2147483648
@@lmk /sys/block/zram0/comp_algorithm
lzo lzo-rle [lz4] zstd
@@lmk /sys/kernel/mm/lru_gen/enabled
0x0007
@@lmk /proc/sys/vm/swappiness
100
@@lmk /proc/sys/vm/dirty_bytes
0
@@lmk /proc/sys/vm/dirty_ratio
20
@@lmk uname
5.10.198-android13-4-00055
@@lmk processes
adj -900
Name:\tsystem_server
RssAnon:\t  200000 kB
RssFile:\t  150000 kB
VmSwap:\t   10000 kB
adj -1000
Name:\tlogd
RssAnon:\t  4000 kB
RssFile:\t  3000 kB
VmSwap:\t  0 kB
adj -1000
Name:\tvold
RssAnon:\t  2000 kB
RssFile:\t  5000 kB
VmSwap:\t  100 kB
adj -1000
Name:\tkthreadd
@@lmk getprop
[ro.build.version.release]: [13]
[ro.build.version.sdk]: [33]
[ro.config.low_ram]: [false]
[ro.lmk.kill_timeout_ms]: [100]
[persist.device_config.lmkd_native.thrashing_limit]: []
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.device]: [Kane Phone]
[ro.product.model]: [motorola one
@@lmk uname
vision]
"""


def test_a_phone() -> None:
    config, notes = probed_device(ANSWER, "ABC123")
    assert (config.name, config.memory_bytes, config.cpus, config.arch) == ("kane-phone", 4 * GIB, 2, "arm64")
    assert config.android == "13Q2"
    assert (config.kernel.base, config.kernel.mglru, config.kernel.memcg) == ("5.10", False, "v1")
    assert config.zram is not None
    assert (config.zram.size_bytes, config.zram.algorithm) == (2 * GIB, "lz4")
    assert config.vm == {"dirty_ratio": 20, "swappiness": 100}
    assert config.own_properties == {"ro.config.low_ram": "false", "ro.lmk.kill_timeout_ms": "100"}
    assert config.system == (
        SystemProcess(name="small_processes_1000", adj=-1000, anon_bytes=6100 * 1024, file_bytes=5000 * 1024,
                      hot=0.5, compressibility=2.6),
        SystemProcess(name="system_server", adj=-900, anon_bytes=210000 * 1024, file_bytes=150000 * 1024,
                      hot=0.5, compressibility=2.6),
    )  # fmt: skip
    assert notes == [
        "MemTotal is 3660 MiB: taken as 4GiB installed",
        "Android 13 is taken as its last quarterly release, 13Q2",
        "its MGLRU is on, a backport that our Linux 5.10 lacks: off",
        "storage and unreclaimable memory cannot be read from a device: add them",
    ]


def test_a_user_build_that_hides_most() -> None:
    answer = "@@lmk /proc/meminfo\nMemTotal: 1900000 kB\nSwapTotal: 1048572 kB\n@@lmk getprop\n" + (
        "[ro.build.version.release]: [99]\n[ro.product.cpu.abi]: [armeabi-v7a]\n"
    )
    config, notes = probed_device(answer, "ABC123", "mine")
    assert (config.name, config.memory_bytes, config.cpus, config.android) == ("mine", 2 * GIB, 4, "N3")
    assert config.swap_bytes == 1048572 * 1024
    assert notes == [
        "MemTotal is 1855 MiB: taken as 2GiB installed",
        "its architecture is armeabi-v7a: arm64 stands in",
        "/proc/cpuinfo does not say how many CPUs there are: 4 are assumed",
        "Android 99 is not known: N3 stands in",
        "it runs Linux (unknown): 5.10 stands in",
        "storage and unreclaimable memory cannot be read from a device: add them",
        "it has 1023 MiB of swap, taken as zram",
    ]
    assert not check_text(dump_device(config), "x").errors


@pytest.mark.parametrize(
    ("installed_mib", "kernel_keeps"), [(512, 40), (1024, 80), (1536, 90), (2048, 150), (2560, 130), (3072, 200)]
)
def test_installed_memory(installed_mib: int, kernel_keeps: int) -> None:
    total_kib = (installed_mib - kernel_keeps) * 1024
    config, _ = probed_device(ANSWER.replace("3748752", str(total_kib)), "s")
    assert config.memory_bytes == installed_mib * MIB


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("sh: syntax error", "s: answers neither /proc/meminfo nor getprop; is this an Android device?"),
        (ANSWER.replace("[13]", "[9]"), "s: runs Android 9; lmkd is known from Android 11 on"),
    ],
)
def test_devices_that_will_not_do(answer: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        probed_device(answer, "s")
    assert str(caught.value) == message


@given(st.lists(st.sampled_from([*ANSWER.splitlines(), "", "adj x", "@@lmk", "[a]: [", "MemTotal: 1 kB"]), max_size=40))
def test_any_answer_is_a_config_or_a_users_error(lines: list[str]) -> None:
    try:
        config, _ = probed_device("\n".join(lines), "s")
    except UserError:
        return
    dump_device(config)


def test_the_command_runs_in_a_plain_shell() -> None:
    """On a Linux machine all but getprop answers, and the script has no syntax of one shell only."""
    done = subprocess.run(["sh", "-c", PROBE_COMMAND], capture_output=True, text=True, timeout=60, check=False)
    properties = "[ro.build.version.release]: [14]\n[ro.product.cpu.abi]: [x86_64]\n"
    config, _ = probed_device(done.stdout + properties, "host")
    assert config.cpus >= 1
    assert "swappiness" in config.vm
