"""What changed in lmkd from release to release, as one table (reference: lmkd sections 0.2 and 11).

Each row is one difference: its name, what it means, where it comes from, and its value from which
tag on. A ``Behaviour`` is one column of the table. Nothing else in the policy asks for a version.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import attrs

#: Oldest first. 11.0 … 11Q3 are Android 11; N1 … N3 are later development (partly Android 17).
TAGS = (
    *("11.0", "11Q1", "11Q3", "12", "12L", "13.0", "13Q1", "13Q2", "14.0", "14Q2"),
    *("15.0", "15Q1", "15Q2", "16", "N1", "N2", "N3"),
)
#: A bare Android number means that Android's last quarterly release.
LAST_QUARTERLY: Mapping[int, str] = {11: "11Q3", 12: "12", 13: "13Q2", 14: "14Q2", 15: "15Q2", 16: "16"}
BASELINE = "14Q2"

_INDEX = {tag: index for index, tag in enumerate(TAGS)}


def tag_index(tag: str) -> int:
    """Position of a tag in time. KeyError for an unknown tag."""
    return _INDEX[tag]


@attrs.frozen(kw_only=True)
class Difference:
    """One row: ``values`` are (first tag, value) pairs, oldest first, starting at 11.0."""

    name: str
    meaning: str
    source: str
    values: tuple[tuple[str, Any], ...]

    def at(self, tag: str) -> Any:
        """The value that holds at a tag."""
        index = tag_index(tag)
        return [value for first, value in self.values if tag_index(first) <= index][-1]


def _row(name: str, meaning: str, source: str, oldest: object, *changes: tuple[str, object]) -> Difference:
    return Difference(name=name, meaning=meaning, source=source, values=(("11.0", oldest), *changes))


def _since(tag: str, name: str, meaning: str, source: str) -> Difference:
    return _row(name, meaning, source, False, (tag, True))


DIFFERENCES: tuple[Difference, ...] = (
    # ---- properties
    _row("kill_timeout_default_ms", "default of kill_timeout_ms", "11.1; update_props", 0, ("11Q1", 100)),
    _since("12L", "persist_overrides", "persist.device_config.lmkd_native.* first", "1.1; GET_LMK_PROPERTY"),
    _since("12", "log_stats_default", "default of log_stats", "1.2; statslog.cpp"),
    _row(
        "critical_thrashing_factor",
        "default of thrashing_limit_critical as a multiple of thrashing_limit; 0: the rule does not exist,"
        " -1: fixed 300",
        "1.2, 11.1; update_props",
        0,
        *(("11Q3", 2), ("14Q2", 3), ("N1", -1)),
    ),
    _since("14Q2", "after_kill_min_score", "pressure_after_kill_min_score exists", "1.2; update_props"),
    _since("14Q2", "delay_monitors", "delay_monitors_until_boot exists", "1.2, 3.2; init"),
    _since("15.0", "lowmem_min_score", "lowmem_min_oom_score exists", "1.2; update_props"),
    _since("N1", "psi_window_property", "psi_window_size_ms exists", "1.2; init_mp_psi"),
    _since("N2", "relaxed_memory", "relaxed_available_memory exists", "1.2, 4.3"),
    _since("14Q2", "reinit_if_started", "a reinit leaves monitors alone that never started", "1.4"),
    # ---- reading the kernel
    _since("12", "refault_file_fallback", "workingset_refault_file where the old name is absent", "4.1"),
    _since("14.0", "scan_any_change", "a scan counter that went backwards counts too", "4.6; mp_event_psi"),
    _since("14Q2", "pgrefill_is_kswapd", "a changed pgrefill counts as kswapd reclaim", "4.6; mp_event_psi"),
    _row("zoneinfo_node_fields", "node statistics to find per node", "4.4", 3, ("12", 2)),
    _since("15Q2", "zoneinfo_stats_marker", "zones before the node's statistics are skipped", "4.4"),
    _row(
        "free_swap",
        "free swap: SwapFree, or at most what is easily available (times a ratio, over a divisor)",
        "4.3; get_free_swap",
        "raw",
        *(("14.0", "easy"), ("15.0", "ratio"), ("N2", "ratio_div")),
    ),
    _since("15.0", "memevents", "direct reclaim and kswapd from memory events", "4.6"),
    _since("16", "vendor_kills", "vendor kill memory events", "4.9"),
    _since("16", "zoneinfo_events", "zoneinfo memory events replace the refresh once a minute", "4.4, 4.6"),
    _since("N2", "memevents_at_start", "memory event listener at start when already booted", "3.2"),
    # ---- the PSI strategy
    _since("11Q1", "thrashing_windows", "windows of 1 s that carry over, not reclaim periods", "4.7, 11.3"),
    _since("N1", "first_call_initialised", "the first call starts a window like a kill does", "4.7"),
    _row("shift_modulo_64", "decay shift uses the count modulo 64", "4.7", True, ("N1", False)),
    _since("13.0", "swap_threshold_each_call", "swap threshold computed at each call, not once", "4.3"),
    _since("12", "watermark_word", "reasons say which watermark, min or low", "9.1; mp_event_psi"),
    _since("12", "swap_util_rule", "reason 6, LOW_MEM_AND_SWAP_UTIL", "4.8; mp_event_psi"),
    _since("12", "filecache_rule", "reason 7, LOW_FILECACHE_AFTER_THRASHING", "4.8; mp_event_psi"),
    _since("N3", "filecache_needs_watermark", "reason 7 only from the high watermark down", "4.8"),
    _since("14Q2", "low_mem_rule", "reason 8, LOW_MEM", "4.8; mp_event_psi"),
    _since("N1", "low_mem_skipped", "no reason 8 when lowmem_min_oom_score is above 1000", "4.8"),
    _since("15.0", "direct_reclaim_stuck_rule", "reason 9, DIRECT_RECL_STUCK", "4.8; mp_event_psi"),
    _since("13.0", "critical_stall", "a critical stall lets any process die", "4.8; mp_event_psi"),
    _since("15.0", "first_kill_rereads", "watermarks are read again before the first kill", "4.8"),
    _since("15Q2", "lower_event_filter", "a lower event after a higher one waits for a poll", "4.5"),
    # ---- victims and kills
    _since("11Q3", "heaviest_if_perceptible", "the heaviest dies from adj 200 downward", "6.2"),
    _since("16", "lone_record_unread", "a slot's only record is taken without reading its size", "6.3"),
    _since("12", "status_sizes", "sizes from status; zero sizes stay in the table", "6.3, 6.4"),
    _since("15Q1", "empty_reads_refused", "an empty status or cmdline counts as unreadable", "6.4"),
    _since("N3", "anon_rss_needed", "a victim without RssAnon is refused", "6.4"),
    _since("14.0", "failed_kill_is_zero", "a failed kill counts as 0 freed instead of -1", "6.4"),
    _since("N3", "search_fixed", "a failure does not end the search, a small victim does", "6.2"),
    _row("kill_counter_slots", "distinct adj values counted", "6.5; inc_killcnt", 32, ("N2", 64)),
    _since("13.0", "reaper", "kills and releases memory on two threads", "7; init_reaper"),
    _row(
        "synchronous_release",
        "a synchronous kill releases memory too and fails with it",
        "7.1",
        False,
        *(("13.0", True), ("13Q2", False)),
    ),
    _since("N3", "kills_group", "a reaper thread kills the whole cgroup of the process", "7.3; reaper.cpp"),
    _row("reap_order", "which queued kill a thread takes first", "7.1", "lifo", ("N1", "fifo")),
    _since("13.0", "watchdog", "a stuck handler makes a second thread kill", "7.4"),
    _since("13Q1", "record_validity", "a process killed by the watchdog is never tried again", "6.1, 7.4"),
    # ---- the old strategy
    _since("13.0", "old_strategy_needs_v1", "old strategy and vmpressure need memcg v1", "3.3, 5"),
    _since("14.0", "low_ram_minfree_adj", "minfree's adj on low-RAM devices too", "5.4"),
    _since("N2", "zero_timeout_waits", "kill_timeout_ms 0 waits for ever in the old strategy too", "5.1"),
    _row("adj_word", "word for the score in reclaim reports", "5.4", "oom_adj", ("12", "oom_score_adj")),
    # ---- polling
    _since("15Q2", "start_resets_last_poll", "the first poll comes one interval after the event", "3.6"),
    _since("11Q1", "resume_by_update", "resumed polling is known by the last call, not by the handler", "3.6"),
    _since("15Q2", "pidfd_hang_up", "a hang-up on the pidfd ends the wait, not data connection 0", "3.6"),
    # ---- socket
    _since("12", "kill_statistics", "packet 8 after each kill", "8.5"),
    _row(
        "state_packets",
        "packet 9 tells when killing starts and stops",
        "6.2, 8.2",
        False,
        *(("12", True), ("14Q2", False)),
    ),
    _since("14Q2", "start_monitoring", "command 9, START_MONITORING", "8.2"),
    _since("15.0", "boot_completed", "command 10, BOOT_COMPLETED", "8.2"),
    _row(
        "procs_prio",
        "command 11, PROCS_PRIO: one by one, or in two io_uring batches",
        "8.2, 8.3",
        "",
        *(("15.0", "io_uring"), ("15Q1", "one by one")),
    ),
    _since("15Q1", "prockill_rss", "packet 6 carries the victim's rss", "8.4"),
    _since("16", "statistics_fallback", "statistics come from procfs where the memcg has none", "8.5"),
    _since("13.0", "soft_limit_by_task", "soft limit path is looked up; none: not registered", "10"),
    # ---- logs
    _row(
        "killinfo_fields",
        "fields of the killinfo event",
        "9.3; killinfo_log",
        25,
        *(("11Q1", 29), ("12", 31), ("13.0", 38), ("N2", 40)),
    ),
    _since("13.0", "line_before_killinfo", "the kill line comes before the killinfo event", "8.6"),
    _row(
        "kill_line",
        "form of the kill line",
        "9.1; kill_one_process",
        "oom_adj",
        *(("12", "rss and swap"), ("N2", "with dmabuf"), ("N3", "with anon rss")),
    ),
    _since("15Q2", "counted_events", "debug lines count the pressure events", "9.2"),
)


@attrs.frozen(kw_only=True)
class Behaviour:
    """One column of the table; each field is the row of that name."""

    tag: str
    kill_timeout_default_ms: int
    persist_overrides: bool
    log_stats_default: bool
    critical_thrashing_factor: int
    after_kill_min_score: bool
    delay_monitors: bool
    lowmem_min_score: bool
    psi_window_property: bool
    relaxed_memory: bool
    reinit_if_started: bool
    refault_file_fallback: bool
    scan_any_change: bool
    pgrefill_is_kswapd: bool
    zoneinfo_node_fields: int
    zoneinfo_stats_marker: bool
    free_swap: str
    memevents: bool
    vendor_kills: bool
    zoneinfo_events: bool
    memevents_at_start: bool
    thrashing_windows: bool
    first_call_initialised: bool
    shift_modulo_64: bool
    swap_threshold_each_call: bool
    watermark_word: bool
    swap_util_rule: bool
    filecache_rule: bool
    filecache_needs_watermark: bool
    low_mem_rule: bool
    low_mem_skipped: bool
    direct_reclaim_stuck_rule: bool
    critical_stall: bool
    first_kill_rereads: bool
    lower_event_filter: bool
    heaviest_if_perceptible: bool
    lone_record_unread: bool
    status_sizes: bool
    empty_reads_refused: bool
    anon_rss_needed: bool
    failed_kill_is_zero: bool
    search_fixed: bool
    kill_counter_slots: int
    reaper: bool
    synchronous_release: bool
    kills_group: bool
    reap_order: str
    watchdog: bool
    record_validity: bool
    old_strategy_needs_v1: bool
    low_ram_minfree_adj: bool
    zero_timeout_waits: bool
    adj_word: str
    start_resets_last_poll: bool
    resume_by_update: bool
    pidfd_hang_up: bool
    kill_statistics: bool
    state_packets: bool
    start_monitoring: bool
    boot_completed: bool
    procs_prio: str
    prockill_rss: bool
    statistics_fallback: bool
    soft_limit_by_task: bool
    killinfo_fields: int
    line_before_killinfo: bool
    kill_line: str
    counted_events: bool
    # Vendor changes laid over a release; no AOSP release has them.
    vendor: str = ""
    swap_factor: int = 1  #: free swap is at most easily available memory times this
    zones_by_name: bool = False
    skipped_zones: bool = False


@attrs.frozen(kw_only=True)
class Vendor:
    """A vendor's lmkd: a release, and the rows it changes (or adds)."""

    name: str
    base: str
    source: str
    changes: Mapping[str, Any]


VENDORS: Mapping[str, Vendor] = {
    vendor.name: vendor
    for vendor in (
        Vendor(
            name="fork-2023-12",
            base="14Q2",
            source="appendix A; yaap/system_memory_lmkd c62ac7e, with Qualcomm's page-skip patches",
            changes={
                "free_swap": "factor",
                "swap_factor": 3,
                "zones_by_name": True,
                "skipped_zones": True,
            },
        ),
    )
}


@cache
def behaviour(tag: str) -> Behaviour:
    """The column of one tag, or a vendor's variant of one. KeyError for an unknown name."""
    vendor = VENDORS.get(tag)
    if vendor is not None:
        return attrs.evolve(behaviour(vendor.base), vendor=vendor.name, **vendor.changes)
    return Behaviour(tag=tag, **{row.name: row.at(tag) for row in DIFFERENCES})
