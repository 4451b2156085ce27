"""``tools/stress-kernel``: stress a debug kernel and say whether it held. Exit 0: it did, 1: it did not."""

from __future__ import annotations

import argparse
import errno
import json
import sys
import time
from pathlib import Path

from lmk import resources
from lmk.cli.main import report_error
from lmk.cli.terminal import shown_progress
from lmk.errors import LmkError, UserError
from lmk.kernel.bases import BASES, DEFAULT_BASE
from lmk.kernel.build import build_kernel
from lmk.kernel.stress import StressResult, run_stress

SHOWN_MAX = 20


def main(argv: list[str] | None = None) -> int:
    """Build what is missing, run, print the verdict."""
    args = _parser().parse_args(argv)
    try:
        seconds = round(args.minutes * 60)
        if seconds < 1:
            raise UserError(f"--minutes {args.minutes}: must be more than 0")
        with shown_progress() as progress:
            kernel = build_kernel(args.base, debug=True, progress=progress)
            result = run_stress(kernel, seconds=seconds, seed=args.seed, progress=progress)
    except LmkError as error:
        report_error(error, as_json=args.json)
        return error.exit_code
    console = args.console
    if console is None and result.bad:
        console = resources.cache_dir("kernel", "stress") / f"console-{kernel.release}.txt"
    if console is not None:
        console.write_text(result.console)
    _show(result, kernel.release, console, as_json=args.json)
    return 1 if result.bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/stress-kernel", description=__doc__)
    parser.add_argument("--base", default=DEFAULT_BASE, metavar="BASE", help=f"one of {', '.join(BASES)}")
    parser.add_argument(
        "--minutes",
        type=float,
        default=10.0,
        metavar="N",
        help="how long (default 10); the verdict comes after half as long again at most, or two minutes more",
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), metavar="N", help="of the random choices")
    parser.add_argument(
        "--console",
        type=Path,
        metavar="FILE",
        help="keep the guest's whole console (default: in the cache, on failure)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _show(result: StressResult, release: str, console: Path | None, *, as_json: bool) -> None:
    if as_json:
        facts = {"release": release, "passed": not result.bad, "bad": list(result.bad), "eagain": result.eagain}
        facts |= {"stacks": list(result.stacks), "console": str(console) if console else None}
        print(json.dumps({"schema": 1, **facts, "counts": result.counts, "answers": result.answers}))
        return
    print(f"{release}: " + ", ".join(f"{name} {number}" for name, number in result.counts.items()))
    for call, answers in result.answers.items():
        words = (f"{'0' if code == 0 else errno.errorcode.get(code, code)} {n}" for code, n in sorted(answers.items()))
        print(f"  {call}: {', '.join(words)}")
    if result.eagain is not None:
        print(f"  process_reap_test: EAGAIN {'seen' if result.eagain else 'not seen'}")
    for line in result.bad[:SHOWN_MAX]:
        print(f"  BAD: {line}")
    if len(result.bad) > SHOWN_MAX:
        print(f"  and {len(result.bad) - SHOWN_MAX} more")
    for line in result.stacks:
        print(f"  {line}")
    if console is not None:
        print(f"console: {console}")
    print("FAILED" if result.bad else "PASSED")


if __name__ == "__main__":
    sys.exit(main())
