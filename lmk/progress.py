"""How long operations say what they do and how far they are."""

from __future__ import annotations

from collections.abc import Callable

#: Called with a stage in words and the fraction done (0..1), or None where it cannot be known.
Progress = Callable[[str, float | None], None]


def silent(stage: str, fraction: float | None = None) -> None:
    """A Progress that tells nobody."""
