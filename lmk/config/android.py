"""Which Android a device config means: the tag that selects lmkd's behaviour, and what Android calls it."""

from __future__ import annotations

from typing import Final

from lmk.config.load import Value, suggest
from lmk.config.quantity import InvalidValue
from lmk.policy.lmkd.versions import LAST_QUARTERLY, TAGS

#: Tag -> (ro.build.version.release, ro.build.version.sdk); N1 to N3 are trees after 16.
BUILD_VERSIONS: Final[dict[str, tuple[str, int]]] = {
    **dict.fromkeys(("11.0", "11Q1", "11Q3"), ("11", 30)),
    "12": ("12", 31),
    "12L": ("12", 32),
    **dict.fromkeys(("13.0", "13Q1", "13Q2"), ("13", 33)),
    **dict.fromkeys(("14.0", "14Q2"), ("14", 34)),
    **dict.fromkeys(("15.0", "15Q1", "15Q2"), ("15", 35)),
    "16": ("16", 36),
    **dict.fromkeys(("N1", "N2", "N3"), ("17", 37)),
}
#: What a bare number, as text, stands for.
LAST_RELEASE: Final = {str(number): tag for number, tag in LAST_QUARTERLY.items()}


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
