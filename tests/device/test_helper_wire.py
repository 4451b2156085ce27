"""The codec against itself (hypothesis), against the C program's golden bytes, and against the document."""

from __future__ import annotations

import contextlib
import re
import subprocess
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk import resources
from lmk.device import helper_codec as codec
from lmk.device import helper_messages as messages
from lmk.device import helper_requests as requests
from lmk.device import helper_types as types
from lmk.device import helper_wire
from lmk.policy.lmkd import control_packets
from tests.fakes.helper_peer import HELLO, helper_binary

REQUESTS: tuple[type[Any], ...] = typing.get_args(requests.Request)
MESSAGES: tuple[type[Any], ...] = typing.get_args(messages.Message)
_NAMES = {
    id(codec.U8): "u8",
    id(codec.U16): "u16",
    id(codec.U32): "u32",
    id(codec.U64): "u64",
    id(codec.I32): "i32",
    id(codec.I64): "i64",
    id(codec.TEXT): "text",
    id(codec.BLOB): "blob",
}
_PLAIN: dict[int, st.SearchStrategy[Any]] = {
    id(codec.U8): st.integers(0, 2**8 - 1),
    id(codec.U16): st.integers(0, 2**16 - 1),
    id(codec.U32): st.integers(0, 2**32 - 1),
    id(codec.U64): st.integers(0, 2**64 - 1),
    id(codec.I32): st.integers(-(2**31), 2**31 - 1),
    id(codec.I64): st.integers(-(2**63), 2**63 - 1),
    # What a decoder can produce: any bytes, as UTF-8 with surrogate escapes.
    id(codec.TEXT): st.binary(max_size=40).map(lambda raw: raw.decode(errors="surrogateescape")),
    id(codec.BLOB): st.binary(max_size=80),
}


def record_of(kind: Any) -> type[Any] | None:
    """The record class of a list field, None for lists of plain kinds."""
    return getattr(kind._item, "_cls", None)


def values(kind: Any) -> st.SearchStrategy[Any]:
    if id(kind) in _PLAIN:
        return _PLAIN[id(kind)]
    record = record_of(kind)
    item = instances(record) if record is not None else values(kind._item)
    return st.lists(item, max_size=4).map(tuple)


def instances(cls: type[Any]) -> st.SearchStrategy[Any]:
    return st.builds(cls, **{name: values(kind) for name, kind in cls.layout})


def shown(kind: Any) -> str:
    if id(kind) in _NAMES:
        return _NAMES[id(kind)]
    record = record_of(kind)
    return f"[{record.__name__ if record is not None else _NAMES[id(kind._item)]}]"


def fields(cls: type[Any]) -> str:
    return ", ".join(f"{shown(kind)} {name}" for name, kind in cls.layout) or "–"


@given(st.one_of([instances(cls) for cls in (*REQUESTS, *MESSAGES)]), st.integers(0, 2**32 - 1), st.data())
def test_every_message_survives_the_wire_in_any_pieces(message: Any, request_id: int, data: st.DataObject) -> None:
    encoded = helper_wire.encode(message, request_id)
    cut = data.draw(st.integers(0, len(encoded)))
    reader = codec.FrameReader()
    reader.feed(encoded[:cut])
    first = reader.next()
    assert (first is None) == (cut < len(encoded))
    reader.feed(encoded[cut:])
    frame = first or reader.next()
    assert frame is not None and frame.id == request_id
    decode = helper_wire.decode_request if type(message) in REQUESTS else helper_wire.decode_message
    assert decode(frame) == message
    assert reader.next() is None


@given(st.one_of([instances(cls) for cls in MESSAGES]), st.data())
def test_a_message_cut_short_is_a_wire_error(message: Any, data: st.DataObject) -> None:
    payload = codec.put_fields(message, message.layout)
    if not payload:
        return
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(codec.WireError):
        helper_wire.decode_message(codec.Frame(message.code, 0, payload[:cut]))


@given(st.one_of([instances(cls) for cls in MESSAGES]), st.binary(min_size=1, max_size=9))
def test_fields_of_a_later_version_are_ignored(message: Any, more: bytes) -> None:
    payload = codec.put_fields(message, message.layout)
    assert helper_wire.decode_message(codec.Frame(message.code, 0, payload + more)) == message


