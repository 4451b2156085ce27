"""A frame of ``lmk top`` on a terminal of some size. Values in, rich out."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from lmk.report.tiers import TERMINAL_STYLE, tier_group
from lmk.report.top_frame import Frame, Gauge, LastKill, TierRow

_BAR_CELLS = 18
_BAR_CELLS_NARROW = 6
#: Below these widths the words that explain are left out, then most of the bar.
_WIDE, _NARROW = 112, 80
_NEAR = 0.8


def screen(frame: Frame, width: int, height: int) -> RenderableType:
    """Fills ``height`` rows at most: what does not fit is cut from the bottom up, the kills first."""
    head = Text.assemble((frame.title, "bold"), "   ", (frame.status, "cyan"), overflow="ellipsis", no_wrap=True)
    parts: list[RenderableType] = [head, Text(), _gauge_table(frame.gauges, width)]
    used = 3 + len(frame.gauges) or 1
    for note in frame.notes:
        parts.append(Text(note, style="yellow", overflow="ellipsis", no_wrap=True))
        used += 1
    tiers = frame.tiers[: max(1, height - used - 6)]
    parts += [Text(), _tier_table(tiers, wide=width >= _WIDE)]
    used += len(tiers) + 2
    room = max(1, height - used - 4)
    parts += [
        Text(),
        _kill_table(frame.kills[-room:]),
        Text(frame.keys, style="dim", overflow="ellipsis", no_wrap=True),
    ]
    return Group(*parts)


def _table(*columns: tuple[str, bool]) -> Table:
    """``columns``: heading, and whether it holds numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold dim", expand=False)
    for heading, number in columns:
        table.add_column(heading, justify="right" if number else "left", no_wrap=True, overflow="ellipsis")
    return table


def _gauge_table(rows: Sequence[Gauge], width: int) -> RenderableType:
    if not rows:
        return Text("No thresholds are known here: lmk top reads them from an lmkd's properties.", style="dim")
    wide, cells_of_bar = width >= _WIDE, _BAR_CELLS if width >= _NARROW else _BAR_CELLS_NARROW
    more = (("fires at", True), ("then", False)) if wide else (("fires at", True),)
    table = _table(("threshold", False), ("", False), ("now", True), ("", True), *more)
    for gauge in rows:
        style = _style(gauge)
        cells: list[Text | str] = [gauge.name, bar(gauge.share, style, cells_of_bar)]
        cells += [Text(gauge.now, style=style), Text(gauge.gap, style=style), gauge.limit]
        table.add_row(*cells, *([Text(gauge.means, style="dim")] if wide else []))
    return table


def _style(gauge: Gauge) -> str:
    if gauge.fires:
        return "bold red"
    return "yellow" if gauge.share is not None and gauge.share >= _NEAR else "green"


def bar(share: float | None, style: str, cells: int = _BAR_CELLS) -> Text:
    """How much of the way to firing; the whole bar is the threshold. Eighths of a cell, as far as fonts have them."""
    eighths = round(min(max(share or 0.0, 0.0), 1.0) * cells * 8)
    full, rest = divmod(eighths, 8)
    text = "█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")
    return Text.assemble((text, style), ("·" * (cells - len(text)), "dim"))


def _tier_table(rows: Sequence[TierRow], *, wide: bool) -> RenderableType:
    if not rows:
        return Text("No processes are known.", style="dim")
    sized = any(row.rss_kib is not None for row in rows)
    sizes = (("rss MiB", True),) if sized else ()
    table = _table(("tier", False), ("n", True), *sizes, ("next victim", False), ("adj", True))
    if wide:
        table.add_column("why", no_wrap=True, overflow="ellipsis")
    for row in rows:
        rss = "-" if row.rss_kib is None else f"{row.rss_kib / 1024:.0f}"
        victim = "-" if row.victim is None else f"{row.victim.name} ({row.victim.pid})"
        cells: list[Text | str] = [Text(row.tier, style=TERMINAL_STYLE[tier_group(row.adj)]), str(row.count)]
        cells += [rss] * sized
        table.add_row(*cells, victim, str(row.adj), *([Text(row.why, style="dim")] if wide else []))
    return table


def _kill_table(rows: Sequence[LastKill]) -> RenderableType:
    if not rows:
        return Text("No kills yet.", style="dim")
    table = Table(box=None, pad_edge=False, header_style="bold dim", expand=True)
    for heading, width in (("last", 10), ("killed", 28), ("adj", 5)):
        justify: JustifyMethod = "left" if heading == "killed" else "right"
        table.add_column(heading, justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    table.add_column("why", no_wrap=True, overflow="ellipsis", ratio=1)
    for kill in rows:
        when = "" if kill.t_s is None else f"{kill.t_s:.2f} s"
        adj = "?" if kill.adj is None else str(kill.adj)
        table.add_row(
            when, Text(kill.name, style=TERMINAL_STYLE[tier_group(kill.adj)]), adj, Text(kill.reason, style="dim")
        )
    return table
