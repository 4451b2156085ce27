"""Replay scenarios through the policy and compare: one, or many on several processes."""

from __future__ import annotations

import traceback
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import attrs

from lmk.policy.api import Policy
from lmk.policy.lmkd.policy import LmkdPolicy
from lmk.policy.lmkd.versions import behaviour
from lmk.replay.compare import Comparer, Difference, Differs
from lmk.replay.target import VectorTarget
from lmk.replay.vectors import Scenario, count_scenarios, read_scenarios

#: One scenario in this many reads every file as text, beside those with odd or raw files.
TEXT_SAMPLE = 8
CHUNK = 25

MakePolicy = Callable[[str], Policy]


@attrs.frozen(kw_only=True)
class Outcome:
    """What replaying one scenario gave. ``difference`` None: everything matched."""

    name: str
    kind: str
    variant: str
    where: str
    kills: int
    matched_kills: int
    wakeups: int
    difference: Difference | None

    @property
    def matched(self) -> bool:
        return self.difference is None


def lmkd_policy(variant: str) -> LmkdPolicy:
    """The policy with the behaviour of a recorded lmkd."""
    return LmkdPolicy(behaviour(variant))


def replay(scenario: Scenario, make_policy: MakePolicy = lmkd_policy, from_text: bool | None = None) -> Outcome:
    """One scenario. An exception in the policy is a difference, not an error of the replay."""
    if from_text is None:
        from_text = reads_text(scenario)
    comparer = Comparer(scenario.expect, scenario.kind)
    difference: Difference | None = None
    target = VectorTarget(scenario.script, comparer, from_text=from_text)
    try:
        policy = make_policy(scenario.variant)
        if isinstance(policy, LmkdPolicy):
            comparer.table = policy
        target.run(policy)
    except Differs as differs:
        difference = differs.difference
    except Exception:
        difference = Difference(
            what="the policy raised",
            t_us=target.now_ns() // 1000,
            recorded=None,
            ours=None,
            failure=traceback.format_exc(limit=-6),
        )
    return Outcome(
        name=scenario.name,
        kind=scenario.kind,
        variant=scenario.variant,
        where=f"{scenario.source}:{scenario.line}",
        kills=scenario.kills,
        matched_kills=comparer.matched_kills,
        wakeups=comparer.wakeups,
        difference=difference,
    )


def reads_text(scenario: Scenario) -> bool:
    """Scenarios with odd files, raw ones and a sample of the rest are read as text."""
    script = scenario.script
    return "raw" in script or scenario.kind == "parse" or zlib.crc32(scenario.name.encode()) % TEXT_SAMPLE == 0


@attrs.frozen(kw_only=True)
class Chunk:
    """Some scenarios of one file, by their place in it (before the kind is looked at)."""

    path: Path
    first: int
    count: int
    kind: str | None = None
    every: int = 1


def replay_chunk(chunk: Chunk) -> list[Outcome]:
    """What a worker process does."""
    return [replay(scenario) for scenario in chunk_scenarios(chunk)]


def chunk_scenarios(chunk: Chunk) -> Iterator[Scenario]:
    """The scenarios of a chunk: every ``every``-th, only of ``kind``."""
    for scenario in read_scenarios(chunk.path, chunk.first, chunk.count, chunk.every):
        if chunk.kind is None or scenario.kind == chunk.kind:
            yield scenario


def plan(files: list[Path], kind: str | None = None, sample: int | None = None) -> list[Chunk]:
    """Chunks that cover the files, or about ``sample`` scenarios spread evenly over them."""
    counts = {path: count_scenarios(path) for path in files}
    total = sum(counts.values())
    every = max(1, total // sample) if sample else 1
    return [
        Chunk(path=path, first=first, count=CHUNK, kind=kind, every=every)
        for path, count in counts.items()
        for first in range(0, count, CHUNK)
    ]


def replay_all(chunks: list[Chunk], jobs: int) -> Iterator[Outcome]:
    """Outcomes in the order of the chunks."""
    if jobs <= 1:
        for chunk in chunks:
            yield from replay_chunk(chunk)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            for outcomes in pool.map(replay_chunk, chunks):
                yield from outcomes
        finally:
            pool.shutdown(cancel_futures=True)
