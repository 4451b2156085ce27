"""The policy without kills asks for everything but monitors."""

from __future__ import annotations

from lmk.policy.api import (
    ArmPsi,
    CheckWritable,
    DescribeMachine,
    DescribeMemcg,
    GetProperties,
    Log,
    Machine,
    Memcg,
    ProbePidfd,
    ReadFile,
    Request,
    SetProperty,
    StartReaper,
    Wait,
)
from lmk.policy.lmkd.policy import LmkdPolicy
from lmk.policy.none import NonePolicy

ANSWERS: dict[type, object] = {
    DescribeMachine: Machine(),
    DescribeMemcg: Memcg(2),
    CheckWritable: False,
    GetProperties: {},
    ProbePidfd: True,
    ReadFile: "",
    StartReaper: True,
    ArmPsi: None,
    Log: None,
    SetProperty: None,
}


def requests_until_wait(policy: LmkdPolicy | NonePolicy) -> list[Request]:
    seen = [policy.start(0)]
    while not isinstance(seen[-1], Wait):
        seen.append(policy.step(ANSWERS[type(seen[-1])], 0))
    return seen


def test_no_monitor_is_armed_and_the_rest_is_lmkds() -> None:
    lmkd, none = requests_until_wait(LmkdPolicy()), requests_until_wait(NonePolicy())
    assert any(isinstance(request, ArmPsi) for request in lmkd)
    assert none == [request for request in lmkd if not isinstance(request, ArmPsi)]
    assert none[-1] == Wait(None)
