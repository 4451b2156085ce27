"""The policy that leaves killing to the kernel: lmkd's socket and table, but nobody wakes it to kill.

It is lmkd whose pressure monitors and memory events are never armed, so every difference to ``lmkd`` in a
comparison is due to kills.
"""

from __future__ import annotations

from collections.abc import Sequence

from lmk.policy.api import (
    ArmPsi,
    ArmVmpressure,
    Disarm,
    MemoryEventSupport,
    OpenMemoryEvents,
    ProcessRow,
    Request,
)
from lmk.policy.lmkd.policy import LmkdPolicy
from lmk.policy.lmkd.versions import BASELINE


class NonePolicy:
    """See ``lmk.policy.api.Policy``; ``release`` selects the socket protocol."""

    name = "none"

    def __init__(self, release: str = BASELINE) -> None:
        self._lmkd = LmkdPolicy(release)

    def start(self, now_ns: int) -> Request:
        """The first request."""
        return self._unarmed(self._lmkd.start(now_ns), now_ns)

    def step(self, answer: object, now_ns: int) -> Request:
        """Answer the last request; returns the next one."""
        return self._unarmed(self._lmkd.step(answer, now_ns), now_ns)

    def processes(self) -> Sequence[ProcessRow]:
        """The process table, oom_score_adj descending."""
        return self._lmkd.processes()

    def _unarmed(self, request: Request, now_ns: int) -> Request:
        """Answer every request for a monitor as if it had worked; the next one that is for the device."""
        while isinstance(request, (ArmPsi, ArmVmpressure, Disarm, OpenMemoryEvents)):
            answer = MemoryEventSupport() if isinstance(request, OpenMemoryEvents) else None
            request = self._lmkd.step(answer, now_ns)
        return request
