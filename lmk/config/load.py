"""YAML files a user writes, read strictly: the only importer of yaml.

The file is composed into nodes, never constructed into objects, so every key and value keeps its line and
its text as written (``0x10``, ``on``, ``1.0`` stay what the user typed). Nothing is executed or expanded.

A reader walks the tree with sections; whatever is wrong is collected, so that one pass names every
mistake of a file::

    document = open_document(path)
    with document.root.section() as top:
        memory = top.need("memory", size, 0)          # 0 stands in after an error, never seen by a caller
        seed = top.take("seed", integer(minimum=0), 1)    # optional, default 1
        with top.subsection("kernel") as kernel: ...
    document.problems.raise_if_any()                      # ConfigErrors, in line order

Leaving a section reports every key nobody took, with the nearest known name.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, TypeVar

import attrs
import yaml

from lmk.config.quantity import InvalidValue
from lmk.errors import ConfigError, ConfigErrors

T = TypeVar("T")

#: Larger files are not something a person wrote.
MAX_FILE_BYTES: Final = 4 * 1024 * 1024

_fast_loader: Final = getattr(yaml, "CSafeLoader", None)
#: libyaml's composer recurses on the C stack: neither more brackets than this nor a list in a list in … is for it.
_NESTING_MAX: Final = 1000
_NESTED_LINE: Final = re.compile(r"(?:[-?:]\s+(?:[&!]\S*\s+)*){8}")

Kind = Literal["mapping", "list", "string", "integer", "number", "boolean", "nothing"]
_KINDS: Final[dict[str, Kind]] = {
    "tag:yaml.org,2002:map": "mapping",
    "tag:yaml.org,2002:seq": "list",
    "tag:yaml.org,2002:str": "string",
    "tag:yaml.org,2002:timestamp": "string",
    "tag:yaml.org,2002:int": "integer",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:bool": "boolean",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:merge": "string",
    "tag:yaml.org,2002:value": "string",
}


@attrs.frozen(kw_only=True)
class ConfigWarning:
    """Something that loads but will not do what its writer may expect."""

    file: str
    line: int | None
    field: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else self.file
        text = f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"
        return f"{text}; {self.hint}" if self.hint else text


@attrs.define
class Problems:
    """What is wrong with one file, gathered while it is read."""

    file: str
    errors: list[ConfigError] = attrs.field(factory=list)
    warnings: list[ConfigWarning] = attrs.field(factory=list)

    def error(self, line: int | None, field: str, cause: str, hint: str = "") -> None:
        """Record an error; the same line is recorded once."""
        found = ConfigError(self.file, line, field, cause, hint)
        if str(found) not in map(str, self.errors):
            self.errors.append(found)

    def warn(self, line: int | None, field: str, message: str, hint: str = "") -> None:
        """Record a warning."""
        self.warnings.append(ConfigWarning(file=self.file, line=line, field=field, message=message, hint=hint))

    def raise_if_any(self) -> None:
        """Raise ConfigErrors with all errors in line order, if there are any."""
        if self.errors:
            raise ConfigErrors(sorted(self.errors, key=lambda error: error.line or 0))


@attrs.frozen
class Value:
    """One YAML node with its place: ``field`` is the dotted path (``zram.size``, ``steps[3].launch``)."""

    node: yaml.Node
    field: str
    problems: Problems
    #: Where its key stands; None for a list's items and the whole file.
    key_line: int | None = None

    @property
    def line(self) -> int:
        """Line of its key, else of its text, counted from 1."""
        return self.key_line or int(self.node.start_mark.line) + 1

    @property
    def column(self) -> int:
        """Counted from 1."""
        return int(self.node.start_mark.column) + 1

    @property
    def kind(self) -> Kind | None:
        """What YAML takes the node for; None for a tag of somebody's own (``!include``)."""
        return _KINDS.get(self.node.tag)

    @property
    def text(self) -> str:
        """A scalar exactly as written, without quotes; empty for mappings and lists."""
        return str(self.node.value) if isinstance(self.node, yaml.ScalarNode) else ""

    @property
    def quoted(self) -> bool:
        """Whether a scalar stood in quotes."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.style in ("'", '"')

    def describe(self) -> str:
        """What was found, for an error: ``the number 14.0``, ``a list``, ``'2GB'``."""
        match self.kind:
            case "mapping" | "list":
                return f"a {self.kind}"
            case "nothing":
                return "no value"
            case "integer" | "number":
                return f"the number {self.text}"
            case "boolean":
                return f"the truth value {self.text}"
            case "string":
                return repr(self.text)
            case None:
                return f"the tag {self.node.tag}"

    def error(self, cause: str, hint: str = "") -> None:
        """Record an error at this value."""
        self.problems.error(self.line, self.field, cause, hint)

    def convert(self, convert: Callable[[Value], T], placeholder: T) -> T:
        """``convert(self)``; an InvalidValue becomes a recorded error and the placeholder is returned."""
        try:
            return convert(self)
        except InvalidValue as invalid:
            self.error(invalid.cause, invalid.hint)
            return placeholder

    def entries(self) -> dict[str, Value]:
        """A mapping's values by key, in file order; duplicate and non-text keys are recorded errors.

        Raises InvalidValue if this is no mapping.
        """
        if not isinstance(self.node, yaml.MappingNode) or self.kind != "mapping":
            raise InvalidValue(f"found {self.describe()}, expected keys with values")
        found: dict[str, Value] = {}
        first_line: dict[str, int] = {}
        for key_node, node in self.node.value:
            line = int(key_node.start_mark.line) + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.error(line, self.field, "found a mapping or list as a key, expected a name")
                continue
            key = str(key_node.value)
            path = f"{self.field}.{key}" if self.field else key
            if key in found:
                self.problems.error(
                    line, path, f"given twice, first on line {first_line[key]}", "remove one of the two"
                )
                continue
            found[key], first_line[key] = Value(node, path, self.problems, line), line
        return found

    def items(self) -> list[Value]:
        """A list's values in order. Raises InvalidValue if this is no list."""
        if not isinstance(self.node, yaml.SequenceNode) or self.kind != "list":
            raise InvalidValue(f"found {self.describe()}, expected a list")
        return [Value(node, f"{self.field}[{i}]", self.problems) for i, node in enumerate(self.node.value)]

    @contextlib.contextmanager
    def section(self) -> Iterator[Section]:
        """This mapping as a Section; on leaving, keys nobody took are recorded as errors."""
        entries = self.convert(Value.entries, dict[str, Value]())
        usable = self.kind == "mapping"
        section = Section(self, entries, usable)
        yield section
        section.report()


