"""(B) Closed loop: who dies, when, and what it costs, both sides deciding for themselves. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, Final

import attrs

from lmk.config.timeline import Timeline
from lmk.statistics import deviation, mean, quantile
from lmk.units import NS_PER_MS
from lmk.validate.view import KillView, RunView

TOLERANCE_MS: Final = 2000.0
#: Kills of the same app further apart than this are not the same kill.
_SPREAD_MAX_MS: Final = 10_000.0
F1_LOSS_MAX: Final = 0.10
SHARE: Final = 0.15
DEVIATIONS: Final = 2.0


def matched(first: Sequence[KillView], second: Sequence[KillView], tolerance_ms: float) -> list[float]:
    """Time differences of the kills that both have: by name, each used once, as many as possible."""
    differences = []
    for name in sorted({kill.name for kill in first}):
        ours = sorted(kill.t_ms for kill in first if kill.name == name)
        theirs = sorted(kill.t_ms for kill in second if kill.name == name)
        at = 0
        for t_ms in ours:
            while at < len(theirs) and theirs[at] < t_ms - tolerance_ms:
                at += 1
            if at < len(theirs) and theirs[at] <= t_ms + tolerance_ms:
                differences.append(abs(theirs[at] - t_ms))
                at += 1
    return differences


def f1(first: Sequence[KillView], second: Sequence[KillView], tolerance_ms: float) -> float:
    """Harmonic mean of precision and recall; 1 where neither side kills."""
    if not first and not second:
        return 1.0
    return 2 * len(matched(first, second, tolerance_ms)) / (len(first) + len(second))


def spread_ms(runs: Sequence[RunView]) -> float:
    """How far apart the same kill comes in two emulator runs: nine of ten pairs are closer."""
    apart = [
        difference
        for first, second in combinations(runs, 2)
        for difference in matched(first.kills, second.kills, _SPREAD_MAX_MS)
    ]
    return quantile(apart, 0.9) if apart else 0.0


def oldest_cached(run: RunView, timeline: Timeline) -> list[KillView]:
    """The chance baseline: at each kill of the run, the cached app that was in front longest ago."""
    cached = {p.process_name for p in timeline.processes if p.role == "app" and p.rest == "cached"}
    found = []
    for kill in run.kills:
        living, opened = set[str](), dict[str, None]()
        for event in run.events:
            if (event.t_ns - run.zero_ns) / NS_PER_MS >= kill.t_ms:
                break
            name = str(event.body.get("app"))
            if event.kind == "spawned":
                living.add(name)
            elif event.kind == "died":
                living.discard(name)
            elif event.kind == "launching":
                opened.pop(name, None)
                opened[name] = None
        # The one opened last is in front.
        candidates = [name for name in list(opened)[:-1] if name in living and name in cached]
        if candidates:
            found.append(KillView(t_ms=kill.t_ms, name=candidates[0], tier=kill.tier))
    return found


@attrs.frozen(kw_only=True)
class Figure:
    """One total of a run, on both sides."""

    name: str
    simulator: float
    emulator: float
    emulator_deviation: float

    @property
    def tolerance(self) -> float:
        """The larger of 15 % and two of the emulator's standard deviations."""
        return max(SHARE * abs(self.emulator), DEVIATIONS * self.emulator_deviation)

    @property
    def met(self) -> bool:
        """Whether the simulator is within it."""
        return abs(self.simulator - self.emulator) <= self.tolerance


def figures(real: Sequence[RunView], simulated: Sequence[RunView]) -> list[Figure]:
    """Kills per tier, cold starts and PSI totals."""
    tiers = sorted({name for run in (*real, *simulated) for name in run.kills_by_tier})
    readers: list[tuple[str, Callable[[RunView], float]]] = [("kills", lambda run: float(len(run.kills)))]
    readers += [(f"kills {name}", lambda run, name=name: float(run.kills_by_tier[name])) for name in tiers]  # type: ignore[misc]
    readers += [
        ("cold_starts", lambda run: float(run.cold_starts)),
        ("psi_some_ms", lambda run: run.psi_some_ms),
        ("psi_full_ms", lambda run: run.psi_full_ms),
    ]
    return [
        Figure(
            name=name,
            simulator=mean([read(run) for run in simulated]),
            emulator=mean([read(run) for run in real]),
            emulator_deviation=deviation([read(run) for run in real]),
        )
        for name, read in readers
    ]


def closed_loop_json(real: Sequence[RunView], simulated: Sequence[RunView], timeline: Timeline) -> dict[str, Any]:
    """The tables and their verdict; at least two emulator runs."""
    apart_ms = spread_ms(real)
    tolerance_ms = max(TOLERANCE_MS, apart_ms)
    among = [f1(a.kills, b.kills, tolerance_ms) for a, b in combinations(real, 2)]
    between = [f1(a.kills, b.kills, tolerance_ms) for a in simulated for b in real]
    chance = [f1(oldest_cached(a, timeline), b.kills, tolerance_ms) for a in real for b in real if a is not b]
    rows = figures(real, simulated)
    loss = mean(among) - mean(between) if among else None
    return {
        "runs": {"simulator": len(simulated), "emulator": len(real)},
        "spread_ms": round(apart_ms),
        "tolerance_ms": round(tolerance_ms),
        "f1": {
            "emulator": _spread_of(among),
            "simulator": _spread_of(between),
            "oldest_cached": _spread_of(chance),
            "loss": None if loss is None else round(loss, 3),
            "loss_max": F1_LOSS_MAX,
            "met": loss is not None and loss <= F1_LOSS_MAX,
        },
        "figures": [
            {
                "name": row.name,
                "simulator": round(row.simulator, 1),
                "emulator": round(row.emulator, 1),
                "emulator_sd": round(row.emulator_deviation, 1),
                "tolerance": round(row.tolerance, 1),
                "met": row.met,
            }
            for row in rows
        ],
        "met": loss is not None and loss <= F1_LOSS_MAX and all(row.met for row in rows),
    }


def _spread_of(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"mean": round(mean(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}
