"""Which Android a device config means: the tag that selects lmkd's behaviour, and what Android calls it.

A tag names one release of system/memory/lmkd; a bare number means that Android's last quarterly release.
"""

from __future__ import annotations

from typing import Final

from lmk.config.load import Value, suggest
from lmk.config.quantity import InvalidValue

#: Tag -> (ro.build.version.release, ro.build.version.sdk), oldest first. N1-N3 are trees after 16.
TAGS: Final[dict[str, tuple[str, int]]] = {
    "11.0": ("11", 30),
    "11Q1": ("11", 30),
    "11Q3": ("11", 30),
    "12": ("12", 31),
    "12L": ("12", 32),
    "13.0": ("13", 33),
    "13Q1": ("13", 33),
    "13Q2": ("13", 33),
    "14.0": ("14", 34),
    "14Q2": ("14", 34),
    "15.0": ("15", 35),
    "15Q1": ("15", 35),
    "15Q2": ("15", 35),
    "16": ("16", 36),
    "N1": ("17", 37),
    "N2": ("17", 37),
    "N3": ("17", 37),
}
#: What a bare number stands for.
LAST_RELEASE: Final[dict[str, str]] = {
    "11": "11Q3",
    "12": "12",
    "13": "13Q2",
    "14": "14Q2",
    "15": "15Q2",
    "16": "16",
}


def android_tag(value: Value) -> str:
    """The tag for ``android:`` of a config. Raises InvalidValue.

    ``14`` and ``"14"`` are the last quarterly release of 14, ``"14.0"`` and ``14Q2`` are tags. A YAML number
    with a fraction is refused: 14.0 unquoted may be meant either way, and YAML would read 14.10 as 14.1.
    """
    text = value.text
    if value.kind == "number":
        major = text.partition(".")[0]
        whole = f"{major} for its last quarterly release" if major in LAST_RELEASE else "a release such as 14"
        quoted = f' or "{text}" in quotes for that tag' if text in TAGS else ""
        raise InvalidValue(f"found the number {text}, expected a whole number or a tag", f"write {whole}{quoted}")
    if value.kind not in ("integer", "string"):
        raise InvalidValue(f"found {value.describe()}, expected an Android release such as 14")
    if text in LAST_RELEASE:
        return LAST_RELEASE[text]
    if text in TAGS:
        return text
    if value.kind == "integer":
        raise InvalidValue(f"found {value.describe()}", f"known: {', '.join(LAST_RELEASE)}")
    raise InvalidValue(f"found {value.describe()}", suggest(text, TAGS) or f"known tags: {', '.join(TAGS)}")


def tag_index(tag: str) -> int:
    """Position of a tag in time; ``tag_index(a) <= tag_index(b)`` means that a is not after b."""
    return list(TAGS).index(tag)
