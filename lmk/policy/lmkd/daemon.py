"""The state of one lmkd, explicit: what the C++ daemon keeps in globals and function statics.

Everything here is mutable and owned by one ``LmkdPolicy``. The functions of the other modules are
generators over it: they yield requests and are sent the answers. ``now_ns`` is the coarse clock as of
the last answer, the only clock there is.

Dataclasses, not attrs: mypyc (tools/compile_sim.py) gives their fields fixed places, which takes a tenth off a
simulated run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Final

from lmk.policy.api import HandlerBegin, HandlerEnd, Log, Machine, Request
from lmk.policy.lmkd.control_packets import Dialect
from lmk.policy.lmkd.params import LmkdParams
from lmk.policy.lmkd.process_table import Process, ProcessTable
from lmk.policy.lmkd.versions import Behaviour
from lmk.policy.lmkd.watermark import Watermarks
from lmk.units import NS_PER_MS, NS_PER_S

Steps = Generator[Request, Any, Any]

LEVEL_NAMES: Final = ("low", "medium", "critical")
LOW: Final = 0
MEDIUM: Final = 1
CRITICAL: Final = 2

NO_CHANGE: Final = 0
START: Final = 1
PAUSE: Final = 2
RESUME: Final = 3
POLL_SHORT_MS: Final = 10
POLL_LONG_MS: Final = 100

DATA_CONNECTIONS_MAX: Final = 3


def diff_ms(start_ns: int, end_ns: int) -> int:
    """lmkd's get_time_diff_ms: whole seconds and nanoseconds apart, the latter truncated toward zero,
    so the result can exceed the true difference by 1."""
    seconds = end_ns // NS_PER_S - start_ns // NS_PER_S
    rest = end_ns - start_ns - seconds * NS_PER_S
    return seconds * 1000 + (rest // NS_PER_MS if rest >= 0 else -(-rest // NS_PER_MS))


@dataclass(eq=False, slots=True)
class Handler:
    """An event handler: its function changes when monitors are set up anew, its identity does not."""

    name: str
    data: int
    function: Callable[[Daemon, int, bool], Steps]
    #: What a call of it starts with, by polling and by an event; made once.
    begins: tuple[HandlerBegin, HandlerBegin] = field(init=False)

    def __post_init__(self) -> None:
        self.rename(self.name)

    def rename(self, name: str) -> None:
        """It has another function now."""
        self.name = name
        self.begins = (HandlerBegin(name, self.data, False), HandlerBegin(name, self.data, True))


@dataclass(slots=True)
class Polling:
    """poll_params: who is polled, since when, how often."""

    handler: Handler | None = None
    paused: Handler | None = None
    start_ns: int = 0
    last_ns: int = 0
    interval_ms: int = 0
    update: int = NO_CHANGE


@dataclass(slots=True)
class Connection:
    """One of the three data connections. ``pid`` (of the last sender) outlives the connection, as the
    C++ daemon never resets it."""

    connection: int | None = None
    pid: int = 0
    event_mask: int = 0


@dataclass(slots=True)
class Wakeups:
    """wakeup_info: when the last events came, for the killinfo event."""

    wakeup_ns: int = 0
    previous_ns: int = 0
    last_event_ns: int = 0
    since_event: int = 0
    skipped: int = 0

    def record(self, now_ns: int, by_event: bool) -> None:
        """lmkd's record_wakeup_time."""
        self.previous_ns = self.wakeup_ns
        self.wakeup_ns = now_ns
        if by_event:
            self.last_event_ns = now_ns
            self.since_event = self.skipped = 0
        else:
            self.since_event += 1


@dataclass(slots=True)
class PsiState:
    """Statics of mp_event_psi (reference: section 4.2). Pages, counts, percent, nanoseconds."""

    init_refaults: int = 0
    previous_refaults: int = 0
    base_file_pages: int = 0
    init_kswapd: int = 0
    init_direct: int = 0
    init_pgrefill: int = 0
    killing: bool = False
    thrashing_limit: int | None = None  #: None until the first call
    window_start_ns: int = 0
    carried_thrashing: int = 0
    check_filecache: bool = False
    max_thrashing: int = 0
    watermarks: Watermarks = field(default_factory=Watermarks)
    watermarks_ns: int = 0
    wakeups: Wakeups = field(default_factory=Wakeups)
    previous_level: int = LOW
    first_kill: bool = True
    initialised: bool = False
    swap_threshold: int = 0  #: where it is computed only once
    in_reclaim: bool = False  #: Android 11.0
    # a vendor's lmkd that leaves out zones whose pages are skipped
    all_watermarks: Watermarks = field(default_factory=Watermarks)
    skipped_pages: list[int] = field(default_factory=lambda: [0] * 5)
    mglru: bool = True


