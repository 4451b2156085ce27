"""Progress on stderr for verbs that take more than a moment; stdout stays free for the result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from lmk.live.watcher import Watcher
from lmk.progress import Progress
from lmk.record.schema import KILLER_LMK, KILLER_WORDS, KillRow


def plain_table(*headings: str, title: str | None = None) -> Table:
    """A table as every verb prints them: a line below the headings, nothing around; only the last column wraps."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    for heading in headings:
        table.add_column(heading, no_wrap=heading != headings[-1], overflow="fold")
    return table


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A Progress that draws one bar on a terminal, and writes one line per stage anywhere else."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with RichProgress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        last = ""

        def tell(stage: str, fraction: float | None = None) -> None:
            nonlocal last
            bar.update(task, description=stage, completed=fraction or 0.0, total=None if fraction is None else 1.0)
            if stage != last and (not console.is_terminal or stage.startswith("warning:")):
                console.print(stage, highlight=False, markup=False)
            last = stage

        yield tell


class RunDisplay(Watcher):
    """A live run on stderr: stages, how far the scenario is, each kill as it happens. A context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bar = RichProgress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("", total=None)
        self._last_stage = ""
        self._told_tenths = 0
        self._kills = 0

    def __enter__(self) -> RunDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def progress(self, stage: str, fraction: float | None = None) -> None:
        """See ``Watcher``."""
        total = None if fraction is None else 1.0
        self._bar.update(self._task, description=stage, completed=fraction or 0.0, total=total)
        if stage != self._last_stage and (not self._console.is_terminal or stage.startswith("warning:")):
            self._say(stage)
        self._last_stage = stage

    def playing(self, done_ms: int, total_ms: int) -> None:
        """See ``Watcher``."""
        text = f"scenario {done_ms / 1000:.0f} of {total_ms / 1000:.0f} s, {self._kills} kills"
        self._bar.update(self._task, description=text, completed=done_ms, total=max(1, total_ms))
        tenths = done_ms * 10 // max(1, total_ms)
        if not self._console.is_terminal and tenths > self._told_tenths:
            self._told_tenths = tenths
            self._say(text)

    def kill(self, row: KillRow, zero_ns: int) -> None:
        """See ``Watcher``."""
        self._kills += 1
        by = "" if row.killer == KILLER_LMK else f" ({KILLER_WORDS.get(row.killer, row.killer)})"
        at_s = (row.t_ns - zero_ns) / 1e9
        self._say(f"{at_s:7.2f} s  kill {row.name or row.pid}, adj {row.oom_score_adj}{by}: {row.reason or ''}")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)
