"""Records of the events buffer: ``am_kill: [0,123,name,905,reason]``, ``killinfo: [...]``. Text -> fields.

Fields by position; a record may be shorter (an older release) or longer (a newer one) than a row here.
Source: EventLogTags.logtags of ActivityManager, lmkd's statslog and event.logtags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

#: lmkd's killinfo, in its order. Sizes in KiB; since Android 11, later releases appended (reference of the order:
#: lmkd.cpp, killinfo_log).
KILLINFO_FIELDS: tuple[str, ...] = (
    "pid", "uid", "adj", "min_adj", "rss_kib", "reason_code", "free_kib", "cached_kib", "swap_cached_kib",
    "buffers_kib", "shmem_kib", "unevictable_kib", "swap_total_kib", "swap_free_kib", "active_anon_kib",
    "inactive_anon_kib", "active_file_kib", "inactive_file_kib", "sreclaimable_kib", "sunreclaim_kib",
    "kernel_stack_kib", "page_tables_kib", "ion_heap_kib", "ion_pool_kib", "cma_free_kib", "since_event_ms",
    "since_wakeup_ms", "wakeups", "skipped_wakeups", "swap_kib", "gpu_kib", "thrashing_pct", "max_thrashing_pct",
    "psi_memory_some", "psi_memory_full", "psi_io_some", "psi_io_full", "psi_cpu_some", "dmabuf_pss_kib",
    "dmabuf_rss_kib",
)  # fmt: skip
#: A record must have this much to say who was killed.
KILLINFO_FIELDS_MIN = 3
#: tag -> field names after the optional user; sizes as the event has them (bytes).
SIMPLE_EVENTS: Mapping[str, Sequence[str]] = {
    "am_low_memory": ("processes",),
    "am_mem_factor": ("factor", "previous"),
    "am_meminfo": ("cached_bytes", "free_bytes", "zram_bytes", "kernel_bytes", "native_bytes"),
    "am_pss": ("pid", "uid", "name", "pss_bytes", "uss_bytes", "swap_bytes", "rss_bytes", "stat_type", "state", "ms"),
}
_DESCRIBED = re.compile(r"^[A-Za-z][A-Za-z _]*=")


def event_values(text: str) -> list[str] | None:
    """The values of ``[a,b,c]`` or of a single one; None if it is no record. ``-v descriptive`` names are left out."""
    text = text.strip()
    if text.startswith("["):
        if not text.endswith("]"):
            return None
        text = text[1:-1]
    return [_DESCRIBED.sub("", value.strip()) for value in text.split(",")]


def read_killinfo(text: str) -> dict[str, int | float | str] | None:
    """Fields of a killinfo record; None if it is none."""
    text = text.strip()
    if text.startswith("[") and not text.endswith("]"):
        text = text.rpartition(",")[0] + "]"  # cut: the last number may not be whole
    values = event_values(text)
    if values is None:
        return None
    fields: dict[str, int | float | str] = {}
    if values and _number(values[0]) is None and values[0]:
        fields["name"] = values.pop(0)  # some vendors put the name first
    for name, value in zip(KILLINFO_FIELDS, values, strict=False):
        number = _number(value)
        if number is None or (isinstance(number, float) and not name.startswith("psi_")):
            break  # shortened by whoever quoted it
        fields[name] = float(number) if name.startswith("psi_") else number
    return fields if len(fields) >= KILLINFO_FIELDS_MIN and "adj" in fields else None


def read_am_kill(text: str) -> dict[str, int | float | str] | None:
    """``[user,] pid, process, adj, reason[, rss]``: the reason may hold commas, the process name does not."""
    values = event_values(text)
    if values is None:
        return None
    head = _user_pid_name(values)
    if head is None or len(head[1]) < 2 or _int(head[1][0]) is None:
        return None
    fields, rest = head
    fields["adj"] = int(rest[0])
    reason = rest[1:]
    if len(reason) > 1 and (rss := _int(reason[-1])) is not None:
        reason = reason[:-1]
        if rss > 0:  # 0: not known
            fields["rss_kib"] = rss
    fields["reason"] = ",".join(reason)
    return fields


def read_am_died(text: str) -> dict[str, int | float | str] | None:
    """``[user,] pid, process[, adj, procstate]``."""
    values = event_values(text)
    head = None if values is None else _user_pid_name(values)
    if head is None:
        return None
    fields, rest = head
    numbers = [_int(value) for value in rest]
    for name, number in zip(("adj", "state_code"), numbers, strict=False):
        if number is not None:
            fields[name] = number
    return fields


def read_simple(tag: str, text: str) -> dict[str, int | float | str] | None:
    """An event of SIMPLE_EVENTS; None if it is not one of these or malformed."""
    names = SIMPLE_EVENTS.get(tag)
    values = event_values(text)
    if names is None or values is None:
        return None
    fields: dict[str, int | float | str] = {}
    for name, value in zip(names, values, strict=False):
        number = value if name == "name" else _int(value)
        if number is None:
            return None
        fields[name] = number
    return fields


def _user_pid_name(values: list[str]) -> tuple[dict[str, int | float | str], list[str]] | None:
    """Until Android 4.1 records begin with the pid, since then with the user."""
    if len(values) < 2 or _int(values[0]) is None:
        return None
    pid = _int(values[1]) if len(values) > 2 else None
    if pid is None:
        return {"pid": int(values[0]), "name": values[1]}, values[2:]
    return {"user": int(values[0]), "pid": pid, "name": values[2]}, values[3:]


def _int(text: str) -> int | None:
    number = _number(text)
    return number if isinstance(number, int) else None


def _number(text: str) -> int | float | None:
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdecimal() and len(digits) <= 18:
        return int(text)
    whole, dot, fraction = digits.partition(".")
    if dot and whole.isascii() and whole.isdecimal() and fraction.isascii() and fraction.isdecimal():
        return float(text) if len(digits) < 40 else None
    return None
