"""The micro-workloads in the guest: everything that a calibration of software emulation holds is really measured."""

from __future__ import annotations

import pytest

from lmk.backends.qemu import QemuGuest
from lmk.calibrate import measure as measuring
from lmk.calibrate.derive import derive
from lmk.calibrate.measure import measure, read_machine
from lmk.config.calibration import EMULATOR, find_calibration, load_calibration
from lmk.progress import silent

pytestmark = pytest.mark.emulator


def test_every_rate_is_measured(guest: QemuGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "GROUPS", dict.fromkeys(measuring.GROUPS, 1))
    monkeypatch.setattr(measuring, "PASSES", 2)
    machine = read_machine(guest.adb)
    samples = measure(guest.adb, guest.config.arch, machine.cpus, silent)
    assert not samples.absent
    base = load_calibration(find_calibration(EMULATOR))
    result = derive(samples, machine, base, guest.config.memory_bytes)
    missing = {number.key for number in result.numbers if number.estimate is None}
    assert missing == {"kernel_reserved_permille", "storage_burst_ms", "text_kib"}
    assert all(cost.classes for cost in result.zram.values())
