"""What ``lmk replay`` found, as its JSON object and as tables. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

JSON_SCHEMA = 1
_SHOWN_MAX = 12
_LEVELS = {0: "low", 1: "medium", 2: "critical"}
_MARKS = {"exact": "", "sampled": "~", "estimate": "*"}
_ORDER = ("same", "earlier", "later", "other victim", "not killed", "additional")


def summary(kills: list[dict[str, Any]]) -> dict[str, int]:
    """How many kills of each verdict."""
    counts = Counter(kill["verdict"] for kill in kills)
    return {verdict: counts[verdict] for verdict in _ORDER}


def replay_tables(result: dict[str, Any]) -> RenderableType:
    """Everything ``lmk replay`` shows."""
    parts: list[RenderableType] = [_settings_line(result), _kill_table(result)]
    parts.extend(Text(line) for line in reach_lines(result))
    if result["moments"] is not None:
        parts.append(_moments_table(result["moments"]))
    parts.append(Text(f"record of the replay: {result['replay_record']}"))
    return Group(*parts)


def _settings_line(result: dict[str, Any]) -> Text:
    changes = [f"{c['name']} {c['recorded'] or 'unset'} -> {c['other'] or 'unset'}" for c in result["changes"]]
    return Text("Other setting: " + ("; ".join(changes) if changes else "none, the record's own"))


def _kill_table(result: dict[str, Any]) -> RenderableType:
    if not result["kills"]:
        return Text("Nobody was killed, and nobody would have been.")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in result["summary"].items() if count)
    table = Table(title=f"Kills: {counts}", title_justify="left", box=None, header_style="bold", pad_edge=False)
    for heading in ("verdict", "recorded s", "replayed s", "process", "adj", "reason in the replay"):
        table.add_column(heading, justify="right" if heading.endswith(" s") else "left", overflow="fold")
    for kill in result["kills"]:
        replayed, recorded = kill["replayed"], kill["recorded"]
        shown = recorded or replayed
        name = shown["name"] or f"pid {shown['pid']}"
        if kill["verdict"] == "other victim":
            name = f"{replayed['name'] or replayed['pid']} instead of {name}"
        table.add_row(
            kill["verdict"] + _MARKS[kill["basis"]],
            _seconds(kill["recorded_ms"]),
            _seconds(kill["replayed_ms"]),
            name,
            str(shown["oom_score_adj"]),
            (replayed or {}).get("reason") or "",
        )
    return table


def reach_lines(result: dict[str, Any]) -> list[str]:
    """How far the answer holds."""
    lines = []
    if result["left_ms"] is None:
        lines.append("Every exchange was the recorded one: all of this is exact.")
    else:
        lines.append(
            f"Exact until {_seconds(result['left_ms'])} s, where the policy first looked at another moment or file "
            "than the recorded one. From there on (~) it sees what was read or sampled: what came and went in between "
            "is not seen."
        )
    if result["diverged_ms"] is not None:
        lines.append(
            f"The first kill that differs is at {_seconds(result['diverged_ms'])} s. What follows (*) is an estimate: "
            "the record tells how the device went on with its own kills, not with these."
        )
    if result["summary"]["not killed"]:
        lines.append(
            "What is not killed here is dead in the record from then on: what this setting would have had to kill "
            "instead, later, is not seen."
        )
    lines.extend(
        f"Pressure events of level {_LEVELS.get(level['level'], level['level'])} are computed from sampled totals: "
        f"the record's trigger was another than {level['trigger']}."
        for level in result["derived_triggers"]
    )
    if result["stale_reads"]:
        lines.append(f"{result['stale_reads']} reads were answered with figures more than a second old.")
    if result["unknown_sizes"]:
        lines.append(f"{result['unknown_sizes']} times the size of a process was asked that nobody had recorded.")
    return lines


def _moments_table(moments: dict[str, Any]) -> RenderableType:
    head = (
        f"Each of the {moments['decisions']} recorded looks at memory by itself: {moments['would_kill']} would have "
        f"led to a kill that did not, {moments['would_not_kill']} not to one that did, {moments['otherwise']} to one "
        f"by another reason or down to another adj ({moments['undecidable']} had nothing to decide)."
    )
    if not moments["differing"]:
        return Text(head)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("s", "recorded setting", "other setting"):
        table.add_column(heading, overflow="fold")
    for moment in moments["differing"][:_SHOWN_MAX]:
        table.add_row(_seconds(moment["t_ms"]), moment["recorded"], moment["other"])
    if len(moments["differing"]) > _SHOWN_MAX:
        table.caption = f"{len(moments['differing']) - _SHOWN_MAX} more with --json"
    return Group(Text(head), table)


def _seconds(t_ms: int | None) -> str:
    return "-" if t_ms is None else f"{t_ms / 1000:.2f}"
