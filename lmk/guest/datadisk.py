"""The guest's data disk: ext4 with a pool of really written blocks that apps map as their file memory.

File memory has to come from a disk: an initramfs is kept in RAM, its pages never refault, and lmkd's thrashing
reasons could not occur. The blocks are written, not holes, because a hole is read without any I/O. Runs attach the
image with a snapshot on top, so it never changes and any number of guests may share it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lmk import subproc
from lmk.errors import HostError
from lmk.progress import Progress, silent
from lmk.resources import cache_dir
from lmk.units import GIB, MIB

#: Path of the pool as the guest sees it.
POOL_PATH = "/data/lmk/filepool"
#: Room for the files of all apps of a 4 GB phone (app-switching: 4.3 GiB): where they do not fit, apps share pages.
POOL_BYTES = 4608 * MIB
FREE_BYTES = 512 * MIB
_BLOCK_BYTES = MIB
_LAYOUT = "4"
#: Equal images for everyone: nothing random, no date.
_UUID = "6c6d6b00-6461-7461-8000-000000000001"
_FAKE_TIME = "1"
_TIMEOUT_S = 900.0


def find_data_disk(pool_bytes: int = POOL_BYTES) -> Path | None:
    """The cached disk, None if it was not built yet."""
    path = _path(pool_bytes)
    return path if path.is_file() else None


def build_data_disk(progress: Progress = silent, pool_bytes: int = POOL_BYTES, free_bytes: int = FREE_BYTES) -> Path:
    """The disk image, from the cache or made now (twice its size is needed for a moment). HostError without room.

    ``free_bytes``: what a run may write beside the pool.
    """
    path = _path(pool_bytes)
    if path.is_file():
        return path
    mke2fs = subproc.require_tool("mke2fs", "e2fsprogs")
    _check_room(path.parent, 2 * pool_bytes + free_bytes)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="disk-") as scratch:
        root = Path(scratch) / "root"
        (root / "lmk").mkdir(parents=True)
        (root / "local" / "tmp").mkdir(parents=True)
        write_pool(root / "lmk" / "filepool", pool_bytes, progress)
        for path_inside in (*root.rglob("*"), root):
            os.utime(path_inside, (1, 1))
        draft = Path(scratch) / "image"
        size_kib = (pool_bytes + free_bytes) // 1024
        progress("writing the data disk (ext4)", None)
        argv = [mke2fs, "-q", "-t", "ext4", "-b", "4096", "-m", "0", "-O", "^has_journal", "-U", _UUID, "-L", "data"]
        argv += ["-E", f"hash_seed={_UUID},root_owner=0:0,lazy_itable_init=0,nodiscard", "-N", "4096"]
        argv += ["-d", str(root), str(draft), f"{size_kib}k"]
        environment = {**os.environ, "E2FSPROGS_FAKE_TIME": _FAKE_TIME, "SOURCE_DATE_EPOCH": _FAKE_TIME}
        subproc.run(argv, timeout_s=_TIMEOUT_S, env=environment)
        _fix_times(draft, environment)
        draft.replace(path)
    # Disks of earlier layouts and sizes are gigabytes; a guest that still runs on one keeps it open.
    for stale in path.parent.glob("data-*m.ext4"):
        if stale != path:
            stale.unlink(missing_ok=True)
    return path


def _fix_times(image: Path, environment: Mapping[str, str]) -> None:
    """mke2fs copies change times, which no program can set on the files it copies from."""
    debugfs = subproc.require_tool("debugfs", "e2fsprogs")
    commands = [
        f"set_inode_field {name} {field} {_FAKE_TIME}"
        for name in ("/", "/lost+found", "/lmk", "/lmk/filepool", "/local", "/local/tmp")
        for field in ("ctime", "ctime_extra", "atime", "atime_extra", "mtime", "mtime_extra", "crtime", "crtime_extra")
    ]
    argv = [debugfs, "-w", "-f", "-", str(image)]
    subproc.run(argv, timeout_s=_TIMEOUT_S, env=environment, stdin="\n".join(commands).encode())


def write_pool(path: Path, size_bytes: int, progress: Progress = silent) -> None:
    """Fill a file with bytes that no layer below can leave out: no zero block, no two equal blocks."""
    seed = b"".join(hashlib.sha256(b"lmk filepool %d" % i).digest() for i in range(_BLOCK_BYTES // 32))
    pages = [seed[start : start + 4096] for start in range(0, _BLOCK_BYTES, 4096)]
    count = size_bytes // _BLOCK_BYTES
    with path.open("wb") as pool:
        for block in range(count):
            # The block's number at the start of each page keeps pages distinct.
            stamp = block.to_bytes(8, "little")
            pool.write(b"".join(stamp + page[8:] for page in pages))
            if block % 256 == 0:
                progress("writing the data disk's file pool", block / count)


def _path(pool_bytes: int) -> Path:
    return cache_dir("guest") / f"data-{_LAYOUT}-{pool_bytes // MIB}m.ext4"


def _check_room(folder: Path, wanted_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < wanted_bytes:
        raise HostError(
            f"{folder} has {free_bytes / GIB:.1f} GiB free, the data disk needs {wanted_bytes / GIB:.1f} GiB",
            "free some space, or point XDG_CACHE_HOME to another disk",
        )
