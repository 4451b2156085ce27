"""The PSI strategy: lmkd's mp_event_psi, in its order of work (reference: section 4.5).

The order matters more than any formula: the bail-out comes before every memory test, state after a
kill is consumed before it, and a file that cannot be parsed ends the call where it is read.
"""

from __future__ import annotations

import attrs

from lmk.policy.api import MemoryEvent
from lmk.policy.decision import Decision, Evaluation
from lmk.policy.lmkd.daemon import (
    LEVEL_NAMES,
    LOW,
    MEDIUM,
    PAUSE,
    POLL_LONG_MS,
    POLL_SHORT_MS,
    START,
    Daemon,
    Steps,
    diff_ms,
    error,
    info,
)
from lmk.policy.lmkd.kernel_text import float32
from lmk.policy.lmkd.kill_reason import VENDOR_KILL_MAX
from lmk.policy.lmkd.memory import (
    PSI_CPU_PATH,
    PSI_IO_PATH,
    PSI_MEMORY_PATH,
    WATERMARK_REFRESH_MS,
    MemoryInfo,
    VmCounters,
    read_meminfo,
    read_psi,
    read_vmstat,
    read_watermarks,
    wrap,
)
from lmk.policy.lmkd.page_skip import ZoneSkips, note_skipped_pages, refresh_by_zone
from lmk.policy.lmkd.psi_rules import DIRECT_RECLAIM, KSWAPD_RECLAIM, NO_RECLAIM, evaluate
from lmk.policy.lmkd.thrashing import measure_thrashing, measure_thrashing_11_0, restart_window
from lmk.policy.lmkd.victim import KillContext, find_and_kill
from lmk.policy.lmkd.waiting import kill_pending, stop_wait
from lmk.units import c_div, c_int32


def handle_psi(d: Daemon, level: int, by_event: bool, vendor: MemoryEvent | None = None) -> Steps:
    """mp_event_psi: the handler of a PSI trigger, called for its events and by polling.

    ``vendor``: a vendor kill event, which is neither recorded as a wake-up nor filtered. Every return
    after the first leaves polling alone, except the bail-out.
    """
    if not (yield from _goes_on(d, level, by_event, vendor)):
        return
    state = d.psi
    counters: VmCounters | None = yield from read_vmstat(d)
    if counters is None:
        yield error("Failed to parse vmstat!")
        yield Decision(strategy="psi", level=level, by_event=by_event, ended_early="unreadable")
        return
    refaults = _refaults(d, counters)
    memory: MemoryInfo | None = yield from read_meminfo(d)
    if memory is None:
        yield error("Failed to parse meminfo!")
        yield Decision(strategy="psi", level=level, by_event=by_event, ended_early="unreadable")
        return
    evaluation = Evaluation(level=level, by_event=by_event, after_kill=state.killing, page_kib=d.page_kib)
    if state.killing:
        state.killing = False
        restart_window(d, counters, refaults)
    elif d.behaviour.first_call_initialised and not state.initialised:
        restart_window(d, counters, refaults)
    state.initialised = True
    skips = note_skipped_pages(d, counters) if d.behaviour.skipped_zones else None
    _look_at_swap(d, memory, evaluation)
    reclaim = _reclaim_state(d, counters, evaluation)
    if reclaim == NO_RECLAIM and vendor is None and _bails_out(d, refaults):
        _set_polling(d, by_event, NO_RECLAIM, evaluation.swap_low)
        yield Decision(strategy="psi", level=level, by_event=by_event, ended_early="no reclaim")
        return
    state.previous_refaults = refaults
    if d.behaviour.thrashing_windows:
        measure_thrashing(d, counters, refaults, evaluation)
    else:
        measure_thrashing_11_0(d, counters, refaults, evaluation)
    evaluation.file_lru_kib = wrap(counters.file_pages * d.page_kib)
    if vendor is not None:
        evaluation.vendor_reason, evaluation.vendor_min_adj = vendor.reason, vendor.min_adj
    done = yield from _decide_and_kill(d, memory, evaluation, skips)
    if done:
        _set_polling(d, by_event, reclaim, evaluation.swap_low)


def look(d: Daemon) -> Steps:
    """What ``handle_psi`` would compare if it were woken now: an ``Evaluation``, or None when a file did not parse.

    Nothing is decided, and no reclaim or pending kill ends the look; the thrashing window goes on as in a poll.
    """
    counters: VmCounters | None = yield from read_vmstat(d)
    memory: MemoryInfo | None = yield from read_meminfo(d)
    if counters is None or memory is None:
        return None
    evaluation = Evaluation(level=MEDIUM, by_event=False, after_kill=False, page_kib=d.page_kib)
    refaults = _refaults(d, counters)
    if not d.psi.initialised:
        restart_window(d, counters, refaults)
        d.psi.initialised, d.psi.thrashing_limit = True, d.params.thrashing_limit
    _look_at_swap(d, memory, evaluation)
    _reclaim_state(d, counters, evaluation)
    measure = measure_thrashing if d.behaviour.thrashing_windows else measure_thrashing_11_0
    measure(d, counters, refaults, evaluation)
    evaluation.file_lru_kib = wrap(counters.file_pages * d.page_kib)
    done = yield from _evaluate(d, memory, evaluation, [0.0, 0.0], None)
    return evaluation if done else None


