"""The search: one trial after the other, beside other processes, until there are as many as were asked for."""

import sys
from collections.abc import Sequence

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cifar_lightning.cli import command
from cifar_lightning.cli.next_command import say_next
from cifar_lightning.interruption import Interrupted
from cifar_lightning.sweep import results
from cifar_lightning.sweep.plan import Plan, read
from cifar_lightning.sweep.sampler import combinations
from cifar_lightning.sweep.study import Process, counted, failed, open_study
from cifar_lightning.sweep.trial import FailedError, value_of
from cifar_onnx import InputError
from cifar_onnx.errors import one_line

_IN_A_ROW = 5  # trials that fail before it ends: it is not their values


class _SurplusError(Exception):
    """There are as many trials as were asked for without this one."""


def search(words: Sequence[str]) -> None:
    """Search, or go on with a search.

    Raises:
        InputError: it cannot be done as it was asked for, or every trial has failed.
        Interrupted: by a signal; what is done is kept.
    """
    plan = read(words)
    study = open_study(plan)
    try:
        with Process(study, plan.folder) as process:
            trials = counted(study)
            tried = {frozenset(trial.params.items()) for trial in trials}
            if len(trials) < plan.trials and len(tried) < combinations(plan):
                _search(study, plan, process)
    except Interrupted:
        say_next("sweep", *words)
        raise
    except StorageInternalError as error:
        why = one_line(error.__cause__ or error)
        raise InputError(f"the storage of {plan.folder} is gone ({why}): the same command goes on with it") from error
    results.write(study, plan)


def _search(study: optuna.Study, plan: Plan, process: Process) -> None:
    console = Console(file=sys.stdout)  # not what stands for it while a trial is quiet
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=min(plan.trials, combinations(plan)), completed=_ended(study))
        row, begun = list[FrozenTrial](), list[int]()

        def objective(trial: optuna.Trial) -> float:
            begun[:] = [trial.number]
            if trial.number not in [each.number for each in counted(study)[: plan.trials]]:
                raise _SurplusError
            if command.read(plan.words).digest != plan.digest:  # which each trial reads anew
                raise InputError(
                    f"the config files of {plan.folder} have changed since this process began: put them back, "
                    "or begin another sweep with --experiment"
                )
            process.sign(trial)
            return value_of(trial, plan, lambda text: bar.update(task, description=escape(text)))

        def after(study: optuna.Study, trial: FrozenTrial) -> None:
            if trial.state == TrialState.FAIL and not failed(trial):
                study.stop()
                return
            console.print(results.line(trial, plan), highlight=False, markup=False, soft_wrap=True)
            row[:] = [*row, trial] if failed(trial) else []
            if len(row) == _IN_A_ROW:
                raise InputError(f"{_IN_A_ROW} trials in a row have failed, the last one: {trial.user_attrs['error']}")
            process.collect()
            bar.update(task, completed=_ended(study))
            if len(counted(study)) >= plan.trials:
                study.stop()

        while len(counted(study)) < plan.trials:
            try:
                study.optimize(objective, callbacks=[after], catch=(FailedError, _SurplusError), gc_after_trial=True)
                return
            except (ValueError, UpdateFinishedTrialError) as error:
                # Another process has found no sign of life of this one, which was suspended, say.
                if isinstance(error, ValueError) and not str(error).startswith("Cannot tell a "):
                    raise
                console.print(f"trial {begun[0]} was taken over by another process", highlight=False)


def _ended(study: optuna.Study) -> int:
    return sum(trial.state.is_finished() for trial in counted(study))
