"""Sort what the loop sees into a run's record: logs, decisions, and every other exchange as a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lmk.engine.loop import Observer
from lmk.policy.api import EventLog, HandlerBegin, HandlerEnd, Log, Request
from lmk.policy.decision import Decision
from lmk.record.schema import LogRow
from lmk.record.writer import RecordWriter

LOG_TAG: Final = "lowmemorykiller"
EVENT_TAG: Final = "killinfo"

# Bookkeeping of the handler wrapper says nothing that a decision or a wait does not.
_UNRECORDED: Final = (HandlerBegin, HandlerEnd)


class RecordingObserver:
    """An ``Observer`` that writes everything to a RecordWriter."""

    def __init__(self, writer: RecordWriter, woke_ns: Callable[[], int | None] = lambda: None) -> None:
        self._writer = writer
        self._woke_ns = woke_ns

    def exchanged(self, t_ns: int, request: Request, answer: object) -> None:
        """See ``lmk.engine.loop.Observer``."""
        if isinstance(request, Log):
            self._writer.log(LogRow(t_ns=t_ns, level=request.level, tag=LOG_TAG, text=request.text))
        elif isinstance(request, EventLog):
            text = "[" + ",".join(str(field) for field in request.fields) + "]"
            self._writer.log(LogRow(t_ns=t_ns, level="I", tag=EVENT_TAG, text=text))
        elif isinstance(request, Decision):
            victim = request.killed_pids[0] if request.killed_pids else None
            self._writer.decision(t_ns, self._woke_ns(), request.reason, victim, request)
        elif not isinstance(request, _UNRECORDED):
            self._writer.step(t_ns, request, answer)


class Observers:
    """Several observers as one, each shown every exchange in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def exchanged(self, t_ns: int, request: Request, answer: object) -> None:
        """See ``lmk.engine.loop.Observer``."""
        for observer in self._observers:
            observer.exchanged(t_ns, request, answer)
