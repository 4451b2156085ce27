"""How long a guest may take: its whole time, and how long it may say nothing."""

from __future__ import annotations

import time

import pytest

from lmk.errors import InfraError
from lmk.kernel.trial import ClockError, clock_checked, console_of


def test_everything_that_was_printed() -> None:
    seen: list[str] = []
    text = console_of(["sh", "-c", "echo one; echo two >&2"], timeout_s=30, silence_s=30, on_line=seen.append)
    assert text == "one\ntwo\n"
    assert seen == ["one", "two"]


def test_one_that_says_nothing_is_ended() -> None:
    began_s = time.monotonic()
    with pytest.raises(InfraError, match="silent for 2 s") as error:
        console_of(["sh", "-c", "echo last words; exec sleep 60"], timeout_s=50, silence_s=2)
    assert time.monotonic() - began_s < 20
    assert error.value.detail == "last words"


def test_one_that_never_stops_talking_is_ended() -> None:
    with pytest.raises(InfraError, match="did not end within 2 s"):
        console_of(["sh", "-c", "while :; do echo on; sleep 0.2; done"], timeout_s=2, silence_s=5)


@pytest.mark.parametrize(("host_s", "right"), [(2.0, True), (2.6, True), (1.6, True), (0.15, False), (26.0, False)])
def test_a_clock_at_another_speed_is_seen(host_s: float, right: bool) -> None:
    times = iter([100.0, 100.0 + host_s])
    seen: list[str] = []
    look = clock_checked(seen.append, lambda: next(times))
    look("[    1.0] ==== clock is not a time")
    look("==== clock 3.50")
    if right:
        look("==== clock 5.51")
    else:
        with pytest.raises(ClockError, match="times the host's"):
            look("==== clock 5.51")
    assert seen[1:] == ["==== clock 3.50", "==== clock 5.51"]
