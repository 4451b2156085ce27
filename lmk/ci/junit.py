"""JUnit XML as GitHub's, GitLab's and Jenkins' readers take it: a suite per repeat, a case per cell.

Failures are the policy's (an expectation, the baseline), errors the machinery's; both carry the kills in question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from lmk.ci.result import CellResult

#: What XML 1.0 cannot hold, whatever a process chose to call itself.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(name: str, results: Sequence[CellResult]) -> str:
    """The whole document; ``name`` is the matrix's."""
    root = ET.Element("testsuites", {"name": f"lmk ci {name}", **_counts(results)})
    for repeat in sorted({result.repeat for result in results}):
        some = [result for result in results if result.repeat == repeat]
        title = name if repeat == 0 else f"{name} (repeat {repeat + 1})"
        suite = ET.SubElement(root, "testsuite", {"name": title, **_counts(some)})
        for result in some:
            _case(suite, result)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _counts(results: Sequence[CellResult]) -> dict[str, str]:
    states = [result.status for result in results]
    return {
        "tests": str(len(states)),
        "failures": str(states.count("failed")),
        "errors": str(states.count("infra") + states.count("timeout")),
        "skipped": "0",
        "time": f"{sum(result.seconds for result in results):.3f}",
    }


def _case(suite: ET.Element, result: CellResult) -> None:
    cell = result.cell
    case = ET.SubElement(
        suite,
        "testcase",
        classname=f"{cell.config}.{cell.scenario}",
        name=f"{cell.policy} on {cell.target}, kernel {cell.kernel}",
        time=f"{result.seconds:.3f}",
    )
    properties = ET.SubElement(case, "properties")
    for key, value in _facts(result).items():
        ET.SubElement(properties, "property", name=key, value=_legal(value))
    if result.status == "failed":
        failures = result.failures
        first = failures[0].splitlines()[0]
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        failure = ET.SubElement(case, "failure", type="expectation", message=_legal(first + more))
        failure.text = _legal("\n".join(failures))
    elif result.status != "passed":
        error = ET.SubElement(case, "error", type=result.status, message=_legal(result.cause))
        error.text = _legal("\n".join(f"{attempt.kind}: {attempt.cause}" for attempt in result.spoilt))
    if result.spoilt and result.status in ("passed", "failed"):
        lines = [f"tried again after {attempt.kind}: {attempt.cause}" for attempt in result.spoilt]
        ET.SubElement(case, "system-out").text = _legal("\n".join(lines))


def _facts(result: CellResult) -> dict[str, str]:
    facts = {"status": result.status, "retries": str(len(result.spoilt))}
    if result.runs:
        run = result.runs[0]
        summary = run["summary"]
        facts["record"] = str(run["record"])
        facts["calibration"] = run["calibration"]["class"] if run.get("calibration") else "real"
        facts |= {key: str(summary[key]) for key in ("kills", "cold_starts", "foreground_kills", "psi_full_ms")}
    return facts


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
