"""How long a decision takes over adb: .venv/bin/python tools/bench/latency.py [CONFIG [SCENARIO]] [--runs N] [--json]

From real runs under pressure, never from an idle device. ``decision`` is from the helper's wake-up (a poll: its
sample taken) until the policy has decided on the host, for every decision; ``event_to_signal`` is from the same
moment to the helper's pidfd_send_signal, for the kills among them, with the legs of that way (the host's moments are
estimates on the device's clock). Disturbed runs are left out and counted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _guest import show

from lmk.record.reader import RecordReader
from lmk.report.summary import percentiles

#: In the order in which they are gone; see ``kill_path`` in docs/record.md.
LEGS = ("sampling", "to_host", "deciding", "to_device", "signalling")


def main() -> int:
    """Run, collect, print."""
    parser = argparse.ArgumentParser(description="Decision latency over adb, from real runs under pressure.")
    parser.add_argument("config", nargs="?", default="phone-2gb")
    parser.add_argument("scenario", nargs="?", default="app-switching")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--keep-disturbed", action="store_true", help="count disturbed runs as well (and say so)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    decisions: list[float] = []
    kills: list[int] = []
    legs: dict[str, list[float]] = {name: [] for name in LEGS}
    disturbed, loads = 0, list[float]()
    for number in range(args.runs):
        with tempfile.TemporaryDirectory(prefix="lmk-bench-") as folder:
            record_dir = Path(folder) / "run"
            command = [sys.executable, "-m", "lmk", "run", args.config, args.scenario]
            subprocess.run(
                [*command, "--record", str(record_dir), "--seed", str(number + 1), "--json"],
                stdout=subprocess.DEVNULL,
                check=False,
            )
            with RecordReader(record_dir) as record:
                loads.append(record.meta["host_load"])
                disturbed += record.meta["disturbed"]
                if record.meta["disturbed"] and not args.keep_disturbed:
                    continue
                decisions += [(d.t_ns - d.woke_ns) / 1e6 for d in record.decisions() if d.woke_ns]
                for event in record.device_events("kill_path"):
                    for name in LEGS:
                        legs[name].append(event.body[f"{name}_us"] / 1000)
                kills += [k.event_to_signal_us for k in record.kills() if k.event_to_signal_us is not None]
    rows = [
        {"what": "decision ms", **_rounded(percentiles(decisions))},
        {"what": "event_to_signal ms", **_rounded(percentiles([us / 1000 for us in kills]))},
        *({"what": f"  {name} ms", **_rounded(percentiles(values))} for name, values in legs.items()),
    ]
    facts: dict[str, Any] = {
        "config": args.config,
        "scenario": args.scenario,
        "runs": args.runs,
        "disturbed_runs": disturbed,
        "disturbed_runs_counted": bool(args.keep_disturbed),
        "host_load": loads,
    }
    show("decision latency over adb", rows, facts, as_json=args.json)
    return 0


def _rounded(values: dict[str, float | int | None]) -> dict[str, float | int | None]:
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in values.items()}


if __name__ == "__main__":
    sys.exit(main())
