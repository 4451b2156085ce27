"""The old strategy: lmkd's mp_event_common with minfree or vmpressure levels (reference: section 5)."""

from __future__ import annotations

from lmk.policy.api import CgroupAttributePath, FileError, TakeVmpressure
from lmk.policy.decision import Decision
from lmk.policy.lmkd.daemon import (
    CRITICAL,
    LEVEL_NAMES,
    LOW,
    PAUSE,
    POLL_SHORT_MS,
    START,
    Daemon,
    Steps,
    diff_ms,
    error,
    info,
)
from lmk.policy.lmkd.kernel_text import c_string, parse_int64
from lmk.policy.lmkd.memcg import MEMCG_V1_ROOT
from lmk.policy.lmkd.memory import MemoryInfo, read_meminfo, read_watermarks, reread, wrap
from lmk.policy.lmkd.victim import KillContext, find_and_kill
from lmk.policy.lmkd.waiting import kill_pending, stop_wait
from lmk.policy.lmkd.watermark import Watermarks
from lmk.policy.oom_adj import OOM_SCORE_ADJ_MAX
from lmk.units import c_div

FAILED_REPORT_INTERVAL_MS = 1000


def handle_mp(d: Daemon, level: int, by_event: bool) -> Steps:
    """mp_event_common: the handler of old-strategy PSI triggers and of vmpressure events."""
    if d.behaviour.counted_events:
        d.event_count += 1
    if d.params.debug:
        number = f" #{d.event_count}" if d.behaviour.counted_events else ""
        yield info(f"{LEVEL_NAMES[level]} memory pressure event{number} is triggered")
    data = level
    if not d.use_psi:
        counts = yield TakeVmpressure()
        for index, count in enumerate(counts):
            if count > 0 and index > level:
                level = index
    elif by_event and (d.polling.handler is None or data > d.polling.handler.data):
        # During a run only a more critical event starts it anew.
        d.polling.interval_ms = POLL_SHORT_MS
        d.polling.update = START
    d.event_ns = d.now_ns
    d.old.wakeups.record(d.event_ns, by_event)
    if (yield from _still_killing(d)):
        d.old.skipped_events += 1
        d.old.wakeups.skipped += 1
        yield Decision(strategy=d.params.old_strategy, level=level, by_event=by_event, ended_early="pending kill")
        return
    if d.old.skipped_events > 0:
        yield info(f"{d.old.skipped_events} memory pressure events were skipped after a kill!")
        d.old.skipped_events = 0
    memory: MemoryInfo | None = yield from read_meminfo(d)
    marks: Watermarks | None = (yield from read_watermarks(d)) if memory is not None else None
    if memory is None or marks is None:
        yield error("Failed to get free memory!")
        yield Decision(strategy=d.params.old_strategy, level=level, by_event=by_event, ended_early="unreadable")
        return
    if d.params.use_minfree_levels:
        yield from _minfree(d, level, by_event, memory, marks)
    else:
        yield from _vmpressure(d, level, by_event, memory)


def _still_killing(d: Daemon) -> Steps:
    """Bool: the last victim is still dying within the time-out. Otherwise stops waiting."""
    timeout_ms = d.params.kill_timeout_ms
    waits = timeout_ms != 0 and diff_ms(d.last_kill_ns, d.event_ns) < timeout_ms
    if waits or (timeout_ms == 0 and d.behaviour.zero_timeout_waits):
        if (yield from kill_pending(d)):
            return True
        yield from stop_wait(d, finished=True)
    else:
        yield from stop_wait(d, finished=False)
    return False


