"""Which shared libraries an ELF program asks for: just enough of the format to keep only what is used."""

from __future__ import annotations

import struct

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


def needed_libraries(image: bytes) -> tuple[str, ...]:
    """DT_NEEDED names of a little-endian 64-bit ELF file; empty for anything else and for static programs."""
    segments = _segments(image)
    dynamic = next((segment for segment in segments if segment[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return ()
    _, offset, _, size = dynamic
    entries = list(struct.iter_unpack("<qQ", image[offset : offset + size - size % 16]))
    strings = next((value for tag, value in entries if tag == _DT_STRTAB), None)
    if strings is None:
        return ()
    base = _file_offset(segments, strings)
    names = []
    for tag, value in entries:
        if tag == _DT_NULL:
            break
        if tag == _DT_NEEDED:
            names.append(_string(image, base + value))
    return tuple(names)


def interpreter(image: bytes) -> str | None:
    """Path of the dynamic linker, None for a static program."""
    found = next((segment for segment in _segments(image) if segment[0] == _PT_INTERP), None)
    return _string(image, found[1]) if found else None


def _segments(image: bytes) -> list[tuple[int, int, int, int]]:
    """(type, file offset, virtual address, file size) of each program header."""
    if image[:6] != b"\x7fELF\x02\x01" or len(image) < 64:
        return []
    (table,) = struct.unpack_from("<Q", image, 32)
    entry_size, count = struct.unpack_from("<HH", image, 54)
    segments = []
    for index in range(count):
        kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", image, table + index * entry_size)
        segments.append((kind, offset, address, size))
    return segments


def _file_offset(segments: list[tuple[int, int, int, int]], address: int) -> int:
    for kind, offset, start, size in segments:
        if kind == _PT_LOAD and start <= address < start + size:
            return offset + address - start
    raise ValueError(f"address {address:#x} is in no segment")


def _string(image: bytes, offset: int) -> str:
    return image[offset : image.index(b"\0", offset)].decode()
