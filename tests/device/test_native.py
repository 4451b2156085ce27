"""Our C programs: built for both architectures by every run, small, static, and built once."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from lmk import resources, subproc
from lmk.device import native
from lmk.errors import HostError, InfraError

#: e_machine of the ELF header.
MACHINES = {"x86_64": 62, "aarch64": 183}


@pytest.mark.parametrize("arch", native.PREBUILT_ARCHES)
def test_the_helper_is_static_stripped_and_below_200_kb(arch: str) -> None:
    binary = native.build("lmk-helper", arch)
    image = binary.read_bytes()
    assert len(image) < 200_000
    assert image[:4] == b"\x7fELF"
    assert int.from_bytes(image[18:20], "little") == MACHINES[arch]
    assert b".symtab" not in image and b"ld-musl" not in image and b"ld-linux" not in image


def test_a_second_build_is_the_cached_file() -> None:
    first = native.build("lmk-helper", "x86_64")
    before = first.stat().st_mtime_ns
    assert native.build("lmk-helper", "amd64") == first
    assert first.stat().st_mtime_ns == before


def test_every_input_counts_for_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "probe.c").write_text("int main(void) { return VALUE; }\n")
    (tmp_path / "probe.h").write_text("/* one */\n")
    program = native.Program(str(tmp_path), ("probe.c",), ("-DVALUE=1",))
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "_compile", lambda _program, _sources, _arch, binary: binary.write_bytes(b"x"))
    keys = []
    for change in ("first", "header", "flags"):
        if change == "header":
            (tmp_path / "probe.h").write_text("/* two */\n")
        if change == "flags":
            program = program._replace(flags=("-DVALUE=2",))
        monkeypatch.setitem(native.PROGRAMS, "probe", program)
        keys.append(native.build("probe", "x86_64").parent.name)
    keys.append(native.build("probe", "aarch64").parent.name)
    assert len(set(keys)) == 4


def test_a_compile_error_is_ours_and_shows_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.c").write_text("int main(void) { return undeclared_name; }\n")
    monkeypatch.setitem(native.PROGRAMS, "broken", native.Program(str(tmp_path), ("broken.c",)))
    with pytest.raises(InfraError) as caught:
        native.build("broken", "x86_64")
    assert "undeclared_name" in caught.value.detail


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(HostError, match="mips"):
        native.native_binary("lmk-helper", "mips")


def test_prebuilt_programs_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prebuilt = tmp_path / "aarch64" / "lmk-helper"
    prebuilt.parent.mkdir()
    prebuilt.write_bytes(b"prebuilt")
    monkeypatch.setattr(resources, "data_dir", lambda name: tmp_path)
    assert native.native_binary("lmk-helper", "arm64") == prebuilt


def test_without_compiler_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMK_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HostError, match="pip install ziglang"):
        native.build("lmk-helper", "x86_64")


def test_no_compiler_warning_hides_behind_the_architecture() -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    directory = resources.data_dir("tools/lmk-helper")
    sources = [str(path) for path in sorted(directory.glob("helper*.c"))]
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    subproc.run(["gcc", *flags, *sources], timeout_s=120)


def test_a_wheel_carries_the_programs_ready_to_push(tmp_path: Path) -> None:
    root = resources.data_dir("tools").parent
    argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)]
    subproc.run(argv, timeout_s=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = (
        "from lmk.device import native\n"
        "print(*[native.native_binary(name, arch) for arch in ('x86_64', 'arm64') for name in native.PROGRAMS])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "LMK_CACHE": str(tmp_path / "cache")}
    found = subproc.run([sys.executable, "-c", program], timeout_s=60, env=environment, cwd="/").stdout.decode()
    paths = [Path(path) for path in found.split()]
    assert len(paths) == 2 * len(native.PROGRAMS)
    assert all(path.is_relative_to(tmp_path / "site/lmk/_data/prebuilt") for path in paths)
    assert not (tmp_path / "cache").exists(), "nothing was built"
    for path in paths:
        assert int.from_bytes(path.read_bytes()[18:20], "little") == MACHINES[path.parent.name]
