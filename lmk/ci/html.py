"""The same for a browser: a page without script, light and dark as the reader's system is.

Everything judged is in it; what it links to are the runs' own pages beside it (lmk.ci.pages).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from lmk.ci.judge import Verdict
from lmk.ci.markdown import headline
from lmk.ci.pages import Pages
from lmk.ci.result import CellResult

_STYLE: Final = """
:root { color-scheme: light dark; --bg: #ffffff; --ink: #1c2430; --soft: #5c6675; --line: #dde2ea; --card: #f6f8fa;
  --good: #1a7f4b; --bad: #c22f3d; --warn: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --bg: #12161c; --ink: #e3e8ef; --soft: #98a3b3; --line: #2a323d;
  --card: #1a2029; --good: #4fbf86; --bad: #ff7b85; --warn: #e0b048; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--bg); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } p { margin: 0 0 1.5rem; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: .82rem; white-space: nowrap; }
th, td { padding: .45rem .75rem .45rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.num { text-align: right; } .passed { color: var(--good); } .failed { color: var(--bad); font-weight: 600; }
.infra, .timeout { color: var(--warn); font-weight: 600; }
details { margin: .6rem 0; border: 1px solid var(--line); border-radius: 8px; background: var(--card); }
summary { cursor: pointer; padding: .6rem .9rem; } details > div { padding: 0 .9rem .9rem; }
pre { margin: 0 0 .8rem; white-space: pre-wrap; font: 13px/1.5 ui-monospace, "SF Mono", Menlo, monospace; }
a { color: inherit; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
"""
_WORD: Final = {"passed": "passed", "failed": "failed", "infra": "not judged", "timeout": "over its time"}


def report_html(name: str, results: Sequence[CellResult], pages: Pages) -> str:
    """The whole page; ``name`` is the matrix's, ``pages`` are linked to."""
    bad = [result for result in results if result.status != "passed"]
    good = [result for result in results if result.status == "passed"]
    parts = [f"<h1>lmk ci: {escape(name)}</h1>", f"<p>{escape(headline(results))}</p>", _table(results, pages)]
    if bad:
        parts += ["<h2>What went wrong</h2>", *(_details(result, pages, open_=True) for result in bad)]
    if any(result.verdicts for result in good):
        parts += ["<h2>Against the baseline</h2>", *(_details(result, pages) for result in good if result.verdicts)]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>lmk ci: {escape(name)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _table(results: Sequence[CellResult], pages: Pages) -> str:
    heads = ("config", "scenario", "policy", "target", "kernel", "result")
    figures = ("kills", "not cached", "cold starts", "PSI full ms", "s")
    head = "".join(f"<th>{h}</th>" for h in heads) + "".join(f'<th class="num">{f}</th>' for f in figures)
    return _scrolling(f"<tr>{head}</tr>", (_row(result, pages) for result in results))


def _scrolling(head: str, rows: Iterable[str]) -> str:
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _row(result: CellResult, pages: Pages) -> str:
    cell = result.cell
    names = [escape(text) for text in (cell.config, cell.scenario, cell.policy, cell.target, cell.kernel)]
    names[1] = _linked(names[1], result, pages)
    words = "".join(f"<td>{name}</td>" for name in names)
    figures = ["-"] * 4
    if result.runs:
        summary = result.runs[0]["summary"]
        shown = summary["foreground_kills"] + summary["perceptible_kills"]
        figures = [str(x) for x in (summary["kills"], shown, summary["cold_starts"], summary["psi_full_ms"])]
    numbers = "".join(f'<td class="num">{figure}</td>' for figure in (*figures, f"{result.seconds:.1f}"))
    return f'<tr>{words}<td class="{result.status}">{_WORD[result.status]}</td>{numbers}</tr>'


def _linked(text: str, result: CellResult, pages: Pages) -> str:
    page = pages.get((result.repeat, result.cell))
    return f'<a href="{escape(page)}">{text}</a>' if page is not None else text


def _details(result: CellResult, pages: Pages, *, open_: bool = False) -> str:
    cell = result.cell
    title = f"{cell.scenario} on {cell.config}, {cell.policy}, {cell.target} {cell.kernel}"
    again = f", repeat {result.repeat + 1}" if result.repeat else ""
    lines = result.failures + [f"tried again after {a.kind}: {a.cause}" for a in result.spoilt]
    text = f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else ""
    records = [str(run["record"]) for run in result.runs if run["record"]]
    where = f"<pre>lmk report {escape(records[0])}</pre>" if records else ""
    if (result.repeat, cell) in pages:
        where = f"<p>{_linked('Time line, kills and why', result, pages)}</p>{where}"
    return (
        f"<details{' open' if open_ else ''}><summary><span class={result.status!r}>{_WORD[result.status]}</span> "
        f"{escape(title + again)}</summary><div>{text}{where}{_verdicts(result.verdicts)}</div></details>"
    )


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return ""
    heads = "".join(f'<th class="num">{text}</th>' for text in ("baseline", "now", "limit"))
    rows = []
    for verdict in verdicts:
        word, style = ("worse", "failed") if verdict.worse else ("better", "passed") if verdict.better else ("", "")
        numbers = "".join(
            f'<td class="num">{"-" if value is None else format(value, ".1f")}</td>'
            for value in (verdict.baseline, verdict.observed, verdict.limit)
        )
        remark = f'<td class="{style}">{word or escape(verdict.note)}</td>'
        rows.append(f"<tr><td>{verdict.metric}</td>{numbers}{remark}</tr>")
    return _scrolling(f"<tr><th>figure</th>{heads}<th></th></tr>", rows)
