"""The tables of ``lmk validate``, made from its JSON object alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def tables(result: dict[str, Any]) -> Group:
    """All of them."""
    return Group(*_all(result))


def _all(result: dict[str, Any]) -> Iterator[RenderableType]:
    calibration = result["calibration"]["name"]
    for loop in result["scenarios"]:
        yield Text(f"{result['config']}, {loop['scenario']}, seed {loop['seed']}, rates {calibration}", style="bold")
        if loop["open_loop"]:
            yield _open(loop["open_loop"])
        if loop["closed_loop"]:
            yield from _closed(loop["closed_loop"])
        if not loop["open_loop"] and not loop["closed_loop"]:
            yield Text("no undisturbed emulator runs yet")
    if result["ranking"] is not None:
        for table in result["ranking"]["tables"]:
            yield _ranking(table)
    if not result["complete"]:
        yield Text("not all emulator runs are made yet: run the same command again", style="yellow")


def _table(title: str, first: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _open(body: dict[str, Any]) -> Table:
    title = (
        f"(A) open loop, RMSE over the emulator's 5-95 % range: median {_number(body['median'])} "
        f"(target {body['target']}), {_number(body['better_than_forecast'])} times better than the forecast "
        f"(target {body['forecast_target']:g}): {_met(body['met'])}"
    )
    if body["median_repeated"] is not None:
        title += (
            f"; the emulator with the same kills: median {_number(body['median_repeated'])}, "
            f"{_number(body['better_than_forecast_repeated'])} times"
        )
    columns = {
        "simulator": "simulator",
        "forecast": "unchanged since the last kill",
        "emulator": "another emulator run",
        "repeated": "emulator, same kills",
    }
    table = _table(title, "figure", *columns.values())
    for row in body["figures"]:
        table.add_row(row["figure"], *(_number(row[key]) for key in columns))
    return table


def _closed(body: dict[str, Any]) -> Iterator[RenderableType]:
    f1 = body["f1"]
    yield Text(
        f"(B) closed loop, {body['runs']['simulator']} and {body['runs']['emulator']} runs; kills matched within "
        f"{body['tolerance_ms'] / 1000:g} s: F1 {_span(f1['simulator'])}, emulator runs among themselves "
        f"{_span(f1['emulator'])}, always the oldest cached app {_span(f1['oldest_cached'])}; "
        f"loss {_number(f1['loss'])} (at most {f1['loss_max']}): {_met(f1['met'])}"
    )
    table = _table("", "figure", "simulator", "emulator", "its SD", "tolerance", "met")
    for row in body["figures"]:
        numbers = [f"{row[key]:.1f}" for key in ("simulator", "emulator", "emulator_sd", "tolerance")]
        table.add_row(row["name"], *numbers, _met(row["met"]))
    yield table


def _ranking(body: dict[str, Any]) -> Table:
    title = (
        f"(C) ranking, {body['scenario']}, {body['metric']}: Spearman {_number(body['spearman'])}; "
        f"{len(body['separated'])} pairs separated at 95 %, {len(body['wrong'])} of them the other way: "
        f"{_met(body['met'])}"
    )
    table = _table(title, "setting", "emulator", "simulator")
    for row in body["rows"]:
        table.add_row(row["setting"], _list(row["emulator"]), _list(row["simulator"]))
    return table


def _list(values: list[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _span(span: dict[str, float] | None) -> str:
    return "-" if span is None else f"{span['mean']:.2f} ({span['min']:.2f} to {span['max']:.2f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _met(met: bool) -> str:
    return "met" if met else "not met"
