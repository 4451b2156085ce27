"""A scenario on one device with one seed, as explicit steps: the same list drives the guest and the simulator.

Pure and deterministic: chance comes from ``random.Random(seed)`` through ``random()`` alone, whose sequence Python
guarantees across versions, and every weight is an exact or correctly rounded number.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final, Literal, Protocol

import attrs

from lmk.config import app_adj
from lmk.config.android import BUILD_VERSIONS
from lmk.config.app_adj import Rest, Role
from lmk.config.scenario import STEPS_MAX
from lmk.config.scenario_types import (
    Amount,
    AmountRate,
    App,
    Exit,
    Generator,
    Grow,
    Launch,
    Leak,
    Leave,
    Repeat,
    Scenario,
    Step,
    Touch,
    Wait,
)
from lmk.errors import ConfigError

Action = Literal["launch", "background", "grow", "leak", "touch", "exit"]

#: Android gives apps uids from 10000; u0_a100 is the first of these.
FIRST_APP_UID: Final = 10100
SYSTEM_UID: Final = 1000
#: Base load that is not system_server, in the range Android reserves for services of the system.
FIRST_SERVICE_UID: Final = 1100
_SYSTEM_TOUCH_MS: Final = 2000
#: About what a person's hand, or a loaded host, makes of a moment.
JITTER_MS: Final = 200
#: CachedAppOptimizer.DEFAULT_FREEZER_DEBOUNCE_TIMEOUT by release; freezing is off before Android 12.
_FREEZE_AFTER_MS: Final = {12: 600_000, 13: 600_000}
_FREEZE_AFTER_MS_SINCE_14: Final = 10_000
#: CachedAppOptimizer.DEFAULT_USE_COMPACTION is true since Android 14.
_COMPACTION_SINCE: Final = 14


class SystemProcessLike(Protocol):
    """A process of a device's base load (lmk.config.device.SystemProcess)."""

    @property
    def name(self) -> str: ...
    @property
    def adj(self) -> int: ...
    @property
    def anon_bytes(self) -> int: ...
    @property
    def file_bytes(self) -> int: ...
    @property
    def hot(self) -> float: ...
    @property
    def compressibility(self) -> float: ...


class DeviceLike(Protocol):
    """What a timeline needs to know of a device (lmk.config.device.DeviceConfig)."""

    @property
    def memory_bytes(self) -> int: ...
    @property
    def android(self) -> str: ...
    @property
    def system(self) -> Sequence[SystemProcessLike]: ...
    @property
    def unreclaimable_bytes(self) -> int: ...


@attrs.frozen(kw_only=True)
class PlannedProcess:
    """A process that may run. ``id`` is its place in Timeline.processes."""

    id: int
    #: As the scenario or the device config calls it.
    name: str
    process_name: str
    role: Role
    rest: Rest = "cached"
    uid: int
    #: Of role fixed; ActivityManager's rules decide for the others.
    adj: int = 0
    anon_kib: int
    file_kib: int
    #: Beside anon_kib; cannot be reclaimed.
    pinned_kib: int = 0
    #: Uncompressed over compressed size in thousandths; 0: same-filled pages.
    ratio_permille: int
    hot_permille: int
    cold_start_ms: int = 0
    growth_kib_per_min: int = 0
    touch_every_ms: int = 1000
    #: Of one CPU, used while active.
    cpu_permille: int = 0
    #: Runs before the first step.
    autostart: bool = False
    restart: bool = False
    #: Its memory cannot be reclaimed.
    locked: bool = False


@attrs.frozen(kw_only=True)
class TimelineStep:
    """One thing that happens ``t_ms`` after the start. Numbers a step has no use for are 0."""

    t_ms: int
    action: Action
    process: int
    #: grow: how much; leak: the limit (0: none).
    kib: int = 0
    over_ms: int = 0
    kib_per_s: int = 0
    anon_permille: int = 0
    file_permille: int = 0
    times: int = 1


