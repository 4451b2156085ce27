"""HelperStream against a scripted peer: answers, events, deadlines, ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.device import helper_wire
from lmk.device.helper import HelperStream, RequestRefusedError
from lmk.device.helper_messages import (
    Armed,
    Done,
    ErrorReply,
    Exited,
    Heartbeat,
    Killed,
    Message,
    ProcTable,
    Signalled,
)
from lmk.device.helper_requests import Arm, GetTable, Kill, Log, Request
from lmk.device.helper_types import TableRow, TableWhich
from lmk.errors import DeviceLostError, HelperError
from tests.fakes.helper_peer import HELLO, HelperPeer

BEAT = Heartbeat(t_ns=1, registered=0, kills=0, messages_dropped=0, worker_starts=1, guardian_pid=2, failsafe_active=0)
SIGNALLED = Signalled(error=0, pid=5, handle=1, start_ticks=9, received_ns=1, signal_ns=2)
KILLED = Killed(**{name: 1 for name, _ in Killed.layout})
ROW = TableRow(
    pid=5, handle=0, start_ticks=1, uid=2, oom_score_adj=3, order=0, owner_pid=0, type=0, rss_pages=4, name="x"
)


def test_events_and_answers_are_told_apart() -> None:
    def answer(request: Request) -> Sequence[Message]:
        peer.push(BEAT)
        return [Armed(slot=3, error=22)]

    with HelperPeer(answer) as peer, HelperStream(peer.host_socket, "token") as stream:
        assert stream.hello == HELLO
        assert stream.request(Arm(slot=3, text="x"), Armed).error == 22
        assert stream.has_events
        received = stream.next_event(0)
        assert received is not None and received.message == BEAT
        assert stream.next_event(0) is None


def test_killed_is_an_event_even_in_one_read_with_the_answer() -> None:
    def answer(request: Request) -> Sequence[Message]:
        peer.push_bytes(
            helper_wire.encode(SIGNALLED, 2)
            + helper_wire.encode(Exited(kill_id=2, pid=5, handle=1, start_ticks=9, exit_ns=3))
            + helper_wire.encode(KILLED, 2)
        )
        return []

    with HelperPeer(answer) as peer, HelperStream(peer.host_socket, "token") as stream:
        kill_id = stream.post(Kill(pid=5, start_ticks=9))
        assert stream.answer(kill_id) == SIGNALLED
        kinds = [(received.id, type(received.message)) for received in iter(lambda: stream.next_event(0.1), None)]
        assert kinds == [(0, Exited), (kill_id, Killed)]


def test_answers_may_overtake_each_other() -> None:
    with HelperPeer() as peer, HelperStream(peer.host_socket, "token") as stream:
        first, second = stream.post(Arm(slot=1, text="x")), stream.post(Arm(slot=2, text="x"))
        peer.push(Armed(slot=2, error=0), second)
        peer.push(Armed(slot=1, error=0), first)
        assert stream.answer(first) == Armed(slot=1, error=0)
        assert stream.answer(second) == Armed(slot=2, error=0)


def test_a_refusal_and_a_wrong_answer_are_helper_errors() -> None:
    replies: list[Message] = [ErrorReply(error=22, request_type=3, text="malformed"), Done(op=0, error=0)]
    with HelperPeer(lambda _: [replies.pop(0)]) as peer, HelperStream(peer.host_socket, "token") as stream:
        with pytest.raises(RequestRefusedError, match="malformed") as caught:
            stream.request(Arm(slot=1, text="x"), Armed)
        assert caught.value.errno == 22
        with pytest.raises(HelperError, match="answered Arm with Done"):
            stream.request(Arm(slot=1, text="x"), Armed)


def test_a_table_in_parts() -> None:
    parts: list[Message] = [
        ProcTable(last=0, rows=(ROW, ROW)),
        ProcTable(last=0, rows=()),
        ProcTable(last=1, rows=(ROW,)),
    ]
    with HelperPeer(lambda _: parts) as peer, HelperStream(peer.host_socket, "token") as stream:
        assert stream.table(TableWhich.ALL) == (ROW, ROW, ROW)
        assert peer.requests[1:] == [GetTable(which=1)]


def test_every_wait_has_an_end() -> None:
    with HelperPeer() as peer, HelperStream(peer.host_socket, "token") as stream:
        started = time.monotonic()
        assert stream.next_event(0.05) is None
        assert 0.04 < time.monotonic() - started < 2
        with pytest.raises(DeviceLostError, match="no answer in time"):
            stream.request(Arm(slot=1, text="x"), Armed, timeout_s=0.05)
        assert time.monotonic() - started < 5


def test_a_long_wait_gives_signs_of_life() -> None:
    with HelperPeer() as peer, HelperStream(peer.host_socket, "token") as stream:
        pings = _count_pings(peer)
        assert stream.next_event(1.3) is None
        assert 2 <= len(pings) <= 6


def _count_pings(peer: HelperPeer) -> list[Request]:
    seen: list[Request] = []
    original = peer._replies

    def counting(request: Request) -> Sequence[Message]:
        seen.append(request)
        return original(request)

    peer._replies = counting  # type: ignore[method-assign]
    return seen


def test_hanging_up_is_a_lost_device() -> None:
    with HelperPeer() as peer, HelperStream(peer.host_socket, "token") as stream:
        threading.Timer(0.05, peer.close).start()
        with pytest.raises(DeviceLostError, match="hung up"):
            stream.next_event(10)


def test_an_error_without_request_is_raised_where_it_is_read() -> None:
    with HelperPeer() as peer, HelperStream(peer.host_socket, "token") as stream:
        peer.push(ErrorReply(error=16, request_type=1, text="another host controls this helper"))
        with pytest.raises(HelperError, match="another host"):
            stream.next_event(10)


def test_an_error_does_not_hold_up_what_came_with_it() -> None:
    with HelperPeer() as peer, HelperStream(peer.host_socket, "token") as stream:
        error = helper_wire.encode(ErrorReply(error=22, request_type=0, text="x"))
        peer.push_bytes(error + error + helper_wire.encode(BEAT))
        for _ in range(2):
            with pytest.raises(HelperError, match="errno 22"):
                stream.next_event(10)
        received = stream.next_event(0)
        assert received is not None and received.message == BEAT


def test_another_protocol_version_is_refused() -> None:
    class Later(HelperPeer):
        def _replies(self, request: Request) -> Sequence[Message]:
            return [attrs.evolve(HELLO, version=2)]

    with Later() as peer, pytest.raises(HelperError, match="protocol 2"):
        HelperStream(peer.host_socket, "token")


def test_garbage_from_the_device_is_a_helper_error() -> None:
    with HelperPeer() as peer, HelperStream(peer.host_socket, "token") as stream:
        peer.push_bytes(b"\xff" * 100)
        with pytest.raises(HelperError, match="not the helper protocol"):
            stream.next_event(10)


def test_requests_without_answer_have_id_zero() -> None:
    with HelperPeer() as peer, HelperStream(peer.host_socket, "token") as stream:
        stream.send(Log(log_id=0, payload=b"x"))
        peer.push(Done(op=0, error=0), 0)  # a stray answer to it is nobody's event
        assert stream.next_event(0.1) is None
        assert peer.requests[-1] == Log(log_id=0, payload=b"x")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=12))
def test_messages_in_pieces_of_any_size(pieces: list[int]) -> None:
    sent: tuple[Message, ...] = (BEAT, KILLED, BEAT, KILLED)
    data = b"".join(helper_wire.encode(message, number) for number, message in enumerate(sent))
    with HelperPeer() as peer, HelperStream(peer.host_socket, "token") as stream:
        at, found = 0, list[Message]()
        for size in [*pieces, len(data)]:
            if at < len(data):
                peer.push_bytes(data[at : at + size])
            at += size
            while (received := stream.next_event(0)) is not None:
                found.append(received.message)
        assert found == list(sent)
