"""A page of its own for runs of a matrix, which the report of the matrix links to: time line, kills, explanations.

Every cell of the first repeat has one; of later repeats only those that did not pass, or ``--repeat 50`` would leave
a thousand alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lmk.ci.matrix import Cell
from lmk.ci.result import CellResult
from lmk.errors import LmkError
from lmk.progress import Progress
from lmk.record.reader import RecordReader
from lmk.report.html import report_html
from lmk.report.html_model import read_run

#: By repeat and cell: where the page is, from the output directory.
Pages = Mapping[tuple[int, Cell], str]


def write_pages(output: Path, results: Sequence[CellResult], progress: Progress) -> Pages:
    """Draw what is not there yet, below ``output``; a record that cannot be read is left out."""
    pages: dict[tuple[int, Cell], str] = {}
    wanted = [result for result in results if result.runs and (result.repeat == 0 or result.status != "passed")]
    for number, result in enumerate(wanted):
        progress("drawing reports", number / len(wanted))
        record = result.runs[0]["record"]
        name = f"pages/{result.repeat}/{result.cell.slug}.html"
        if record is not None and _draw(Path(record), output / name, result.cell.key):
            pages[result.repeat, result.cell] = name
    return pages


def _draw(record: Path, page: Path, title: str) -> bool:
    try:
        with RecordReader(record) as reader:
            if page.is_file() and page.stat().st_mtime_ns >= reader.path.stat().st_mtime_ns:
                return True
            text = report_html([read_run(reader, title)])
    except (LmkError, OSError):
        return False
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
    return True
