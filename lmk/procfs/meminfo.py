"""``/proc/meminfo``: text -> frozen value. The kernel's "kB" is KiB (fs/proc/meminfo.c)."""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.frozen(kw_only=True)
class Meminfo:
    """Every line of the file by its name without the colon; an absent line is absent, not 0."""

    kib: Mapping[str, int]

    def get(self, name: str) -> int | None:
        """KiB of one line, None if this kernel does not have it."""
        return self.kib.get(name)


def parse_meminfo(text: str) -> Meminfo:
    """Tolerant: a line that is not ``Name: number [kB]`` is left out. Never raises."""
    kib: dict[str, int] = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        words = rest.split()
        if colon and words and words[0].isdecimal() and words[0].isascii():
            kib[name.strip()] = int(words[0])
    return Meminfo(kib=kib)
