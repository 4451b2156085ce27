"""Who gets how much of the CPUs."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from lmk.sim.cpus import (
    NICE_BACKGROUND,
    NICE_HIGHEST,
    NICE_NORMAL,
    WHOLE,
    WHOLE_TIME,
    Usage,
    beside,
    demand,
    on_one_cpu,
    shares,
    spread,
)

WEIGHTS = st.sampled_from((NICE_BACKGROUND, NICE_NORMAL, NICE_HIGHEST))


def parts(weights: list[int], cpus: int, turn: int = 0, demands: list[int] | None = None) -> list[Fraction]:
    wanted = demands or [WHOLE_TIME] * len(weights)
    lanes = spread([index % cpus for index in range(len(weights))], weights, wanted, cpus, turn)
    return [Fraction(of, total) for total, of in shares(lanes, weights, wanted, cpus)]


def test_background_work_hardly_slows_what_is_in_front_on_its_cpu() -> None:
    assert parts([NICE_NORMAL, NICE_BACKGROUND], 1) == [Fraction(1024, 1134), Fraction(110, 1134)]


def test_background_work_joins_one_and_the_other_of_those_in_front() -> None:
    turns = [parts([NICE_BACKGROUND, NICE_NORMAL, NICE_NORMAL], 2, turn) for turn in range(6)]
    assert all(turn[0] == Fraction(110, 1134) for turn in turns)
    assert {turn[1:].index(Fraction(1)) for turn in turns} == {0, 1}


@given(
    tasks=st.lists(st.tuples(WEIGHTS, st.booleans()), min_size=1, max_size=12),
    cpus=st.integers(1, 8),
    turn=st.integers(0, 1000),
)
def test_cpus_are_used_up_and_never_more(tasks: list[tuple[int, bool]], cpus: int, turn: int) -> None:
    weights, sleeping = [weight for weight, _ in tasks], [asleep for _, asleep in tasks]
    found = parts(weights, cpus, turn, [0 if asleep else WHOLE_TIME for asleep in sleeping])
    awake = [part for part, asleep in zip(found, sleeping, strict=True) if not asleep]
    assert sum(awake) == min(cpus, len(awake))
    assert all(0 < part <= 1 for part in found)


def used(part: Fraction, cpu_ns: int, wait_ns: int) -> Fraction:
    """Of a CPU, by who computes and waits by turns."""
    return Fraction(cpu_ns) / (cpu_ns / part + wait_ns)


@given(cpu_ns=st.integers(1, 10**6), wait_ns=st.integers(0, 10**6))
def test_who_reads_takes_from_a_busy_cpu_what_it_computes(cpu_ns: int, wait_ns: int) -> None:
    busy, reader = parts([NICE_NORMAL, NICE_NORMAL], 1, demands=[WHOLE_TIME, demand(cpu_ns, wait_ns)])
    assert abs(busy + used(reader, cpu_ns, wait_ns) - 1) < Fraction(1, 250)
    assert busy >= Fraction(1, 2)


@given(readers=st.integers(1, 12), cpus=st.integers(1, 4), cpu_ns=st.integers(1, 10**5), wait_ns=st.integers(0, 10**5))
def test_many_readers_have_no_more_cpus_than_there_are(readers: int, cpus: int, cpu_ns: int, wait_ns: int) -> None:
    demands = [WHOLE_TIME] * cpus + [demand(cpu_ns, wait_ns)] * readers
    found = parts([NICE_NORMAL] * len(demands), cpus, demands=demands)
    total = sum(found[:cpus]) + sum(used(part, cpu_ns, wait_ns) for part in found[cpus:])
    assert total <= cpus + Fraction(readers, WHOLE_TIME)  # what each wants is rounded down


def test_a_stalled_task_that_waits_for_its_cpu_is_some_and_not_full() -> None:
    stalled, busy = Usage(run=1000, stall=1000), Usage(run=1000)
    some, full, _, _, waiting, runs = on_one_cpu([(stalled, (10, 1)), (busy, (10, 9))], 1000)
    assert (some, full, waiting, runs) == (1000, 100, 1000, 1000)


def test_who_has_priority_takes_its_time_from_everybody_there() -> None:
    assert beside(WHOLE, 0, 1000) == WHOLE
    assert Fraction(*reversed(beside(WHOLE, 250, 1000))) == Fraction(3, 4)
    assert Fraction(*reversed(beside((4, 1), 500, 1000))) == Fraction(1, 8)
