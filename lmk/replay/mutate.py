"""Does the comparison notice? Random single-field changes of what was recorded, each of which must be found."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import attrs

from lmk.replay.run import Outcome, replay
from lmk.replay.vectors import Scenario

#: Fields that may also vanish: then "as before", "none" or "once" is claimed. (An empty process table may not:
#: the first one says nothing new.)
_REMOVABLE = ("poll", "wait", "kill", "fx", "procs", "dbg", "run")
_REMOVAL_SHARE = 0.15
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"

Path = tuple[str | int, ...]


@attrs.frozen
class Mutation:
    """One changed field of ``expect``."""

    scenario: str
    path: Path
    before: object
    after: object
    outcome: Outcome

    @property
    def detected(self) -> bool:
        return self.outcome.difference is not None


def mutations(scenarios: list[Scenario], count: int, seed: int) -> Iterator[Mutation]:
    """``count`` random changes of matching scenarios, each replayed."""
    rng = random.Random(seed)
    for _ in range(count):
        scenario = rng.choice(scenarios)
        expect = copy.deepcopy(scenario.expect)
        path, before, after = change_one_field(expect, rng)
        outcome = replay(attrs.evolve(scenario, expect=expect))
        yield Mutation(scenario.name, path, before, after, outcome)


def change_one_field(expect: dict[str, Any], rng: random.Random) -> tuple[Path, object, object]:
    """Change one field in place; returns where, what it was and what it is."""
    removable = [
        ("trace", number, key) for number, record in enumerate(expect["trace"]) for key in _REMOVABLE if record.get(key)
    ]
    if removable and rng.random() < _REMOVAL_SHARE:
        path = rng.choice(removable)
        return path, expect["trace"][path[1]].pop(path[2]), None
    leaves = list(_leaves(expect, ()))
    chosen = rng.choice(leaves)
    parent: Any = expect
    for part in chosen[:-1]:
        parent = parent[part]
    before = parent[chosen[-1]]
    after = parent[chosen[-1]] = _other(before, rng)
    return chosen, before, after


def _leaves(value: Any, path: Path) -> Iterator[Path]:
    """Every number and text, except those that say nothing: the data of a watchdog record."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    elif value is not None:
        yield path


def _other(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice((-1000, -1, 1, 7, 1 << 20))
    if isinstance(value, float):
        return value + rng.choice((-1.0, 0.25, 3.0))
    text = str(value)
    if not text:
        return "x"
    at = rng.randrange(len(text))
    letter = rng.choice([c for c in _LETTERS if c != text[at]])
    return text[:at] + letter + text[at + 1 :]
