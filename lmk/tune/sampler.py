"""Which settings to try next: Optuna, asked in batches and told the results in the order of the trials.

Nothing but what the study's file holds goes in, and the random numbers of a batch depend on the study's seed and the
batch alone, so a study that was interrupted goes on as if it had not been. The only importer of optuna.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from lmk.tune.goals import Goals
from lmk.tune.space import Axis, Setting, Space
from lmk.tune.verdict import FAILED, Trial

SAMPLERS: Final = ("auto", "tpe", "nsga2", "random")
#: From here on TPE takes longer to think than the simulator to run; evolution does not.
_TPE_TRIALS_MAX: Final = 300
_POPULATION: Final = 48


@attrs.frozen(kw_only=True)
class Asked:
    """A setting to try; ``attributes`` are for ``restore``."""

    params: dict[str, Setting]
    attributes: dict[str, Any]


class Sampler:
    """A study that is asked for settings and told what they were worth."""

    def __init__(self, space: Space, goals: Goals, kind: str, seed: int, trials: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._kind = kind if kind != "auto" else ("tpe" if trials <= _TPE_TRIALS_MAX else "nsga2")
        self._seed = seed
        self._goals = goals
        self._distributions: dict[str, BaseDistribution] = {axis.name: _distribution(axis) for axis in space.axes}
        self._study = optuna.create_study(
            directions=["minimize" if metric.less_is_better else "maximize" for metric in goals.objectives],
            sampler=RandomSampler(seed=seed),
        )
        self._open: list[optuna.Trial] = []

    def ask(self, batch: int, count: int) -> list[Asked]:
        """The settings of one batch; ``tell`` must follow before the next one."""
        self._study.sampler = self._sampler((self._seed * 1_000_003 + batch) % 2**32)
        self._open = [self._study.ask(self._distributions) for _ in range(count)]
        return [
            Asked(params=dict(trial.params), attributes=dict(self._study.trials[trial.number].system_attrs))
            for trial in self._open
        ]

    def tell(self, trial: Trial, values: Sequence[float | None], excesses: Mapping[str, float]) -> None:
        """What the next of the asked settings was worth; ``values`` of a stopped trial are estimates."""
        asked = self._open.pop(0)
        usable = _usable(trial, values)
        for text, excess in excesses.items() if usable else ():
            asked.set_constraint(text, excess)
        if usable:
            self._study.tell(asked, list(usable))
        else:
            self._study.tell(asked, state=TrialState.FAIL)

    def restore(
        self,
        trial: Trial,
        values: Sequence[float | None],
        excesses: Mapping[str, float],
        attributes: Mapping[str, Any],
    ) -> None:
        """The same for a setting that an earlier process asked for, or that nobody asked for (stock)."""
        if set(trial.params) != set(self._distributions) or not all(
            _holds(self._distributions[name], value) for name, value in trial.params.items()
        ):
            return  # stock may stand outside of the space, which a sampler cannot know anything about
        usable = _usable(trial, values)
        self._study.add_trial(
            optuna.create_trial(
                state=TrialState.COMPLETE if usable else TrialState.FAIL,
                values=list(usable) if usable else None,
                params=dict(trial.params),
                distributions=self._distributions,
                system_attrs=dict(attributes),
                constraints=dict(excesses) if usable else None,
            )
        )

    def importances(self) -> dict[str, dict[str, float]]:
        """By objective: how much of the outcome each setting decides among the better trials (PED-ANOVA), or {}."""
        found = {}
        for index, metric in enumerate(self._goals.objectives):
            sign = 1 if metric.less_is_better else -1

            def target(trial: optuna.trial.FrozenTrial, index: int = index, sign: int = sign) -> float:
                return sign * float(trial.values[index])

            try:
                with warnings.catch_warnings():
                    # It warns that low values count as good, which is what `target` sees to.
                    warnings.simplefilter("ignore")
                    evaluator = optuna.importance.PedAnovaImportanceEvaluator(evaluate_on_local=False)
                    shares = optuna.importance.get_param_importances(self._study, evaluator=evaluator, target=target)
            except (ValueError, RuntimeError):  # too few trials, or all of them alike
                shares = {}
            found[metric.name] = {name: round(float(share), 4) for name, share in shares.items()}
        return found

    def _sampler(self, seed: int) -> BaseSampler:
        if self._kind == "random":
            return RandomSampler(seed=seed)
        if self._kind == "nsga2":
            return NSGAIISampler(seed=seed, population_size=_POPULATION)
        return TPESampler(seed=seed, constant_liar=True)


def _distribution(axis: Axis) -> BaseDistribution:
    if axis.choices:
        return CategoricalDistribution(axis.choices)
    high = axis.low + (axis.high - axis.low) // axis.step * axis.step
    return IntDistribution(axis.low, high, step=axis.step, log=axis.log)


def _holds(distribution: BaseDistribution, value: Setting) -> bool:
    if isinstance(distribution, IntDistribution):
        on_step = distribution.log or (int(value) - distribution.low) % distribution.step == 0
        return distribution.low <= int(value) <= distribution.high and on_step
    return isinstance(distribution, CategoricalDistribution) and value in distribution.choices


def _usable(trial: Trial, values: Sequence[float | None]) -> list[float]:
    """The values, or nothing if one is missing or the trial failed."""
    known = [value for value in values if value is not None]
    return known if trial.state != FAILED and len(known) == len(values) else []
