"""``lmk kernel``: build the patched kernel, list what is built, measure what it gains."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from lmk.cli import kernel_bench, kernel_bundle
from lmk.cli.terminal import plain_table, shown_progress
from lmk.kernel import cache
from lmk.kernel.bases import ARCHES, BASES, DEFAULT_BASE
from lmk.kernel.build import KernelImage, build_kernel


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``kernel`` and its sub-verbs."""
    parser = verbs.add_parser("kernel", help="build, list and measure patched kernels")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    build = actions.add_parser("build", help="build a kernel with our patches (cached)")
    build.add_argument("--base", default=DEFAULT_BASE, metavar="BASE", help=f"one of {', '.join(BASES)}")
    build.add_argument("--arch", default="x86_64", metavar="ARCH", help=f"one of {', '.join(ARCHES)}")
    build.add_argument("--source", type=Path, metavar="DIR", help="a kernel tree of your own (copied)")
    build.add_argument("--deb", type=Path, metavar="FILE", help="a linux-source-X.Y package file")
    build.add_argument("--jobs", type=int, metavar="N", help="parallel jobs (default: every core)")
    build.add_argument("--debug", action="store_true", help="with KASAN, lockdep and other checks")
    build.add_argument("--unpatched", action="store_true", help="without our patches, for comparison")
    build.add_argument("--update", action="store_true", help="look for a newer source package first")
    build.add_argument("--json", action="store_true", help="print one JSON object")
    build.set_defaults(run=_run_build)

    listing = actions.add_parser("list", help="list built kernels")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    listing.set_defaults(run=_run_list)

    kernel_bench.add_action(actions)
    kernel_bundle.add_action(actions)


def _run_build(args: argparse.Namespace) -> int:
    started_s = time.monotonic()
    with shown_progress() as progress:
        image = build_kernel(
            args.base,
            args.arch,
            source=args.source,
            deb=args.deb,
            jobs=args.jobs,
            debug=args.debug,
            patched=not args.unpatched,
            update=args.update,
            progress=progress,
        )
    if args.json:
        seconds = round(time.monotonic() - started_s, 1)
        print(json.dumps({"schema": 1, "kernel": _as_json(image), "seconds": seconds}))
    else:
        print(f"{image.release} ({image.source}): {image.image}")
    return 0


def _run_list(args: argparse.Namespace) -> int:
    images = cache.all_images()
    if args.json:
        print(json.dumps({"schema": 1, "kernels": [_as_json(image) for image in images]}))
        return 0
    if not images:
        print("no kernel is built yet; build one with: lmk kernel build")
        return 0
    table = plain_table("base", "arch", "release", "patched", "debug", "source", "size", "image")
    for image in images:
        size = f"{image.image.stat().st_size / (1 << 20):.1f} MiB"
        patched, debug = ("yes" if flag else "no" for flag in (image.patched, image.debug))
        table.add_row(image.base, image.arch, image.release, patched, debug, image.source, size, str(image.image))
    # Paths are for copying: never cut or wrap them.
    Console(width=max(Console().width, 220), soft_wrap=True).print(table)
    return 0


def _as_json(image: KernelImage) -> dict[str, Any]:
    return {
        "base": image.base,
        "arch": image.arch,
        "release": image.release,
        "patched": image.patched,
        "debug": image.debug,
        "source": image.source,
        "key": image.key,
        "image": str(image.image),
        "config": str(image.config),
    }
