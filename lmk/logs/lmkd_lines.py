"""lmkd's own lines (tags ``lowmemorykiller``, ``lmkd``): kills, their second halves, and everything else it says.

Sources: lmkd.cpp of the releases named, and logs of the vendors named. A new wording is a new row here.
"""

from __future__ import annotations

import re

from lmk.logs.wording import Wording, table
from lmk.policy.lmkd.kill_reason import KillReason

TAGS = frozenset({"lowmemorykiller", "lmkd", "slmkd", "lowmemkiller"})

_WHO = "{verb} '{name}' ({pid}), [[uid {uid}, ]]"
#: Later and longer forms first: a match may stop before the end of the line.
KILLS: tuple[Wording, ...] = table(
    (
        ("K8", "13-15", "Samsung", _WHO + "oom_score_adj {adj}, state {state_code} to free {rss_kib}kB rss, "
         "{swap_kib}kB swap[[; reason: {reason}]]"),
        ("K7", "16", "AOSP", _WHO + "oom_score_adj {adj} to free {rss_kib}kB rss, {anon_kib}kB anon rss, "
         "{swap_kib}kB swap[[, {dmabuf_pss_kib}kB dmabuf_pss, {dmabuf_rss_kib}kB dmabuf_rss]][[; reason: {reason}]]"),
        ("K6", "15-16", "AOSP", _WHO + "oom_score_adj {adj} to free {rss_kib}kB rss, {swap_kib}kB swap, "
         "{dmabuf_pss_kib}kB dmabuf_pss, {dmabuf_rss_kib}kB dmabuf_rss[[; reason: {reason}]]"),
        ("K5", "12-16", "AOSP", _WHO + "oom_score_adj {adj} to free {rss_kib}kB rss, {swap_kib}kB swap"
         "; reason: {reason}"),
        ("K4", "11-14", "AOSP, old strategy", _WHO + "oom_score_adj {adj} to free {rss_kib}kB rss, {swap_kib}kB swap"),
        ("K3", "11", "AOSP", _WHO + "oom_adj {adj} to free {rss_kib}kB; reason: {reason}"),
        ("K2", "10-11", "AOSP, Qualcomm", _WHO + "oom_adj {adj} to free {rss_kib}kB"),
        ("K0", "5-8", "AOSP", _WHO + "adj {adj} to free {rss_kib}kB because cache {rest}"),
        ("K1", "8-9", "AOSP", _WHO + "adj {adj} to free {rss_kib}kB because system is under {level} memory pressure"
         "[[ oom_adj {min_adj}]]"),
    )
)  # fmt: skip
#: The first of two lines; KILL_TAILS has the second ones.
KILL_HEADS = table((("K1", "5-9", "AOSP", "{verb} '{name}' ({pid}), uid {uid}, adj {adj}"),))
KILL_TAILS = table(
    (
        ("K1", "8-9", "AOSP", "to free {rss_kib}kB because system is under {level} memory pressure[[ oom_adj "
         "{min_adj}]]"),
        ("K0", "5-8", "AOSP", "to free {rss_kib}kB because cache {rest}"),
        ("K0", "5-8", "AOSP", "Free memory is {rest}"),
    )
)  # fmt: skip
#: What a kill line is recognised by when its wording is nobody's: the verb, the quoted name, the pid.
KILL_OPENING = re.compile(
    r"\s*(?P<verb>Kill(?:ed|ing)?|Reclaim(?:ing)?|Terminat(?:e|ed|ing)) '(?P<name>[^']*)' "
    r"\((?P<pid>\d+)\)(?P<rest>.*)$",
    re.ASCII,
)
#: Fields that can be picked out of an opening's rest; a number the line ends in may be cut.
LOOSE_FIELDS = {
    "uid": re.compile(r"\buid (\d+)(?=\D)", re.ASCII),
    "adj": re.compile(r"\b(?:oom_score_adj|oom_adj|adj) (-?\d+)(?=\D)", re.ASCII),
    "rss_kib": re.compile(r"\bto free (\d+) ?[kK][bB]", re.ASCII),
    "swap_kib": re.compile(r"\b(\d+) ?[kK][bB] swap", re.ASCII),
    "reason": re.compile(r"\breason: ?(.+)", re.ASCII),
}

