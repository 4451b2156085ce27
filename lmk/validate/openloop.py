"""(A) Open loop: the simulator is given a real run's launches and kills and predicts its curves. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from lmk.statistics import median, quantile, rmse
from lmk.validate.view import FIGURES, Curves, RunView

#: RMSE over the emulator's 5 to 95 % range, median over figures and runs.
TARGET: Final = 0.15
#: And this many times better than a forecast that holds what was at the last kill.
FORECAST_FACTOR: Final = 3.0


@attrs.frozen(kw_only=True)
class CurveError:
    """Errors of one figure over one run, as shares of the emulator's 5 to 95 % range; None where it has no range."""

    figure: str
    simulator: float | None
    #: Each value stays what it was at the last kill.
    forecast: float | None
    #: Another emulator run in the simulator's place, the mean over all others.
    emulator: float | None
    #: The emulator given the same launches and kills as the simulator; None where that was not run.
    repeated: float | None


def curve_errors(
    real: Sequence[RunView], simulated: Sequence[Curves], repeated: Sequence[Curves] = ()
) -> list[CurveError]:
    """For each figure of each run; ``simulated`` are the predictions for ``real``, in its order, ``repeated`` the
    emulator's own ones for the first of ``real``."""
    found = []
    repetitions = [*repeated, *[None] * (len(real) - len(repeated))]
    for run, prediction, again in zip(real, simulated, repetitions, strict=True):
        kill_seconds = [int((kill.t_ms - run.from_ms) / 1000) for kill in run.kills]
        others = [other.curves for other in real if other is not run]
        for figure in FIGURES:
            curve: tuple[float, ...] = getattr(run.curves, figure)
            errors = [share_of_range(curve, getattr(other, figure)) for other in others]
            known = [error for error in errors if error is not None]
            found.append(
                CurveError(
                    figure=figure,
                    simulator=share_of_range(curve, getattr(prediction, figure)),
                    forecast=share_of_range(curve, unchanged(curve, kill_seconds)),
                    emulator=sum(known) / len(known) if known else None,
                    repeated=share_of_range(curve, getattr(again, figure)) if again is not None else None,
                )
            )
    return found


def share_of_range(curve: Sequence[float], other: Sequence[float]) -> float | None:
    """RMSE over the 5 to 95 % range of ``curve``; curves of unequal length are compared as far as both go."""
    length = min(len(curve), len(other))
    if length < 2:
        return None
    span = quantile(curve, 0.95) - quantile(curve, 0.05)
    return rmse(curve[:length], other[:length]) / span if span > 0 else None


def unchanged(curve: Sequence[float], kill_seconds: Sequence[int]) -> list[float]:
    """The forecast: what was in the second of the last kill, or at the beginning."""
    seconds = sorted(set(kill_seconds))
    found = []
    for second in range(len(curve)):
        before = bisect_right(seconds, second) - 1
        found.append(curve[min(len(curve) - 1, max(0, seconds[before]))] if before >= 0 else curve[0])
    return found


def open_loop_json(errors: Sequence[CurveError]) -> dict[str, Any]:
    """The table and its verdict."""
    rows = [_row(figure, [error for error in errors if error.figure == figure]) for figure in FIGURES]
    everything = [error.simulator for error in errors if error.simulator is not None]
    middle = median(everything) if everything else None
    gain = _gain(errors, lambda error: error.simulator)
    floor = [error.repeated for error in errors if error.repeated is not None]
    return {
        "figures": rows,
        "median": _rounded(middle),
        "median_repeated": _rounded(median(floor) if floor else None),
        "target": TARGET,
        "better_than_forecast": _rounded(gain),
        "better_than_forecast_repeated": _rounded(_gain(errors, lambda error: error.repeated)),
        "forecast_target": FORECAST_FACTOR,
        "met": middle is not None and gain is not None and middle <= TARGET and gain >= FORECAST_FACTOR,
    }


def _gain(errors: Sequence[CurveError], get: Callable[[CurveError], float | None]) -> float | None:
    """How many times the forecast is farther off than something else, the median."""
    gains = [error.forecast / own for error in errors if (own := get(error)) and error.forecast is not None]
    return median(gains) if gains else None


def _row(figure: str, errors: Sequence[CurveError]) -> dict[str, Any]:
    def middle(name: str) -> float | None:
        known = [value for error in errors if (value := getattr(error, name)) is not None]
        return _rounded(median(known)) if known else None

    return {
        "figure": figure,
        "simulator": middle("simulator"),
        "forecast": middle("forecast"),
        "emulator": middle("emulator"),
        "repeated": middle("repeated"),
        "runs": len(errors),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
