"""What came of a cell, and of a matrix; as JSON it is what every output is made from (docs/json.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import attrs

from lmk.ci.judge import Verdict
from lmk.ci.matrix import Cell
from lmk.policy.oom_adj import OOM_SCORE_ADJ_MIN

CI_SCHEMA: Final = 1

#: passed, failed: the policy's doing. infra: the machinery's, after all retries. timeout: over the cell's limit.
Status = Literal["passed", "failed", "infra", "timeout"]
#: Of kills in a failure message: enough to see the pattern.
_KILLS_SHOWN_MAX: Final = 10


@attrs.frozen(kw_only=True)
class Attempt:
    """A try that the machinery spoilt: ``kind`` names whose fault (target, infra, disturbed), ``cause`` what."""

    kind: str
    cause: str


@attrs.frozen(kw_only=True)
class CellResult:
    """One cell in one repeat of the matrix."""

    cell: Cell
    repeat: int
    status: Status
    #: Wall time, retries included.
    seconds: float
    #: JSON objects of the runs, the scenario as written first; empty unless passed or failed.
    runs: Sequence[Mapping[str, Any]] = ()
    verdicts: Sequence[Verdict] = ()
    spoilt: Sequence[Attempt] = ()
    cause: str = ""

    @property
    def failures(self) -> list[str]:
        """One line for each expectation not met and each metric worse than its baseline; kills named."""
        found = [self._expectation(verdict) for verdict in self.expectations if not verdict["met"]]
        found += [_worse(verdict) for verdict in self.verdicts if verdict.worse]
        return found or ([self.cause] if self.cause else [])

    @property
    def expectations(self) -> Sequence[Mapping[str, Any]]:
        """The scenario's own, judged on the scenario as written."""
        return self.runs[0]["summary"]["expectations"] if self.runs else ()

    def _expectation(self, verdict: Mapping[str, Any]) -> str:
        text = f"{verdict['name']}: {_number(verdict['observed'])}, expected {limit_text(verdict['limit'])}"
        kills = offending_kills(verdict["name"], self.runs[0]["kills"], verdict["limit"])
        named = [kill_text(kill) for kill in kills[:_KILLS_SHOWN_MAX]]
        more = len(kills) - len(named)
        return "\n".join([text, *(f"  {line}" for line in named), *([f"  and {more} more"] if more else [])])


def offending_kills(
    name: str, kills: Sequence[Mapping[str, Any]], limit: Mapping[str, float | None]
) -> list[Mapping[str, Any]]:
    """The kills that an expectation called ``name`` is about."""
    lowest = limit.get("min")
    match name:
        case "kills":
            return list(kills)
        case "kernel_oom_kills":
            return [kill for kill in kills if kill["killer"] == "kernel_oom"]
        case "foreground_kills":
            return _between(kills, OOM_SCORE_ADJ_MIN, 0)
        case "perceptible_kills":
            return _between(kills, 1, 250)
        case "min_kill_adj" if lowest is not None:
            return _between(kills, OOM_SCORE_ADJ_MIN, int(lowest) - 1)
    return []


def _between(kills: Sequence[Mapping[str, Any]], low: int, high: int) -> list[Mapping[str, Any]]:
    return [kill for kill in kills if kill["oom_score_adj"] is not None and low <= kill["oom_score_adj"] <= high]


def kill_text(kill: Mapping[str, Any]) -> str:
    """``25.67 s com.example.camera (adj 910, cached) by lmk: low watermark is breached``."""
    at_s = f"{kill['t_ms'] / 1000:.2f} s " if kill["t_ms"] is not None else ""
    name = kill["name"] or f"pid {kill['pid']}"
    why = f": {kill['reason']}" if kill["reason"] else ""
    return f"{at_s}{name} (adj {kill['oom_score_adj']}, {kill['tier']}) by {kill['killer']}{why}"


def limit_text(limit: Mapping[str, float | None]) -> str:
    """``at least 3``, ``at most 0``, ``3 to 5``."""
    low, high = limit.get("min"), limit.get("max")
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    return f"at least {low:g}" if low is not None else f"at most {high:g}"


def _worse(verdict: Verdict) -> str:
    return (
        f"{verdict.metric}: {_number(verdict.observed)}, baseline {_number(verdict.baseline)}, "
        f"limit {_number(verdict.limit)}"
    )


def _number(value: float | None) -> str:
    if value is None:
        return "nothing"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"


def to_json(result: CellResult) -> dict[str, Any]:
    """The stable form of one cell's result."""
    return {
        **attrs.asdict(result.cell),
        "key": result.cell.key,
        "repeat": result.repeat,
        "status": result.status,
        "seconds": round(result.seconds, 2),
        "records": [run["record"] for run in result.runs if run["record"] is not None],
        "failures": result.failures,
        "expectations": list(result.expectations),
        "baseline": [attrs.asdict(verdict) for verdict in result.verdicts],
        "spoilt": [attrs.asdict(attempt) for attempt in result.spoilt],
    }


def exit_code(results: Sequence[CellResult]) -> int:
    """1 if the policy failed anywhere; else 3 if the machinery kept a cell from being judged; else 0."""
    states = {result.status for result in results}
    if "failed" in states:
        return 1
    return 3 if states & {"infra", "timeout"} else 0
