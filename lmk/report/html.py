"""The HTML report: one file with everything in it, which asks for nothing from anywhere.

What is known before a script runs (figures, tables, expectations) is plain HTML, so that it can be read, searched and
printed without one. The charts and explanations are drawn by ``web/report.js`` with uPlot (MIT) from the data block,
which is compressed: the explanations of a day are megabytes of nearly equal words.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from lmk.report.html_model import RunModel, page_model
from lmk.report.html_tables import kill_section, launch_section
from lmk.report.tiers import GROUPS

_WEB = files("lmk.report") / "web"
#: Nothing may be fetched, whatever is in the page.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
_RUN_FACTS = ("config", "scenario", "policy", "android", "seed", "target", "lmk_version")
_MORE_RUNS_MAX = 6


def report_html(runs: Sequence[RunModel]) -> str:
    """The whole page for one run, or for several laid over each other."""
    title = _title(runs)
    parts = [
        _header(runs, title),
        '<main id="main">',
        _warnings(runs),
        _tiles(runs),
        _runs_table(runs) if len(runs) > 1 else "",
        _time_line(runs),
        kill_section(runs),
        launch_section(runs),
        _expectations(runs),
        _about(runs),
        "</main>",
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        f"<title>{escape(title)} · lmk</title>"
        f"<style>{_asset('uPlot.min.css')}\n{_asset('report.css')}</style>"
    )
    data = _packed(page_model(runs))
    scripts = f"<script>{_asset('uPlot.iife.min.js')}</script><script>{_asset('report.js')}</script>"
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n'
        f'<script type="application/gzip" id="data">{data}</script>\n{scripts}\n</body></html>\n'
    )


def _asset(name: str) -> str:
    return (_WEB / name).read_text(encoding="utf-8").strip()


def _packed(model: Mapping[str, Any]) -> str:
    text = json.dumps(model, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode()


def _title(runs: Sequence[RunModel]) -> str:
    if len(runs) == 1:
        summary = runs[0].summary
        what, where = summary["scenario"] or "A recorded device", summary["config"]
        return f"{what} on {where}" if where else what
    return f"{len(runs)} runs: " + ", ".join(dict.fromkeys(str(run.summary["scenario"]) for run in runs))


def _header(runs: Sequence[RunModel], title: str) -> str:
    chips = _chips(runs[0]) if len(runs) == 1 else [("runs", str(len(runs)))]
    items = "".join(f"<li><span>{escape(name)}</span> {escape(value)}</li>" for name, value in chips)
    return (
        '<a class="skip" href="#main">Skip to the report</a>'
        f'<header><div><p class="brand">lmk report</p><h1>{escape(title)}</h1><ul class="chips">{items}</ul></div>'
        '<button type="button" id="theme" aria-label="Colours: as the system says">◐ Auto</button></header>'
    )


def _chips(run: RunModel) -> list[tuple[str, str]]:
    summary, meta = run.summary, run.timeline.meta
    device: Mapping[str, Any] = summary["device"] or {}
    calibration = summary["calibration"]
    duration_ms = summary["duration_ms"]
    policy = summary["policy"]
    if policy == "lmkd" and meta.get("android"):
        policy = f"lmkd of Android {meta['android']}"
    facts = (
        ("policy", policy),
        ("ran on", _target(summary["target"])),
        ("memory", _gib(device.get("mem_total_kib"))),
        ("swap", _gib(device.get("swap_total_kib"))),
        ("kernel", device.get("kernel")),
        ("lasted", None if duration_ms is None else _duration(duration_ms)),
        ("seed", summary["seed"]),
        ("calibration", f"{calibration['name']} ({calibration['class']})" if calibration else None),
    )
    return [(name, str(value)) for name, value in facts if value is not None]


def _target(target: str | None) -> str | None:
    return {"sim": "the simulator", "qemu": "an emulated kernel (QEMU)"}.get(target or "", target)


def _gib(kib: int | None) -> str | None:
    if kib is None:
        return None
    return f"{kib / 1024 / 1024:.2f} GiB" if kib else "none"


def _duration(duration_ms: int) -> str:
    seconds = duration_ms // 1000
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"


def _warnings(runs: Sequence[RunModel]) -> str:
    said = []
    for run in runs:
        whose = f"{run.label}: " if len(runs) > 1 else ""
        if not run.summary["complete"]:
            said.append(f"{whose}this run was cut short ({run.timeline.meta.get('why') or 'nobody knows why'}).")
        if run.summary["disturbed"]:
            load = run.summary["host_load"]
            said.append(f"{whose}other load took {load:.0%} of the host meanwhile: do not quote the times.")
        dry = run.summary["dry_run"]
        if dry:
            said.append(f"{whose}a dry run: nobody was killed by lmk; the kills shown are what it decided.")
    return "".join(f'<p class="warning" role="note">{escape(text)}</p>' for text in said)


# ---- figures


def _tiles(runs: Sequence[RunModel]) -> str:
    tiles = [
        _tile("Kills", [_kills_figure(run) for run in runs]),
        _tile("Kills a user notices", [_noticed(run) for run in runs]),
        _tile("Cold starts", [_cold_starts(run) for run in runs]),
        _tile("Cold launch", [_spread(run.summary["summary"]["launch_ms"]["cold"], 1, 0) for run in runs]),
        _tile("Event to signal", [_spread(run.summary["summary"]["event_to_signal_us"], 1000, 1) for run in runs]),
        _tile("Stalled on memory", [_stalls(run) for run in runs]),
        _tile("Least available", [_least(run) for run in runs]),
        _tile("Expectations", [_met(run) for run in runs]),
    ]
    return f'<section class="tiles" aria-label="Summary">{"".join(tiles)}</section>'


def _tile(name: str, figures: Sequence[tuple[str, str, str]]) -> str:
    """``figures``: one (value, small print, class) per run."""
    rows = []
    for index, (value, note, kind) in enumerate(figures):
        mark = f'<i class="run run{index}" aria-hidden="true">{chr(65 + index)}</i>' if len(figures) > 1 else ""
        rows.append(f'<dd>{mark}<b class="{kind}">{escape(value)}</b><span>{escape(note)}</span></dd>')
    return f"<dl><dt>{escape(name)}</dt>{''.join(rows)}</dl>"


def _kills_figure(run: RunModel) -> tuple[str, str, str]:
    summary = run.summary["summary"]
    tiers = ", ".join(f"{n} {name}" for name, n in summary["kills_by_tier"].items())
    return str(summary["kills"]), tiers or "nobody died", ""


def _noticed(run: RunModel) -> tuple[str, str, str]:
    summary = run.summary["summary"]
    front, perceptible = summary["foreground_kills"], summary["perceptible_kills"]
    oom = summary["kernel_oom_kills"]
    note = f"{front} foreground, {perceptible} perceptible" + (f"; {oom} by the kernel" if oom else "")
    return str(front + perceptible), note, "bad" if front + perceptible or oom else "good"


def _cold_starts(run: RunModel) -> tuple[str, str, str]:
    summary = run.summary["summary"]
    if not summary["launches"]:
        return "–", "no launch was recorded", ""
    return str(summary["cold_starts"]), f"of {summary['launches']} launches", ""


def _spread(values: Mapping[str, Any], divisor: int, digits: int) -> tuple[str, str, str]:
    if not values["n"]:
        return "–", "not recorded", ""
    p50, p95, most = (f"{values[name] / divisor:.{digits}f}" for name in ("p50", "p95", "max"))
    return f"{p50} ms", f"median of {values['n']}; p95 {p95}, max {most}", ""


def _stalls(run: RunModel) -> tuple[str, str, str]:
    summary = run.summary["summary"]
    if summary["psi_some_ms"] is None:
        return "–", "not recorded", ""
    full = "" if summary["psi_full_ms"] is None else f"; full {summary['psi_full_ms'] / 1000:.1f} s"
    return f"{summary['psi_some_ms'] / 1000:.1f} s", f"PSI some{full}", ""


def _least(run: RunModel) -> tuple[str, str, str]:
    kib = run.summary["summary"]["min_mem_available_kib"]
    return ("–", "not recorded", "") if kib is None else (f"{kib / 1024:.0f} MiB", "least MemAvailable sampled", "")


def _met(run: RunModel) -> tuple[str, str, str]:
    verdicts = run.summary["summary"]["expectations"]
    if not verdicts:
        return "–", "the scenario expects nothing", ""
    met = sum(verdict["met"] for verdict in verdicts)
    missed = [verdict["name"] for verdict in verdicts if not verdict["met"]]
    return f"{met} of {len(verdicts)}", "all met" if not missed else ", ".join(missed), "bad" if missed else "good"


# ---- sections


def _runs_table(runs: Sequence[RunModel]) -> str:
    """What was run, side by side; rows that differ stand out."""
    facts = [_facts(run) for run in runs]
    names = list(dict.fromkeys(name for fact in facts for name in fact))
    rows = []
    for name in names:
        values = [str(fact.get(name, "–")) for fact in facts]
        differs = len(set(values)) > 1
        if name.startswith("ro.") and not differs:
            continue
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        rows.append(f'<tr{" class=differs" if differs else ""}><th scope="row">{escape(name)}</th>{cells}</tr>')
    heads = "".join(
        f'<th scope="col"><i class="run run{index}">{chr(65 + index)}</i> {escape(run.label)}</th>'
        for index, run in enumerate(runs)
    )
    return (
        '<section class="card"><h2>The runs</h2><div class="scroll"><table>'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _facts(run: RunModel) -> dict[str, Any]:
    meta = run.timeline.meta
    facts = {name: meta[name] for name in _RUN_FACTS if meta.get(name) is not None}
    if meta.get("calibration"):
        facts["calibration"] = meta["calibration"]["name"]
    properties: Mapping[str, Any] = meta.get("properties") or {}
    facts |= {
        name: value for name, value in sorted(properties.items()) if name.startswith(("ro.lmk.", "ro.config.low"))
    }
    return facts


def _time_line(runs: Sequence[RunModel]) -> str:
    groups = [*GROUPS, *(["unknown"] if _any_unknown(runs) else [])]
    legend = "".join(f'<li><i class="tier t-{group}"></i>{group}</li>' for group in groups)
    strips = "".join(
        f'<div class="strip" data-run="{index}" role="toolbar" aria-label="Kills of run {escape(run.label)}"></div>'
        for index, run in enumerate(runs)
    )
    hint = "Click a kill or reach it with Tab and the arrow keys; drag over a chart to zoom, double-click for all."
    return (
        '<section class="card" id="timeline"><div class="title"><h2>Time line</h2>'
        '<div class="zoom" role="group" aria-label="Zoom"><button type="button" id="zoom-in">+</button>'
        '<button type="button" id="zoom-out">−</button><button type="button" id="zoom-all">All</button></div></div>'
        f'<p class="hint">{hint}</p><ul class="legend" aria-label="Colours of tiers">{legend}</ul>'
        '<noscript><p class="warning">The charts need JavaScript; the tables below do not.</p></noscript>'
        f'<div class="split"><div class="charts"><div class="strips">{strips}</div><div id="panels"></div>'
        '<div id="lanes"></div></div>'
        '<aside id="inspector" aria-live="polite" aria-label="Explanation of a kill"></aside></div></section>'
    )


def _any_unknown(runs: Sequence[RunModel]) -> bool:
    return any(span.adj is None for run in runs for life in run.timeline.lives for span in life.spans)


def _expectations(runs: Sequence[RunModel]) -> str:
    rows = []
    for run in runs:
        for verdict in run.summary["summary"]["expectations"]:
            mark = '<b class="good">met</b>' if verdict["met"] else '<b class="bad">not met</b>'
            whose = f"<td>{escape(run.label)}</td>" if len(runs) > 1 else ""
            low, high = verdict["limit"]["min"], verdict["limit"]["max"]
            limit = " and ".join([f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None))
            rows.append(
                f"<tr>{whose}<td>{mark}</td><td>{escape(verdict['name'])}</td>"
                f"<td class=n>{escape(str(verdict['observed']))}</td><td>{limit}</td></tr>"
            )
    if not rows:
        return ""
    heads = ["run"] * (len(runs) > 1) + ["", "expectation", "observed", "limit"]
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        '<section class="card"><h2>Expectations of the scenario</h2><div class="scroll"><table class="tight">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _about(runs: Sequence[RunModel]) -> str:
    return "<footer>" + "".join(_about_run(run) for run in runs) + "</footer>"


def _about_run(run: RunModel) -> str:
    counts = (
        f"{len(run.timeline.counters)} samples, {len(run.timeline.marks)} looks at the rules, "
        f"{len(run.timeline.lives)} processes"
    )
    meta = run.timeline.meta
    lists: Iterable[tuple[str, Mapping[str, Any]]] = (("Properties in force", meta.get("properties") or {}),)
    details = "".join(
        f"<details><summary>{title} ({len(values)})</summary><dl class=facts>"
        + "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in sorted(values.items()))
        + "</dl></details>"
        for title, values in lists
        if values
    )
    text = meta.get("scenario_text")
    scenario = f"<details><summary>The scenario</summary><pre>{escape(text)}</pre></details>" if text else ""
    record = f"<p>Record <code>{escape(str(run.summary['record']))}</code>: {counts}.</p>"
    return f"<div>{record}{details}{scenario}</div>"
