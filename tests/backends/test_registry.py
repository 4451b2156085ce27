"""Registered guests without QEMU: a sleeping process stands for it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from lmk.backends import registry
from lmk.backends.registry import Emulator
from lmk.errors import UserError


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMK_STATE", str(tmp_path))
    return tmp_path


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        yield sleeper
        sleeper.kill()


def register(root: Path, pid: int, name: str = "one", **changes: object) -> Path:
    run_dir = root / "emulators" / name
    run_dir.mkdir(parents=True)
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    record = Emulator(
        name=name,
        state="running",
        config="go-1gb",
        config_path="",
        kernel_base="6.12",
        kernel_release="6.12.1",
        memory_bytes=1 << 30,
        cpus=2,
        accel="tcg",
        port=1234,
        pid=pid,
        pid_start_ticks=ticks,
        started_unix_s=0,
        idle_s=0,
        run_dir=str(run_dir),
        qmp=str(run_dir / "qmp.sock"),
    )
    path = run_dir / "emulator.json"
    path.write_text(json.dumps({**attrs.asdict(record), **changes}))
    return path


def test_listed_found_and_ended(state: Path, process: subprocess.Popen[bytes]) -> None:
    record = register(state, process.pid)
    assert [emulator.serial for emulator in registry.list_emulators()] == ["127.0.0.1:1234"]
    assert registry.find("one").name == "one"
    # The test is the sleeper's parent: until it is reaped it is a zombie, which counts as ended.
    assert registry.down("one").pid == process.pid
    assert process.wait(5) != 0
    assert registry.list_emulators() == [] and not record.exists()


def test_a_reused_pid_is_neither_listed_nor_killed(state: Path, process: subprocess.Popen[bytes]) -> None:
    record = register(state, process.pid, pid_start_ticks=1)
    with pytest.raises(UserError, match="no emulator named one is up"):
        registry.down("one")
    assert process.poll() is None and not record.exists()


@pytest.mark.parametrize("text", ["", "{}", '{"name": 1}', "[]", "not json"])
def test_a_damaged_record_is_dropped(state: Path, process: subprocess.Popen[bytes], text: str) -> None:
    record = register(state, process.pid)
    record.write_text(text)
    assert registry.list_emulators() == [] and not record.exists()


def test_unknown_names_get_a_hint(state: Path, process: subprocess.Popen[bytes]) -> None:
    with pytest.raises(UserError, match="none is up; start one with"):
        registry.find("one")
    register(state, process.pid)
    with pytest.raises(UserError, match=r"did you mean one\?"):
        registry.find("onne")
    with pytest.raises(UserError, match="up are: one"):
        registry.find("zzz")
    with pytest.raises(UserError, match="no emulator named"):
        registry.find("../one")


def test_attaching_to_one_that_still_boots(state: Path, process: subprocess.Popen[bytes]) -> None:
    register(state, process.pid, state="booting")
    with pytest.raises(UserError, match="still booting"):
        registry.attach("one")


@pytest.mark.parametrize("name", ["", "a/b", "-x", "x" * 65, "a b"])
def test_bad_names(name: str) -> None:
    with pytest.raises(UserError, match="is no name for an emulator"):
        registry.check_name(name)
