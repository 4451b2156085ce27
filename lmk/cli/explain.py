"""``lmk explain``: why a process of a recorded run died, or why none did at some moment."""

from __future__ import annotations

import argparse
import json

from lmk.cli.runs import find_run
from lmk.cli.unnecessary import run_unnecessary
from lmk.config.quantity import InvalidValue, parse_duration_ms
from lmk.errors import UserError
from lmk.record.reader import RecordReader
from lmk.report.explain import Explained, explain_at, explain_kill, explain_pid, explained_json, explained_lines


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``explain``."""
    parser = verbs.add_parser("explain", help="say why a process died, or why none did at some moment")
    parser.add_argument("run_dir", metavar="RUN", help="a run directory, or `last`")
    parser.add_argument("kill", nargs="?", type=int, metavar="KILL", help="the nth kill of the run (1)")
    parser.add_argument("--at", metavar="TIME", help="the last decision up to then, e.g. 12.3s")
    parser.add_argument("--pid", type=int, metavar="P", help="the decision that killed this process")
    parser.add_argument(
        "--unnecessary",
        action="store_true",
        help="which kills of a simulation were unnecessary: it runs without each",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Explain one decision, or look for kills that were unnecessary."""
    if args.unnecessary:
        return run_unnecessary(args)
    if sum(given is not None for given in (args.kill, args.at, args.pid)) > 1:
        raise UserError("KILL, --at and --pid are three ways to say which decision", "give one of them")
    with RecordReader(find_run(args.run_dir)) as record:
        found = _found(record, args)
    if args.json:
        print(json.dumps(explained_json(found)))
    else:
        print("\n".join(explained_lines(found)))
    return 0


def _found(record: RecordReader, args: argparse.Namespace) -> Explained:
    if args.pid is not None:
        return explain_pid(record, args.pid)
    if args.at is not None:
        try:
            return explain_at(record, parse_duration_ms(args.at))
        except InvalidValue as error:
            raise UserError(f"--at {args.at}: {error}", "write a time such as 12.3s") from None
    return explain_kill(record, 1 if args.kill is None else args.kill)
