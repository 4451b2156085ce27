"""``lmk replay``: what another setting would have done at each moment of a record."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console

from lmk.cli.runs import find_run, new_run_dir
from lmk.config.device import load_device_config
from lmk.config.find import find_config
from lmk.config.override import KERNEL_BASE, ZRAM_SIZE, check_property, parse_overrides
from lmk.errors import UserError
from lmk.policy.lmkd.params import PROPERTIES
from lmk.policy.oom_adj import tier
from lmk.record.reader import RecordReader
from lmk.record.schema import KillRow
from lmk.replay.other_setting import Replayed, replay_setting
from lmk.report.replayed import JSON_SCHEMA, replay_tables, summary


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``replay``."""
    parser = verbs.add_parser("replay", help="say what another setting would have done at each moment of a record")
    parser.add_argument("run_dir", metavar="RECORD", help="a record of lmk run, sim or record, or `last`")
    parser.add_argument("--config", metavar="CONFIG", help="the properties and Android version of this device config")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a property in place of the record's (or the config's), e.g. ro.lmk.thrashing_limit=30",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to leave the replay's own record")
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0, whatever came out."""
    settings = parse_overrides(args.settings)
    for name, text in settings.items():
        if name.startswith("vm.") or name in (KERNEL_BASE, ZRAM_SIZE):
            raise UserError(f"--set {name}: a record cannot tell how another kernel would go on", "set a property")
        check_property(name, text)
    with RecordReader(find_run(args.run_dir)) as record:
        base: Mapping[str, str] = record.meta.get("properties") or {}
        android = str(record.meta.get("android") or "")
        if args.config is not None:
            config = load_device_config(find_config(args.config))
            base, android = config.properties, config.android
        properties = {**base, **settings}
        replayed = replay_setting(record, properties, android, new_run_dir(args.output, "replay", "--output"))
        result = _json(record, replayed, properties, android)
    if args.json:
        print(json.dumps(result))
    else:
        Console().print(replay_tables(result))
    return 0


def _json(record: RecordReader, replayed: Replayed, properties: Mapping[str, str], android: str) -> dict[str, Any]:
    kills = [
        {
            "verdict": kill.verdict,
            "basis": kill.basis,
            "recorded_ms": kill.recorded_ms,
            "replayed_ms": kill.replayed_ms,
            "recorded": _kill(kill.recorded),
            "replayed": _kill(kill.replayed),
        }
        for kill in replayed.kills
    ]
    return {
        "schema": JSON_SCHEMA,
        "record": str(record.path.parent),
        "replay_record": str(replayed.directory),
        "android": {"recorded": record.meta.get("android"), "other": android},
        "changes": _changes(record.meta.get("properties") or {}, properties),
        "left_ms": replayed.left_ms,
        "diverged_ms": replayed.diverged_ms,
        "derived_triggers": [{"level": k, "trigger": v} for k, v in sorted(replayed.derived_levels.items())],
        "stale_reads": replayed.stale_reads,
        "unknown_sizes": replayed.unknown_sizes,
        "kernel_oom_kills": replayed.recorded_kernel_oom,
        "kills": kills,
        "summary": summary(kills),
        "moments": None if replayed.moments is None else attrs.asdict(replayed.moments),
    }


def _kill(row: KillRow | None) -> dict[str, Any] | None:
    if row is None:
        return None
    names = ("pid", "name", "uid", "oom_score_adj", "reason", "reason_code", "min_oom_score_adj", "rss_kib", "swap_kib")
    body = {name: getattr(row, name) for name in names}
    body["tier"] = None if row.oom_score_adj is None else tier(row.oom_score_adj)
    return body


def _changes(recorded: Mapping[str, str], other: Mapping[str, str]) -> list[dict[str, str | None]]:
    """lmkd's own properties that differ."""
    known = [name for row in PROPERTIES for name in (row.full_name, f"persist.device_config.lmkd_native.{row.name}")]
    return [
        {"name": name, "recorded": recorded.get(name), "other": other.get(name)}
        for name in known
        if recorded.get(name) != other.get(name)
    ]
