"""``lmk ci``: a matrix of device configs, scenarios, policies and kernels, and an exit code for a pipeline."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmk.ci.baseline import Baseline, read_baseline, write_baseline
from lmk.ci.execute import RETRIES_MAX, Options
from lmk.ci.html import report_html
from lmk.ci.junit import junit_xml
from lmk.ci.markdown import headline, summary_markdown
from lmk.ci.matrix import DEFAULT_MATRIX, Matrix, load_matrix
from lmk.ci.pages import write_pages
from lmk.ci.result import CI_SCHEMA, CellResult, exit_code, to_json
from lmk.ci.runner import Work, cells_wanted, learned, output_dir, run_matrix, shard
from lmk.cli.runs import add_kill_delay_option, add_set_option
from lmk.cli.terminal import shown_progress
from lmk.config.device import load_device_config
from lmk.config.override import KERNEL_BASE, override, parse_overrides
from lmk.errors import UserError
from lmk.guest.image import build_guest_image
from lmk.kernel.build import build_kernel
from lmk.progress import Progress
from lmk.resources import state_dir

_STYLE = {"passed": "green", "failed": "bold red", "infra": "yellow", "timeout": "yellow"}


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``ci``."""
    parser = verbs.add_parser("ci", help="run a matrix against expectations and a baseline; JUnit, Markdown, HTML")
    parser.add_argument("matrix", nargs="?", type=Path, metavar="MATRIX", help="a matrix file (docs/ci.md)")
    parser.add_argument("--only", choices=("sim", "qemu"), help="just the cells of this target")
    parser.add_argument("--shard", metavar="I/N", help="just every N-th cell, from the I-th on")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="the whole matrix N times")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where results go (default: a new directory)")
    parser.add_argument("--resume", action="store_true", help="go on with what --output (or the last run) holds")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="default: MATRIX with .baseline.json")
    parser.add_argument("--update-baseline", action="store_true", help="learn the baseline anew instead of judging")
    parser.add_argument("--retries", type=int, default=RETRIES_MAX, metavar="N", help="after faults of the machinery")
    parser.add_argument("--allow-disturbed", action="store_true", help="judge emulator runs on a busy host too")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="kernel and guest from `lmk kernel bundle`")
    parser.add_argument("--jobs", type=int, metavar="N", help="simulations at once (all cores)")
    parser.add_argument("--emulators", type=int, metavar="N", help="guests at once (as memory and cores allow)")
    add_set_option(parser)
    add_kill_delay_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run it; 1 if the policy failed anywhere, 3 if the machinery kept a cell from being judged."""
    matrix = _matrix(args)
    work, old = _work(args, matrix)
    console = Console(stderr=True)
    with shown_progress() as progress:
        if not args.bundle:
            _prepare(work, progress)
        done = 0
        total = len(cells_wanted(work))

        def finished(result: CellResult) -> None:
            nonlocal done
            done += 1
            progress(f"running {total} cells", done / total)
            if result.status != "passed":
                lines = "\n".join(f"    {line}" for text in result.failures for line in text.splitlines())
                console.print(f"{result.status}: {result.cell.key}\n{lines}", highlight=False, markup=False)

        results = run_matrix(work, finished, args.resume)
        _write_reports(work, results, progress)
    if args.update_baseline:
        return _learn(args, work, results, old)
    code = exit_code(results)
    if args.json:
        print(json.dumps(_json(work, results, code)))
    else:
        Console().print(_table(results))
        print(f"{headline(results)} Reports: {work.output}")
        if work.baseline is None:
            print("There is no baseline; learn one with: lmk ci --update-baseline")
    return code


def _matrix(args: argparse.Namespace) -> Matrix:
    matrix = load_matrix(args.matrix or DEFAULT_MATRIX)
    cells = tuple(cell for cell in matrix.cells if args.only in (None, cell.target))
    if args.shard is not None:
        cells = shard(cells, args.shard)
    if not cells:
        raise UserError(f"{matrix.path}: no cell is left", "loosen --only or --shard")
    settings = parse_overrides(args.settings)
    for cell in cells:
        override(load_device_config(matrix.config_files[cell.config]), {**settings, KERNEL_BASE: cell.kernel})
    return attrs.evolve(matrix, cells=cells)


def _work(args: argparse.Namespace, matrix: Matrix) -> tuple[Work, Baseline | None]:
    for name in ("repeat", "jobs", "emulators"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: must be at least 1", "leave it out for the default")
    if args.retries < 0:
        raise UserError(f"--retries {args.retries}: must not be negative", "0 means none")
    old = read_baseline(args.baseline or matrix.baseline_path)
    if old is None and args.baseline is not None and not args.update_baseline:
        raise UserError(f"--baseline {args.baseline}: no such file", "learn one with --update-baseline")
    work = Work(
        matrix=matrix,
        options=Options(
            settings=parse_overrides(args.settings),
            kill_delay_ms=args.inject_kill_delay,
            bundle=args.bundle,
            retries=args.retries,
            allow_disturbed=args.allow_disturbed,
        ),
        baseline=None if args.update_baseline else old,
        output=_output(args, matrix),
        repeats=args.repeat,
        learning=args.update_baseline,
        workers=args.jobs,
        emulators=args.emulators,
    )
    return work, old


def _output(args: argparse.Namespace, matrix: Matrix) -> Path:
    base = state_dir("ci")
    if args.output is not None:
        return Path(args.output)
    if not args.resume:
        return output_dir(base, matrix.name)
    earlier = sorted(path for path in base.glob(f"*-{matrix.name}-*") if (path / "inputs.json").is_file())
    if not earlier:
        raise UserError(f"--resume: no earlier run of {matrix.name} in {base}", "leave out --resume, or give --output")
    return earlier[-1]


def _prepare(work: Work, progress: Progress) -> None:
    """Kernels and guests are built before any cell's time runs."""
    wanted = set()
    for cell in work.matrix.cells:
        if cell.target == "qemu":
            wanted.add((cell.kernel, load_device_config(work.matrix.config_files[cell.config]).arch))
    for base, arch in sorted(wanted):
        build_kernel(base, arch, progress=progress)
        build_guest_image(arch, progress)


