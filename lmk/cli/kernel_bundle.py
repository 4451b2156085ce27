"""``lmk kernel bundle``: kernel, guest and device programs in one file, for machines that build nothing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lmk.backends.bundle import write_bundle
from lmk.cli.terminal import shown_progress
from lmk.errors import UserError
from lmk.guest.image import build_guest_image
from lmk.kernel.bases import ARCHES, BASES, DEFAULT_BASE
from lmk.kernel.build import build_kernel


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``kernel bundle``."""
    parser = actions.add_parser("bundle", help="pack kernel, guest and helper for `lmk run --bundle`")
    parser.add_argument("--base", default=DEFAULT_BASE, metavar="BASE", help=f"one of {', '.join(BASES)}")
    parser.add_argument("--arch", default="x86_64", metavar="ARCH", help=f"one of {', '.join(ARCHES)}")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: lmk-BASE-ARCH.bundle here")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build what is missing and pack it."""
    output: Path = args.output or Path(f"lmk-{args.base}-{args.arch}.bundle")
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: not a file one could write", "give a file in a directory that exists")
    with shown_progress() as progress:
        kernel = build_kernel(args.base, args.arch, progress=progress)
        image = build_guest_image(args.arch, progress)
        write_bundle(kernel, image, output, progress)
    size = output.stat().st_size
    if args.json:
        print(json.dumps({"schema": 1, "bundle": str(output), "bytes": size, "kernel": kernel.release}))
    else:
        print(f"{output}: {size / (1 << 20):.0f} MiB, {kernel.release} for {kernel.arch}")
        print(f"use it with: lmk run --bundle {output}")
    return 0
