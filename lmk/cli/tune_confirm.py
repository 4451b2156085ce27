"""``lmk tune --confirm qemu``: the winner against stock on a real kernel, in pairs of runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmk.config.find import find_scenario
from lmk.config.scenario import load_scenario
from lmk.config.timeline import Timeline, compile_timeline
from lmk.errors import UserError
from lmk.live.devices import check_target, parse_target
from lmk.live.session import Plan, run_live
from lmk.live.watcher import Watcher
from lmk.policy.registry import make_policy
from lmk.report.compare import METRICS, Variant, compare
from lmk.validate.window import Window, cut, parse_window, starting_table

if TYPE_CHECKING:
    from lmk.config.device import DeviceConfig
    from lmk.config.scenario import Scenario

#: Guest time; emulated without KVM a run takes about as long, and there are ten of them.
GUEST_MS_MAX = 180_000
TARGET = "qemu"


def check_confirm(args: argparse.Namespace, config: DeviceConfig) -> None:
    """Raises UserError, before anything is run, for scenarios too long for a kernel, or a host without QEMU."""
    window = _window(args)
    for name in args.scenario:
        scenario = load_scenario(find_scenario(name))
        if scenario.sim_only and window is None:
            raise UserError(
                f"--confirm: {scenario.name} is for the simulator alone", "a piece of it: --confirm-window 9h+60s"
            )
        took_ms = _timeline(scenario, config, scenario.seed, window).duration_ms
        if took_ms > GUEST_MS_MAX:
            raise UserError(
                f"--confirm: {scenario.name} takes {took_ms // 1000} s of guest time",
                f"at most {GUEST_MS_MAX // 1000} s of it: --confirm-window START+LEN",
            )
    check_target(parse_target(TARGET), config, confirmed=True)


def confirm(
    args: argparse.Namespace,
    configs: Mapping[str, DeviceConfig],
    first_seed: int,
    folder: Path,
    told: Callable[[int, int], None],
) -> dict[str, Any]:
    """``lmk compare``'s object of the variants, the first being the baseline, run by run one after the other."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in configs}
    scenarios = [load_scenario(find_scenario(name)) for name in args.scenario]
    total = args.confirm_runs * len(scenarios) * len(configs)
    for pair in range(args.confirm_runs):
        for scenario in scenarios:
            for name, config in configs.items():
                seed = scenario.seed + (first_seed + pair if scenario.generate is not None else 0)
                record = folder / "confirm" / f"{scenario.name}-{pair + 1}-{name}"
                timeline = _timeline(scenario, config, seed, _window(args))
                run = run_live(_plan(config, scenario, timeline, record), Watcher())
                # Runs of a scenario that is the same with every seed are pairs all the same.
                runs[name].append({**run, "seed": pair})
                told(sum(map(len, runs.values())), total)
    return compare([Variant(name=name, runs=some) for name, some in runs.items()], METRICS)


def _window(args: argparse.Namespace) -> Window | None:
    return parse_window(args.confirm_window, "--confirm-window") if args.confirm_window else None


def _timeline(scenario: Scenario, config: DeviceConfig, seed: int, window: Window | None) -> Timeline:
    """All of a scenario, or a piece with the apps that live when it begins."""
    timeline = compile_timeline(scenario, config, seed)
    if window is None:
        return timeline
    return cut(timeline, window, starting_table(timeline, config.memory_bytes, window.start_ms))[0]


def _plan(config: DeviceConfig, scenario: Scenario, timeline: Timeline, record: Path) -> Plan:
    return Plan(
        config=config,
        scenario=scenario,
        timeline=timeline,
        target=parse_target(TARGET),
        policy_name="lmkd",
        make_policy=lambda: make_policy("lmkd", config.android),
        dry_run=False,
        run_dir=record,
    )


def agreement(result: Mapping[str, Any], compared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each objective: the difference as simulated and on the kernel, and whether both point the same way; None
    where they do not and the kernel's runs show no difference (its 95 % interval includes zero)."""
    found = []
    for name in result["objectives"]:
        there = _difference(compared, name)
        here = _difference(result["unseen"], name) if result["unseen"] else None
        if here is None:
            own, base = result["chosen"]["figures"][name], result["stock"]["figures"][name]
            here = None if own is None or base is None else round(own - base, 3)
        same = None if here is None or there is None else here * there > 0 or here == there
        if same is False and not _shown(compared, name):
            same = None
        found.append({"objective": name, "simulated": here, "kernel": there, "same_sign": same})
    return found


def _difference(compared: Mapping[str, Any], name: str) -> float | None:
    metric = next((metric for metric in compared["metrics"] if metric["name"] == name), None)
    return None if metric is None else metric["others"][0]["difference"]


def _shown(compared: Mapping[str, Any], name: str) -> bool:
    other = next(metric for metric in compared["metrics"] if metric["name"] == name)["others"][0]
    return other["ci95"] is None or not other["ci95"][0] <= 0 <= other["ci95"][1]
