"""The suggestions hold in the whole daemon: the same wake-up under the suggested property, and one unit less."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.policy.decision import Decision
from lmk.policy.lmkd.params import LmkdParams
from lmk.policy.lmkd.policy import LmkdPolicy
from lmk.policy.lmkd.versions import behaviour
from lmk.policy.whatif import smallest_changes
from tests.policy.small_world import Device

Numbers = Mapping[str, int]


#: What a wake-up that never comes decides.
NOTHING = Decision(strategy="psi", level=0, by_event=True)


def look(tag: str, properties: Mapping[str, int], numbers: Numbers, level: int) -> tuple[Decision, LmkdParams]:
    """The decision 155 ms after the priming event, with these numbers in the kernel's files."""
    props = {f"ro.lmk.{name}": str(value) for name, value in properties.items()}
    device = Device(props=props).event(155, level, k=True, **numbers)
    policy = LmkdPolicy(tag)
    run = device.run(tag, lambda _: policy, until_ms=156)
    decisions = [call.decision for call in run.calls if call.t_ms == 155 and call.decision is not None]
    return decisions[0] if decisions else NOTHING, policy.params


def outcome(decision: Decision, victim: int | None) -> bool:
    """Is the victim killed? Without one: did any rule fire?"""
    return decision.reason != -1 if victim is None else victim in decision.killed_pids


@settings(max_examples=60, deadline=None)
@given(
    tag=st.sampled_from(["12L", "13Q2", "14Q2", "15Q2", "16"]),
    properties=st.fixed_dictionaries(
        {},
        optional={
            "swap_free_low_percentage": st.integers(0, 100),
            "thrashing_limit": st.integers(0, 200),
            "swap_util_max": st.integers(0, 100),
            "stall_limit_critical": st.integers(0, 100),
            "lowmem_min_oom_score": st.integers(201, 1001),
        },
    ),
    numbers=st.fixed_dictionaries(
        {
            "MemFree": st.integers(30_000, 70_000),
            "SwapFree": st.integers(0, 600_000),
            "R": st.integers(0, 800_000),
            "Inactive(file)": st.integers(50_000, 400_000),
        }
    ),
    level=st.sampled_from([1, 1, 1, 2]),
)
def test_the_daemon_agrees(tag: str, properties: dict[str, int], numbers: Numbers, level: int) -> None:
    decision, params = look(tag, properties, numbers, level)
    victim = decision.killed_pids[0] if decision.killed_pids else None
    for change in smallest_changes(decision, params, behaviour(tag)):
        flipped, _ = look(tag, {**properties, change.name: change.new}, numbers, level)
        assert outcome(flipped, victim) != outcome(decision, victim), change
        towards = change.new + (1 if change.new < change.old else -1)
        same, _ = look(tag, {**properties, change.name: towards}, numbers, level)
        assert outcome(same, victim) == outcome(decision, victim), change
