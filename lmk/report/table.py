"""A run as a person reads it in a terminal: the kills, the summary, the expectations. JSON object in, rich out."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from lmk.record.schema import KILLER_LMK, KILLER_WORDS
from lmk.report.tiers import TERMINAL_STYLE, tier_group


def run_tables(run: dict[str, Any]) -> RenderableType:
    """Everything ``lmk run`` shows after a run."""
    parts: list[RenderableType] = [kill_table(run)]
    if run.get("dry_run"):
        parts.append(agreement_table(run["dry_run"]))
    parts.append(summary_table(run))
    if run["summary"]["expectations"]:
        parts.append(expectation_table(run))
    return Group(*parts)


def kill_table(run: dict[str, Any]) -> RenderableType:
    """One row per kill, in order."""
    kills = run["kills"]
    if not kills:
        return Text("No process was killed.")
    table = Table(
        title=Text.assemble(
            (f"{len(kills)} {'kill' if len(kills) == 1 else 'kills'}", "bold"),
            ("   signal: after the event; reaped, exit: after the signal", "dim"),
        ),
        title_justify="left",
        title_style="",
        box=SIMPLE_HEAD,
        show_edge=False,
        header_style="bold",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name, unit in _KILL_HEADINGS:
        # Numbers are never cut: in a narrow terminal it is the words that wrap.
        words = name == _WORDS
        justify: JustifyMethod = "left" if words or name == _TIER else "right"
        table.add_column(f"{name}\n{unit}", justify=justify, no_wrap=not words, overflow="fold", ratio=words)
    for kill in kills:
        table.add_row(*_kill_cells(kill), style=TERMINAL_STYLE[tier_group(kill["oom_score_adj"])])
    return table


_WORDS, _TIER = "process", "tier"
#: Name and unit, one above the other.
_KILL_HEADINGS = (
    ("time", "s"),
    (_WORDS, "and why it died"),
    (_TIER, "and adj"),
    ("rss+swap", "MiB"),
    ("signal", "ms"),
    ("reaped", "ms"),
    ("exit", "ms"),
    ("freed", "MiB"),
)


def _kill_cells(kill: dict[str, Any]) -> list[str]:
    killer = "" if kill["killer"] == KILLER_LMK else f"{KILLER_WORDS.get(kill['killer'], kill['killer'])}: "
    swap = _scaled(kill["swap_kib"], 1024, 0)
    return [
        f"{kill['t_ms'] / 1000:.2f}",
        f"{kill['name'] or 'pid {}'.format(kill['pid'])}\n  {killer}{kill['reason'] or ''}",
        f"{kill['tier'] or '?'} {_number(kill['oom_score_adj'])}",
        _scaled(kill["rss_kib"], 1024, 0) + ("" if swap == "-" else f"+{swap}"),
        _scaled(kill["event_to_signal_us"], 1000, 1),
        _scaled(kill["signal_to_reaped_us"], 1000, 1),
        _scaled(kill["signal_to_exit_us"], 1000, 1),
        _scaled(kill["freed_kib"], 1024, 0),
    ]


def summary_table(run: dict[str, Any]) -> RenderableType:
    """The figures two runs are compared by."""
    summary = run["summary"]
    table = Table(title="Summary", title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    table.add_column("value", overflow="fold")
    tiers = ", ".join(f"{n} {name}" for name, n in summary["kills_by_tier"].items())
    table.add_row("kills", f"{summary['kills']}" + (f" ({tiers})" if tiers else ""))
    if summary["failed_kills"]:
        table.add_row("not carried out", f"{summary['failed_kills']} (gone, or its oom_score_adj changed meanwhile)")
    table.add_row("kernel OOM kills", str(summary["kernel_oom_kills"]))
    table.add_row("launches", f"{summary['launches']}, {summary['cold_starts']} of them cold starts")
    for kind in ("cold", "warm"):
        table.add_row(f"{kind} launch ms", _spread(summary["launch_ms"][kind]))
    table.add_row("PSI some / full", f"{_number(summary['psi_some_ms'])} ms / {_number(summary['psi_full_ms'])} ms")
    table.add_row("least MemAvailable", f"{_scaled(summary['min_mem_available_kib'], 1024, 0)} MiB")
    table.add_row("event to signal ms", _spread(summary["event_to_signal_us"], divisor=1000, digits=1))
    if run.get("dry_run"):
        dry = run["dry_run"]
        table.add_row(
            "dry run",
            f"{dry['decided']} processes would have been killed; the device's lmkd killed {len(dry['device_kills'])}, "
            f"{dry['agreed']} of them the same",
        )
    if run.get("calibration"):
        table.add_row("simulated with", f"calibration {run['calibration']['name']} ({run['calibration']['class']})")
    if run.get("disturbed"):
        table.add_row("disturbed", f"other load on the host took {run['host_load']:.0%} of it: do not quote the times")
    table.add_row("record", str(run["record"]))
    return table


def agreement_table(dry: dict[str, Any]) -> RenderableType:
    """A dry run beside the device's own lmkd: whom either chose, and when."""
    table = Table(title="Agreement", title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("process", overflow="fold", ratio=1)
    for heading in ("adj", "decided s", "the device's lmkd s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for process in dry["processes"]:
        times = (_scaled(process[name], 1000, 2) for name in ("decided_t_ms", "killed_t_ms"))
        table.add_row(process["name"] or f"pid {process['pid']}", _number(process["oom_score_adj"]), *times)
    return table if dry["processes"] else Text("Neither chose anybody.")


def expectation_table(run: dict[str, Any]) -> RenderableType:
    """Each expectation of the scenario: met or not, seen against allowed."""
    table = Table(title="Expectations", title_justify="left", box=None, header_style="bold", pad_edge=False)
    for heading in ("", "expectation", "observed", "limit"):
        table.add_column(heading)
    for row in run["summary"]["expectations"]:
        mark = Text("met", style="green") if row["met"] else Text("NOT MET", style="bold red")
        table.add_row(mark, row["name"], _number(row["observed"]), _limit(row["limit"]))
    return table


def _limit(limit: dict[str, Any]) -> str:
    """``{"min": 3, "max": null}`` as "at least 3"."""
    low, high = limit["min"], limit["max"]
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else f"at most {high}"


def _spread(values: dict[str, Any], *, divisor: int = 1, digits: int = 0) -> str:
    if not values["n"]:
        return "none"
    p50, p95, most = (f"{values[name] / divisor:.{digits}f}" for name in ("p50", "p95", "max"))
    return f"median {p50}, p95 {p95}, max {most} (n {values['n']})"


def _number(value: float | None) -> str:
    return "-" if value is None else str(value)


def _scaled(value: int | None, divisor: int, digits: int) -> str:
    return "-" if value is None else f"{value / divisor:.{digits}f}"


def beside_tables(both: dict[str, Any]) -> RenderableType:
    """What ``lmk run --beside-sim`` shows in the end."""
    kills = both["kills"]
    table = Table(
        title="Simulated beside emulated", title_justify="left", box=None, header_style="bold", pad_edge=False
    )
    table.add_column("figure", overflow="fold", ratio=1)
    for heading in ("simulated", "emulated", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in both["figures"]:
        difference = row["difference_pct"]
        shown = "" if difference is None else f"{difference:+.0f} %"
        values = (_number(None if row[side] is None else round(row[side])) for side in ("simulated", "emulated"))
        table.add_row(row["name"].replace("_", " "), *values, shown)
    matched = len(kills["matched"])
    agreement = (
        f"The same app was killed within {kills['window_ms'] / 1000:.0f} s in both: {matched} of {kills['simulated']} "
        f"simulated and {kills['emulated']} emulated kills (F1 {_number(kills['f1'])}). One run a side: the emulator "
        "differs from itself too (lmk validate)."
    )
    return Group(table, Text(agreement))
