"""Ten scenarios for other killers: candidates of nearly the same size, settings with which they act or just do not.

All run on one small device. Sizes are in MiB; the candidates lie within 20 % of each other, so a victim is not chosen
for being the only large one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs

from lmk.policy.earlyoom import Limits
from lmk.policy.systemd_oomd import Settings

DEVICE = """\
name: killers
description: a small device for other killers, soon full
source: ["assumed: as small as earlyoom, oomd and systemd-oomd can be compared on"]
memory: 1GiB
cpus: 2
arch: x86_64
android: 14
zram: {size: 384MiB, algorithm: lz4}
kernel: {base: "6.12", mglru: true, memcg: v2}
vm: {swappiness: 100}
"""


@attrs.frozen(kw_only=True)
class Case:
    """One scenario with the settings of each killer. ``below``: nobody is to act."""

    name: str
    shows: str
    scenario: str
    earlyoom: Limits
    oomd: str
    systemd_oomd: Settings
    below: bool = False


def _scenario(
    name: str,
    sizes: Sequence[int],
    *,
    leak: str = "front",
    rate: int = 60,
    limit: int | None = None,
    kind: str = "",
    compressibility: float = 2.0,
    wait_s: int = 14,
) -> str:
    apps = [f"app{chr(97 + index)}" for index in range(len(sizes))]
    lines = [f"name: {name}", "description: for the comparison of killers", "seed: 1"]
    lines += ["cached_apps: {freeze: false, compact: false}", "apps:"]
    for app, size in zip(apps, sizes, strict=True):
        body = f"anon: {size}MiB, file: 4MiB, compressibility: {compressibility}, hot: 0.1, cold_start: 50ms{kind}"
        lines.append(f"  {app}: {{{body}}}")
    # All of it is used all the time, so it is no candidate by what it has in swap.
    lines.append(
        "  front: {anon: 40MiB, file: 4MiB, compressibility: 1.5, hot: 1, touch_every: 500ms, cold_start: 50ms}"
    )
    lines.append("steps:")
    for app in apps:
        lines += [f"  - launch: {app}", "  - wait: 600ms"]
    lines += ["  - launch: front", "  - wait: 1s", f"  - leak: {leak}", f"    rate: {rate}MiB/s"]
    if limit is not None:
        lines.append(f"    limit: {limit}MiB")
    return "\n".join([*lines, f"  - wait: {wait_s}s"]) + "\n"


def _oomd(
    detector: str, args: dict[str, str], action: str, action_args: dict[str, str] | None = None, last: int = 4
) -> str:
    ruleset = {
        "name": "apps",
        "detectors": [["full", {"name": detector, "args": args}]],
        # Not the app in front, which has the uid after theirs.
        "actions": [{"name": action, "args": {"cgroup": f"apps/uid_1010[0-{last}]", **(action_args or {})}}],
        "post_action_delay": "5",
    }
    return json.dumps({"rulesets": [ruleset]})


def _pressure(threshold: int, action: str = "kill_by_memory_size_or_growth", last: int = 4) -> str:
    args = {"cgroup": "apps", "resource": "memory", "threshold": str(threshold), "duration": "1"}
    return _oomd("pressure_above", args, action, last=last)


def _swap(threshold_pct: int) -> str:
    return _oomd("swap_free", {"threshold_pct": str(threshold_pct)}, "kill_by_swap_usage", {"threshold": "1"})


_NEAR = (112, 118, 124, 130, 134)
_EARLY = Limits(memory_term_pct=15, memory_kill_pct=5, swap_term_pct=60, swap_kill_pct=20)
_SWAP = Settings(swap_used_limit_pct=50)
_STALL = Settings(swap_used_limit_pct=100, pressure_limit_pct=5, pressure_duration_s=2)

CASES = (
    Case(
        name="cached",
        shows="five cached apps, the oldest smallest; the app in front leaks",
        scenario=_scenario("cached", _NEAR),
        earlyoom=_EARLY,
        oomd=_pressure(5),
        systemd_oomd=_SWAP,
    ),
    Case(
        name="newest-smallest",
        shows="the same, the oldest largest",
        scenario=_scenario("newest-smallest", _NEAR[::-1]),
        earlyoom=_EARLY,
        oomd=_swap(60),
        systemd_oomd=_SWAP,
    ),
    Case(
        name="equal",
        shows="five apps of one size",
        scenario=_scenario("equal", (124,) * 5),
        earlyoom=_EARLY,
        oomd=_swap(60),
        systemd_oomd=_SWAP,
    ),
    Case(
        name="services",
        shows="five services instead of apps",
        scenario=_scenario("services", _NEAR, kind=", role: service, restart: false"),
        earlyoom=_EARLY,
        oomd=_pressure(5),
        systemd_oomd=_SWAP,
    ),
    Case(
        name="perceptible",
        shows="five apps that play music",
        scenario=_scenario("perceptible", _NEAR, kind=", background: perceptible"),
        earlyoom=_EARLY,
        oomd=_swap(50),
        systemd_oomd=_STALL,
    ),
    Case(
        name="incompressible",
        shows="memory that hardly compresses",
        scenario=_scenario("incompressible", _NEAR, compressibility=1.2),
        earlyoom=_EARLY,
        oomd=_pressure(5, "kill_by_swap_usage"),
        systemd_oomd=_SWAP,
    ),
    Case(
        name="candidate-leaks",
        shows="one of the apps leaks while it is in the background",
        scenario=_scenario("candidate-leaks", _NEAR, leak="appc", rate=40),
        earlyoom=_EARLY,
        oomd=_pressure(5),
        systemd_oomd=_SWAP,
    ),
    Case(
        name="many",
        shows="nine smaller apps",
        scenario=_scenario("many", (66, 68, 70, 71, 72, 73, 74, 75, 76)),
        earlyoom=_EARLY,
        oomd=_pressure(5, "kill_by_pg_scan", last=8),
        systemd_oomd=_STALL,
    ),
    Case(
        name="below-memory",
        shows="growth that ends just before the limits are reached",
        scenario=_scenario("below-memory", _NEAR, limit=150),
        earlyoom=Limits(memory_term_pct=5, memory_kill_pct=2, swap_term_pct=30, swap_kill_pct=10),
        oomd=_swap(20),
        systemd_oomd=Settings(swap_used_limit_pct=90),
        below=True,
    ),
    Case(
        name="below-swap",
        shows="memory is low, swap not quite as far",
        scenario=_scenario("below-swap", _NEAR[::-1], limit=260),
        earlyoom=Limits(memory_term_pct=20, memory_kill_pct=15, swap_term_pct=15, swap_kill_pct=5),
        oomd=_swap(10),
        systemd_oomd=Settings(swap_used_limit_pct=97),
        below=True,
    ),
)