#: Lines that are no kills, although some of them speak of killing.
OTHERS = table(
    (
        ("reclaimed", "10-11", "AOSP", "Reclaimed {reclaimed_kib}kB at oom_adj {min_adj}"),
        ("reclaimed", "12-16", "AOSP", "Reclaimed {reclaimed_kib}kB at oom_score_adj {min_adj}"),
        ("reclaimed", "11-16", "AOSP", "Reclaimed {reclaimed_kib}kB, cache({cache_kib}kB) and {rest}"),
        ("reclaimed", "9-10", "AOSP", "Reclaimed enough memory {rest}"),
        ("reclaim-failed", "9-10", "AOSP", "Unable to free enough memory {rest}"),
        ("suppressed", "11-16", "AOSP", "Suppressed {count} failed kill reports"),
        ("skipped", "10-16", "AOSP", "{count} memory pressure events were skipped after a kill!"),
        ("skipped", "13-15", "Samsung", "{delay}(delay), {swap}(swap), {free_limit}(freelimit), {reentry}(reentrymode) "
         "memory pressure events were skipped after a kill!"),
        ("cached", "13-15", "Samsung", "cached {count}, sandbox(not0) {sandbox}"),
        ("mrelease", "12-16", "AOSP", "process_mrelease {pid} failed: {errno_text}"),
        ("skip", "14-15", "Motorola", "Skip process '{name}' ({pid}){rest}"),
        ("boost", "14-15", "Motorola", "boost kswapd priority{rest}"),
        ("raced", "9-16", "AOSP", "Failed to open {file} errno={errno}: process{rest}"),
        ("raced", "5-16", "AOSP", "Error {what} {file} errno={errno}{rest}"),
        ("raced", "5-16", "AOSP", "{file} open failed: errno={errno}{rest}"),
        ("failed-kill", "5-16", "AOSP", "kill({pid}): errno={errno}{rest}"),
        ("failed-kill", "12-16", "AOSP", "pidfd_open for pid {pid} failed{rest}"),
        ("memory", "10-16", "AOSP", "Failed to get free memory!"),
        ("memory", "10-16", "AOSP", "{file} parse error"),
        ("memory", "10-16", "AOSP", "Failed to parse {rest}"),
        ("enough", "13-15", "OPPO, OnePlus, realme", "device has enough memory {available_kib}Kib[[, and "
         "freeMemory {free_kib}Kib]], "
         "disable killing(limit_killing:{limit_kib}Kib)"),
        ("enough", "13-15", "OPPO, OnePlus, realme", "adj:{adj} file_cache: {file_pages} free:{free_pages}"),
        ("enough", "16", "OPPO, OnePlus, realme", "device memory {available_kib} free {free_kib} file {file_kib}"),
        ("watermarks", "11-14", "Qualcomm", "Ignoring pressure since per-zone watermarks ok"),
        ("watermarks", "11-14", "Qualcomm", "super critical memory pressure event is triggered"),
        ("watermarks", "11-14", "Qualcomm", "Zone {zone}: free:{free_pages} high:{high_pages} {rest}"),
        ("minfree", "9", "MediaTek", "[{index}]: lowmem_adj({adj}) lowmem_minfree({pages})"),
        ("life", "5-16", "AOSP", "lmkd data connection {what}"),
        ("life", "5-16", "AOSP", "closing lmkd data connection{rest}"),
        ("life", "5-16", "AOSP", "ActivityManager {what}connected{rest}"),
        ("life", "9-16", "AOSP", "Using {rest}"),
        ("life", "11-16", "AOSP", "Process {what}"),
        ("life", "10-16", "AOSP", "Properties reinit{rest}"),
        ("life", "11-16", "AOSP", "lmkd updated properties{rest}"),
        ("life", "5-16", "AOSP", "get lmkd control socket failed{rest}"),
        ("life", "5-16", "AOSP", "exiting"),
        ("life", "15-16", "AOSP", "memevent {rest}"),
        ("life", "15-16", "AOSP", "Failed to initialize memevents listener{rest}"),
        ("life", "5-16", "AOSP", "Low-memory killer{rest}"),
        ("life", "5-16", "AOSP", "Kernel does not support {rest}"),
        # SELinux denials come under the denied program's name.
        ("audit", "5-16", "Android", "type={type_number} audit({rest}"),
    )
)  # fmt: skip

#: What a reason means in lmkd's current numbering (KillReason); None where a vendor's own rule stands behind it.
_REASONS: tuple[tuple[str, str, KillReason | None], ...] = (
    ("device is not responding", "AOSP", KillReason.NOT_RESPONDING),
    (r"\w+ watermark is breached even after kill", "AOSP, Samsung", KillReason.PRESSURE_AFTER_KILL),
    (r"\w+ watermark is breached and swap is low", "AOSP, Samsung", KillReason.LOW_MEM_AND_SWAP),
    (r"\w+ watermark is breached and swap utilization is high", "AOSP", KillReason.LOW_MEM_AND_SWAP_UTIL),
    (r"\w+ watermark is breached and thrashing", "AOSP", KillReason.LOW_MEM_AND_THRASHING),
    (r"\w+ watermark is breached$", "AOSP", KillReason.LOW_MEM),
    (r"device is low on swap \(.*\) and thrashing", "AOSP", KillReason.LOW_SWAP_AND_THRASHING),
    ("device is in direct reclaim and thrashing", "AOSP", KillReason.DIRECT_RECL_AND_THRASHING),
    ("device is stuck in direct reclaim", "AOSP", KillReason.DIRECT_RECL_STUCK),
    ("filecache is low .* after thrashing", "AOSP", KillReason.LOW_FILECACHE_AFTER_THRASHING),
    ("device is in medium stall and watermark low", "Motorola", None),
    ("kswapd is busy and watermark low", "Motorola", None),
    ("PSI critical event", "Motorola", None),
    ("free is low with low file page", "Xiaomi", None),
    ("cw$", "unknown", None),
)
_REASON_PATTERNS = tuple((re.compile(words, re.ASCII), vendor, code) for words, vendor, code in _REASONS)


def reason_code(reason: str) -> int | None:
    """lmkd's number for a reason in words, by today's numbering; None for words that have none."""
    for pattern, _vendor, code in _REASON_PATTERNS:
        if pattern.match(reason):
            return None if code is None else int(code)
    return None
