"""``lmk kernel bench``: what the patches gain, measured in a guest and printed as tables."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from lmk.backends.accel import KVM, find_accel, settle_accel
from lmk.cli.terminal import shown_progress
from lmk.errors import UserError
from lmk.kernel import bench, bench_report, bench_steps
from lmk.kernel.bases import BASES, DEFAULT_BASE
from lmk.kernel.build import build_kernel
from lmk.kernel.trial import try_trial

_EMULATED = "software emulation: times compare columns of this run only; counts hold anywhere"


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``bench`` below ``lmk kernel``."""
    parser = actions.add_parser(
        "bench", help="measure the patches in a guest (5 to 8 minutes); goes on where it was interrupted"
    )
    parser.add_argument("--base", default=DEFAULT_BASE, metavar="BASE", help=f"one of {', '.join(BASES)}")
    parser.add_argument(
        "--parts",
        default=",".join(bench_steps.PARTS),
        metavar="PART,…",
        help=f"some of {', '.join(bench_steps.PARTS)} (default: all)",
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what an earlier run has finished")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    parts = _parts(args.parts)
    started_s = time.monotonic()
    with shown_progress() as progress:
        kernel = build_kernel(args.base, progress=progress)
        accel = settle_accel(find_accel("x86_64", progress), "x86_64", lambda: try_trial(kernel, KVM.arguments))
        rows = bench.run_bench(kernel, parts=parts, accel=accel.arguments, fresh=args.fresh, progress=progress)
    facts = {
        "kernel": kernel.release,
        "base": kernel.base,
        "source": kernel.source,
        "acceleration": accel.name,
        "emulated": accel.name != "kvm",
        "seconds": round(time.monotonic() - started_s, 1),
        "kept": rows.kept,
    }
    if args.json:
        print(json.dumps({"schema": 1, **facts, **_as_json(rows)}))
    else:
        _print(rows, facts)
    # A row that did not come to its end is a failed measurement, whatever else was seen.
    return 3 if any(rows.of(kind) for kind in bench_steps.FAILURES) else 0


def _parts(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in parts if part not in bench_steps.PARTS]
    if wrong or not parts:
        raise UserError(f"--parts {text}: no such part", f"choose from: {', '.join(bench_steps.PARTS)}")
    return parts


def _as_json(rows: bench.BenchRows) -> dict[str, Any]:
    return {
        "rows": rows.rows,
        "sharing_slopes": [attrs.asdict(cost) | {"ratio": cost.gain} for cost in bench_report.sharing_costs(rows)],
        "count_ns_per_thread": bench_report.cost_per_thread_ns(rows),
        "groups": bench_report.group_medians(rows),
    }


def _print(rows: bench.BenchRows, facts: dict[str, Any]) -> None:
    console = Console(width=max(Console().width, 150), soft_wrap=True)
    for made in bench_report.tables(rows):
        table = Table(title=made.title, title_justify="left", box=None, header_style="bold")
        for i, name in enumerate(made.columns):
            number = isinstance(made.rows[0][i], int | float)
            table.add_column(name, justify="right" if number else "left")
        for row in made.rows:
            table.add_row(*("-" if cell is None else _shown(cell) for cell in row))
        console.print(table)
        console.print()
    for step, measured in rows.kept.items():
        console.print(f"{step}: measured {measured}, kept (--fresh measures again)", highlight=False)
    note = _EMULATED if facts["emulated"] else facts["acceleration"]
    console.print(f"kernel {facts['kernel']} ({facts['source']}), {facts['seconds']:.0f} s; {note}", highlight=False)


def _shown(cell: object) -> str:
    return f"{cell:g}" if isinstance(cell, float) and abs(cell) < 1e5 else str(cell)
