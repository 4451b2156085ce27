"""A scenario: the apps a user has, what is done with them when, and what must come of it.

Read from ``lmk/scenarios/*.yaml`` or a user's own file; docs/scenarios.md describes every key. A scenario names
sizes in bytes or as shares of the device's memory, so that one file suits several devices;
lmk.config.timeline turns it into explicit steps for one device and one seed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from lmk.config.convert import boolean, duration_ms, integer, list_of, number, one_of, string
from lmk.config.expect import read_expectations
from lmk.config.load import Document, Section, Value, known_list, open_document, suggest
from lmk.config.quantity import InvalidValue, parse_bytes, parse_percent, parse_rate
from lmk.config.scenario_types import (
    Amount,
    AmountRate,
    App,
    CachedApps,
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

#: ActivityManager knows more processes, the app runner's table and oom_score_adj's slots do not.
APPS_MAX: Final = 96
#: The simulator has no such tables.
SIM_ONLY_APPS_MAX: Final = 512
#: More than anybody wrote by hand; the app runner's table ends here.
STEPS_MAX: Final = 4096
DURATION_MS_MAX: Final = 24 * 3600 * 1000
SEED_MAX: Final = 2**63 - 1
COMPRESSIBILITY_MAX: Final = 20.0

_APP_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_SCENARIO_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)

__all__ = ["STEPS_MAX", "STEP_VERBS", "Scenario", "load_scenario", "read_scenario"]


def load_scenario(path: Path | str) -> Scenario:
    """Read one scenario. Raises ConfigErrors naming everything that is wrong with it."""
    document = open_document(path)
    scenario = read_scenario(document)
    document.problems.raise_if_any()
    return scenario


def read_scenario(document: Document) -> Scenario:
    """The scenario in ``document``; usable only if ``document.problems`` has no errors afterwards."""
    with document.root.section() as top:
        name = top.need("name", _scenario_name, "unnamed")
        sim_only = top.take("sim_only", boolean, False)
        apps = _apps(top, SIM_ONLY_APPS_MAX if sim_only else APPS_MAX)
        steps = _steps_of(top, apps)
        generate = _generator(top, apps)
        scenario = Scenario(
            path=str(document.path),
            name=name,
            description=top.take("description", string, ""),
            seed=top.take("seed", integer(minimum=0, maximum=SEED_MAX), 1),
            apps=apps,
            steps=steps,
            generate=generate,
            cached_apps=_cached_apps(top),
            expect=read_expectations(top),
            sim_only=sim_only,
        )
    if not steps and generate is None:
        document.problems.error(
            document.root.line, "steps", "is missing", "add `steps:` or `generate:`: nothing would happen"
        )
    _check_length(document, top, scenario)
    return scenario


def _check_length(document: Document, top: Section, scenario: Scenario) -> None:
    place = top.get("steps") or document.root
    count, span_ms = _extent(scenario.steps)
    if count > STEPS_MAX:
        place.error(f"comes to {count} steps, at most {STEPS_MAX} are possible", "repeat less often")
    if span_ms + (scenario.generate.duration_ms if scenario.generate else 0) > DURATION_MS_MAX:
        place.error("takes longer than a day", "wait less, or repeat less often")


def _extent(steps: tuple[Step, ...]) -> tuple[int, int]:
    """How many steps there are with repetitions, and how long they take in milliseconds."""
    count = span_ms = 0
    for step in steps:
        if isinstance(step, Repeat):
            inner_count, inner_ms = _extent(step.steps)
            count, span_ms = count + step.times * inner_count, span_ms + step.times * inner_ms
        else:
            count, span_ms = count + 1, span_ms + (step.span_ms if isinstance(step, Wait) else 0)
    return count, span_ms


def _scenario_name(value: Value) -> str:
    text = string(value)
    if not _SCENARIO_NAME.fullmatch(text):
        raise InvalidValue(f"found {text!r}, expected lower-case letters, digits, '.', '_' or '-'")
    return text


def amount(value: Value) -> Amount:
    """``260MiB``, or ``12%`` of the device's memory."""
    if value.kind in ("integer", "number"):
        raise InvalidValue(
            f"found {value.describe()} without a unit, expected a size such as 260MiB or a share such as 12%"
        )
    return _amount_of(string(value))


