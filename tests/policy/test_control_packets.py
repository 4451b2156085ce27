"""The control socket's codec: every command and notification, round trips, garbage."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.policy.lmkd import control_packets as cp

int32 = st.integers(-(1 << 31), (1 << 31) - 1)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
dialects = st.builds(
    cp.Dialect,
    start_monitoring=st.booleans(),
    boot_completed=st.booleans(),
    procs_prio=st.booleans(),
    prockill_rss=st.booleans(),
)
records = st.builds(cp.ProcPrio, int32, int32, int32, int32)
commands = st.one_of(
    st.builds(cp.Target, st.lists(st.tuples(int32, int32), max_size=6).map(tuple)),
    st.builds(cp.ProcPrio, int32, int32, int32, st.none() | int32),
    st.builds(cp.ProcRemove, int32),
    st.just(cp.ProcPurge()),
    st.builds(cp.GetKillCount, int32, int32),
    st.builds(cp.Subscribe, int32),
    st.just(cp.UpdateProps()),
    st.just(cp.StartMonitoring()),
    st.just(cp.BootCompleted()),
    st.builds(cp.ProcsPrio, st.lists(records, min_size=1, max_size=3).map(tuple)),
)
notifications = st.one_of(
    st.builds(cp.KillCountReply, int32),
    st.builds(cp.UpdatePropsReply, int32),
    st.builds(cp.BootCompletedReply, int32),
    st.builds(cp.ProcKill, int32, int32, st.none() | int32),
    st.builds(cp.StateChanged, int32),
    st.builds(
        cp.KillStatistics,
        **dict.fromkeys(("page_faults", "major_faults", "rss_bytes", "cache_bytes", "swap_bytes", "start_ns"), int64),
        **dict.fromkeys(
            (
                "uid",
                "adj",
                "min_adj",
                "free_memory_kib",
                "free_swap_kib",
                "reason",
                "thrashing_pct",
                "max_thrashing_pct",
            ),
            int32,
        ),
        name=st.binary(max_size=127),
    ),
)
NEW = cp.Dialect()
ANDROID_13 = cp.Dialect(start_monitoring=False, boot_completed=False, procs_prio=False, prockill_rss=False)


@given(commands)
def test_commands_survive_the_wire(command: cp.Command) -> None:
    assert cp.decode_command(cp.encode_command(command), NEW) == command


@given(notifications)
def test_notifications_survive_the_wire(notification: cp.Notification) -> None:
    assert cp.decode_notification(cp.encode_notification(notification)) == notification


@given(st.binary(max_size=80), dialects)
def test_garbage_never_raises(data: bytes, dialect: cp.Dialect) -> None:
    assert isinstance(cp.decode_command(data, dialect), cp.Command)
    assert isinstance(cp.decode_notification(data), cp.Notification)


@given(int32, st.binary(max_size=60), dialects)
def test_any_command_code_with_garbage_behind_it(code: int, rest: bytes, dialect: cp.Dialect) -> None:
    decoded = cp.decode_command(struct.pack(">i", code % 14) + rest, dialect)
    assert isinstance(decoded, cp.Command)
    if not isinstance(decoded, cp.Malformed):
        whole = cp.encode_command(decoded)
        sent = (struct.pack(">i", code % 14) + rest)[:52]
        assert sent[: len(whole)] == whole and len(sent) - len(whole) < 4


@given(commands, st.binary(max_size=3))
def test_trailing_odd_bytes_are_ignored(command: cp.Command, tail: bytes) -> None:
    assert cp.decode_command(cp.encode_command(command) + tail, NEW) == command


def test_long_messages_are_cut_to_52_bytes() -> None:
    pairs = tuple((n, n) for n in range(6))
    whole = cp.encode_command(cp.Target(pairs))
    assert len(whole) == cp.PACKET_BYTES_MAX
    assert cp.decode_command(whole + b"\1" * 40, NEW) == cp.Target(pairs)


@pytest.mark.parametrize(
    ("data", "log"),
    [
        (b"", "Wrong control socket read length len=0"),
        (b"\0\0\0", "Wrong control socket read length len=3"),
        (struct.pack(">2i", 0, 5), "Wrong control socket read length cmd=0 len=8"),
        (struct.pack(">3i", 1, 5, 6), "Wrong control socket read length cmd=1 len=12"),
        (struct.pack(">6i", 1, 5, 6, 7, 0, 9), "Wrong control socket read length cmd=1 len=24"),
        (struct.pack(">2i", 3, 1) + b"x", "Wrong control socket read length cmd=3 len=9"),
        (struct.pack(">1i", 6), "Received unexpected command code 6"),
        (struct.pack(">1i", 8), "Received unknown command code 8"),
        (struct.pack(">1i", -1), "Received unknown command code -1"),
        (struct.pack(">1i", 11), "LMK_PROCS_PRIO received invalid packet format"),
        (struct.pack(">6i", 11, 1, 2, 3, 4, 5), "LMK_PROCS_PRIO received invalid packet format"),
    ],
)
def test_refused_packets_say_what_lmkd_logs(data: bytes, log: str) -> None:
    assert cp.decode_command(data, NEW) == cp.Malformed(log)


@pytest.mark.parametrize("code", [9, 10, 11])
def test_later_commands_are_unknown_to_earlier_releases(code: int) -> None:
    packet = struct.pack(">5i", code, 1, 2, 3, 4) if code == 11 else struct.pack(">i", code)
    assert cp.decode_command(packet, ANDROID_13) == cp.Malformed(f"Received unknown command code {code}")
    assert not isinstance(cp.decode_command(packet, NEW), cp.Malformed)


def test_layout_of_the_kill_statistics_packet() -> None:
    packet = cp.encode_notification(
        cp.KillStatistics(
            page_faults=1,
            major_faults=2,
            rss_bytes=3,
            cache_bytes=4,
            swap_bytes=5,
            start_ns=6,
            uid=7,
            adj=8,
            min_adj=9,
            free_memory_kib=10,
            free_swap_kib=11,
            reason=-1,
            thrashing_pct=13,
            max_thrashing_pct=14,
            name=b"com.example" * 20,
        )
    )
    assert len(packet) == 87 + 127
    assert struct.unpack_from(">iq", packet) == (8, 1)
    assert struct.unpack_from(">qii", packet, 44) == (6, 7, 8)
    assert struct.unpack_from(">iiih", packet, 72) == (-1, 13, 14, 127)
    assert packet[-1:] == b"\0"


def test_numbers_are_narrowed_like_in_c() -> None:
    assert cp.encode_notification(cp.ProcKill(1 << 32 | 5, -1)) == struct.pack(">3i", 6, 5, -1)


def test_malformed_values_cannot_be_sent() -> None:
    with pytest.raises(TypeError, match="no encoding"):
        cp.encode_command(cp.Malformed("x"))
    with pytest.raises(TypeError, match="no encoding"):
        cp.encode_notification(cp.Malformed("x"))
