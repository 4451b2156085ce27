"""What --confirm says of runs on a kernel beside simulated ones."""

from __future__ import annotations

from typing import Any

from lmk.cli.tune_confirm import agreement


def compared(**differences: float | None) -> dict[str, Any]:
    return {"metrics": [{"name": name, "others": [{"difference": value}]} for name, value in differences.items()]}


def test_signs_are_compared_with_unseen_seeds_or_else_with_the_study() -> None:
    result: dict[str, Any] = {
        "objectives": ["cold_starts", "psi_full_ms", "kills", "psi_some_ms"],
        "unseen": compared(cold_starts=-3.0, psi_full_ms=-100.0, kills=0.0),
        "chosen": {"figures": {"psi_some_ms": 90.0}},
        "stock": {"figures": {"psi_some_ms": 100.0}},
    }
    on_kernel = compared(cold_starts=-1.0, psi_full_ms=50.0, kills=0.0, psi_some_ms=None)
    assert [row["same_sign"] for row in agreement(result, on_kernel)] == [True, False, True, None]
    assert agreement(result, on_kernel)[3]["simulated"] == -10
