"""Framing and field kinds of the helper protocol; the messages themselves are in helper_wire.

One frame is ``u32 length of the payload, u16 type, u16 zero, u32 request id`` and the payload, little-endian.
Every message is a frozen value with a ``layout`` (field name, kind); a decoder ignores bytes after the last
field it knows, so fields can be added at the end without a new protocol version.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, Protocol

from lmk.errors import HelperError

HEADER = struct.Struct("<IHHI")
#: Longest payload: host to device (the helper's input buffer) and device to host.
REQUEST_BYTES_MAX = 65536
MESSAGE_BYTES_MAX = 1 << 20


class WireError(HelperError):
    """Bytes that are not a message of this protocol."""


class Kind(Protocol):
    """How one field is written."""

    def put(self, value: Any, out: bytearray) -> None: ...

    def get(self, data: memoryview, at: int) -> tuple[Any, int]: ...


class _Number:
    def __init__(self, code: str) -> None:
        self._struct = struct.Struct("<" + code)

    def put(self, value: Any, out: bytearray) -> None:
        out += self._struct.pack(value)

    def get(self, data: memoryview, at: int) -> tuple[Any, int]:
        return self._struct.unpack_from(data, at)[0], at + self._struct.size


class _Blob:
    """u32 length and the bytes."""

    def put(self, value: Any, out: bytearray) -> None:
        out += struct.pack("<I", len(value)) + value

    def get(self, data: memoryview, at: int) -> tuple[Any, int]:
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + length > len(data):
            raise struct.error("blob longer than its message")
        return bytes(data[at : at + length]), at + length


class _Text:
    """u16 length and UTF-8; bytes that are not UTF-8 survive as surrogates."""

    def put(self, value: Any, out: bytearray) -> None:
        raw = value.encode(errors="surrogateescape")
        out += struct.pack("<H", len(raw)) + raw

    def get(self, data: memoryview, at: int) -> tuple[Any, int]:
        (length,) = struct.unpack_from("<H", data, at)
        at += 2
        if at + length > len(data):
            raise struct.error("text longer than its message")
        return str(data[at : at + length], "utf-8", "surrogateescape"), at + length


class _List:
    """u32 count and the items: plain kinds or records (classes with a layout)."""

    def __init__(self, item: Kind | type[Any]) -> None:
        self._item = _Record(item) if isinstance(item, type) else item

    def put(self, value: Any, out: bytearray) -> None:
        out += struct.pack("<I", len(value))
        for item in value:
            self._item.put(item, out)

    def get(self, data: memoryview, at: int) -> tuple[Any, int]:
        (count,) = struct.unpack_from("<I", data, at)
        at += 4
        if count > len(data) - at:  # every item has at least one byte
            raise struct.error("list longer than its message")
        items = []
        for _ in range(count):
            item, at = self._item.get(data, at)
            items.append(item)
        return tuple(items), at


class _Record:
    def __init__(self, cls: type[Any]) -> None:
        self._cls = cls

    def put(self, value: Any, out: bytearray) -> None:
        for name, kind in self._cls.layout:
            kind.put(getattr(value, name), out)

    def get(self, data: memoryview, at: int) -> tuple[Any, int]:
        values = {}
        for name, kind in self._cls.layout:
            values[name], at = kind.get(data, at)
        return self._cls(**values), at


U8, U16, U32, U64 = _Number("B"), _Number("H"), _Number("I"), _Number("Q")
I32, I64 = _Number("i"), _Number("q")
TEXT, BLOB = _Text(), _Blob()

Layout = tuple[tuple[str, Kind], ...]


def list_of(item: Kind | type[Any]) -> Kind:
    """A list field of plain kinds or of records (classes with a layout)."""
    return _List(item)


def put_fields(message: Any, layout: Layout) -> bytes:
    """The payload of one message."""
    out = bytearray()
    for name, kind in layout:
        kind.put(getattr(message, name), out)
    return bytes(out)


def get_fields(payload: bytes, layout: Layout) -> dict[str, Any]:
    """Field values of one payload; WireError if it is shorter than the layout."""
    values = {}
    view, at = memoryview(payload), 0
    try:
        for name, kind in layout:
            values[name], at = kind.get(view, at)
    except struct.error as error:
        raise WireError(f"helper message cut short: {error}", "push the helper of this lmk version") from error
    return values


class Frame(NamedTuple):
    """One frame, undecoded."""

    type: int
    id: int
    payload: bytes


def put_frame(frame: Frame) -> bytes:
    """Header and payload."""
    return HEADER.pack(len(frame.payload), frame.type, 0, frame.id) + frame.payload


class FrameReader:
    """Bytes in any pieces -> frames. ``feed`` what arrived, then take ``next`` until it is None."""

    def __init__(self, payload_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._payload_bytes_max = payload_bytes_max

    def feed(self, data: bytes) -> None:
        """Add bytes as they arrived."""
        self._buffer += data

    def next(self) -> Frame | None:
        """The next whole frame; WireError when the bytes cannot be frames of this protocol."""
        if len(self._buffer) < HEADER.size:
            return None
        length, kind, zero, request_id = HEADER.unpack_from(self._buffer)
        if zero != 0 or length > self._payload_bytes_max:
            raise WireError(f"not the helper protocol: header {bytes(self._buffer[: HEADER.size]).hex()}")
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        return Frame(kind, request_id, payload)
