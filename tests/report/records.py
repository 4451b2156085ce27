"""Records for the tests of reports: a small one written by hand, a whole one from the simulator."""

from __future__ import annotations

from pathlib import Path

from lmk.cli.main import main
from lmk.policy.api import AdjWritten, FileError, SetOomScoreAdj
from lmk.policy.decision import Decision, Evaluation
from lmk.record.schema import CounterRow, EventRow, KillRow
from lmk.record.writer import RecordWriter

MS = 1_000_000


def look(free_pages: int, reason: int = -1) -> Evaluation:
    """One pass over the rules of lmkd with watermarks of 40, 50 and 60 MB."""
    return Evaluation(
        level=1,
        by_event=True,
        after_kill=False,
        free_pages=free_pages,
        min_pages=10_000,
        low_pages=12_500,
        high_pages=15_000,
        watermark=1 if free_pages < 12_500 else 3,
        reclaim=1,
        thrashing_pct=7,
        thrashing_limit_pct=100,
        swap_threshold_pages=25_600,
        free_swap_pages=51_200,
        reason=reason,
        reason_text="low watermark is breached" if reason == 8 else "",
        min_adj=701 if reason == 8 else 0,
    )


def small_record(path: Path, name: str = "com.a") -> Path:
    """Two processes; the one in ``name`` is killed at 2 s by lmkd, another at 3 s by the kernel."""
    quiet = Decision(strategy="psi", level=1, by_event=False, evaluations=(look(20_000),))
    kill = Decision(
        strategy="psi",
        level=1,
        by_event=True,
        evaluations=(look(11_000, 8),),
        reason=8,
        reason_text="low watermark is breached",
        min_adj=701,
        killed_pids=(42,),
        killed_adjs=(900,),
    )
    with RecordWriter(path) as writer:
        writer.meta({"android": "14Q2", "properties": {}, "policy": "lmkd", "config": "phone-2gb", "scenario": "two"})
        writer.meta({"zero_ns": 0, "duration_ms": 5000, "complete": True, "target": "sim", "seed": 1})
        for t_ms in range(0, 5001, 250):
            writer.counter(
                CounterRow(
                    t_ns=t_ms * MS,
                    mem_free_kib=90_000 - t_ms,
                    mem_available_kib=300_000 - 10 * t_ms,
                    cached_kib=200_000,
                    anon_kib=500_000,
                    swap_total_kib=1_000_000,
                    swap_free_kib=900_000 - t_ms,
                    psi_some_us=t_ms * 100,
                    psi_full_us=t_ms * 50,
                )
            )
        writer.app_event(EventRow(t_ns=0, kind="spawned", body={"app": name, "pid": 42, "uid": 10001}))
        writer.app_event(EventRow(t_ns=100 * MS, kind="spawned", body={"app": "com.b", "pid": 43, "uid": 10002}))
        writer.step(10 * MS, SetOomScoreAdj(42, 0), AdjWritten(42))
        writer.step(150 * MS, SetOomScoreAdj(43, 0), AdjWritten(43))
        writer.step(1000 * MS, SetOomScoreAdj(42, 900), AdjWritten(42))
        writer.step(1100 * MS, SetOomScoreAdj(42, 200), AdjWritten(None, FileError("write", 3)))
        launch = {"app": name, "pid": 42, "cold": True, "launch_ms": 400.5}
        writer.app_event(EventRow(t_ns=400 * MS, kind="launch", body=launch))
        writer.decision(1000 * MS, 999 * MS, -1, None, quiet)
        writer.decision(2000 * MS, 1999 * MS, 8, 42, kill)
        writer.kill(
            KillRow(
                t_ns=2001 * MS,
                pid=42,
                name=name,
                uid=10001,
                oom_score_adj=900,
                reason="low watermark is breached",
                reason_code=8,
                min_oom_score_adj=701,
                rss_kib=102_400,
                swap_kib=2048,
                event_to_signal_us=1500,
                signal_to_reaped_us=20_000,
                signal_to_exit_us=30_000,
                freed_kib=61_440,
                reap_method="process_reap",
            )
        )
        writer.app_event(EventRow(t_ns=2031 * MS, kind="died", body={"app": name, "pid": 42, "adj": 900, "signal": 9}))
        writer.kill(KillRow(t_ns=3000 * MS, pid=43, name="com.b", oom_score_adj=0, killer="kernel_oom"))
    return path


def simulated_record(path: Path, *more: str) -> Path:
    """The default scenario on the default device: some two dozen kills."""
    assert main(["sim", "phone-2gb", "app-switching", "--record", str(path), "--json", *more]) in (0, 1)
    return path
