"""``lmk explain RUN --unnecessary``: the run again without each of its kills."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from lmk.cli.runs import find_run
from lmk.cli.terminal import shown_progress
from lmk.errors import UserError
from lmk.record.reader import RecordReader
from lmk.units import NS_PER_MS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lmk.sim.overkill import KillCheck

SCHEMA = 1


def run_unnecessary(args: argparse.Namespace) -> int:
    """Check every kill of the record and show the verdicts."""
    from lmk.sim.again import plan_of
    from lmk.sim.overkill import check_kills

    if args.kill is not None or args.at is not None or args.pid is not None:
        raise UserError("--unnecessary looks at every kill", "leave out KILL, --at and --pid")
    path = find_run(args.run_dir)
    with RecordReader(path) as record:
        plan = plan_of(record)
        with shown_progress() as tell:
            checks = check_kills(plan, lambda done, total: tell("the run without each of its kills", done / total))
        result = _result(record, checks)
    if args.json:
        print(json.dumps(result))
    else:
        from rich.console import Console

        Console().print(_table(result))
    return 0


def _result(record: RecordReader, checks: list[KillCheck]) -> dict[str, Any]:
    from lmk.sim.overkill import HOLD_MS, STALL_MS_MAX, WATCH_MS, unnecessary_kills

    rows = {kill.pid: kill for kill in record.kills() if kill.killer == "lmk"}
    pids = [pid for check in checks for pid in check.pids]
    if set(pids) != set(rows):
        raise UserError(
            f"{record.path.parent}: the run does not repeat: {len(pids)} kills, and the record has {len(rows)}",
            "it was made with another lmk or with --jitter: make it again",
        )
    return {
        "schema": SCHEMA,
        "record": str(record.path.parent),
        "calibration": record.meta.get("calibration"),
        "hold_ms": HOLD_MS,
        "watch_ms": WATCH_MS,
        "stall_ms_max": STALL_MS_MAX,
        "kills": [
            {
                "t_ms": (rows[pid].t_ns - record.zero_ns) // NS_PER_MS,
                "pid": pid,
                "name": rows[pid].name,
                "oom_score_adj": rows[pid].oom_score_adj,
                "reason": rows[pid].reason,
                "unnecessary": check.unnecessary,
                "why": check.why,
                "stall_ms": check.stall_ms,
            }
            for check in checks
            for pid in check.pids
        ],
        "unnecessary": unnecessary_kills(checks),
    }


def _table(result: dict[str, Any]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    kills = result["kills"]
    if not kills:
        return Text("No process was killed by the policy.")
    title = f"{result['unnecessary']} of {len(kills)} kills were unnecessary"
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for heading in ("time s", "process", "adj", "without it", "full stall ms"):
        numeric = heading in ("time s", "adj", "full stall ms")
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric)
    for kill in kills:
        table.add_row(
            f"{kill['t_ms'] / 1000:.2f}",
            kill["name"] or f"pid {kill['pid']}",
            str(kill["oom_score_adj"]),
            kill["why"],
            str(kill["stall_ms"]),
            style="yellow" if kill["unnecessary"] else "",
        )
    return table
