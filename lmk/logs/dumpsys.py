"""``dumpsys meminfo`` and ``dumpsys activity`` text, plain and ``--checkin``: text -> values. Never raises.

Sizes in KiB: what dumpsys calls K or kB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import attrs

_SIZE = re.compile(r"(?P<indent>\s*)(?P<size>[\d,]+) ?(?:K|kB): (?P<what>.*?)\s*$", re.ASCII)
_PROCESS = re.compile(r"(?P<name>.*?) \(pid (?P<pid>\d+)(?: / (?P<more>[^)]*))?\)(?P<user> user=.*)?$", re.ASCII)
_HEADING = re.compile(r"Total (?P<what>PSS|RSS) by (?P<by>process|OOM adjustment|category):")
_RAM = re.compile(r"\s*(?P<what>Total RAM|Free RAM|Used RAM|Lost RAM|ZRAM): *(?P<size>[\d,]+) ?(?:K|kB)", re.ASCII)
_RAM_PARTS = re.compile(
    r"(?P<size>[\d,]+) ?K? (?P<what>cached pss|cached kernel|cached ion|cached|free|used pss|kernel)\b", re.ASCII
)
_SWAP = re.compile(r"for +(?P<used>[\d,]+) ?(?:K|kB) in swap \( *(?P<total>[\d,]+) ?(?:K|kB) total swap\)", re.ASCII)
_UPTIME = re.compile(r"Uptime: (\d+) Realtime: (\d+)", re.ASCII)
_LRU = re.compile(
    r"\s+(?:PERS|Proc) #\s*(?P<index>\d+): (?P<label>[a-z]+)(?P<plus>\s*\+\d+)?\s+"
    r"(?P<group>[A-Za-z]*)/(?P<kind>.)/(?P<state>\w+)\s+"
    r"(?:(?P<capabilities>[A-Z-]+) +)?(?:trm|t): *(?P<trim>-?\d+) "
    r"(?P<pid>\d+):(?P<name>\S+?)/(?P<owner>\S+) \((?P<why>.*?)\)\s*$",
    re.ASCII,
)
_LRU_LIST = re.compile(
    r"\s+#\s*(?P<index>\d+): (?P<label>[a-z]+)(?P<plus>\s*\+\d+)?\s+(?P<state>\w+)\s+"
    r"(?:(?P<capabilities>[A-Z-]{3,}) +)?"
    r"(?P<pid>\d+):(?P<name>\S+?)/(?P<owner>\S+)",
    re.ASCII,
)
_RECORD = re.compile(r"ProcessRecord\{\w+ (?P<pid>\d+):(?P<name>\S+?)/(?P<owner>\S+?)\}", re.ASCII)
_OOM = re.compile(
    r"oom(?: adj)?: max=(?P<max>-?\d+) curRaw=(?P<cur_raw>-?\d+) setRaw=(?P<set_raw>-?\d+) "
    r"cur=(?P<cur>-?\d+) set=(?P<set>-?\d+)",
    re.ASCII,
)
_LEVEL = re.compile(r"\s+(?P<adj>-?\d+): (?P<name>\w+) \(\s*(?P<kib>[\d,]+) ?(?:K|kB)\)", re.ASCII)
_EXIT = re.compile(
    r"process=(?P<name>\S+) reason=(?P<reason>\d+) \((?P<reason_text>[^)]*)\)"
    r"(?: subreason=(?P<subreason>\d+) \((?P<subreason_text>[^)]*)\))?"
    r" status=(?P<status>-?\d+)",
    re.ASCII,
)
_EXIT_STAMP = re.compile(r"timestamp=(?P<when>\S+ \S+) pid=(?P<pid>\d+)", re.ASCII)
_EXIT_SIZES = re.compile(r"importance=(?P<importance>\d+) pss=(?P<pss>\S+) rss=(?P<rss>\S+)", re.ASCII)


@attrs.frozen(kw_only=True)
class ProcessSize:
    """One process in one list; ``group`` is its OOM adjustment in words where the list is by that."""

    pid: int
    name: str
    kib: int
    group: str = ""


@attrs.frozen(kw_only=True)
class MeminfoDump:
    """One ``dumpsys meminfo``. ``pss`` and ``rss`` by process; groups and categories by their headings' words."""

    uptime_ms: int | None = None
    pss: tuple[ProcessSize, ...] = ()
    rss: tuple[ProcessSize, ...] = ()
    pss_by_group_kib: Mapping[str, int] = attrs.field(factory=dict)
    pss_by_category_kib: Mapping[str, int] = attrs.field(factory=dict)
    #: ``Total RAM``, ``Free RAM``, ``Used RAM``, ``Lost RAM``, ``ZRAM``, their parts, ``swap_used``, ``swap_total``.
    ram_kib: Mapping[str, int] = attrs.field(factory=dict)