@attrs.frozen(kw_only=True)
class Timeline:
    """Everything that happens in a run, in order of time."""

    scenario: str
    seed: int
    processes: tuple[PlannedProcess, ...]
    steps: tuple[TimelineStep, ...]
    duration_ms: int
    freeze: bool
    freeze_after_ms: int
    compact: bool
    #: (pages, adj) pairs that ActivityManager sends as LMK_TARGET; empty without a device.
    minfree: tuple[tuple[int, int], ...]
    #: Whether a control socket that comes back is told of every process again (ActivityManager does not).
    reregister: bool = True

    @property
    def launches(self) -> int:
        """How often an app is opened."""
        return sum(step.action == "launch" and self.processes[step.process].role == "app" for step in self.steps)


def compile_timeline(scenario: Scenario, device: DeviceLike | None = None, seed: int | None = None) -> Timeline:
    """The scenario's steps with absolute times, preceded by the device's base load.

    ``seed`` overrides the scenario's own. Without a device there is no base load; a scenario with sizes as shares
    of memory then raises ConfigError, as does one that comes to more steps than a runner takes.
    """
    if device is None and scenario.needs_memory_size:
        raise ConfigError(
            scenario.path, None, "", "has sizes as shares of memory, which need a device", "name a device config"
        )
    memory_bytes = device.memory_bytes if device is not None else 0
    base = tuple(_base_load(device)) if device is not None else ()
    apps = tuple(_app_processes(scenario, memory_bytes, first=len(base)))
    ids = {process.name: process.id for process in apps}
    used_seed = scenario.seed if seed is None else seed
    planner = _Planner(memory_bytes=memory_bytes, ids=ids)
    planner.run(scenario.steps)
    if scenario.generate is not None:
        planner.run(_generated(scenario.generate, random.Random(used_seed)))
    if len(planner.steps) > STEPS_MAX:
        raise ConfigError(
            scenario.path, None, "generate", f"comes to {len(planner.steps)} steps, at most {STEPS_MAX} are possible"
        )
    freeze, freeze_after_ms, compact = _cached_apps(scenario, device)
    return Timeline(
        scenario=scenario.name,
        seed=used_seed,
        processes=base + apps,
        steps=tuple(planner.steps),
        duration_ms=planner.now_ms,
        freeze=freeze,
        freeze_after_ms=freeze_after_ms,
        compact=compact,
        minfree=tuple(app_adj.minfree_table(memory_bytes)) if device is not None else (),
    )


def jittered(timeline: Timeline, seed: int, span_ms: int = JITTER_MS) -> Timeline:
    """The same steps in the same order, each moment moved by up to ``span_ms`` either way; seed 0: as it was.

    How much a result owes to the exact moment of each step is what repeated runs of one scenario must show.
    """
    if seed == 0:
        return timeline
    rng = random.Random(seed)
    moved: dict[int, int] = {}
    earliest_ms = 0
    for step in timeline.steps:
        if step.t_ms not in moved:
            shift_ms = int(rng.random() * (2 * span_ms + 1)) - span_ms
            earliest_ms = moved[step.t_ms] = max(earliest_ms, min(step.t_ms + shift_ms, timeline.duration_ms))
    return attrs.evolve(timeline, steps=tuple(attrs.evolve(step, t_ms=moved[step.t_ms]) for step in timeline.steps))


def timeline_text(timeline: Timeline) -> str:
    """The timeline as lmk-apprunner reads it (docs/scenarios.md)."""
    lines = [
        "lmk-timeline 1",
        f"# {timeline.scenario}",
        f"seed {timeline.seed}",
        f"option freeze {int(timeline.freeze)}",
        f"option freeze_delay_ms {timeline.freeze_after_ms}",
        f"option compact {int(timeline.compact)}",
        f"option reregister {int(timeline.reregister)}",
    ]
    if timeline.minfree:
        lines.append("option minfree " + ",".join(f"{pages}:{adj}" for pages, adj in timeline.minfree))
    lines += [_process_line(process) for process in timeline.processes]
    lines += [_step_line(step) for step in timeline.steps]
    lines.append(f"end {timeline.duration_ms}")
    return "\n".join(lines) + "\n"


