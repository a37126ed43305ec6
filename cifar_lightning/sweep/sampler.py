"""The sampler: what draws the values of a trial."""

import inspect
import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import optuna
from jsonargparse import Namespace
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, BruteForceSampler, CmaEsSampler, GridSampler, PartialFixedSampler, QMCSampler
from optuna.trial import FrozenTrial, TrialState

from cifar_lightning.cli.parser import class_of
from cifar_lightning.sweep.plan import Plan
from cifar_onnx import InputError


class Sampler(BaseSampler):
    """Draws a trial by its number and by what is known then, whichever process asks.

    A process that goes on with a study, or joins it, would else draw the first numbers of its seed again.

    Args:
        make: a sampler from the number of a trial.
        first: parameters of the first trial; empty for drawn ones.
    """

    def __init__(self, make: Callable[[int], BaseSampler], first: dict[str, Any]) -> None:
        self._make = make
        self._sampler = make(0)
        self._first = first

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler = self._make(trial.number)
        if trial.number == 0 and self._first:
            self._sampler = PartialFixedSampler(self._first, self._sampler)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


def sampler_of(plan: Plan) -> Sampler:
    """The sampler of a plan.

    Raises:
        InputError: it cannot draw from the plan's space, or needs a package that is not installed.
    """
    cls = class_of(plan.sampler.class_path)
    if issubclass(cls, CmaEsSampler) and not find_spec("cmaes"):  # which it would look for after some random trials
        raise InputError("sampler CmaEsSampler needs cmaes: pip install cmaes")
    if issubclass(cls, GridSampler):
        raise InputError("sampler is GridSampler: take BruteForceSampler, which tries all that the space has")
    if issubclass(cls, BruteForceSampler):
        for key, part in plan.space.items():
            if part.count == math.inf:
                raise InputError(f"space: {key} has no step: BruteForceSampler tries each value of a range")
    if "seed" not in inspect.signature(cls).parameters or issubclass(cls, QMCSampler):  # which share out one sequence
        one: BaseSampler = made(plan.sampler)
        return Sampler(lambda _: one, plan.first)
    seed = plan.sampler.init_args.seed or 0
    return Sampler(lambda number: made(plan.sampler, seed=seed + number), plan.first)


def combinations(plan: Plan) -> float:
    """How many trials a plan's sampler comes to, infinitely many where it may draw one twice."""
    once = issubclass(class_of(plan.sampler.class_path), BruteForceSampler)
    return math.prod(part.count for part in plan.space.values()) if once else math.inf


def made(chosen: Namespace, **more: Any) -> Any:
    """The object that a class path and its settings describe; a setting may be such a description itself."""
    settings = {**vars(chosen.get("init_args") or Namespace()), **more}  # type: ignore[no-untyped-call]
    arguments = {key: made(each) if isinstance(each, Namespace) else each for key, each in settings.items()}
    return class_of(chosen.class_path)(**arguments)
