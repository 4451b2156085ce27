"""Memory statistics of a victim for the statistics packet (reference: section 8.5; statslog.cpp)."""

from __future__ import annotations

import re

from lmk.policy.api import CgroupAttributePath, FileError, ReadFile, ReadProcess
from lmk.policy.lmkd.daemon import Daemon, Steps, error
from lmk.policy.lmkd.kernel_text import c_string, parse_int64, parse_stat_faults
from lmk.policy.lmkd.memory import wrap
from lmk.policy.lmkd.process_table import Process
from lmk.units import NS_PER_S

#: Index in ``Daemon.statistics``: page faults, major faults, rss, cache, swap (bytes), start (ns).
_MEMCG_KEYS = {"total_pgfault": 0, "total_pgmajfault": 1, "total_rss": 2, "total_cache": 3, "total_swap": 4}
_MEMCG_LINE = re.compile(r"\s*+(\S{1,128}+)\s*+([+-]?\d++)", re.ASCII)


def read_statistics(d: Daemon, record: Process, rss_kib: int, swap_kib: int) -> Steps:
    """stats_read_memory_stat: six numbers, or None.

    The C++ record is static: what a memcg does not tell (start time; on cgroup v2 everything) keeps
    its value from an earlier victim.
    """
    if not d.log_stats or not d.behaviour.kill_statistics:
        return None
    if d.params.per_app_memcg:
        if (yield from _from_memcg(d, record.pid)):
            return list(d.statistics)
        if not d.behaviour.statistics_fallback:
            return None
    stat = yield ReadProcess(record.pid, "stat")
    found = None if isinstance(stat, FileError) else parse_stat_faults(stat)
    if found is None:
        return None
    minor, major, start_ticks = found
    numbers = d.statistics
    numbers[0], numbers[1] = minor, major
    numbers[2], numbers[4] = wrap(rss_kib * 1024), wrap(swap_kib * 1024)
    numbers[5] = wrap(start_ticks * (NS_PER_S // d.machine.ticks_per_s))
    return list(numbers)


def _from_memcg(d: Daemon, pid: int) -> Steps:
    path = yield CgroupAttributePath("MemStats", pid)
    if path is None:
        yield error("Querying MemStats path failed")
        return False
    text = yield ReadFile(path, keep=False)
    if isinstance(text, FileError):
        return False
    for line in c_string(text).split("\n"):
        match = _MEMCG_LINE.match(line)
        if match is not None and match.group(1) in _MEMCG_KEYS:
            d.statistics[_MEMCG_KEYS[match.group(1)]] = parse_int64(match.group(2)) or 0
    return True
