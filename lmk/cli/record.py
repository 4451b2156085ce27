"""``lmk record``: observe a device that runs its own lmkd."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from lmk.cli.runs import new_run_dir
from lmk.cli.terminal import RunDisplay
from lmk.config.android import LAST_RELEASE
from lmk.config.probe import android_tag
from lmk.config.quantity import InvalidValue, parse_duration_ms
from lmk.errors import UserError
from lmk.live.devices import TargetName, attach_device, parse_target
from lmk.live.observe import adb_ports, observe
from lmk.live.stock import read_properties
from lmk.policy.lmkd.versions import TAGS
from lmk.record.reader import RecordReader
from lmk.report.summary import run_json
from lmk.report.table import run_tables


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``record``."""
    parser = verbs.add_parser("record", help="observe a device that runs its own lmkd, without interfering")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--serial", metavar="S", help="a device of `adb devices`")
    which.add_argument("--target", metavar="TARGET", help="adb:SERIAL or emulator:NAME")
    parser.add_argument("--duration", metavar="TIME", help="e.g. 10min; otherwise until Ctrl-C")
    parser.add_argument("--android", metavar="TAG", help="look on with the lmkd of this release (the device's own)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to leave the record (a new directory)")
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when it ended as asked; 3 when the device was lost, with the record complete up to then."""
    target = _target(args)
    duration_s = _duration_s(args.duration)
    asked = None if args.android is None else _tag(args.android)
    directory = new_run_dir(args.output, f"record-{target.name}", "--output")
    with contextlib.closing(attach_device(target)) as device:
        notes: list[str] = []
        android = asked or android_tag(read_properties(device.adb), str(target), notes)
        facts = {"target": str(target), "android": android, "assumed": notes}
        with RunDisplay() as display:
            display.progress("starting the helper", None)
            observe(lambda: adb_ports(device.adb), facts, directory, display, duration_s)
    with RecordReader(directory) as record:
        result = {**run_json(record), "notes": [*notes, *record.meta.get("notes", [])], "why": record.meta["why"]}
    if args.json:
        print(json.dumps(result))
    else:
        _show(result)
    return 0


def _show(result: dict[str, Any]) -> None:
    console = Console()
    console.print(run_tables(result))
    for note in result["notes"]:
        console.print(f"note: {note}", highlight=False, markup=False)


def _target(args: argparse.Namespace) -> TargetName:
    target = parse_target(args.target if args.target is not None else f"adb:{args.serial}")
    if target.kind not in ("adb", "emulator"):
        raise UserError(f"--target {args.target}: nothing runs there yet", "use adb:SERIAL or emulator:NAME")
    return target


def _duration_s(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        duration_ms = parse_duration_ms(text)
    except InvalidValue as error:
        raise UserError(f"--duration {text}: {error}", "write a time such as 10min") from None
    if duration_ms < 1000:
        raise UserError(f"--duration {text}: less than a second", "leave it out to record until Ctrl-C")
    return duration_ms / 1000


def _tag(text: str) -> str:
    tag = LAST_RELEASE.get(text, text)
    if tag not in TAGS:
        raise UserError(f"--android {text}: no such release", f"one of {', '.join(TAGS)}")
    return tag
