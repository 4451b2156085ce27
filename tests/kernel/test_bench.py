"""The kernel measurement: what its rows mean, and (emulator) that it ends and shows what the patches are for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lmk.cli.main import main
from lmk.kernel import bench_report
from lmk.kernel.bases import DEFAULT_BASE
from lmk.kernel.bench import BenchRows, run_bench
from lmk.kernel.bench_steps import PARTS
from lmk.kernel.build import find_kernel


def sharing(processes: int, threads: int, walk_ns: int, count_ns: int) -> dict[str, object]:
    return {
        "processes": processes,
        "threads": threads,
        "calls": 200,
        "walk_ns": walk_ns,
        "walk_visited": processes + 40,
        "count_ns": count_ns,
        "count_visited": 0,
        "count_threads": threads,
    }


def group(way: str, back_us: int, **changed: object) -> dict[str, object]:
    row: dict[str, object] = {"scene": "8 processes", "processes": 8, "mib_each": 32, "way": way, "back_us": back_us}
    figures = ("returned_us", "others_back_us", "calls", "victims", "reaped", "reaped_mib", "lost", "late", "escaped")
    return row | dict.fromkeys(figures, 1) | changed


def test_slopes_are_per_process_and_per_thread() -> None:
    rows = BenchRows(
        rows={
            "sharing": [
                sharing(processes, threads, 5000 + 30 * processes, 4000 + 10 * threads)
                for processes in (0, 1000, 20_000)
                for threads in (1, 2, 16, 100)
            ]
        }
    )
    costs = bench_report.sharing_costs(rows)
    assert [cost.threads for cost in costs] == [1, 2, 16, 100]
    assert all(cost.walk_slope_ns == pytest.approx(30) for cost in costs)
    assert all(cost.count_slope_ns == pytest.approx(0, abs=1e-9) for cost in costs)
    assert bench_report.cost_per_thread_ns(rows) == pytest.approx(10)


def test_a_slope_of_one_size_is_no_slope() -> None:
    rows = BenchRows(rows={"sharing": [sharing(0, 2, 5000, 4000)]})
    assert bench_report.sharing_costs(rows) == []
    assert bench_report.cost_per_thread_ns(rows) is None


def test_memory_that_mostly_never_came_back_has_no_time() -> None:
    rounds = [group("batch", back_us) for back_us in (0, 3000, 0)]
    rounds += [group("cgroup.reap", back_us, escaped=2) for back_us in (5000, 0, 3000)]
    by_way = {row["way"]: row for row in bench_report.group_medians(BenchRows(rows={"group": rounds}))}
    assert by_way["batch"]["back_us"] is None
    assert by_way["cgroup.reap"]["back_us"] == 4000
    assert by_way["cgroup.reap"]["escaped"] == 6


def test_what_was_not_measured_is_said() -> None:
    lost = {"what": "speed", "why": "the guest's console was silent for 135 s", "console": "…"}
    rows = BenchRows(
        rows={
            "overdue": [{"what": "sharing", "limit_s": 60}],
            "left_out": [{"what": "fork storm"}],
            "lost": [lost],
            "absent": [{"what": "cgroup.reap"}],
        }
    )
    (table,) = bench_report.tables(rows)
    assert table.rows == (
        ("absent", "cgroup.reap"),
        ("overdue", "sharing"),
        ("left out", "fork storm"),
        ("lost", "speed: the guest's console was silent for 135 s"),
    )


def test_an_unknown_part_is_refused_before_anything_is_built(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernel", "bench", "--parts", "groups,speeed", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["remedy"] == f"choose from: {', '.join(PARTS)}"


@pytest.mark.emulator
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not installed")
def test_a_short_measurement_ends_and_shows_the_difference(tmp_path: Path) -> None:
    kernel = find_kernel(DEFAULT_BASE)
    if kernel is None:
        pytest.skip(f"no kernel {DEFAULT_BASE}: lmk kernel build")
    rows = run_bench(kernel, parts=("verdicts", "sharing"), processes=(0, 300), rounds=150)
    assert not rows.of("overdue")
    (verdicts,) = rows.of("verdicts")
    assert verdicts["wrong"] == verdicts["contradictions"] == 0
    assert verdicts["compared"] > 50
    assert verdicts["shared"] > 20
    for row in rows.of("sharing"):
        assert row["count_visited"] == 0
        # With one thread left the kernel never looked further, with or without the patch.
        assert row["walk_visited"] >= row["processes"] if row["threads"] > 1 else row["walk_visited"] == 0
    hits = {row["reader"]: row for row in rows.of("hits")}
    assert hits[False]["counted"] >= 0.99 * hits[False]["checks"]
    assert hits[False]["checks"] > 300
