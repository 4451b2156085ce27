"""A matrix file: which configs, scenarios, policies and kernels are run where. docs/ci.md describes every key.

The cells are the product of the lists, less ``exclude``, and those written out under ``cells``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Final, TypeVar

import attrs

from lmk.config.calibration import DEFAULT_NAME, find_calibration, load_calibration
from lmk.config.convert import duration_ms, integer, list_of, one_of, string
from lmk.config.device import KERNEL_BASES, load_device_config
from lmk.config.find import find_config, find_scenario
from lmk.config.load import Section, Value, open_document
from lmk.config.quantity import InvalidValue
from lmk.config.scenario import load_scenario
from lmk.errors import ConfigError, LmkError
from lmk.policy.registry import POLICIES, SIM_POLICIES
from lmk.sim.check import check_plan

T = TypeVar("T")

TARGETS: Final = ("sim", "qemu")
DEFAULT_MATRIX: Final = Path(__file__).with_name("default.yaml")
_TIME_LIMIT_MS: Final = 300_000


@attrs.frozen(kw_only=True, order=True)
class Cell:
    """One combination. ``kernel`` is a base; ``config`` and ``scenario`` are names, the files stand in the matrix."""

    config: str
    scenario: str
    policy: str
    kernel: str
    target: str

    @property
    def key(self) -> str:
        """Names the cell in baselines, results and reports."""
        return "/".join((self.config, self.scenario, self.policy, self.kernel, self.target))

    @property
    def slug(self) -> str:
        """The key as the name of a file."""
        return self.key.replace("/", "_")


@attrs.frozen(kw_only=True)
class Matrix:
    """What a matrix file says, checked: every file it names exists and is valid."""

    name: str
    path: Path
    cells: tuple[Cell, ...]
    config_files: Mapping[str, Path]
    scenario_files: Mapping[str, Path]
    calibration: Path
    #: Runs of a simulated cell: the scenario as written, then at slightly other moments.
    replicas: int
    #: The same while a baseline is learned.
    baseline_replicas: int
    #: Runs of an emulated cell while a baseline is learned.
    baseline_runs: int
    time_limit_ms: int

    @property
    def baseline_path(self) -> Path:
        """Where the committed baseline stands: beside the matrix."""
        return self.path.with_suffix(".baseline.json")


def load_matrix(path: Path) -> Matrix:
    """Read a matrix and everything it names. Raises ConfigErrors with all that is wrong."""
    document = open_document(path)
    with document.root.section() as top:
        matrix = _Reader(path).read(top)
    document.problems.raise_if_any()
    return matrix


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._configs: dict[str, Path] = {}
        self._bases: dict[str, str] = {}
        self._scenarios: dict[str, Path] = {}
        self._calibration = find_calibration(DEFAULT_NAME)

    def read(self, top: Section) -> Matrix:
        self._calibration = top.take("calibration", self._calibration_file, self._calibration)
        cells = [*self._product(top), *top.take("cells", list_of(self._cell), list[Cell]())]
        for gone in top.take("exclude", list_of(_Pattern.read), list[_Pattern]()):
            kept = [cell for cell in cells if not gone.matches(cell)]
            if len(kept) == len(cells):
                top.problems.warn(None, "exclude", f"{gone} matches no cell")
            cells = kept
        unique = tuple(dict.fromkeys(cells))
        if not unique and not top.problems.errors:
            top.value.error("comes to no cell at all", "give configs and scenarios, or cells")
        return Matrix(
            name=top.take("name", string, self._path.stem),
            path=self._path,
            cells=unique,
            config_files=self._configs,
            scenario_files=self._scenarios,
            calibration=self._calibration,
            replicas=top.take("replicas", integer(minimum=1, maximum=1000), 4),
            baseline_replicas=top.take("baseline_replicas", integer(minimum=3, maximum=1000), 64),
            baseline_runs=top.take("baseline_runs", integer(minimum=3, maximum=1000), 16),
            time_limit_ms=top.take("time_limit", duration_ms, _TIME_LIMIT_MS),
        )

    def _product(self, top: Section) -> list[Cell]:
        none = list[str]()
        configs = top.take("configs", list_of(self._config), none)
        scenarios = top.take("scenarios", list_of(self._scenario), none)
        policies = top.take("policies", list_of(one_of(*SIM_POLICIES)), ["lmkd"])
        kernels = top.take("kernels", list_of(one_of(*KERNEL_BASES)), none) or [""]
        targets = top.take("targets", list_of(one_of(*TARGETS)), ["sim"])
        return [
            Cell(config=config, scenario=scenario, policy=policy, kernel=kernel or self._bases[config], target=target)
            for config, scenario, policy, kernel, target in product(configs, scenarios, policies, kernels, targets)
            if (target == "sim" or policy in POLICIES) and config in self._bases
        ]

    def _cell(self, value: Value) -> Cell:
        with value.section() as section:
            config = section.need("config", self._config, "")
            target = section.take("target", one_of(*TARGETS), "sim")
            return Cell(
                config=config,
                scenario=section.need("scenario", self._scenario, ""),
                policy=section.take("policy", one_of(*(SIM_POLICIES if target == "sim" else POLICIES)), "lmkd"),
                kernel=section.take("kernel", one_of(*KERNEL_BASES), self._bases.get(config, KERNEL_BASES[-1])),
                target=target,
            )

    def _config(self, value: Value) -> str:
        path = self._found(value, find_config)
        config = _loaded(path, load_device_config)
        check_plan(config, load_calibration(self._calibration))
        self._bases[config.name] = config.kernel.base
        return _remember(self._configs, config.name, path)

    def _scenario(self, value: Value) -> str:
        path = self._found(value, find_scenario)
        return _remember(self._scenarios, _loaded(path, load_scenario).name, path)

    def _calibration_file(self, value: Value) -> Path:
        path = self._found(value, find_calibration)
        load_calibration(path)
        return path

    def _found(self, value: Value, find: Callable[[str], Path]) -> Path:
        """A name of something shipped, or a file beside the matrix."""
        text = string(value)
        beside = self._path.parent / text
        try:
            return beside if beside.is_file() else find(text)
        except ConfigError as error:
            raise InvalidValue(error.cause.removeprefix(f"{text}: "), error.remedy) from None


def _loaded(path: Path, load: Callable[[Path], T]) -> T:
    try:
        return load(path)
    except LmkError as error:
        raise InvalidValue(error.cause, error.remedy) from None


def _remember(files: dict[str, Path], name: str, path: Path) -> str:
    if files.setdefault(name, path) != path:
        raise InvalidValue(f"{path} and {files[name]} are both called {name}", "rename one of the two")
    return name


@attrs.frozen(kw_only=True)
class _Pattern:
    """An entry of ``exclude``: cells that agree in every key given."""

    wanted: Mapping[str, str]

    @classmethod
    def read(cls, value: Value) -> _Pattern:
        with value.section() as section:
            names = [field.name for field in attrs.fields(Cell)]
            given = {name: section.take(name, string, "") for name in names}
        return cls(wanted={name: text for name, text in given.items() if text})

    def matches(self, cell: Cell) -> bool:
        return all(getattr(cell, name) == text for name, text in self.wanted.items())

    def __str__(self) -> str:
        return ", ".join(f"{name} {text}" for name, text in self.wanted.items())
