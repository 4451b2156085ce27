"""``lmk config import``, ``pull`` and ``export``: between device configs, Android's own files, and devices."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lmk.config.android import android_tag
from lmk.config.assemble import Facts, assemble_device
from lmk.config.convert import integer
from lmk.config.device import (
    ARCHITECTURES,
    KERNEL_BASES,
    DeviceConfig,
    load_device_config,
    memory_size,
    plain_name,
)
from lmk.config.dump import dump_device, quoted
from lmk.config.exporting import FORMATS
from lmk.config.find import find_config
from lmk.config.importing import Imported, parser_for
from lmk.config.load import Section, parse_document, read_text
from lmk.config.probe import PROBE_COMMAND, probed_device
from lmk.config.report import check_text
from lmk.device.adb import user_device
from lmk.errors import ConfigError, UserError

#: A phone under pressure takes seconds for its few hundred small reads.
PROBE_TIMEOUT_S = 60.0


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``import``, ``pull`` and ``export`` below ``lmk config``."""
    importing = actions.add_parser("import", help="make a device config of a device tree's files")
    importing.add_argument("files", nargs="+", metavar="FILE", help=".prop, .mk, init .rc or fstab*; the last wins")
    importing.add_argument("--name", required=True, help="name of the new config")
    importing.add_argument("--memory", required=True, metavar="SIZE", help="RAM, e.g. 4GiB")
    importing.add_argument("--cpus", required=True, metavar="N", help="number of CPUs")
    importing.add_argument("--android", required=True, metavar="RELEASE", help="e.g. 14, or a tag such as 14.0")
    importing.add_argument("--arch", default="x86_64", choices=ARCHITECTURES, help="default: %(default)s")
    importing.add_argument("--kernel", default="6.12", choices=KERNEL_BASES, help="default: %(default)s")
    importing.add_argument("-o", "--output", type=Path, metavar="FILE", help="write there, not to stdout")
    importing.add_argument("--json", action="store_true", help="print one JSON object")
    importing.set_defaults(run=_run_import)

    pulling = actions.add_parser("pull", help="make a device config of a running device")
    pulling.add_argument("--serial", required=True, help="the device, as `adb devices` names it")
    pulling.add_argument("--name", help="name of the new config (default: the device's)")
    pulling.add_argument("-o", "--output", type=Path, metavar="FILE", help="write there, not to stdout")
    pulling.add_argument("--json", action="store_true", help="print one JSON object")
    pulling.set_defaults(run=_run_pull)

    exporting = actions.add_parser("export", help="write a config's settings as Android takes them")
    exporting.add_argument("config", metavar="CONFIG", help="a file, or the name of a shipped one")
    exporting.add_argument("--format", required=True, choices=sorted(FORMATS), help="which kind of file")
    exporting.add_argument("-o", "--output", type=Path, metavar="FILE", help="write there, not to stdout")
    exporting.add_argument("--json", action="store_true", help="print one JSON object")
    exporting.set_defaults(run=_run_export)


def _run_import(args: argparse.Namespace) -> int:
    facts = _facts(args)
    imported = Imported()
    for name in args.files:
        path = Path(name)
        parse = parser_for(path)
        if parse is None:
            raise ConfigError(name, None, "", "not a kind of file that is read", "expected .prop, .mk, .rc or fstab*")
        imported.add(name, parse(read_text(path), name))
    config, notes = assemble_device(imported, facts, [Path(name).name for name in args.files])
    return _tell(args, config, notes)


def _run_pull(args: argparse.Namespace) -> int:
    name = None
    if args.name is not None:
        options = _options({"name": args.name})
        name = options.need("name", plain_name, "")
        _refuse(options)
    answer = user_device(args.serial).shell(PROBE_COMMAND, PROBE_TIMEOUT_S)
    config, notes = probed_device(answer.stdout, args.serial, name)
    return _tell(args, config, notes)


def _tell(args: argparse.Namespace, config: DeviceConfig, notes: list[str]) -> int:
    text = dump_device(config)
    report = check_text(text, str(args.output or f"{config.name}.yaml"))
    if args.json:
        errors = [str(error) for error in report.errors]
        print(json.dumps({"schema": 1, "name": config.name, "yaml": text, "notes": notes, "errors": errors}, indent=1))
    for line in (*notes, *report.errors):
        print(f"lmk: {line}", file=sys.stderr)
    _put(text, args.output, shown=not args.json)
    return 2 if report.errors else 0


def _facts(args: argparse.Namespace) -> Facts:
    top = _options({"name": args.name, "memory": args.memory, "cpus": args.cpus, "android": args.android})
    facts = Facts(
        name=top.need("name", plain_name, ""),
        memory_bytes=top.need("memory", memory_size, 0),
        cpus=top.need("cpus", integer(minimum=1, maximum=64), 1),
        android=top.need("android", android_tag, ""),
        arch=args.arch,
        kernel_base=args.kernel,
    )
    _refuse(top)
    return facts


def _options(given: dict[str, str]) -> Section:
    """Options as if they stood in a file, so that they are held to the rules of its keys."""
    text = "".join(f"{key}: {quoted(value) if value else '~'}\n" for key, value in given.items())
    root = parse_document(text, "options").root
    return Section(root, root.entries(), usable=True)


def _refuse(options: Section) -> None:
    for error in options.problems.errors:
        raise UserError(f"--{error.field}: {error.message}", error.remedy)


def _run_export(args: argparse.Namespace) -> int:
    config = load_device_config(find_config(args.config))
    text = FORMATS[args.format](config)
    if args.json:
        print(json.dumps({"schema": 1, "name": config.name, "format": args.format, "text": text}, indent=1))
    _put(text, args.output, shown=not args.json)
    return 0


def _put(text: str, output: Path | None, *, shown: bool) -> None:
    if output is None:
        if shown:
            print(text, end="")
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}", "choose another --output") from None
