"""Wordings of log lines as rows of tables: a sentence with fields, who writes it, and since when.

A template is the sentence itself. ``{pid}`` is a field (FIELDS says of which form), ``[[...]]`` may be absent, a
blank stands for one or more, and ``kB`` may be written ``kb`` or ``KB``. Everything else is literal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import attrs

_INT = r"-?\d+"
_HEX = r"0x[0-9a-fA-F]+"
_REST = r".*"
_WORDS = r".+?"
#: Form of each field that is not an integer.
FORMS: Mapping[str, str] = {
    "name": r".*?", "comm": r".*?", "who": r".*?", "reason": _REST, "rest": _REST, "level": r"\w+", "zone": r"\S+",
    "flags": r"\S+", "gfp": rf"{_HEX}(?:\([^)]*\))?", "constraint": r"\w+", "memcg": r"[^,]*", "label": r"[a-z]+",
    "plus": r"\+\s*\d+|", "state": r"[A-Z]{1,4}", "owner": r"\S+?", "verb": r"\w+", "file": r"\S+", "what": _WORDS,
    "list": r"[^)]*", "errno_text": _REST, "hash": r"[0-9a-f]+",
}  # fmt: skip
_TOKEN = re.compile(r"\{(\w+)\}|(\[\[)|(\]\])|( +)|(kB)")


@attrs.frozen(kw_only=True)
class Wording:
    """``shape``: its name in docs/import.md; ``android`` and ``vendor``: whose logs have it."""

    shape: str
    android: str
    vendor: str
    template: str
    pattern: re.Pattern[str] = attrs.field(
        init=False, repr=False, default=attrs.Factory(lambda self: compile_template(self.template), takes_self=True)
    )

    def read(self, text: str) -> dict[str, int | str] | None:
        """The fields, integers as such; None if the text is another. What follows the sentence is not looked at."""
        found = self.pattern.match(text)
        if found is None:
            return None
        return {
            name: int(value) if name not in FORMS else value.strip()
            for name, value in found.groupdict().items()
            if value is not None
        }


def compile_template(template: str) -> re.Pattern[str]:
    """A template as a pattern to be matched at the beginning of a message."""
    parts: list[str] = []
    at = 0
    for token in _TOKEN.finditer(template):
        parts.append(re.escape(template[at : token.start()]))
        field, opening, closing, blank, _kib = token.groups()
        if field:
            parts.append(f"(?P<{field}>{FORMS.get(field, _INT)})")
        else:
            parts.append("(?:" if opening else ")?" if closing else r"\s+" if blank else "[kK][bB]")
        at = token.end()
    parts.append(re.escape(template[at:]))
    return re.compile(r"\s*" + "".join(parts), re.ASCII)


def table(rows: Iterable[Sequence[str]]) -> tuple[Wording, ...]:
    """Rows of (shape, android, vendor, template)."""
    return tuple(
        Wording(shape=shape, android=android, vendor=vendor, template=template)
        for shape, android, vendor, template in rows
    )


def first_match(wordings: Iterable[Wording], text: str) -> tuple[Wording, dict[str, int | str]] | None:
    """The first wording that the text begins with, and its fields."""
    for wording in wordings:
        fields = wording.read(text)
        if fields is not None:
            return wording, fields
    return None
