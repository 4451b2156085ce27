"""A vendor's addition: zones whose pages reclaim skips count neither as free nor in the watermarks
(reference: appendix A; Qualcomm's patches in yaap/system_memory_lmkd)."""

from __future__ import annotations

import re

import attrs

from lmk.policy.api import FileError, ReadFile
from lmk.policy.decision import Evaluation
from lmk.policy.lmkd.daemon import Daemon, Steps, diff_ms, error
from lmk.policy.lmkd.memory import WATERMARK_REFRESH_MS, VmCounters, read_zones, wrap
from lmk.policy.lmkd.watermark import NAMED_ZONES, ZoneMarks, sum_watermarks

MGLRU_PATH = "/sys/kernel/mm/lru_gen/enabled"
_NORMAL = NAMED_ZONES.index("Normal")
_HEX = re.compile(r"\s*[+-]?(?:0[xX])?[0-9a-fA-F]+", re.ASCII)


@attrs.frozen
class ZoneSkips:
    """How far each zone's counter moved since the last call; ``grew``: one of them upward."""

    deltas: tuple[int, ...]
    grew: bool


def read_mglru(d: Daemon) -> Steps:
    """get_MGLRU_status: on, unless the file holds no hexadecimal number above 0. Unreadable counts as on."""
    answer = yield ReadFile(MGLRU_PATH, keep=False)
    if isinstance(answer, FileError):
        d.psi.mglru = True
    else:
        match = _HEX.match(answer)
        d.psi.mglru = match is not None and int(match.group().strip(), 16) > 0


def note_skipped_pages(d: Daemon, counters: VmCounters) -> ZoneSkips:
    """calc_pgskip_deltas. With MGLRU the Normal zone's counter means something else and is left alone."""
    state = d.psi
    deltas = []
    for index, now in enumerate(counters.skipped):
        if state.mglru and index == _NORMAL:
            deltas.append(0)
            continue
        deltas.append(wrap(now - state.skipped_pages[index]))
        state.skipped_pages[index] = now
    return ZoneSkips(tuple(deltas), any(delta > 0 for delta in deltas))


def refresh_by_zone(d: Daemon, skips: ZoneSkips, e: Evaluation) -> Steps:
    """False: zoneinfo failed. After a refresh free memory is what the remaining zones have, else meminfo's."""
    state = d.psi
    stale = diff_ms(state.watermarks_ns, d.event_ns) > WATERMARK_REFRESH_MS
    if state.watermarks.high != 0 and not stale and not skips.grew:
        state.watermarks = state.all_watermarks
        return True
    zones: list[ZoneMarks] | None = yield from read_zones(d)
    if zones is None:
        yield error("Failed to parse zoneinfo!")
        return False
    counted = [zone for zone in zones if NAMED_ZONES.index(zone.name) < len(skips.deltas) and zone.populated()]
    usable = [zone for zone in counted if not skips.deltas[NAMED_ZONES.index(zone.name)]]
    state.all_watermarks = sum_watermarks(counted, zones)
    state.watermarks = sum_watermarks(usable, zones)
    state.watermarks_ns = d.event_ns
    free = sum(zone.fields.get("nr_free_pages", 0) for zone in usable)
    e.free_pages = wrap(free - sum(zone.fields.get("nr_free_cma", 0) for zone in usable))
    return True
