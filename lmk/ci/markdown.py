"""The summary a person reads first, in the Markdown that GitHub and GitLab show: failures on top, then every cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lmk.ci.result import CellResult, exit_code

_WORD: Final = {"passed": "passed", "failed": "**FAILED**", "infra": "not judged", "timeout": "over its time"}
#: Below GitHub's megabyte for a step's summary, whatever the matrix.
_FAILURES_MAX: Final = 50


def summary_markdown(name: str, results: Sequence[CellResult]) -> str:
    """The whole text; ``name`` is the matrix's."""
    lines = [f"## lmk ci: {name}", "", headline(results), ""]
    bad = [result for result in results if result.status != "passed"]
    for result in bad[:_FAILURES_MAX]:
        lines += [f"### {_title(result)}: {_WORD[result.status]}", "", "```text", *result.failures, "```", ""]
    if len(bad) > _FAILURES_MAX:
        lines += [f"and {len(bad) - _FAILURES_MAX} more.", ""]
    retried = [(result, attempt) for result in results for attempt in result.spoilt]
    if retried:
        lines += ["Tried again for the machinery's sake:", ""]
        lines += [f"- {_title(result)}: {attempt.kind} ({_cell(attempt.cause)})" for result, attempt in retried]
        lines.append("")
    lines += _table(results)
    return "\n".join(lines) + "\n"


def headline(results: Sequence[CellResult]) -> str:
    """``13 cells: 12 passed, 1 failed.``"""
    states = [result.status for result in results]
    parts = [f"{states.count('passed')} passed"]
    parts += [f"{states.count('failed')} failed"] if "failed" in states else []
    parts += [f"{states.count('infra')} not judged (machinery)"] if "infra" in states else []
    parts += [f"{states.count('timeout')} over their time"] if "timeout" in states else []
    verdict = ("good", "the policy failed", "", "not everything could be judged")[exit_code(results)]
    return f"{len(states)} cells: {', '.join(parts)}. {verdict.capitalize()}."


def _title(result: CellResult) -> str:
    cell = result.cell
    again = f" (repeat {result.repeat + 1})" if result.repeat else ""
    return f"{cell.scenario} on {cell.config}, {cell.policy}, {cell.target} {cell.kernel}{again}"


def _table(results: Sequence[CellResult]) -> list[str]:
    lines = [
        "| config | scenario | policy | target | result | kills | not cached | cold starts | PSI full ms |",
        "|---|---|---|---|---|---:|---:|---:|---:|",
    ]
    for result in results:
        cell = result.cell
        figures = ["-"] * 4
        if result.runs:
            summary = result.runs[0]["summary"]
            shown = summary["foreground_kills"] + summary["perceptible_kills"]
            figures = [str(x) for x in (summary["kills"], shown, summary["cold_starts"], summary["psi_full_ms"])]
        words = [cell.config, cell.scenario, cell.policy, f"{cell.target} {cell.kernel}", _WORD[result.status]]
        lines.append(f"| {' | '.join([*map(_cell, words), *figures])} |")
    return lines


def _cell(text: str) -> str:
    """Text that cannot end a table's cell."""
    return text.replace("|", "\\|").replace("\n", " ")
