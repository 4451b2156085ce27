"""What a scenario is made of, as written: apps, steps, generator. lmk.config.scenario reads them from a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Literal

import attrs

from lmk.config.expect import Expectation

AppRole = Literal["app", "home", "service", "persistent"]
Background = Literal["cached", "perceptible", "visible"]


@attrs.frozen(kw_only=True)
class Amount:
    """A size in bytes, or a share of the device's memory (1 = all of it)."""

    size_bytes: int = 0
    share: Fraction | None = None

    def bytes_on(self, memory_bytes: int) -> int:
        """The size on a device with this much memory, rounded down."""
        return self.size_bytes if self.share is None else int(self.share * memory_bytes)


@attrs.frozen(kw_only=True)
class AmountRate:
    """An amount per span of time."""

    amount: Amount
    per_ms: int


@attrs.frozen(kw_only=True)
class App:
    """What one app is like. ``compressibility`` 0 stands for same-filled pages."""

    name: str
    role: AppRole = "app"
    #: What its process is for Android while another app is in front.
    background: Background = "cached"
    #: Name of its process (Android: the package name).
    process: str
    anon: Amount = Amount()
    file: Amount = Amount()
    #: Memory of its own that nobody can reclaim before it dies: graphics buffers.
    pinned: Amount = Amount()
    compressibility: float = 2.6
    #: Share of its memory that every use touches, 0 to 1.
    hot: float = 0.3
    cold_start_ms: int = 400
    #: While in use (services and persistent apps: always).
    growth: AmountRate | None = None
    touch_every_ms: int = 1000
    #: Share of one CPU that it uses while in use, 0 to 1.
    cpu: float = 0.0
    #: Started again after its process died, without anybody opening it.
    restart: bool = False


@attrs.frozen(kw_only=True)
class Launch:
    """The user opens the app (a service is started)."""

    app: str


@attrs.frozen(kw_only=True)
class Leave:
    """The user goes home from the app."""

    app: str


@attrs.frozen(kw_only=True)
class Wait:
    """Time passes."""

    span_ms: int


@attrs.frozen(kw_only=True)
class Grow:
    """The app allocates ``size``, spread over ``over_ms`` (0: as fast as it can)."""

    app: str
    size: Amount
    over_ms: int = 0


@attrs.frozen(kw_only=True)
class Leak:
    """The app allocates at ``rate`` from now on, until ``limit`` or its death."""

    app: str
    rate: AmountRate
    limit: Amount | None = None


@attrs.frozen(kw_only=True)
class Touch:
    """The app goes through these shares of its memory, ``times`` times."""

    app: str
    anon: float = 0.0
    file: float = 1.0
    times: int = 1


@attrs.frozen(kw_only=True)
class Exit:
    """The app's process ends by itself."""

    app: str


@attrs.frozen(kw_only=True)
class Repeat:
    """The steps, several times over."""

    times: int
    steps: tuple[Step, ...]


Step = Launch | Leave | Wait | Grow | Leak | Touch | Exit | Repeat


@attrs.frozen(kw_only=True)
class Generator:
    """A seeded stretch of use: which app comes next, for how long. Shares of chance are 0 to 1."""

    duration_ms: int
    apps: tuple[str, ...]
    stay_min_ms: int = 2000
    stay_max_ms: int = 6000
    #: Chance to go home between two apps.
    home: float = 0.3
    #: Chance that the next app is one of the three used last; else earlier names in ``apps`` are likelier.
    recency: float = 0.5
    #: Chance that an app grows while it is used, and by how much.
    grow: float = 0.0
    grow_size: Amount = Amount()
    #: Chance that the app goes through all of its file memory.
    touch: float = 0.0


@attrs.frozen(kw_only=True)
class CachedApps:
    """What the system does with cached apps; None: as the device's Android does."""

    freeze: bool | None = None
    freeze_after_ms: int | None = None
    compact: bool | None = None


@attrs.frozen(kw_only=True)
class Scenario:
    """One scenario as written."""

    path: str
    name: str
    description: str
    seed: int
    apps: Mapping[str, App]
    steps: tuple[Step, ...]
    generate: Generator | None
    cached_apps: CachedApps
    expect: tuple[Expectation, ...]
    #: Too long, or with too many processes, for a real kernel under emulation.
    sim_only: bool = False

    @property
    def needs_memory_size(self) -> bool:
        """Whether any size is a share of the device's memory."""
        amounts = [amount for app in self.apps.values() for amount in (app.anon, app.file, app.pinned)]
        amounts += [app.growth.amount for app in self.apps.values() if app.growth]
        for step in _flat(self.steps):
            if isinstance(step, Grow):
                amounts.append(step.size)
            elif isinstance(step, Leak):
                amounts += [step.rate.amount, step.limit or Amount()]
        if self.generate:
            amounts.append(self.generate.grow_size)
        return any(amount.share is not None for amount in amounts)


def _flat(steps: tuple[Step, ...]) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, Repeat):
            yield from _flat(step.steps)
        else:
            yield step
