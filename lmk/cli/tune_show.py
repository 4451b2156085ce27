"""What ``lmk tune`` shows: the search as it goes, with the best so far, on stderr; the result as tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lmk.cli.compare import compare_tables
from lmk.tune.search import Search, StudyPlan
from lmk.tune.verdict import gain

#: Points of the front that fit beside the bar.
_ROWS_MAX = 8


class TuneDisplay:
    """A bar and the Pareto set on a terminal; a line now and then anywhere else. A context manager."""

    def __init__(self, plan: StudyPlan) -> None:
        self._plan = plan
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=self._console)
        self._task = self._bar.add_task("stock", total=plan.trials + 1)
        self._live = Live(self._bar, console=self._console, transient=True, auto_refresh=self._console.is_terminal)
        self._judged = 0
        self._tenths = 0

    def __enter__(self) -> TuneDisplay:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def searching(self, search: Search) -> None:
        """After every run of the search."""
        judged = len(search.trials)
        self._bar.update(
            self._task, completed=judged, description=f"trial {judged} of {self._plan.trials + 1}, {_runs(search)}"
        )
        if judged == self._judged:
            return
        self._judged = judged
        if self._console.is_terminal:
            self._live.update(Group(_front_table(search), self._bar))
        else:
            self._say(f"{judged} of {self._plan.trials + 1} trials, {_runs(search)}; front: {_best(search)}")

    def stage(self, name: str) -> Callable[[int, int], None]:
        """What is done after the search; gives the function that is told how far it is."""
        self._tenths = 0
        self._say(name)

        def told(done: int, total: int) -> None:
            self._bar.update(self._task, description=name, completed=done, total=total)
            tenths = done * 10 // max(1, total)
            if not self._console.is_terminal and tenths > self._tenths:
                self._tenths = tenths
                self._say(f"{name}: {done} of {total} runs")

        return told

    def _say(self, text: str) -> None:
        if not self._console.is_terminal:
            self._console.print(text, highlight=False, markup=False)


def _runs(search: Search) -> str:
    found = f" ({search.runs_found} from before)" if search.runs_found else ""
    return f"{search.runs_made} runs{found}"


def _best(search: Search) -> str:
    goals = search.plan.goals
    points = [f"#{t.number} {'/'.join(number(v) for v in t.values(goals))}" for t in search.front[:_ROWS_MAX]]
    return f"{', '.join(goals.names)}: {'; '.join(points) or 'nothing that keeps the constraints'}"


def _front_table(search: Search) -> Table:
    goals = search.plan.goals
    table = Table(title=f"front so far, {len(search.front)} points", title_justify="left", box=None, pad_edge=False)
    for heading in ("trial", *goals.names, "gain"):
        table.add_column(heading, justify="right")
    for trial in (search.stock, *search.front[:_ROWS_MAX]):
        if trial.runs:
            name = "stock" if trial.number == 0 else str(trial.number)
            share = f"{gain(trial, search.stock, goals):.1%}"
            table.add_row(name, *(number(value) for value in trial.values(goals)), share)
    return table


def tune_tables(result: dict[str, Any]) -> RenderableType:
    """Everything ``lmk tune`` shows at the end."""
    parts: list[RenderableType] = [_pareto_table(result)]
    chosen = result["chosen"]
    if chosen is None or chosen["trial"] == 0:
        parts.append(Text("Nothing is better than the config as it is without breaking a constraint."))
    else:
        parts.append(_changes(result, chosen))
    if result["unseen"]:
        parts += [Text("\nOn unseen seeds:"), compare_tables(result["unseen"])]
    if result["sensitivity"]:
        parts.append(sensitivity_table(result))
    if result["rates"]:
        parts.append(rates_text(result))
    if result["confirm"]:
        parts += [Text("\nOn a kernel:"), compare_tables(result["confirm"]["compared"])]
        for row in result["confirm"]["agreement"]:
            words = {True: "the same sign", False: "NOT the same sign", None: "no difference shown on the kernel"}[
                row["same_sign"]
            ]
            figures = f"simulated {row['simulated']}, on the kernel {row['kernel']}"
            parts.append(Text(f"{row['objective']}: {figures}: {words}"))
    if any(result["importances"].values()):
        parts.append(_importance_table(result))
    parts += [Text(f"warning: {text}", style="bold yellow") for text in result["warnings"]]
    parts += [Text(f"without effect: {name}: {why}") for name, why in result["dead"].items()]
    if result["interrupted"]:
        parts.append(Text("interrupted: this is the best so far", style="bold yellow"))
    parts += [Text(f"{name}: {path}") for name, path in result["files"].items()]
    return Group(*parts)


def _pareto_table(result: dict[str, Any]) -> Table:
    trials = result["trials"]
    counts = ", ".join(f"{trials[key]} {key}" for key in ("complete", "stopped", "failed"))
    rates = f"calibration {result['calibration']['name']} ({result['calibration']['class']})"
    table = Table(title=f"Pareto front ({counts}; {rates})", title_justify="left", box=None, pad_edge=False)
    shown = [*result["objectives"], *(text.split("<")[0].split(">")[0] for text in result["constraints"])]
    columns = list(dict.fromkeys(shown))
    table.add_column("trial", no_wrap=True)
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("gain", justify="right", no_wrap=True)
    chosen = result["chosen"]["trial"] if result["chosen"] else None
    for row in [result["stock"], *(point for point in result["pareto"] if point["trial"])]:
        name = "stock" if row["trial"] == 0 else str(row["trial"])
        style = "bold" if row["trial"] == chosen else ""
        share = "-" if row["gain"] is None else f"{row['gain']:.1%}"
        table.add_row(name, *(number(row["figures"][column]) for column in columns), share, style=style)
    return table


def _changes(result: dict[str, Any], chosen: dict[str, Any]) -> Table:
    table = Table(title=f"\nChosen: trial {chosen['trial']}", title_justify="left", box=None, pad_edge=False)
    for heading in ("setting", "stock", "tuned"):
        table.add_column(heading, justify="left" if heading == "setting" else "right")
    for name, value in chosen["changed"].items():
        table.add_row(name, _word(result["stock"]["params"].get(name)), _word(value))
    return table


def sensitivity_table(result: dict[str, Any]) -> Table:
    """Each setting moved alone: the objectives at the ends of what was tried, or that it is dead."""
    table = Table(title="\nOne setting at a time", title_justify="left", box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    for name in result["objectives"]:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("worse")
    for sheet in result["sensitivity"]:
        if sheet["dead"]:
            table.add_row(sheet["name"], "dead", *("" for _ in result["objectives"]), "no run changed")
            continue
        for index, row in enumerate(sheet["values"]):
            own = row["value"] == sheet["base"]
            cells = ["failed" if row["error"] else number(row["figures"][name]) for name in result["objectives"]]
            words = row["error"] or ", ".join(row["broken"])
            table.add_row("" if index else sheet["name"], _word(row["value"]), *cells, words, style="bold" * own)
    return table


def rates_text(result: dict[str, Any]) -> RenderableType:
    """Of a trade-off nothing is to be expected but that it stays one: so by objective, and what is different."""
    rates = result["rates"]
    head = f"\nEach of {len(rates) // 2} rates at 0.3 and 3 times its value ({len(rates)} cases), against stock:"
    lines = [Text(head)]
    before, after = result["stock"]["figures"], result["chosen"]["figures"]
    # A figure that no run has counts as nothing, as it does where trials are judged (Trial.values).
    own = {name: (after[name] or 0.0) - (before[name] or 0.0) for name in result["objectives"]}
    odd: list[list[str]] = [[row["error"]] if row["error"] else [] for row in rates]
    for name, change in own.items():
        changes = [(row["differences"] or {}).get(name) for row in rates]
        kept = [other is not None and _sign(other) == _sign(change) for other in changes]
        lines.append(Text(f"  {name} {change:+.4g}: moves the same way in {sum(kept)}"))
        for words, same, other in zip(odd, kept, changes, strict=True):
            words += [] if same or other is None else [f"{name} {other:+g}"]
    lines.append(Text(f"  constraints kept in {sum(not row['broken'] and not row['error'] for row in rates)}"))
    for row, words in zip(rates, odd, strict=True):
        words += [f"breaks {', '.join(row['broken'])}"] if row["broken"] else []
        if words:
            lines.append(Text(f"  {row['factor']:g} x {row['rate']}: {'; '.join(words)}"))
    return Group(*lines)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _importance_table(result: dict[str, Any]) -> Table:
    table = Table(title="\nImportance among the better trials", title_justify="left", box=None, pad_edge=False)
    table.add_column("setting")
    for name in result["objectives"]:
        table.add_column(name.replace("_", " "), justify="right")
    shares = result["importances"]
    names = {name for one in shares.values() for name in one}
    most = {name: max(one.get(name, 0.0) for one in shares.values()) for name in names}
    names_by_weight = sorted(names, key=lambda name: (-most[name], name))
    for name in names_by_weight:
        table.add_row(name, *(f"{shares[goal].get(name, 0):.0%}" for goal in result["objectives"]))
    return table


def number(value: float | None) -> str:
    """A mean as people read it."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _word(value: object) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
