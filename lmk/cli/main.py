"""The ``lmk`` command: one file per verb, each with ``add_parser(subparsers)`` and ``run(args) -> int``.

Exit codes: 0 good, 1 an expectation failed, 2 the user's error, 3 the target or machine failed. A user's
mistake prints one line on stderr (with ``--json`` a JSON error object on stdout as well), never a traceback.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from lmk import __version__
from lmk.errors import LmkError

# Written out: what `lmk --help` lists is what exists.
VERBS: tuple[str, ...] = (
    *("run", "explain", "report", "top", "sim", "calibrate", "validate", "compare", "ci", "tune", "sweep"),
    *("record", "replay", "import"),
    *("config", "doctor", "emulator", "kernel"),
)
#: Verbs whose name cannot be that of a module.
_MODULES = {"import": "import_logs"}


def build_parser(names: Sequence[str] = VERBS) -> argparse.ArgumentParser:
    """The whole command line, or that of some verbs: each one's imports take their time."""
    parser = argparse.ArgumentParser(prog="lmk", description="Android's low memory killer on the desk.")
    parser.add_argument("--version", action="version", version=f"lmk {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name in names:
        import_module(f"lmk.cli.{_MODULES.get(name, name)}").add_parser(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code. Only argparse's own errors raise SystemExit(2)."""
    words = sys.argv[1:] if argv is None else list(argv)
    known = (words[0],) if words and words[0] in VERBS else VERBS
    args = build_parser(known).parse_args(words)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except LmkError as error:
        report_error(error, as_json=bool(getattr(args, "json", False)))
        return error.exit_code
    except KeyboardInterrupt:
        print("lmk: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def report_error(error: LmkError, *, as_json: bool) -> None:
    """One line on stderr, the proof below it; for machines one JSON object on stdout."""
    print(f"lmk: {error}", file=sys.stderr)
    if error.detail:
        print(error.detail, file=sys.stderr)
    if as_json:
        body = {
            "cause": error.cause,
            "remedy": error.remedy,
            "owner": error.owner,
            "exit_code": error.exit_code,
        }
        print(json.dumps({"schema": 1, "error": body}))


def entry_point() -> None:
    """Console script."""
    sys.exit(main())
