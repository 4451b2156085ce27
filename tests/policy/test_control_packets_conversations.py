"""Conversations on the control socket: several clients, ownership, broken packets, clients that vanish; per version.

Everything goes through the policy, with the packets as bytes; what lmkd itself answered to a thousand such
conversations is in the recordings (``test_vectors``).
"""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmk.policy.lmkd import control_packets as cp
from lmk.policy.lmkd.params import PROPERTY_BY_NAME
from lmk.policy.lmkd.versions import TAGS, tag_index
from lmk.replay.run import lmkd_policy
from tests.policy.small_world import Device, Run

FRAMEWORK = (1200, 1000)
OTHER = (1300, 1000)
VERSIONS = ("11Q3", "12", "13.0", "14.0", "14Q2", "15.0", "15Q1", "16")


def packet(number: int, data: bytes, sender: tuple[int, int] = FRAMEWORK) -> list[Any]:
    return ["pkt", number, data.hex(), list(sender)]


def command(number: int, value: cp.Command, sender: tuple[int, int] = FRAMEWORK) -> list[Any]:
    return packet(number, cp.encode_command(value), sender)


def anonymous(number: int, data: bytes) -> list[Any]:
    """A message without credentials."""
    return ["pkt", number, data.hex(), [-1, 0]]


def converse(tag: str, *events: list[Any], device: Device | None = None, gap_ms: int = 10) -> Run:
    """One event after the other; no pressure, nobody registered beforehand."""
    device = device or Device()
    device.only()
    device.prime = False
    device.script["setup"] = []
    for number, event in enumerate(events):
        device.at(gap_ms * number, event)
    return device.run(tag, lmkd_policy, gap_ms * len(events) + 5)


def rows(run: Run) -> list[tuple[int, int, int]]:
    assert run.policy is not None
    return [(row.pid, row.adj, row.owner_pid) for row in run.policy.processes()]


def sends(run: Run) -> list[tuple[int, cp.Notification]]:
    return [(e[1], cp.decode_notification(bytes.fromhex(e[2]))) for e in run.effects("send")]


# ---- commands and their answers -----------------------------------------------------------------


@pytest.mark.parametrize("tag", VERSIONS)
def test_registration_and_removal(tag: str) -> None:
    run = converse(
        tag,
        ["conn", 0],
        command(0, cp.ProcPrio(1001, 10001, 900)),
        command(0, cp.ProcPrio(1002, 10002, 900, 0)),
        command(0, cp.ProcPrio(1001, 10001, 900)),
        command(0, cp.ProcPrio(1003, 10003, 0)),
        command(0, cp.ProcRemove(1003)),
        command(0, cp.ProcRemove(4711)),
    )
    assert rows(run) == [(1001, 900, 1200), (1002, 900, 1200)]
    written = [effect[1:] for effect in run.effects("write")]
    assert written[0] == ("/proc/1001/oom_score_adj", "900") and len(written) == 4
    assert sends(run) == []


@pytest.mark.parametrize("tag", VERSIONS)
def test_purge_takes_ones_own_and_the_unclaimed(tag: str) -> None:
    run = converse(
        tag,
        ["conn", 0],
        ["conn", 1],
        command(0, cp.ProcPrio(1001, 10001, 900)),
        command(1, cp.ProcPrio(1002, 10002, 800), OTHER),
        command(1, cp.ProcPurge(), OTHER),
    )
    assert rows(run) == [(1001, 900, 1200)]


@pytest.mark.parametrize("tag", VERSIONS)
def test_kill_counts(tag: str) -> None:
    run = converse(
        tag,
        ["conn", 0],
        command(0, cp.GetKillCount(0, 1000)),
        command(0, cp.GetKillCount(10, 5)),
        command(0, cp.GetKillCount(1001, 1001)),
    )
    assert sends(run) == [(0, cp.KillCountReply(0))] * 3


def test_replies_of_the_later_commands() -> None:
    run = converse("16", ["conn", 0], command(0, cp.UpdateProps()), command(0, cp.BootCompleted()))
    assert sends(run) == [(0, cp.UpdatePropsReply(0)), (0, cp.BootCompletedReply(-1))]
    booted = Device(props={PROPERTY_BY_NAME["boot_completed"].full_name: "1"})
    run = converse("16", ["conn", 0], *[command(0, cp.BootCompleted())] * 2, device=booted)
    assert sends(run) == [(0, cp.BootCompletedReply(0)), (0, cp.BootCompletedReply(1))]


