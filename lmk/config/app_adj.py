"""oom_score_adj as Android's ActivityManager (OomAdjuster) assigns it while a user opens and leaves apps.

Pure. The guest's app runner has the same model in C (``tools/lmk-helper/apprunner_adj.c``) because it must react
to deaths by itself; a test compares the two on random sequences.

Source: frameworks/base OomAdjuster (computeOomAdjLSP, assignCachedAdjIfNecessary) and ProcessList, Android 13
to 16 without tiered cached adj; bindings between processes are left out. A process that showed UI and runs a
started service counts as cached there too, so only processes without UI have the service levels. The rule that
drops the previous app into the cached range after a minute, and the limit on the number of cached processes, need
longer scenarios than any here and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import attrs

Role = Literal["app", "home", "service", "empty", "persistent", "fixed"]
Rest = Literal["cached", "perceptible", "visible"]

PERSISTENT_ADJ: Final = -800
FOREGROUND_ADJ: Final = 0
VISIBLE_ADJ: Final = 100
PERCEPTIBLE_ADJ: Final = 200
SERVICE_ADJ: Final = 500
HOME_ADJ: Final = 600
PREVIOUS_ADJ: Final = 700
SERVICE_B_ADJ: Final = 800
CACHED_ADJ_MIN: Final = 900
CACHED_ADJ_MAX: Final = 999

#: ProcessList.CACHED_APP_IMPORTANCE_LEVELS.
_LEVELS: Final = 5
#: OomAdjuster.mNumSlots: more than ten cached processes share slots.
_SLOTS: Final = (CACHED_ADJ_MAX - CACHED_ADJ_MIN + 1) // 2 // _LEVELS
#: CUR_MAX_CACHED_PROCESSES - CUR_MAX_EMPTY_PROCESSES of a default device.
_EMPTY_COUNTED_MAX: Final = 16


@attrs.frozen(kw_only=True)
class AdjProcess:
    """One process as ActivityManager sees it. ``rest``: what it is while not on top."""

    id: int
    role: Role
    rest: Rest = "cached"
    fixed_adj: int = 0


@attrs.frozen(kw_only=True)
class AdjState:
    """Processes, newest first; ``top`` and ``previous`` are ids or None. Every method returns a new state."""

    lru: tuple[AdjProcess, ...] = ()
    top: int | None = None
    previous: int | None = None

    def find(self, id: int | None) -> AdjProcess | None:
        """The process with this id."""
        return next((process for process in self.lru if process.id == id), None)

    def start(self, process: AdjProcess) -> AdjState:
        """A process exists now, newest of all. Nothing happens if its id is known."""
        return self if self.find(process.id) else attrs.evolve(self, lru=(process, *self.lru))

    def launch(self, id: int) -> AdjState:
        """The user opens an app, or home: it is on top, and the app that was is the previous one."""
        process = self.find(id)
        if process is None or process.role not in ("app", "home") or self.top == id:
            return self
        old = self.find(self.top)
        previous = old.id if old is not None and old.role == "app" else self.previous
        return attrs.evolve(self, lru=self._fronted(process), top=id, previous=previous)

    def leave(self, id: int) -> AdjState:
        """The user goes home from an app; nothing happens if it is not on top."""
        process = self.find(id)
        if process is None or process.role != "app" or self.top != id:
            return self
        return attrs.evolve(self, previous=id)._showing_home()

    def gone(self, id: int) -> AdjState:
        """The process is gone; if it was on top the user sees home."""
        if self.find(id) is None:
            return self
        left = attrs.evolve(
            self,
            lru=tuple(process for process in self.lru if process.id != id),
            previous=None if self.previous == id else self.previous,
        )
        return left._showing_home() if self.top == id else left

    def assign(self) -> list[tuple[int, int]]:
        """(id, oom_score_adj) of every process, newest first."""
        levels = [(process, self._importance(process)) for process in self.lru]
        services = empties = activities = 0
        for process, adj in levels:
            if adj == SERVICE_ADJ:
                services += process.role == "service"
            elif adj == CACHED_ADJ_MIN:
                empties += process.role == "empty"
                activities += process.role == "app"
        cached = _cached_levels(CACHED_ADJ_MIN, activities, activities)
        empty = _cached_levels(CACHED_ADJ_MIN + _LEVELS, min(empties, _EMPTY_COUNTED_MAX), empties)
        services_a = 0
        assigned: list[tuple[int, int]] = []
        for process, adj in levels:
            final = adj
            if process.role == "service" and adj == SERVICE_ADJ:
                # The newest third of the services (and one) stay on the A list.
                if services_a > services // 3:
                    final = SERVICE_B_ADJ
                else:
                    services_a += 1
            elif adj == CACHED_ADJ_MIN and process.role in ("app", "empty"):
                final = (cached if process.role == "app" else empty).pop(0)
            assigned.append((process.id, final))
        return assigned

    def _fronted(self, process: AdjProcess) -> tuple[AdjProcess, ...]:
        return (process, *(other for other in self.lru if other.id != process.id))

    def _showing_home(self) -> AdjState:
        home = next((process for process in self.lru if process.role == "home"), None)
        if home is None:
            return attrs.evolve(self, top=None)
        return attrs.evolve(self, lru=self._fronted(home), top=home.id)

    def _importance(self, process: AdjProcess) -> int:
        """computeOomAdjLSP; CACHED_ADJ_MIN stands for "cached", spread over the slots afterwards."""
        if process.role == "fixed":
            return process.fixed_adj
        if process.role == "persistent":
            return PERSISTENT_ADJ
        if process.id == self.top:
            return FOREGROUND_ADJ
        if process.rest != "cached":
            return VISIBLE_ADJ if process.rest == "visible" else PERCEPTIBLE_ADJ
        if process.role == "service":
            return SERVICE_ADJ
        if process.role == "home":
            return HOME_ADJ
        return PREVIOUS_ADJ if process.id == self.previous else CACHED_ADJ_MIN


def _cached_levels(first: int, counted: int, wanted: int) -> list[int]:
    """The levels of ``wanted`` cached processes, newest first: 900, 910, … shared once there are over ten."""
    factor = max(1, (counted + _SLOTS - 1) // _SLOTS)
    current, following, step = first, first + _LEVELS * 2, -1
    levels: list[int] = []
    for _ in range(wanted):
        if current != following:
            step += 1
            if step >= factor:
                step, current = 0, following
                following = min(following + _LEVELS * 2, CACHED_ADJ_MAX)
        levels.append(current)
    return levels


#: ProcessList.mOomAdj with mOomMinFreeLow and mOomMinFreeHigh in KiB; the last two grow with 64-bit ABIs.
_MINFREE_ADJ: Final = (0, 100, 200, 250, 900, 950)
_MINFREE_LOW_KIB: Final = (12288, 18432, 24576, 36864, 43008, 49152)
_MINFREE_HIGH_KIB: Final = (73728, 92160, 110592, 129024, 221184, 322560)
_MINFREE_HIGH_32BIT_KIB: Final = (73728, 92160, 110592, 129024, 147456, 184320)


def minfree_table(
    memory_bytes: int,
    *,
    display_pixels: int = 1080 * 2400,
    has_64bit_abi: bool = True,
    page_kib: int = 4,
) -> Sequence[tuple[int, int]]:
    """(minfree pages, adj) pairs that ActivityManager sends as LMK_TARGET (ProcessList.updateOomLevels)."""
    scale_memory = (memory_bytes // (1 << 20) - 350) / 350
    scale_display = (display_pixels - 384_000) / 640_000
    scale = min(1.0, max(0.0, scale_memory, scale_display))
    highs = _MINFREE_HIGH_KIB if has_64bit_abi else _MINFREE_HIGH_32BIT_KIB
    sizes = (int(low + (high - low) * scale) for low, high in zip(_MINFREE_LOW_KIB, highs, strict=True))
    return [(kib // page_kib, adj) for kib, adj in zip(sizes, _MINFREE_ADJ, strict=True)]
