"""What the verbs that run a scenario have in common: defaults, where records go, the exit code."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from lmk.config.device import DeviceConfig, load_device_config
from lmk.config.find import find_config
from lmk.config.override import override, parse_overrides
from lmk.config.quantity import InvalidValue, parse_duration_ms
from lmk.errors import UserError
from lmk.resources import state_dir

DEFAULT_CONFIG = "phone-2gb"
DEFAULT_SCENARIO = "app-switching"


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """``--set NAME=VALUE``, any number of them."""
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a property, vm.SYSCTL or zram.size in place of the config's own, e.g. ro.lmk.thrashing_limit=30",
    )


def add_kill_delay_option(parser: argparse.ArgumentParser) -> None:
    """``--inject-kill-delay TIME``: milliseconds in ``args.inject_kill_delay``."""
    parser.add_argument(
        "--inject-kill-delay",
        type=_duration_ms,
        default=0,
        metavar="TIME",
        help="hold every SIGKILL back for so long, e.g. 200ms: a fault, to see whether a gate notices it",
    )


def _duration_ms(text: str) -> int:
    try:
        return parse_duration_ms(text)
    except InvalidValue as invalid:
        raise argparse.ArgumentTypeError(
            f"{invalid.cause}; {invalid.hint}" if invalid.hint else invalid.cause
        ) from None


def load_config(args: argparse.Namespace) -> DeviceConfig:
    """The device config that ``CONFIG`` names, with what ``--set`` says. UserError for either."""
    return override(load_device_config(find_config(args.config)), parse_overrides(args.settings))


def exit_code(result: dict[str, Any]) -> int:
    """0, or 1 when an expectation of the scenario was not met."""
    return 0 if all(verdict["met"] for verdict in result["summary"]["expectations"]) else 1


def new_run_dir(asked: Path | None, name: str, option: str = "--record") -> Path:
    """A directory of its own for a record. UserError if the one asked for holds something."""
    if asked is None:
        return state_dir("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{time.time_ns() % 1_000_000:06d}"
    if asked.exists() and (not asked.is_dir() or any(asked.iterdir())):
        raise UserError(f"{option} {asked}: is there already", "give a new or an empty directory")
    try:
        asked.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} {asked}: {error.strerror}", "give a directory you may write") from None
    return asked


def find_run(text: str) -> Path:
    """A run directory; ``last`` is the newest of those lmk named itself. UserError if there is none."""
    if text != "last":
        return Path(text)
    # Two runs may begin in one second (tools/run); which one ended last is not in their names.
    found = [(path / "run.sqlite", path) for path in state_dir("runs").iterdir()]
    runs = [
        path
        for _, _, path in sorted((file.stat().st_mtime_ns, path.name, path) for file, path in found if file.is_file())
    ]
    if not runs:
        raise UserError("no run is recorded yet", "make one: lmk run")
    return runs[-1]
