"""The helper protocol, bytes <-> messages, no I/O. docs/helper-protocol.md is the specification.

``helper_types`` has constants and records, ``helper_requests`` what the host sends, ``helper_messages`` what the
device sends; here they become frames and come back.
"""

from __future__ import annotations

import hashlib
import typing
from typing import Any

from lmk.device.helper_codec import Frame, WireError, get_fields, put_fields, put_frame
from lmk.device.helper_messages import Message
from lmk.device.helper_requests import Request

_REQUESTS: dict[int, type[Any]] = {cls.code: cls for cls in typing.get_args(Request)}
_MESSAGES: dict[int, type[Any]] = {cls.code: cls for cls in typing.get_args(Message)}


def encode(message: Request | Message, request_id: int = 0) -> bytes:
    """One frame, ready to send. ``request_id`` 0: unsolicited, or no answer wanted."""
    return put_frame(Frame(message.code, request_id, put_fields(message, message.layout)))


def content_hash(binary: bytes) -> str:
    """What a helper binary is called by on a device."""
    return hashlib.sha256(binary).hexdigest()[:16]


def decode_message(frame: Frame) -> Message:
    """What the device sent; WireError for an unknown type or a payload cut short."""
    message: Message = _decode(frame, _MESSAGES)
    return message


def decode_request(frame: Frame) -> Request:
    """What a host sent (for peers that stand in for the helper)."""
    request: Request = _decode(frame, _REQUESTS)
    return request


def _decode(frame: Frame, classes: dict[int, type[Any]]) -> Any:
    cls = classes.get(frame.type)
    if cls is None:
        raise WireError(f"unknown helper message type {frame.type}", "push the helper of this lmk version")
    return cls(**get_fields(frame.payload, cls.layout))