def test_batched_registration() -> None:
    batch = cp.ProcsPrio((cp.ProcPrio(1001, 10001, 900, 0), cp.ProcPrio(1002, 10002, 2000, 0)))
    run = converse("16", ["conn", 0], command(0, batch))
    assert rows(run) == [(1001, 900, 1200)]
    assert run.logs()[-1] == "Invalid PROCPRIO oomadj argument 2000"


# ---- several clients ----------------------------------------------------------------------------


@pytest.mark.parametrize("tag", VERSIONS)
def test_a_foreign_record_stays_but_its_process_changes(tag: str) -> None:
    run = converse(
        tag,
        ["conn", 0],
        ["conn", 1],
        command(0, cp.ProcPrio(1001, 10001, 900)),
        command(1, cp.ProcPrio(1001, 10001, 100), OTHER),
        command(1, cp.ProcRemove(1001), OTHER),
    )
    assert rows(run) == [(1001, 900, 1200)]
    assert ("write", "/proc/1001/oom_score_adj", "100") in run.effects("write")
    refusals = [line for line in run.logs() if "registered by another client" in line]
    assert [line.split("attempts to ")[1].split()[0] for line in refusals] == ["modify", "unregister"]


@pytest.mark.parametrize("tag", VERSIONS)
def test_records_of_a_closed_client_go_to_whoever_changes_them(tag: str) -> None:
    run = converse(
        tag,
        ["conn", 0],
        ["conn", 1],
        command(0, cp.ProcPrio(1001, 10001, 900)),
        command(0, cp.ProcPrio(1002, 10002, 800)),
        ["hup", 0],
        command(1, cp.ProcPrio(1001, 10001, 700), OTHER),
    )
    assert rows(run) == [(1002, 800, 0), (1001, 700, 1300)]


@pytest.mark.parametrize("tag", VERSIONS)
def test_a_fourth_client_closes_the_others(tag: str) -> None:
    run = converse(
        tag,
        *[["conn", number] for number in range(4)],
        command(0, cp.GetKillCount(0, 1000)),
        command(3, cp.GetKillCount(0, 1000)),
    )
    assert [effect[1] for effect in run.effects("close")] == [0, 1, 2]
    assert sends(run) == [(3, cp.KillCountReply(0))]


@pytest.mark.parametrize("tag", ["14.0", "16"])
def test_each_subscriber_gets_what_it_asked_for(tag: str) -> None:
    device = Device().process(1001, death=1000)
    run = converse(
        tag,
        *[["conn", number] for number in range(3)],
        command(0, cp.ProcPrio(1001, 10001, 900)),
        command(1, cp.Subscribe(cp.SubscribeEvent.KILL), OTHER),
        command(2, cp.Subscribe(cp.SubscribeEvent.STATISTICS), OTHER),
        ["psi", 2],
        device=device,
    )
    told = [(number, value) for number, value in sends(run) if not isinstance(value, cp.StateChanged)]
    (to_statistics, statistics), (to_kill, kill) = told
    assert (to_statistics, to_kill) == (2, 1)
    assert isinstance(statistics, cp.KillStatistics) and statistics.name == b"app.1001"
    assert kill == cp.ProcKill(1001, 10001, 100_000 if tag == "16" else None)


# ---- broken packets -----------------------------------------------------------------------------

BROKEN = [
    (b"\0", "Wrong control socket read length len=1"),
    (struct.pack(">2i", 1, 1001) + b"\0\0", "Wrong control socket read length cmd=1 len=10"),
    (struct.pack(">7i", 1, 1001, 10001, 900, 0, 0, 0), "Wrong control socket read length cmd=1 len=28"),
    (struct.pack(">2i", 0, 1), "Wrong control socket read length cmd=0 len=8"),
    (struct.pack(">i", 6), "Received unexpected command code 6"),
    (struct.pack(">i", 77), "Received unknown command code 77"),
    (struct.pack(">4i", 1, 1001, 10001, 1001), "Invalid PROCPRIO oomadj argument 1001"),
    (struct.pack(">5i", 1, 1001, 10001, 900, 2), "Invalid PROCPRIO process type argument 2"),
]


@pytest.mark.parametrize("tag", VERSIONS)
@pytest.mark.parametrize(("data", "log"), BROKEN)
def test_broken_packets_are_logged_and_the_client_stays(tag: str, data: bytes, log: str) -> None:
    run = converse(tag, ["conn", 0], packet(0, data), command(0, cp.GetKillCount(0, 1000)))
    assert log in run.logs()
    assert rows(run) == [] and run.effects("close") == []
    assert sends(run) == [(0, cp.KillCountReply(0))]


