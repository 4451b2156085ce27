"""QEMU's start to the first answer over adb: .venv/bin/python tools/bench/boot.py [CONFIG] [--runs N] [--json]"""

from __future__ import annotations

import argparse
import sys

from _guest import booted, device_config, show

from lmk.report.summary import percentiles


def main() -> int:
    """Boot several times, print the spread."""
    parser = argparse.ArgumentParser(description="Boot time to adb.")
    parser.add_argument("config", nargs="?", default="phone-2gb")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    config = device_config(args.config)
    times_ms, facts = list[int](), {}
    for _ in range(args.runs):
        with booted(config) as guest:
            times_ms.append(guest.facts.boot_ms)
            facts = {
                "config": config.name,
                "kernel": guest.facts.release,
                "accel": guest.accel.name,
                "userland_kib": guest.facts.userland_kib,
            }
    show("boot to adb", [{"what": "boot ms", **percentiles(times_ms)}], facts, as_json=args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
