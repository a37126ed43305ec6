"""One trial: a `fit` whose validation is reported, and which ends where it falls behind."""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import lightning.pytorch as L
import optuna
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from cifar_lightning import interruption, runs
from cifar_lightning.callbacks import BestCheckpoint
from cifar_lightning.cli.run import run
from cifar_lightning.cli.settings import quiet
from cifar_lightning.error_source import REFUSED, mistake, out_of_memory
from cifar_lightning.finite import NotFiniteError
from cifar_lightning.interruption import Interrupted
from cifar_lightning.sweep import space as spaces
from cifar_lightning.sweep.plan import Plan
from cifar_lightning.sweep.study import again
from cifar_onnx import InputError
from cifar_onnx.errors import one_line

Say = Callable[[str], None]


class FailedError(Exception):
    """A trial has failed by its own values."""


class Watch(L.Callback):
    """Reports what is monitored after each validation, and ends a trial that falls behind.

    Args:
        trial: the trial.
        monitor: name of the metric.
        say: takes a line on how far it is.
    """

    def __init__(self, trial: optuna.Trial, monitor: str, say: Say) -> None:
        self.trial = trial
        self.monitor = monitor
        self.say = say
        self.values: list[float] = []
        self._behind = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        folder = Path(str(trainer.log_dir))
        self.trial.set_user_attr("run", str(folder))
        self.trial.set_user_attr("config", (folder / "config.yaml").read_text(encoding="utf-8"))
        started_from = trainer.ckpt_path if pl_module.resumed else None  # the latter after Lightning's finders, too
        self.trial.set_user_attr("started_from", started_from)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            raise InputError(f"{self.monitor} is not measured: there are {', '.join(trainer.callback_metrics)}")
        value = float(trainer.callback_metrics[self.monitor])
        epoch = f"epoch {trainer.current_epoch + 1}"
        if not math.isfinite(value):
            raise NotFiniteError(f"{self.monitor} is {value} in {epoch}")
        self.values.append(value)
        self.trial.report(value, len(self.values))
        self.say(f"trial {self.trial.number}: {epoch}, {self.monitor} {value:.4f}")
        self._behind = self.trial.should_prune()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Prunes before the next batch: checkpoints come after validation, and without such a batch it is complete."""
        if self._behind:
            runs.record(Path(str(trainer.log_dir)), pruned=True)
            raise optuna.TrialPruned


def value_of(trial: optuna.Trial, plan: Plan, say: Say) -> float:
    """Train by the values of a trial.

    Returns:
        The best value of what is monitored, in an epoch that is kept.

    Raises:
        FailedError: its values cannot be, need too much memory, or lead to losses that are not finite.
        TrialPruned: it has fallen behind.
    """
    values = {key: part.suggest(trial, key) for key, part in plan.space.items()}
    watch = Watch(trial, plan.monitor, say)
    say(f"trial {trial.number}: begins")
    torch.compiler.reset()  # or the nets of one class would be compiled eight times, and then no more
    with _own_failures(trial), quiet(), redirect_stdout(io.StringIO()):
        done = run([*plan.words, *spaces.words(values)], [watch])
        callbacks = done.trainer.callbacks  # type: ignore[attr-defined]
        kept = next(each for each in callbacks if isinstance(each, BestCheckpoint))  # by what the plan monitors
        score, last = kept.best_model_score, str(done.run and done.run.last)
        trial.set_user_attr("kept", last if score is None else kept.best_model_path)
    # With checkpoint.save_top_k 0, for one, there is no best epoch: the last is what is kept.
    value = float(score) if score is not None else watch.values[-1] if watch.values else None
    if value is None:
        raise InputError(
            f"{plan.monitor} is never measured: a sweep needs trainer.limit_val_batches above 0, and trainer.max_steps "
            "and max_epochs that reach the first validation"
        )
    return value


def _is_of_the_machine(error: BaseException | None) -> bool:
    """Whether it comes of a full disk, say, and not of a file that a value names."""
    if error is None:
        return False
    return (isinstance(error, OSError) and error.errno in REFUSED) or _is_of_the_machine(error.__cause__)


@contextmanager
def _own_failures(trial: optuna.Trial) -> Iterator[None]:
    """Note what is wrong with the values of a trial."""
    try:
        yield
    except SystemExit as stop:
        trial.set_user_attr("error", "its values are refused by the parser")
        raise FailedError from stop
    except (ValueError, RuntimeError, MemoryError, NotFiniteError, MisconfigurationException) as error:
        if _is_of_the_machine(error):
            again(trial.study, trial)
            raise
        own = isinstance(error, InputError | NotFiniteError | MisconfigurationException)
        if not (own or out_of_memory(error) or mistake(error)):
            raise
        trial.set_user_attr("error", one_line(error) or type(error).__name__)
        raise FailedError from error
    finally:
        interruption.defer(False)
        if (signum := interruption.received()) is not None:
            raise Interrupted(signum)