def _goes_on(d: Daemon, level: int, by_event: bool, vendor: MemoryEvent | None) -> Steps:
    """Steps 1 to 6: note the wake-up; False when it is filtered, or the last victim is still dying."""
    state, behaviour = d.psi, d.behaviour
    d.event_ns = d.now_ns
    if behaviour.counted_events:
        d.event_count += 1
        if d.params.debug:
            what = f"{LEVEL_NAMES[level]} memory pressure" if vendor is None else "vendor kill"
            yield info(f"{what} event #{d.event_count} is triggered")
    if state.thrashing_limit is None:
        state.thrashing_limit = d.params.thrashing_limit
    if vendor is None:
        if behaviour.lower_event_filter:
            if by_event and level < state.previous_level:
                if d.params.debug:
                    yield info(f"Ignoring {LEVEL_NAMES[level]} pressure event; occurred too soon.")
                yield Decision(strategy="psi", level=level, by_event=True, ended_early="lower event")
                return False
            state.previous_level = level if by_event else LOW
        state.wakeups.record(d.event_ns, by_event)
    pending = yield from kill_pending(d)
    timeout_ms = d.params.kill_timeout_ms
    if pending and (timeout_ms == 0 or diff_ms(d.last_kill_ns, d.event_ns) < timeout_ms):
        state.wakeups.skipped += 1
        _set_polling(d, by_event, NO_RECLAIM, swap_low=False)
        strategy = "psi" if vendor is None else "vendor"
        yield Decision(strategy=strategy, level=level, by_event=by_event, ended_early="pending kill")
        return False
    yield from stop_wait(d, finished=not pending)
    return True


def _refaults(d: Daemon, counters: VmCounters) -> int:
    # Linux 170b04b7ae49 (v5.9) split workingset_refault into _anon and _file.
    if counters.refault or not d.behaviour.refault_file_fallback:
        return counters.refault
    return counters.refault_file


def _look_at_swap(d: Daemon, memory: MemoryInfo, e: Evaluation) -> None:
    """Step 9. Before Android 13 the threshold was computed only while it was 0."""
    state, percentage = d.psi, d.params.swap_free_low_percentage
    e.swap_total_pages, e.swap_free_pages = memory.swap_total, memory.swap_free
    e.easy_pages, e.anon_pages, e.shmem_pages = memory.easy, memory.anon, memory.shmem
    e.free_swap_pages = memory.free_swap(d.params, d.behaviour)
    if not percentage:
        return
    if d.behaviour.swap_threshold_each_call or not state.swap_threshold:
        state.swap_threshold = c_div(wrap(memory.swap_total * percentage), 100)
    e.swap_threshold_pages = state.swap_threshold
    e.swap_low = e.free_swap_pages < e.swap_threshold_pages


def _reclaim_state(d: Daemon, counters: VmCounters, e: Evaluation) -> int:
    """Step 10, first half: direct reclaim, kswapd, or neither (reference: section 4.6)."""
    state, behaviour = d.psi, d.behaviour
    if behaviour.memevents and d.memory_events:
        direct, kswapd = d.direct_reclaim_ns != 0, d.kswapd_ns != 0
    elif behaviour.scan_any_change:
        direct = counters.scan_direct != state.init_direct
        kswapd = counters.scan_kswapd != state.init_kswapd
        if behaviour.pgrefill_is_kswapd and counters.pgrefill != state.init_pgrefill:
            kswapd = True
    else:
        direct = counters.scan_direct > state.init_direct
        kswapd = counters.scan_kswapd > state.init_kswapd
    e.direct_reclaim_ms = diff_ms(d.direct_reclaim_ns, d.event_ns)
    if not direct and not kswapd:
        e.reclaim = NO_RECLAIM
        return NO_RECLAIM
    if direct:
        state.init_direct = counters.scan_direct
    state.init_kswapd = counters.scan_kswapd
    state.init_pgrefill = counters.pgrefill
    e.reclaim = DIRECT_RECLAIM if direct else KSWAPD_RECLAIM
    return e.reclaim


def _bails_out(d: Daemon, refaults: int) -> bool:
    """Step 10, second half: nothing is being reclaimed and nothing refaulted, so nothing is looked at."""
    if not d.behaviour.thrashing_windows:
        d.psi.in_reclaim = False
        return True
    return refaults == d.psi.previous_refaults


