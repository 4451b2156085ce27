"""Thrashing: refaults as a share of the file cache, in windows of one second (reference: section 4.7)."""

from __future__ import annotations

from typing import Final

from lmk.policy.decision import Evaluation
from lmk.policy.lmkd.daemon import Daemon, diff_ms
from lmk.policy.lmkd.memory import VmCounters, wrap
from lmk.units import c_div, c_int32

WINDOW_MS: Final = 1000


def restart_window(d: Daemon, counters: VmCounters, refaults: int) -> None:
    """After a kill: the counters of now are the base, nothing is carried over."""
    state = d.psi
    state.base_file_pages = counters.file_pages
    state.init_refaults = refaults
    if d.behaviour.thrashing_windows:
        state.window_start_ns = d.event_ns
        state.carried_thrashing = 0


def measure_thrashing(d: Daemon, counters: VmCounters, refaults: int, e: Evaluation) -> None:
    """Thrashing of this call, with what earlier windows carry over; restarts the window when it is over.

    A window whose thrashing reached the running limit and is just over keeps its full value: nobody
    could be killed, so lmkd tries again. Otherwise the value is halved once per window passed.
    Surprises kept: the shift count works modulo 64 (as 64-bit processors do), and at the very first
    call the counters count from zero.
    """
    state = d.psi
    since_ms = diff_ms(state.window_start_ns, d.event_ns)
    growth = _ratio(refaults, state.init_refaults, wrap(state.base_file_pages + 1))
    if since_ms > WINDOW_MS:
        windows = since_ms // WINDOW_MS
        limit = state.thrashing_limit or 0
        if windows > 1 or growth < limit:
            growth = _decayed(growth, windows, modulo=d.behaviour.shift_modulo_64)
        state.carried_thrashing = growth
        state.base_file_pages = counters.file_pages
        state.init_refaults = refaults
        state.window_start_ns = d.event_ns
        state.thrashing_limit = d.params.thrashing_limit
        thrashing = growth
        e.windows = windows
    else:
        thrashing = wrap(growth + state.carried_thrashing)
    if state.max_thrashing < thrashing:
        state.max_thrashing = c_int32(thrashing)
    e.thrashing_pct = thrashing
    _describe(d, e)


def measure_thrashing_11_0(d: Daemon, counters: VmCounters, refaults: int, e: Evaluation) -> None:
    """Android 11.0: thrashing since reclaim began (reference: section 11.3).

    The C++ divides by the file cache without adding 1 and crashes when it is 0; here that is 0 %.
    """
    state = d.psi
    if not state.in_reclaim:
        state.base_file_pages = counters.file_pages
        state.init_refaults = refaults
        state.thrashing_limit = d.params.thrashing_limit
    else:
        e.thrashing_pct = _ratio(refaults, state.init_refaults, state.base_file_pages)
    state.in_reclaim = True
    _describe(d, e)


def _ratio(refaults: int, base_refaults: int, pages: int) -> int:
    return c_div(wrap(wrap(refaults - base_refaults) * 100), pages) if pages else 0


def _decayed(thrashing: int, windows: int, *, modulo: bool) -> int:
    if modulo:
        return thrashing >> (windows & 63)
    return thrashing >> windows if windows < 64 else 0


def _describe(d: Daemon, e: Evaluation) -> None:
    state = d.psi
    e.thrashing_limit_pct = state.thrashing_limit or 0
    e.max_thrashing_pct = state.max_thrashing
    e.carried_thrashing_pct = state.carried_thrashing
    e.base_file_pages = state.base_file_pages
    e.base_refaults = state.init_refaults
