"""The kernel OOM killer's table of processes (mm/oom_kill.c, dump_tasks). Columns are those its heading names."""

from __future__ import annotations

import re

import attrs

_HEADING = re.compile(r"\[ *pid *\](?P<columns>(?:\s+\w+)+)", re.ASCII)
_ROW = re.compile(r"\[ *(?P<pid>\d+)\](?P<values>(?:\s+-?\d+)+)\s+(?P<name>\S.*?)\s*$", re.ASCII)


@attrs.frozen(kw_only=True)
class OomTask:
    """One row; sizes in pages as the kernel prints them. None: the kernel has no such column."""

    pid: int
    name: str
    uid: int | None = None
    rss_pages: int | None = None
    swap_pages: int | None = None
    oom_score_adj: int | None = None


def parse_oom_table(text: str) -> tuple[OomTask, ...]:
    """Heading and rows, printk prefixes already taken off. Rows of another form are left out."""
    columns: list[str] = []
    tasks: list[OomTask] = []
    for line in text.splitlines():
        if heading := _HEADING.match(line.strip()):
            columns = heading["columns"].split()[:-1]
        elif columns and (row := _ROW.match(line.strip())):
            values = [int(value) for value in row["values"].split()]
            if len(values) != len(columns):
                continue
            named = dict(zip(columns, values, strict=True))
            tasks.append(
                OomTask(
                    pid=int(row["pid"]), name=row["name"], uid=named.get("uid"), rss_pages=named.get("rss"),
                    swap_pages=named.get("swapents"), oom_score_adj=named.get("oom_score_adj"),
                )
            )  # fmt: skip
    return tuple(tasks)