def _amount_of(text: str) -> Amount:
    if text.strip().endswith("%"):
        return Amount(share=parse_percent(text) / 100)
    return Amount(size_bytes=parse_bytes(text))


def _rate(value: Value) -> AmountRate:
    if value.kind != "string":
        raise InvalidValue(f"found {value.describe()}, expected a rate such as 20MiB/s or 1%/s")
    text = string(value)
    share, slash, per = text.partition("/")
    if slash and share.strip().endswith("%"):
        # The span of time is the same word as in any other rate.
        return AmountRate(amount=_amount_of(share), per_ms=parse_rate(f"1B/{per}").per_ms)
    rate = parse_rate(text)
    return AmountRate(amount=Amount(size_bytes=rate.amount_bytes), per_ms=rate.per_ms)


def _compressibility(value: Value) -> float:
    if value.kind == "string" and value.text == "same-filled":
        return 0.0
    if value.kind == "string":
        raise InvalidValue(f"found {value.describe()}, expected a number such as 2.6, or same-filled")
    return number(minimum=1, maximum=COMPRESSIBILITY_MAX)(value)


_share = number(minimum=0, maximum=1)


def _apps(top: Section, apps_max: int) -> dict[str, App]:
    value = top.get("apps")
    if value is None:
        if top.usable:
            top.problems.error(top.value.line, "apps", "is missing", "add `apps:` with at least one app")
        return {}
    entries = value.convert(Value.entries, dict[str, Value]())
    apps: dict[str, App] = {}
    for name, entry in entries.items():
        if not _APP_NAME.fullmatch(name):
            entry.error("not a name for an app", "use letters, digits, '.', '_' and '-', at most 63")
        apps[name] = _app(name, entry)
    if len(apps) > apps_max:
        more = "" if apps_max > APPS_MAX else f"`sim_only: true` allows {SIM_ONLY_APPS_MAX}, in the simulator alone"
        value.error(f"found {len(apps)} apps, at most {apps_max} are possible", more)
    homes = [name for name, app in apps.items() if app.role == "home"]
    if len(homes) > 1:
        entries[homes[1]].error("is a second app of role home", f"{homes[0]} is one already")
    return apps


def _app(name: str, value: Value) -> App:
    with value.section() as section:
        role = section.take("role", one_of("app", "home", "service", "persistent"), "app")
        background = section.take("background", one_of("cached", "perceptible", "visible"), "cached")
        given = section.get("background")
        if given is not None and role in ("home", "persistent"):
            given.error(f"an app of role {role} has no choice of background", "leave it out")
        return App(
            name=name,
            role=role,  # type: ignore[arg-type]  # one_of has checked it
            background=background,  # type: ignore[arg-type]
            process=section.take("process", _process_name, name),
            anon=section.need("anon", amount, Amount()),
            file=section.take("file", amount, Amount()),
            pinned=section.take("pinned", amount, Amount()),
            compressibility=section.take("compressibility", _compressibility, 2.6),
            hot=section.take("hot", _share, 0.3),
            cold_start_ms=section.take("cold_start", duration_ms, 400 if role in ("app", "home") else 0),
            growth=section.take("growth", _rate, None),
            touch_every_ms=section.take("touch_every", _touch_every, 1000),
            cpu=section.take("cpu", _share, 0.0),
            restart=section.take("restart", boolean, role in ("service", "persistent")),
        )


def _touch_every(value: Value) -> int:
    span_ms = duration_ms(value)
    if not 100 <= span_ms <= 600_000:
        raise InvalidValue(f"found {value.text!r}, expected 100ms to 10min")
    return span_ms


def _process_name(value: Value) -> str:
    text = string(value)
    if not _APP_NAME.fullmatch(text):
        raise InvalidValue(f"found {text!r}, expected letters, digits, '.', '_' or '-', at most 63")
    return text


def _steps_of(top: Section, apps: Mapping[str, App]) -> tuple[Step, ...]:
    value = top.get("steps")
    return _steps(value, apps) if value is not None else ()


def _steps(value: Value, apps: Mapping[str, App]) -> tuple[Step, ...]:
    items = value.convert(Value.items, list[Value]())
    return tuple(step for item in items if (step := _step(item, apps)) is not None)


#: What a step may be, by the key that says so.
STEP_VERBS: Final = ("launch", "background", "wait", "grow", "allocate", "leak", "touch", "exit", "repeat")


