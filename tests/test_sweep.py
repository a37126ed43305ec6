"""Sweeps: what is refused before the first trial, what trials come to, and how they are shared out."""

import csv
import errno
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import optuna
import pytest
import yaml
from optuna.distributions import FloatDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sqlalchemy.pool import NullPool

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning import files, runs
from cifar_lightning.__main__ import main
from cifar_lightning.cli import command
from cifar_lightning.data import ImageData
from cifar_lightning.leaderboard import entry
from cifar_lightning.leaderboard.differences import short
from cifar_lightning.sweep.charts import _importances, draw
from cifar_lightning.sweep.plan import read
from cifar_lightning.sweep.sampler import Sampler
from cifar_lightning.sweep.search import search
from cifar_lightning.sweep.space import Choice, Range
from cifar_lightning.sweep.study import Process, _storage, counted, open_study
from cifar_onnx import InputError
from tests.conftest import BRIEF, Run, Start, write_net

SHIPPED = sorted((Path(__file__).parent.parent / "configs" / "sweeps").glob("*.yaml"))
ONE_CYCLE = {"model.scheduler": ["torch.optim.lr_scheduler.OneCycleLR"], "model.scheduler.max_lr": [0.1]}
RATE, DROPOUT = "model.optimizer.init_args.lr", "model.net.init_args.dropout"
EXPERIMENT = {
    "data": {"class_path": "Digits"},
    "model": {"net": {"class_path": "CNN", "init_args": {"widths": [8, 8, 8], "hidden": 16, "dropout": 0.5}}},
    "trainer": {"max_epochs": 2, "limit_train_batches": 3},
    "checkpoint": {"monitor": "val/loss", "mode": "min"},
}
SPACE = {RATE: {"low": 1e-4, "high": 1e-2, "log": True}, DROPOUT: [0.0, 0.5]}


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    """The files small.yaml, the experiment, and lr.yaml, which searches it."""
    write(tmp_path)


