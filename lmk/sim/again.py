"""A recorded simulation as a plan that makes the same run again, from the record alone."""

from __future__ import annotations

from typing import Any

import attrs

from lmk.config.calibration import Calibration, ZramClass, ZramCost
from lmk.config.device import Source, read_device_config
from lmk.config.load import parse_document
from lmk.config.scenario import read_scenario
from lmk.config.timeline import compile_timeline
from lmk.errors import UserError
from lmk.policy.registry import SIM_POLICIES, make_policy
from lmk.record.reader import RecordReader
from lmk.sim.run import SimPlan


def plan_of(record: RecordReader) -> SimPlan:
    """The plan behind a record. Raises UserError for a run on a kernel, and for what cannot be made again."""
    meta, where = record.meta, record.path.parent
    if meta.get("target") != "sim":
        raise UserError(f"{where}: is a run on {meta.get('target')}", "only a simulated run can be made again: lmk sim")
    if "config_text" not in meta or "rates" not in meta:
        raise UserError(f"{where}: an older lmk left it, without its config and rates", "make it again: lmk sim")
    policy = meta["policy"]
    if policy not in SIM_POLICIES:
        raise UserError(f"{where}: its policy {policy} is not known here", f"known: {', '.join(SIM_POLICIES)}")
    device, script = parse_document(meta["config_text"], "config"), parse_document(meta["scenario_text"], "scenario")
    config, scenario = read_device_config(device), read_scenario(script)
    device.problems.raise_if_any()
    script.problems.raise_if_any()
    return SimPlan(
        config=config,
        calibration=_calibration(meta["rates"]),
        scenario=scenario,
        scenario_text=meta["scenario_text"],
        timeline=compile_timeline(scenario, config, meta["seed"]),
        policy_name=policy,
        make_policy=lambda: make_policy(policy, config.android),
        run_dir=where,
    )


def _calibration(rates: dict[str, object]) -> Calibration:
    plain = {field.name: rates[field.name] for field in attrs.fields(Calibration) if field.name in rates}
    sources, zram = rates["sources"], rates["zram"]
    assert isinstance(sources, list)
    assert isinstance(zram, dict)
    return Calibration(
        **{  # type: ignore[arg-type]
            **plain,
            "sources": tuple(Source(fields=tuple(one["fields"]), text=one["text"]) for one in sources),
            "zram": {name: _zram_cost(cost) for name, cost in zram.items()},
        }
    )


def _zram_cost(cost: dict[str, Any]) -> ZramCost:
    return ZramCost(**{**cost, "classes": tuple(ZramClass(**one) for one in cost["classes"])})