def parse_dumpsys_meminfo(text: str) -> MeminfoDump:
    """Lines of no known form are left out."""
    lists: dict[str, list[ProcessSize]] = {"PSS": [], "RSS": []}
    groups: dict[str, int] = {}
    categories: dict[str, int] = {}
    grouped: dict[int, str] = {}
    ram: dict[str, int] = {}
    what, by, group = "", "", ""
    for line in text.splitlines():
        if heading := _HEADING.match(line):
            what, by, group = heading["what"], heading["by"], ""
        elif found := _SIZE.match(line):
            kib, rest = _kib(found["size"]), found["what"]
            process = _PROCESS.match(rest)
            if by == "process" and process:
                lists[what].append(ProcessSize(pid=int(process["pid"]), name=process["name"], kib=kib))
            elif by == "OOM adjustment" and process:
                grouped[int(process["pid"])] = group
            elif by == "OOM adjustment":
                group = rest
                if what == "PSS":
                    groups[rest] = kib
            elif by == "category" and what == "PSS":
                categories[rest] = kib
        else:
            ram.update(_ram(line))
    uptime = _UPTIME.search(text)
    return MeminfoDump(
        uptime_ms=int(uptime[1]) if uptime else None,
        pss=tuple(attrs.evolve(p, group=grouped.get(p.pid, "")) for p in lists["PSS"]),
        rss=tuple(attrs.evolve(p, group=grouped.get(p.pid, "")) for p in lists["RSS"]),
        pss_by_group_kib=groups,
        pss_by_category_kib=categories,
        ram_kib=ram,
    )


def _ram(line: str) -> Iterator[tuple[str, int]]:
    found = _RAM.match(line)
    if found is None:
        return
    yield found["what"], _kib(found["size"])
    if swap := _SWAP.search(line):
        yield "swap_used", _kib(swap["used"])
        yield "swap_total", _kib(swap["total"])
    for part in _RAM_PARTS.finditer(line[found.end() :]):
        yield part["what"], _kib(part["size"])


@attrs.frozen(kw_only=True)
class LruProcess:
    """A line of ActivityManager's LRU list. ``adj`` where the label (``cch+25``: 925) or the ``oom:`` line tells."""

    pid: int
    name: str
    owner: str
    label: str
    state: str
    adj: int | None = None
    why: str = ""


def parse_lru(text: str) -> tuple[LruProcess, ...]:
    """``Proc #NN: …`` and ``#NN: …`` lists, Android 4.4 to 16."""
    found: list[LruProcess] = []
    for line in text.splitlines():
        match = _LRU.match(line) or _LRU_LIST.match(line)
        if match is None:
            if found and found[-1].adj is None and (oom := _OOM.search(line)):
                found[-1] = attrs.evolve(found[-1], adj=int(oom["cur"]))
            continue
        plus = (match["plus"] or "").strip().lstrip("+")
        adj = 900 + int(plus) if plus and match["label"] == "cch" and int(plus) <= 100 else None
        why = match["why"] if "why" in match.re.groupindex else ""
        found.append(
            LruProcess(
                pid=int(match["pid"]), name=match["name"], owner=match["owner"], label=match["label"],
                state=match["state"], adj=adj, why=why,
            )
        )  # fmt: skip
    return tuple(found)


def parse_process_record(text: str) -> dict[str, int | str] | None:
    """``*APP* UID … ProcessRecord{…}`` and its ``oom:`` line; None if it has none. Android 4.4's scale ends at 16."""
    record, oom = _RECORD.search(text), _OOM.search(text)
    if record is None or oom is None:
        return None
    numbers = {name: int(value) for name, value in oom.groupdict().items()}
    return {"pid": int(record["pid"]), "name": record["name"], "owner": record["owner"], **numbers}


def parse_oom_levels(text: str) -> dict[int, int]:
    """oom_score_adj -> KiB of ``OOM levels:``."""
    return {int(m["adj"]): _kib(m["kib"]) for line in text.splitlines() if (m := _LEVEL.match(line))}


def parse_exit_info(text: str) -> dict[str, int | str] | None:
    """One ``ApplicationExitInfo``; None if it does not say why the process ended."""
    exit_, stamp, sizes = _EXIT.search(text), _EXIT_STAMP.search(text), _EXIT_SIZES.search(text)
    if exit_ is None:
        return None
    fields: dict[str, int | str] = {}
    for found in (exit_, stamp, sizes):
        for name, value in (found.groupdict() if found else {}).items():
            if value is not None:
                fields[name] = int(value) if value.lstrip("-").isdecimal() else value
    return fields


def parse_checkin_meminfo(text: str) -> tuple[ProcessSize, ...]:
    """``dumpsys meminfo --checkin`` of format 3 and 4: total PSS of each process."""
    found = []
    for line in text.splitlines():
        values = line.split(",")
        if len(values) > 18 and values[0] in ("3", "4") and values[1].isdecimal() and values[18].isdecimal():
            found.append(ProcessSize(pid=int(values[1]), name=values[2], kib=int(values[18])))
    return tuple(found)


def parse_app_meminfo(text: str) -> ProcessSize | None:
    """``** MEMINFO in pid N [NAME] **`` of Android 4: the total PSS; None if the block lacks it."""
    head = re.match(r"\*\* MEMINFO in pid (\d+) \[(.*?)\]", text, re.ASCII)
    pss = re.search(r"\(Pss\):(?:\s+\d+)*?\s+(\d+)\s*$", text, re.ASCII | re.MULTILINE)
    return None if head is None or pss is None else ProcessSize(pid=int(head[1]), name=head[2], kib=int(pss[1]))


def checkin_rows(text: str) -> dict[str, int]:
    """How many lines of each kind (``proc``, ``pss``, ``pkgproc`` …) a ``procstats --checkin`` has."""
    counts: dict[str, int] = {}
    for line in text.splitlines():
        kind, comma, _ = line.partition(",")
        if comma and kind.isalpha():
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def _kib(text: str) -> int:
    digits = text.replace(",", "")
    return int(digits) if digits else 0
