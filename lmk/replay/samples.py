"""Between two reads of a policy a record still has its samples: the newer figures are put into the older text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lmk.policy.api import FileError
from lmk.procfs.meminfo import Meminfo, parse_meminfo
from lmk.procfs.vmstat import Vmstat, parse_vmstat
from lmk.record.schema import CounterRow

if TYPE_CHECKING:
    from lmk.replay.recorded import Recorded

_MEMINFO = {
    "MemFree": "mem_free_kib",
    "MemAvailable": "mem_available_kib",
    "Cached": "cached_kib",
    "SwapFree": "swap_free_kib",
}
_VMSTAT = {
    "workingset_refault_file": "refault_file_pages",
    "workingset_refault": "refault_file_pages",
    "pgscan_direct": "pgscan_direct",
    "pgscan_kswapd": "pgscan_kswapd",
    "pswpin": "pswpin_pages",
    "pswpout": "pswpout_pages",
}


def refreshed(path: str, answer: object, read_ns: int, world: Recorded, now_ns: int) -> tuple[object, int]:
    """The answer with what the last sample before ``now_ns`` knows better, and when the newest of both was taken."""
    names = {"/proc/meminfo": _MEMINFO, "/proc/vmstat": _VMSTAT}.get(path)
    row = _last(world, now_ns)
    if names is None or row is None or row.t_ns <= read_ns or isinstance(answer, FileError):
        return answer, read_ns
    if names is _MEMINFO:
        kib = answer.kib if isinstance(answer, Meminfo) else parse_meminfo(str(answer)).kib
        return Meminfo(kib=_updated(kib, names, row)), row.t_ns
    counters = answer.counters if isinstance(answer, Vmstat) else parse_vmstat(str(answer)).counters
    return Vmstat(counters=_updated(counters, names, row)), row.t_ns


def _updated(known: Mapping[str, int], names: Mapping[str, str], row: CounterRow) -> dict[str, int]:
    values = dict(known)
    for name, column in names.items():
        value = getattr(row, column)
        if name in values and value is not None:
            values[name] = value
    return values


def _last(world: Recorded, now_ns: int) -> CounterRow | None:
    index = bisect_right(world.counters, now_ns, key=lambda row: row.t_ns)
    return world.counters[index - 1] if index else None
