"""Memory events from the kernel's tracepoints (reference: sections 4.6 and 4.9)."""

from __future__ import annotations

from enum import IntEnum

import attrs

from lmk.policy.api import MemoryEvent, MemoryEvents, OpenMemoryEvents, TakeMemoryEvents
from lmk.policy.lmkd.daemon import LOW, Daemon, Steps, error, info, warning
from lmk.policy.lmkd.memory import read_watermarks
from lmk.policy.lmkd.psi_strategy import handle_psi


class MemoryEventKind(IntEnum):
    """Numbers of the event types."""

    DIRECT_RECLAIM_BEGIN = 1
    DIRECT_RECLAIM_END = 2
    KSWAPD_WAKE = 3
    KSWAPD_SLEEP = 4
    VENDOR_KILL = 5
    UPDATE_ZONEINFO = 6


def open_memory_events(d: Daemon) -> Steps:
    """init_memevent_listener_monitoring: bool. Without all of direct reclaim and kswapd there is none.

    Surprise: the zoneinfo event counts as supported even when the listener then fails, which switches
    off the refresh of the watermarks once a minute.
    """
    support = yield OpenMemoryEvents()
    if not support.created:
        yield error("Failed to initialize memevents listener")
        return False
    if not support.direct_reclaim:
        yield error("Failed to register direct reclaim memevents")
        return False
    if not support.kswapd:
        yield error("Failed to register kswapd memevents")
        return False
    if d.behaviour.vendor_kills and not support.vendor_kill:
        yield info("Failed to register android_vendor_kill memevents")
    if d.behaviour.zoneinfo_events:
        d.zoneinfo_events = support.update_zoneinfo
        if not support.update_zoneinfo:
            yield info("update_zoneinfo memevents are not supported")
    if support.fd < 0:
        yield error(f"Invalid memevent_listener fd: {support.fd}")
        return False
    d.memory_events = True
    return True


def use_memory_events(d: Daemon) -> Steps:
    """What BOOT_COMPLETED does: prefer memory events, else give up the rule that needs them."""
    if (yield from open_memory_events(d)):
        yield info("Using memevents for direct reclaim and kswapd detection")
    else:
        yield info("Using vmstats for direct reclaim and kswapd detection")
        yield from drop_direct_reclaim_threshold(d)


def drop_direct_reclaim_threshold(d: Daemon) -> Steps:
    """Without a listener the threshold is forced to 0, with a warning."""
    if d.params.direct_reclaim_threshold_ms > 0:
        yield warning("Kernel support for direct_reclaim_threshold_ms is not found")
        d.params = attrs.evolve(d.params, direct_reclaim_threshold_ms=0)


def poll_memory_events(d: Daemon, _data: int, _by_event: bool) -> Steps:
    """memevent_listener_notification, for an event or (after a vendor kill) by polling: empty the ring."""
    events = yield TakeMemoryEvents()
    yield from handle_memory_events(d, events)


def handle_memory_events(d: Daemon, events: MemoryEvents) -> Steps:
    """memevent_listener_notification: what the ring held."""
    if events.entries is None:
        d.direct_reclaim_ns = 0
        yield error("Failed fetching memory listener events.")
        return
    for event in events.entries:
        yield from _handle(d, event)


def _handle(d: Daemon, event: MemoryEvent) -> Steps:
    kind = event.kind
    if kind == MemoryEventKind.DIRECT_RECLAIM_BEGIN:
        d.direct_reclaim_ns = d.now_ns
    elif kind == MemoryEventKind.DIRECT_RECLAIM_END:
        d.direct_reclaim_ns = 0
    elif kind == MemoryEventKind.KSWAPD_WAKE:
        d.kswapd_ns = d.now_ns
    elif kind == MemoryEventKind.KSWAPD_SLEEP:
        d.kswapd_ns = 0
    elif kind == MemoryEventKind.VENDOR_KILL and d.behaviour.vendor_kills:
        yield from handle_psi(d, LOW, False, event)
    elif kind == MemoryEventKind.UPDATE_ZONEINFO and d.behaviour.zoneinfo_events:
        # At once, and without moving the time of the next refresh.
        watermarks = yield from read_watermarks(d)
        if watermarks is None:
            yield error("Failed to parse zoneinfo!")
        else:
            d.psi.watermarks = watermarks
