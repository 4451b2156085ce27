"""Writes initramfs archives: cpio "newc", byte-identical for equal contents.

Owner 0:0, mtime 0, entries sorted by path, inode numbers counted from 1. Archives may be concatenated: the kernel
unpacks one after the other and a later entry replaces an earlier one (Documentation/driver-api/early-userspace).
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import PurePosixPath

from attrs import field, frozen

_TRAILER = "TRAILER!!!"
#: The kernel wants the next archive at a multiple of 4; 512 is what GNU cpio pads to.
_BLOCK_BYTES = 512


@frozen(kw_only=True)
class Entry:
    """One file, directory, symbolic link or character device."""

    path: str
    mode: int
    data: bytes = field(default=b"", repr=False)
    device: tuple[int, int] = (0, 0)


class CpioTree:
    """The contents of an archive; parent directories are added by themselves."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def add_file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """A regular file."""
        self._add(Entry(path=path, mode=stat.S_IFREG | mode, data=data))

    def add_link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._add(Entry(path=path, mode=stat.S_IFLNK | 0o777, data=target.encode()))

    def add_dir(self, path: str, mode: int = 0o755) -> None:
        """A directory."""
        self._add(Entry(path=path, mode=stat.S_IFDIR | mode))

    def add_char_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """A character device node."""
        self._add(Entry(path=path, mode=stat.S_IFCHR | mode, device=(major, minor)))

    def __contains__(self, path: str) -> bool:
        return _normal(path) in self._entries

    @property
    def content_bytes(self) -> int:
        """RAM that the unpacked files take, in whole pages."""
        return sum((len(entry.data) + 4095) // 4096 * 4096 for entry in self._entries.values())

    def archive(self) -> bytes:
        """The archive with its trailer, padded so that another may follow."""
        parts = [part for number, entry in enumerate(self._sorted(), 1) for part in _encode(entry, number)]
        parts += _encode(Entry(path=_TRAILER, mode=0), 0)
        whole = b"".join(parts)
        return whole + bytes(-len(whole) % _BLOCK_BYTES)

    def _add(self, entry: Entry) -> None:
        path = _normal(entry.path)
        for parent in reversed(PurePosixPath(path).parents):
            if str(parent) != "." and str(parent) not in self._entries:
                self._entries[str(parent)] = Entry(path=str(parent), mode=stat.S_IFDIR | 0o755)
        self._entries[path] = Entry(path=path, mode=entry.mode, data=entry.data, device=entry.device)

    def _sorted(self) -> Iterator[Entry]:
        for path in sorted(self._entries):
            yield self._entries[path]


def _normal(path: str) -> str:
    return str(PurePosixPath(path.lstrip("/")))


def _encode(entry: Entry, inode: int) -> list[bytes]:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in fields)
    name += bytes(-(len(header) + len(name)) % 4)
    return [header, name, entry.data, bytes(-len(entry.data) % 4)]
