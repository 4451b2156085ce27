"""Numbers in the simulator: a rate is a key of the calibration, everything else says where it comes from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULES = sorted((Path(__file__).resolve().parents[2] / "lmk" / "sim").glob("*.py"))
#: Nothing that could be fitted: signs, counts of two, halves, per cent, per mille, units and page sizes.
PLAIN = {-1, 0, 1, 2, 4, 10, 100, 1000, 1024, 4096, 10_000, 60}


def numbers(node: ast.AST) -> Iterator[ast.Constant]:
    """All of them but plain ones, indices and what is in messages."""
    skipped = set[int]()
    for part in ast.walk(node):
        if isinstance(part, ast.Subscript | ast.JoinedStr):
            skipped |= {id(inner) for inner in ast.walk(part.slice if isinstance(part, ast.Subscript) else part)}
    for part in ast.walk(node):
        if not isinstance(part, ast.Constant) or isinstance(part.value, bool) or id(part) in skipped:
            continue
        if (isinstance(part.value, float) and part.value) or (isinstance(part.value, int) and part.value not in PLAIN):
            yield part


def has_reason(lines: list[str], line: int) -> bool:
    """A comment on the line, or one that ends right above the block of lines it belongs to."""
    if "#" in lines[line - 1]:
        return True
    above = line - 2
    while above >= 0 and lines[above].strip() and not lines[above].lstrip().startswith("#"):
        above -= 1
    return above >= 0 and lines[above].lstrip().startswith("#")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_constants_say_where_they_come_from(path: Path) -> None:
    tree = ast.parse(path.read_text())
    lines = path.read_text().splitlines()
    sourced = "Source:" in (ast.get_docstring(tree) or "")
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and any(numbers(node.value)):
            assert sourced or has_reason(lines, node.lineno), f"{path.name}:{node.lineno}: {lines[node.lineno - 1]}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_functions_hold_no_numbers_of_their_own(path: Path) -> None:
    tree = ast.parse(path.read_text())
    lines = path.read_text().splitlines()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for number in numbers(function):
                where = f"{path.name}:{number.lineno}: {lines[number.lineno - 1].strip()}"
                assert has_reason(lines, number.lineno), where
                assert not isinstance(number.value, float), f"{path.name}:{number.lineno}: a float decides something"
