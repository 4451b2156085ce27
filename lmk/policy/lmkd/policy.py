"""Android's lmkd as a policy: start-up, then the main loop (reference: section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lmk.policy.api import (
    CheckWritable,
    DescribeMachine,
    Exit,
    FileError,
    HandlerEnd,
    OpenKernelKills,
    ProbePidfd,
    ProcessRow,
    ReadFile,
    Request,
    SetProperty,
    StartReaper,
)
from lmk.policy.lmkd.control import KERNEL_MINFREE_PATH, boot_completed, read_properties
from lmk.policy.lmkd.control_packets import Dialect
from lmk.policy.lmkd.daemon import DATA_CONNECTIONS_MAX, LEVEL_NAMES, Daemon, Handler, Steps, error, info
from lmk.policy.lmkd.memory import ZONEINFO_PATH
from lmk.policy.lmkd.memory_events import poll_memory_events, use_memory_events
from lmk.policy.lmkd.monitors import start_monitors
from lmk.policy.lmkd.page_skip import read_mglru
from lmk.policy.lmkd.params import LmkdParams
from lmk.policy.lmkd.polling import main_loop
from lmk.policy.lmkd.psi_strategy import handle_psi
from lmk.policy.lmkd.strerror import strerror
from lmk.policy.lmkd.versions import BASELINE, Behaviour, behaviour
from lmk.policy.lmkd.waiting import handle_kill_done, handle_kill_failed

REAPER_THREADS: Final = 2


class LmkdPolicy:
    """lmkd at the behaviour of one release. See ``lmk.policy.api`` for the protocol."""

    name = "lmkd"

    def __init__(self, release: Behaviour | str = BASELINE) -> None:
        """``release``: a behaviour, or a name ``versions.behaviour`` knows (KeyError for another)."""
        self.behaviour = behaviour(release) if isinstance(release, str) else release
        self._daemon = Daemon(behaviour=self.behaviour, dialect=dialect_of(self.behaviour))
        self._steps = _start_up(self._daemon)
        self._send = self._steps.send

    def start(self, now_ns: int) -> Request:
        """The first request."""
        self._daemon.now_ns = now_ns
        request: Request = next(self._steps)
        return request

    def step(self, answer: object, now_ns: int) -> Request:
        """Answer the last request; returns the next one."""
        self._daemon.now_ns = now_ns
        try:
            return self._send(answer)
        except StopIteration:
            # Started: from here on the main loop answers directly, one generator less on every way.
            self._steps = main_loop(self._daemon)
            self._send = self._steps.send
            return self._send(None)

    def processes(self) -> Sequence[ProcessRow]:
        """The process table, oom_score_adj descending, newest first within one."""
        return list(self._daemon.table.rows())

    def state(self) -> HandlerEnd:
        """Polling and waiting as they are now, as ``HandlerEnd`` tells them."""
        return self._daemon.state()

    def kill_count(self) -> int:
        """All kills so far."""
        return self._daemon.counters.total

    @property
    def params(self) -> LmkdParams:
        """The properties in force."""
        return self._daemon.params


def dialect_of(behaviour: Behaviour) -> Dialect:
    """The socket protocol of a release."""
    return Dialect(
        start_monitoring=behaviour.start_monitoring,
        boot_completed=behaviour.boot_completed,
        procs_prio=bool(behaviour.procs_prio),
        prockill_rss=behaviour.prockill_rss,
    )


def _start_up(d: Daemon) -> Steps:
    """main up to its loop: properties, init, reaper. A failed init ends the daemon with status 0."""
    _make_handlers(d)
    d.machine = yield DescribeMachine()
    d.page_kib = max(d.machine.page_size // 1024, 1)
    yield from read_properties(d)
    if d.behaviour.skipped_zones:
        yield from read_mglru(d)
    if not (yield from _init(d)):
        yield info("exiting")
        yield Exit(0, returned=True)
    if d.behaviour.reaper:
        d.reaper_active = yield StartReaper(REAPER_THREADS, d.behaviour.reap_order)
        if d.reaper_active:
            yield info(f"Process reaper initialized with {REAPER_THREADS} threads in the pool")
        else:
            yield info("Process reaping is not supported")


def _make_handlers(d: Daemon) -> None:
    d.pressure = [Handler("psi", level, handle_psi) for level in range(len(LEVEL_NAMES))]
    functions = {
        "kill_done": handle_kill_done,
        "kill_fail": handle_kill_failed,
        "memevent": poll_memory_events,
        "connect": _nothing,
        "kernel": _nothing,
    }
    d.handlers = {name: Handler(name, 0, function) for name, function in functions.items()}
    d.data_handlers = [Handler("ctrl", slot, _nothing) for slot in range(DATA_CONNECTIONS_MAX)]


def _nothing(_d: Daemon, _data: int, _by_event: bool) -> Steps:
    """Handlers that are only ever called with an event in hand."""
    yield from ()


def _init(d: Daemon) -> Steps:
    """init: bool. The in-kernel killer, where its module is there, replaces the monitors."""
    d.in_kernel = yield CheckWritable(KERNEL_MINFREE_PATH)
    if d.in_kernel:
        yield info("Using in-kernel low memory killer interface")
        errno = yield OpenKernelKills()
        if errno:
            yield error(f"kernel lmk event file could not be opened; errno={errno}")
        else:
            yield SetProperty("sys.lmk.reportkills", "1")
    else:
        delayed = d.behaviour.delay_monitors and d.params.delay_monitors_until_boot
        if (not delayed or (yield from boot_completed())) and not (yield from start_monitors(d)):
            return False
        yield SetProperty("sys.lmk.reportkills", "1")
    # Read as the biggest file, to size lmkd's buffer; nothing is made of it.
    answer = yield ReadFile(ZONEINFO_PATH, keep=False)
    if isinstance(answer, FileError):
        reason = strerror(answer.errno)
        yield error(f"{ZONEINFO_PATH} {answer.op}: {reason}")
        yield error(f"Failed to read {ZONEINFO_PATH}: {reason}")
    d.pidfd_supported = yield ProbePidfd()
    yield info(f"Process polling is {'supported' if d.pidfd_supported else 'not supported'}")
    if d.behaviour.memevents_at_start and (yield from boot_completed()):
        yield from use_memory_events(d)
    return True
