"""``--window START+LEN``: a piece of a long scenario, beginning with the processes that live at its start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from lmk.config.quantity import InvalidValue, parse_duration_ms
from lmk.config.timeline import PlannedProcess, Timeline, TimelineStep
from lmk.errors import UserError

#: The processes of the starting table are opened one after the other, this far apart, the one used last at the end;
#: closer where that would take longer than a minute.
OPENING_GAP_MS: Final = 1200
OPENING_MS: Final = 60_000
#: An emulator run must end within three guest minutes, the opening included.
LONGEST_MS: Final = 180_000


@attrs.frozen(kw_only=True)
class Window:
    """A piece of a scenario's time."""

    start_ms: int
    length_ms: int


def parse_window(text: str, option: str = "--window") -> Window:
    """``START+LEN``, such as ``9h+60s``. UserError, which names the option."""
    start, plus, length = text.partition("+")
    try:
        window = Window(start_ms=parse_duration_ms(start), length_ms=parse_duration_ms(length))
    except InvalidValue as invalid:
        raise UserError(f"{option} {text}: {invalid.cause}", "START+LEN, for example 9h+60s") from None
    if not plus or not 0 < window.length_ms <= LONGEST_MS - OPENING_MS:
        raise UserError(f"{option} {text}: not a piece of at most two minutes", "START+LEN, for example 9h+60s")
    return window


def starting_table(timeline: Timeline, memory_bytes: int, start_ms: int) -> list[str]:
    """Process names of the apps that live when a window begins, the one opened last at the end.

    A rule and no simulation, so that neither side's opinion of the past counts: of what was opened before, the latest
    that fit into memory beside the base load, with their cold anonymous memory compressed and their cold files dropped.
    """
    opened: dict[int, None] = {}
    for step in timeline.steps:
        if step.t_ms >= start_ms:
            break
        if step.action == "launch":
            opened.pop(step.process, None)
            opened[step.process] = None
        elif step.action == "exit":
            opened.pop(step.process, None)
    room_kib = memory_bytes // 1024 - sum(_kept_kib(p) for p in timeline.processes if p.autostart)
    found: list[str] = []
    for process in (timeline.processes[id_] for id_ in reversed(opened)):
        room_kib -= _kept_kib(process)
        # Services and what plays on in the background outlive cached apps.
        if room_kib > 0 or process.role != "app" or process.rest != "cached":
            found.insert(0, process.process_name)
    return found


def _kept_kib(process: PlannedProcess) -> int:
    hot = process.anon_kib * process.hot_permille // 1000
    cold = process.anon_kib - hot
    stored = cold if process.locked else cold * 1000 // max(1000, process.ratio_permille)
    return hot + stored + process.pinned_kib + process.file_kib * process.hot_permille // 1000


def cut(timeline: Timeline, window: Window, alive: Sequence[str]) -> tuple[Timeline, int]:
    """The piece, and how long its opening takes: ``alive`` are process names by when they were last opened.

    What an app had grown or leaked by then is not brought back. An app that plays on in the background is sent
    there again; nothing else of the past matters to either side. UserError for a piece that is not in the scenario.
    """
    end_ms = window.start_ms + window.length_ms
    if end_ms > timeline.duration_ms:
        raise UserError(
            f"the window ends at {end_ms} ms, {timeline.scenario} at {timeline.duration_ms} ms", "choose an earlier one"
        )
    by_name = {process.process_name: process for process in timeline.processes}
    opening: list[TimelineStep] = []
    now_ms = 0
    gap_ms = min(OPENING_GAP_MS, OPENING_MS // max(1, len(alive)))
    for name in alive:
        process = by_name[name]
        if process.autostart:
            continue
        opening.append(TimelineStep(t_ms=now_ms, action="launch", process=process.id))
        now_ms += gap_ms
        if process.role == "app" and process.rest != "cached":
            opening.append(TimelineStep(t_ms=now_ms, action="background", process=process.id))
    within = [
        attrs.evolve(step, t_ms=step.t_ms - window.start_ms + now_ms)
        for step in timeline.steps
        if window.start_ms <= step.t_ms < end_ms
    ]
    piece = attrs.evolve(
        timeline,
        scenario=f"{timeline.scenario} {window.start_ms / 1000:g}s+{window.length_ms / 1000:g}s",
        steps=(*opening, *within),
        duration_ms=now_ms + window.length_ms,
    )
    return piece, now_ms
