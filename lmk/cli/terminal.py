"""Progress on stderr for verbs that take more than a moment; stdout stays free for the result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from lmk.progress import Progress


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