@attrs.define
class Section:
    """A mapping of which every key must be taken."""

    value: Value
    entries: dict[str, Value]
    #: False if the file has something else here: then missing keys are not reported on top.
    usable: bool
    known: list[str] = attrs.field(factory=list)
    missing: list[str] = attrs.field(factory=list)

    @property
    def problems(self) -> Problems:
        """Where this file's errors are gathered."""
        return self.value.problems

    def path(self, key: str) -> str:
        """Dotted path of a key of this section."""
        return f"{self.value.field}.{key}" if self.value.field else key

    def get(self, key: str) -> Value | None:
        """The value of an optional key; marks the key as known."""
        if key not in self.known:
            self.known.append(key)
        return self.entries.get(key)

    def take(self, key: str, convert: Callable[[Value], T], default: T) -> T:
        """An optional key; ``default`` if it is absent (and, after an error, as a placeholder)."""
        value = self.get(key)
        return default if value is None else value.convert(convert, default)

    def need(self, key: str, convert: Callable[[Value], T], placeholder: T) -> T:
        """A required key; absence is an error. The placeholder only ever stands in after an error."""
        value = self.get(key)
        if value is not None:
            return value.convert(convert, placeholder)
        self.missing.append(key)
        return placeholder

    @contextlib.contextmanager
    def subsection(self, key: str) -> Iterator[Section]:
        """An optional mapping below ``key``; an empty section if it is absent."""
        value = self.get(key)
        if value is None:
            absent = Value(self.value.node, self.path(key), self.problems)
            yield Section(absent, {}, usable=False)
            return
        with value.section() as section:
            yield section

    def report(self) -> None:
        """Record an error for every key that was never asked for, and for every required one not given.

        A required key that was misspelt counts once, as the unknown key.
        """
        misspelt: set[str] = set()
        for key, value in self.entries.items():
            if key not in self.known:
                near = nearest(key, [name for name in self.known if name not in self.entries])
                misspelt.add(near or "")
                value.error("unknown key", f"did you mean {near}?" if near else known_list(self.known))
        for key in self.missing:
            if self.usable and key not in misspelt:
                self.problems.error(self.value.line, self.path(key), "is missing", f"add `{key}:`")


