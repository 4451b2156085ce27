"""The strict YAML reader: every mistake of a file in one pass, with line and field."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.config import convert
from lmk.config.load import open_document
from lmk.errors import ConfigErrors
from tests.config.helpers import errors_of, write


def read(path: Path) -> dict[str, object]:
    """A reader with one key of each kind."""
    document = open_document(path)
    with document.root.section() as top:
        found: dict[str, object] = {
            "name": top.need("name", convert.string, ""),
            "count": top.take("count", convert.integer(minimum=1, maximum=9), 1),
            "ratio": top.take("ratio", convert.number(minimum=0, maximum=1), 0.5),
            "on": top.take("on", convert.boolean, False),
            "mode": top.take("mode", convert.one_of("fast", "slow"), "fast"),
            "wait": top.take("wait", convert.duration_ms, 0),
            "growth": top.take("growth", convert.rate, None),
            "list": top.take("list", convert.list_of(convert.string), list[str]()),
            "map": top.take("map", convert.mapping_of(convert.integer()), dict[str, int]()),
        }
        with top.subsection("inner") as inner:
            found["size"] = inner.take("size", convert.size, 0)
            found["text"] = inner.take("text", convert.scalar_text, "")
    document.problems.raise_if_any()
    return found


def test_reads_values_and_defaults(tmp_path: Path) -> None:
    found = read(write(tmp_path, "name: x\non: yes\ninner: {size: 2KiB, text: 0x10}\nlist: [a, b]\n"))
    assert found["on"] is True
    assert found["size"] == 2048
    assert found["text"] == "0x10"
    assert found["list"] == ["a", "b"]
    assert (found["count"], found["ratio"], found["mode"]) == (1, 0.5, "fast")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("count: 2", ["c.yaml:1: name: is missing; add `name:`"]),
        ("nmae: x", ["c.yaml:1: nmae: unknown key; did you mean name?"]),
        ("name: x\nzzz: 1", ["c.yaml:2: zzz: unknown key; "
         "known: name, count, ratio, on, mode, wait, growth, list, map, inner"]),
        ("name: x\nname: y", ["c.yaml:2: name: given twice, first on line 1; remove one of the two"]),
        ("name: 12", ['c.yaml:1: name: found the number 12, expected text; write "12"']),
        ("name:", ["c.yaml:1: name: found no value, expected text"]),
        ("name: ''", ["c.yaml:1: name: found an empty text"]),
        ("name: x\ncount: 1.5", ["c.yaml:2: count: found the number 1.5, expected a whole number from 1 to 9"]),
        ("name: x\ncount: 10", ["c.yaml:2: count: found 10, expected a number from 1 to 9"]),
        ("name: x\ncount: 010", ["c.yaml:2: count: found 010, expected a plain decimal number"]),
        ("name: x\ncount: 1:30", ["c.yaml:2: count: found 1:30, expected a plain decimal number"]),
        ("name: x\nratio: .nan", ["c.yaml:2: ratio: found the number .nan, expected a finite number"]),
        ("name: x\nratio: 2", ["c.yaml:2: ratio: found 2, expected a number from 0 to 1"]),
        ("name: x\non: 1", ["c.yaml:2: on: found the number 1, expected true or false"]),
        ("name: x\nmode: fats", ["c.yaml:2: mode: found 'fats'; did you mean fast?"]),
        ("name: x\nmode: true", ["c.yaml:2: mode: found the truth value true; allowed: fast, slow"]),
        ("name: x\nwait: 5", ["c.yaml:2: wait: found the number 5 without a unit, "
         "expected a time such as 700ms or 5s"]),
        ("name: x\ngrowth: [1]", ["c.yaml:2: growth: found a list, "
         "expected a size per time such as 250MB/s or 2MiB/min"]),
        ("name: x\nlist: a", ["c.yaml:2: list: found 'a', expected a list"]),
        ("name: x\nlist: [a, 2, {b: c}]", ['c.yaml:2: list[1]: found the number 2, expected text; write "2"',
                                           "c.yaml:2: list[2]: found a mapping, expected text"]),
        ("name: x\nmap: {a: 1, b: x}", ["c.yaml:2: map.b: found 'x', expected a whole number"]),
        ("name: x\ninner: 3", ["c.yaml:2: inner: found the number 3, expected keys with values"]),
        ("name: x\ninner:\n  size: 2GB\n  sise: 1", ["c.yaml:4: inner.sise: unknown key; known: size, text"]),
        ("name: x\ninner: {text: {}}", ["c.yaml:2: inner.text: found a mapping, expected one value"]),
        ("name: x\n? [a]\n: b", ["c.yaml:2: found a mapping or list as a key, expected a name"]),
        ("name: !!python/object:os.system x", ["c.yaml:1: name: "
         "found the tag tag:yaml.org,2002:python/object:os.system, expected text"]),
        ("name: x\n<<: {count: 2}", ["c.yaml:2: <<: unknown key; "
         "known: name, count, ratio, on, mode, wait, growth, list, map, inner"]),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(tmp_path: Path, text: str, lines: list[str]) -> None:
    assert errors_of(read, write(tmp_path, text)) == lines


def test_all_mistakes_in_line_order(tmp_path: Path) -> None:
    path = write(tmp_path, "cuont: 3\nratio: 7\nmode: fst\n")
    assert errors_of(read, path) == [
        "c.yaml:1: cuont: unknown key; did you mean count?",
        "c.yaml:1: name: is missing; add `name:`",
        "c.yaml:2: ratio: found 7, expected a number from 0 to 1",
        "c.yaml:3: mode: found 'fst'; did you mean fast?",
    ]
    with pytest.raises(ConfigErrors, match=r"did you mean count\? \(3 more errors: lmk config check "):
        read(path)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "c.yaml: is empty; see a shipped one: lmk config list"),
        (b"- a\n", "c.yaml:1: found no keys at the top level, expected `name:` and others"),
        (b"name: x\n\tcount: 1\n", "c.yaml:2: not valid YAML: found character '\\t' that cannot start any token"),
        (b"name: [a\n", "c.yaml:2: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        (b"name: x\n---\nname: y\n", "c.yaml:2: not valid YAML: but found another document"),
        (b"name: *nobody\n", "c.yaml:1: not valid YAML: found undefined alias 'nobody'"),
        (b"ok: 1\nname: \xff\n", "c.yaml:2: is not UTF-8 text (byte 0xff)"),
        (b"name: a\x01\n", "c.yaml: not valid YAML: character 1 at offset 7"),
        (b"a: " + b"[" * 5000, "c.yaml: not usable: nested too deeply"),
    ],
)
def test_unreadable_content(tmp_path: Path, content: bytes, line: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    assert errors_of(read, path) == [line]


def test_unreadable_files(tmp_path: Path) -> None:
    assert errors_of(read, tmp_path / "none.yaml") == ["none.yaml: cannot be read: No such file or directory"]
    (tmp_path / "folder").mkdir()
    assert errors_of(read, tmp_path / "folder") == ["folder: cannot be read: Is a directory"]
    big = write(tmp_path, "#" * (5 * 1024 * 1024), "big.yaml")
    assert errors_of(read, big) == ["big.yaml: is larger than 4 MiB; not a config?"]


@given(st.binary(max_size=200))
def test_no_bytes_get_past_config_errors(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content)
    try:
        read(path)
    except ConfigErrors as caught:
        assert all("\n" not in str(error) for error in caught.errors)


FRAGMENTS = st.sampled_from(
    ["name: x", "name: [", "inner:", "  size: 1GiB", "  size: &a 1", "list: *a", "- b", "map: {a: 1}", "? x", ": y"]
)


@given(st.lists(FRAGMENTS, max_size=8))
def test_yaml_like_text_gets_no_further(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz2.yaml"
    path.write_text("\n".join(lines))
    try:
        read(path)
    except ConfigErrors as caught:
        assert all("\n" not in str(error) for error in caught.errors)
