"""The heat maps of a sweep: one for each figure of a grid of two settings, else one with all figures side by side."""

from __future__ import annotations

from collections.abc import Sequence

from lmk.config.device import DeviceConfig
from lmk.tune.goals import mean
from lmk.tune.plots import HeatMap, label, short
from lmk.tune.sweep import Sweep, stock_square
from lmk.tune.verdict import Trial


def heat_maps(
    config: DeviceConfig, sweep: Sweep, trials: Sequence[Trial | None], figures: Sequence[str], kind: str
) -> dict[str, HeatMap]:
    """By file name; ``trials``: stock, then one for each point, None where it failed."""
    title = f"{config.name}, calibration {kind}"
    if len(sweep.axes) == 2:
        return {name: _grid(config, sweep, trials[1:], name, title) for name in figures}
    names = ["stock", *(point.name for point in sweep.points)]
    values = [[mean(trial.runs, name) if trial else None for name in figures] for trial in trials]
    return {
        "sweep": HeatMap(
            values=_scaled(values),
            texts=[[short(value) for value in line] for line in values],
            columns=[label(name) for name in figures],
            rows=names,
            across="",
            up="",
            scale="least to most of each column",
            title=title,
        )
    }


def _grid(config: DeviceConfig, sweep: Sweep, trials: Sequence[Trial | None], name: str, title: str) -> HeatMap:
    across, up = sweep.grid
    # The points go through the second setting first.
    values = [
        [mean(trial.runs, name) if (trial := trials[x * len(up) + y]) else None for x in range(len(across))]
        for y in range(len(up))
    ]
    return HeatMap(
        values=values,
        texts=[[short(value) for value in line] for line in values],
        columns=[str(value) for value in across],
        rows=[str(value) for value in up],
        across=sweep.axes[0].name,
        up=sweep.axes[1].name,
        scale=label(name),
        title=title,
        stock=stock_square(config, sweep),
    )


def _scaled(values: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    """Each column from 0 (its least) to 1 (its most); figures of different units share one scale of colours."""
    columns = list(zip(*values, strict=True))
    ends = []
    for column in columns:
        known = [value for value in column if value is not None]
        ends.append((min(known, default=0.0), max(known, default=0.0)))
    return [
        [
            None if value is None else (value - low) / (high - low) if high > low else 0.0
            for value, (low, high) in zip(line, ends, strict=True)
        ]
        for line in values
    ]
