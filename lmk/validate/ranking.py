"""(C) Ranking: do settings come out in the same order on both sides? Tuning needs no more than that. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import attrs

from lmk.statistics import mean, separated_95, spearman
from lmk.validate.view import RunView

SPEARMAN_MIN: Final = 0.8
METRICS: Final = ("cold_starts", "psi_full_ms")

#: What is ranked: settings that a tuner would try, in place of the config's own, far enough apart that windows of less
#: than a minute can tell them apart. Names as for --set.
SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "stock": {},
    "eager": {"ro.lmk.psi_partial_stall_ms": "20", "ro.lmk.psi_complete_stall_ms": "50"},
    "patient": {"ro.lmk.psi_partial_stall_ms": "900", "ro.lmk.psi_complete_stall_ms": "1000"},
    "swap_free_low 60": {"ro.lmk.swap_free_low_percentage": "60"},
    "watermarks 400": {"vm.watermark_scale_factor": "400"},
    "watermarks 1000": {"vm.watermark_scale_factor": "1000"},
}


@attrs.frozen(kw_only=True)
class Ranked:
    """Runs of one setting on one scenario, both sides."""

    setting: str
    scenario: str
    real: Sequence[RunView]
    simulated: Sequence[RunView]


def ranking_json(runs: Sequence[Ranked]) -> dict[str, Any]:
    """Correlation by scenario and metric, and the pairs that are ordered the other way."""
    tables = []
    for scenario in dict.fromkeys(run.scenario for run in runs):
        here = [run for run in runs if run.scenario == scenario and run.real and run.simulated]
        tables += [_table(scenario, metric, here) for metric in METRICS]
    return {
        "settings": {name: dict(values) for name, values in SETTINGS.items()},
        "tables": tables,
        "spearman_min": SPEARMAN_MIN,
        "met": bool(tables) and all(table["met"] for table in tables),
    }


def _table(scenario: str, metric: str, runs: Sequence[Ranked]) -> dict[str, Any]:
    real = {run.setting: [float(getattr(view, metric)) for view in run.real] for run in runs}
    simulated = {run.setting: [float(getattr(view, metric)) for view in run.simulated] for run in runs}
    rho = spearman([mean(v) for v in real.values()], [mean(v) for v in simulated.values()]) if len(runs) > 2 else None
    separated, wrong = [], []
    for first, second in combinations(real, 2):
        if min(len(real[first]), len(real[second])) < 2 or not separated_95(real[first], real[second]):
            continue
        separated.append([first, second])
        really = mean(real[first]) - mean(real[second])
        predicted = mean(simulated[first]) - mean(simulated[second])
        if really * predicted < 0:
            wrong.append([first, second])
    return {
        "scenario": scenario,
        "metric": metric,
        "rows": [
            {
                "setting": run.setting,
                "emulator": [round(value, 1) for value in real[run.setting]],
                "simulator": [round(value, 1) for value in simulated[run.setting]],
            }
            for run in runs
        ],
        "spearman": None if rho is None else round(rho, 3),
        "separated": separated,
        "wrong": wrong,
        "met": rho is not None and rho >= SPEARMAN_MIN and not wrong,
    }
