"""The app runner beside the policy: started, followed and ended on a thread of its own.

It needs the control socket to be served while it starts its base load, so it cannot run before the engine's loop;
and its events must not wait behind decisions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from lmk.config.timeline import Timeline
from lmk.device.apprunner import AppEvent, AppRunner
from lmk.errors import LmkError
from lmk.record.schema import EventRow
from lmk.record.writer import RecordWriter

_POLL_S = 0.2
#: A timeline that is over by so much without a word is a runner that is stuck.
_GRACE_S = 90.0


class AppDriver:
    """Runs one timeline; ``outcome`` says whether and how it ended. ``on_started`` is told, on the runner's thread,
    at which device time (ns) the scenario began."""

    def __init__(
        self,
        runner: AppRunner,
        timeline: Timeline,
        writer: RecordWriter,
        on_event: Callable[[AppEvent], None] = lambda _: None,
        on_started: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._runner = runner
        self._timeline = timeline
        self._writer = writer
        self._on_event = on_event
        self._on_started = on_started
        self._stop = threading.Event()
        self._error: LmkError | None = None
        self._over = threading.Event()
        self.zero_ns: int | None = None
        self.done_ns: int | None = None
        self._thread = threading.Thread(target=self._run, name="apps", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def outcome(self) -> str | None:
        """None while the timeline runs; why it is over afterwards. Raises what went wrong."""
        if self._error is not None:
            raise self._error
        return "the scenario ended" if self._over.is_set() else None

    def close(self, timeout_s: float = 30.0) -> None:
        """End the apps and the runner. Never raises: a lost device has no apps left to end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._runner.close()

    def _run(self) -> None:
        try:
            started = self._runner.start(self._timeline)
            self.zero_ns = started.t_ns
            self._writer.meta({"zero_ns": started.t_ns})
            self._on_started(started.t_ns)
            self._follow()
            self._over.set()
            self._stop.wait()
            for event in self._runner.stop():
                self._note(event)
        except LmkError as error:
            self._error = error

    def _follow(self) -> None:
        limit_s = self._timeline.duration_ms / 1000 + _GRACE_S
        for event in self._runner.events(timeout_s=limit_s):
            self._note(event)
            if event.kind == "done":
                self.done_ns = event.t_ns
            if self._stop.is_set():
                return

    def _note(self, event: AppEvent) -> None:
        self._writer.app_event(EventRow(t_ns=event.t_ns, kind=event.kind, body=event.body))
        self._on_event(event)