def _step(value: Value, apps: Mapping[str, App]) -> Step | None:
    entries = value.convert(Value.entries, dict[str, Value]())
    verbs = [key for key in entries if key in STEP_VERBS]
    if value.kind != "mapping":
        return None
    if len(verbs) != 1:
        unknown = next(iter(entries), "")
        if verbs:
            value.error(f"found both {verbs[0]} and {verbs[1]} in one step", "begin each with its own dash")
        else:
            hint = suggest(unknown, STEP_VERBS) or known_list(STEP_VERBS)
            value.error(f"found {unknown!r}, which is no kind of step", hint)
        return None
    with value.section() as section:
        return _step_of(verbs[0], section, apps)


def _step_of(verb: str, section: Section, apps: Mapping[str, App]) -> Step:
    app = "" if verb in ("wait", "repeat") else section.need(verb, _AppName(apps, verb), "")
    match verb:
        case "wait":
            return Wait(span_ms=section.need("wait", duration_ms, 0))
        case "repeat":
            times = section.need("repeat", integer(minimum=1, maximum=10_000), 1)
            inner = section.get("steps")
            if inner is None:
                section.value.error("repeats nothing", "add `steps:` beside `repeat:`")
            return Repeat(times=times, steps=_steps(inner, apps) if inner is not None else ())
        case "launch":
            return Launch(app=app)
        case "background":
            return Leave(app=app)
        case "exit":
            return Exit(app=app)
        case "grow" | "allocate":
            over_ms = section.take("over", duration_ms, 0) if verb == "grow" else 0
            return Grow(app=app, size=section.need("size", amount, Amount()), over_ms=over_ms)
        case "leak":
            rate = section.need("rate", _rate, AmountRate(amount=Amount(), per_ms=1000))
            return Leak(app=app, rate=rate, limit=section.take("limit", amount, None))
        case _:
            return Touch(
                app=app,
                anon=section.take("anon", _share, 0.0),
                file=section.take("file", _share, 1.0),
                times=section.take("times", integer(minimum=1, maximum=10_000), 1),
            )


@attrs.frozen
class _AppName:
    """Converter: the name of one of the scenario's apps, one that can do ``verb``."""

    apps: Mapping[str, App]
    verb: str

    def __call__(self, value: Value) -> str:
        text = string(value)
        if text not in self.apps:
            raise InvalidValue(
                f"found {text!r}, which is no app here", suggest(text, self.apps) or known_list(self.apps)
            )
        if self.verb == "background" and self.apps[text].role != "app":
            raise InvalidValue(f"found {text!r}, which is never in front", "its role is not app")
        return text


def _generator(top: Section, apps: Mapping[str, App]) -> Generator | None:
    if top.get("generate") is None:
        return None
    with top.subsection("generate") as section:
        users = [name for name, app in apps.items() if app.role == "app"]
        chosen = section.take("apps", list_of(_AppName(apps, "background")), users)
        if not chosen:
            section.value.error("has no app to open", "add an app of role app")
        stay_min_ms, stay_max_ms = _stay(section)
        return Generator(
            duration_ms=section.need("duration", duration_ms, 0),
            apps=tuple(dict.fromkeys(chosen)),
            stay_min_ms=stay_min_ms,
            stay_max_ms=stay_max_ms,
            home=section.take("home", _share, 0.3),
            recency=section.take("recency", _share, 0.5),
            grow=section.take("grow", _share, 0.0),
            grow_size=section.take("grow_size", amount, Amount(size_bytes=8 << 20)),
            touch=section.take("touch", _share, 0.0),
        )


def _stay(section: Section) -> tuple[int, int]:
    given = section.get("stay")
    with section.subsection("stay") as stay:
        shortest = stay.take("min", duration_ms, 2000)
        longest = stay.take("max", duration_ms, max(6000, shortest))
    if given is not None and (shortest < 100 or longest < shortest):
        given.error(f"found {shortest} ms to {longest} ms", "min must be at least 100ms and at most max")
    return shortest, longest


def _cached_apps(top: Section) -> CachedApps:
    with top.subsection("cached_apps") as section:
        return CachedApps(
            freeze=section.take("freeze", boolean, None),
            freeze_after_ms=section.take("freeze_after", duration_ms, None),
            compact=section.take("compact", boolean, None),
        )