@pytest.mark.parametrize("tag", VERSIONS)
def test_oversized_messages_are_cut(tag: str) -> None:
    targets = cp.encode_command(cp.Target(tuple((n, n) for n in range(6))))
    run = converse(tag, ["conn", 0], packet(0, targets + bytes(500)))
    assert run.effects("prop") == [("prop", "sys.lmk.minfree_levels", "0:0,1:1,2:2,3:3,4:4,5:5")]


@pytest.mark.parametrize("tag", VERSIONS)
def test_a_message_without_credentials_closes_the_connection(tag: str) -> None:
    run = converse(tag, ["conn", 0], anonymous(0, cp.encode_command(cp.ProcPurge())))
    assert "Failed to retrieve sender credentials" in run.logs()
    assert run.effects("close") == [("close", 0)]


# ---- clients that vanish ------------------------------------------------------------------------


@pytest.mark.parametrize("tag", VERSIONS)
def test_a_client_that_vanishes_mid_packet(tag: str) -> None:
    half = cp.encode_command(cp.ProcPrio(1001, 10001, 900))[:7]
    run = converse(tag, ["conn", 0], packet(0, half), packet(0, b""), ["hup", 0], ["conn", 1])
    assert "Wrong control socket read length cmd=1 len=7" in run.logs()
    assert "Got EOF on control data socket" in run.logs()
    assert [effect for _, effect in run.outside if effect[0] == "close"] == [("close", 0)]
    assert run.logs().count("lmkd data connection established") == 2
    assert rows(run) == []


@pytest.mark.parametrize("tag", VERSIONS)
def test_a_packet_in_the_same_batch_as_the_hang_up_is_lost(tag: str) -> None:
    run = converse(tag, ["conn", 0], ["batch", [["hup", 0], command(0, cp.ProcPrio(1001, 10001, 900))]], ["conn", 1])
    assert rows(run) == []


@pytest.mark.parametrize("tag", ["14.0", "15Q2", "16"])
def test_a_subscriber_that_hangs_up_in_the_batch_of_the_kill_is_told_nothing(tag: str) -> None:
    device = Device().process(1001, death=-1)
    kill = command(0, cp.ProcPrio(1001, 10001, 900))
    poll_first = ["batch", [["hup", 1], ["psi", 2]]]
    run = converse(tag, ["conn", 0], ["conn", 1], kill, command(1, cp.Subscribe(0), OTHER), poll_first, device=device)
    # Hang-ups are handled before the other events of a batch.
    assert run.kills() == [(1, 0, 1001)]
    assert sends(run) == []


@pytest.mark.parametrize("tag", VERSIONS)
def test_a_client_that_comes_and_goes_in_one_batch_harms_nobody(tag: str) -> None:
    fleeting = [["conn", 1], command(1, cp.ProcPrio(1001, 10001, 900)), ["hup", 1]]
    run = converse(tag, ["conn", 0], ["batch", fleeting], command(0, cp.GetKillCount(0, 1000)))
    assert sends(run) == [(0, cp.KillCountReply(0))]
    assert [effect for _, effect in run.outside if effect[0] == "close"] == [("close", 1)]
    assert rows(run) == []  # the kernel tells of the hang-up only, so the message is lost


# ---- any conversation ---------------------------------------------------------------------------

messages = st.one_of(
    st.binary(max_size=60),
    st.tuples(st.integers(-1, 13), st.lists(st.integers(-(1 << 31), (1 << 31) - 1), max_size=13)).map(
        lambda parts: cp.pack_integers([parts[0], *parts[1]])
    ),
    st.builds(
        lambda pid, adj, kind: cp.encode_command(cp.ProcPrio(pid, 10001, adj, kind)),
        st.sampled_from([1001, 1002, 1003, 7, -1]),
        st.integers(-1001, 1001),
        st.sampled_from([None, 0, 1, 2]),
    ),
)
events = st.one_of(
    st.builds(lambda n: ["conn", n], st.integers(0, 4)),
    st.builds(lambda n: ["hup", n], st.integers(0, 4)),
    st.builds(packet, st.integers(0, 4), messages, st.sampled_from([FRAMEWORK, OTHER, (-1, 0)])),
    st.builds(lambda level: ["psi", level], st.integers(0, 2)),
    st.just(["bite"]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tag=st.sampled_from(TAGS), talk=st.lists(events, max_size=25))
def test_no_conversation_breaks_the_policy(tag: str, talk: list[list[Any]]) -> None:
    run = converse(tag, *talk)
    assert run.ended in ("done", "exit")
    assert run.policy is not None
    table = run.policy.processes()
    assert len({row.pid for row in table}) == len(table)
    assert [row.adj for row in table] == sorted((row.adj for row in table), reverse=True)
    if tag_index(tag) < tag_index("15.0"):
        assert not any(isinstance(value, cp.BootCompletedReply) for _, value in sends(run))
