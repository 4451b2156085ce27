"""The guest image: an initramfs from Debian packages and a data disk, built once and kept in the cache.

Same inputs, same bytes: the archive is written by lmk.guest.cpio, and the key covers every package file, our own
program and this code's layout. Building needs no right of root. Which package versions were used is remembered with
the image, so a cached image is used without asking any mirror.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from lmk import apt, subproc
from lmk.device.native import content_key, native_binary
from lmk.guest import datadisk, userland
from lmk.progress import Progress, silent
from lmk.resources import cache_dir

_STALE_AFTER_S = 7 * 24 * 3600


@frozen(kw_only=True)
class GuestImage:
    """A bootable userland. ``ram_kib`` is what its files take of the guest's RAM."""

    initrd: Path
    data_disk: Path
    key: str
    ram_kib: int
    arch: str
    #: File names of the packages it was made from.
    packages: tuple[str, ...]


def build_guest_image(arch: str = "x86_64", progress: Progress = silent, *, refresh: bool = False) -> GuestImage:
    """The image for an architecture ("x86_64", "arm64"), from the cache or built now.

    ``refresh`` asks Debian's mirrors for newer packages. Raises HostError when a tool or a mirror is missing.
    """
    found = None if refresh else find_guest_image(arch)
    if found is not None:
        return found
    with _locked(cache_dir("guest") / "lock"):
        return (None if refresh else find_guest_image(arch)) or _build(arch, progress)


def find_guest_image(arch: str = "x86_64") -> GuestImage | None:
    """The newest cached image made by this code and these C sources; never builds or downloads."""
    record = cache_dir("guest") / f"{_recipe(arch)}.json"
    disk = datadisk.find_data_disk()
    if disk is None or not record.is_file():
        return None
    facts = json.loads(record.read_text())
    initrd = cache_dir("guest") / facts["initrd"]
    if not initrd.is_file():
        return None
    return GuestImage(
        initrd=initrd,
        data_disk=disk,
        key=facts["key"],
        ram_kib=facts["ram_kib"],
        arch=arch,
        packages=tuple(facts["packages"]),
    )


def make_initrd(debs: Sequence[Path], guest_program: bytes, arch: str) -> tuple[bytes, int]:
    """The archive's bytes and the KiB of RAM that its files take."""
    tree = userland.build_tree(debs, guest_program, arch)
    return tree.archive(), tree.content_bytes // 1024


def _build(arch: str, progress: Progress) -> GuestImage:
    subproc.require_tool("dpkg-deb", "dpkg")
    progress("compiling the guest's init", None)
    program = native_binary("lmk-guest", arch).read_bytes()
    debs = apt.open_state(userland.SUITE, arch, progress=progress).download(userland.PACKAGES, progress)
    progress("building the guest image", None)
    initrd, ram_kib = make_initrd(debs, program, arch)
    key = hashlib.sha256(initrd).hexdigest()[:24]
    folder = cache_dir("guest")
    name = f"initrd-{arch}-{key}.cpio"
    _write_atomically(folder / name, initrd)
    datadisk.build_data_disk(progress)
    facts = {"key": key, "initrd": name, "ram_kib": ram_kib, "packages": [deb.name for deb in debs]}
    _write_atomically(folder / f"{_recipe(arch)}.json", json.dumps(facts, indent=1).encode())
    _remove_stale(folder, name)
    found = find_guest_image(arch)
    assert found is not None
    return found


def _remove_stale(folder: Path, keep: str) -> None:
    """Archives of earlier builds; none that a command of today may be about to boot."""
    for path in folder.glob("initrd-*.cpio"):
        if path.name != keep and time.time() - path.stat().st_mtime > _STALE_AFTER_S:
            path.unlink(missing_ok=True)


def _recipe(arch: str) -> str:
    """Key of everything that is known without asking a mirror."""
    digest = hashlib.sha256(arch.encode())
    digest.update(content_key("lmk-guest", arch).encode())
    here = Path(__file__).parent
    for module in ("userland.py", "cpio.py", "elf.py"):
        digest.update((here / module).read_bytes())
    return f"image-{arch}-{digest.hexdigest()[:24]}"


def _write_atomically(path: Path, data: bytes) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.write_bytes(data)
    draft.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
