"""The study: where trials are kept, which of them count, and whose process is gone."""

import uuid
import warnings
from contextlib import suppress
from copy import copy
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal

import optuna
from filelock import FileLock
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from cifar_lightning import runs
from cifar_lightning.error_source import named
from cifar_lightning.sweep.plan import Plan
from cifar_lightning.sweep.sampler import made, sampler_of
from cifar_onnx import InputError
from cifar_onnx.errors import one_line
from cifar_onnx.sources import is_address

_BEAT = 30  # seconds between signs of life in a database; after two that are missing a process is gone
_BEGINNING = timedelta(seconds=60)  # after which a trial must have said whose it is


class Process:
    """This process among those of a sweep, and what has become of the others.

    Each holds a lock on a file of its own in the folder, which ends with it, however it ends; where this file is not
    there, the process is one of another folder, of which only a database can tell.

    Args:
        study: the sweep's.
        folder: the sweep's.
    """

    def __init__(self, study: optuna.Study, folder: Path) -> None:
        self._study = copy(study)
        self._study.sampler = RandomSampler()  # others may ask to end a loop that does not run
        self._folder = folder
        self._name = uuid.uuid4().hex
        self._lock = FileLock(self._path(self._name))

    def __enter__(self) -> "Process":
        self._lock.acquire()
        self.collect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
        self.collect()
        self._path(self._name).unlink(missing_ok=True)

    def sign(self, trial: optuna.Trial) -> None:
        """Take a trial."""
        trial.set_user_attr("process", self._name)

    def collect(self) -> None:
        """Put the parameters of trials whose process is gone back, to be tried again."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            name = trial.user_attrs.get("process")
            if self._gone(name) if name else _old(trial):
                with suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):  # another one has done it
                    self._study.tell(trial.number, state=TrialState.FAIL)
                    again(self._study, trial, died=name != self._name)
                if name:
                    self._path(name).unlink(missing_ok=True)

    def _gone(self, name: str) -> bool:
        path = self._path(name)
        return (name == self._name or path.exists()) and not runs.held(self._folder, path.name)

    def _path(self, name: str) -> Path:
        return self._folder / f".{name}.lock"


def _old(trial: FrozenTrial) -> bool:
    start = trial.datetime_start
    return start is not None and datetime.now(start.tzinfo) - start > _BEGINNING


def again(study: optuna.Study, trial: FrozenTrial | optuna.Trial, died: bool = False) -> None:
    """Let the parameters of a trial be tried again, or have failed if they have cost two processes their lives.

    Args:
        study: the sweep's.
        trial: which has ended, so that nothing can be noted of it any more.
        died: whether its process did; what has been validated by then was not the cause.
    """
    died_before = trial.user_attrs.get("died", False)
    if not trial.params:
        return
    died = died and not (isinstance(trial, FrozenTrial) and trial.intermediate_values)
    if not (died and died_before):
        study.enqueue_trial(trial.params, {"died": died or died_before})
        return
    known = {**trial.user_attrs, "error": "its process was killed twice: too little memory?"}
    study.add_trial(
        create_trial(state=TrialState.FAIL, params=trial.params, distributions=trial.distributions, user_attrs=known)
    )


def failed(trial: FrozenTrial) -> bool:
    """Whether a trial has failed by its own values."""
    return trial.state == TrialState.FAIL and "error" in trial.user_attrs


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that were asked for, in their order: they go on, have come to their end, or failed by themselves."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state in states or failed(trial)]


def open_study(plan: Plan) -> optuna.Study:
    """Begin the study of a plan, or join it.

    Raises:
        InputError: its storage cannot be used, or it was begun otherwise.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    with named("sampler"):
        sampler = sampler_of(plan)
    with named("pruner"):
        pruner = made(plan.pruner)
    plan.folder.mkdir(parents=True, exist_ok=True)  # where a database may be, too
    name, storage = plan.folder.name, _storage(plan)
    direction: Literal["minimize", "maximize"] = "minimize" if plan.mode == "min" else "maximize"
    study = optuna.create_study(
        storage=storage, study_name=name, direction=direction, sampler=sampler, pruner=pruner, load_if_exists=True
    )
    before = study.user_attrs.get("settings", plan.given)
    if differing := [key for key in {**before, **plan.given} if before.get(key) != plan.given.get(key)]:
        classes = tuple(f"{key}." for key in differing)  # of which settings need not be named
        keys = ", ".join(key for key in differing if not key.startswith(classes))
        raise InputError(
            f"{plan.folder} was begun with other settings ({keys}): "
            "go on with these, or give another name with --experiment"
        )
    study.set_user_attr("settings", plan.given)
    return study


def _storage(plan: Plan) -> BaseStorage:
    place = plan.storage or str(plan.folder / "journal.log")
    if not is_address(place):
        path = Path(place).resolve()  # its lock lies beside it, by whatever name it goes
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = JournalFileOpenLock(str(path))  # Optuna's own choice is a link, which Windows lets few people make
            _mend(path, lock)
            return JournalStorage(JournalFileBackend(str(path), lock))
        except OSError as error:
            raise InputError(f"storage {place} cannot be used ({error.strerror}): name a file or a database") from None
        except ValueError:
            raise InputError(f"storage {place} is not a journal of Optuna: name another file") from None
    try:
        # Trials take long: a connection for each question, of which none is left open.
        engine = {"poolclass": NullPool}
        return RDBStorage(
            place, engine, heartbeat_interval=_BEAT, heartbeat_stale_trial_callback=partial(again, died=True)
        )
    except (SQLAlchemyError, ImportError, RuntimeError) as error:  # the last for tables of another Optuna
        scheme = place.partition("://")[0]  # the rest may hold a password
        raise InputError(f"storage {scheme}://... cannot be used: {one_line(error)}") from None


def _mend(path: Path, lock: JournalFileOpenLock) -> None:
    """Cut off a last line that a process was killed in, on which all others would stumble."""
    if not path.exists():
        return
    lock.acquire()
    try:
        with path.open("rb+") as file:
            data = file.read()
            if data and not data.startswith(b'{"op_code":'):
                raise ValueError
            file.truncate(data.rfind(b"\n") + 1)
    finally:
        lock.release()
