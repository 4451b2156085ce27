"""``/proc/vmstat``: text -> frozen value. Counts of pages or events, as the name says (mm/vmstat.c)."""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.frozen(kw_only=True)
class Vmstat:
    """Every counter by name; an absent counter is absent, not 0: kernels rename them."""

    counters: Mapping[str, int]

    def get(self, name: str) -> int | None:
        """One counter, None if this kernel does not have it."""
        return self.counters.get(name)


def parse_vmstat(text: str) -> Vmstat:
    """Tolerant: a line that is not ``name number`` is left out. Never raises."""
    counters: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2:
            number = words[1].removeprefix("-")
            if number.isdecimal() and number.isascii():
                counters[words[0]] = int(words[1])
    return Vmstat(counters=counters)