def _minfree(d: Daemon, level: int, by_event: bool, memory: MemoryInfo, marks: Watermarks) -> Steps:
    """Minfree mode: the first target whose limit is above both free memory and file cache gives the score.

    Free memory is without the zones' reserves and may be negative; with no targets nothing is killed.
    """
    other_free = wrap(memory.free - marks.total_reserve)
    unusable = wrap(memory.shmem + memory.unevictable + memory.swap_cached)
    other_file = wrap(memory.file_pages - unusable) if memory.file_pages > unusable else 0
    targets = d.targets[: d.target_count]
    hit = next((t for t in targets if other_free < t[0] and other_file < t[0]), None)
    values: dict[str, int | float | bool | str] = {
        "free_pages": other_free,
        "file_pages": other_file,
        "reserve_pages": marks.total_reserve,
        "targets": " ".join(f"{minfree}:{adj}" for minfree, adj in targets),
        "minfree_pages": hit[0] if hit else -1,
    }
    page_kib = d.page_kib
    if hit is None:
        if d.params.debug and targets:
            yield info(
                f"Ignore {LEVEL_NAMES[level]} memory pressure event (free memory={wrap(other_free * page_kib)}kB, "
                f"cache={wrap(other_file * page_kib)}kB, limit={wrap(targets[-1][0] * page_kib)}kB)"
            )
        yield Decision(strategy="minfree", level=level, by_event=by_event, values=values)
        return
    minfree, min_adj = hit
    context = KillContext(min_adj=min_adj, memory=memory, wakeups=d.old.wakeups, now_ns=d.event_ns)
    if d.params.low_ram:
        if not d.behaviour.low_ram_minfree_adj:
            context.min_adj = _level_adj(d, level)
        yield from _kill_quietly(d, context)
    else:
        report = (
            f", cache({wrap(other_file * page_kib)}kB) and free({wrap(memory.free * page_kib)}kB)"
            f"-reserved({wrap(marks.total_reserve * page_kib)}kB) below min({wrap(minfree * page_kib)}kB)"
            f" for {d.behaviour.adj_word} {min_adj}"
        )
        yield from _kill_and_report(d, context, report)
    yield _kill_decision("minfree", level, by_event, values, context)


def _vmpressure(d: Daemon, level: int, by_event: bool, memory: MemoryInfo) -> Steps:
    """vmpressure mode: the event's level, raised or lowered by how much of the memory in use is swapped,
    gives the score; nothing is killed before an event of level low was seen (not on low-RAM devices)."""
    if level == LOW:
        yield from _record_low_pressure(d, memory)
    values: dict[str, int | float | bool | str] = {
        "free_pages": memory.free,
        "low_max_pages": d.old.low_max_pages,
        "event_level": level,
        "swap_total_pages": memory.swap_total,
        "swap_free_pages": memory.swap_free,
        "easy_pages": memory.easy,
    }
    if _level_adj(d, level) > OOM_SCORE_ADJ_MAX:
        yield Decision(strategy="vmpressure", level=level, by_event=by_event, values=values)
        return
    pressure_pct = yield from _memory_share(d)
    if pressure_pct is not None:
        values["memory_share_pct"] = pressure_pct
        level = yield from _adjusted_level(d, level, memory, pressure_pct)
        if level < 0:
            yield Decision(strategy="vmpressure", level=level, by_event=by_event, values=values)
            return
    context = KillContext(min_adj=_level_adj(d, level), memory=memory, wakeups=d.old.wakeups, now_ns=d.event_ns)
    if d.params.low_ram:
        yield from _kill_quietly(d, context)
    elif memory.free >= d.old.low_max_pages:
        if d.params.debug:
            yield info(
                f"Ignoring pressure since more memory is available ({memory.free}) than watermark "
                f"({d.old.low_max_pages})"
            )
        yield Decision(strategy="vmpressure", level=level, by_event=by_event, values=values)
        return
    else:
        yield from _kill_and_report(d, context, f" at {d.behaviour.adj_word} {context.min_adj}")
    yield _kill_decision("vmpressure", level, by_event, values, context)


def _level_adj(d: Daemon, level: int) -> int:
    return (d.params.low, d.params.medium, d.params.critical)[level]


def _record_low_pressure(d: Daemon, memory: MemoryInfo) -> Steps:
    """record_low_pressure_levels: jumps of 10 % and more upward are taken for noise."""
    old, free = d.old, memory.free
    if old.low_min_pages == -1 or old.low_min_pages > free:
        if d.params.debug:
            yield info(f"Low pressure min memory update from {old.low_min_pages} to {free}")
        old.low_min_pages = free
    rises = old.low_max_pages < free and free - old.low_max_pages < old.low_max_pages * 0.1
    if old.low_max_pages == -1 or rises:
        if d.params.debug:
            yield info(f"Low pressure max memory update from {old.low_max_pages} to {free}")
        old.low_max_pages = free