def _refresh_watermarks(d: Daemon) -> Steps:
    """Step 13: once a minute, or when they are not known. False: zoneinfo failed, the call is over."""
    state = d.psi
    stale = not d.zoneinfo_events and diff_ms(state.watermarks_ns, d.event_ns) > WATERMARK_REFRESH_MS
    if state.watermarks.high != 0 and not stale:
        return True
    watermarks = yield from read_watermarks(d)
    if watermarks is None:
        yield error("Failed to parse zoneinfo!")
        return False
    state.watermarks, state.watermarks_ns = watermarks, d.event_ns
    return True


def _evaluate(d: Daemon, memory: MemoryInfo, e: Evaluation, psi: list[float], skips: ZoneSkips | None) -> Steps:
    """Steps 13 and 14; False: zoneinfo failed."""
    state = d.psi
    e.free_pages = wrap(memory.free - memory.cma_free)
    if skips is not None:
        if not (yield from refresh_by_zone(d, skips, e)):
            return False
    elif not (yield from _refresh_watermarks(d)):
        return False
    marks = state.watermarks
    e.min_pages, e.low_pages, e.high_pages = marks.min, marks.low, marks.high
    e.watermark = marks.lowest_breached(e.free_pages)
    if d.behaviour.critical_stall and (yield from read_psi(PSI_MEMORY_PATH, True, psi)):
        e.full_stall_pct = psi[1]
        e.critical_stall = psi[1] > float32(d.params.stall_limit_critical)
    if e.vendor_reason is not None and not (0 <= e.vendor_reason <= VENDOR_KILL_MAX and e.vendor_min_adj >= 0):
        yield error(f"Invalid vendor kill reason {e.vendor_reason}, min_oom_score_adj {e.vendor_min_adj}")
        return False
    e.checked_filecache = e.check_filecache = state.check_filecache
    evaluate(e, d.params, d.behaviour)
    state.check_filecache = e.check_filecache
    return True


def _decide_and_kill(d: Daemon, memory: MemoryInfo, e: Evaluation, skips: ZoneSkips | None) -> Steps:
    """Steps 13 to 15; False: the call ended early."""
    state = d.psi
    psi, io_psi, cpu_psi = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    if not (yield from _evaluate(d, memory, e, psi, skips)):
        yield Decision(strategy="psi", level=e.level, by_event=e.by_event, ended_early="unreadable")
        return False
    evaluations: tuple[Evaluation, ...] = (e,)
    if e.reason == -1:
        yield _decision(e, evaluations, 0, [])
        return True
    if d.behaviour.first_kill_rereads and state.first_kill:
        # The marks may be old before the first kill. lmkd jumps back without clearing what it decided.
        state.first_kill = False
        state.watermarks = attrs.evolve(state.watermarks, high=0)
        e = attrs.evolve(e)
        if not (yield from _evaluate(d, memory, e, psi, skips)):
            yield _decision(evaluations[0], evaluations, 0, [])
            return False
        evaluations = (*evaluations, e)
    min_adj = 0 if e.critical_stall else e.min_adj
    if d.behaviour.critical_stall:
        yield from read_psi(PSI_IO_PATH, True, io_psi)
        yield from read_psi(PSI_CPU_PATH, False, cpu_psi)
    context = KillContext(
        min_adj=min_adj,
        memory=memory,
        wakeups=state.wakeups,
        now_ns=d.event_ns,
        reason=e.reason,
        reason_text=e.reason_text,
        thrashing=c_int32(e.thrashing_pct),
        max_thrashing=state.max_thrashing,
        psi=(*psi, *io_psi, cpu_psi[0]),
    )
    freed = yield from find_and_kill(d, context)
    if freed > 0:
        state.killing = True
        state.max_thrashing = 0
        if e.cut_limit:
            cut = c_int32((state.thrashing_limit or 0) * (100 - d.params.thrashing_limit_decay))
            state.thrashing_limit = c_div(cut, 100)
    yield _decision(e, evaluations, min_adj, context.killed)
    return True


def _decision(
    e: Evaluation, evaluations: tuple[Evaluation, ...], min_adj: int, killed: list[tuple[int, int]]
) -> Decision:
    return Decision(
        strategy="psi" if e.vendor_reason is None else "vendor",
        level=e.level,
        by_event=e.by_event,
        evaluations=evaluations,
        reason=e.reason,
        reason_text=e.reason_text,
        min_adj=min_adj,
        killed_pids=tuple(pid for pid, _ in killed),
        killed_adjs=tuple(adj for _, adj in killed),
    )


def _set_polling(d: Daemon, by_event: bool, reclaim: int, swap_low: bool) -> None:
    """The end of every call that was not cut short: pause while a pidfd is awaited, or poll on."""
    polling = d.polling
    if d.waiting_for_kill():
        polling.update = PAUSE
        return
    if by_event or d.psi.killing or reclaim == DIRECT_RECLAIM:
        polling.update = START
    polling.interval_ms = POLL_SHORT_MS if swap_low or d.psi.killing else POLL_LONG_MS
