"""A simulated and an emulated run of the same plan, side by side: who was killed in both, and how the figures differ.

Pure: JSON objects of two runs in (``lmk.report.summary.run_json``), one JSON object out (docs/json.md). One run a side
says nothing about either's own spread: ``lmk validate`` does that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

BESIDE_SCHEMA: Final = 1
#: Two kills of one app are the same kill if they are no further apart: the time of a launch or two.
WINDOW_MS: Final = 10_000
#: What must be equal for two runs to be of the same plan.
_PLAN: Final = ("config", "scenario", "policy", "seed")


def beside(simulated: Mapping[str, Any], emulated: Mapping[str, Any], *, window_ms: int = WINDOW_MS) -> dict[str, Any]:
    """Both runs' figures and the agreement of their kills. ValueError if they are not of the same plan."""
    for key in _PLAN:
        if simulated[key] != emulated[key]:
            raise ValueError(f"{key} differs: {simulated[key]} simulated, {emulated[key]} emulated")
    return {
        "schema": BESIDE_SCHEMA,
        **{key: simulated[key] for key in _PLAN},
        "calibration": simulated["calibration"],
        "records": {"simulated": simulated["record"], "emulated": emulated["record"]},
        "disturbed": emulated["disturbed"],
        "kills": kill_agreement(simulated["kills"], emulated["kills"], window_ms),
        "figures": figures(simulated["summary"], emulated["summary"]),
    }


def kill_agreement(
    simulated: Sequence[Mapping[str, Any]], emulated: Sequence[Mapping[str, Any]], window_ms: int
) -> dict[str, Any]:
    """Kills matched one to one by the app's name, nearest first, at most ``window_ms`` apart.

    ``f1`` is the harmonic mean of the shares that are matched on either side; None if nobody was killed in either.
    """
    pairs = _pairs(simulated, emulated, window_ms)
    total = len(simulated) + len(emulated)
    there, here = {i for i, _ in pairs}, {j for _, j in pairs}
    return {
        "window_ms": window_ms,
        "simulated": len(simulated),
        "emulated": len(emulated),
        "matched": [
            {"name": emulated[j]["name"], "simulated_t_ms": simulated[i]["t_ms"], "emulated_t_ms": emulated[j]["t_ms"]}
            for i, j in sorted(pairs, key=lambda pair: emulated[pair[1]]["t_ms"])
        ],
        "only_simulated": [_named(kill) for i, kill in enumerate(simulated) if i not in there],
        "only_emulated": [_named(kill) for j, kill in enumerate(emulated) if j not in here],
        "f1": round(2 * len(pairs) / total, 3) if total else None,
    }


def _pairs(
    simulated: Sequence[Mapping[str, Any]], emulated: Sequence[Mapping[str, Any]], window_ms: int
) -> list[tuple[int, int]]:
    """Indices of matched kills. Of equal distances the earlier pair goes first, so that the sides may be exchanged."""
    near = sorted(
        (abs(a["t_ms"] - b["t_ms"]), a["t_ms"] + b["t_ms"], i, j)
        for i, a in enumerate(simulated)
        for j, b in enumerate(emulated)
        if a["name"] == b["name"] and abs(a["t_ms"] - b["t_ms"]) <= window_ms
    )
    pairs: list[tuple[int, int]] = []
    taken_there: set[int] = set()
    taken_here: set[int] = set()
    for _, _, i, j in near:
        if i not in taken_there and j not in taken_here:
            taken_there.add(i)
            taken_here.add(j)
            pairs.append((i, j))
    return pairs


def _named(kill: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": kill["name"], "t_ms": kill["t_ms"], "tier": kill["tier"]}


def figures(simulated: Mapping[str, Any], emulated: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``{name, simulated, emulated, difference_pct}`` per figure; the difference is None where it says nothing."""
    tiers = sorted({*simulated["kills_by_tier"], *emulated["kills_by_tier"]})
    rows = [_figure("kills", simulated["kills"], emulated["kills"])]
    rows += [
        _figure(f"kills: {name}", simulated["kills_by_tier"].get(name, 0), emulated["kills_by_tier"].get(name, 0))
        for name in tiers
    ]
    rows += [_figure(name, simulated[name], emulated[name]) for name in _FIGURES]
    rows += [
        _figure(f"{kind} launch ms, median", simulated["launch_ms"][kind]["p50"], emulated["launch_ms"][kind]["p50"])
        for kind in ("cold", "warm")
    ]
    return rows


_FIGURES: Final = ("kernel_oom_kills", "launches", "cold_starts", "psi_some_ms", "psi_full_ms", "min_mem_available_kib")


def _figure(name: str, simulated: float | None, emulated: float | None) -> dict[str, Any]:
    difference = None
    if simulated is not None and emulated:
        difference = round(100 * (simulated - emulated) / emulated, 1)
    return {"name": name, "simulated": simulated, "emulated": emulated, "difference_pct": difference}
