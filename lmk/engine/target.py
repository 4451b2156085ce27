"""What the engine needs of a place where processes live: a simulated device, a live one, a recording.

Everything a policy learns or does passes through ``answer``; see ``lmk.policy.api`` for what each request means
and how it is answered.
"""

from __future__ import annotations

from typing import Protocol

import attrs

from lmk.policy.api import Request, Wakeup


@attrs.frozen
class RunOver:
    """Answer to ``Wait`` (and only to it): nothing more will happen; the engine stops."""

    why: str


class Target(Protocol):
    """One device under one policy."""

    def now_ns(self) -> int:
        """The device's monotonic clock; for a wake-up the moment the device itself woke. Never goes backwards."""

    def answer(self, request: Request) -> object:
        """Carry one request out. Raises TargetError when the device is gone."""

    def close(self) -> None:
        """Let go of the device and leave it as it was found. Idempotent; never raises."""


WaitAnswer = Wakeup | RunOver
