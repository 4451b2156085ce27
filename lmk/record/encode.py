"""Policy requests and answers as plain JSON values: ``{"type": "ReadFile", "path": ...}``.

Long texts (the /proc files) become ``{"text": ID}``, so that a record holds each of them once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

#: Texts from here on are stored apart; shorter ones stay readable in place.
INLINE_CHARS_MAX = 400


def to_plain(value: object, keep: Callable[[str], int | str]) -> Any:
    """``value`` as JSON-able data; ``keep`` stores a long text and returns its id. TypeError on anything odd."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return value if len(value) <= INLINE_CHARS_MAX else {"text": keep(value)}
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    cls: type[Any] = type(value)
    if attrs.has(cls):
        fields: dict[str, Any] = {"type": cls.__name__}
        for field in attrs.fields(cls):
            fields[field.name] = to_plain(getattr(value, field.name), keep)
        return fields
    if isinstance(value, Mapping):
        return {str(key): to_plain(item, keep) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [to_plain(item, keep) for item in value]
    raise TypeError(f"{type(value).__name__} does not belong into a record")
