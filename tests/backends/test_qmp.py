"""QEMU's control socket, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lmk.backends.qmp import Qmp
from lmk.errors import InfraError
from tests.fakes.qmp_server import FakeQmp

USERNET = (
    "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
    "  TCP[ESTABLISHED]  14       127.0.0.1 41111       10.0.2.15  5555     0     0\r\n"
    "  TCP[HOST_FORWARD]  12       127.0.0.1 35725       10.0.2.15  5555     0     0\r\n"
)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeQmp]:
    with FakeQmp(tmp_path / "q") as server:
        yield server


def test_port_that_qemu_bound_itself(fake: FakeQmp) -> None:
    fake.answers["human-monitor-command"] = {"return": USERNET}
    with Qmp.connect(fake.path) as qmp:
        assert qmp.forwarded_port(5555) == 35725
        with pytest.raises(InfraError, match="forwards no port to the guest's 22"):
            qmp.forwarded_port(22)
    assert fake.commands[0]["execute"] == "qmp_capabilities"


def test_events_between_are_skipped(fake: FakeQmp) -> None:
    fake.events = [{"event": "RESUME", "timestamp": {}}]
    fake.answers["query-status"] = {"return": {"status": "running"}}
    with Qmp.connect(fake.path) as qmp:
        assert qmp.command("query-status") == {"status": "running"}


def test_refusal_carries_qemus_words(fake: FakeQmp) -> None:
    fake.answers["quit"] = {"error": {"class": "GenericError", "desc": "not now"}}
    with Qmp.connect(fake.path) as qmp, pytest.raises(InfraError, match="refused quit: not now"):
        qmp.command("quit")


def test_silence_ends_at_the_deadline(fake: FakeQmp) -> None:
    with Qmp.connect(fake.path) as qmp, pytest.raises(InfraError, match="does not answer"):
        qmp.command("query-status", timeout_s=0.1)


@pytest.mark.parametrize("greeting", [{"hello": 1}, b"garbage\n", b"[1]\n"])
def test_something_else_on_the_socket(fake: FakeQmp, greeting: object) -> None:
    fake.greeting = greeting
    with pytest.raises(InfraError, match="control socket"):
        Qmp.connect(fake.path)


def test_no_socket_at_all(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match="No such file"):
        Qmp.connect(tmp_path / "absent")