def write(folder: Path, **settings: object) -> Path:
    (folder / "small.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    (folder / "last.yaml").write_text("ckpt_path: last\n")
    sweep = {"config": "small.yaml", "trials": 3, "space": SPACE, **settings}
    (folder / "lr.yaml").write_text(yaml.safe_dump(sweep))
    return folder / "lr.yaml"


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def study(folder: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str((folder / "journal.log").resolve())))
    return optuna.load_study(study_name=folder.name, storage=storage)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a sweep of four trials, and what it printed."""
    place = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch, (place / "out").open("w") as out:
        patch.chdir(place)
        patch.setattr(sys, "stdout", out)
        assert main(["sweep", "--config", str(write(place)), "--trials", "4"]) == 0
    return place / "runs" / "sweep-lr", (place / "out").read_text()


@pytest.fixture
def begun(done: tuple[Path, str]) -> Path:
    """The folder of a sweep that has come to four trials, in which the next test may go on."""
    folder = Path("runs/sweep-lr")
    folder.mkdir(parents=True)
    shutil.copy(done[0] / "journal.log", folder)
    return folder


class TestRefused:
    @pytest.mark.parametrize(
        ("space", "sentence"),
        [
            ({"model.net.init_args.dropot": [0.1]}, "there is no option 'dropot': did you mean 'dropout'?"),
            ({"data.batch_size": [16, "many"]}, "batch_size: expected int, got 'many'"),
            ({"data.batch_size": {"low": 0.5, "high": 32}}, "batch_size: expected int, got '0.5'"),
            ({"trainer.max_epoch": [1]}, "there is no option 'trainer.max_epoch': did you mean 'trainer.max_epochs'?"),
            ({"model.net": ["CNN", "SpedNet"]}, "model.net: no class is called 'SpedNet': did you mean 'SpeedNet'?"),
            (
                {"model.net": ["CNN", "SpeedNet"], "model.net.init_args.hidden": [8, 16]},
                "there is no option 'hidden'",  # in the one of them
            ),
            ({RATE: {"low": 1e-2, "high": 1e-4}}, f"space: {RATE}: low is 0.01, and high is 0.0001: it must be above"),
            ({RATE: {"low": 0.0, "high": 1, "log": True}}, "low is 0.0: with log it must be above 0"),
            ({RATE: {"low": 0.1, "high": 1, "log": True, "step": 0.1}}, "has both log and step"),
            ({RATE: {"low": 0.0, "high": 1, "step": 0.3}}, "steps of 0.3 from low, 0.0, do not reach high, 1"),
            ({RATE: {"low": 0.0, "high": 1, "step": 0}}, "step is 0: it must be above 0"),
            ({RATE: {"low": 0.0, "hihg": 1}}, "there is no 'hihg' in a range: did you mean 'high'?"),
            ({RATE: {"low": 0.0}}, "has no high: a range has low and high"),
            ({RATE: {"low": "small", "high": 1}}, "low is 'small', which is not a number"),
            ({RATE: {"low": 0.1, "high": 1, "log": 2}}, "log is 2: it must be true or false"),
            ({RATE: 0.1}, f"space: {RATE} is 0.1: give {{low: ..., high: ...}} or a list of values"),
            ({RATE: []}, "is an empty list"),
            ({RATE: [0.1, 0.2, 0.1]}, "has 0.1 twice"),
            ({"experiment": ["a", "b"]}, "experiment cannot be searched"),
            ({}, "space is empty"),
            ({**ONE_CYCLE, RATE: [1, 2]}, f"{RATE} does nothing beside OneCycleLR"),
            ({"trainer.accumulate_grad_batches": [1, 0]}, "trainer.accumulate_grad_batches must be at least 1"),
            ({"trainer.gradient_clip_algorithm": ["norm", "x"]}, "error: `gradient_clip_algorithm` x is invalid"),
            ({"data.val_fraction": {"low": 0.1, "high": 0.2}}, "space: val_fraction cannot be searched: the images to"),
            (
                {"data.batch_size": [16, 32], "trainer.limit_val_batches": [5]},
                "space: batch_size with trainer.limit_val_batches cannot be searched: the images to validate on",
            ),
            ({"model.loss.label_smoothing": [0.0, 0.1]}, "with label_smoothing the loss itself changes"),
        ],
    )
    def test_a_space_that_cannot_be(self, run: Run, tmp_path: Path, space: dict[str, object], sentence: str) -> None:
        result = run("sweep", "--config", write(tmp_path, space=space))
        assert result.code == 2
        assert result.err.count("\n") == 1
        assert sentence in result.err
        assert not Path("runs").exists()

    @pytest.mark.parametrize(
        ("settings", "sentence"),
        [
            ({"trails": 3}, "there is no option 'trails': did you mean 'trials'?"),
            ({"trials": "three"}, "trials: expected int, got 'three'"),
            ({"trials": 0}, "trials is 0: it must be at least 1"),
            ({"sampler": {"class_path": "TPESamplr"}}, "no class is called 'TPESamplr': did you mean 'TPESampler'?"),
            ({"sampler": {"class_path": "TPESampler", "init_args": {"sed": 1}}}, "'sed': did you mean 'seed'?"),
            ({"pruner": "TPESampler"}, "pruner: TPESampler is a class of another kind, BaseSampler"),
            ({"pruner": "ThresholdPruner"}, "pruner: Either lower or upper must be specified"),
            (
                {"pruner": {"class_path": "MedianPruner", "init_args": {"n_startup_trials": -1}}},
                "pruner: Number of start",
            ),
            ({"sampler": {"class_path": "GridSampler", "init_args": {"search_space": {}}}}, "take BruteForceSampler"),
            ({"sampler": "BruteForceSampler", "space": SPACE}, f"space: {RATE} has no step: BruteForceSampler tries"),
            ({"sampler": "CmaEsSampler"}, "error: sampler CmaEsSampler needs cmaes: pip install cmaes"),
            ({"config": ["small.yaml", "last.yaml"]}, "ckpt_path is last: leave it out"),
            ({"monitor": "test/accuracy", "mode": "max"}, "a sweep looks at validation only"),
            ({"monitor": "val/acuracy", "mode": "max"}, "there are train/loss, val/loss, val/accuracy"),
            ({"monitor": "val/accuracy"}, "say which mode of val/accuracy is best"),
            ({"mode": "maximum"}, "expected min or max"),
            ({"monitor": "val/loss", "mode": "max"}, "takes the maximum of val/loss for the best"),
            ({"config": "nowhere.yaml"}, "nowhere.yaml: cannot be read"),
            ({"config": 3}, "config is 3: it must name a file"),
            ({"storage": "small.yaml"}, "storage small.yaml is not a journal of Optuna"),
            ({"storage": "nosuch://me:secret@host/name"}, "storage nosuch://... cannot be used"),
        ],
    )
    def test_settings_that_cannot_be(
        self, run: Run, tmp_path: Path, settings: dict[str, object], sentence: str
    ) -> None:
        result = run("sweep", "--config", write(tmp_path, **{"space": {DROPOUT: [0.5]}, **settings}))
        assert result.code == 2
        assert result.err.count("\n") == 1
        assert sentence in result.err
        assert "secret" not in result.err
        assert not [*Path().rglob("version_*")]
        assert yaml.safe_load(Path("small.yaml").read_text()) == EXPERIMENT

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--trails", 3], "there is no option 'trails': did you mean 'trials'?"),
            (["--trainer.devices", 2], "a trial trains on one device"),
            (["--trainer.fast_dev_run"], "fast_dev_run leaves nothing to compare"),
            (["--experiment", "a/b"], "experiment 'a/b' cannot name a folder"),
            (["--ckpt_path", "last"], "ckpt_path is last: leave it out"),
            (["--config", "small.yaml"], "a sweep has one file, not lr.yaml and small.yaml: name the experiment's"),
        ],
    )
    def test_options_that_cannot_be(self, run: Run, words: list[object], sentence: str) -> None:
        result = run("sweep", "--config", "lr.yaml", *words)
        assert result.code == 2
        assert sentence in result.err
        assert not Path("runs").exists()

    def test_a_setting_that_not_every_class_of_the_space_has(self, run: Run, tmp_path: Path) -> None:
        Path("sgd.yaml").write_text("model: {optimizer: {class_path: SGD, init_args: {lr: 0.1}}}\n")
        file = write(tmp_path, config=["small.yaml", "sgd.yaml"], space={"model.optimizer": ["SGD", "Adam"]})
        result = run("sweep", "--config", file, "--model.optimizer.momentum", 0.9)
        assert result.code == 2
        assert "there is no option 'momentum'" in result.err
        assert not Path("runs").exists()

    def test_a_file_without_its_option(self, run: Run) -> None:
        result = run("sweep", "lr.yaml", "--trials", 3)
        assert (result.code, result.err) == (
            2,
            "error: there is no option 'lr.yaml': did you mean '--config lr.yaml'?\n",
        )

    def test_a_missing_package_is_named_with_its_remedy(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.startswith("cifar_lightning.sweep.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "optuna", None)
        result = run("sweep", "--config", "lr.yaml")
        assert result.code == 2
        assert result.err == 'error: sweep needs optuna: pip install "cifar-lightning[sweep]"\n'


class TestPlan:
    def test_what_the_parser_takes_for_any_number_is_not_searched_in_whole_ones(self, tmp_path: Path) -> None:
        space = {DROPOUT: {"low": 0, "high": 1}, "data.batch_size": {"low": 8, "high": 64, "log": True}}
        plan = read(["--config", str(write(tmp_path, space=space))])
        assert plan.space == {DROPOUT: Range(0.0, 1.0), "data.batch_size": Range(8, 64, log=True)}
        assert isinstance(plan.space[DROPOUT].edges[0], float)
        assert plan.first == {DROPOUT: 0.5, "data.batch_size": 64}

    @pytest.mark.parametrize(
        ("span", "value", "inside"),
        [
            (Range(0.1, 0.5, 0.1), 0.3, True),
            (Range(0.1, 0.5, 0.1), 0.35, False),
            (Range(0.1, 0.5), 0.35, True),
            (Range(0.1, 0.5), 0.05, False),
            (Range(1, 9, 2), -1, False),
            (Range(1, 9, 2), 7, True),
            (Range(1, 9, 2), 8, False),
            (Range(1, 9), 2.0, False),
            (Range(0, 1), True, False),
            (Range(1e-4, 1e-2, log=True), 0.1, False),
            (Range(0.0, 1.0, 0.5), float("nan"), False),
        ],
    )
    def test_a_value_lies_in_a_range_or_not(self, span: Range, value: float, inside: bool) -> None:
        assert span.label(value) == (value if inside else None)

    def test_the_experiment_is_no_trial_where_it_does_not_lie_in_the_space(self, tmp_path: Path) -> None:
        plan = read(["--config", str(write(tmp_path, space={**SPACE, "trainer.max_epochs": [1]}))])
        assert plan.first == {RATE: 0.001, DROPOUT: 0.5, "trainer.max_epochs": 1}
        plan = read(["--config", str(write(tmp_path, space={**SPACE, DROPOUT: [0.1, 0.2]}))])
        assert plan.first == {}

    def test_the_experiment_is_found_among_classes_by_their_short_names(self, tmp_path: Path) -> None:
        file = write(tmp_path, space={"model.loss": ["Focal", "CrossEntropy"]}, monitor="val/accuracy", mode="max")
        assert read(["--config", str(file)]).first == {"model.loss": "CrossEntropy"}

    def test_settings_of_a_loss_that_validation_does_not_know_may_be_searched_by_it(self, tmp_path: Path) -> None:
        space = {"model.loss.class_weights": [None, "inverse"], "data.split_seed": [3]}
        plan = read(["--config", str(write(tmp_path, space=space))])
        assert (plan.monitor, {*plan.space}) == ("val/loss", {*space})

    def test_the_experiment_is_found_among_lists(self, tmp_path: Path) -> None:
        space = {
            "model.net.widths": [[4, 4], [4, 4, 4]],
            "data.augment": [[], ["Mirror"], [{"class_path": "Mirror", "init_args": {"probability": 0.25}}]],
        }
        words = ["--model.net.widths", "[4, 4, 4]", "--data.augment+", "Mirror", "--data.augment.probability", "0.25"]
        plan = read(["--config", str(write(tmp_path, space={**SPACE, **space})), *words])
        assert plan.space["model.net.widths"].edges[1] == [4, 4, 4]
        assert plan.first["model.net.widths"] == "[4, 4, 4]"
        assert json.loads(plan.first["data.augment"]) == space["data.augment"][2]  # the second fits, too, and says less

    def test_another_pruner_has_its_own_defaults(self) -> None:
        assert read(["--config", "lr.yaml"]).pruner.init_args.n_warmup_steps == 2
        other = read(["--config", "lr.yaml", "--pruner", "ThresholdPruner", "--pruner.upper", "1"]).pruner
        assert (other.init_args.upper, other.init_args.n_warmup_steps) == (1.0, 0)

    def test_typed_beats_the_file(self) -> None:
        words = ["--trials", "7", "--sampler", "RandomSampler", "--trainer.max_epochs=1", "--experiment=x"]
        plan = read(["--config", "lr.yaml", *words])
        assert (plan.trials, plan.sampler.class_path) == (7, "optuna.samplers.RandomSampler")
        assert plan.folder == Path("runs/x")
        assert "--trainer.max_epochs=1" in plan.words

    def test_each_process_may_choose_where_it_runs_and_the_order_of_its_options(self, begun: Path) -> None:
        open_study(read(["--config", "lr.yaml", "--trainer.accelerator", "cpu", "--trainer.devices=1"]))
        net, batch = ["--model.net.widths", "[4, 4]"], ["--data.batch_size", "16"]
        assert read(["--config", "lr.yaml", *net, *batch]).given == read(["--config", "lr.yaml", *batch, *net]).given
        with pytest.raises(InputError, match=r"with other settings \(model.optimizer, data.batch_size\): go on"):
            open_study(read(["--config", "lr.yaml", "--model.optimizer", "SGD", *batch]))

    def test_the_file_may_be_given_as_to_fit(self) -> None:
        assert read(["-c", "lr.yaml"]) == read(["--config", "lr.yaml"])

    def test_numbers_may_be_written_as_people_do(self, tmp_path: Path) -> None:
        file = tmp_path / "lr.yaml"
        file.write_text(f"config: small.yaml\nspace: {{{RATE}: {{low: 1e-4, high: 1e-2}}}}\n")
        assert read(["--config", str(file)]).space == {RATE: Range(1e-4, 1e-2)}

    @pytest.mark.slow
    def test_a_class_may_be_searched_with_its_settings(self, tmp_path: Path) -> None:
        nets = ["CNN", {"class_path": "CNN", "init_args": {"widths": [4, 4]}}]
        space = {"model.net.init_args.dropout": [0.0, 0.1], "model.net": nets}
        plan = read(["--config", str(write(tmp_path, space=space))])
        assert plan.space["model.net"] == Choice(tuple(nets))
        space["model.net.init_args.dropout"] = [0.0, 0.5]
        plan = read(["--config", str(write(tmp_path, space=space))])
        assert plan.first["model.net"] == "CNN"
        plan = read(["--config", str(write(tmp_path, space=space)), "--model.net.widths", "[4, 4]"])
        assert json.loads(plan.first["model.net"]) == nets[1]  # the first fits, too, and says less

    @pytest.mark.slow
    def test_settings_may_have_classes_in_them(self, run: Run, tmp_path: Path) -> None:
        wrapped = {"wrapped_pruner": {"class_path": "MedianPruner"}, "patience": 1}
        file = write(tmp_path, pruner={"class_path": "PatientPruner", "init_args": wrapped})
        assert run("sweep", "--config", file, "--trials", 1).code == 0

    def test_keys_are_shown_by_their_shortest_end(self) -> None:
        keys = ["a.init_args.lr", "b.init_args.lr", "data.size", "size_of.x"]
        assert [short(key, keys) for key in keys] == ["a.init_args.lr", "b.init_args.lr", "size", "x"]

    @pytest.mark.parametrize("config", SHIPPED, ids=lambda path: path.stem)
    def test_every_shipped_sweep_runs(self, run: Run, config: Path) -> None:
        words = ("--trials", 1, *BRIEF[-2:], "--experiment", "a b")
        result = run("sweep", "--config", config, *words)
        assert result.code == 0, result.err
        for text in (result.out, Path("runs/a b/best.yaml").read_text()):
            assert "fit --config 'runs/a b/best.yaml'\n" in text
        assert "test --ckpt_path 'runs/a b/version_0/checkpoints/best.ckpt'\n" in result.out
        assert len(config.read_text().splitlines()) <= 40


class TestTrials:
    def test_each_is_a_run_and_has_a_line(self, done: tuple[Path, str]) -> None:
        folder, out = done
        rows = table(folder)
        assert [row["state"] for row in rows[:2]] == ["complete", "complete"]
        assert len([line for line in out.splitlines() if line.startswith("trial ")]) == len(rows) + 1  # and the table
        for row in rows:
            run = folder / Path(row["run"]).name
            config = yaml.safe_load((run / "config.yaml").read_text())
            assert config["model"]["optimizer"]["init_args"]["lr"] == float(row[RATE])
            assert config["model"]["net"]["init_args"]["dropout"] == float(row[DROPOUT])
            with (run / "metrics.csv").open(newline="") as file:
                losses = [float(line["val/loss"]) for line in csv.DictReader(file) if line["val/loss"]]
            assert min(losses) == float(row["val/loss"])

    @pytest.mark.parametrize(
        ("words", "epoch"),
        [
            (("--checkpoint.every_n_epochs", 2), 1),
            (("--checkpoint.every_n_epochs", 4, "--model.optimizer.maximize", "true"), 2),  # it unlearns
        ],
    )
    def test_its_value_is_that_of_an_epoch_that_is_kept(self, words: tuple[object, ...], epoch: int, run: Run) -> None:
        words = ("--trials", 1, "--trainer.max_epochs", 3, *words)
        assert run("sweep", "--config", "lr.yaml", *words).code == 0
        (row,) = table(Path("runs/sweep-lr"))
        with Path(row["run"], "metrics.csv").open(newline="") as file:
            losses = [float(line["val/loss"]) for line in csv.DictReader(file) if line["val/loss"]]
        assert float(row["val/loss"]) == losses[epoch] > min(losses)
        assert checkpoints.load(Path(row["run"], runs.BEST if epoch == 1 else runs.LAST))["epoch"] == epoch

    def test_the_first_is_the_experiment_itself(self, done: tuple[Path, str]) -> None:
        row = table(done[0])[0]
        assert (float(row[RATE]), float(row[DROPOUT])) == (0.001, 0.5)

    @pytest.mark.slow
    def test_the_same_sweep_gives_the_same_trials(self, run: Run, done: tuple[Path, str]) -> None:
        assert run("sweep", "--config", "lr.yaml", "--trials", 2).code == 0
        again = [{**row, "seconds": ""} for row in table(Path("runs/sweep-lr"))]
        assert again == [{**row, "seconds": ""} for row in table(done[0])[:2]]

    def test_the_best_config_gives_the_same_metrics_again(self, run: Run, done: tuple[Path, str]) -> None:
        folder, out = done
        best = min(table(folder), key=lambda row: float(row["val/loss"]))
        assert run("fit", "--config", folder / "best.yaml").code == 0
        metrics = (folder / Path(best["run"]).name / "metrics.csv").read_text()
        assert Path("runs/sweep-lr-best/version_0/metrics.csv").read_text() == metrics
        assert f"next: python -m cifar_lightning test --ckpt_path {best['run']}/checkpoints/best.ckpt" in out

    def test_the_best_config_finds_what_lies_beside_the_experiments(self, done: tuple[Path, str]) -> None:
        place = done[0].parent.parent  # of small.yaml
        assert place in command.read(["fit", "--config", str(done[0] / "best.yaml")]).import_folders

    def test_there_are_pictures(self, done: tuple[Path, str]) -> None:
        for name, words in (
            ("history.svg", ["val/loss", "best so far"]),
            ("slices.svg", [">lr<", ">dropout<"]),
        ):
            text = (done[0] / name).read_text()
            assert text.count("<svg") == 1
            assert all(word in text for word in words), name
            assert name in done[1]

    def test_the_key_that_ruins_trials_is_the_important_one(self) -> None:
        """Though every trial that it ruins is pruned, so that to the end come such as differ by another key."""
        plan = read(["--config", "lr.yaml"])
        plan.folder.mkdir(parents=True)
        found = optuna.create_study()
        for place in range(12):
            rate, dropout = 10 ** (-4 + place / 6), 0.5 * (place % 2)
            found.enqueue_trial({RATE: rate, DROPOUT: dropout})
            trial = found.ask({key: part.distribution for key, part in plan.space.items()})
            loss = 2.3 if rate < 3e-4 else 0.5 + 0.1 * dropout
            trial.report(loss, 1)
            found.tell(trial, None, TrialState.PRUNED) if loss > 2 else found.tell(trial, loss)
        assert draw(found.trials[:9], plan) == ["history.svg", "slices.svg"]  # of which chance would tell
        assert draw(found.trials, plan)[-1] == "importance.svg"
        text = (plan.folder / "importance.svg").read_text()
        *_, low, high, less, more = re.findall(r">(lr|dropout|\d+)%?<", text)
        assert (low, high) == ("dropout", "lr")
        assert int(less) < 10 < 90 < int(more)

    def test_a_logarithmic_range_is_averaged_over_on_its_scale(self) -> None:
        """A low rate that harms is a sixth of the range there, and a fiftieth of it on a linear one."""
        plan, found = read(["--config", "lr.yaml"]), optuna.create_study()
        for place in range(12):
            rate, dropout = 10 ** (-4 + place / 6), 0.5 * (place % 2)
            found.enqueue_trial({RATE: rate, DROPOUT: dropout})
            trial = found.ask({key: part.distribution for key, part in plan.space.items()})
            trial.report(loss := 0.5 + 0.5 * (rate < 3e-4) + 0.4 * dropout, 1)
            found.tell(trial, loss)
        assert _importances(found.trials, [RATE, DROPOUT], plan)[RATE] > 0.5

    def test_what_failed_after_some_validations_is_not_drawn_as_pruned(self) -> None:
        plan = read(["--config", "lr.yaml"])
        plan.folder.mkdir(parents=True)
        found = optuna.create_study()
        for state in (TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE):
            trial = found.ask({key: part.distribution for key, part in plan.space.items()})
            trial.report(0.5, 1)
            if state == TrialState.FAIL:
                trial.set_user_attr("error", "the loss is nan")
            found.tell(trial, 0.5 if state == TrialState.COMPLETE else None, state)
        for pruned, trials in ((True, found.trials), (False, found.trials[1:])):
            draw(trials, plan)
            assert (">pruned<" in (plan.folder / "history.svg").read_text()) == pruned

    def test_the_test_set_is_never_asked_for(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        asked, images = set(), ImageData.images

        def watched(self: ImageData, part: Any) -> Any:
            asked.add(part)
            return images(self, part)

        monkeypatch.setattr(ImageData, "images", watched)
        assert run("sweep", "--config", "lr.yaml", "--trials", 1).code == 0
        assert asked == {"train", "val"}

    def test_those_that_fall_behind_are_pruned(self, run: Run, tmp_path: Path) -> None:
        pruner = {"class_path": "MedianPruner", "init_args": {"n_startup_trials": 1, "n_warmup_steps": 2}}
        space = {"model.optimizer.init_args.lr": [1e-9, 1e-3]}  # of which the experiment has the second
        file = write(tmp_path, space=space, sampler="BruteForceSampler", pruner=pruner, trials=9)
        result = run("sweep", "--config", file, "--trainer.max_epochs", 3)
        assert result.code == 0, result.err
        rows = sorted(table(Path("runs/sweep-lr")), key=lambda row: float(row[RATE]), reverse=True)
        assert [row["state"] for row in rows] == ["complete", "pruned"]
        assert (rows[0]["validations"], rows[1]["validations"]) == ("3", "2")  # what is not yet trained is as bad at 1
        assert "pruned after 2" in result.out
        folder = Path(rows[1]["run"])
        known = entry.read(folder, folder.parent)
        assert (known.state, known.epochs, len(known.curve)) == ("pruned", 2, 2)
        for name, epoch in ((runs.BEST, known.best), (runs.LAST, 1)):
            assert checkpoints.load(folder / name)["epoch"] == epoch

    def test_one_that_cannot_be_is_noted_and_the_others_go_on(self, run: Run, tmp_path: Path) -> None:
        file = write(tmp_path, space={DROPOUT: [0.5, 1.5]}, sampler="BruteForceSampler")
        result = run("sweep", "--config", file)
        assert result.code == 0, result.err
        states = {row[DROPOUT]: (row["state"], row["error"]) for row in table(Path("runs/sweep-lr"))}
        assert states["0.5"] == ("complete", "")
        assert states["1.5"][0] == "failed"
        assert "dropout probability has to be between 0 and 1" in states["1.5"][1]
        assert states["1.5"][1] in result.out

    @pytest.mark.parametrize(
        ("error", "noted"),
        [
            (InputError("x.ckpt: cannot be read"), "x.ckpt: cannot be read"),
            (RuntimeError("err == 0.\nDefaultCPUAllocator: can't allocate memory"), "can't allocate memory"),
            (MemoryError(), "MemoryError"),
            (SystemExit(2), "its values are refused by the parser"),
        ],
    )
    def test_what_a_value_leads_to_is_a_failure_of_the_value(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, noted: str
    ) -> None:
        error.__cause__ = FileNotFoundError(errno.ENOENT, "No such file or directory")
        monkeypatch.setattr("cifar_lightning.sweep.trial.run", Mock(side_effect=error))
        result = run("sweep", "--config", "lr.yaml", "--trials", 1)
        assert result.code == 2
        assert re.fullmatch(f"error: all 1 trials have failed, the last one: .*{re.escape(noted)}\n", result.err)
        (row,) = table(Path("runs/sweep-lr"))
        assert noted in row["error"]

    @pytest.mark.slow
    def test_a_class_and_the_same_with_settings_are_two_values(self, run: Run, tmp_path: Path) -> None:
        nets = ["CNN", {"class_path": "CNN", "init_args": {"widths": [4, 4]}}]
        file = write(tmp_path, space={"model.net": nets}, sampler="BruteForceSampler")
        result = run("sweep", "--config", file, "--model.net.widths", "[8, 8]")
        assert result.code == 0, result.err
        assert len({row["model.net"] for row in table(Path("runs/sweep-lr"))}) == 2
        assert "slices.svg" in result.out

    @pytest.mark.parametrize(
        ("module", "name"), [(files, "put"), pytest.param(runs, "FileLock", marks=pytest.mark.slow)]
    )
    def test_what_the_machine_refuses_is_no_failure_of_the_values(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
            result = run("sweep", "--config", "lr.yaml", "--trials", 1)
        assert result.code == 2
        assert "(No space left on device" in result.err
        result = run("sweep", "--config", "lr.yaml", "--trials", 1)
        assert result.code == 0, result.err
        (row,) = table(Path("runs/sweep-lr"))
        assert (row["state"], float(row[RATE]), float(row[DROPOUT])) == ("complete", 0.001, 0.5)

    @pytest.mark.slow
    def test_where_none_comes_to_its_end_it_says_so(self, run: Run, tmp_path: Path) -> None:
        file = write(tmp_path, pruner={"class_path": "ThresholdPruner", "init_args": {"upper": 0.0}})
        result = run("sweep", "--config", file, "--trials", 2)
        assert result.code == 0, result.err
        assert result.out.endswith("no trial has finished: pruned or failed: 2\n")
        assert [row["state"] for row in table(Path("runs/sweep-lr"))] == ["pruned", "pruned"]
        assert len([*Path("runs/sweep-lr").glob(f"version_*/{runs.BEST}")]) == 2

    def test_the_next_command_allows_a_net_of_ones_own_and_names_its_file(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_net("swept_net", "Swept", monkeypatch)
        words = ("--model.net", "swept_net.Swept", "--checkpoint.filename", "mine", "--trials", 1)
        file = write(Path(), space={RATE: [1e-3]}, config=[])
        result = run("sweep", "--config", file, *BRIEF, *words)
        assert result.code == 0, result.err
        own = "--allow_custom_classes --config runs/sweep-lr/version_0/config.yaml"
        assert result.out.endswith(f"test --ckpt_path runs/sweep-lr/version_0/checkpoints/mine.ckpt {own}\n")

    @pytest.mark.parametrize("never", ["--trainer.limit_val_batches=0", "--trainer.max_steps=1"])
    def test_without_a_validation_there_is_nothing_to_compare(self, run: Run, tmp_path: Path, never: str) -> None:
        result = run("sweep", "--config", write(tmp_path), never)
        assert result.code == 2
        assert "val/loss is never measured: a sweep needs trainer.limit_val_batches above 0" in result.err

    @pytest.mark.slow
    def test_a_loss_that_is_not_finite_is_one_of_those(self, run: Run, tmp_path: Path) -> None:
        words = ("--model.optimizer", "SGD", "--model.optimizer.lr", 1e30)
        file = write(tmp_path, space={RATE: [1e30, 1e31]})
        result = run("sweep", "--config", file, "--trials", 2, *words)
        assert result.code == 2
        assert "all 2 trials have failed, the last one: the loss is" in result.err.splitlines()[-1]

    @pytest.mark.slow
    def test_it_ends_where_it_is_not_the_values_that_fail(self, run: Run) -> None:
        words = ("--data", "ImageFolder", "--data.root", "nowhere", "--trials", 30)
        result = run("sweep", "--config", "lr.yaml", *words)
        assert result.code == 2
        assert "5 trials in a row have failed, the last one: " in result.err
        assert len(counted(study(Path("runs/sweep-lr")))) == 5


class TestGoingOn:
    def test_what_is_done_is_only_reported_again(self, run: Run, done: tuple[Path, str], begun: Path) -> None:
        result = run("sweep", "--config", "lr.yaml", "--trials", 4)
        assert result.code == 0, result.err
        assert result.out.strip() in done[1]
        for name in ("trials.csv", "best.yaml", "history.svg", "slices.svg"):
            assert (begun / name).read_text() == (done[0] / name).read_text()
        assert not [*begun.glob("version_*")]

    def test_trials_that_were_validated_on_other_images_are_told(self, run: Run, begun: Path) -> None:
        for last, told in (("a", False), ("b", True)):
            for trial, digest in zip(study(begun).trials[1:], ("a", "a", last), strict=True):  # earlier runs note none
                folder = Path(trial.user_attrs["run"])
                folder.mkdir(exist_ok=True)
                runs.record(folder, validation=digest)
            result = run("sweep", "--config", "lr.yaml", "--trials", 4)
            assert ("not comparable as they are: not all trials were validated on" in result.out) == told

    @pytest.mark.slow
    def test_more_trials_may_be_asked_for(self, run: Run, done: tuple[Path, str], begun: Path) -> None:
        result = run("sweep", "--config", "lr.yaml", "--trials", 5)
        assert result.code == 0, result.err
        assert table(begun)[:4] == table(done[0])
        assert table(begun)[4]["run"] == "runs/sweep-lr/version_0"

    def test_with_other_settings_it_is_refused(self, run: Run, tmp_path: Path, begun: Path) -> None:
        changed = write(tmp_path, space={RATE: [1e-3, 1e-2]})
        result = run("sweep", "--config", changed, "--trials", 5)
        assert result.code == 2
        assert f"{begun} was begun with other settings (space): go on with these" in result.err
        result = run("sweep", "--config", write(tmp_path), "--trials", 5, "--trainer.max_epochs", 1)
        assert "(trainer.max_epochs)" in result.err

    def test_where_all_combinations_are_tried_none_is_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        space = {DROPOUT: {"low": 0.0, "high": 0.5, "step": 0.25}, "data.batch_size": {"low": 63, "high": 64}}
        words = ["--config", str(write(tmp_path, space=space, sampler="BruteForceSampler", trials=9))]
        searched = Mock()
        monkeypatch.setattr("cifar_lightning.sweep.search._search", searched)
        monkeypatch.setattr("cifar_lightning.sweep.results.write", Mock())
        plan = read(words)
        for count in (5, 9):
            found = open_study(plan)
            found.optimize(lambda trial: len([part.suggest(trial, key) for key, part in plan.space.items()]), count)
            search(words)
        assert len(found.trials) == 6
        searched.assert_called_once()

    @pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
    def test_draws_do_not_depend_on_which_process_asks(self) -> None:
        def objective(trial: optuna.Trial) -> float:
            return trial.suggest_float("x", 0, 1) + (trial.suggest_categorical("c", ["a", "b"]) == "a")

        def params(*parts: int) -> list[dict[str, Any]]:
            storage = optuna.storages.InMemoryStorage()
            for count in parts:
                sampler = Sampler(lambda seed: TPESampler(seed=seed, n_startup_trials=3), {})
                found = optuna.create_study(study_name="x", storage=storage, sampler=sampler, load_if_exists=True)
                found.optimize(objective, count)
            return [trial.params for trial in found.trials]

        whole = params(6)
        assert params(1, 2, 3) == whole
        assert len({each["x"] for each in whole}) == 6
        first = optuna.create_study(sampler=Sampler(lambda seed: RandomSampler(seed), {"x": 0.25, "c": "b"}))
        first.optimize(objective, 2)
        assert first.trials[0].params == {"x": 0.25, "c": "b"}
        assert first.trials[1].params["x"] != 0.25

    def test_the_first_of_samplers_without_a_seed_of_their_own_is_the_experiment_too(self) -> None:
        plan = read(["--config", "lr.yaml", "--sampler", "QMCSampler"])
        found = open_study(plan)
        found.optimize(lambda trial: len([part.suggest(trial, key) for key, part in plan.space.items()]), 3)
        assert found.trials[0].params == plan.first
        assert len({trial.params[RATE] for trial in found.trials}) == 3

    @pytest.mark.slow
    def test_what_a_finder_leaves_behind_is_not_where_the_best_begins(self, run: Run) -> None:
        finder = ("--trainer.callbacks+", "LearningRateFinder", "--trainer.callbacks.num_training_steps", 3)
        assert run("sweep", "--config", "lr.yaml", "--trials", 1, *finder).code == 0
        assert yaml.safe_load(Path("runs/sweep-lr/best.yaml").read_text())["ckpt_path"] is None

    @pytest.mark.slow
    def test_the_trial_of_a_killed_process_is_tried_again(self, run: Run, start: Start) -> None:
        child = start("sweep", "--config", "lr.yaml", "--trainer.max_epochs", 12)
        journal = Path("runs/sweep-lr/journal.log")
        assert child.wait_for(lambda: validated(journal))
        child.process.kill()
        child.wait()
        (lost,) = study(Path("runs/sweep-lr")).trials
        assert lost.state == TrialState.RUNNING
        with journal.open("a") as file:
            file.write('{"op_code":4,')  # as if it had been killed in the middle of a line
        result = run("sweep", "--config", "lr.yaml", "--trials", 1, "--trainer.max_epochs", 12)
        assert result.code == 0, result.err
        gone, again = study(Path("runs/sweep-lr")).trials
        assert (gone.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
        assert again.params == lost.params
        assert [row["trial"] for row in table(Path("runs/sweep-lr"))] == ["1"]

    def test_one_is_tried_again_where_its_process_held_a_lock(self, begun: Path, tmp_path: Path) -> None:
        """By a database, processes of other folders have trials too: their locks are not there."""
        both, one, other = study(begun), tmp_path / "one", tmp_path / "other"
        for folder in (one, other):
            folder.mkdir()
        process = Process(both, one).__enter__()
        process.sign(both.ask())
        for folder in (one, other):
            with Process(both, folder):
                assert both.trials[-1].state == TrialState.RUNNING
        process._lock.release()  # as if it had been killed
        process._path(process._name).touch()  # which Windows has removed
        one.rename(tmp_path / "moved")
        with Process(both, tmp_path / "moved"):
            assert both.trials[-1].state == TrialState.FAIL
        assert not [*tmp_path.glob("moved/.*.lock")]

    def test_what_costs_two_processes_their_lives_has_failed(self, tmp_path: Path) -> None:
        found, space = optuna.create_study(), {"x": FloatDistribution(0, 1)}

        def killed(trial: optuna.Trial) -> None:
            process = Process(found, tmp_path).__enter__()
            process.sign(trial)
            process._lock.release()
            with Process(found, tmp_path):
                assert not process._path(process._name).exists()

        killed(first := found.ask(space))
        assert counted(found) == []
        later = found.ask(space)  # what had been validated when its process died is not to blame
        later.report(1, 1)
        killed(later)
        assert counted(found) == []
        with Process(found, tmp_path) as process:  # and stopped, which is no death
            process.sign(found.ask(space))
        assert counted(found) == []
        killed(found.ask(space))
        (lost,) = counted(found)
        assert (lost.state, lost.params) == (TrialState.FAIL, first.params)
        assert lost.user_attrs["error"] == "its process was killed twice: too little memory?"
        assert TrialState.WAITING not in [trial.state for trial in found.trials]

    @pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # of heartbeats, as in open_study
    def test_what_costs_two_processes_their_lives_has_failed_where_a_database_tells_of_them(self) -> None:
        storage = _storage(read(["--config", "lr.yaml", "--storage", "sqlite:///sweep.db"]))
        assert isinstance(storage, RDBStorage)
        lost = storage.get_heartbeat_stale_trial_callback()
        assert lost is not None
        found, space = optuna.create_study(), {"x": FloatDistribution(0, 1)}
        for _ in range(2):
            assert counted(found) == []
            lost(found, found.tell(found.ask(space), state=TrialState.FAIL))
        assert [trial.params for trial in counted(found)] == [found.trials[0].params]
        assert TrialState.WAITING not in [trial.state for trial in found.trials]

    @pytest.mark.slow
    def test_a_trial_that_was_never_signed_counts_as_long_as_it_may_yet_be(
        self, run: Run, begun: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study(begun).ask()
        result = run("sweep", "--config", "lr.yaml", "--trials", 5)
        assert "1 more is being tried by other processes" in result.out
        assert len(table(begun)) == 4
        monkeypatch.setattr("cifar_lightning.sweep.study._BEGINNING", timedelta(0))
        assert run("sweep", "--config", "lr.yaml", "--trials", 5).code == 0
        assert [row["trial"] for row in table(begun)] == ["0", "1", "2", "3", "5"]

    def test_a_signal_ends_it_and_what_is_done_is_kept(self, run: Run, start: Start) -> None:
        child = start("sweep", "--config", "lr.yaml", "--trainer.max_epochs", 12)
        journal = Path("runs/sweep-lr/journal.log")
        assert child.wait_for(lambda: validated(journal))
        assert child.process.pid
        os.kill(child.process.pid, signal.SIGTERM)
        ended = child.wait()
        assert ended.code == 143
        assert "next: python -m cifar_lightning sweep --config lr.yaml --trainer.max_epochs 12" in ended.out
        waiting = study(Path("runs/sweep-lr")).trials[-1]
        assert waiting.state == TrialState.WAITING
        assert waiting.system_attrs["fixed_params"] == {RATE: 0.001, DROPOUT: 0.5}
        assert not [*Path("runs/sweep-lr").glob(".*.lock")]


class TestTogether:
    @pytest.mark.slow
    def test_two_processes_share_the_trials_out(self, start: Start) -> None:
        children = [start("sweep", "--config", "lr.yaml", "--trials", 4) for _ in range(2)]
        ended = [child.wait() for child in children]
        assert [result.code for result in ended] == [0, 0], ended
        own = [{line.split()[1] for line in result.out.splitlines() if line[6:7].isdigit()} for result in ended]
        assert not own[0] & own[1]
        rows = table(Path("runs/sweep-lr"))
        assert len(rows) == 4 == len(own[0] | own[1])
        assert len({(row[RATE], row[DROPOUT]) for row in rows}) == 4
        assert len({row["run"] for row in rows}) == 4

    def test_one_too_many_is_given_up(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """As where two processes begin the last trial at the same time."""
        ask = optuna.Study.ask

        def late(self: optuna.Study, *args: Any) -> optuna.Trial:
            monkeypatch.setattr(optuna.Study, "ask", ask)
            ask(self)
            return ask(self)

        monkeypatch.setattr(optuna.Study, "ask", late)
        result = run("sweep", "--config", "lr.yaml", "--trials", 1)
        assert result.code == 0, result.err
        assert [trial.state for trial in study(Path("runs/sweep-lr")).trials] == [TrialState.RUNNING, TrialState.FAIL]
        assert not [*Path("runs").rglob("version_*")]

    @pytest.mark.parametrize(
        "notices", [lambda trial: trial.report(0.5, 2), lambda trial: trial.set_user_attr("kept", "x")]
    )
    def test_one_that_was_taken_over_is_left_to_the_other(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, notices: Callable[[optuna.Trial], None]
    ) -> None:
        """As by a database, where the process was suspended for some minutes, within the trial or at its end."""

        def value(trial: optuna.Trial, *_: object) -> float:
            trial.report(0.5, 1)
            if trial.number == 0:
                trial.study.tell(0, state=TrialState.FAIL)
            notices(trial)
            return 0.5

        monkeypatch.setattr("cifar_lightning.sweep.search.value_of", value)
        monkeypatch.setattr("cifar_lightning.sweep.results.write", Mock())
        result = run("sweep", "--config", "lr.yaml", "--trials", 1)
        assert result.code == 0, result.err
        lines = result.out.splitlines()
        assert lines[0] == "trial 0 was taken over by another process"
        assert lines[1].startswith("trial 1  val/loss 0.5000")
        assert [trial.state for trial in study(Path("runs/sweep-lr")).trials] == [TrialState.FAIL, TrialState.COMPLETE]

    def test_so_is_one_that_was_taken_over_while_it_was_told(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Optuna looks at its state before it writes that of its end: another process may come between."""
        optimize, said = optuna.Study.optimize, "Trial#0 has already finished and can not be updated."
        told = Mock(side_effect=[optuna.exceptions.UpdateFinishedTrialError(said), None])

        def interrupted(self: optuna.Study, *words: Any, **settings: Any) -> None:
            optimize(self, *words, **settings, n_trials=1)
            told()

        monkeypatch.setattr("cifar_lightning.sweep.search.value_of", lambda *_: 0.5)
        monkeypatch.setattr("cifar_lightning.sweep.results.write", Mock())
        monkeypatch.setattr(optuna.Study, "optimize", interrupted)
        result = run("sweep", "--config", "lr.yaml", "--trials", 2)
        assert result.code == 0, result.err
        assert "trial 0 was taken over by another process\n" in result.out
        assert told.call_count == 2

    def test_another_error_is_not_taken_for_that(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cifar_lightning.sweep.search.value_of", Mock(side_effect=[ValueError("a bug"), 0.5]))
        monkeypatch.setattr("cifar_lightning.sweep.results.write", Mock())
        with pytest.raises(ValueError, match=r"^a bug$"):
            search(["--config", "lr.yaml", "--trials", "1"])

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            (
                "trainer: {max_epochs: 3}",
                "the config files of runs/sweep-lr have changed since this process began: put",
            ),
            ("trainer: {max_ep", "small.yaml"),  # as while somebody saves it
        ],
    )
    def test_a_config_file_that_changes_meanwhile_ends_it(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, text: str, sentence: str
    ) -> None:
        def value(trial: optuna.Trial, *_: object) -> float:
            Path("small.yaml").write_text(text)
            return 0.5

        monkeypatch.setattr("cifar_lightning.sweep.search.value_of", value)
        result = run("sweep", "--config", "lr.yaml", "--trials", 9)
        assert result.code == 2
        assert result.err.splitlines()[-1].startswith(f"error: {sentence}")
        assert [trial.state for trial in counted(study(Path("runs/sweep-lr")))] == [TrialState.COMPLETE]

    def test_a_storage_that_goes_away_ends_it_with_a_sentence(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        gone = optuna.exceptions.StorageInternalError("An exception is raised during the commit.")
        gone.__cause__ = OSError("database is locked")
        monkeypatch.setattr(optuna.Study, "optimize", Mock(side_effect=gone))
        result = run("sweep", "--config", "lr.yaml", "--trials", 1)
        assert result.code == 2
        sentence = "the storage of runs/sweep-lr is gone (database is locked): the same command goes on with it"
        assert result.err.splitlines()[-1] == f"error: {sentence}"

    def test_a_database_of_another_optuna_is_named(self, run: Run) -> None:
        Path("runs").mkdir()
        words = ("sweep", "--config", "lr.yaml", "--storage", "sqlite:///runs/sweep.db", "--trials", 1)
        RDBStorage(words[4], {"poolclass": NullPool})
        with closing(sqlite3.connect("runs/sweep.db")) as database, database:
            database.execute("update alembic_version set version_num = 'v0.9.0.a'")
        result = run(*words)
        assert result.code == 2
        assert result.err.startswith("error: storage sqlite://... cannot be used: ")

    def test_its_lock_is_no_link_which_windows_lets_few_people_make(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "symlink", Mock(side_effect=OSError("a privilege is not held")))
        assert optuna.create_study(storage=_storage(read(["--config", "lr.yaml"]))).trials == []

    @pytest.mark.slow
    def test_a_database_takes_the_place_of_the_file(self, run: Run) -> None:
        words = ("sweep", "--config", "lr.yaml", "--storage", "sqlite:///runs/sweep-lr/sweep.db", "--trials")
        assert run(*words, 1).code == 0
        assert run(*words, 2).code == 0
        assert len(table(Path("runs/sweep-lr"))) == 2
        assert not Path("runs/sweep-lr/journal.log").exists()


def validated(journal: Path) -> bool:
    """Whether a trial has been validated twice, and nobody is writing: that lock would be waited for for 30 seconds."""
    lock = journal.with_name(f"{journal.name}.lock")
    return journal.exists() and '"step":2' in journal.read_text() and not lock.exists()
