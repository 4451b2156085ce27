"""A run's record as the one JSON object that ``lmk run --json`` and ``lmk sim --json`` print (docs/json.md).

Pure: record in, dictionary out. A key that does not apply is None, never missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs

from lmk.policy.oom_adj import OOM_SCORE_ADJ_MAX, OOM_SCORE_ADJ_MIN, tier
from lmk.record.reader import RecordReader
from lmk.record.schema import CounterRow, EventRow, KillRow
from lmk.units import NS_PER_MS

#: Raised when a key changes meaning; new keys do not raise it.
JSON_SCHEMA = 1


def run_json(record: RecordReader) -> dict[str, Any]:
    """The whole object for one run."""
    meta = record.meta
    kills = record.kills()
    return {
        "schema": JSON_SCHEMA,
        "config": meta.get("config"),
        "scenario": meta.get("scenario"),
        "policy": meta.get("policy"),
        "seed": meta.get("seed"),
        "target": meta.get("target"),
        "calibration": meta.get("calibration"),
        "duration_ms": meta.get("duration_ms"),
        "disturbed": meta.get("disturbed"),
        "host_load": meta.get("host_load"),
        "complete": meta.get("complete", False),
        "record": str(record.path.parent),
        "device": meta.get("device"),
        "dry_run": dry_run_json(meta, kills, record.zero_ns) if meta.get("dry_run") else None,
        "kills": [kill_json(kill, record.zero_ns) for kill in kills],
        "summary": summary_json(record),
    }


def dry_run_json(meta: dict[str, Any], kills: Sequence[KillRow], zero_ns: int) -> dict[str, Any]:
    """How what was decided agrees with what the device's own lmkd killed meanwhile: the same process, at any time.

    ``processes`` has everybody whom either chose, with the time of the first decision and of the death.
    """
    chosen: dict[int, dict[str, Any]] = {}
    for kill in kills:
        if kill.dry and kill.pid not in chosen:
            chosen[kill.pid] = _choice(kill.pid, kill.name, kill.oom_score_adj)
            chosen[kill.pid]["decided_t_ms"] = (kill.t_ns - zero_ns) // NS_PER_MS
    device = meta.get("device_kills") or []
    for death in device:
        choice = chosen.setdefault(death["pid"], _choice(death["pid"], death["name"], death["oom_score_adj"]))
        choice["killed_t_ms"] = (death["t_ns"] - zero_ns) // NS_PER_MS
    processes = sorted(chosen.values(), key=_first_ms)
    return {
        "decided": sum(p["decided_t_ms"] is not None for p in processes),
        "device_kills": device,
        "agreed": sum(p["decided_t_ms"] is not None and p["killed_t_ms"] is not None for p in processes),
        "processes": processes,
    }


def _choice(pid: int, name: str | None, oom_score_adj: int | None) -> dict[str, Any]:
    return {"pid": pid, "name": name, "oom_score_adj": oom_score_adj, "decided_t_ms": None, "killed_t_ms": None}


def _first_ms(choice: dict[str, Any]) -> int:
    return int(min(t for t in (choice["decided_t_ms"], choice["killed_t_ms"]) if t is not None))


def kill_json(kill: KillRow, zero_ns: int) -> dict[str, Any]:
    """One entry of ``kills``."""
    body = attrs.asdict(kill)
    t_ns, dry = body.pop("t_ns"), body.pop("dry")
    del body["signal_errno"]  # always null of a kill
    body["t_ms"] = (t_ns - zero_ns) // NS_PER_MS
    body["tier"] = _tier(kill.oom_score_adj)
    body["dry_run"] = dry
    return body


def summary_json(record: RecordReader) -> dict[str, Any]:
    """``summary``: what a person compares two runs by. Dry-run kills count as if they had been carried out."""
    kills, counters, launches = record.kills(), record.counters(), record.app_events("launch")
    adjs = [k.oom_score_adj for k in kills if k.oom_score_adj is not None]
    cold = [e for e in launches if e.body.get("cold")]
    return {
        "kills": len(kills),
        "failed_kills": len(record.failed_kills()),
        "kernel_oom_kills": sum(k.killer == "kernel_oom" for k in kills),
        "kills_by_tier": dict(Counter(name for adj in adjs if (name := _tier(adj)) is not None)),
        "kills_by_reason": dict(Counter(str(k.reason_code) for k in kills if k.reason_code is not None)),
        "min_kill_adj": min(adjs, default=None),
        "launches": len(launches),
        "cold_starts": len(cold),
        "foreground_kills": sum(adj <= 0 for adj in adjs),
        "perceptible_kills": sum(1 <= adj <= 250 for adj in adjs),
        "launch_ms": {
            "cold": _spread_ms(cold),
            "warm": _spread_ms([e for e in launches if not e.body.get("cold")]),
        },
        "psi_some_ms": _growth_ms(counters, "psi_some_us"),
        "psi_full_ms": _growth_ms(counters, "psi_full_us"),
        "min_mem_available_kib": min(
            (c.mem_available_kib for c in counters if c.mem_available_kib is not None), default=None
        ),
        "refault_file_pages": _growth(counters, "refault_file_pages"),
        "event_to_signal_us": percentiles([k.event_to_signal_us for k in kills if k.event_to_signal_us is not None]),
        "freed_kib": sum(k.freed_kib for k in kills if k.freed_kib is not None) if kills else None,
        "expectations": record.meta.get("expectations", []),
    }


def _tier(adj: int | None) -> str | None:
    """None where the record does not say, or holds ActivityManager's 1001 (not known yet)."""
    return None if adj is None or not OOM_SCORE_ADJ_MIN <= adj <= OOM_SCORE_ADJ_MAX else tier(adj)


def percentiles(values: Sequence[int | float]) -> dict[str, float | int | None]:
    """n, p50, p95 and max; nearest rank, so that every figure is one that was observed."""
    ordered = sorted(values)
    return {
        "n": len(ordered),
        "p50": nearest_rank(ordered, 50),
        "p95": nearest_rank(ordered, 95),
        "max": ordered[-1] if ordered else None,
    }


def nearest_rank(ordered: Sequence[int | float], percent: int) -> int | float | None:
    """The smallest of the sorted values that at least ``percent`` of them do not exceed; None of none."""
    if not ordered:
        return None
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _spread_ms(launches: Sequence[EventRow]) -> dict[str, float | int | None]:
    return percentiles([e.body["launch_ms"] for e in launches if e.body.get("launch_ms") is not None])


def _growth(counters: Sequence[CounterRow], name: str) -> int | None:
    values = [v for c in counters if (v := getattr(c, name)) is not None]
    return int(values[-1] - values[0]) if values else None


def _growth_ms(counters: Sequence[CounterRow], name: str) -> int | None:
    growth_us = _growth(counters, name)
    return None if growth_us is None else growth_us // 1000
