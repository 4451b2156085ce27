"""When ActivityManager starts a service again whose process has died.

Pure. The guest's app runner has the same rule in C (``tools/lmk-helper/apprunner_restart.c``); a test compares the two.

Source: ActiveServices.scheduleServiceRestartLocked with the constants of ActivityManagerConstants. Left out: the longer
distance under memory pressure (extra_delay_svc_restart_mem_pressure).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from lmk.units import NS_PER_S

#: SERVICE_RESTART_DURATION, _FACTOR
RESTART_NS: Final = NS_PER_S
RESTART_FACTOR: Final = 4
#: SERVICE_RESET_RUN_DURATION: a service that ran for longer begins with the shortest delay again.
RESET_RUN_NS: Final = 60 * NS_PER_S
#: SERVICE_MIN_RESTART_TIME_BETWEEN: no two services are started again within this time.
MIN_BETWEEN_NS: Final = 10 * NS_PER_S


def next_restart_ns(delay_ns: int, ran_ns: int, now_ns: int, others_ns: Collection[int]) -> int:
    """When to start it again. ``delay_ns``: how long it had to wait the last time (0: it never had), ``ran_ns``: how
    long it has run since; ``others_ns``: when the other services that wait will be started."""
    delay_ns = RESTART_NS if ran_ns > RESET_RUN_NS else max(RESTART_NS, delay_ns * RESTART_FACTOR)
    at_ns = now_ns + delay_ns
    # Every round moves it behind another one.
    for _ in range(len(others_ns) + 1):
        near_ns = next((one for one in others_ns if one - MIN_BETWEEN_NS <= at_ns < one + MIN_BETWEEN_NS), None)
        if near_ns is None:
            break
        at_ns = near_ns + MIN_BETWEEN_NS
    return at_ns
