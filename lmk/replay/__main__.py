"""``tools/check-vectors``: replay recordings of the real lmkd and compare.

Exit code 0: every scenario matched. 1: at least one did not (or a change went unnoticed). 2: the arguments or
files are wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TextIO

from lmk.errors import LmkError, UserError
from lmk.replay.mutate import mutations
from lmk.replay.run import Chunk, Outcome, chunk_scenarios, plan, replay, replay_all
from lmk.replay.show import details, one_line
from lmk.replay.vectors import find_files

SHOWN_MAX = 20
SELF_TEST_CHANGES = 1000
SELF_TEST_SCENARIOS = 250


def main(argv: list[str] | None = None, out: TextIO | None = None) -> int:
    """The command. Errors of the user are one line on stderr."""
    out = out if out is not None else sys.stdout
    arguments = _parser().parse_args(argv)
    try:
        chunks = plan(find_files(arguments.paths), arguments.kind, arguments.sample)
        if arguments.self_test:
            return _self_test(chunks, arguments, out)
        return _check(chunks, arguments, out)
    except LmkError as error:
        sys.stderr.write(f"check-vectors: {error}\n")
        return error.exit_code


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "positive number"  # what argparse calls it


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="check-vectors",
        description="Replay recorded behaviour of the real lmkd through lmk's policy and compare every kill, wake-up "
        "and byte. Prints 'matched N of M scenarios, K of L kills' last.",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="*.jsonl[.zst] files or directories")
    parser.add_argument("--first", action="store_true", help="stop at the first scenario that differs and show where")
    parser.add_argument(
        "--explain", action="store_true", help="show recorded internal values beside ours, and the rule that fired"
    )
    parser.add_argument(
        "--kind", metavar="KIND", help="only this kind (psi, psib, minfree, vmp, parse, burst, mem, ctrl)"
    )
    parser.add_argument("--sample", type=_positive, metavar="N", help="about N scenarios, spread evenly over the files")
    parser.add_argument(
        "--jobs", type=_positive, default=min(2, os.cpu_count() or 1), metavar="N", help="processes (2)"
    )
    parser.add_argument(
        "--self-test", action="store_true", help="change expected fields at random; all must be noticed"
    )
    parser.add_argument("--changes", type=_positive, default=SELF_TEST_CHANGES, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the self-test (1)")
    return parser


def _check(chunks: list[Chunk], arguments: argparse.Namespace, out: TextIO) -> int:
    started = time.monotonic()
    scenarios: Counter[str] = Counter()
    matched: Counter[str] = Counter()
    kills = matched_kills = wakeups = shown = 0
    for outcome in replay_all(chunks, arguments.jobs):
        group = f"{outcome.variant} {outcome.kind}"
        scenarios[group] += 1
        matched[group] += outcome.matched
        kills += outcome.kills
        matched_kills += outcome.matched_kills
        wakeups += outcome.wakeups
        if not outcome.matched:
            shown += 1
            _show(outcome, arguments, shown, out)
            if arguments.first:
                break
    if not scenarios:
        raise UserError("no scenario was chosen", "check --kind and --sample")
    for group in sorted(scenarios):
        out.write(f"{group:<24}{matched[group]:>6} of {scenarios[group]:>6}\n")
    elapsed_s = time.monotonic() - started
    out.write(f"{wakeups} wake-ups in {elapsed_s:.1f} s\n")
    out.write(f"matched {matched.total()} of {scenarios.total()} scenarios, {matched_kills} of {kills} kills\n")
    return 0 if matched.total() == scenarios.total() else 1


def _show(outcome: Outcome, arguments: argparse.Namespace, shown: int, out: TextIO) -> None:
    if arguments.first or arguments.explain:
        out.writelines(f"{line}\n" for line in details(outcome, arguments.explain))
    elif shown <= SHOWN_MAX:
        out.write(f"{one_line(outcome)}\n")
    elif shown == SHOWN_MAX + 1:
        out.write("further differences are counted only; --first or --explain shows more\n")


def _self_test(chunks: list[Chunk], arguments: argparse.Namespace, out: TextIO) -> int:
    scenarios = [scenario for chunk in chunks for scenario in chunk_scenarios(chunk)]
    scenarios = scenarios[:: max(1, len(scenarios) // SELF_TEST_SCENARIOS)]
    if not scenarios:
        raise UserError("no scenario was chosen", "check --kind and --sample")
    for outcome in map(replay, scenarios):
        if not outcome.matched:
            out.write(f"unchanged, this already differs: {one_line(outcome)}\n")
            return 1
    noticed = made = 0
    for mutation in mutations(scenarios, arguments.changes, arguments.seed):
        made += 1
        noticed += mutation.detected
        if not mutation.detected:
            place = "/".join(map(str, mutation.path))
            out.write(f"unnoticed: {mutation.scenario} {place}: {mutation.before!r} -> {mutation.after!r}\n")
    out.write(f"noticed {noticed} of {made} changed fields\n")
    return 0 if noticed == made else 1


def _program() -> int:
    """``main`` for a terminal: a closed pipe or Ctrl-C ends it without a traceback."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(_program())
