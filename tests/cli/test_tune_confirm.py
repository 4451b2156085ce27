"""What --confirm says of runs on a kernel beside simulated ones."""

from __future__ import annotations

from typing import Any

from lmk.cli.tune_confirm import agreement


def compared(spread: float = 0.0, **differences: float | None) -> dict[str, Any]:
    return {
        "metrics": [
            {
                "name": name,
                "others": [
                    {"difference": value, "ci95": None if value is None else [value - spread, value + spread]},
                ],
            }
            for name, value in differences.items()
        ]
    }


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


def test_another_sign_that_the_kernel_does_not_show_is_no_contradiction() -> None:
    result: dict[str, Any] = {"objectives": ["cold_starts"], "unseen": compared(cold_starts=4.0)}
    assert agreement(result, compared(spread=0.7, cold_starts=-0.4))[0]["same_sign"] is None
    assert agreement(result, compared(spread=0.3, cold_starts=-0.4))[0]["same_sign"] is False
    assert agreement(result, compared(spread=0.7, cold_starts=0.4))[0]["same_sign"] is True