def _write_reports(work: Work, results: list[CellResult], progress: Progress) -> None:
    name = work.matrix.name
    pages = write_pages(work.output, results, progress)
    (work.output / "junit.xml").write_text(junit_xml(name, results), encoding="utf-8")
    (work.output / "summary.md").write_text(summary_markdown(name, results), encoding="utf-8")
    (work.output / "report.html").write_text(report_html(name, results, pages), encoding="utf-8")
    (work.output / "result.json").write_text(json.dumps(_json(work, results, exit_code(results))) + "\n")


def _learn(args: argparse.Namespace, work: Work, results: list[CellResult], old: Baseline | None) -> int:
    unjudged = [result for result in results if not result.runs]
    path: Path = args.baseline or work.matrix.baseline_path
    write_baseline(path, learned(results, old))
    if args.json:
        print(json.dumps({**_json(work, results, 3 if unjudged else 0), "baseline": str(path)}))
    else:
        taught = {result.cell for result in results if result.runs}
        print(f"learned {len(taught)} of {len(work.matrix.cells)} cells: {path}")
        for result in unjudged:
            print(f"not learned: {result.cell.key}: {result.cause}")
    return 3 if unjudged else 0


def _json(work: Work, results: list[CellResult], code: int) -> dict[str, Any]:
    states = [result.status for result in results]
    return {
        "schema": CI_SCHEMA,
        "matrix": work.matrix.name,
        "settings": dict(work.options.settings),
        "repeats": work.repeats,
        "output": str(work.output),
        "baseline": None if work.baseline is None else len(work.baseline.cells),
        "counts": {name: states.count(name) for name in ("passed", "failed", "infra", "timeout")},
        "exit_code": code,
        "cells": [to_json(result) for result in results],
    }


def _table(results: list[CellResult]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("config", "scenario", "policy", "target"):
        table.add_column(heading, overflow="fold")
    table.add_column("result", no_wrap=True)
    for heading in ("kills", "cold", "full ms", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        cell = result.cell
        summary = result.runs[0]["summary"] if result.runs else {}
        figures = [str(summary.get(key, "-")) for key in ("kills", "cold_starts", "psi_full_ms")]
        words = [cell.config, cell.scenario, cell.policy, f"{cell.target} {cell.kernel}"]
        table.add_row(*words, Text(result.status, _STYLE[result.status]), *figures, f"{result.seconds:.1f}")
    return table