@dataclass(slots=True)
class OldState:
    """Statics of mp_event_common (reference: section 5)."""

    wakeups: Wakeups = field(default_factory=Wakeups)
    skipped_events: int = 0
    low_min_pages: int = -1
    low_max_pages: int = -1
    last_report_ns: int = 0
    skipped_reports: int = 0


@dataclass(slots=True)
class KillCounters:
    """Kills by oom_score_adj: 16 bits each, for the first 32 distinct scores; and in total, 32 bits."""

    by_adj: dict[int, int] = field(default_factory=dict)
    total: int = 0


@dataclass(eq=False, slots=True)
class Daemon:
    """One lmkd."""

    behaviour: Behaviour
    dialect: Dialect
    now_ns: int = 0
    event_ns: int = 0  #: the clock as a pressure handler read it when it began
    machine: Machine = field(default_factory=Machine)
    page_kib: int = 4
    params: LmkdParams = field(default_factory=LmkdParams)
    table: ProcessTable = field(default_factory=ProcessTable)
    polling: Polling = field(default_factory=Polling)
    psi: PsiState = field(default_factory=PsiState)
    old: OldState = field(default_factory=OldState)
    counters: KillCounters = field(default_factory=KillCounters)

    # waiting for a victim to die
    pidfd_supported: bool = False
    last_kill: Process | None = None
    last_kill_ns: int = 0
    reaper_active: bool = False

    # clients
    connections: list[Connection] = field(default_factory=lambda: [Connection() for _ in range(DATA_CONNECTIONS_MAX)])
    slot_of: dict[int, int] = field(default_factory=dict)  #: last slot of a connection, kept after closing
    targets: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)] * 6)  #: (minfree pages, adj)
    target_count: int = 0
    last_target_ns: int = 0

    # monitors
    monitors_started: bool = False
    use_psi: bool = False
    armed: list[bool] = field(default_factory=lambda: [False, False, False])
    pressure: list[Handler] = field(default_factory=list)
    psi_thresholds_ms: list[int] = field(default_factory=lambda: [70, 100, 70])
    memcg_version: int | None = None  #: asked once
    memcg_usage_path: str = ""
    memcg_swap_usage_path: str = ""
    in_kernel: bool = False
    kernel_kills_open: bool = False
    task_names: dict[int, str] = field(default_factory=dict)  #: in-kernel mode
    event_count: int = 0

    # memory events
    memory_events: bool = False
    zoneinfo_events: bool = False
    boot_handled: bool = False
    direct_reclaim_ns: int = 0  #: 0: not in direct reclaim
    kswapd_ns: int = 0

    # statistics
    gpu_map_missing: bool = False
    #: The /proc/vmstat value read last, and what came of it.
    vmstat_seen: tuple[object, object] = (None, None)
    #: The /proc/meminfo value read last, the parameters then, and what came of both.
    meminfo_seen: tuple[object, object, object] = (None, None, None)
    log_stats: bool | None = None  #: read once per process
    statistics: list[int] = field(default_factory=lambda: [0] * 6)

    #: The handler of each descriptor; the same object for the same descriptor.
    handlers: dict[str, Handler] = field(default_factory=dict)
    data_handlers: list[Handler] = field(default_factory=list)
    last_state: HandlerEnd = field(default_factory=lambda: HandlerEnd(-1, -1, 0, -1))

    def state(self) -> HandlerEnd:
        """Polling and waiting as they are now."""
        polling, last = self.polling, self.last_state
        handler, paused, victim = polling.handler, polling.paused, self.last_kill
        polled = -1 if handler is None else handler.data
        waits = -1 if paused is None else paused.data
        pid = -1 if victim is None else victim.pid
        if (
            last.polling != polled
            or last.waiting_pid != pid
            or last.paused != waits
            or last.interval_ms != polling.interval_ms
        ):
            last = self.last_state = HandlerEnd(polled, waits, polling.interval_ms, pid)
        return last

    def waiting_for_kill(self) -> bool:
        """is_waiting_for_kill: a pidfd is being watched."""
        return self.pidfd_supported and self.last_kill is not None


def info(text: str) -> Log:
    """ALOGI."""
    return Log("I", text)


def warning(text: str) -> Log:
    """ALOGW."""
    return Log("W", text)


def error(text: str) -> Log:
    """ALOGE."""
    return Log("E", text)
