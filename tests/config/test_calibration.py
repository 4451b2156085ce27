"""Calibrations: the shipped ones are whole and sourced, and mistakes in one's own are named."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from lmk.config.calibration import (
    Calibration,
    ZramCost,
    find_calibration,
    load_calibration,
    shipped_calibrations,
)
from lmk.errors import ConfigError

NUMBERS = [field.name for field in attrs.fields(Calibration) if field.name not in ("name", "kind", "sources", "zram")]


@pytest.mark.parametrize("name", shipped_calibrations())
def test_every_rate_of_a_shipped_one_has_a_source(name: str) -> None:
    calibration = load_calibration(find_calibration(name))
    assert calibration.kind == name
    sourced = {field for source in calibration.sources for field in source.fields}
    assert set(NUMBERS) | {"zram"} == sourced
    for source in calibration.sources:
        assert source.text.split(":")[0] in ("seen", "measured", "recalled", "assumed")


def test_software_emulation_is_slower_in_what_every_page_takes() -> None:
    phone, emulator = (load_calibration(find_calibration(name)) for name in ("published", "emulator-tcg"))
    for name in ("fault_ns", "file_fault_ns", "file_read_ns", "reclaim_scan_ns", "reclaim_file_ns", "aging_ns"):
        assert getattr(emulator, name) > getattr(phone, name), name
    for algorithm, cost in phone.zram.items():
        slow: ZramCost = emulator.zram[algorithm]
        assert slow.write_ns > slow.read_ns and cost.write_ns > cost.read_ns
    both = [
        c.reclaim_anon_ns + c.zram["lz4"].write_ns + c.swap_fault_ns + c.zram["lz4"].read_ns for c in (phone, emulator)
    ]
    assert both[1] > both[0]


def test_what_is_measured_has_its_interval() -> None:
    measured = [s.text for s in load_calibration(find_calibration("emulator-tcg")).sources if "95 %" in s.text]
    assert len(measured) > 20


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("\nfault_ns:", "\nfault_nss:", "did you mean fault_ns?"),
        ("\nfault_ns: 2560", "\nfault_ns: 0", "fault_ns"),
        ("\nfault_ns: 2560", "\nfault_ns: fast", "whole number"),
        ("class: published", "class: guessed", "measured:DEVICE"),
        ("  zstd: {write_ns: 39000, read_ns: 13000}\n", "", "zram.zstd"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = find_calibration("published").read_text()
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_calibration(path)
    assert words in str(caught.value)


def test_an_unknown_name_suggests_a_known_one() -> None:
    with pytest.raises(ConfigError) as caught:
        find_calibration("publish")
    assert "published" in str(caught.value)
