"""The guest image: same inputs, same bytes, and small."""

from __future__ import annotations

import hashlib
import posixpath
import shutil
from pathlib import Path

import pytest

from lmk.errors import HostError, InfraError
from lmk.guest import datadisk
from lmk.guest.image import GuestImage, find_guest_image, make_initrd
from lmk.guest.userland import GUEST_TOOLS, build_tree
from lmk.resources import cache_dir
from tests.guest.test_cpio import entries

_POOL_BYTES = 8 << 20


@pytest.fixture(scope="module")
def image() -> GuestImage:
    found = find_guest_image()
    if found is None:
        pytest.skip("no guest image is built")
    return found


@pytest.fixture(scope="module")
def debs(image: GuestImage) -> list[Path]:
    paths = [cache_dir("apt", "trixie-amd64", "archives") / name for name in image.packages]
    if not all(path.is_file() for path in paths):
        pytest.skip("the guest image's packages are no longer in the cache")
    return paths


def test_same_packages_in_any_order_give_the_same_bytes(debs: list[Path]) -> None:
    first, ram_kib = make_initrd(debs, b"program", "x86_64")
    second, _ = make_initrd(debs[::-1], b"program", "x86_64")
    assert first == second
    assert ram_kib < 32 * 1024


def test_cached_image_is_what_the_packages_give(image: GuestImage, debs: list[Path]) -> None:
    files = {name: data for name, _, data, _ in entries(image.initrd.read_bytes())}
    again, _ = make_initrd(debs, files["system/bin/lmk-guest"], "x86_64")
    assert again == image.initrd.read_bytes()


def test_androids_layout_and_no_ballast(image: GuestImage) -> None:
    found = {name: data for name, _, data, _ in entries(image.initrd.read_bytes())}
    assert {f"system/bin/{tool}" for tool in (*GUEST_TOOLS, "sh", "adbd", "ps", "cat")} <= set(found)
    assert found["init"] == b"/system/bin/lmk-guest"
    assert not [name for name in found if "gconv" in name or "/share/" in name or "locale" in name]


def test_every_link_leads_somewhere(image: GuestImage) -> None:
    found = {name: (mode, data) for name, mode, data, _ in entries(image.initrd.read_bytes())}
    for name, (mode, data) in found.items():
        if mode >> 12 != 0o12 or data.startswith(b"/proc"):
            continue
        target = data.decode()
        path = posixpath.normpath(posixpath.join("/", posixpath.dirname(name), target)).lstrip("/")
        assert path in found, f"{name} -> {target}"


def test_a_package_that_lost_its_program_is_named() -> None:
    with pytest.raises(InfraError, match="no package of the guest image contains"):
        build_tree([], b"", "x86_64")


def test_pool_pages_are_neither_zero_nor_equal(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    datadisk.write_pool(pool, 3 << 20)
    data = pool.read_bytes()
    pages = [data[start : start + 4096] for start in range(0, len(data), 4096)]
    assert len(data) == 3 << 20
    assert len(set(pages)) == len(pages)
    assert bytes(4096) not in pages


@pytest.mark.skipif(shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin") is None, reason="no mke2fs")
def test_data_disk_is_the_same_for_everyone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = []
    for name in ("one", "two"):
        monkeypatch.setenv("LMK_CACHE", str(tmp_path / name))
        assert datadisk.find_data_disk(_POOL_BYTES) is None
        path = datadisk.build_data_disk(pool_bytes=_POOL_BYTES, free_bytes=_POOL_BYTES)
        assert datadisk.find_data_disk(_POOL_BYTES) == path
        images.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert images[0] == images[1]
    assert not list((tmp_path / "one").rglob("disk-*"))


def test_data_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMK_CACHE", str(tmp_path))
    with pytest.raises(HostError, match="the data disk needs"):
        datadisk.build_data_disk(pool_bytes=1 << 60)
    assert not list(tmp_path.rglob("*.ext4"))
