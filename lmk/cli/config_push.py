"""``lmk config push``: a config's settings onto a running device, and back."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lmk.config.device import load_device_config
from lmk.config.find import find_config
from lmk.config.push import (
    PUSH_PROBE,
    Change,
    Device,
    Saved,
    apply_commands,
    before,
    changes,
    check_rights,
    merged,
    not_arrived,
    read_device,
    saved_from,
    saved_json,
    undo_commands,
)
from lmk.device.adb import AdbDevice, user_device
from lmk.errors import DeviceLostError, UserError
from lmk.live.devices import looks_like_emulator
from lmk.resources import state_dir

SCHEMA = 1
#: ``cmd`` starts a runtime of its own for each call, which takes a slow phone seconds.
_TIMEOUT_S = 60.0
#: A flag becomes a property only after a while.
_ARRIVE_S = 10.0


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``push`` below ``lmk config``."""
    pushing = actions.add_parser("push", help="apply a config's settings to a running device, or undo that")
    pushing.add_argument("config", nargs="?", metavar="CONFIG", help="a file, or the name of a shipped one")
    pushing.add_argument("--serial", required=True, help="the device, as `adb devices` names it")
    pushing.add_argument("--dry-run", action="store_true", help="show what differs and apply nothing")
    pushing.add_argument("--undo", action="store_true", help="take back what was pushed to this device")
    pushing.add_argument("--yes", action="store_true", help="go ahead on a device that is not an emulator")
    pushing.add_argument("--json", action="store_true", help="print one JSON object")
    pushing.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Push, or undo; 3 if the device does not have in the end what it was given."""
    if args.undo == (args.config is not None):
        raise UserError("what is to be pushed?", "name a CONFIG, or give --undo")
    config = None if args.config is None else load_device_config(find_config(args.config))
    adb = user_device(args.serial)
    device = _ask(adb)
    if not args.dry_run and not args.yes and not looks_like_emulator(dict(device.properties)):
        raise UserError(
            f"{args.serial} is not an emulator, and this changes its settings", "look with --dry-run, then add --yes"
        )
    if config is None:
        return _undo(args, adb, device)
    found = changes(config, device)
    applicable = [change for change in found if change.how != "reboot"]
    if not args.dry_run and applicable:
        check_rights(applicable, device)
        _keep(before(applicable, device))
        for command in apply_commands(applicable, device):
            adb.check_shell(command, _TIMEOUT_S)
        _wait_for(adb, applicable)
    applied = not args.dry_run
    _tell(args, {"config": config.name, "applied": applied, "changes": [_change_json(c, applied) for c in found]})
    return 0


def _ask(adb: AdbDevice) -> Device:
    return read_device(adb.shell(PUSH_PROBE, _TIMEOUT_S).stdout, adb.serial)


def _wait_for(adb: AdbDevice, applied: list[Change]) -> None:
    """Ask again until all has arrived. Raises DeviceLostError, naming what has not."""
    end_s = time.monotonic() + _ARRIVE_S
    while missing := not_arrived(applied, _ask(adb)):
        if time.monotonic() > end_s:
            raise DeviceLostError(
                f"{adb.serial}: did not take {', '.join(missing)}", f"lmk config push --serial {adb.serial} --undo"
            )
        time.sleep(0.5)


def _undo(args: argparse.Namespace, adb: AdbDevice, device: Device) -> int:
    saved = _kept(args.serial)
    if saved is None:
        raise UserError(f"{args.serial}: nothing was pushed to it from here", "see its settings: lmk config pull")
    commands = undo_commands(saved, device)
    if not args.dry_run:
        for command in commands:
            adb.check_shell(command, _TIMEOUT_S)
        _file(args.serial).unlink()
    names = [*saved.overrides, *(f"vm.{name}" for name in saved.sysctls)]
    rows = [
        {"name": name, "device": None, "wanted": text, "how": "undo", "why": None, "applied": not args.dry_run}
        for name, text in zip(names, [*saved.overrides.values(), *saved.sysctls.values()], strict=True)
    ]
    _tell(args, {"config": None, "applied": not args.dry_run, "changes": rows})
    return 0


def _file(serial: str) -> Path:
    return state_dir("push") / f"{serial.replace('/', '_').replace(':', '_')}.json"


def _kept(serial: str) -> Saved | None:
    path = _file(serial)
    try:
        return saved_from(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be used: {error}", "remove it; what was pushed cannot be undone") from None


def _keep(saved: Saved) -> None:
    """Write down what undo needs before anything is changed, so that a crash in the middle can be undone too."""
    older = _kept(saved.serial)
    path = _file(saved.serial)
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(saved_json(merged(older, saved) if older else saved), file, indent=1)
        file.flush()
        with contextlib.suppress(OSError):
            os.fsync(file.fileno())
    new.replace(path)


def _change_json(change: Change, applied: bool) -> dict[str, Any]:
    return {
        "name": change.name,
        "device": change.device,
        "wanted": change.wanted,
        "how": change.how,
        "why": change.why or None,
        "applied": applied and change.how != "reboot",
    }


def _tell(args: argparse.Namespace, body: dict[str, Any]) -> None:
    result = {"schema": SCHEMA, "serial": args.serial, **body}
    if args.json:
        print(json.dumps(result, indent=1))
        return
    rows = result["changes"]
    if not rows:
        print(f"{args.serial} has all of {result['config']} already")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("setting", "device", "wanted", ""):
        table.add_column(heading)
    for row in rows:
        words = f"needs a reboot: {row['why']}" if row["how"] == "reboot" else row["how"]
        state = "" if row["how"] == "reboot" else "done, " if row["applied"] else "would go by "
        table.add_row(row["name"], row["device"] or "-", row["wanted"] or "unset", state + words)
    Console().print(table)
    if result["applied"] and result["config"]:
        print(f"undo: lmk config push --serial {args.serial} --undo")
