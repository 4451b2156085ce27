"""Zone watermarks from /proc/zoneinfo, as lmkd sums them (reference: section 4.4).

All numbers are pages. ``max_protection`` (the largest of a zone's first six lowmem reserves, never below
0) is added to all three marks of every populated zone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

from lmk.policy.lmkd.kernel_text import blank_tokens, nonempty_lines, parse_any_base, parse_int64
from lmk.policy.lmkd.versions import Behaviour
from lmk.procfs.zoneinfo import Zone, Zoneinfo
from lmk.units import c_int64

NODES_MAX = 2
PROTECTIONS_MAX = 6

MIN, LOW, HIGH, NONE = 0, 1, 2, 3
WATERMARK_NAMES = ("min", "low", "high", "none")

_HEADER = re.compile(r"Node\s*([+-]?\d+),\s*zone\s*(\S+)", re.ASCII)
_ZONE_FIELDS = ("min", "low", "high", "present", "nr_free_pages", "nr_free_cma")
_NODE_FIELDS = ("nr_inactive_file", "nr_active_file", "workingset_refault")
_STATS_MARKER = "  per-node stats"


@attrs.frozen
class Watermarks:
    """Sums over all populated zones of all nodes, and (old strategy) the reserve over all parsed zones."""

    min: int = 0
    low: int = 0
    high: int = 0
    total_reserve: int = 0

    def lowest_breached(self, free_pages: int) -> int:
        """lmkd's get_lowest_watermark: MIN, LOW, HIGH or NONE; ``free_pages`` without free CMA."""
        if free_pages < self.min:
            return MIN
        if free_pages < self.low:
            return LOW
        return HIGH if free_pages < self.high else NONE


class _ParseError(Exception):
    """lmkd gives up on the file."""


@attrs.define
class _ZoneSums:
    """One zone while it is being parsed."""

    fields: dict[str, int] = attrs.field(factory=dict)
    max_protection: int = 0


def parse_watermarks(answer: str | Zoneinfo, behaviour: Behaviour) -> Watermarks | None:
    """None: parse error, as in lmkd's zoneinfo_parse. Never raises."""
    if isinstance(answer, Zoneinfo):
        zones = _zones_of_value(answer, behaviour)
        return None if zones is None else _sum(zones)
    try:
        return _sum(_parse_zones(answer, behaviour))
    except _ParseError:
        return None


def _sum(zones: list[_ZoneSums]) -> Watermarks:
    low = high = minimum = reserve = 0
    for zone in zones:
        fields, protection = zone.fields, zone.max_protection
        zone_high = fields.get("high", 0)
        reserve += protection + zone_high
        if fields.get("present", 0):
            minimum += protection + fields.get("min", 0)
            low += protection + fields.get("low", 0)
            high += protection + zone_high
    return Watermarks(c_int64(minimum), c_int64(low), c_int64(high), c_int64(reserve))


def _parse_zones(text: str, behaviour: Behaviour) -> list[_ZoneSums]:
    """zoneinfo_parse: a header with another node number than the last starts a node, which first needs
    its statistics."""
    zones: list[_ZoneSums] = []
    node: int | None = None
    nodes = 0
    lines = iter(nonempty_lines(text))
    for line in lines:
        header = _HEADER.match(line)
        if header is None:
            continue
        number = _int32(header.group(1))
        if node is None or node != number:
            if behaviour.zoneinfo_stats_marker and not next(lines, "").startswith(_STATS_MARKER):
                # The kernel prints node statistics only at a node's first populated zone.
                continue
            nodes += 1
            if nodes > NODES_MAX:
                raise _ParseError
            node = number
            _parse_node(lines, behaviour.zoneinfo_node_fields)
        zone = _ZoneSums()
        zones.append(zone)
        _parse_zone(lines, zone)
    if node is None:
        raise _ParseError
    return zones


def _int32(digits: str) -> int:
    number = parse_int64(digits) or 0
    return (number + (1 << 31) & 0xFFFFFFFF) - (1 << 31)


def _parse_node(lines: Iterator[str], wanted: int) -> None:
    """Consume lines until ``wanted`` known statistics were seen; the end of the file is an error."""
    names = _NODE_FIELDS[:wanted]
    for line in lines:
        tokens = blank_tokens(line)
        if len(tokens) < 2:
            raise _ParseError
        if tokens[0] in names:
            if parse_int64(tokens[1]) is None:
                raise _ParseError
            wanted -= 1
            if not wanted:
                return
    raise _ParseError


def _parse_zone(lines: Iterator[str], zone: _ZoneSums) -> None:
    """Consume lines up to ``pagesets``, or up to ``present 0``; the end of the file is an error."""
    for line in lines:
        tokens = blank_tokens(line)
        if not tokens:
            raise _ParseError
        name = tokens[0]
        if name == "pagesets":
            return
        if name == "protection:":
            zone.max_protection = _max_protection(line)
        elif len(tokens) > 1 and name in _ZONE_FIELDS:
            number = parse_int64(tokens[1])
            if number is None:
                raise _ParseError
            zone.fields[name] = number
            if name == "present" and number == 0:
                return
    raise _ParseError


def _max_protection(line: str) -> int:
    """``protection: (a, b, …)``: the largest of the first six numbers, at least 0; any base, 0 for junk."""
    rest = line.lstrip(" ")[len("protection:") :].lstrip(")").partition(")")[0]
    tokens = [token for token in re.split(r"[(), ]", rest) if token]
    return max((0, *(parse_any_base(token) for token in tokens[:PROTECTIONS_MAX])))


def _zones_of_value(info: Zoneinfo, behaviour: Behaviour) -> list[_ZoneSums] | None:
    """The zones lmkd would have parsed from the text of the same value; None: it would have failed."""
    needed = _NODE_FIELDS[: behaviour.zoneinfo_node_fields]
    zones: list[_ZoneSums] = []
    node: int | None = None
    nodes = 0
    searching = False
    for zone in info.zones:
        stats = zone.node_stats
        if node != zone.node and not searching:
            if behaviour.zoneinfo_stats_marker and stats is None:
                continue
            node, searching, nodes = zone.node, True, nodes + 1
            if nodes > NODES_MAX:
                return None
        if searching:
            # Without the marker check the search for statistics swallows whole zones.
            if stats is None or any(name not in stats for name in needed):
                continue
            searching = False
        zones.append(_zone_of_value(zone))
    return None if searching or node is None else zones


def _zone_of_value(zone: Zone) -> _ZoneSums:
    fields = {name: zone.fields[name] for name in _ZONE_FIELDS if name in zone.fields}
    # Parsing stops at "present 0", before the line with the protections.
    protection = zone.protection[:PROTECTIONS_MAX] if fields.get("present", 0) else ()
    return _ZoneSums(fields=fields, max_protection=max((0, *protection)))
