"""Meta's oomd, for comparison: rulesets of detectors and actions from its own JSON, on cgroups.

From its documentation (github.com/facebookincubator/oomd, docs/configuration.md and core_plugins.md). Of its plugins
these are here: detectors pressure_above, pressure_rising_beyond (of memory), memory_above, memory_reclaim, swap_free
and exists; actions kill_by_memory_size_or_growth, kill_by_swap_usage, kill_by_pressure, kill_by_pg_scan and continue.
A ruleset acts once all detectors of one of its groups fire, and then rests for its delay.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from lmk.errors import ConfigError
from lmk.policy.api import SIGKILL, ListGroups, ProcessRow, ReadFile, Request, StartReaper, Wait
from lmk.policy.oomd_cgroup import Cgroup, pressure_of, read_cgroups
from lmk.policy.stepwise import Clock, Stepper, Steps, decided, kill_process, read_meminfo
from lmk.units import NS_PER_MS, NS_PER_S

#: --interval, and post_action_delay where a ruleset names none.
INTERVAL_S: Final = 5
#: oomd's JSON may have comments: a string, which is kept, or a comment, which is not.
_COMMENT: Final = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_POST_ACTION_DELAY_S: Final = 15
#: What runs without a file: oomd's example for desktops, on Android's groups.
DEFAULT_CONFIG: Final = """{"rulesets": [
  {"name": "memory pressure of apps",
   "detectors": [["apps under pressure",
     {"name": "pressure_above", "args": {"cgroup": "apps", "resource": "memory", "threshold": "60", "duration": "30"}},
     {"name": "memory_reclaim", "args": {"cgroup": "apps", "duration": "10"}}]],
   "actions": [{"name": "kill_by_memory_size_or_growth", "args": {"cgroup": "apps/*"}}]},
  {"name": "low swap",
   "detectors": [["swap nearly gone", {"name": "swap_free", "args": {"threshold_pct": "5"}}]],
   "actions": [{"name": "kill_by_swap_usage", "args": {"cgroup": "apps/*", "threshold": "5%"}}]}]}"""


@attrs.frozen
class Plugin:
    """A detector or an action: its name and its arguments, all text."""

    name: str
    args: Mapping[str, str]


@attrs.frozen
class Ruleset:
    """Detector groups (any of them) and actions (in order, until one succeeds)."""

    name: str
    groups: tuple[tuple[str, tuple[Plugin, ...]], ...]
    actions: tuple[Plugin, ...]
    delay_ns: int


@attrs.frozen
class Sample:
    """What one interval looks at."""

    now_ns: int
    memory_total_kib: int
    swap_total_kib: int
    swap_free_kib: int
    cgroups: Mapping[str, Cgroup]
    before: Mapping[str, Cgroup]

    def matching(self, patterns: str) -> list[Cgroup]:
        """Cgroups that a comma-separated list of patterns means; "/" is the root."""
        wanted = ["" if pattern == "/" else "/" + pattern.strip("/") for pattern in patterns.split(",")]
        return [
            group
            for path, group in self.cgroups.items()
            if any(path.count("/") == want.count("/") and fnmatch.fnmatchcase(path, want) for want in wanted)
        ]


def parse_config(text: str, file: str = "oomd.json") -> tuple[Ruleset, ...]:
    """Rulesets from oomd's JSON. Raises ConfigError naming what is wrong."""
    try:
        body = json.loads(_COMMENT.sub(lambda found: found[1] or "", text))
    except json.JSONDecodeError as error:
        raise ConfigError(file, error.lineno, "", f"is not JSON: {error.msg}") from None
    if not isinstance(body, dict) or not isinstance(body.get("rulesets"), list):
        raise ConfigError(file, None, "rulesets", "is missing or no list", "see oomd's docs/configuration.md")
    return tuple(_ruleset(entry, file) for entry in body["rulesets"])


def _ruleset(entry: Mapping[str, Any], file: str) -> Ruleset:
    name = str(entry.get("name", "unnamed"))
    groups = tuple(
        (str(group[0]), tuple(_plugin(item, _DETECTORS, file) for item in group[1:]))
        for group in entry.get("detectors", ())
    )
    actions = tuple(_plugin(item, _ACTIONS, file) for item in entry.get("actions", ()))
    if not groups or not actions:
        raise ConfigError(file, None, f"rulesets {name!r}", "needs detectors and actions")
    delay_s = int(str(entry.get("post_action_delay", _POST_ACTION_DELAY_S)))
    return Ruleset(name, groups, actions, delay_s * NS_PER_S)


def _plugin(item: Mapping[str, Any], known: Mapping[str, object], file: str) -> Plugin:
    name = str(item.get("name"))
    if name not in known:
        raise ConfigError(file, None, f"plugin {name!r}", "is not implemented", f"known: {', '.join(known)}")
    args = {key: str(value) for key, value in item.get("args", {}).items()}
    if args.get("resource", "memory") != "memory":
        raise ConfigError(file, None, f"plugin {name!r}", f"resource {args['resource']!r} is not implemented", "memory")
    return Plugin(name, args)


