"""``lmk emulator``: start guests that stay, list them, look inside, end them."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import attrs
from rich.console import Console

from lmk import subproc
from lmk.backends import registry
from lmk.backends.qemu_args import check_host_memory
from lmk.backends.registry import Emulator
from lmk.cli.terminal import plain_table, shown_progress
from lmk.config.device import KERNEL_BASES, DeviceConfig, load_device_config
from lmk.config.find import find_config
from lmk.config.quantity import InvalidValue, format_bytes, format_duration_ms, parse_duration_ms
from lmk.errors import UserError
from lmk.guest.image import build_guest_image
from lmk.kernel.build import build_kernel

_DEFAULT_IDLE = "30min"


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``emulator`` and its sub-verbs."""
    parser = verbs.add_parser("emulator", help="start, list, enter and end guests that stay up")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    up = actions.add_parser("up", help="boot a device config and leave it running")
    up.add_argument("config", metavar="CONFIG", help="a device config file, or the name of a shipped one")
    up.add_argument("--name", metavar="N", help="name for later commands (default: the config's)")
    up.add_argument(
        "--idle",
        default=_DEFAULT_IDLE,
        metavar="TIME",
        help=f"power off when unused so long ({_DEFAULT_IDLE}; 0: never)",
    )
    up.add_argument("--base", metavar="BASE", help=f"another kernel: one of {', '.join(KERNEL_BASES)}")
    up.set_defaults(run=_run_up)

    down = actions.add_parser("down", help="end a guest")
    down.add_argument("name", metavar="NAME")
    down.set_defaults(run=_run_down)

    listing = actions.add_parser("list", help="list guests that are up")
    listing.set_defaults(run=_run_list)

    shell = actions.add_parser("shell", help="run a command in a guest, or open a shell in it")
    shell.add_argument("name", metavar="NAME")
    shell.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="a command; none: interactive")
    shell.set_defaults(run=_run_shell)
    for action in (up, down, listing, shell):
        action.add_argument("--json", action="store_true", help="print one JSON object")


def _run_up(args: argparse.Namespace) -> int:
    config = _config(args.config, args.base)
    name = args.name if args.name is not None else config.name
    registry.check_name(name)
    idle_s = _idle_s(args.idle)
    check_host_memory(config.memory_bytes)
    if any(emulator.name == name for emulator in registry.list_emulators()):
        raise UserError(f"an emulator named {name} is already up", f"use another --name, or: lmk emulator down {name}")
    with shown_progress() as progress:
        kernel = build_kernel(config.kernel.base, config.arch, progress=progress)
        image = build_guest_image(config.arch, progress)
        emulator = registry.up(
            config,
            kernel,
            image,
            name=name,
            config_path=str(find_config(args.config).resolve()),
            idle_s=idle_s,
            progress=progress,
        )
    if args.json:
        print(json.dumps({"schema": 1, "emulator": _as_json(emulator)}))
    else:
        took, userland = emulator.boot_ms / 1000, emulator.userland_kib / 1024
        print(f"{emulator.name} is up after {took:.1f} s; its userland takes {userland:.1f} MiB of RAM")
        print(f"use it with: adb connect {emulator.serial}, or: lmk emulator shell {emulator.name}")
    return 0


def _run_down(args: argparse.Namespace) -> int:
    emulator = registry.down(args.name)
    if args.json:
        print(json.dumps({"schema": 1, "emulator": _as_json(emulator)}))
    else:
        print(f"{emulator.name} is down; its console log is {emulator.console_path}")
    return 0


def _run_list(args: argparse.Namespace) -> int:
    emulators = registry.list_emulators()
    if args.json:
        print(json.dumps({"schema": 1, "emulators": [_as_json(emulator) for emulator in emulators]}))
        return 0
    if not emulators:
        print("no emulator is up; start one with: lmk emulator up CONFIG")
        return 0
    table = plain_table("name", "state", "config", "memory", "kernel", "serial", "up for", "idle limit", "accel")
    for emulator in emulators:
        up_for = format_duration_ms(max(0, int(time.time()) - emulator.started_unix_s) * 1000)
        idle = format_duration_ms(emulator.idle_s * 1000) if emulator.idle_s else "none"
        table.add_row(
            emulator.name,
            emulator.state,
            emulator.config,
            format_bytes(emulator.memory_bytes),
            emulator.kernel_release or emulator.kernel_base,
            emulator.serial,
            up_for,
            idle,
            emulator.accel,
        )
    # Serials are for copying: never cut or wrap them.
    Console(width=max(Console().width, 140), soft_wrap=True).print(table)
    return 0


def _run_shell(args: argparse.Namespace) -> int:
    """The exit code is the command's own, as with ``adb shell``."""
    with registry.attach(args.name) as guest:
        if not args.command:
            if args.json:
                raise UserError("--json needs a command", "as in: lmk emulator shell --json NAME getprop")
            return subproc.run_interactive(guest.adb_server.command("-s", guest.adb.serial, "shell"))
        result = guest.adb.shell(" ".join(args.command), timeout_s=24 * 3600.0)
    if args.json:
        answer = {"exit_code": result.exit_code, "stdout": result.stdout, "stderr": result.stderr}
        print(json.dumps({"schema": 1, **answer}))
    else:
        sys.stdout.write(result.stdout)
        sys.stderr.write(result.stderr)
    return result.exit_code


def _config(name: str, base: str | None) -> DeviceConfig:
    config = load_device_config(find_config(name))
    if base is None:
        return config
    if base not in KERNEL_BASES:
        raise UserError(f"--base {base}: no such kernel base", f"one of: {', '.join(KERNEL_BASES)}")
    return attrs.evolve(config, kernel=attrs.evolve(config.kernel, base=base))


def _idle_s(text: str) -> int:
    if text == "0":
        return 0
    try:
        idle_ms = parse_duration_ms(text)
    except InvalidValue as error:
        raise UserError(f"--idle {text}: {error.cause}", error.hint or "as in 30min or 0 for never") from None
    if idle_ms < 1000:
        raise UserError(f"--idle {text}: less than a second", "as in 30min, or 0 for never")
    return idle_ms // 1000


def _as_json(emulator: Emulator) -> dict[str, Any]:
    body = attrs.asdict(emulator)
    del body["pid_start_ticks"]
    return {**body, "serial": emulator.serial, "console": str(emulator.console_path)}