@attrs.frozen
class Document:
    """One file: its root value and what is wrong with it."""

    path: Path
    root: Value
    problems: Problems


def open_document(path: Path | str) -> Document:
    """Read one YAML file. Raises ConfigErrors if it cannot be read or is not one YAML mapping."""
    problems = Problems(str(path))
    return _document(_text(Path(path), problems), problems)


def parse_document(text: str, file: str) -> Document:
    """One YAML file's text; ``file`` is what its errors call it. Raises ConfigErrors as open_document."""
    return _document(text, Problems(file))


def _document(text: str, problems: Problems) -> Document:
    node = None
    try:
        node = _compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.error(mark.line + 1 if mark else None, "", f"not valid YAML: {error.problem}")
    except yaml.reader.ReaderError as error:
        problems.error(None, "", f"not valid YAML: character {error.character!r} at offset {error.position}")
    except RecursionError:
        problems.error(None, "", "not usable: nested too deeply")
    problems.raise_if_any()
    if node is None:
        raise ConfigErrors([ConfigError(problems.file, None, "", "is empty", "see a shipped one: lmk config list")])
    if not isinstance(node, yaml.MappingNode):
        problems.error(node.start_mark.line + 1, "", "found no keys at the top level, expected `name:` and others")
    problems.raise_if_any()
    return Document(Path(problems.file), Value(node, "", problems), problems)


def _compose(text: str) -> yaml.Node | None:
    """libyaml is ten times as fast; what it does not like, or nests deep, the Python parser words and bounds."""
    brackets = text.count("[") + text.count("{")
    if _fast_loader is not None and brackets < _NESTING_MAX and not _NESTED_LINE.search(text):
        with contextlib.suppress(yaml.YAMLError):
            return yaml.compose(text, Loader=_fast_loader)
    return yaml.compose(text, Loader=yaml.SafeLoader)


def read_text(path: Path) -> str:
    """Any text file a user names. Raises ConfigErrors if it cannot be read, is no UTF-8 text or far too big."""
    return _text(path, Problems(str(path)))


def _text(path: Path, problems: Problems) -> str:
    text = ""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            problems.error(None, "", f"is larger than {MAX_FILE_BYTES // 1024 // 1024} MiB", "not a config?")
        text = data.decode("utf-8-sig")
    except OSError as error:
        problems.error(None, "", f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        problems.error(line, "", f"is not UTF-8 text (byte {data[error.start]:#04x})")
    problems.raise_if_any()
    return text


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name most like ``name``, upper and lower case alike; None if none is nearer than ``cutoff``
    (0: anything, 1: equal)."""
    by_folded = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_folded, n=1, cutoff=cutoff)
    return by_folded[near[0]] if near else None


def suggest(name: str, known: Iterable[str]) -> str:
    """``did you mean NEAREST?``, or an empty text if nothing is near."""
    near = nearest(name, known)
    return f"did you mean {near}?" if near else ""


def known_list(known: Iterable[str]) -> str:
    """``known: a, b, c``, shortened where it would not fit a line."""
    names = list(known)
    return f"known: {', '.join(names[:12])}{', …' if len(names) > 12 else ''}" if names else ""
