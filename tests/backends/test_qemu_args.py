"""The QEMU command line of a config, and the limits a config is held to."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest

from lmk.backends.accel import Accel
from lmk.backends.qemu_args import check_host_memory, check_mem_total, guest_cpus, qemu_arguments
from lmk.config.device import DeviceConfig, Storage, load_device_config
from lmk.config.find import find_config
from lmk.errors import BootError, HostError

TCG = Accel(name="tcg", reason="")
GIB = 1 << 30


@pytest.fixture
def config() -> DeviceConfig:
    return load_device_config(find_config("phone-2gb"))


def arguments(config: DeviceConfig, accel: Accel = TCG, disk: str = "/c/data.ext4") -> list[str]:
    return qemu_arguments(
        config,
        kernel=Path("/k/bzImage"),
        initrd=Path("/r/initrd"),
        data_disk=Path(disk),
        accel=accel,
        console=Path("/r/console.log"),
        qmp=Path("/r/qmp"),
        extra_cmdline="lmk.x=1",
    )


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_memory_cpus_and_kernel(config: DeviceConfig) -> None:
    words = arguments(config)
    assert after(words, "-m") == "2048M"
    assert "-mem-prealloc" in words
    assert int(after(words, "-smp")) == min(config.cpus, len(os.sched_getaffinity(0)))
    assert after(words, "-accel") == "tcg,thread=multi"
    assert after(words, "-M") == "q35"
    cmdline = after(words, "-append").split()
    assert {"console=ttyS0", "panic=-1", "rootfstype=ramfs", "no_timer_check", "lmk.x=1"} <= set(cmdline)
    assert "-no-reboot" in words


def test_adb_is_forwarded_from_a_port_that_qemu_chooses_on_loopback(config: DeviceConfig) -> None:
    assert "hostfwd=tcp:127.0.0.1:0-:5555" in after(arguments(config), "-netdev").split(",")


def test_disk_is_never_written_and_throttled(config: DeviceConfig) -> None:
    slow = attrs.evolve(config, storage=Storage(read_bytes_per_s=1000, iops=50))
    options = after(arguments(slow), "-drive").split(",")
    assert {"snapshot=on", "throttling.bps-read=1000", "throttling.iops-total=50"} <= set(options)
    free = attrs.evolve(config, storage=None)
    assert "throttling" not in after(arguments(free), "-drive")


def test_commas_in_paths_are_doubled(config: DeviceConfig) -> None:
    assert "file=/a,,b/data" in after(arguments(config, disk="/a,b/data"), "-drive")


def test_kvm_and_arm64(config: DeviceConfig) -> None:
    kvm = arguments(config, Accel(name="kvm", reason=""))
    assert after(kvm, "-accel") == "kvm" and after(kvm, "-cpu") == "host"
    arm = arguments(attrs.evolve(config, arch="arm64"))
    assert after(arm, "-M") == "virt" and "console=ttyAMA0" in after(arm, "-append")


def test_never_more_cpus_than_the_host_has() -> None:
    assert guest_cpus(1) == 1
    assert guest_cpus(10_000) == len(os.sched_getaffinity(0))


def test_more_than_60_percent_of_the_host_is_refused() -> None:
    check_host_memory(6 * GIB, host_bytes=10 * GIB)
    with pytest.raises(
        HostError, match=r"a guest with 6\.1 GiB needs more than 60 % of this host's 10\.0 GiB"
    ) as caught:
        check_host_memory(6 * GIB + GIB // 10, host_bytes=10 * GIB)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("mem_total_kib", [2097152, 2097152 * 9 // 10 - 65536, 2044568])
def test_mem_total_within_limits(mem_total_kib: int) -> None:
    check_mem_total(mem_total_kib, 2 * GIB)


@pytest.mark.parametrize("mem_total_kib", [2097153, 2097152 * 9 // 10 - 65537, 0])
def test_mem_total_of_another_device(mem_total_kib: int) -> None:
    with pytest.raises(BootError, match="the config says 2097152 KiB"):
        check_mem_total(mem_total_kib, 2 * GIB)
