"""The one loop around every policy and every target: step, carry out, record.

It holds no rule and no state of its own, so the simulator, a live device and a replay cannot differ in it.
"""

from __future__ import annotations

from typing import Protocol

from lmk.engine.target import RunOver, Target
from lmk.policy.api import Exit, Policy, Request


class Observer(Protocol):
    """Sees every exchange after it happened."""

    def exchanged(self, t_ns: int, request: Request, answer: object) -> None:
        """``t_ns``: device time at which the answer was known."""


def run_policy(policy: Policy, target: Target, observer: Observer) -> str:
    """Drive ``policy`` on ``target`` until the target says it is over or the policy exits; returns why.

    Errors of the target (TargetError) pass through; the caller closes the target.
    """
    carry_out, clock, step, exchanged = target.answer, target.now_ns, policy.step, observer.exchanged
    request = policy.start(clock())
    while not isinstance(request, Exit):
        answer = carry_out(request)
        now_ns = clock()
        exchanged(now_ns, request, answer)
        if isinstance(answer, RunOver):
            return answer.why
        request = step(answer, now_ns)
    exchanged(clock(), request, None)
    return f"the policy exited with code {request.code}"
