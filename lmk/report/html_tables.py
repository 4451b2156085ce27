"""Tables of the HTML report that need no script: the kills, the launches."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lmk.record.schema import KILLER_WORDS
from lmk.report.html_model import RunModel
from lmk.report.summary import percentiles
from lmk.report.tiers import tier_group, tier_name

_KILL_HEADS = (
    ("#", "n", "the number for lmk explain"),
    ("time", "n", "seconds since the scenario began"),
    ("process and why", "", ""),
    ("tier", "", "name of the oom_score_adj tier, and the score"),
    ("rss + swap", "n", "MiB just before"),
    ("freed", "n", "MiB of resident anonymous and shared memory given back"),
    ("signal", "n", "ms from the wake-up to the signal"),
    ("reaped", "n", "ms from the signal until the reap call returned"),
    ("exit", "n", "ms from the signal until the process was gone"),
)


def kill_section(runs: Sequence[RunModel]) -> str:
    """A table of kills per run; its buttons select a kill as the marks in the time line do."""
    tables = "".join(_kill_table(index, run, named=len(runs) > 1) for index, run in enumerate(runs))
    return f'<section class="card" id="kills"><h2>Kills</h2>{tables}</section>'


def _kill_table(index: int, run: RunModel, *, named: bool) -> str:
    title = f'<h3><i class="run run{index}">{chr(65 + index)}</i> {escape(run.label)}</h3>' if named else ""
    if not run.timeline.kills:
        return f'{title}<p class="empty">No process was killed in this run.</p>'
    head = "".join(f'<th scope="col" class="{kind}" title="{tip}">{name}</th>' for name, kind, tip in _KILL_HEADS)
    rows = "".join(_kill_row(run, index, place) for place in range(len(run.shown)))
    count = len(run.timeline.kills)
    note = ""
    if len(run.shown) < count:
        note = (
            f"<p class=hint>Shown here and in the time line: {len(run.shown)} of {count} kills: those of "
            "the most protected processes, and of the others some, evenly over the run.</p>"
        )
    return (
        f'{title}{note}<div class="scroll tall"><table class="kills"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _kill_row(run: RunModel, index: int, place: int) -> str:
    """``place`` is the kill's among those shown."""
    number = run.shown[place] + 1
    kill = run.timeline.kills[number - 1]
    name = kill.name or f"pid {kill.pid}"
    by = KILLER_WORDS.get(kill.killer)
    why = ": ".join(part for part in (by, kill.reason) if part)
    swap = "" if kill.swap_kib is None else f" + {kill.swap_kib / 1024:.0f}"
    adj = "" if kill.oom_score_adj is None else f" {kill.oom_score_adj}"
    cells = [
        f"<td class=n><button type=button data-run={index} data-kill={place} "
        f'aria-label="Explain kill {number}, {escape(name)}">{number}</button></td>',
        f"<td class=n>{run.timeline.ms(kill.t_ns) / 1000:.2f}</td>",
        f"<td><b>{escape(name)}</b><small>{escape(why)}</small></td>",
        f'<td><span class="chip t-{tier_group(kill.oom_score_adj)}">{tier_name(kill.oom_score_adj)}{adj}</span></td>',
        f"<td class=n>{_scaled(kill.rss_kib, 1024, 0)}{swap}</td>",
        f"<td class=n>{_scaled(kill.freed_kib, 1024, 0)}</td>",
        f"<td class=n>{_scaled(kill.event_to_signal_us, 1000, 1)}</td>",
        f"<td class=n>{_scaled(kill.signal_to_reaped_us, 1000, 1)}</td>",
        f"<td class=n>{_scaled(kill.signal_to_exit_us, 1000, 1)}</td>",
    ]
    return f'<tr data-run="{index}" data-kill="{place}">{"".join(cells)}</tr>'


def launch_section(runs: Sequence[RunModel]) -> str:
    """Launch times by app: how often, and how long it took."""
    rows = []
    for index, run in enumerate(runs):
        mark = f'<td><i class="run run{index}">{chr(65 + index)}</i></td>' if len(runs) > 1 else ""
        rows += [f"<tr>{mark}{cells}</tr>" for cells in _launch_rows(run)]
    if not rows:
        return ""
    names = ["run"] * (len(runs) > 1) + ["app"]
    numbers = [f"{kind} {figure}" for kind in ("cold", "warm") for figure in ("n", "median ms", "max ms")]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    head += "".join(f'<th scope="col" class=n>{name}</th>' for name in numbers)
    return (
        '<section class="card"><h2>Launches by app</h2><div class="scroll"><table class="tight">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _launch_rows(run: RunModel) -> list[str]:
    times: dict[str, tuple[list[float], list[float]]] = {}
    for event in run.timeline.launches:
        if event.kind == "launch" and event.body.get("launch_ms") is not None:
            both = times.setdefault(str(event.body.get("app") or "?"), ([], []))
            both[0 if event.body.get("cold") else 1].append(event.body["launch_ms"])
    rows = []
    for app, both in sorted(times.items(), key=lambda item: (-sum(item[1][0]), item[0])):
        cells = [f"<td>{escape(app)}</td>"]
        for values in both:
            found = percentiles(values)
            cells += [f"<td class=n>{found['n'] or '–'}</td>"]
            cells += [f"<td class=n>{_scaled(found[name], 1, 0)}</td>" for name in ("p50", "max")]
        rows.append("".join(cells))
    return rows


def _scaled(value: float | None, divisor: int, digits: int) -> str:
    return "–" if value is None else f"{value / divisor:.{digits}f}"
