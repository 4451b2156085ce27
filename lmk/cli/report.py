"""``lmk report``: finished runs as tables, as one HTML file, as a Perfetto trace."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from lmk.cli.extras import need_extra
from lmk.cli.runs import find_run
from lmk.cli.terminal import shown_progress
from lmk.errors import UserError
from lmk.record.reader import RecordReader
from lmk.report.summary import run_json
from lmk.report.table import run_tables

_JSON_SCHEMA = 1
#: More lines than that over each other tell nobody anything.
_RUNS_MAX = 6


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``report``."""
    parser = verbs.add_parser("report", help="show finished runs: tables, an HTML page, a Perfetto trace")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run directory, or `last`; several are overlaid")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained HTML file")
    parser.add_argument("--perfetto", type=Path, metavar="FILE", help="write a trace for ui.perfetto.dev")
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write what was asked for; tables where no file was."""
    paths = [find_run(text) for text in args.runs]
    if len(paths) > _RUNS_MAX:
        raise UserError(f"{len(paths)} runs are too many to overlay", f"give at most {_RUNS_MAX}")
    if args.perfetto is not None:
        need_extra("perfetto", "perfetto")
        if len(paths) > 1:
            raise UserError(f"--perfetto: a trace holds one run, not {len(paths)}", "give one RUN")
    results = [_summary(path) for path in paths]
    if args.html is not None:
        _write(args.html, "--html", _html(paths))
    if args.perfetto is not None:
        _write(args.perfetto, "--perfetto", _trace(paths[0]))
    if args.json:
        print(json.dumps(_result(args, results)))
    elif args.html is None and args.perfetto is None:
        for result in results:
            Console().print(run_tables(result))
    return 0


def _summary(path: Path) -> dict[str, Any]:
    with RecordReader(path) as record:
        return run_json(record)


def _result(args: argparse.Namespace, results: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema": _JSON_SCHEMA,
        "runs": results,
        "html": None if args.html is None else str(args.html),
        "perfetto": None if args.perfetto is None else str(args.perfetto),
    }


def _html(paths: list[Path]) -> bytes:
    # Imported here: tables alone do not need them.
    from lmk.report.html import report_html
    from lmk.report.html_model import read_run

    names = _labels(paths)
    models = []
    with shown_progress() as progress:
        for index, (path, name) in enumerate(zip(paths, names, strict=True)):
            progress(f"reading {name}", index / len(paths))
            with RecordReader(path) as record:
                models.append(read_run(record, name))
        progress("drawing", None)
        return report_html(models).encode()


def _trace(path: Path) -> bytes:
    # An optional dependency, and half a second to import.
    from lmk.report.perfetto_trace import perfetto_trace

    with RecordReader(path) as record:
        return perfetto_trace(record)


def _labels(paths: list[Path]) -> list[str]:
    """The directories' names; the same one twice gets a number."""
    names = [path.resolve().name if path.is_dir() else path.resolve().parent.name for path in paths]
    return [name if names.count(name) == 1 else f"{name} ({names[:i].count(name) + 1})" for i, name in enumerate(names)]


def _write(path: Path, option: str, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}", "give a file you may write") from None
