"""Choosing and arming the pressure monitors (reference: sections 3.3 and 3.4)."""

from __future__ import annotations

from lmk.policy.api import ArmPsi, ArmVmpressure, CgroupAttributePath, Disarm
from lmk.policy.lmkd.daemon import CRITICAL, LEVEL_NAMES, LOW, MEDIUM, Daemon, Steps, error, info
from lmk.policy.lmkd.memcg import MEMCG_V1_ROOT, find_memcg
from lmk.policy.lmkd.memory import PSI_MEMORY_PATH
from lmk.policy.lmkd.old_strategy import handle_mp
from lmk.policy.lmkd.psi_strategy import handle_psi
from lmk.units import c_int32

US_PER_MS = 1000
_STALL_KINDS = ("some", "some", "full")


def start_monitors(d: Daemon) -> Steps:
    """init_monitors: PSI triggers if wanted and possible, else vmpressure. Bool, whether any works.

    vmpressure always brings the old strategy, even where the new one was wanted.
    """
    if d.behaviour.counted_events:
        yield info(f"Wakeup counter is reset from {d.event_count} to 0")
        d.event_count = 0
    d.use_psi = d.params.use_psi and (yield from _start_psi(d))
    if not d.use_psi:
        for level in (LOW, MEDIUM, CRITICAL):
            if not (yield from _arm_vmpressure(d, level)):
                yield error("Kernel does not support memory pressure events or in-kernel low memory killer")
                return False
    kind = "psi monitors" if d.use_psi else "vmpressure"
    yield info(f"Using {kind} for memory pressure detection")
    d.monitors_started = True
    return True


def stop_monitors(d: Daemon) -> Steps:
    """destroy_monitors."""
    for level in (CRITICAL, MEDIUM, LOW):
        yield from _disarm(d, level)


def _start_psi(d: Daemon) -> Steps:
    """init_psi_monitors. The new strategy overwrites the thresholds for good: a reinit that switches
    to the old strategy keeps them."""
    new_strategy = d.params.use_new_strategy
    if not new_strategy and d.behaviour.old_strategy_needs_v1 and (yield from find_memcg(d)) != 1:
        yield error("Old kill strategy can only be used with v1 cgroup hierarchy")
        return False
    if new_strategy:
        d.psi_thresholds_ms = [0, d.params.psi_partial_stall_ms, d.params.psi_complete_stall_ms]
    for level in (LOW, MEDIUM, CRITICAL):
        if not (yield from _arm_psi(d, level, new_strategy)):
            for lower in range(level - 1, -1, -1):
                yield from _disarm(d, lower)
            return False
    return True


def _arm_psi(d: Daemon, level: int, new_strategy: bool) -> Steps:
    threshold_ms = d.psi_thresholds_ms[level]
    if not threshold_ms:
        return True
    kind = _STALL_KINDS[level]
    threshold_us = c_int32(threshold_ms * US_PER_MS)
    window_us = c_int32(d.params.psi_window_size_ms * US_PER_MS)
    failure = yield ArmPsi(level, f"{kind} {threshold_us} {window_us}")
    if failure is not None:
        if failure.op == "open":
            yield error(f"No kernel psi monitor support (errno={failure.errno})")
        else:
            yield error(f"{PSI_MEMORY_PATH} write failed for psi stall type '{kind}'; errno={failure.errno}")
        return False
    handler = d.pressure[level]
    handler.rename("psi" if new_strategy else "mp")
    handler.function = handle_psi if new_strategy else handle_mp
    d.armed[level] = True
    return True


def _arm_vmpressure(d: Daemon, level: int) -> Steps:
    """init_mp_common."""
    if d.behaviour.old_strategy_needs_v1 and (yield from find_memcg(d)) != 1:
        yield error("init_mp_common: global monitoring is only available for the v1 cgroup hierarchy")
        return False
    pressure_path: str | None = MEMCG_V1_ROOT + "/memory.pressure_level"
    control_path: str | None = MEMCG_V1_ROOT + "/cgroup.event_control"
    if d.behaviour.old_strategy_needs_v1:
        pressure_path = yield CgroupAttributePath("MemPressureLevel", None)
        control_path = yield CgroupAttributePath("MemCgroupEventControl", None)
    name = LEVEL_NAMES[level]
    failure = yield ArmVmpressure(level, name, pressure_path or "", control_path or "")
    if failure is not None:
        errno = failure.errno
        if failure.op == "pressure_level":
            yield info(f"No kernel memory.pressure_level support (errno={errno})")
        elif failure.op == "event_control":
            yield info(f"No kernel memory cgroup event control (errno={errno})")
        elif failure.op == "eventfd":
            yield error(f"eventfd failed for level {name}; errno={errno}")
        else:
            yield error(f"cgroup.event_control write failed for level {name}; errno={errno}")
        return False
    handler = d.pressure[level]
    handler.rename("mp")
    handler.function = handle_mp
    d.armed[level] = True
    return True


def _disarm(d: Daemon, level: int) -> Steps:
    if d.armed[level]:
        yield Disarm(level)
        d.armed[level] = False
