"""``/proc/zoneinfo``: text -> frozen value (mm/vmstat.c, zoneinfo_show_print). All numbers are pages."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs


@attrs.frozen(kw_only=True)
class Zone:
    """One zone of one node, in the order of the file."""

    node: int
    name: str
    #: ``min``, ``low``, ``high``, ``present``, ``managed``, ``nr_free_pages``, ``nr_free_cma`` …
    fields: Mapping[str, int]
    protection: tuple[int, ...] = ()
    #: The node's ``per-node stats``; the kernel prints them in a node's first populated zone only.
    node_stats: Mapping[str, int] | None = None


@attrs.frozen(kw_only=True)
class Zoneinfo:
    """Every zone, unpopulated ones (``present`` 0) too."""

    zones: tuple[Zone, ...]


_HEADER = re.compile(r"Node (\d+), zone\s+(\S+)", re.ASCII)
_NUMBER = re.compile(r"-?\d+", re.ASCII)


def parse_zoneinfo(text: str) -> Zoneinfo:
    """Tolerant: unknown lines are left out. Never raises."""
    zones: list[Zone] = []
    for block in re.split(r"^(?=Node )", text, flags=re.MULTILINE):
        header = _HEADER.match(block)
        if header:
            zones.append(_parse_zone(int(header.group(1)), header.group(2), block.splitlines()[1:]))
    return Zoneinfo(zones=tuple(zones))


def _parse_zone(node: int, name: str, lines: list[str]) -> Zone:
    fields: dict[str, int] = {}
    stats: dict[str, int] | None = None
    protection: tuple[int, ...] = ()
    target = fields
    for line in lines:
        words = line.split()
        if words[:2] == ["per-node", "stats"]:
            target = stats = {}
        elif words[:2] == ["pages", "free"]:
            target = fields
        elif words and words[0] == "protection:":
            protection = tuple(int(number) for number in _NUMBER.findall(line))
        elif words and words[0] == "pagesets":
            break
        elif len(words) == 2 and _NUMBER.fullmatch(words[1]):
            target[words[0]] = int(words[1])
    return Zone(node=node, name=name, fields=fields, protection=protection, node_stats=stats)
