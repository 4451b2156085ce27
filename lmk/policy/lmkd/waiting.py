"""Waiting for a victim to die, and the handlers that end the wait (reference: sections 6.6 and 7)."""

from __future__ import annotations

from lmk.policy.api import ClosePidfd, ProcessExists, UnwatchExit, WatchExit
from lmk.policy.lmkd.daemon import RESUME, Daemon, Steps, diff_ms, error, info
from lmk.policy.lmkd.process_table import Process


def kill_pending(d: Daemon) -> Steps:
    """is_kill_pending: bool. With pidfds: a wait is on; without: the process still has a directory."""
    if d.last_kill is None:
        return False
    if d.pidfd_supported:
        return True
    return (yield ProcessExists(d.last_kill.pid))


def start_wait(d: Daemon, record: Process) -> Steps:
    """start_wait_for_proc_kill. A wait that is still on is given up first, with an error line."""
    if d.last_kill is not None:
        yield error("Attempt to wait for a kill while another wait is in progress")
        yield from stop_wait(d, finished=False)
    d.last_kill = record
    if not d.pidfd_supported or record.handle is None:
        return
    errno = yield WatchExit(record.handle)
    if errno:
        yield error(f"epoll_ctl for last kill failed; errno={errno}")
        yield ClosePidfd(record.handle)
        d.last_kill = None


def stop_wait(d: Daemon, *, finished: bool) -> Steps:
    """stop_wait_for_proc_kill: nothing if there is no wait."""
    record = d.last_kill
    if record is None:
        return
    if d.params.debug:
        waited_ms = diff_ms(d.last_kill_ns, d.now_ns)
        if finished:
            yield info(f"Process got killed in {waited_ms}ms")
        else:
            yield info(f"Stop waiting for process kill after {waited_ms}ms")
    if d.pidfd_supported and record.handle is not None:
        yield UnwatchExit(record.handle)
        yield ClosePidfd(record.handle)
        record.handle_closed = True
    d.last_kill = None


def remove_record(d: Daemon, record: Process | None) -> Steps:
    """pid_remove: a pidfd that is being waited on stays open until the wait ends."""
    if record is None:
        return
    d.table.remove(record.pid)
    if record.handle is not None and d.last_kill is not record and not record.handle_closed:
        # After a failed kill the C++ daemon closes the descriptor a second time, without effect.
        yield ClosePidfd(record.handle)


def handle_kill_done(d: Daemon, _data: int, _by_event: bool) -> Steps:
    """kill_done_handler. It ends whatever wait is on, even one that began in the same batch of events."""
    yield from stop_wait(d, finished=True)
    d.polling.update = RESUME


def handle_kill_failed(d: Daemon, _data: int, _by_event: bool) -> Steps:
    """kill_fail_handler: a reaper thread could not signal. The wait that is on may be another one's."""
    yield from stop_wait(d, finished=False)
    d.polling.update = RESUME
