"""Log entries as Android's liblog writes them to logd (system/logging, liblog/logger_write.cpp, event_tag_map).

The helper hands these payloads to logd on a phone and to the guest's log store, which reads the same form.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

#: log_id_t
MAIN_LOG = 0
EVENTS_LOG = 2
#: android_LogPriority
_PRIORITIES = {"V": 2, "D": 3, "I": 4, "W": 5, "E": 6}
#: AndroidEventLogType
_INT, _LONG, _LIST, _FLOAT = 0, 1, 3, 4
_INT32_MIN, _INT32_MAX = -(1 << 31), (1 << 31) - 1


def main_payload(level: str, tag: str, text: str) -> bytes:
    """Priority byte, tag and text, each ending with a NUL. ``level`` is one of V D I W E."""
    return b"".join((bytes([_PRIORITIES[level]]), _c_string(tag), _c_string(text)))


def event_payload(tag: int, fields: Sequence[int | float]) -> bytes:
    """A list event: tag, then one typed element per field. ValueError for more than 255 fields."""
    if len(fields) > 255:
        raise ValueError(f"an event has at most 255 fields, not {len(fields)}")
    parts = [struct.pack("<iBB", tag, _LIST, len(fields))]
    for field in fields:
        if isinstance(field, float):
            parts.append(struct.pack("<Bf", _FLOAT, field))
        elif _INT32_MIN <= field <= _INT32_MAX:
            parts.append(struct.pack("<Bi", _INT, field))
        else:
            parts.append(struct.pack("<Bq", _LONG, field))
    return b"".join(parts)


def _c_string(text: str) -> bytes:
    return text.encode(errors="surrogateescape").replace(b"\0", b" ") + b"\0"
