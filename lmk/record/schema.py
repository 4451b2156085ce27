"""What a run leaves behind: one SQLite file, ``run.sqlite``, in the run directory (docs/record.md describes it).

All times are nanoseconds on the device's CLOCK_MONOTONIC (virtual time in a simulation); ``zero_ns`` in ``meta`` is
the moment the scenario began, so ``t_ms`` of every report is ``(t_ns - zero_ns) / 1e6``. Sizes end in ``_kib``.
"""

from __future__ import annotations

from typing import Any

import attrs

#: Raised when a column or a meta key changes meaning; adding one does not raise it.
SCHEMA_VERSION = 1

DDL = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE step (
    seq INTEGER PRIMARY KEY, t_ns INTEGER NOT NULL,
    request TEXT NOT NULL, answer TEXT NOT NULL
);
CREATE TABLE text (id INTEGER PRIMARY KEY, sha TEXT NOT NULL UNIQUE, body BLOB NOT NULL);
CREATE TABLE decision (
    seq INTEGER PRIMARY KEY, t_ns INTEGER NOT NULL, woke_ns INTEGER, reason_code INTEGER, victim_pid INTEGER,
    body TEXT NOT NULL
);
CREATE TABLE kill (
    id INTEGER PRIMARY KEY, t_ns INTEGER NOT NULL, pid INTEGER NOT NULL, name TEXT, uid INTEGER,
    oom_score_adj INTEGER, reason TEXT, reason_code INTEGER, min_oom_score_adj INTEGER,
    rss_kib INTEGER, swap_kib INTEGER, event_to_signal_us INTEGER, signal_to_reaped_us INTEGER,
    signal_to_exit_us INTEGER, freed_kib INTEGER, reap_method TEXT, reap_errno INTEGER,
    killer TEXT NOT NULL, dry INTEGER NOT NULL DEFAULT 0, signal_errno INTEGER
);
CREATE TABLE counter (
    t_ns INTEGER PRIMARY KEY, mem_free_kib INTEGER, mem_available_kib INTEGER, cached_kib INTEGER,
    anon_kib INTEGER, swap_total_kib INTEGER, swap_free_kib INTEGER,
    psi_some_us INTEGER, psi_full_us INTEGER, refault_file_pages INTEGER, pgscan_direct INTEGER,
    pgscan_kswapd INTEGER, pswpin_pages INTEGER, pswpout_pages INTEGER
);
CREATE TABLE app_event (id INTEGER PRIMARY KEY, t_ns INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE device_event (id INTEGER PRIMARY KEY, t_ns INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE log (
    id INTEGER PRIMARY KEY, t_ns INTEGER NOT NULL, level TEXT NOT NULL, tag TEXT NOT NULL, text TEXT NOT NULL
);
CREATE TABLE kill_source (
    id INTEGER PRIMARY KEY, kill_id INTEGER NOT NULL, t_ns INTEGER NOT NULL,
    kind TEXT NOT NULL, shape TEXT NOT NULL, place TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX app_event_kind ON app_event (kind, t_ns);
"""

KILLER_LMK = "lmk"
KILLER_KERNEL_OOM = "kernel_oom"
#: In observed and imported records: the device's own lmkd, the kernel's lowmemorykiller driver.
KILLER_DEVICE_LMKD = "lmkd"
KILLER_KERNEL_LMK = "kernel_lmk"
KILLER_WORDS = {
    KILLER_KERNEL_OOM: "the kernel's OOM killer",
    KILLER_DEVICE_LMKD: "the device's own lmkd",
    KILLER_KERNEL_LMK: "the kernel's lowmemorykiller",
}


@attrs.define(kw_only=True)
class KillRow:
    """One process killed (or, with ``dry``, that would have been). A value nobody could read is None.

    ``event_to_signal_us`` runs from the helper's wake-up (a poll: its sample taken) to its pidfd_send_signal,
    ``freed_kib`` is resident anonymous plus shmem memory before minus after the reap.
    """

    t_ns: int
    pid: int
    name: str | None = None
    uid: int | None = None
    oom_score_adj: int | None = None
    reason: str | None = None
    reason_code: int | None = None
    min_oom_score_adj: int | None = None
    rss_kib: int | None = None
    swap_kib: int | None = None
    event_to_signal_us: int | None = None
    signal_to_reaped_us: int | None = None
    signal_to_exit_us: int | None = None
    freed_kib: int | None = None
    reap_method: str | None = None
    reap_errno: int | None = None
    killer: str = KILLER_LMK
    dry: bool = False
    #: Why the signal was not sent after all (ESRCH gone, ESTALE pid reused, ECANCELED adj changed); else None.
    signal_errno: int | None = None


@attrs.frozen(kw_only=True)
class KillSourceRow:
    """One log line that tells of a kill. ``place`` is FILE:LINE; ``kind`` and ``shape``: docs/import.md."""

    kill_id: int
    t_ns: int
    kind: str
    shape: str
    place: str
    text: str


@attrs.frozen(kw_only=True)
class CounterRow:
    """The few numbers of one sample that every view plots. None where the kernel does not say."""

    t_ns: int
    mem_free_kib: int | None = None
    mem_available_kib: int | None = None
    cached_kib: int | None = None
    anon_kib: int | None = None
    swap_total_kib: int | None = None
    swap_free_kib: int | None = None
    psi_some_us: int | None = None
    psi_full_us: int | None = None
    refault_file_pages: int | None = None
    pgscan_direct: int | None = None
    pgscan_kswapd: int | None = None
    pswpin_pages: int | None = None
    pswpout_pages: int | None = None


@attrs.frozen(kw_only=True)
class EventRow:
    """Something that happened: on the app runner's side or the helper's. ``body`` is JSON-able."""

    t_ns: int
    kind: str
    body: dict[str, Any]


@attrs.frozen(kw_only=True)
class LogRow:
    """A log line as logcat would show it; level one of V D I W E."""

    t_ns: int
    level: str
    tag: str
    text: str


def columns(row_type: type[attrs.AttrsInstance]) -> tuple[str, ...]:
    """Column names of a row type, in order."""
    return tuple(field.name for field in attrs.fields(row_type))
