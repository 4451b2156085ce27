"""Zone watermarks from /proc/zoneinfo, as lmkd sums them (reference: section 4.4).

All numbers are pages. ``max_protection`` (the largest of a zone's first six lowmem reserves, never below
0) is added to all three marks of every populated zone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

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
class ZoneMarks:
    """One zone: the fields lmkd reads, and the largest of its protections."""

    name: str = ""
    node: int = 0
    fields: Mapping[str, int] = attrs.field(factory=dict)
    max_protection: int = 0

    def populated(self) -> bool:
        """lmkd leaves zones without pages out of the watermarks."""
        return self.fields.get("present", 0) != 0


def parse_watermarks(answer: str | Zoneinfo, behaviour: Behaviour) -> Watermarks | None:
    """None: parse error, as in lmkd's zoneinfo_parse. Never raises."""
    if not behaviour.zones_by_name:
        info = answer if isinstance(answer, Zoneinfo) else _plain_zoneinfo(answer)
        if info is not None:
            chosen = _chosen_zones(info, behaviour)
            return None if chosen is None else _sum_values(chosen)
    zones = parse_zones(answer, behaviour)
    return None if zones is None else sum_watermarks(zones, zones)


def _sum_values(zones: list[Zone]) -> Watermarks:
    """``sum_watermarks`` straight from parsed values."""
    low = high = minimum = reserve = 0
    for zone in zones:
        get = zone.fields.get
        zone_high: int = get("high", 0)
        if not get("present", 0):
            # Parsing stops at "present 0", before the line with the protections.
            reserve += zone_high
            continue
        protections = zone.protection
        if len(protections) > PROTECTIONS_MAX:
            protections = protections[:PROTECTIONS_MAX]
        protection = max(protections) if protections else 0
        if protection > 0:
            zone_high += protection
            minimum += protection
            low += protection
        reserve += zone_high
        high += zone_high
        minimum += get("min", 0)
        low += get("low", 0)
    if max(reserve, high) >= _TOO_LARGE:
        # Some number may be one that lmkd reads as the largest it knows.
        marks = [_saturated(_zone_of_value(zone)) for zone in zones]
        return sum_watermarks(marks, marks)
    return Watermarks(minimum, low, high, reserve)


_TOO_LARGE = 1 << 63


def _saturated(zone: ZoneMarks) -> ZoneMarks:
    fields = {name: min(number, _TOO_LARGE - 1) for name, number in zone.fields.items()}
    return ZoneMarks(zone.name, zone.node, fields, min(zone.max_protection, _TOO_LARGE - 1))


def parse_zones(answer: str | Zoneinfo, behaviour: Behaviour) -> list[ZoneMarks] | None:
    """The zones in the order of the file; None: parse error."""
    if isinstance(answer, Zoneinfo):
        return _zones_of_value(answer, behaviour)
    info = _plain_zoneinfo(answer)
    if info is not None and not behaviour.zones_by_name:
        return _zones_of_value(info, behaviour)
    return _parse_text(answer, behaviour)


def _parse_text(text: str, behaviour: Behaviour) -> list[ZoneMarks] | None:
    """Line by line, token by token."""
    try:
        if behaviour.zones_by_name:
            return _parse_named_zones(text, behaviour)
        return _parse_zones(text, behaviour)
    except _ParseError:
        return None


def sum_watermarks(zones: list[ZoneMarks], reserving: list[ZoneMarks]) -> Watermarks:
    """The marks of ``zones``, the reserve of ``reserving``."""
    low = high = minimum = reserve = 0
    for zone in reserving:
        reserve += zone.max_protection + zone.fields.get("high", 0)
    for zone in zones:
        get, protection = zone.fields.get, zone.max_protection
        if get("present", 0):
            minimum += protection + get("min", 0)
            low += protection + get("low", 0)
            high += protection + get("high", 0)
    return Watermarks(c_int64(minimum), c_int64(low), c_int64(high), c_int64(reserve))


def _parse_zones(text: str, behaviour: Behaviour) -> list[ZoneMarks]:
    """zoneinfo_parse: a header with another node number than the last starts a node, which first needs
    its statistics."""
    zones: list[ZoneMarks] = []
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
        zone = ZoneMarks(name=header.group(2), node=number)
        zones.append(zone)
        _parse_zone(lines, zone)
    if node is None:
        raise _ParseError
    return zones


#: The names a vendor's lmkd knows, in its order; HighMem is not among them.
NAMED_ZONES = ("DMA", "DMA32", "Normal", "High", "Movable", "Device")


def _parse_named_zones(text: str, behaviour: Behaviour) -> list[ZoneMarks]:
    """A vendor's zoneinfo_parse: zones by name, unknown ones left out; a node without statistics is no
    error, and a zone that occurs twice in a node keeps what the second one does not say."""
    zones: dict[tuple[int, str], ZoneMarks] = {}
    node: int | None = None
    nodes = 0
    found_stats = False
    lines = iter(nonempty_lines(text))
    for line in lines:
        header = _HEADER.match(line)
        if header is None:
            continue
        number, name = _int32(header.group(1)), header.group(2)
        if node != number or not found_stats:
            if node != number:
                nodes += 1
                if nodes > NODES_MAX:
                    raise _ParseError
            node = number
            found_stats = next(lines, "").startswith(_STATS_MARKER)
            if not found_stats:
                continue
            _parse_node(lines, behaviour.zoneinfo_node_fields)
        if name in NAMED_ZONES:
            zone = zones.setdefault((nodes, name), ZoneMarks(name=name, node=nodes))
            _parse_zone(lines, zone)
    if node is None:
        raise _ParseError
    return list(zones.values())


