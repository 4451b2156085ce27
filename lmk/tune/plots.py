"""Pictures of a search: the Pareto front, and heat maps. Numbers in, PNG files out; the only importer of matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import attrs
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lmk.tune.goals import Goals, mean
from lmk.tune.verdict import COMPLETE, Trial

_DPI = 120
_WORDS = {"ms": "ms", "kib": "KiB"}
#: Values are written into the squares of a heat map up to so many.
_SQUARES_MAX = 150
#: Longer words under a column are tilted.
_UPRIGHT_MAX = 6


def label(metric: str) -> str:
    """A figure's name for an axis: ``psi full (ms)``."""
    words, _, unit = metric.rpartition("_")
    return f"{words.replace('_', ' ')} ({_WORDS[unit]})" if unit in _WORDS else metric.replace("_", " ")


def draw_front(
    path: Path, trials: Sequence[Trial], front: Sequence[Trial], chosen: Trial | None, goals: Goals, title: str
) -> None:
    """Every complete trial by its means of the objectives, each pair of them in a picture of its own."""
    pairs = list(combinations(goals.names, 2)) or [(goals.names[0], goals.names[0])]
    figure = Figure(figsize=(6.4 * len(pairs), 4.8), layout="constrained")
    for index, (across, up) in enumerate(pairs):
        axes = figure.add_subplot(1, len(pairs), index + 1)
        done = [trial for trial in trials if trial.state == COMPLETE and trial.same_as is None]
        numbered = across == up  # of one objective: against the order of the search
        _scatter(axes, [t for t in done if t.broken], across, up, numbered, "x", "0.65", "breaks a constraint", 30)
        _scatter(axes, [t for t in done if not t.broken], across, up, numbered, "o", "tab:blue", "tried", 24)
        if len(goals.names) == 2:
            line = sorted((_at(trial, across), _at(trial, up)) for trial in front)
            axes.plot([x for x, _ in line], [y for _, y in line], color="tab:orange", lw=1, zorder=1)
        _scatter(axes, list(front), across, up, numbered, "o", "tab:orange", "front", 40)
        _scatter(axes, list(trials[:1]), across, up, numbered, "s", "black", "stock", 60)
        if chosen is not None:
            _scatter(axes, [chosen], across, up, numbered, "*", "tab:red", f"chosen: trial {chosen.number}", 150)
        axes.set_xlabel("trial" if numbered else label(across))
        axes.set_ylabel(label(up))
        axes.grid(alpha=0.3)
        if index == 0:
            axes.legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=_DPI)


def _scatter(
    axes: Axes,
    trials: Sequence[Trial],
    across: str,
    up: str,
    numbered: bool,
    marker: str,
    color: str,
    name: str,
    size: float,
) -> None:
    if trials:
        xs = [float(trial.number) if numbered else _at(trial, across) for trial in trials]
        ys = [_at(trial, up) for trial in trials]
        axes.scatter(xs, ys, marker=marker, c=color, label=name, s=size, zorder=3)


def _at(trial: Trial, metric: str) -> float:
    return mean(trial.runs, metric) or 0.0


@attrs.frozen(kw_only=True)
class HeatMap:
    """Squares: ``values[row][column]`` colours them (darker for more, None left blank), ``texts`` stand in them."""

    values: Sequence[Sequence[float | None]]
    texts: Sequence[Sequence[str]]
    columns: Sequence[str]
    rows: Sequence[str]
    across: str
    up: str
    #: What the colours mean.
    scale: str
    title: str
    #: Row and column of the square that is framed.
    stock: tuple[int, int] | None = None


def draw_heat_map(path: Path, heat: HeatMap) -> None:
    """One picture of one heat map."""
    numbers = [[float("nan") if value is None else value for value in line] for line in heat.values]
    widest = max((len(text) for text in heat.rows), default=0)
    width = 0.85 * len(heat.columns) + 0.09 * widest + 2
    figure = Figure(figsize=(max(4.5, width), max(2.6, 0.42 * len(heat.rows) + 1.8)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(numbers, cmap=mpl.colormaps["viridis_r"], aspect="auto")
    tilted = max(map(len, heat.columns)) > _UPRIGHT_MAX
    axes.set_xticks(range(len(heat.columns)), heat.columns)
    if tilted:
        for text in axes.get_xticklabels():
            text.set(rotation=40, ha="right")
    axes.set_yticks(range(len(heat.rows)), heat.rows)
    axes.set_xlabel(heat.across)
    axes.set_ylabel(heat.up)
    if len(heat.columns) * len(heat.rows) <= _SQUARES_MAX:
        _write_squares(axes, heat)
    if heat.stock is not None:
        y, x = heat.stock
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="tab:red", lw=2))
    figure.colorbar(image, label=heat.scale)
    axes.set_title(heat.title, fontsize=9)
    figure.savefig(path, dpi=_DPI)


def _write_squares(axes: Axes, heat: HeatMap) -> None:
    known = [value for line in heat.values for value in line if value is not None]
    middle = (min(known) + max(known)) / 2 if known else 0.0
    for y, line in enumerate(heat.texts):
        for x, text in enumerate(line):
            value = heat.values[y][x]
            color = "white" if value is not None and value > middle else "black"
            axes.text(x, y, text, ha="center", va="center", color=color, fontsize=8)


def short(value: float | None) -> str:
    """A mean that fits into a square."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"