def _memory_share(d: Daemon) -> Steps:
    """Memory in use as a share of memory and swap in use; None when a file does not say."""
    if not d.memcg_usage_path and not d.behaviour.old_strategy_needs_v1:
        d.memcg_usage_path = f"{MEMCG_V1_ROOT}/memory.usage_in_bytes"
        d.memcg_swap_usage_path = f"{MEMCG_V1_ROOT}/memory.memsw.usage_in_bytes"
    if not d.memcg_usage_path:
        d.memcg_usage_path = (yield CgroupAttributePath("MemUsage", None)) or ""
        d.memcg_swap_usage_path = (yield CgroupAttributePath("MemAndSwapUsage", None)) or ""
    used = yield from _usage(d.memcg_usage_path)
    if used is None:
        return None
    with_swap = yield from _usage(d.memcg_swap_usage_path)
    if with_swap is None:
        return None
    return c_div(wrap(used * 100), with_swap)


def _usage(path: str) -> Steps:
    """get_memory_usage: bytes, or None after an error line."""
    text = yield from reread(path)
    if text is None or isinstance(text, FileError):
        return None
    used = parse_int64(c_string(text))
    if used is None:
        yield error(f"{path} parse error")
        return None
    if used == 0:
        yield error("No memory!")
        return None
    # A negative number fails lmkd's check for errors without a line of its own.
    return used if used >= 0 else None


def _adjusted_level(d: Daemon, level: int, memory: MemoryInfo, pressure_pct: int) -> Steps:
    """The level after upgrade and downgrade; -1: ignore the event."""
    params, debug = d.params, d.params.debug
    if params.critical_upgrade and level != CRITICAL and pressure_pct < params.upgrade_pressure:
        level += 1
        if debug:
            yield info(f"Event upgraded to {LEVEL_NAMES[level]}")
    threshold = c_div(wrap(memory.swap_total * params.swap_free_low_percentage), 100)
    if memory.free_swap(params, d.behaviour) >= threshold:
        if pressure_pct > params.downgrade_pressure:
            if debug:
                yield info(f"Ignore {LEVEL_NAMES[level]} memory pressure")
            return -1
        if level == CRITICAL and pressure_pct > params.upgrade_pressure:
            if debug:
                yield info("Downgrade critical memory pressure")
            level -= 1
    return level


def _kill_quietly(d: Daemon, context: KillContext) -> Steps:
    """Low-RAM devices: one search, no report."""
    freed = yield from find_and_kill(d, context)
    if freed == 0 and d.params.debug:
        yield info("Nothing to kill")
    _pause_while_waiting(d)


def _kill_and_report(d: Daemon, context: KillContext, report: str) -> Steps:
    """One search and a report; reports of nothing are limited to one a second, without pausing polling."""
    old = d.old
    freed = yield from find_and_kill(d, context)
    if freed == 0 and diff_ms(old.last_report_ns, d.event_ns) < FAILED_REPORT_INTERVAL_MS:
        old.skipped_reports += 1
        return
    # A search that ended with -1 is reported as -1 page.
    yield info(f"Reclaimed {wrap(freed * d.page_kib)}kB{report}")
    if old.skipped_reports > 0:
        yield info(f"Suppressed {old.skipped_reports} failed kill reports")
        old.skipped_reports = 0
    old.last_report_ns = context.now_ns
    _pause_while_waiting(d)


def _pause_while_waiting(d: Daemon) -> None:
    if d.waiting_for_kill():
        d.polling.update = PAUSE


def _kill_decision(
    strategy: str,
    level: int,
    by_event: bool,
    values: dict[str, int | float | bool | str],
    context: KillContext,
) -> Decision:
    return Decision(
        strategy=strategy,
        level=level,
        by_event=by_event,
        values=values,
        min_adj=context.min_adj,
        killed_pids=tuple(pid for pid, _ in context.killed),
        killed_adjs=tuple(adj for _, adj in context.killed),
    )
