"""The rules of the house that a machine can check: who may import whom, what pure code may not call, sizes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "lmk").rglob("*.py"))

#: Package -> packages (or modules) of ours it may import. What is not listed here may import anything inward.
ALLOWED = {
    "units": set[str](),
    "errors": set[str](),
    "progress": set[str](),
    "statistics": set[str](),
    "procfs": {"procfs", "units", "errors"},
    "policy": {"policy", "procfs", "units", "errors"},
    "record": {"record", "policy", "procfs", "units", "errors"},
    "logs": {"logs", "record", "policy", "procfs", "units", "errors", "progress"},
    "engine": {"engine", "policy", "procfs", "record", "units", "errors"},
    "config": {"config", "policy", "procfs", "units", "errors", "resources"},
    "report": {"report", "statistics", "record", "policy", "procfs", "units", "errors", "resources"},
    "tune": {"tune", "sim", "config", "report", "policy", "units", "errors", "resources"},
    "replay": {"replay", "engine", "policy", "procfs", "record", "units", "errors"},
    "subproc": {"errors"},
    "device": {"device", "subproc", "policy", "config", "units", "errors", "progress", "resources"},
    "apt": {"subproc", "errors", "progress", "resources"},
    "kernel": {"kernel", "guest", "apt", "subproc", "units", "errors", "progress", "resources"},
    "guest": {"guest", "kernel", "apt", "device", "config", "subproc", "units", "errors", "progress", "resources"},
}
PURE = ("procfs", "policy", "statistics")
IMPURE_MODULES = {"os", "io", "time", "random", "socket", "subprocess", "threading", "pathlib", "shutil", "asyncio"}
IMPURE_CALLS = {"open", "input", "print"}
#: The only modules that may import these.
SOLE_IMPORTERS = {
    "adbutils": {"lmk.device.adb"},
    "yaml": {"lmk.config.load"},
    "subprocess": {"lmk.subproc"},
    "optuna": {"lmk.tune.sampler"},
    "matplotlib": {"lmk.tune.plots"},
    "distributed": {"lmk.tune.cluster"},
}
MODULE_LINES_MAX = 500
#: Longer on purpose: nothing but one table of values each, which splitting would only scatter.
LONG_MODULES = {"lmk.policy.api": 620, "lmk.device.helper_wire": 700}
FUNCTION_LINES_MAX = 70


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def area(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_inward(path: Path) -> None:
    allowed = ALLOWED.get(area(module_name(path)))
    if allowed is None:
        return
    for imported in imports(path):
        if imported.startswith("lmk."):
            assert area(imported) in allowed, f"{module_name(path)} must not import {imported}"


@pytest.mark.parametrize("path", [p for p in SOURCES if area(module_name(p)) in PURE], ids=module_name)
def test_policy_and_parsers_are_pure(path: Path) -> None:
    for imported in imports(path):
        assert imported.split(".")[0] not in IMPURE_MODULES, f"{module_name(path)} imports {imported}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS, f"{path}:{node.lineno} calls {node.func.id}"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_outside_things_have_one_importer(path: Path) -> None:
    for imported in imports(path):
        importers = SOLE_IMPORTERS.get(imported.split(".")[0])
        if importers is not None:
            assert module_name(path) in importers, f"{module_name(path)} imports {imported}; only {importers} may"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= LONG_MODULES.get(module_name(path), MODULE_LINES_MAX), "split this module"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno
            assert lines <= FUNCTION_LINES_MAX, f"{path}:{node.lineno} {node.name} has {lines} lines"


def test_only_cli_prints() -> None:
    for path in SOURCES:
        if area(module_name(path)) == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path}:{node.lineno} prints"
