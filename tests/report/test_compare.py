"""Comparisons: pairs, intervals and verdicts on figures made up for the purpose."""

from __future__ import annotations

from typing import Any

import pytest

from lmk.report.compare import METRICS, Variant, compare


def run(seed: int, *, kills: int = 0, available: int | None = 1000, cold: float | None = 500.0) -> dict[str, Any]:
    summary: dict[str, Any] = dict.fromkeys((metric.name for metric in METRICS), 0)
    summary |= {"kills": kills, "min_mem_available_kib": available}
    summary["kills_by_reason"] = {}
    summary["event_to_signal_us"] = {"p50": None}
    summary["launch_ms"] = {"cold": {"p50": cold}, "warm": {"p95": None}}
    return {
        "scenario": "s",
        "seed": seed,
        "summary": summary,
        "kills": [],
        "calibration": {"name": "published", "class": "published"},
    }


def row(result: dict[str, Any], name: str) -> dict[str, Any]:
    metric = next(metric for metric in result["metrics"] if metric["name"] == name)
    other: dict[str, Any] = metric["others"][0]
    return other


def compared(base: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, Any]:
    return compare([Variant(name="a", runs=base), Variant(name="b", runs=other)])


def test_pairs_take_out_what_seeds_do_to_both() -> None:
    base = [run(seed, kills=10 * seed) for seed in range(1, 6)]
    other = [run(seed, kills=10 * seed + 2 + seed % 2) for seed in range(1, 6)]
    found = row(compared(base, other), "kills")
    assert found["pairs"] == 5
    assert found["difference"] == pytest.approx(2.6)
    # t(4) 2.776 * 0.5477 / sqrt(5)
    assert found["ci95"] == pytest.approx([1.92, 3.28], abs=0.01)
    assert found["verdict"] == "worse"


def test_more_memory_is_better() -> None:
    base = [run(seed, available=1000 + seed) for seed in range(4)]
    other = [run(seed, available=1500 + 2 * seed) for seed in range(4)]
    assert row(compared(base, other), "min_mem_available_kib")["verdict"] == "better"


def test_an_interval_across_zero_shows_nothing() -> None:
    base = [run(seed, kills=5) for seed in range(4)]
    other = [run(seed, kills=5 + (-1) ** seed) for seed in range(4)]
    assert row(compared(base, other), "kills")["verdict"] == "no difference shown"


def test_few_pairs_get_no_interval() -> None:
    found = row(compared([run(1, kills=1)], [run(1, kills=3), run(2, kills=9)]), "kills")
    assert (found["ci95"], found["pairs"], found["difference"]) == (None, 1, 2)
    assert found["verdict"] == "too few pairs (1) for a verdict"


def test_runs_without_the_figure_are_left_out() -> None:
    found = row(compared([run(1, cold=None), run(2)], [run(1), run(2)]), "launch_cold_p50_ms")
    assert found["pairs"] == 1
    assert found["verdict"] == "the same in every pair"
    assert row(compared([run(1)], [run(2)]), "kills")["verdict"] == "nothing to compare"
