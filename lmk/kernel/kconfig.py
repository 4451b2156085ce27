"""Config fragments: which ones make a kernel, their merged wishes, and the proof that each was granted.

For each group (goldfish, lmk, patched unless our patches are left out, debug for the debug kernel) the files
``GROUP.config``, ``GROUP-ARCH.config`` and ``GROUP-BASE.config`` are merged in that order, as far as they exist.
A later line overrides an earlier one. Kconfig drops a wish whose dependencies are not met without a word, hence
``unmet``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import attrs

from lmk.errors import InfraError

_SET = re.compile(r"^(CONFIG_[A-Za-z0-9_]+)=(.*)$")
_UNSET = re.compile(r"^# (CONFIG_[A-Za-z0-9_]+) is not set$")


@attrs.frozen(kw_only=True)
class Wish:
    """One wanted option: ``value`` as written in .config, "n" for unset; ``origin`` is FILE:LINE."""

    name: str
    value: str
    origin: str

    def line(self) -> str:
        """As it stands in a .config file."""
        return f"# {self.name} is not set" if self.value == "n" else f"{self.name}={self.value}"


def fragment_files(
    directory: Path, base: str, arch: str, *, debug: bool = False, patched: bool = True, android: bool = False
) -> list[Path]:
    """Every fragment that goes into this kernel, in merge order. ``android``: they come on top of gki_defconfig."""
    groups = [
        *(["virtual-device"] if android else ["goldfish", "lmk"]),
        *(["patched"] if patched else []),
        *(["debug"] if debug else []),
    ]
    names = [name for group in groups for name in (group, f"{group}-{arch}", f"{group}-{base}")]
    files = [directory / f"{name}.config" for name in names]
    return [file for file in files if file.is_file()]


def parse_config(text: str) -> dict[str, str]:
    """Options of a .config or fragment: name to value, "n" for those explicitly not set."""
    options: dict[str, str] = {}
    for line in text.splitlines():
        if match := _SET.match(line):
            options[match[1]] = match[2]
        elif match := _UNSET.match(line):
            options[match[1]] = "n"
    return options


def merge(files: Sequence[Path]) -> list[Wish]:
    """All wishes of the fragments; InfraError on a line that is neither an option, a comment nor empty."""
    wishes: dict[str, Wish] = {}
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            options = parse_config(line)
            if not options and line.strip() and not line.startswith("#"):
                raise InfraError(f"{file.name}:{number}: not a config line: {line}")
            for name, value in options.items():
                wishes[name] = Wish(name=name, value=value, origin=f"{file.name}:{number}")
    return list(wishes.values())


def render(wishes: Sequence[Wish]) -> str:
    """Text for KCONFIG_ALLCONFIG."""
    return "".join(wish.line() + "\n" for wish in wishes)


def unmet(wishes: Sequence[Wish], config: str) -> list[tuple[Wish, str]]:
    """Wishes that the final .config does not grant, each with the value found ("n" where absent)."""
    found = parse_config(config)
    return [(w, found.get(w.name, "n")) for w in wishes if found.get(w.name, "n") != w.value]


def verify(wishes: Sequence[Wish], config: str, what: str) -> None:
    """InfraError that names every option of ours which is not really set."""
    missing = unmet(wishes, config)
    if missing:
        wish, found = missing[0]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InfraError(
            f"{what}: {wish.origin} wants {wish.line()!r}, the final configuration has {found}{more}",
            "its dependencies are not met: mend the fragment, or leave the option to a GROUP-BASE.config",
            detail="\n".join(f"{w.origin}: {w.line()} (found: {f})" for w, f in missing),
        )
