"""liblog's forms: decoded again by the rules of Android's log readers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.live.log_wire import event_payload, main_payload

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)


def decode_event(data: bytes) -> tuple[int, list[int | float]]:
    tag, kind, count = struct.unpack_from("<iBB", data)
    assert kind == 3
    at, values = 6, list[int | float]()
    for _ in range(count):
        form = {0: "<i", 1: "<q", 4: "<f"}[data[at]]
        values.append(struct.unpack_from(form, data, at + 1)[0])
        at += 1 + struct.calcsize(form)
    assert at == len(data)
    return tag, values


@given(st.lists(INT64 | FLOAT32, max_size=255))
def test_events_round_trip(fields: list[int | float]) -> None:
    assert decode_event(event_payload(10195355, fields)) == (10195355, fields)


def test_main_entry() -> None:
    assert main_payload("I", "lowmemorykiller", "Kill 'a'") == b"\x04lowmemorykiller\0Kill 'a'\0"


def test_a_nul_in_a_text_cannot_end_it_early() -> None:
    assert main_payload("E", "t", "a\0b") == b"\x06t\0a b\0"


def test_too_many_fields() -> None:
    with pytest.raises(ValueError, match="255"):
        event_payload(1, list(range(256)))
