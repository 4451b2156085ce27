"""``lmk config``: check device configs and scenarios, show what takes effect, list what is shipped."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lmk.cli import config_convert, config_push
from lmk.cli.terminal import plain_table
from lmk.config.device import DeviceConfig, load_device_config
from lmk.config.effective import DEFAULT, DERIVED, EffectiveKnob, effective_knobs
from lmk.config.find import find_config, shipped_configs, shipped_scenarios
from lmk.config.quantity import ByteRate, format_bytes, format_rate
from lmk.config.report import FileReport, check_file, check_json, device_json, read_unchecked
from lmk.errors import ConfigError
from lmk.policy.lmkd.params import RO_PREFIX


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``config`` and its sub-verbs."""
    parser = verbs.add_parser("config", help="check, show, list, import and export device configs")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    check = actions.add_parser("check", help="find every mistake in device configs and scenarios")
    check.add_argument("files", nargs="+", metavar="FILE", help="a file, or the name of a shipped one")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.set_defaults(run=_run_check)

    show = actions.add_parser("show", help="print a device as it takes effect, every lmkd property included")
    show.add_argument("config", metavar="CONFIG", help="a file, or the name of a shipped one")
    show.add_argument("--json", action="store_true", help="print one JSON object")
    show.set_defaults(run=_run_show)

    config_convert.add_actions(actions)
    config_push.add_action(actions)

    listing = actions.add_parser("list", help="list shipped device configs")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    listing.set_defaults(run=_run_list)


def _run_check(args: argparse.Namespace) -> int:
    reports = [_check(name) for name in args.files]
    errors = sum(len(report.errors) for report in reports)
    if args.json:
        print(json.dumps(check_json(reports), indent=1))
        return 2 if errors else 0
    for report in reports:
        findings = [(error.line or 0, str(error)) for error in report.errors]
        findings += [(warning.line or 0, f"warning: {warning}") for warning in report.warnings]
        for _, text in sorted(findings, key=lambda finding: finding[0]):
            print(text)
    warnings = sum(len(report.warnings) for report in reports)
    counts = f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
    print(f"{_count(len(reports), 'file')} checked: {counts}")
    return 2 if errors else 0


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _check(name: str) -> FileReport:
    path = shipped_scenarios().get(name)
    try:
        return check_file(path or find_config(name))
    except ConfigError as error:
        return FileReport(file=name, kind="unknown", name=None, errors=(error,))


def _run_show(args: argparse.Namespace) -> int:
    path = find_config(args.config)
    config, document = read_unchecked(path)
    if args.json:
        print(json.dumps(device_json(config, path), indent=1))
    else:
        _print_device(config, path)
    errors, warnings = len(document.problems.errors), len(document.problems.warnings)
    if errors or warnings:
        counts = f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
        print(f"lmk: {counts}: lmk config check {path}", file=sys.stderr)
    return 0


def _run_list(args: argparse.Namespace) -> int:
    configs = [load_device_config(path) for path in shipped_configs().values()]
    if args.json:
        print(json.dumps({"schema": 1, "configs": [_summary(config) for config in configs]}, indent=1))
        return 0
    table = plain_table("name", "memory", "swap", "Android", "description")
    for config in sorted(configs, key=lambda config: (config.memory_bytes, config.name)):
        swap = format_bytes(config.swap_bytes) if config.zram else "none"
        table.add_row(config.name, format_bytes(config.memory_bytes), swap, config.android, escape(config.description))
    Console().print(table)
    return 0


def _summary(config: DeviceConfig) -> dict[str, Any]:
    return {
        "name": config.name,
        "description": config.description,
        "memory_bytes": config.memory_bytes,
        "swap_bytes": config.swap_bytes,
        "cpus": config.cpus,
        "arch": config.arch,
        "android": config.android,
        "low_ram": config.low_ram,
    }


def _print_device(config: DeviceConfig, path: Path) -> None:
    effective = effective_knobs(config.properties, config.android)
    console = Console()
    facts = Table(box=None, show_header=False)
    for key, text in _facts(config, path):
        facts.add_row(key, escape(text))
    console.print(facts)
    if config.system:
        system = plain_table("process", "adj", "anon", "file", "hot", "compresses", title="base load")
        for one in config.system:
            sizes = (format_bytes(one.anon_bytes), format_bytes(one.file_bytes))
            system.add_row(escape(one.name), str(one.adj), *sizes, f"{one.hot:g}", f"{one.compressibility:g}")
        console.print(system)
    knobs = plain_table("property", "value", "won", "default", title=f"lmkd, {effective.params.strategy} strategy")
    for knob in effective.knobs:
        if not knob.dead:
            name = knob.row.full_name.removeprefix(RO_PREFIX)
            default = DERIVED if knob.default is None else _value(knob.default, knob)
            style = "" if knob.won in (DEFAULT, DERIVED) else "bold"
            knobs.add_row(name, _effective(knob), knob.won, default, style=style)
    console.print(knobs)
    if dead := [knob.row.name for knob in effective.knobs if knob.dead]:
        console.print(f"without effect under {effective.params.strategy}: {', '.join(dead)}")


def _facts(config: DeviceConfig, path: Path) -> list[tuple[str, str]]:
    kernel, zram, storage = config.kernel, config.zram, config.storage
    disk = "as fast as the host's"
    if storage:
        read = format_rate(ByteRate(amount_bytes=storage.read_bytes_per_s, per_ms=1000))
        disk = f"{read}, {storage.iops} IOPS"
    return [
        ("name", config.name),
        ("file", str(path)),
        ("description", config.description),
        ("Android", f"{config.android}, low-RAM" if config.low_ram else config.android),
        ("memory", f"{format_bytes(config.memory_bytes)}, {format_bytes(config.unreclaimable_bytes)} unreclaimable"),
        ("CPUs", f"{config.cpus} {config.arch}"),
        ("kernel", f"{kernel.base}, MGLRU {'on' if kernel.mglru else 'off'}, memcg {kernel.memcg}"),
        ("zram", f"{format_bytes(zram.size_bytes)} {zram.algorithm}" if zram else "none"),
        ("storage", disk),
        ("vm", ", ".join(f"{name}={number}" for name, number in config.vm.items()) or "the kernel's defaults"),
    ]


def _value(value: int | bool, knob: EffectiveKnob) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value} {knob.row.unit}" if knob.row.unit in ("ms", "kB", "%") else str(value)


def _effective(knob: EffectiveKnob) -> str:
    clamped = f" (clamped from {knob.clamped_from})" if knob.clamped_from is not None else ""
    return _value(knob.value, knob) + clamped