def _process_line(process: PlannedProcess) -> str:
    numbers = {
        "uid": process.uid,
        "adj": process.adj,
        "anon_kib": process.anon_kib,
        "file_kib": process.file_kib,
        "pinned_kib": process.pinned_kib,
        "ratio": process.ratio_permille,
        "hot": process.hot_permille,
        "cold_start_ms": process.cold_start_ms,
        "growth": process.growth_kib_per_min,
        "touch_every_ms": process.touch_every_ms,
        "cpu": process.cpu_permille,
        "autostart": int(process.autostart),
        "restart": int(process.restart),
        "locked": int(process.locked),
    }
    pairs = " ".join(f"{key}={number}" for key, number in numbers.items())
    return f"process {process.id} {process.process_name} {process.role} {process.rest} {pairs}"


def _step_line(step: TimelineStep) -> str:
    line = f"at {step.t_ms} {step.action} {step.process}"
    match step.action:
        case "grow":
            return f"{line} kib={step.kib} over_ms={step.over_ms}"
        case "leak":
            return f"{line} kib_per_s={step.kib_per_s} kib={step.kib}"
        case "touch":
            return f"{line} anon={step.anon_permille} file={step.file_permille} times={step.times}"
        case _:
            return line


def _base_load(device: DeviceLike) -> Iterator[PlannedProcess]:
    for id_, process in enumerate(device.system):
        yield PlannedProcess(
            id=id_,
            name=process.name,
            process_name=process.name,
            role="fixed",
            uid=SYSTEM_UID if process.name == "system_server" else FIRST_SERVICE_UID + id_,
            adj=process.adj,
            anon_kib=process.anon_bytes // 1024,
            file_kib=process.file_bytes // 1024,
            ratio_permille=round(process.compressibility * 1000),
            hot_permille=round(process.hot * 1000),
            touch_every_ms=_SYSTEM_TOUCH_MS,
            autostart=True,
        )
    if device.unreclaimable_bytes:
        yield PlannedProcess(
            id=len(device.system),
            name="unreclaimable",
            process_name="unreclaimable",
            role="fixed",
            uid=0,
            adj=-1000,
            anon_kib=device.unreclaimable_bytes // 1024,
            file_kib=0,
            ratio_permille=1000,
            hot_permille=0,
            autostart=True,
            locked=True,
        )


def _app_processes(scenario: Scenario, memory_bytes: int, *, first: int) -> Iterator[PlannedProcess]:
    for index, app in enumerate(scenario.apps.values()):
        yield PlannedProcess(
            id=first + index,
            name=app.name,
            process_name=app.process,
            role=app.role,
            rest=app.background,
            uid=FIRST_APP_UID + index,
            anon_kib=app.anon.bytes_on(memory_bytes) // 1024,
            file_kib=app.file.bytes_on(memory_bytes) // 1024,
            pinned_kib=app.pinned.bytes_on(memory_bytes) // 1024,
            ratio_permille=round(app.compressibility * 1000),
            hot_permille=round(app.hot * 1000),
            cold_start_ms=app.cold_start_ms,
            growth_kib_per_min=_kib_per(app.growth, memory_bytes, 60_000) if app.growth else 0,
            touch_every_ms=app.touch_every_ms,
            cpu_permille=round(app.cpu * 1000),
            autostart=_autostarts(app),
            restart=app.restart,
        )


def _autostarts(app: App) -> bool:
    return app.role in ("home", "persistent")


def _kib_per(rate: AmountRate, memory_bytes: int, span_ms: int) -> int:
    return rate.amount.bytes_on(memory_bytes) * span_ms // rate.per_ms // 1024


