"""Bundles: what goes in comes out, byte for byte; what is damaged is refused and nothing is left behind."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from lmk.backends.bundle import check_bundle, open_bundle, write_bundle
from lmk.config.device import load_device_config
from lmk.config.find import find_config
from lmk.config.override import override
from lmk.errors import UserError
from lmk.guest.image import GuestImage
from lmk.kernel.cache import KernelImage


@pytest.fixture
def kernel(tmp_path: Path) -> KernelImage:
    (tmp_path / "bzImage").write_bytes(b"kernel" * 1000)
    (tmp_path / "config").write_text("CONFIG_PSI=y\n")
    return KernelImage(
        image=tmp_path / "bzImage",
        config=tmp_path / "config",
        release="6.12.1-lmk",
        base="6.12",
        arch="x86_64",
        key="k",
        patched=True,
        source="package 1",
    )


@pytest.fixture
def image(tmp_path: Path) -> GuestImage:
    (tmp_path / "initrd").write_bytes(b"initrd" * 1000)
    with (tmp_path / "disk").open("wb") as disk:
        disk.write(b"\0" * (3 << 20) + b"pool" * 1000)
        disk.truncate(8 << 20)
    return GuestImage(
        initrd=tmp_path / "initrd",
        data_disk=tmp_path / "disk",
        key="g",
        ram_kib=100,
        arch="x86_64",
        packages=("adbd_1.deb",),
    )


@pytest.fixture
def packed(tmp_path: Path, kernel: KernelImage, image: GuestImage) -> Path:
    path = tmp_path / "test.bundle"
    write_bundle(kernel, image, path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty, and only after packing: the device programs come from the real one."""
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_goes_in_comes_out(packed: Path, cache: Path, kernel: KernelImage, image: GuestImage) -> None:
    bundle = open_bundle(packed)
    pairs = [
        (bundle.kernel.image, kernel.image),
        (bundle.kernel.config, kernel.config),
        (bundle.image.initrd, image.initrd),
        (bundle.image.data_disk, image.data_disk),
    ]
    assert all(there.read_bytes() == here.read_bytes() for there, here in pairs)
    assert (bundle.kernel.release, bundle.image.packages) == (kernel.release, image.packages)
    assert bundle.image.data_disk.stat().st_blocks * 512 <= 2 << 20
    assert open_bundle(packed) == bundle


def test_equal_inputs_give_equal_bytes(packed: Path, kernel: KernelImage, image: GuestImage, tmp_path: Path) -> None:
    write_bundle(kernel, image, tmp_path / "again.bundle")
    assert (tmp_path / "again.bundle").read_bytes() == packed.read_bytes()


def test_damage_is_found_and_nothing_is_left(packed: Path, cache: Path) -> None:
    plain = bytearray(lzma.decompress(packed.read_bytes()))
    at = plain.rindex(b"poolpool")
    plain[at] ^= 1
    packed.write_bytes(lzma.compress(bytes(plain)))
    with pytest.raises(UserError, match=r"data\.ext4 is damaged"):
        open_bundle(packed)
    assert list((cache / "bundles").iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_cut_off_file_is_refused(packed: Path, cache: Path, share: float) -> None:
    whole = packed.read_bytes()
    packed.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match="not a usable bundle"):
        open_bundle(packed)
    assert list((cache / "bundles").iterdir()) == []


def test_another_kernel_than_the_config_wants_is_refused(packed: Path, cache: Path) -> None:
    bundle = open_bundle(packed)
    config = load_device_config(find_config("phone-2gb"))
    check_bundle(bundle, config)
    with pytest.raises(UserError, match=r"holds 6\.12 x86_64, phone-2gb wants 6\.1 x86_64"):
        check_bundle(bundle, override(config, {"kernel.base": "6.1"}))
