"""``lmk calibrate``: measure on a device the rates that the simulator needs, and write them as a calibration."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lmk.backends.accel import find_accel
from lmk.backends.hostload import HostLoad
from lmk.calibrate.derive import Derived, derive
from lmk.calibrate.machine import Machine
from lmk.calibrate.measure import PASSES, measure, read_machine
from lmk.calibrate.text import calibration_json, calibration_text
from lmk.cli.runs import DEFAULT_CONFIG
from lmk.cli.terminal import shown_progress
from lmk.config.calibration import DEFAULT_NAME, EMULATOR, find_calibration, load_calibration
from lmk.config.device import DeviceConfig, load_device_config
from lmk.config.find import find_config
from lmk.device.adb import AdbDevice
from lmk.errors import UserError
from lmk.live.devices import KINDS, TargetName, check_target, open_device, parse_target
from lmk.live.session import own_pids
from lmk.progress import Progress
from lmk.sim.zone import bounce_bytes


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``calibrate``."""
    parser = verbs.add_parser("calibrate", help="measure a device's rates for the simulator, in under three minutes")
    parser.add_argument("--target", default="qemu", metavar="TARGET", help=f"one of {', '.join(KINDS)}")
    parser.add_argument(
        "--config",
        default=DEFAULT_CONFIG,
        metavar="CONFIG",
        help=f"with --target qemu: what to boot ({DEFAULT_CONFIG})",
    )
    parser.add_argument(
        "--passes",
        type=int,
        default=PASSES,
        metavar="N",
        help=f"measure everything N times, in turns ({PASSES}); more where the host's speed keeps changing",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write it (default: stdout)")
    parser.add_argument("--yes", action="store_true", help="go ahead on a device that is not an emulator")
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, then print or write the calibration."""
    config = load_device_config(find_config(args.config))
    target = parse_target(args.target)
    check_target(target, config, confirmed=args.yes, why="lmk would fill its memory and kill processes of its own")
    if args.output is not None and not args.output.parent.is_dir():
        raise UserError(f"--output {args.output}: no such directory", "make it first")
    if args.passes < 1:
        raise UserError(f"--passes {args.passes}: nothing would be measured", "give 1 or more")
    began_s = time.monotonic()
    with shown_progress() as progress:
        kind, derived, facts = _measure(target, config, progress, args.passes)
    name = kind.removeprefix("measured:")
    text = calibration_text(name, kind, derived)
    if args.output is not None:
        _write(args.output, text)
    facts["duration_s"] = round(time.monotonic() - began_s, 1)
    if args.json:
        output = str(args.output) if args.output is not None else None
        print(json.dumps({**calibration_json(name, kind, derived), **facts, "output": output}))
    elif args.output is None:
        print(text, end="")
    else:
        console = Console(width=None if Console().is_terminal else 160)
        console.print(_table(kind, derived))
        console.print(", ".join(f"{key}: {value}" for key, value in facts.items()), highlight=False)
    return 0


def _measure(
    target: TargetName, config: DeviceConfig, progress: Progress, passes: int
) -> tuple[str, Derived, dict[str, Any]]:
    with (
        tempfile.TemporaryDirectory(prefix="lmk-calibrate-") as folder,
        contextlib.closing(open_device(target, config, Path(folder) / "run", progress)) as device,
    ):
        load = HostLoad(own_pids(device))
        machine = read_machine(device.adb)
        kind = _kind(target, config, machine, progress)
        base = load_calibration(find_calibration(EMULATOR if kind == EMULATOR else DEFAULT_NAME))
        samples = measure(device.adb, _arch(device.adb), machine.cpus, progress, passes)
        result = load.finish()
    memory_bytes = None
    if target.kind == "qemu":
        # The simulator adds bounce buffers itself, where a device has them: they are not of its fixed part.
        memory_bytes = config.memory_bytes - bounce_bytes(config.memory_bytes, config.arch)
    facts = {
        "kernel": machine.kernel,
        "cpus": machine.cpus,
        "absent": dict(samples.absent),
        "host_load": round(result.other_fraction, 3),
        "disturbed": result.disturbed,
    }
    return kind, derive(samples, machine, base, memory_bytes), facts


def _arch(adb: AdbDevice) -> str:
    return adb.check_shell("uname -m").strip()


def _kind(target: TargetName, config: DeviceConfig, machine: Machine, progress: Progress) -> str:
    """The class: what software emulation measures is true of software emulation alone."""
    if target.kind == "qemu" and find_accel(config.arch, progress).name == "tcg":
        return EMULATOR
    name = target.name or machine.model
    return f"measured:{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:64]}"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise UserError(f"--output {path}: {error.strerror}", "give a file you may write") from None


def _table(kind: str, derived: Derived) -> Table:
    table = Table(title=kind, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("rate", no_wrap=True)
    for heading in ("value", "95 % interval", "n"):
        table.add_column(heading, justify="right")
    table.add_column("source")
    for number in derived.numbers:
        e = number.estimate
        interval = "-" if e is None or e.n < 2 else f"{e.value - e.half:.0f} … {e.value + e.half:.0f}"
        source = number.source.split("; ")[0]
        table.add_row(number.key, str(number.value), interval, str(e.n) if e is not None else "-", source)
    for algorithm, cost in derived.zram.items():
        for one in cost.classes:
            name = f"zram {algorithm} ratio {one.ratio_permille / 1000:g}"
            table.add_row(name, f"{one.write_ns} / {one.read_ns}", "", "", "write / read ns")
    return table
