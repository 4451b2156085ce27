"""``lmk import``: logcat and bug reports of any Android as a record."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from lmk.cli.runs import new_run_dir
from lmk.cli.terminal import shown_progress
from lmk.logs.files import find_logs
from lmk.logs.importing import import_logs
from lmk.record.reader import RecordReader
from lmk.report.imported import import_json, import_tables


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``import``."""
    parser = verbs.add_parser("import", help="read logcat or bug reports and show who was killed, by whom and why")
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="logcat, kernel log, bug report, dumpsys or /proc text of one device; plain, .gz or .zip; or a directory",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to leave the record (a new directory)")
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0, whatever the logs say."""
    logs = [log for path in args.files for log in find_logs(path)]
    directory = new_run_dir(args.output, "import", "--output")
    with shown_progress() as progress:
        import_logs(logs, directory, progress)
    with RecordReader(directory) as record:
        result = import_json(record)
    if args.json:
        print(json.dumps(result))
    else:
        Console().print(import_tables(result))
    return 0
