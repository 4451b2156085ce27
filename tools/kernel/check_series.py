"""``tools/check-series``: each patch applies, pleases checkpatch and compiles by itself, with its options on and off.

Interrupted or failed, the same command goes on with what is left.
Exit 0: all well, 1: a patch does not compile or checkpatch complains, 3: it does not apply.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lmk import resources
from lmk.cli.main import report_error
from lmk.cli.terminal import shown_progress
from lmk.errors import LmkError
from lmk.kernel import kconfig
from lmk.kernel import source as kernel_source
from lmk.kernel.bases import BASES, DEFAULT_BASE, get_base
from lmk.kernel.series import load_series
from lmk.kernel.series_check import Place, Subject, run_checks
from lmk.kernel.toolchain import find_toolchain
from lmk.progress import Progress


def main(argv: list[str] | None = None) -> int:
    """Check what is left to check, print the verdict."""
    parser = argparse.ArgumentParser(prog="tools/check-series", description=__doc__)
    parser.add_argument("--base", default=DEFAULT_BASE, metavar="BASE", help=f"one of {', '.join(BASES)}")
    parser.add_argument("--source", type=Path, metavar="DIR", help="a kernel tree of your own (copied)")
    parser.add_argument("--deb", type=Path, metavar="FILE", help="a linux-source-X.Y package file")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="parallel jobs")
    parser.add_argument("--fresh", action="store_true", help="check again what passed before")
    args = parser.parse_args(argv)
    try:
        with shown_progress() as progress:
            place = Place.of(_subject(args, progress))
            with place.lock():
                if args.fresh:
                    place.forget()
                bad = run_checks(place, args.jobs, progress, lambda text: print(text, flush=True))
    except LmkError as error:
        report_error(error, as_json=False)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with what is left", file=sys.stderr)
        return 130
    print("\n\n".join(bad) or f"the series for {args.base} is in order")
    return 1 if bad else 0


def _subject(args: argparse.Namespace, progress: Progress) -> Subject:
    base = get_base(args.base)
    data = resources.data_dir("android-kernel-patch")
    series = load_series(data, base.name)
    if args.source is not None:
        source = kernel_source.from_tree(args.source, base)
        series = series.for_tree(args.source)
    elif args.deb is not None:
        source = kernel_source.from_deb(args.deb, base)
    else:
        source = kernel_source.fetch_package(base, progress)
    wishes = kconfig.merge(kconfig.fragment_files(data, base.name, "x86_64"))
    return Subject(series=series, source=source, toolchain=find_toolchain("x86_64"), wishes=tuple(wishes))


if __name__ == "__main__":
    sys.exit(main())
