"""Acceleration is tried by running something, never by asking whether a file is there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lmk.backends import accel
from lmk.errors import HostError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
def test_the_probes_boot_sector_really_leaves_by_the_debug_exit(tmp_path: Path) -> None:
    sector = tmp_path / "sector"
    sector.write_bytes(accel.boot_sector())
    assert len(accel.boot_sector()) == 512
    argv = ["qemu-system-x86_64", "-accel", "tcg", "-M", "pc", "-m", "64", "-nodefaults", "-display", "none"]
    argv += ["-device", "isa-debug-exit,iobase=0x501,iosize=1", "-drive", f"file={sector},format=raw,if=ide"]
    done = subprocess.run(argv, timeout=60, check=False, capture_output=True)
    assert done.returncode == (0x2A << 1) | 1


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
def test_an_answer_with_its_reason() -> None:
    found = accel.find_accel()
    assert found.name in ("kvm", "tcg") and found.reason
    assert accel.find_accel() == found


def test_without_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="qemu-system-x86_64 is not installed") as caught:
        accel.find_accel()
    assert "qemu-system-x86" in caught.value.remedy and caught.value.exit_code == 2


def test_foreign_architecture_is_emulated() -> None:
    if shutil.which("qemu-system-aarch64") is None:
        pytest.skip("qemu-system-aarch64 is not installed")
    assert accel.find_accel("arm64").name == "tcg"
