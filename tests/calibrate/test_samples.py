"""From what lmk-calibrate prints to a calibration file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.calibrate.derive import CLASSES, Derived, derive
from lmk.calibrate.machine import Machine
from lmk.calibrate.samples import Samples, estimate, parse_samples
from lmk.calibrate.text import calibration_json, calibration_text
from lmk.config.calibration import Calibration, ZramClass, ZramCost, find_calibration, load_calibration
from lmk.device.native import native_binary
from lmk.errors import TargetError

MACHINE = Machine(
    model="emulated",
    kernel="6.12.1",
    cpus=2,
    mem_total_kib=2_000_000,
    used_kib=40_000,
    base_permille=12,
    algorithm="lz4",
)


def base() -> Calibration:
    return load_calibration(find_calibration("published"))


def full() -> dict[str, list[float]]:
    """Everything lmk-calibrate can say, each twice, 10 % apart."""
    values: dict[str, float] = {
        "fault": 2000, "touch": 10, "file_fault": 300, "file_read_cpu": 1200, "pageout_file": 500, "refault": 9000,
        "request": 100_000, "sequential_kib_per_s": 500_000, "aging": 20, "scan": 60, "zram_overhead": 1050,
        "kill.small": 900_000, "kill.large": 900_000 + 12288 * 400, "leave": 300_000, "kill.large.pages": 12288,
        "kill.swapped.pages": 4096, "reap.process_reap": 380, "reap.process_mrelease": 390, "reap.swapped": 250,
        "wake": 50_000, "fork": 2_000_000, "process_kib": 80, "round_trip": 1_000_000,
        "sample_cpu": 700_000, "evict": 9500, "evict_file": 700,
    }  # fmt: skip
    for ratio in CLASSES:
        values |= {f"pageout.{ratio}": 9000, f"pagein.{ratio}": 4000}
        for algorithm in ("lz4", "lzo", "lzo-rle", "zstd"):
            values |= {f"zram.{algorithm}.write.{ratio}": 7000, f"zram.{algorithm}.read.{ratio}": 2500}
    steady = {"kill.large.pages", "kill.swapped.pages"}
    return {name: [value, value] if name in steady else [value * 0.95, value * 1.05] for name, value in values.items()}


def derived(values: dict[str, list[float]]) -> Derived:
    return derive(Samples(values, {}), MACHINE, base(), 2 << 30)


def by_key(result: Derived) -> dict[str, int]:
    return {number.key: number.value for number in result.numbers}


def test_samples_become_numbers() -> None:
    numbers = by_key(derived(full()))
    assert numbers["fault_ns"] == 2000
    assert numbers["exit_ns"] == pytest.approx(400, abs=1)
    assert numbers["death_us"] == 600 and numbers["exit_base_us"] == 300
    assert numbers["reclaim_anon_ns"] == 2500 and numbers["swap_fault_ns"] == 1500
    assert numbers["reclaim_file_ns"] == 700 and numbers["sample_us"] == 700
    assert numbers["file_read_ns"] == 900
    assert numbers["signal_us"] == 1500 and numbers["event_us"] == 550
    assert numbers["kernel_used_kib"] == 40_000
    assert numbers["base_cpu_permille"] == 12


def test_without_lru_gen_paging_out_stands_for_reclaim() -> None:
    result = derived({name: v for name, v in full().items() if not name.startswith("evict")})
    assert by_key(result)["reclaim_anon_ns"] == 2000 and by_key(result)["reclaim_file_ns"] == 500
    sources = [number.source for number in result.numbers if number.key.startswith("reclaim_") and number.value > 60]
    assert all("MADV_PAGEOUT" in source for source in sources)


def test_without_a_second_zram_device_paging_counts_for_the_algorithm() -> None:
    result = derived({name: v for name, v in full().items() if not name.startswith("zram.")})
    numbers = by_key(result)
    assert result.zram["lz4"].write_ns == 9000 and result.zram["lz4"].read_ns == 4000
    assert numbers["reclaim_anon_ns"] == numbers["swap_fault_ns"] == 1
    assert result.zram["zstd"] == base().zram["zstd"]


def test_what_cannot_be_measured_is_taken_from_elsewhere_and_says_so() -> None:
    result = derived({name: v for name, v in full().items() if name not in ("aging", "scan")})
    aging = next(number for number in result.numbers if number.key == "aging_ns")
    assert aging.value == base().aging_ns and aging.estimate is None and "as published" in aging.source


def test_the_file_is_read_back(tmp_path: Path) -> None:
    result = derived(full())
    path = tmp_path / "mine.yaml"
    path.write_text(calibration_text("mine", "measured:mine", result))
    calibration = load_calibration(path)
    assert calibration.kind == "measured:mine"
    for key, value in by_key(result).items():
        assert getattr(calibration, key) == value
    assert calibration.zram == result.zram
    sourced = {field for source in calibration.sources for field in source.fields}
    assert sourced == {*by_key(result), "zram"}


def test_json_has_every_interval() -> None:
    body = calibration_json("mine", "measured:mine", derived(full()))
    low, high = body["numbers"]["fault_ns"]["ci95"]
    assert low < 2000 < high
    assert body["numbers"]["storage_burst_ms"] == {
        "value": 0, "ci95": None, "n": None, "measured": False,
        "source": "assumed: a phone's storage has no such limit (not measured here: as published)",
    }  # fmt: skip
    assert [c["ratio_permille"] for c in body["zram"]["zstd"]["classes"]] == list(CLASSES)


@pytest.mark.parametrize(
    "text", ["sample fault 1\n", "sample fault many\nend\n", "hello\nend\n", "sample fault\nend\n"]
)
def test_other_output_is_an_error(text: str) -> None:
    with pytest.raises(TargetError):
        parse_samples(text)


@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=40))
def test_an_estimate_lies_within_its_interval_and_its_samples(values: list[float]) -> None:
    found = estimate(values)
    assert min(values) - 1e-3 <= found.value <= max(values) + 1e-3
    assert found.half >= 0 and 2 <= found.n <= len(values)


@given(st.integers(0, 4096))
def test_costs_between_classes_lie_between_theirs(compressed_bytes: int) -> None:
    classes = tuple(
        ZramClass(ratio_permille=ratio, write_ns=cost, read_ns=cost // 2)
        for ratio, cost in ((1000, 900), (2000, 1500), (4000, 700))
    )
    write_ns, read_ns = ZramCost(write_ns=1500, read_ns=750, classes=classes).of(compressed_bytes)
    assert 700 <= write_ns <= 1500 and abs(read_ns - write_ns // 2) <= 1
    assert ZramCost(write_ns=5, read_ns=3).of(compressed_bytes) == (5, 3)


def test_the_program_measures_this_machine() -> None:
    program = native_binary("lmk-calibrate", os.uname().machine)
    done = subprocess.run([program, "memory", "0", "3"], capture_output=True, text=True, timeout=60, check=True)
    found = parse_samples(done.stdout)
    assert len(found.values["fault"]) == len(found.values["touch"]) == 3
    assert all(value > 0 for value in found.values["fault"])


def test_turns_of_one_group_are_samples_of_one_name() -> None:
    one, other = parse_samples("sample fault 1\nend"), parse_samples("sample fault 3\nsample wake 5\nabsent a b\nend")
    assert (one | other).values == {"fault": [1.0, 3.0], "wake": [5.0]}
    assert (one | other).absent == {"a": "b"}


def test_the_program_explains_its_use() -> None:
    program = native_binary("lmk-calibrate", os.uname().machine)
    for arguments in ((), ("memory", "0"), ("memory", "0", "0"), ("nothing", "0", "1")):
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