#: One zone as kernels from 4.19 to 6.12 print it, up to where lmkd stops reading.
_PLAIN_ZONE = re.compile(
    r"(?:Node )?([0-9]{1,5}), zone +(\S+)\n"
    r"(?:  per-node stats\n((?>(?:      [a-z]+_\w+ +[0-9]{1,18}\n)+)))?"
    r"  pages free +[0-9]{1,18}\n(?:        boost +[0-9]{1,18}\n)?"
    r"        min +([0-9]{1,18})\n        low +([0-9]{1,18})\n        high +([0-9]{1,18})\n"
    r"        spanned +[0-9]{1,18}\n        present +([0-9]{1,18})\n"
    r"        managed +[0-9]{1,18}\n(?:        cma +[0-9]{1,18}\n)?"
    r"        protection: \(((?:0|[1-9][0-9]{0,17})(?:, (?:0|[1-9][0-9]{0,17}))*)\)\n"
    r"((?>(?:      nr_\w+ +[0-9]{1,18}\n)*))(  pagesets\n)?",
    re.ASCII,
)
_PLAIN_STAT = re.compile(r"      (nr_inactive_file|nr_active_file|workingset_refault) +([0-9]+)\n", re.ASCII)
_PLAIN_FREE = re.compile(r"      (nr_free_pages|nr_free_cma) +([0-9]+)\n", re.ASCII)


def _plain_zoneinfo(text: str) -> Zoneinfo | None:
    """The zones of text as kernels print it; None for anything else, which the slow way then reads."""
    blocks = text.split("\nNode ")
    if not text.startswith("Node ") or "\0" in text or text.count("\nNode") != len(blocks) - 1:
        return None
    zones = []
    for block in blocks:
        match = _PLAIN_ZONE.match(block)
        if match is None:
            return None
        node, name, stats, minimum, low, high, present, protection, rest, pagesets = match.groups()
        fields = {"min": int(minimum), "low": int(low), "high": int(high), "present": int(present)}
        if fields["present"]:
            if pagesets is None or "active_file " in rest:
                return None
            for field, number in _PLAIN_FREE.findall(rest):
                fields[field] = int(number)
        node_stats = None
        if stats is not None:
            found = _PLAIN_STAT.findall(stats)
            node_stats = {field: int(number) for field, number in found}
            if len(found) != len(node_stats):
                return None
        zones.append(
            Zone(
                node=int(node),
                name=name,
                fields=fields,
                protection=tuple(map(int, protection.split(", "))),
                node_stats=node_stats,
            )
        )
    return Zoneinfo(zones=tuple(zones))


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


def _parse_zone(lines: Iterator[str], zone: ZoneMarks) -> None:
    """Consume lines up to ``pagesets``, or up to ``present 0``; the end of the file is an error."""
    fields = dict(zone.fields)
    zone.fields = fields
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
            fields[name] = number
            if name == "present" and number == 0:
                return
    raise _ParseError


def _max_protection(line: str) -> int:
    """``protection: (a, b, …)``: the largest of the first six numbers, at least 0; any base, 0 for junk."""
    rest = line.lstrip(" ")[len("protection:") :].lstrip(")").partition(")")[0]
    tokens = [token for token in re.split(r"[(), ]", rest) if token]
    return max((0, *(parse_any_base(token) for token in tokens[:PROTECTIONS_MAX])))


def _zones_of_value(info: Zoneinfo, behaviour: Behaviour) -> list[ZoneMarks] | None:
    """The zones lmkd would have parsed from the text of the same value; None: it would have failed."""
    if behaviour.zones_by_name:
        needed = _NODE_FIELDS[: behaviour.zoneinfo_node_fields]
        named = [zone for zone in info.zones if zone.name in NAMED_ZONES]
        return [_zone_of_value(zone) for zone in named if _has_stats(info, zone, needed)]
    chosen = _chosen_zones(info, behaviour)
    return None if chosen is None else [_zone_of_value(zone) for zone in chosen]


def _chosen_zones(info: Zoneinfo, behaviour: Behaviour) -> list[Zone] | None:
    """The zones whose section lmkd's parser would have reached; None: it would have failed."""
    needed = _NODE_FIELDS[: behaviour.zoneinfo_node_fields]
    zones: list[Zone] = []
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
            # The search for statistics swallows whole zones, up to a line with one word ("pagesets").
            if stats is None or any(name not in stats for name in needed):
                if zone.fields.get("present", 0):
                    return None
                continue
            searching = False
        zones.append(zone)
    return None if searching or node is None else zones


def _has_stats(info: Zoneinfo, zone: Zone, needed: tuple[str, ...]) -> bool:
    """Zones before the node's statistics are skipped."""
    for other in info.zones:
        if other.node == zone.node and other.node_stats is not None:
            return all(name in other.node_stats for name in needed)
        if other is zone:
            return False
    return False


def _zone_of_value(zone: Zone) -> ZoneMarks:
    # Parsing stops at "present 0", before the line with the protections.
    fields, protections = zone.fields, zone.protection
    if not protections or not fields.get("present", 0):
        return ZoneMarks(zone.name, zone.node, fields, 0)
    largest = max(protections if len(protections) <= PROTECTIONS_MAX else protections[:PROTECTIONS_MAX])
    return ZoneMarks(zone.name, zone.node, fields, largest if largest > 0 else 0)
