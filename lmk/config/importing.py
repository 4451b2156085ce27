"""Memory settings out of Android's own files: build.prop, product makefiles, init rc fragments, fstab.

Pure: text in, settings and notes out. A setting is named as in a device config: ``vm.swappiness``,
``zram.size``, ``zram.algorithm``, anything else is a property.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import Final

import attrs

from lmk.config.device import VM_SYSCTLS

#: Properties that bear on killing; the others of a device tree are left behind.
KEPT_PREFIXES: Final = (
    "ro.lmk.",
    "persist.device_config.lmkd_native.",
    "ro.config.low_ram",
    "ro.config.per_app_memcg",
    "ro.slmk.",
    "dalvik.vm.heap",
)
_PROPERTY_LINE: Final = re.compile(r"\s*([A-Za-z0-9_.@:-]+)\s*(\?=|=)\s*(.*?)\s*", re.ASCII)
_MAKE_VARIABLE: Final = re.compile(
    r"\s*(?:override\s+)?([A-Z0-9_]*PROPERT(?:Y_OVERRIDES|IES))\s*(?:[+:?]?=)\s*(.*)", re.DOTALL
)
_MAKE_CONDITION: Final = re.compile(r"\s*(ifeq|ifneq|ifdef|ifndef|else|endif)\b")
_VM_PATH: Final = re.compile(r"/proc/sys/vm/([a-z_-]+)")
_ZRAM_PATH: Final = re.compile(r"/sys/(?:devices/virtual/)?block/zram0/(disksize|comp_algorithm)")
_FSTAB_SIZE: Final = re.compile(r"(?:^|,)zramsize=([0-9]+%?)(?:,|$)")
_SIZE: Final = re.compile(r"([0-9]+)([kKmMgG%]?)[bB]?", re.ASCII)
_RC_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}
_SUFFIXES: Final = {"": "B", "k": "KiB", "m": "MiB", "g": "GiB", "%": "%"}


@attrs.frozen(kw_only=True)
class Setting:
    """One assignment. An ``optional`` one (``?=``) gives way to any plain one."""

    name: str
    text: str
    line: int
    optional: bool = False


@attrs.frozen(kw_only=True)
class Note:
    """Something in a file that was not taken over as it stands."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@attrs.define
class Imported:
    """What one or several files set; a later file wins over an earlier one."""

    settings: dict[str, Setting] = attrs.field(factory=dict)
    notes: list[Note] = attrs.field(factory=list)
    #: Properties that have nothing to do with killing.
    left_behind: int = 0

    def add(self, file: str, settings: Iterable[Setting | Note]) -> None:
        """Take over the settings of one file, in its order."""
        for setting in settings:
            if isinstance(setting, Note):
                self.notes.append(setting)
            elif not setting.name.startswith((*KEPT_PREFIXES, "vm.", "zram.")):
                self.left_behind += 1
            else:
                self._set(file, setting)

    def _set(self, file: str, setting: Setting) -> None:
        before = self.settings.get(setting.name)
        if before and setting.optional and not before.optional:
            return
        if before and before.text != setting.text and before.optional == setting.optional:
            text = f"{setting.name} is {setting.text}, and was {before.text} before: the last one counts"
            self.notes.append(Note(file=file, line=setting.line, text=text))
        self.settings[setting.name] = setting


def parser_for(path: PurePath) -> Callable[[str, str], Iterator[Setting | Note]] | None:
    """The parser for a file by its name; None if it is none of the known kinds."""
    if path.suffix == ".prop":
        return parse_prop
    if path.suffix == ".mk":
        return parse_make
    if path.suffix == ".rc":
        return parse_rc
    return parse_fstab if path.name.startswith("fstab") else None


def parse_prop(text: str, file: str = "build.prop") -> Iterator[Setting | Note]:
    """A property file. As on the device, text after the value belongs to it: there are no trailing comments."""
    for number, line in enumerate(_lines(text), 1):
        stripped = line.strip(" \t")
        if not stripped or stripped.startswith(("#", "import ")):
            continue
        yield _assignment(stripped, number) or Note(file=file, line=number, text=f"not a property: {stripped}")


def parse_make(text: str, file: str = "device.mk") -> Iterator[Setting | Note]:
    """Every ``PRODUCT_*_PROPERTIES`` and ``*_PROPERTY_OVERRIDES`` block of a product makefile."""
    depth = 0
    for number, line in _make_lines(text):
        condition = _MAKE_CONDITION.match(line)
        if condition:
            depth += {"else": 0, "endif": -1}.get(condition[1], 1)
            continue
        block = _MAKE_VARIABLE.fullmatch(line)
        if block is None:
            continue
        for word in block[2].split():
            setting = _assignment(word.replace("\\#", "#").replace("$$", "\0"), number)
            if setting is None:
                yield Note(file=file, line=number, text=f"not a property: {word}")
            elif "$" in setting.text or "$" in setting.name:
                yield Note(file=file, line=number, text=f"{setting.name} depends on a make variable and is left out")
            else:
                if depth > 0 and setting.name.startswith(KEPT_PREFIXES):
                    yield Note(file=file, line=number, text=f"{setting.name} stands in a condition, taken as true")
                yield attrs.evolve(setting, text=setting.text.replace("\0", "$"))