# ---- detectors: whether the condition holds now; ``_lasting`` adds their duration


def _pressure(plugin: Plugin, sample: Sample) -> float:
    return max((pressure_of(group, 0) for group in sample.matching(plugin.args["cgroup"])), default=0.0)


def _pressure_above(plugin: Plugin, sample: Sample) -> bool:
    return _pressure(plugin, sample) > float(plugin.args["threshold"])


def _pressure_rising(plugin: Plugin, sample: Sample) -> bool:
    groups = sample.matching(plugin.args["cgroup"])
    falls = float(plugin.args.get("fast_fall_ratio", "0.85"))
    return any(
        pressure_of(group, 0) > float(plugin.args["threshold"])
        and pressure_of(group, 0) >= pressure_of(group, 1) * falls
        for group in groups
    )


def _memory_above(plugin: Plugin, sample: Sample) -> bool:
    anon = "threshold_anon" in plugin.args
    limit = _amount(plugin.args["threshold_anon" if anon else "threshold"], sample.memory_total_kib * 1024)
    groups = sample.matching(plugin.args["cgroup"])
    return max(((group.anon_bytes if anon else group.current_bytes) for group in groups), default=0) > limit


def _memory_reclaim(plugin: Plugin, sample: Sample) -> bool:
    return any(
        group.pgscan > sample.before[group.path].pgscan
        for group in sample.matching(plugin.args["cgroup"])
        if group.path in sample.before
    )


def _swap_free(plugin: Plugin, sample: Sample) -> bool:
    return sample.swap_free_kib * 100 < sample.swap_total_kib * int(plugin.args["threshold_pct"])


def _exists(plugin: Plugin, sample: Sample) -> bool:
    return bool(sample.matching(plugin.args["cgroup"])) != (plugin.args.get("negate", "false") == "true")


_DETECTORS: Final[Mapping[str, Callable[[Plugin, Sample], bool]]] = {
    "pressure_above": _pressure_above,
    "pressure_rising_beyond": _pressure_rising,
    "memory_above": _memory_above,
    "memory_reclaim": _memory_reclaim,
    "swap_free": _swap_free,
    "exists": _exists,
    # It only writes to the log.
    "dump_cgroup_overview": lambda _plugin, _sample: True,
}
#: Fires for this long after it last saw something, instead of once it has lasted so long.
_ECHOING: Final = ("memory_reclaim",)


# ---- actions: candidates, best first


