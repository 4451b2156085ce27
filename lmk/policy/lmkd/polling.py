"""The main loop and its polling state machine (reference: section 3.6)."""

from __future__ import annotations

from typing import Final

from lmk.policy.api import (
    ConnectEvent,
    Event,
    ExitEvent,
    HangUpEvent,
    KernelKillEvent,
    MemoryEvents,
    MemoryEventsReady,
    PacketEvent,
    PressureEvent,
    ReapedEvent,
    ReaperFailureEvent,
    Wait,
    WatchdogEvent,
)
from lmk.policy.lmkd.control import handle_connect, packet_steps
from lmk.policy.lmkd.daemon import (
    NO_CHANGE,
    PAUSE,
    POLL_SHORT_MS,
    RESUME,
    START,
    Daemon,
    Handler,
    Steps,
    diff_ms,
    info,
)
from lmk.policy.lmkd.kernel_kills import handle_kernel_kill
from lmk.policy.lmkd.memory_events import handle_memory_events
from lmk.policy.lmkd.victim import close_connection
from lmk.policy.lmkd.waiting import stop_wait
from lmk.policy.lmkd.watchdog import bite, log_reaped

_WAIT_FOREVER: Final = Wait(None)
#: What other threads of lmkd do; these never share a Wakeup with events.
_SIDE_EVENTS: Final = frozenset({WatchdogEvent, ReapedEvent})


def main_loop(d: Daemon) -> Steps:
    """lmkd's mainloop; never ends."""
    polling = d.polling
    while True:
        if polling.handler is not None:
            events = yield from _turn_while_polling(d, polling.handler)
        elif d.params.kill_timeout_ms != 0 and d.waiting_for_kill():
            events = yield from _turn_while_waiting(d)
        else:
            events = (yield _WAIT_FOREVER).events
            if events and type(events[0]) in _SIDE_EVENTS:
                events = yield from _side_events(d, _WAIT_FOREVER, events)
        if len(events) == 1:
            event = events[0]
            if type(event) is PacketEvent:
                slot = d.slot_of.get(event.connection)
                if slot is not None:
                    yield from call_handler(d, d.data_handlers[slot], True, packet_steps(d, slot, event))
                continue
        # Dropped connections first, so that one which is dropped and made anew in a batch is not lost.
        too_early: list[HangUpEvent] = []
        for event in events:
            if isinstance(event, HangUpEvent):
                if not (yield from _hang_up(d, event)):
                    too_early.append(event)
            elif isinstance(event, ExitEvent) and event.hang_up:
                yield from _pidfd_hang_up(d)
        if too_early:
            # Accepted in this very batch: epoll would tell of the hang-up the next time, and of nothing else.
            gone = {event.connection for event in too_early}
            events = tuple(e for e in events if not (isinstance(e, PacketEvent) and e.connection in gone))
        for event in events:
            yield from _handle_event(d, event)
        for event in too_early:
            yield from _hang_up(d, event)


def _hang_up(d: Daemon, event: HangUpEvent) -> Steps:
    """EPOLLHUP on a data connection. False: the connection is not accepted yet."""
    slot = d.slot_of.get(event.connection)
    if slot is None:
        return False
    if d.connections[slot].connection == event.connection:
        yield info("lmkd data connection dropped")
        yield from close_connection(d, slot)
    return True


def _turn_while_polling(d: Daemon, handler: Handler) -> Steps:
    """Wait for the rest of the interval; the poll, if it is due, comes before the events just received."""
    polling = d.polling
    if polling.update == RESUME and d.behaviour.resume_by_update:
        events: tuple[Event, ...] = ()
        due = True
    elif not d.behaviour.resume_by_update and handler is polling.paused:
        polling.paused = None
        events = ()
        due = diff_ms(polling.last_ns, d.now_ns) >= polling.interval_ms
    else:
        delay_ms = diff_ms(polling.last_ns, d.now_ns)
        interval_ms = polling.interval_ms
        delay_ms = interval_ms - delay_ms if delay_ms < interval_ms else interval_ms
        events = yield from _wait(d, delay_ms)
        due = diff_ms(polling.last_ns, d.now_ns) >= interval_ms
    if due:
        yield from call_handler(d, handler, False)
    return events


