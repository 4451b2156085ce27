"""What lmkd's other threads do: the watchdog, and the reaper threads' log lines (reference: section 7)."""

from __future__ import annotations

from lmk.policy.api import EventLog, HandlerBegin, Kill, ReapedEvent
from lmk.policy.lmkd.daemon import Daemon, Steps, error, info, warning
from lmk.policy.lmkd.strerror import strerror
from lmk.policy.lmkd.victim import killinfo
from lmk.policy.oom_adj import OOM_SCORE_ADJ_MAX


def bite(d: Daemon) -> Steps:
    """watchdog_callback: the main thread hangs, so kill the oldest registration of the highest score.

    From 1000 down to 0, at once and without looking at sizes. It touches neither the wait nor the
    counters nor the clients; the record becomes invalid, as only the main thread may remove it.
    """
    if not d.behaviour.watchdog:
        return
    yield HandlerBegin("watchdog", 0, True)
    yield warning("lmkd watchdog timed out!")
    yield from _kill_first(d)
    yield d.state()


def _kill_first(d: Daemon) -> Steps:
    for adj in d.table.adjs_from(OOM_SCORE_ADJ_MAX, 0):
        for record in reversed(d.table.head_to_tail(adj)):
            if not record.valid:
                continue
            outcome = yield Kill(record.pid, record.handle, False, d.behaviour.synchronous_release)
            if outcome.errno == 0:
                yield warning(f"lmkd watchdog killed process {record.pid}, oom_score_adj {adj}")
                yield EventLog(killinfo(d, record, None, None))
                record.valid = not d.behaviour.record_validity
                return


def log_reaped(d: Daemon, event: ReapedEvent) -> Steps:
    """A reaper thread's log lines; its time only with debug."""
    if event.kill_errno:
        yield error(f"Failed to kill process {event.pid}")
    elif event.release_errno:
        yield error(f"process_mrelease {event.pid} failed: {strerror(event.release_errno)}")
    elif d.params.debug:
        yield info(f"Process {event.pid} was reaped in {event.took_ms}ms")
