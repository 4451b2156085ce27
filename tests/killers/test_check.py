"""A recorded killer beside our policy: who dies and when, on made-up recordings."""

from __future__ import annotations

import attrs
import pytest

from lmk.killers.cases import CASES
from lmk.killers.check import compare
from lmk.killers.trace import Reading, Signal, Trace
from lmk.policy.earlyoom import Limits
from lmk.units import NS_PER_MS, NS_PER_S

CASE = attrs.evolve(CASES[0], earlyoom=Limits())
SCORES = {101: 900, 102: 950, 103: 940, 104: 930, 105: 920}


def meminfo(available_pct: int, swap_pct: int) -> str:
    return (
        f"MemTotal: 1000000 kB\nMemAvailable: {available_pct * 9000} kB\nAnonPages: {(100 - available_pct) * 9000} kB\n"
        f"SwapTotal: 100000 kB\nSwapFree: {swap_pct * 1000} kB\n"
    )


def recording(levels: list[int], signals: tuple[Signal, ...]) -> Trace:
    """One look every 100 ms at so much memory and swap; where both are low, a search and a second look follow."""
    readings: list[Reading] = []
    for index, level in enumerate(levels):
        t_ns = NS_PER_S + index * 100 * NS_PER_MS
        readings.append(Reading(t_ns, "/proc/meminfo", meminfo(level, level)))
        if level <= 10:
            readings.append(Reading(t_ns + NS_PER_MS, "/proc", "1\n" + "".join(f"{pid}\n" for pid in SCORES)))
            for pid, score in SCORES.items():
                stat = f"{pid} (app) S 1 {pid} {pid} 0 -1 0" + " 0" * 14 + " 25000 0\n"
                readings.append(Reading(t_ns + 2 * NS_PER_MS, f"/proc/{pid}/stat", stat))
                readings.append(Reading(t_ns + 2 * NS_PER_MS, f"/proc/{pid}/oom_score", f"{score}\n"))
                readings.append(Reading(t_ns + 2 * NS_PER_MS, f"/proc/{pid}/oom_score_adj", "900\n"))
            readings.append(Reading(t_ns + 3 * NS_PER_MS, "/proc/meminfo", meminfo(level, level)))
    return Trace(tuple(readings), signals, NS_PER_S + len(levels) * 100 * NS_PER_MS)


def test_the_same_victim_in_the_same_second_agrees() -> None:
    real = Signal(NS_PER_S + 404 * NS_PER_MS, 15, pid=102)
    verdict = compare("earlyoom", CASE, recording([14, 13, 12, 11, 9], (real,)))
    assert verdict.agree
    assert verdict.ours[0].pid == 102
    assert verdict.alike == 5


@pytest.mark.parametrize(
    "signals",
    [
        (),
        (Signal(NS_PER_S + 404 * NS_PER_MS, 15, pid=103),),
        (Signal(NS_PER_S + 1_900 * NS_PER_MS, 15, pid=102),),
        (Signal(NS_PER_S, 15, pid=102), Signal(3 * NS_PER_S, 15, pid=103)),
    ],
    ids=["nobody died", "another", "a second later", "one more"],
)
def test_anything_else_differs(signals: tuple[Signal, ...]) -> None:
    assert not compare("earlyoom", CASE, recording([14, 13, 12, 11, 9, *[50] * 30], signals)).agree


def test_a_kill_in_the_last_second_may_be_one_sided() -> None:
    verdict = compare("earlyoom", CASE, recording([14, 13, 12, 11, 9], ()))
    assert verdict.agree and not verdict.ours


def test_a_look_while_it_waited_for_a_death_is_not_taken_for_the_second_look_of_the_next() -> None:
    # Our victim is gone at once, the real one was looked at again first; then memory recovers during the next search.
    first = recording([9], ()).readings
    waiting = Reading(NS_PER_S + 5 * NS_PER_MS, "/proc/meminfo", meminfo(9, 9))
    left = [reading for reading in first if "/102/" not in reading.path]
    second = [attrs.evolve(reading, t_ns=reading.t_ns + 100 * NS_PER_MS) for reading in left]
    second[-1] = attrs.evolve(second[-1], text=meminfo(50, 50))
    after = [Reading(NS_PER_S * 2 + i * NS_PER_S, "/proc/meminfo", meminfo(50, 50)) for i in range(4)]
    real = Signal(NS_PER_S + 4 * NS_PER_MS, 15, pid=102)
    verdict = compare("earlyoom", CASE, Trace((*first, waiting, *second, *after), (real,), 6 * NS_PER_S))
    assert [kill.pid for kill in verdict.ours] == [102]
    assert verdict.agree


def test_nobody_dies_just_above_the_threshold() -> None:
    verdict = compare("earlyoom", CASE, recording([14, 12, 11, 11, 11, 12], ()))
    assert verdict.agree
    assert verdict.ours == ()


def test_there_are_ten_cases_with_candidates_alike() -> None:
    assert len(CASES) == 10
    assert sum(case.below for case in CASES) == 2
    assert len({case.name for case in CASES}) == 10
