"""What ``lmk tune`` says about a winner at other rates."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from lmk.cli.tune_show import rates_text


def case(factor: float, cold: float, stall: float, *broken: str, error: str | None = None) -> dict[str, Any]:
    differences = None if error else {"cold_starts": cold, "psi_full_ms": stall}
    return {"rate": "reap_ns", "factor": factor, "differences": differences, "broken": list(broken), "error": error}


def said(*rates: dict[str, Any], stall_ms: float | None = 4000.0) -> list[str]:
    out = StringIO()
    result = {
        "objectives": ["cold_starts", "psi_full_ms"],
        "stock": {"figures": {"cold_starts": 25.0, "psi_full_ms": stall_ms}},
        "chosen": {"figures": {"cold_starts": 26.0, "psi_full_ms": 2500.0}},
        "rates": list(rates),
    }
    Console(file=out, width=200).print(rates_text(result))
    return out.getvalue().strip().splitlines()


def test_a_trade_off_is_judged_by_what_it_trades() -> None:
    lines = said(case(0.3, 2, -900), case(3.0, 1, -100))
    assert lines[1:] == [
        "  cold_starts +1: moves the same way in 2",
        "  psi_full_ms -1500: moves the same way in 2",
        "  constraints kept in 2",
    ]


def test_what_is_different_is_named() -> None:
    lines = said(case(0.3, 2, 50, "kills<=stock"), case(3.0, 0, 0, error="a run could not be made"))
    assert lines[2:] == [
        "  psi_full_ms -1500: moves the same way in 0",
        "  constraints kept in 0",
        "  0.3 x reap_ns: psi_full_ms +50; breaks kills<=stock",
        "  3 x reap_ns: a run could not be made",
    ]


def test_a_figure_that_stock_never_had_counts_as_nothing() -> None:
    assert "  psi_full_ms +2500: moves the same way in 1" in said(case(0.3, 2, 50), stall_ms=None)
