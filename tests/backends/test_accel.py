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


def _qemu(tmp_path: Path, body: str) -> tuple[list[str], Path, Path]:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\n" + body)
    program.chmod(0o755)
    return [str(program)], tmp_path / "console", tmp_path / "log"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("echo ready > console; sleep 60", ""),
        ("echo KVM internal error. Suberror: 1; sleep 60", "KVM internal error. Suberror: 1"),
        ("echo qemu: kvm_buf_set_msrs failed; exit 1", "qemu: kvm_buf_set_msrs failed"),
        ("exit 3", "QEMU ended with code 3"),
        ("sleep 60", "the guest did not come up within 1 s"),
    ],
)
def test_a_trial_says_why_the_guest_did_not_come_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    argv, console, log = _qemu(tmp_path, body)
    assert accel.try_boot(argv, console, b"ready", log, timeout_s=10.0 if why[:3] != "the" else 1.0) == why


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
def test_kvm_counts_once_a_kernel_has_come_up_and_never_again_if_not() -> None:
    tried: list[str] = []

    def trial(answer: str) -> str:
        tried.append(answer)
        return answer

    settled = accel.settle_accel(accel.KVM, "x86_64", lambda: trial(""))
    assert (settled.name, settled.proven) == ("kvm", True)
    assert accel.settle_accel(settled, "x86_64", lambda: trial("again")) == settled
    rejected = accel.settle_accel(accel.KVM, "x86_64", lambda: trial("KVM internal error"))
    assert (rejected.name, rejected.reason) == ("tcg", "Linux under KVM: KVM internal error")
    assert accel.settle_accel(rejected, "x86_64", lambda: trial("again")) == rejected
    assert tried == ["", "KVM internal error"]
