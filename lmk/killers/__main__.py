"""tools/check-killers: earlyoom, oomd and systemd-oomd in the guest against our policies (docs/killers.md)."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lmk.backends.qemu import QemuGuest
from lmk.errors import LmkError
from lmk.guest.image import build_guest_image
from lmk.guest.killers import with_killers
from lmk.kernel.build import build_kernel
from lmk.killers.cases import CASES, Case
from lmk.killers.check import Kill, Verdict, compare
from lmk.killers.guest import KILLERS, device_config, play, prepare
from lmk.killers.trace import parse_trace
from lmk.resources import cache_dir


def main(argv: list[str] | None = None) -> int:
    """Play what has not been played yet, then compare; 1 if a case differs."""
    parser = argparse.ArgumentParser(prog="check-killers", description=__doc__)
    parser.add_argument("killer", nargs="*", metavar="KILLER", help=f"of {', '.join(KILLERS)} (all)")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="only this one")
    parser.add_argument("--again", action="store_true", help="play them even if their traces are there")
    parser.add_argument("--no-guest", action="store_true", help="compare the traces that are there, play nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    wanted = tuple(args.killer) or KILLERS
    for killer in wanted:
        if killer not in KILLERS:
            parser.error(f"no such killer: {killer}; there are {', '.join(KILLERS)}")
    cases = [case for case in CASES if not args.case or case.name in args.case]
    try:
        if not args.no_guest:
            pairs = [(killer, case) for case in cases for killer in wanted]
            _play([pair for pair in pairs if args.again or not _path(*pair).is_file()])
        verdicts = {killer: _verdicts(killer, cases) for killer in wanted}
    except LmkError as error:
        sys.stderr.write(f"check-killers: {error}\n")
        return error.exit_code
    if args.json:
        body = {name: [_json(verdict) for verdict in found] for name, found in verdicts.items()}
        sys.stdout.write(json.dumps({"schema": 1, "killers": body}) + "\n")
    else:
        for killer, found in verdicts.items():
            Console().print(_table(killer, found))
    return 0 if all(verdict.agree for found in verdicts.values() for verdict in found) else 1


def _path(killer: str, case: Case) -> Path:
    key = hashlib.sha256(repr(case).encode()).hexdigest()[:12]
    return cache_dir("killers") / f"{killer}-{case.name}-{key}.trace.gz"


def _play(pairs: list[tuple[str, Case]]) -> None:
    """One guest for all; what is done is kept, so that it can be begun again at any time."""
    if not pairs:
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("killers", total=len(pairs))

        def say(text: str, _: float | None = None) -> None:
            progress.update(task, description=text)

        image = with_killers(build_guest_image(progress=say), say)
        with QemuGuest.boot(
            device_config(), build_kernel("6.12", progress=say), image, run_dir=cache_dir("killers") / "guest"
        ) as guest:
            prepare(guest.adb)
            for killer, case in pairs:
                say(f"{killer}: {case.name}")
                path = _path(killer, case)
                draft = path.with_suffix(".new")
                draft.write_bytes(gzip.compress(play(guest, killer, case).encode()))
                draft.replace(path)
                progress.advance(task)


def _verdicts(killer: str, cases: list[Case]) -> list[Verdict]:
    found = []
    for case in cases:
        path = _path(killer, case)
        if path.is_file():
            found.append(compare(killer, case, parse_trace(gzip.decompress(path.read_bytes()).decode())))
    return found


def _json(verdict: Verdict) -> dict[str, object]:
    return {
        "case": verdict.case,
        "agree": verdict.agree,
        "alike": verdict.alike,
        "real": [{"t_s": kill.t_s, "pid": kill.pid, "signal": kill.signal} for kill in verdict.real],
        "ours": [{"t_s": kill.t_s, "pid": kill.pid, "signal": kill.signal} for kill in verdict.ours],
    }


def _table(killer: str, verdicts: list[Verdict]) -> Table:
    table = Table(title=killer, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for heading in ("case", "within 20 %", "the program", "our policy", ""):
        table.add_column(heading)
    for verdict in verdicts:
        word = "[green]agree[/]" if verdict.agree else "[bold red]differ[/]"
        alike = str(verdict.alike) if verdict.real else "-"
        table.add_row(verdict.case, alike, _kills(verdict.real), _kills(verdict.ours), word)
    return table


def _kills(kills: tuple[Kill, ...]) -> str:
    return "\n".join(f"{kill.t_s:.1f} s: {kill.signal} to {kill.pid}" for kill in kills) or "nobody"


if __name__ == "__main__":
    sys.exit(main())
