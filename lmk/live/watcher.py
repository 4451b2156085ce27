"""What somebody who watches a live run is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmk.record.schema import KillRow

if TYPE_CHECKING:  # every verb's progress bar imports this module, and needs nothing of the live path
    from lmk.device.apprunner import AppEvent


class Watcher:
    """What a terminal wants to know while a run goes on; the default tells nobody."""

    def progress(self, stage: str, fraction: float | None) -> None:
        """A stage before or after the scenario."""

    def playing(self, done_ms: int, total_ms: int) -> None:
        """The scenario is so far."""

    def kill(self, row: KillRow, zero_ns: int) -> None:
        """A process was killed."""

    def app_event(self, event: AppEvent) -> None:
        """The app runner said something."""