@attrs.define(kw_only=True)
class _Planner:
    """Walks through steps and writes down what happens when."""

    memory_bytes: int
    ids: dict[str, int]
    now_ms: int = 0
    steps: list[TimelineStep] = attrs.field(factory=list)

    def run(self, steps: Sequence[Step] | Iterator[Step]) -> None:
        for step in steps:
            if isinstance(step, Wait):
                self.now_ms += step.span_ms
            elif isinstance(step, Repeat):
                for _ in range(step.times):
                    self.run(step.steps)
            else:
                self.steps.append(self._planned(step))

    def _planned(self, step: Launch | Leave | Grow | Leak | Touch | Exit) -> TimelineStep:
        process = self.ids[step.app]
        match step:
            case Launch():
                return TimelineStep(t_ms=self.now_ms, action="launch", process=process)
            case Leave():
                return TimelineStep(t_ms=self.now_ms, action="background", process=process)
            case Exit():
                return TimelineStep(t_ms=self.now_ms, action="exit", process=process)
            case Grow():
                return TimelineStep(
                    t_ms=self.now_ms, action="grow", process=process, kib=self._kib(step.size), over_ms=step.over_ms
                )
            case Leak():
                return TimelineStep(
                    t_ms=self.now_ms,
                    action="leak",
                    process=process,
                    kib_per_s=_kib_per(step.rate, self.memory_bytes, 1000),
                    kib=self._kib(step.limit) if step.limit else 0,
                )
            case Touch():
                return TimelineStep(
                    t_ms=self.now_ms,
                    action="touch",
                    process=process,
                    anon_permille=round(step.anon * 1000),
                    file_permille=round(step.file * 1000),
                    times=step.times,
                )

    def _kib(self, amount: Amount) -> int:
        return amount.bytes_on(self.memory_bytes) // 1024


def _generated(generator: Generator, rng: random.Random) -> Iterator[Step]:
    """A stretch of use: an app, something done in it, perhaps home, the next app."""
    left_ms, used, current = generator.duration_ms, list[str](), ""
    while left_ms > 0:
        following = _next_app(generator, rng, used, current)
        if current and rng.random() < generator.home:
            yield Leave(app=current)
            pause_ms = min(left_ms, generator.stay_min_ms // 2)
            yield Wait(span_ms=pause_ms)
            left_ms -= pause_ms
        yield Launch(app=following)
        used = [following, *(name for name in used if name != following)]
        current = following
        if rng.random() < generator.grow:
            yield Grow(app=current, size=generator.grow_size, over_ms=generator.stay_min_ms)
        if rng.random() < generator.touch:
            yield Touch(app=current)
        span_ms = generator.stay_max_ms - generator.stay_min_ms
        stay_ms = min(left_ms, generator.stay_min_ms + int(rng.random() * (span_ms + 1)))
        yield Wait(span_ms=stay_ms)
        left_ms -= stay_ms


def _next_app(generator: Generator, rng: random.Random, used: Sequence[str], current: str) -> str:
    others = [name for name in generator.apps if name != current] or list(generator.apps)
    recent = [name for name in used if name != current][:3]
    if recent and rng.random() < generator.recency:
        return recent[int(rng.random() * len(recent))]
    # Zipf: the n-th app of the list is used 1/n as often as the first.
    weights = [1 / (generator.apps.index(name) + 1) for name in others]
    at = rng.random() * sum(weights)
    for name, weight in zip(others, weights, strict=True):
        at -= weight
        if at < 0:
            return name
    return others[-1]


def _cached_apps(scenario: Scenario, device: DeviceLike | None) -> tuple[bool, int, bool]:
    """(freeze, after how many ms, compact): as written, else as the device's Android does."""
    release = int(BUILD_VERSIONS[device.android][0]) if device is not None else _COMPACTION_SINCE
    given = scenario.cached_apps
    after_ms = _FREEZE_AFTER_MS.get(release, _FREEZE_AFTER_MS_SINCE_14)
    return (
        release >= min(_FREEZE_AFTER_MS) if given.freeze is None else given.freeze,
        after_ms if given.freeze_after_ms is None else given.freeze_after_ms,
        release >= _COMPACTION_SINCE if given.compact is None else given.compact,
    )