@given(st.sampled_from(MESSAGES), st.binary(max_size=200))
def test_garbage_payloads_never_raise_anything_else(cls: type[Any], garbage: bytes) -> None:
    with contextlib.suppress(codec.WireError):
        helper_wire.decode_message(codec.Frame(cls.code, 0, garbage))


def test_bytes_that_are_no_frames_are_refused() -> None:
    reader = codec.FrameReader()
    reader.feed(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(codec.WireError):
        reader.next()


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(codec.WireError, match="250"):
        helper_wire.decode_message(codec.Frame(250, 0, b""))


def test_type_codes_are_unique() -> None:
    codes = [cls.code for cls in (*REQUESTS, *MESSAGES)]
    assert len(set(codes)) == len(codes)


# --- the C program -------------------------------------------------------------------------------------

PROCPRIO = bytes.fromhex("00000001000010920000278b0000038400000001")
_ROW = {"pid": 4242, "handle": 17, "start_ticks": 987654321, "uid": 10123, "oom_score_adj": -5}
GOLDEN: dict[str, tuple[int, Any]] = {
    "Hello": (
        7,
        messages.Hello(
            **{
                **{name: getattr(HELLO, name) for name, _ in HELLO.layout},
                "process_reap": 1,
                "process_mrelease": 0,
                "pidfd_open": 3,
                "capabilities": 9,
                "cpus": 8,
                "uid": 2000,
                "pid": 4711,
                "guardian_pid": 4712,
                "mem_total_kib": 2048 * 1024,
                "now_ns": 123456789012345,
                "realtime_ns": 1700000000123456789,
                "kernel_version": "#1 SMP",
                "machine": "aarch64",
            }
        ),
    ),
    "Signalled": (
        9,
        messages.Signalled(error=3, pid=4242, handle=17, start_ticks=987654321, received_ns=1000, signal_ns=2000),
    ),
    "Exited": (0, messages.Exited(kill_id=9, pid=4242, handle=17, start_ticks=987654321, exit_ns=3000)),
    "Killed": (
        9,
        messages.Killed(
            pid=4242,
            handle=17,
            start_ticks=987654321,
            oom_score_adj=900,
            signal=9,
            method=1,
            reap_error=11,
            reap_calls=5,
            flags=1,
            received_ns=1,
            signal_ns=2,
            reap_begin_ns=3,
            reap_end_ns=4,
            exit_ns=5,
            back_ns=6,
            anon_kib_before=7,
            shmem_kib_before=8,
            swap_kib_before=9,
            rss_kib_before=10,
            anon_kib_after=-1,
            shmem_kib_after=11,
            free_pages_before=12,
            free_pages_after_reap=13,
            free_pages_after_exit=14,
            back_allocatable_ns=15,
            group_members=16,
            group_lost=17,
        ),
    ),
    "Failsafe": (
        0,
        messages.Failsafe(
            reason=1,
            mode=1,
            silent_since_ns=1,
            entered_ns=2,
            left_ns=3,
            packets_handled=4,
            packets_lost=5,
            handed_back=1,
            handback_error=6,
            reregistered=7,
            kills_lost=8,
            kills=(
                types.FailsafeKill(
                    signal_ns=1,
                    pid=2,
                    uid=3,
                    oom_score_adj=900,
                    error=5,
                    rss_kib=6,
                    method=3,
                    reap_error=7,
                    exit_ns=8,
                    name="com.example",
                ),
            ),
        ),
    ),
    "Heartbeat": (
        0,
        messages.Heartbeat(
            t_ns=1,
            registered=2,
            kills=3,
            messages_dropped=4,
            worker_starts=5,
            guardian_pid=6,
            failsafe_active=1,
        ),
    ),
    "ErrorReply": (12, messages.ErrorReply(error=22, request_type=11, text="malformed")),
    "Control": (
        0,
        messages.Control(
            connection=3,
            flags=5,
            pid=100,
            uid=1000,
            gid=1001,
            t_ns=55,
            length=20,
            packet=PROCPRIO,
            processes=(),
        ),
    ),
    "ControlConnection": (
        0,
        messages.ControlConnection(connection=3, event=2, pid=100, uid=1000, gid=1001, t_ns=55),
    ),
    "ProcTable": (
        5,
        messages.ProcTable(
            last=1,
            rows=(types.TableRow(**_ROW, order=99, owner_pid=100, type=1, rss_pages=2048, name="com.example:remote"),),
        ),
    ),
    "Proc": (
        6,
        messages.Proc(
            entries=(
                types.PidEntry(
                    **_ROW,
                    files=(
                        types.PidText(field=3, op=0, error=0, data=b"1 2 3"),
                        types.PidText(field=0, op=1, error=2, data=b""),
                    ),
                ),
            )
        ),
    ),
    "Files": (
        8,
        messages.Files(files=(types.FileText(file=1, op=0, error=0, read_ns=77, data=b"nr_free_pages 5\n"),)),
    ),
}


@pytest.fixture(scope="module")
def golden_bytes() -> dict[str, bytes]:
    """What ``lmk-helper --selftest-encode`` prints, by name."""
    done = subprocess.run([helper_binary(), "--selftest-encode"], check=True, capture_output=True, timeout=30)
    return {name: bytes.fromhex(text) for name, text in map(str.split, done.stdout.decode().splitlines())}


@pytest.mark.parametrize("name", GOLDEN)
def test_both_sides_write_the_same_bytes(name: str, golden_bytes: dict[str, bytes]) -> None:
    request_id, message = GOLDEN[name]
    assert helper_wire.encode(message, request_id) == golden_bytes[name]


PACKETS: dict[str, control_packets.Command] = {
    "target": control_packets.Target(((18432, 0), (23040, 100), (27648, 200))),
    "procprio": control_packets.ProcPrio(4242, 10123, 900),
    "procprio_type": control_packets.ProcPrio(4243, 10124, -800, 1),
    "procs_prio": control_packets.ProcsPrio(
        (control_packets.ProcPrio(4242, 10123, 900, 0), control_packets.ProcPrio(4243, 10124, -800, 1))
    ),
    "procremove": control_packets.ProcRemove(4242),
    "procpurge": control_packets.ProcPurge(),
    "getkillcnt": control_packets.GetKillCount(-1000, 1000),
    "subscribe": control_packets.Subscribe(1),
}


@pytest.mark.parametrize("name", PACKETS)
def test_control_packets_are_the_policys_byte_for_byte(name: str, golden_bytes: dict[str, bytes]) -> None:
    assert control_packets.encode_command(PACKETS[name]) == golden_bytes["lmkd." + name]


@settings(max_examples=40, deadline=None)
@given(instances(requests.Settings))
def test_the_helper_reads_settings_as_sent(wish: requests.Settings) -> None:
    encoded = wish.failsafe_trigger.encode(errors="surrogateescape")
    names = wish.vmstat_names.encode(errors="surrogateescape")
    payload = codec.put_fields(wish, wish.layout)
    done = subprocess.run([helper_binary(), "--selftest-decode"], input=payload, capture_output=True, timeout=30)
    if len(encoded) >= 64 or len(names) >= 1024 or b"\0" in encoded + names or wish.failsafe_mode > 2:
        assert done.stdout == b"bad\n"
        return
    s = wish
    numbers = [s.heartbeat_ms, s.main_priority, s.reaper_priority, s.main_cpus, s.reaper_cpus, s.sample_files]
    numbers += [s.candidates, s.candidate_fields, s.flags, s.reap_timeout_ms]
    head = f"{s.failsafe_ms} {s.failsafe_mode} {s.failsafe_min_adj} {s.failsafe_interval_ms} ["
    middle = " ".join(map(str, numbers)).encode()
    assert done.stdout == head.encode() + encoded + b"] " + middle + b" [" + names + b"]\n"


# --- the document ------------------------------------------------------------------------------------------


def document() -> str:
    return (resources.data_dir("docs") / "helper-protocol.md").read_text()


@pytest.mark.parametrize("cls", (*REQUESTS, *MESSAGES), ids=lambda cls: cls.__name__)
def test_the_document_describes_each_message(cls: type[Any]) -> None:
    assert f"| {cls.code} | {cls.__name__} | {fields(cls)} |" in document()


def test_the_document_describes_records_and_constants() -> None:
    text = document()
    used = {record_of(k) for c in (*REQUESTS, *MESSAGES) for _, k in c.layout if id(k) not in _NAMES}
    used |= {record_of(k) for r in used if r for _, k in r.layout if id(k) not in _NAMES}
    for record in used - {None}:
        assert record is not None
        assert f"| {record.__name__} | {fields(record)} |" in text
    for name, row in re.findall(r"^\| (\w+) \| ((?:\d+ [A-Z_]+(?:, )?)+) \|", text, re.MULTILINE):
        assert row == ", ".join(f"{member.value} {member.name}" for member in getattr(types, name))
