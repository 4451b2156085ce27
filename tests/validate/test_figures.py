"""Matching, errors of curves and ranking: by their properties and by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.config.device import load_device_config
from lmk.config.find import find_config
from lmk.config.override import override
from lmk.record.schema import CounterRow
from lmk.units import NS_PER_S
from lmk.validate.closedloop import Figure, f1, figures, matched, spread_ms
from lmk.validate.openloop import curve_errors, open_loop_json, share_of_range, unchanged
from lmk.validate.ranking import SETTINGS, Ranked, ranking_json
from lmk.validate.view import Curves, KillView, RunView, curves

kills = st.lists(
    st.builds(
        KillView,
        t_ms=st.integers(0, 100_000).map(float),
        name=st.sampled_from(["chat", "maps", "game"]),
        tier=st.just("cached"),
    ),
    max_size=12,
)


def flat(value: float, seconds: int = 10) -> Curves:
    curve = tuple(value + second for second in range(seconds))
    return Curves(
        mem_available_kib=curve, swap_used_kib=curve, refault_pages=curve, psi_some_ms=curve, psi_full_ms=curve
    )


def run(*killed: KillView, cold_starts: int = 3, psi: float = 100.0, value: float = 0.0) -> RunView:
    return RunView(
        from_ms=0,
        end_ms=10_000,
        kills=killed,
        cold_starts=cold_starts,
        psi_some_ms=psi,
        psi_full_ms=psi,
        curves=flat(value),
        events=(),
        zero_ns=0,
    )


def kill(t_ms: float, name: str = "chat") -> KillView:
    return KillView(t_ms=t_ms, name=name, tier="cached")


@given(kills, st.integers(0, 5000).map(float))
def test_a_run_matches_itself(some: list[KillView], tolerance_ms: float) -> None:
    assert f1(some, some, tolerance_ms) == 1
    assert matched(some, some, tolerance_ms) == [0.0] * len(some)


@given(kills, kills, st.integers(0, 5000).map(float))
def test_matching_is_symmetric_and_grows_with_the_tolerance(
    first: list[KillView], second: list[KillView], tolerance_ms: float
) -> None:
    found = matched(first, second, tolerance_ms)
    assert len(found) == len(matched(second, first, tolerance_ms))
    assert all(difference <= tolerance_ms for difference in found)
    assert len(found) <= min(len(first), len(second))
    assert len(matched(first, second, tolerance_ms + 1000)) >= len(found)
    assert 0 <= f1(first, second, tolerance_ms) <= 1


def test_matching_takes_each_kill_once_and_as_many_as_possible() -> None:
    # The nearest first would leave 3000 alone.
    assert len(matched([kill(1000), kill(3000)], [kill(2500), kill(4900)], 2000)) == 2
    assert len(matched([kill(1000), kill(1100)], [kill(1050)], 2000)) == 1
    assert matched([kill(1000, "maps")], [kill(1000, "chat")], 2000) == []


def test_spread_is_between_runs() -> None:
    assert spread_ms([run(kill(1000)), run(kill(1500))]) == 500
    assert spread_ms([run(kill(1000)), run()]) == 0


def test_tolerances_are_the_larger_of_share_and_deviations() -> None:
    steady = Figure(name="x", simulator=114, emulator=100, emulator_deviation=1)
    assert steady.met and not Figure(name="x", simulator=116, emulator=100, emulator_deviation=1).met
    assert Figure(name="x", simulator=139, emulator=100, emulator_deviation=20).met
    names = [figure.name for figure in figures([run(kill(1))], [run()])]
    assert names == ["kills", "kills cached", "cold_starts", "psi_some_ms", "psi_full_ms"]


@given(st.lists(st.integers(0, 1000).map(float), min_size=2, max_size=30), st.lists(st.integers(0, 40), max_size=5))
def test_the_forecast_is_right_at_each_kill(curve: list[float], seconds: list[int]) -> None:
    forecast = unchanged(curve, seconds)
    assert len(forecast) == len(curve)
    assert all(forecast[second] == curve[second] for second in seconds if second < len(curve))
    error = share_of_range(curve, curve)
    assert error is None or error == 0


def test_open_loop_verdict() -> None:
    real = [run(kill(1), value=0), run(kill(1), value=4)]
    good = open_loop_json(curve_errors(real, [flat(0), flat(4)]))
    assert good["median"] == 0 and good["figures"][0]["emulator"] == pytest.approx(4 / 8.1, abs=0.001)
    bad = open_loop_json(curve_errors(real, [flat(100), flat(100)]))
    assert not bad["met"] and bad["median"] > 1


def test_curves_hold_levels_and_share_out_growth() -> None:
    rows = [
        CounterRow(t_ns=0, mem_available_kib=100, swap_total_kib=10, swap_free_kib=10, psi_some_us=0),
        CounterRow(t_ns=NS_PER_S // 2, mem_available_kib=90, swap_total_kib=10, swap_free_kib=4, psi_some_us=5000),
        CounterRow(t_ns=5 * NS_PER_S // 2, mem_available_kib=80, swap_total_kib=10, swap_free_kib=2, psi_some_us=9000),
    ]
    found = curves(rows, 0, 3 * NS_PER_S)
    assert list(found.mem_available_kib) == [90, 90, 80]
    assert list(found.swap_used_kib) == [6, 6, 8]
    assert list(found.psi_some_ms) == [5, 0, 4]
    assert list(found.refault_pages) == [0, 0, 0]


def ranked(order: list[float]) -> list[Ranked]:
    """The emulator separates every pair; the simulator has them in this order."""
    return [
        Ranked(
            setting=setting,
            scenario="s",
            real=[run(cold_starts=10 * at, psi=100.0 * at + shift) for shift in (0.0, 1.0, 2.0)],
            simulated=[run(cold_starts=int(order[at]), psi=order[at])],
        )
        for at, setting in enumerate(SETTINGS)
    ]


def test_ranking() -> None:
    count = len(SETTINGS)
    same = ranking_json(ranked([float(at) for at in range(count)]))
    assert same["met"] and [table["spearman"] for table in same["tables"]] == [1, 1]
    assert all(len(table["separated"]) == count * (count - 1) // 2 for table in same["tables"])
    swapped = [float(at) for at in range(count)]
    swapped[0], swapped[1] = swapped[1], swapped[0]
    almost = ranking_json(ranked(swapped))["tables"][0]
    assert almost["spearman"] > 0.8 and len(almost["wrong"]) == 1 and not almost["met"]
    assert not ranking_json([])["met"]


def test_settings_are_taken_by_every_config_that_is_validated() -> None:
    for name in ("phone-2gb", "go-1gb", "phone-4gb"):
        for settings in SETTINGS.values():
            override(load_device_config(find_config(name)), settings)
