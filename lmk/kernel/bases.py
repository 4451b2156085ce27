"""The kernel bases lmk has patches for, and the Debian suites that carry their source packages."""

from __future__ import annotations

import attrs

from lmk.errors import UserError

DEFAULT_BASE = "6.12"
ARCHES = ("x86_64", "arm64")


@attrs.frozen(kw_only=True)
class Base:
    """One kernel release line. ``build_lines``: lines `make` prints for a whole build, for the progress bar."""

    name: str
    package: str
    suites: tuple[str, ...]
    build_lines: int


BASES: dict[str, Base] = {
    base.name: base
    for base in (
        Base(
            name="6.12",
            package="linux-source-6.12",
            suites=("trixie", "bookworm"),
            build_lines=1550,
        ),
        Base(
            name="6.1",
            package="linux-source-6.1",
            suites=("bookworm",),
            build_lines=1500,
        ),
        Base(
            name="5.10",
            package="linux-source-5.10",
            suites=("bullseye",),
            build_lines=1500,
        ),
    )
}


def get_base(name: str) -> Base:
    """The base of that name; UserError that lists what there is."""
    base = BASES.get(name)
    if base is None:
        raise UserError(f"no kernel base {name!r}", f"choose one of: {', '.join(BASES)}")
    return base


def check_arch(arch: str) -> str:
    """``arch`` itself, or a UserError."""
    if arch not in ARCHES:
        raise UserError(
            f"no kernel for architecture {arch!r}",
            f"choose one of: {', '.join(ARCHES)}",
        )
    return arch
