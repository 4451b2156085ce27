"""A simulated and an emulated run side by side."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lmk.report.beside import beside, figures, kill_agreement
from lmk.report.table import beside_tables


def kill(name: str, t_ms: int, tier: str = "cached") -> dict[str, Any]:
    return {"name": name, "t_ms": t_ms, "tier": tier}


def run(*kills: dict[str, Any], **changes: Any) -> dict[str, Any]:
    tiers = [k["tier"] for k in kills]
    summary = {
        "kills": len(kills),
        "kills_by_tier": {name: tiers.count(name) for name in tiers},
        **dict.fromkeys(("kernel_oom_kills", "launches", "cold_starts", "psi_some_ms", "min_mem_available_kib"), 4),
        "psi_full_ms": 0,
        "launch_ms": {kind: {"n": 1, "p50": 100, "p95": 100, "max": 100} for kind in ("cold", "warm")},
    }
    return {
        "config": "phone-2gb",
        "scenario": "app-switching",
        "policy": "lmkd",
        "seed": 1,
        "calibration": None,
        "record": "/runs/x",
        "disturbed": False,
        "kills": list(kills),
        "summary": summary,
        **changes,
    }


def test_kills_match_by_name_nearest_first_and_within_the_window() -> None:
    simulated = [kill("a", 1000), kill("a", 9000), kill("b", 5000)]
    emulated = [kill("a", 8500), kill("c", 5000), kill("b", 16_000)]
    found = kill_agreement(simulated, emulated, 10_000)
    assert found["matched"] == [{"name": "a", "simulated_t_ms": 9000, "emulated_t_ms": 8500}]
    assert [k["t_ms"] for k in found["only_simulated"]] == [1000, 5000]
    assert [k["name"] for k in found["only_emulated"]] == ["c", "b"]
    assert found["f1"] == pytest.approx(2 / 6, abs=0.001)


def test_nobody_killed_is_no_agreement_to_speak_of() -> None:
    assert kill_agreement([], [], 1000)["f1"] is None


kills = st.lists(st.builds(kill, st.sampled_from("abc"), st.integers(0, 60_000)), max_size=8)


@given(kills, kills, st.integers(0, 20_000))
def test_every_kill_is_matched_once_or_listed_and_both_sides_are_treated_alike(
    simulated: list[dict[str, Any]], emulated: list[dict[str, Any]], window_ms: int
) -> None:
    found = kill_agreement(simulated, emulated, window_ms)
    assert len(found["matched"]) + len(found["only_simulated"]) == len(simulated)
    assert len(found["matched"]) + len(found["only_emulated"]) == len(emulated)
    assert all(abs(m["simulated_t_ms"] - m["emulated_t_ms"]) <= window_ms for m in found["matched"])
    assert kill_agreement(emulated, simulated, window_ms)["f1"] == found["f1"]
    assert kill_agreement(emulated, emulated, window_ms)["f1"] in (None, 1.0)


def test_figures_with_their_difference_where_there_is_one() -> None:
    simulated, emulated = run(kill("a", 1), kill("b", 2, "service"))["summary"], run(kill("a", 1))["summary"]
    rows = {row["name"]: row for row in figures(simulated, emulated)}
    assert rows["kills"]["difference_pct"] == 100.0
    assert (rows["kills: service"]["simulated"], rows["kills: service"]["emulated"]) == (1, 0)
    assert rows["kills: service"]["difference_pct"] is None
    assert rows["psi_full_ms"]["difference_pct"] is None


def test_only_runs_of_one_plan_are_put_side_by_side() -> None:
    with pytest.raises(ValueError, match="seed differs: 1 simulated, 2 emulated"):
        beside(run(), run(seed=2))


def test_what_is_shown() -> None:
    shown = io.StringIO()
    Console(file=shown, width=80).print(beside_tables(beside(run(kill("a", 1)), run(kill("a", 2)))))
    assert "1 of 1 simulated and 1 emulated kills (F1 1.0)" in " ".join(shown.getvalue().split())
