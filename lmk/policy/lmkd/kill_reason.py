"""lmkd's kill reasons, with its numbers (reference: section 8.7). The words are in ``psi_rules``."""

from __future__ import annotations

from enum import IntEnum


class KillReason(IntEnum):
    """As in the killinfo event and the statistics packet; vendor reasons are 1000 and more."""

    NONE = -1  #: old strategy, watchdog
    PRESSURE_AFTER_KILL = 0
    NOT_RESPONDING = 1
    LOW_SWAP_AND_THRASHING = 2
    LOW_MEM_AND_SWAP = 3
    LOW_MEM_AND_THRASHING = 4
    DIRECT_RECL_AND_THRASHING = 5
    LOW_MEM_AND_SWAP_UTIL = 6
    LOW_FILECACHE_AFTER_THRASHING = 7
    LOW_MEM = 8
    DIRECT_RECL_STUCK = 9


VENDOR_KILL_BASE = 1000
#: lmkd compares the number *before* adding the base with the end of the range, so up to 2999 occurs.
VENDOR_KILL_MAX = 1999


def reason_name(reason: int) -> str:
    """The word for a number: ``LOW_MEM``, ``VENDOR_1005``."""
    return f"VENDOR_{reason}" if reason >= VENDOR_KILL_BASE else KillReason(reason).name
