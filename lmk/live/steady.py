"""A helper stream that survives the loss of what carries it: adb's server, a transport, the helper's worker.

After a loss the helper is in its fail-safe and knows its table and settings. This side connects again, repeats the
settings and triggers, and asks once more what was left without an answer: every request is harmless to repeat, a
kill included, since it names a pidfd.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from lmk.device import helper_messages as m
from lmk.device import helper_requests as r
from lmk.device.helper import REQUEST_TIMEOUT_S, HelperStream
from lmk.device.helper_types import TableRow, TableWhich
from lmk.errors import DeviceLostError, HelperError

_Result = TypeVar("_Result")
_Answer = TypeVar("_Answer")

#: A device that has not come back by then is lost.
RECONNECT_S = 30.0
_PAUSE_S = 0.1


class SteadyStream:
    """A ``lmk.live.target.Stream``. ``connect`` makes one HelperStream after another; ``lost`` counts losses."""

    def __init__(self, connect: Callable[[], HelperStream], *, reconnect_s: float = RECONNECT_S) -> None:
        self._connect = connect
        self._reconnect_s = reconnect_s
        self._stream = connect()
        self._settings: r.Settings | None = None
        self._arms: dict[int, r.Arm] = {}
        self._left: deque[tuple[int, m.Message]] = deque()  # from streams that were lost
        self.lost = 0

    @property
    def settings(self) -> r.Settings | None:
        """What the helper was last told to do."""
        return self._settings

    @property
    def hello(self) -> m.Hello:
        """What the helper said of itself, last time."""
        return self._stream.hello

    def request(self, message: r.Request, answer: type[_Answer], *, timeout_s: float = REQUEST_TIMEOUT_S) -> _Answer:
        """Send and wait for the answer."""
        if isinstance(message, r.Settings):
            self._settings = message
        elif isinstance(message, r.Arm):
            self._arms[message.slot] = message
        return self._steadily(lambda stream: stream.request(message, answer, timeout_s=timeout_s))

    def done(self, message: r.Request, *, timeout_s: float = REQUEST_TIMEOUT_S) -> m.Done:
        """A request that is answered with Done."""
        return self.request(message, m.Done, timeout_s=timeout_s)

    def send(self, message: r.Request) -> None:
        """Send without wanting an answer."""
        if isinstance(message, r.Arm):
            self._arms[message.slot] = message
        self._steadily(lambda stream: stream.send(message))

    def post(self, message: r.Request, *, as_event: bool = False) -> int:
        """Send; the answer comes as an event (or from ``answer``) under the id returned."""
        return self._steadily(lambda stream: stream.post(message, as_event=as_event))

    def next_event(self, timeout_s: float | None) -> tuple[int, m.Message] | None:
        """The next unsolicited message, or None at the time-out."""
        if self._left:
            return self._left.popleft()
        return self._steadily(lambda stream: stream.next_event(0 if self._left else timeout_s))

    def ping(self) -> m.Pong:
        """One round trip."""
        return self._steadily(lambda stream: stream.ping())

    def table(self, which: TableWhich) -> tuple[TableRow, ...]:
        """All registered processes, or all of /proc."""
        return self._steadily(lambda stream: stream.table(which))

    def stop(self, *, handback: bool, timeout_s: float = 30.0) -> None:
        """End the helper; never tries again, and never raises: a lost one ends by itself."""
        try:
            self._stream.done(r.Stop(handback=int(handback)), timeout_s=timeout_s)
        except (DeviceLostError, HelperError):
            return

    def close(self) -> None:
        """Hang up."""
        self._stream.close()

    def __enter__(self) -> SteadyStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _steadily(self, ask: Callable[[HelperStream], _Result]) -> _Result:
        try:
            return ask(self._stream)
        except DeviceLostError as loss:
            self._reconnect(loss)
            return ask(self._stream)

    def _reconnect(self, loss: DeviceLostError) -> None:
        self._stream.close()
        self._left.extend(self._stream.leftovers())
        deadline_s = time.monotonic() + self._reconnect_s
        while True:
            try:
                self._stream = self._connect()
                if self._settings is not None:
                    self._stream.request(self._settings, m.SettingsDone)
                for arm in self._arms.values():
                    self._stream.request(arm, m.Armed)
            except (DeviceLostError, HelperError) as error:
                # A helper whose worker has just died, or that has not seen yet that its host is gone, says no.
                if time.monotonic() > deadline_s:
                    raise loss from error
                time.sleep(_PAUSE_S)
            else:
                self.lost += 1
                return