def _by_size_or_growth(plugin: Plugin, sample: Sample) -> list[tuple[Any, Cgroup]]:
    """Those that are a large share of all first; then those that grew most; then by size."""
    groups = sample.matching(plugin.args["cgroup"])
    whole = sum(group.current_bytes for group in groups) or 1
    share = int(plugin.args.get("size_threshold", "50"))
    large = [group for group in groups if group.current_bytes * 100 >= whole * share]
    if large:
        return _ranked((group.current_bytes, group) for group in large)
    ratio = float(plugin.args.get("min_growth_ratio", "1.25"))
    # Of the largest fifth alone.
    largest = sorted(groups, key=lambda group: -group.current_bytes)
    share = 100 - int(plugin.args.get("growing_size_percentile", "80"))
    largest = largest[: -(-len(largest) * share // 100)]
    grown = [group for group in largest if group.average_bytes and group.growth >= ratio]
    if grown:
        return _ranked((group.growth, group) for group in grown)
    return _ranked((group.current_bytes, group) for group in groups)


def _by_swap(plugin: Plugin, sample: Sample) -> list[tuple[Any, Cgroup]]:
    least = _amount(plugin.args.get("threshold", "1"), sample.swap_total_kib * 1024)
    groups = sample.matching(plugin.args["cgroup"])
    return _ranked((group.swap_bytes, group) for group in groups if group.swap_bytes >= least)


def _by_pressure(plugin: Plugin, sample: Sample) -> list[tuple[Any, Cgroup]]:
    return _ranked((pressure_of(group, 0), group) for group in sample.matching(plugin.args["cgroup"]))


def _by_pg_scan(plugin: Plugin, sample: Sample) -> list[tuple[Any, Cgroup]]:
    rates = (
        (group.pgscan - sample.before[group.path].pgscan, group)
        for group in sample.matching(plugin.args["cgroup"])
        if group.path in sample.before
    )
    return _ranked(rate for rate in rates if rate[0] > 0)


_ACTIONS: Final[Mapping[str, Callable[[Plugin, Sample], list[tuple[Any, Cgroup]]] | None]] = {
    "kill_by_memory_size_or_growth": _by_size_or_growth,
    "kill_by_swap_usage": _by_swap,
    "kill_by_pressure": _by_pressure,
    "kill_by_pg_scan": _by_pg_scan,
    "continue": None,
}


def _ranked(rated: Any) -> list[tuple[Any, Cgroup]]:
    return sorted(rated, key=lambda pair: (-pair[0], pair[1].path))


def _amount(text: str, whole: int) -> int:
    """``20%`` of the whole, or a number of megabytes, or with a suffix K, M, G."""
    text = text.strip()
    if text.endswith("%"):
        return whole * int(text[:-1]) // 100
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper())
    return int(text[:-1]) * scale if scale else int(text) * (1 << 20)


class OomdPolicy:
    """See ``lmk.policy.api.Policy``. ``config``: text of oomd's JSON file."""

    name = "oomd"

    def __init__(self, config: str = DEFAULT_CONFIG, interval_s: int = INTERVAL_S) -> None:
        self._rulesets = parse_config(config)
        self._interval_ns = interval_s * NS_PER_S
        self._clock = Clock()
        self._stepper = Stepper(self._clock, self._run())
        self._since: dict[tuple[str, str, int], int] = {}
        self._resting: dict[str, int] = {}

    def start(self, now_ns: int) -> Request:
        """See ``Policy``."""
        return self._stepper.start(now_ns)

    def step(self, answer: object, now_ns: int) -> Request:
        """See ``Policy``."""
        return self._stepper.step(answer, now_ns)

    def processes(self) -> Sequence[ProcessRow]:
        """It keeps no table of processes."""
        return ()

    def _run(self) -> Steps:
        yield StartReaper(4, "fifo")
        before: Mapping[str, Cgroup] = {}
        meminfo = yield from read_meminfo()
        memory_total_kib = 0 if meminfo is None else meminfo.get("MemTotal") or 0
        while True:
            swap_total_kib, swap_free_kib = yield from _swaps()
            cgroups = yield from read_cgroups(before)
            sample = Sample(self._clock.now_ns, memory_total_kib, swap_total_kib, swap_free_kib, cgroups, before)
            before = cgroups
            for ruleset in self._rulesets:
                fired = self._fired(ruleset, sample)
                if fired and self._clock.now_ns >= self._resting.get(ruleset.name, 0):
                    yield from self._act(ruleset, fired, sample)
            # It sleeps for the interval after its work, however long that took.
            due_ns = self._clock.now_ns + self._interval_ns
            while self._clock.now_ns < due_ns:
                yield Wait(max(1, -(-(due_ns - self._clock.now_ns) // NS_PER_MS)))

    def _fired(self, ruleset: Ruleset, sample: Sample) -> str | None:
        """The name of the first group of which every detector fires; all are looked at, for their durations."""
        found = None
        for group, plugins in ruleset.groups:
            states = [self._lasting(ruleset.name, group, index, plugin, sample) for index, plugin in enumerate(plugins)]
            if all(states) and found is None:
                found = group
        return found

    def _lasting(self, ruleset: str, group: str, index: int, plugin: Plugin, sample: Sample) -> bool:
        key = f"{ruleset}\0{group}", plugin.name, index
        holds = _DETECTORS[plugin.name](plugin, sample)
        duration_ns = int(plugin.args.get("duration", "0")) * NS_PER_S
        if plugin.name in _ECHOING:
            if holds:
                self._since[key] = sample.now_ns
            return key in self._since and sample.now_ns - self._since[key] <= duration_ns
        if not holds:
            self._since.pop(key, None)
            return False
        return sample.now_ns - self._since.setdefault(key, sample.now_ns) >= duration_ns

    def _act(self, ruleset: Ruleset, fired: str, sample: Sample) -> Steps:
        for action in ruleset.actions:
            rank = _ACTIONS[action.name]
            for rate, group in rank(action, sample) if rank is not None else ():
                killed = yield from _kill_group(group.path)
                text = f"{ruleset.name}: {fired}; {action.name} chose {group.path}"
                yield decided(self.name, text, {"rate": rate, "current_bytes": group.current_bytes}, killed)
                if killed:
                    self._resting[ruleset.name] = self._clock.now_ns + ruleset.delay_ns
                    return


def _swaps() -> Steps:
    """(all swap, free swap) in KiB, from /proc/swaps; the kernel's text has a heading."""
    text = yield ReadFile("/proc/swaps")
    rows = [line.split() for line in text.splitlines()[1:]] if isinstance(text, str) else []
    total = sum(int(row[2]) for row in rows)
    return total, total - sum(int(row[3]) for row in rows)


def _kill_group(path: str) -> Steps:
    """Every process of a cgroup and of those below it; the pids that got the signal."""
    killed: list[int] = []
    procs = yield ReadFile(f"/sys/fs/cgroup{path}/cgroup.procs", keep=False)
    for word in procs.split() if isinstance(procs, str) else ():
        if not (yield from kill_process(int(word), SIGKILL, queue=True)):
            killed.append(int(word))  # noqa: PERF401 - a yield cannot be in a comprehension
    children = yield ListGroups(path)
    for child in children if isinstance(children, tuple) else ():
        killed += yield from _kill_group(child)
    return tuple(killed)
