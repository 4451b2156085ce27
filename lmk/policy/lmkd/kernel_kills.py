"""The in-kernel low memory killer: lmkd only passes on what it reports (reference: section 3.2)."""

from __future__ import annotations

import re

from lmk.policy.lmkd.control_packets import KillStatistics, ProcKill, SubscribeEvent, encode_notification
from lmk.policy.lmkd.daemon import Daemon, Steps
from lmk.policy.lmkd.kernel_text import c_string, parse_int64
from lmk.policy.lmkd.memory import wrap
from lmk.policy.lmkd.victim import notify
from lmk.units import NS_PER_S, c_int32

#: pid uid tgid minor-faults major-faults rss-pages adj min-adj start-ticks, newline, task name
#: Possessive: sscanf never gives digits of the last number back to find a name.
_REPORT = re.compile(r"\s*([+-]?\d++)" * 9 + r"\s*+([^\n]+)", re.ASCII)
READ_BYTES_MAX = 255


def handle_kernel_kill(d: Daemon, text: str) -> Steps:
    """poll_kernel: tell subscribers of a kill, unless it was a thread or the text is odd."""
    match = _REPORT.match(c_string(text[:READ_BYTES_MAX]))
    if match is None:
        return
    pid, uid, leader, faults, major, rss_pages, adj, min_adj, start = (
        parse_int64(group) or 0 for group in match.groups()[:9]
    )
    if leader != pid:
        return
    rss_bytes = wrap(rss_pages * d.machine.page_size)
    rss_kib = c_int32(rss_bytes >> 10) if d.behaviour.prockill_rss else None
    kill = ProcKill(c_int32(pid), c_int32(uid), rss_kib)
    yield from notify(d, SubscribeEvent.KILL, encode_notification(kill))
    name = d.task_names.get(c_int32(pid))
    if name is None or not d.log_stats:
        return
    statistics = KillStatistics(
        page_faults=faults,
        major_faults=major,
        rss_bytes=rss_bytes,
        cache_bytes=0,
        swap_bytes=0,
        start_ns=wrap(start * (NS_PER_S // d.machine.ticks_per_s)),
        uid=uid,
        adj=_int16(adj),
        min_adj=_int16(min_adj),
        free_memory_kib=0,
        free_swap_kib=0,
        reason=-1,
        thrashing_pct=0,
        max_thrashing_pct=0,
        name=name.encode(errors="surrogateescape"),
    )
    yield from notify(d, SubscribeEvent.STATISTICS, encode_notification(statistics))


def _int16(number: int) -> int:
    return (number + 0x8000 & 0xFFFF) - 0x8000