def _turn_while_waiting(d: Daemon) -> Steps:
    """Wait for the victim's exit, at most for the rest of the kill time-out; then give it up."""
    delay_ms = d.params.kill_timeout_ms - diff_ms(d.last_kill_ns, d.now_ns)
    events: tuple[Event, ...] = ()
    if delay_ms > 0:
        events = yield from _wait(d, delay_ms)
    if not events:
        yield from stop_wait(d, finished=False)
        if d.polling.paused is not None:
            d.polling.update = RESUME
            _resume(d)
    return events


def _wait(d: Daemon, timeout_ms: int) -> Steps:
    """epoll_wait."""
    request = Wait(timeout_ms)
    events: tuple[Event, ...] = (yield request).events
    if events and type(events[0]) in _SIDE_EVENTS:
        return (yield from _side_events(d, request, events))
    return events


def _side_events(d: Daemon, request: Wait, events: tuple[Event, ...]) -> Steps:
    """What the watchdog's and the reaper's threads do does not end the wait: see to it and wait on."""
    while True:
        others: list[Event] = []
        for event in events:
            if isinstance(event, WatchdogEvent):
                yield from bite(d)
            elif isinstance(event, ReapedEvent):
                yield from log_reaped(d, event)
            else:
                others.append(event)
        if others:
            return others
        events = (yield request).events
        if not events or type(events[0]) not in _SIDE_EVENTS:
            return events


def call_handler(d: Daemon, handler: Handler, by_event: bool, body: Steps | None = None) -> Steps:
    """lmkd's call_handler: run it, then do what it asked of polling. ``body``: what it runs instead of its
    own function, for an event that carries something."""
    polling = d.polling
    yield handler.begins[by_event]
    polling.update = NO_CHANGE
    yield from handler.function(d, handler.data, by_event) if body is None else body
    now_ns = d.now_ns
    if polling.handler is handler:
        polling.last_ns = now_ns
    update = polling.update
    if update == NO_CHANGE:
        if polling.handler is not None and diff_ms(polling.start_ns, now_ns) > d.params.psi_window_size_ms:
            polling.handler = None
            if not d.behaviour.resume_by_update:
                polling.paused = None
    elif update == START:
        polling.start_ns = now_ns
        polling.handler = handler
        if d.behaviour.start_resets_last_poll:
            polling.last_ns = now_ns
    elif update == PAUSE:
        polling.paused = handler
        polling.handler = None
    else:
        _resume(d)
    yield d.state()


def _resume(d: Daemon) -> None:
    """resume_polling. It copies the paused handler even when there is none, which ends a running poll."""
    polling = d.polling
    polling.start_ns = d.now_ns
    polling.handler = polling.paused
    if d.behaviour.resume_by_update:
        polling.interval_ms = POLL_SHORT_MS
        polling.paused = None


def _pidfd_hang_up(d: Daemon) -> Steps:
    """Up to 15Q1 a hang-up of the pidfd is taken for one of data connection 0."""
    if d.behaviour.pidfd_hang_up:
        yield from call_handler(d, d.handlers["kill_done"], True)
    else:
        yield info("lmkd data connection dropped")
        yield from close_connection(d, 0)


def _handle_event(d: Daemon, event: Event) -> Steps:
    """Second pass over a batch: everything but hang-ups."""
    if isinstance(event, PacketEvent):
        slot = d.slot_of.get(event.connection)
        if slot is not None:
            yield from call_handler(d, d.data_handlers[slot], True, packet_steps(d, slot, event))
    elif isinstance(event, PressureEvent):
        if 0 <= event.level < len(d.pressure):
            yield from call_handler(d, d.pressure[event.level], True)
    elif isinstance(event, ExitEvent):
        if not event.hang_up:
            yield from call_handler(d, d.handlers["kill_done"], True)
    elif isinstance(event, ReaperFailureEvent):
        yield from call_handler(d, d.handlers["kill_fail"], True)
    elif isinstance(event, MemoryEvents):
        yield from call_handler(d, d.handlers["memevent"], True, handle_memory_events(d, event))
    elif isinstance(event, MemoryEventsReady):
        yield from call_handler(d, d.handlers["memevent"], True)
    elif isinstance(event, ConnectEvent):
        yield from call_handler(d, d.handlers["connect"], True, handle_connect(d, event.connection))
    elif isinstance(event, KernelKillEvent):
        yield from call_handler(d, d.handlers["kernel"], True, handle_kernel_kill(d, event.text))
