"""The app runner's pure parts against their Python twins: oom_score_adj, packets, page contents."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.config.app_adj import AdjProcess, AdjState
from lmk.config.app_restart import next_restart_ns
from lmk.device.native import native_binary
from lmk.policy.lmkd.control_packets import (
    Command,
    ProcPrio,
    ProcPurge,
    ProcRemove,
    Subscribe,
    Target,
    encode_command,
)

PAGE = 4096
INT32 = st.integers(-(2**31), 2**31 - 1)

Operation = tuple[str, int, str, str, int]


@pytest.fixture(scope="module")
def binary() -> Path:
    return native_binary("lmk-apprunner", os.uname().machine)


def run(binary: Path, *arguments: str, stdin: str = "") -> bytes:
    done = subprocess.run([binary, *arguments], input=stdin.encode(), capture_output=True, timeout=60, check=True)
    return done.stdout


def operations() -> st.SearchStrategy[list[Operation]]:
    ids = st.integers(0, 39)
    return st.lists(
        st.tuples(
            st.sampled_from(["start", "start", "launch", "launch", "leave", "gone"]),
            ids,
            st.sampled_from(["app", "app", "app", "app", "home", "service", "empty", "persistent", "fixed"]),
            st.sampled_from(["cached", "cached", "perceptible", "visible"]),
            st.sampled_from([-1000, -900, -800, 950]),
        ),
        max_size=150,
    )


def python_lines(steps: list[Operation]) -> list[str]:
    state = AdjState()
    lines = []
    for verb, id_, role, rest, adj in steps:
        match verb:
            case "start":
                process = AdjProcess(id=id_, role=role, rest=rest, fixed_adj=adj)  # type: ignore[arg-type]
                state = state.start(process)
            case "launch":
                state = state.launch(id_)
            case "leave":
                state = state.leave(id_)
            case _:
                state = state.gone(id_)
        head = f"{-1 if state.top is None else state.top} {-1 if state.previous is None else state.previous}"
        lines.append(" ".join([head, *(f"{who}:{value}" for who, value in state.assign())]))
    return lines


@given(steps=operations())
@settings(max_examples=150, deadline=None)
def test_oom_score_adj_is_the_same_in_c_and_python(binary: Path, steps: list[Operation]) -> None:
    text = "".join(f"{verb} {id_} {role} {rest} {adj}\n" for verb, id_, role, rest, adj in steps)
    assert run(binary, "--adj-selftest", stdin=text).decode().splitlines() == python_lines(steps)


def test_more_apps_than_slots(binary: Path) -> None:
    steps: list[Operation] = []
    for i in range(38):
        steps += [("start", i, "app", "cached", 0), ("launch", i, "app", "cached", 0)]
    text = "".join(f"{verb} {id_} {role} {rest} {adj}\n" for verb, id_, role, rest, adj in steps)
    lines = run(binary, "--adj-selftest", stdin=text).decode().splitlines()
    assert lines == python_lines(steps)
    values = [int(pair.split(":")[1]) for pair in lines[-1].split()[2:]]
    assert values[:6] == [0, 700, 900, 900, 900, 900]
    assert values == sorted(values)
    assert values[-1] == 980


TIMES = st.integers(0, 3_000_000_000_000)


@given(
    calls=st.lists(st.tuples(TIMES, TIMES, TIMES, st.lists(st.integers(0, 600_000_000_000), max_size=40)), max_size=20)
)
@settings(max_examples=60, deadline=None)
def test_restarts_are_the_same_in_c_and_python(binary: Path, calls: list[tuple[int, int, int, list[int]]]) -> None:
    text = "".join(f"{delay} {ran} {now} {' '.join(map(str, others))}\n" for delay, ran, now, others in calls)
    lines = run(binary, "--restart-selftest", stdin=text).decode().splitlines()
    assert [int(line) for line in lines] == [next_restart_ns(*call) for call in calls]


@given(pid=INT32, uid=INT32, adj=INT32, pairs=st.lists(st.tuples(INT32, INT32), max_size=6))
@settings(max_examples=60, deadline=None)
def test_packets_are_the_same_in_c_and_python(
    binary: Path, pid: int, uid: int, adj: int, pairs: list[tuple[int, int]]
) -> None:
    commands: dict[str, Command] = {
        f"procprio {pid} {uid} {adj}": ProcPrio(pid, uid, adj),
        f"procremove {pid}": ProcRemove(pid),
        "procpurge": ProcPurge(),
        f"subscribe {adj}": Subscribe(adj),
        "target " + " ".join(f"{pages} {value}" for pages, value in pairs): Target(tuple(pairs)),
    }
    lines = run(binary, "--encode-selftest", stdin="\n".join(commands) + "\n").decode().splitlines()
    assert [bytes.fromhex(line) for line in lines] == [encode_command(command) for command in commands.values()]


def pages_of(binary: Path, ratio_permille: int, count: int, seed: int = 5) -> list[bytes]:
    data = run(binary, "--fill", str(ratio_permille), str(count), str(seed))
    return [data[at : at + PAGE] for at in range(0, len(data), PAGE)]


@pytest.mark.parametrize("ratio_permille", [1000, 1100, 1300, 1400, 1800, 2600, 3500, 5000, 8000, 12000, 20000])
def test_pages_compress_as_asked_for(binary: Path, ratio_permille: int) -> None:
    pages = pages_of(binary, ratio_permille, 500)
    assert len(set(pages)) == len(pages) == 500
    compressor = zstandard.ZstdCompressor(level=3)
    # As zram does: what does not shrink below its huge class is kept whole.
    sizes = [len(compressor.compress(page)) for page in pages]
    stored = sum(size if size < 3264 else PAGE for size in sizes)
    assert len(pages) * PAGE / stored == pytest.approx(ratio_permille / 1000, rel=0.1)


def test_no_page_is_same_filled_unless_asked_for(binary: Path) -> None:
    for page in pages_of(binary, 20000, 50):
        assert len({page[at : at + 8] for at in range(0, PAGE, 8)}) > 1
    for page in pages_of(binary, 0, 3):
        assert len({page[at : at + 8] for at in range(0, PAGE, 8)}) == 1


def test_contents_depend_on_the_seed_alone(binary: Path) -> None:
    assert pages_of(binary, 2600, 20, seed=1) == pages_of(binary, 2600, 20, seed=1)
    assert not set(pages_of(binary, 2600, 20, seed=1)) & set(pages_of(binary, 2600, 20, seed=2))
