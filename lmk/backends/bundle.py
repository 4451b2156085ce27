"""A bundle: kernel, guest and device programs in one file, for a machine that has QEMU and adb and nothing else.

An xz-compressed tar whose first member, ``manifest.json``, names every other one with its SHA-256. It is unpacked once
into the cache, under the hash of the file, and used from there.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO, FileIO
from pathlib import Path
from typing import IO, Any, Final

from attrs import frozen

from lmk import __version__
from lmk.config.device import DeviceConfig
from lmk.device.native import native_binary, prefer
from lmk.errors import UserError
from lmk.guest.image import GuestImage
from lmk.kernel.cache import KernelImage
from lmk.progress import Progress, silent
from lmk.resources import cache_dir

BUNDLE_SCHEMA: Final = 1
_MANIFEST: Final = "manifest.json"
_KERNEL, _CONFIG, _INITRD, _DISK = "kernel", "kernel.config", "initrd.cpio", "data.ext4"
_DEVICE_PROGRAMS: Final = ("lmk-helper", "lmk-apprunner")
#: The data disk repeats itself every MiB (lmk.guest.datadisk): a window a little longer packs 3 GiB into some 30 MB.
_FILTERS: Final = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 4 << 20}]
_CHUNK_BYTES: Final = 1 << 20


@frozen(kw_only=True)
class Bundle:
    """An unpacked bundle."""

    kernel: KernelImage
    image: GuestImage
    arch: str


def write_bundle(kernel: KernelImage, image: GuestImage, path: Path, progress: Progress = silent) -> None:
    """Pack them into ``path``; a reader sees the whole file or none. UserError if it cannot be written."""
    programs = {name: native_binary(name, image.arch) for name in _DEVICE_PROGRAMS}
    files = {_KERNEL: kernel.image, _CONFIG: kernel.config, _INITRD: image.initrd, _DISK: image.data_disk, **programs}
    progress("hashing", None)
    manifest = {
        "schema": BUNDLE_SCHEMA,
        "lmk_version": __version__,
        "kernel": {
            "release": kernel.release,
            "base": kernel.base,
            "arch": kernel.arch,
            "key": kernel.key,
            "patched": kernel.patched,
            "debug": kernel.debug,
            "source": kernel.source,
        },
        "guest": {"key": image.key, "ram_kib": image.ram_kib, "arch": image.arch, "packages": list(image.packages)},
        "files": {name: _digest(file) for name, file in files.items()},
    }
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with lzma.open(draft, "wb", filters=_FILTERS) as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
            _add(tar, _MANIFEST, BytesIO(text := json.dumps(manifest, indent=1).encode()), len(text))
            for name, file in files.items():
                with _Told(file, partial(progress, f"packing {name}")) as source:
                    _add(tar, name, source, file.stat().st_size)
        draft.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "give an --output file you may write") from None
    finally:
        draft.unlink(missing_ok=True)


def open_bundle(path: Path, progress: Progress = silent) -> Bundle:
    """Unpack it, once, and check every hash. UserError if it is no bundle, is damaged or of another schema."""
    try:
        progress("reading the bundle", None)
        folder = cache_dir("bundles") / _digest(path)[:24]
        if not folder.is_dir():
            _unpack(path, folder, progress)
        manifest = json.loads((folder / _MANIFEST).read_text())
        return _bundle(folder, manifest)
    except (OSError, EOFError, ValueError, KeyError, tarfile.TarError, lzma.LZMAError) as error:
        raise UserError(f"{path} is not a usable bundle: {error}", "make one with: lmk kernel bundle") from None


def check_bundle(bundle: Bundle, config: DeviceConfig) -> None:
    """UserError if a config wants another kernel than the bundle has."""
    has = (bundle.kernel.base, bundle.arch)
    wants = (config.kernel.base, config.arch)
    if has != wants:
        raise UserError(
            f"the bundle holds {' '.join(has)}, {config.name} wants {' '.join(wants)}",
            f"lmk kernel bundle --base {wants[0]} --arch {wants[1]}, or --set kernel.base={has[0]}",
        )


def use_programs(bundle: Bundle) -> None:
    """From now on this process pushes the bundle's helper and app runner, compiling nothing."""
    prefer(bundle.kernel.image.parent, bundle.arch)


def _bundle(folder: Path, manifest: Mapping[str, Any]) -> Bundle:
    kernel, guest = manifest["kernel"], manifest["guest"]
    image = GuestImage(
        initrd=folder / _INITRD,
        data_disk=folder / _DISK,
        key=guest["key"],
        ram_kib=guest["ram_kib"],
        arch=guest["arch"],
        packages=tuple(guest["packages"]),
    )
    return Bundle(
        kernel=KernelImage(image=folder / _KERNEL, config=folder / _CONFIG, **kernel),
        image=image,
        arch=guest["arch"],
    )


def _unpack(path: Path, folder: Path, progress: Progress) -> None:
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unpack-"))
    try:
        with lzma.open(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            first = tar.next()
            if first is None or first.name != _MANIFEST:
                raise ValueError(f"it does not begin with {_MANIFEST}")
            text = _member(tar, first).read()
            manifest = json.loads(text)
            if manifest["schema"] != BUNDLE_SCHEMA:
                raise ValueError(f"its schema is {manifest['schema']}, this lmk reads {BUNDLE_SCHEMA}")
            wanted: dict[str, str] = dict(manifest["files"])
            while (member := tar.next()) is not None:
                digest = wanted.pop(member.name, None)
                if digest is None:
                    raise ValueError(f"it holds {member.name}, which its manifest does not name")
                progress(f"unpacking {member.name}", None)
                if _copy(_member(tar, member), scratch / member.name) != digest:
                    raise ValueError(f"{member.name} is damaged (its hash differs)")
            if wanted:
                raise ValueError(f"it lacks {', '.join(wanted)}")
        (scratch / _MANIFEST).write_bytes(text)
        for name in _DEVICE_PROGRAMS:
            (scratch / name).chmod(0o755)
        try:
            scratch.rename(folder)
        except OSError:
            # Another lmk unpacked the same file meanwhile.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    if stream is None:
        raise ValueError(f"{member.name} is not a file")
    return stream


def _copy(source: IO[bytes], target: Path) -> str:
    digest = hashlib.sha256()
    with target.open("wb") as sink:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            # Holes stay holes: most of the disk beside its pool is empty.
            if chunk.count(0) == len(chunk):
                sink.seek(len(chunk), os.SEEK_CUR)
            else:
                sink.write(chunk)
        sink.truncate()
    return digest.hexdigest()


def _add(tar: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    tar.addfile(member, source)


class _Told(FileIO):
    """A file that tells which share of it has been read."""

    def __init__(self, path: Path, told: Callable[[float], None]) -> None:
        super().__init__(path)
        self._told, self._size = told, max(1, path.stat().st_size)

    def read(self, size: int | None = -1) -> bytes:
        chunk = super().read(-1 if size is None else size)
        self._told(self.tell() / self._size)
        return chunk


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