def parse_rc(text: str, file: str = "init.rc") -> Iterator[Setting | Note]:
    """``setprop`` and ``write`` (vm sysctls, zram) of an init rc file, in file order whatever the trigger."""
    trigger = ""
    for number, line in _rc_lines(text):
        words = _rc_words(line)
        if words is None:
            yield Note(file=file, line=number, text=f"a quote without its end: {line}")
            continue
        if not words:
            continue
        if words[0] in ("on", "service", "import"):
            trigger = line if words[0] == "on" else ""
            continue
        setting = _rc_command(words, number)
        if setting is None:
            continue
        if "$" in setting.text.replace("$$", ""):
            yield Note(file=file, line=number, text=f"{setting.name} depends on a property and is left out")
            continue
        setting = attrs.evolve(setting, text=setting.text.replace("$$", "$"))
        if "property:" in trigger and "sys.boot_completed=1" not in trigger:
            yield Note(file=file, line=number, text=f"{setting.name} is set only `{trigger}`, taken as always")
        yield from _zram_or(setting, file)


def parse_fstab(text: str, file: str = "fstab") -> Iterator[Setting | Note]:
    """``zramsize=`` of an fstab's swap entry."""
    for number, line in enumerate(_lines(text), 1):
        fields = line.split()
        if len(fields) < 5 or fields[0].startswith("#") or fields[2] != "swap":
            continue
        found = _FSTAB_SIZE.search(fields[4])
        if found:
            yield from _zram_or(Setting(name="zram.size", text=found[1], line=number), file)


def _assignment(text: str, number: int) -> Setting | None:
    found = _PROPERTY_LINE.fullmatch(text)
    return Setting(name=found[1], text=found[3], line=number, optional=found[2] == "?=") if found else None


def _lines(text: str) -> list[str]:
    # Not splitlines: that also ends a line at form feeds and Unicode separators.
    return [line.removesuffix("\r") for line in text.split("\n")]


def _make_lines(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with the number of their first: continuations joined, comments cut, as make does."""
    joined, first = "", 0
    for number, line in enumerate([*_lines(text), ""], 1):
        if not joined:
            first = number
        if line.endswith("\\") and not line.endswith("\\\\"):
            # Blank lines do not end a block whose last line has a stray backslash; they do in make: so here.
            joined += line[:-1] + " "
            continue
        yield first, re.sub(r"(?<!\\)#.*", "", joined + line)
        joined = ""


def _rc_lines(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with the number of their first: continuations joined."""
    joined, first = "", 0
    for number, line in enumerate([*_lines(text), ""], 1):
        if not joined:
            first = number
        if line.endswith("\\"):
            joined += line[:-1]
            continue
        yield first, joined + line
        joined = ""


def _rc_words(line: str) -> list[str] | None:
    """Words of a line as init splits it: double quotes, backslash escapes, ``#`` before a word ends the line.

    None if a quote has no end.
    """
    words: list[str] = []
    word: str | None = None
    in_quotes = False
    letters = iter(line)
    for letter in letters:
        if letter == '"':
            in_quotes, word = not in_quotes, word or ""
        elif letter == "\\":
            following = next(letters, "")
            word = (word or "") + _RC_ESCAPES.get(following, following)
        elif not in_quotes and letter in " \t\r":
            words += [word] if word is not None else []
            word = None
        elif not in_quotes and letter == "#" and word is None:
            break
        else:
            word = (word or "") + letter
    words += [word] if word is not None else []
    return None if in_quotes else words


def _rc_command(words: list[str], number: int) -> Setting | None:
    if words[0] == "setprop" and len(words) == 3:
        return Setting(name=words[1], text=words[2], line=number)
    if words[0] == "write" and len(words) == 3:
        sysctl = _VM_PATH.fullmatch(words[1])
        if sysctl and sysctl[1] in VM_SYSCTLS:
            return Setting(name=f"vm.{sysctl[1]}", text=words[2], line=number)
        zram = _ZRAM_PATH.fullmatch(words[1])
        if zram:
            name = "zram.size" if zram[1] == "disksize" else "zram.algorithm"
            return Setting(name=name, text=words[2], line=number)
    return None


def _zram_or(setting: Setting, file: str) -> Iterator[Setting | Note]:
    if setting.name != "zram.size":
        yield setting
        return
    found = _SIZE.fullmatch(setting.text)
    if found is None:
        yield Note(file=file, line=setting.line, text=f"not a size: {setting.text}")
        return
    if int(found[1]) > 0:
        yield attrs.evolve(setting, text=found[1] + _SUFFIXES[found[2].lower()])
