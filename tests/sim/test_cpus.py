"""Who gets how much of the CPUs."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lmk.sim.cpus import NICE_BACKGROUND, NICE_HIGHEST, NICE_NORMAL, Usage, on_one_cpu, shares

WEIGHTS = st.sampled_from((NICE_BACKGROUND, NICE_NORMAL, NICE_HIGHEST))


def parts(weights: list[int], cpus: int, sleeping: list[bool] | None = None) -> list[Fraction]:
    return [Fraction(of, total) for total, of in shares(weights, sleeping or [False] * len(weights), cpus)]


def test_background_work_hardly_slows_what_is_in_front() -> None:
    front, kswapd, behind = parts([NICE_NORMAL, NICE_NORMAL, NICE_BACKGROUND], 2)
    assert front == kswapd == Fraction(2 * 1024, 2 * 1024 + 110)
    assert behind == Fraction(2 * 110, 2 * 1024 + 110)


def test_nobody_has_more_than_one_cpu() -> None:
    assert parts([NICE_HIGHEST, NICE_NORMAL, NICE_NORMAL], 2) == [1, Fraction(1, 2), Fraction(1, 2)]
    assert parts([NICE_NORMAL, NICE_BACKGROUND, NICE_BACKGROUND], 2) == [1, Fraction(1, 2), Fraction(1, 2)]


@given(tasks=st.lists(st.tuples(WEIGHTS, st.booleans()), min_size=1, max_size=12), cpus=st.integers(1, 8))
def test_cpus_are_used_up_and_never_more(tasks: list[tuple[int, bool]], cpus: int) -> None:
    weights, sleeping = [weight for weight, _ in tasks], [asleep for _, asleep in tasks]
    found = parts(weights, cpus, sleeping)
    awake = [part for part, asleep in zip(found, sleeping, strict=True) if not asleep]
    assert sum(awake) == min(cpus, len(awake))
    assert all(0 < part <= 1 for part in found)
    by_weight = sorted(zip(weights, found, strict=True))
    assert all(a[1] <= b[1] for a, b in pairwise(by_weight))


def test_a_stalled_task_that_waits_for_its_cpu_is_some_and_not_full() -> None:
    stalled, busy = Usage(run=1000, stall=1000), Usage(run=1000)
    some, full, _, _, waiting, runs = on_one_cpu([(stalled, (10, 1)), (busy, (10, 9))], 1000, crowded=True)
    assert (some, full, waiting, runs) == (1000, 100, 1000, 1000)
