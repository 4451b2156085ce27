"""The initramfs writer: what cpio itself unpacks, and the same bytes every time."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.guest.cpio import CpioTree

_names = st.text("abcdefghij.-_", min_size=1, max_size=12).filter(lambda name: name not in (".", ".."))
_paths = st.lists(_names, min_size=1, max_size=3).map("/".join)


def entries(archive: bytes) -> list[tuple[str, int, bytes, tuple[int, int]]]:
    """An independent reader of the newc format: (name, mode, data, device) up to the trailer."""
    found: list[tuple[str, int, bytes, tuple[int, int]]] = []
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701" and at % 4 == 0
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        _, mode, _, _, _, _, size, _, _, major, minor, name_size, _ = fields
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = (at + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found.append((name, mode, archive[start : start + size], (major, minor)))
        at = (start + size + 3) // 4 * 4


@given(st.dictionaries(_names, st.binary(max_size=50), max_size=8))
def test_files_survive_and_order_of_adding_does_not_matter(files: dict[str, bytes]) -> None:
    forward, backward = CpioTree(), CpioTree()
    for name, data in files.items():
        forward.add_file(f"top/{name}", data)
    for name, data in reversed(files.items()):
        backward.add_file(f"/top/{name}", data)
    assert forward.archive() == backward.archive()
    read = {name: data for name, mode, data, _ in entries(forward.archive()) if stat.S_ISREG(mode)}
    assert read == {f"top/{name}": data for name, data in files.items()}


@given(st.lists(_paths, max_size=6))
def test_parents_come_before_their_children(paths: list[str]) -> None:
    tree = CpioTree()
    for path in paths:
        tree.add_dir(path)
    seen: set[str] = set()
    for name, mode, _, _ in entries(tree.archive()):
        parent = name.rpartition("/")[0]
        assert parent == "" or parent in seen
        assert stat.S_ISDIR(mode)
        seen.add(name)


def test_kinds_modes_and_devices() -> None:
    tree = CpioTree()
    tree.add_file("bin/tool", b"x", 0o755)
    tree.add_link("bin/other", "tool")
    tree.add_char_device("dev/console", 5, 1)
    tree.add_dir("tmp", 0o1777)
    found = {name: (mode, data, device) for name, mode, data, device in entries(tree.archive())}
    assert found["bin/tool"] == (stat.S_IFREG | 0o755, b"x", (0, 0))
    assert found["bin/other"] == (stat.S_IFLNK | 0o777, b"tool", (0, 0))
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))
    assert found["tmp"][0] == stat.S_IFDIR | 0o1777
    assert found["dev"][0] == stat.S_IFDIR | 0o755


def test_archives_may_follow_each_other() -> None:
    tree = CpioTree()
    tree.add_file("a", b"12345")
    assert len(tree.archive()) % 512 == 0


def test_content_counts_whole_pages() -> None:
    tree = CpioTree()
    tree.add_file("a", b"1")
    tree.add_file("b", bytes(4097))
    tree.add_file("empty", b"")
    assert tree.content_bytes == 3 * 4096


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_gnu_cpio_unpacks_it(tmp_path: Path) -> None:
    tree = CpioTree()
    tree.add_file("system/build.prop", b"ro.x=1\n", 0o640)
    tree.add_link("init", "/system/bin/init")
    subprocess.run(["cpio", "-id", "--quiet"], input=tree.archive(), cwd=tmp_path, check=True)
    assert (tmp_path / "system/build.prop").read_bytes() == b"ro.x=1\n"
    assert stat.S_IMODE((tmp_path / "system/build.prop").stat().st_mode) == 0o640
    assert (tmp_path / "init").readlink() == Path("/system/bin/init")
