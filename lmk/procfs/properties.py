"""``getprop`` without arguments: text -> values."""

from __future__ import annotations

import re

_PROPERTY = re.compile(r"^\[(?P<name>[^\]\n]*)\]: \[(?P<value>.*?)\]$", re.MULTILINE | re.DOTALL)


def parse_getprop(text: str) -> dict[str, str]:
    """``[name]: [value]`` per line; a value may hold newlines. Never raises."""
    return {found["name"]: found["value"] for found in _PROPERTY.finditer(text.replace("\r\n", "\n"))}
