"""Run folders: refused where they cannot be, and found again."""

import csv
import errno
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import lightning.pytorch as L
import pytest
import yaml
from lightning.pytorch.callbacks import Timer

from cifar_lightning import files, runs
from cifar_lightning.checkpoint import load
from cifar_lightning.cli.command import header, read
from cifar_lightning.cli.config_file import dump_yaml, load_yaml
from cifar_lightning.cli.metrics_file import MetricsFile
from cifar_lightning.data import Digits
from cifar_lightning.reproduce import _differences, reproduce
from cifar_onnx import InputError
from tests.conftest import BRIEF, Run, Start, command_line, write_net


def for_nobody() -> bool:
    """Whether any user may read the project and its libraries, which root may have where nobody else may look."""
    folders = {*Path(__file__).resolve().parents, *Path(yaml.__file__).resolve().parents}
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)


def as_nobody(*words: str) -> int:
    os.setuid(65534)
    return command_line(*words)


class Spoil(L.Callback):
    """After the first epoch there is a file in the place of the checkpoints' folder."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        Path("runs/cnn/version_0/checkpoints").write_text("")


class Others(Digits):
    """The same digits as a source of another class."""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may look into: those above `tmp_path` are for its owner alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


class TestUnwritable:
    def test_a_file_in_the_way_is_named(self, run: Run) -> None:
        Path("runs").write_text("")
        result = run("fit", *BRIEF)
        assert result.code == 2
        assert "error: runs/cnn: nothing can be written there (Not a directory)" in result.err
        assert "training" not in result.out

    @pytest.mark.skipif(
        os.name != "posix" or (os.getuid() == 0 and not for_nobody()), reason="needs POSIX and a user who may not write"
    )
    def test_a_folder_that_may_not_be_written_is_refused_before_the_first_batch(
        self, open_folder: Path, start: Start
    ) -> None:
        (open_folder / "runs").mkdir(mode=0o555)
        function = as_nobody if os.getuid() == 0 else command_line
        result = start(*map(str, ("fit", *BRIEF)), function=function, folder=open_folder).wait()
        assert result.code == 2
        assert "error: runs/cnn: nothing can be written there (Permission denied)" in result.err
        assert "training" not in result.out

    def test_another_place_for_checkpoints_is_tried_too(self, run: Run) -> None:
        Path("full").write_text("")
        own = ("--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.dirpath", "full/x")
        result = run("fit", *BRIEF, *own)
        assert result.code == 2
        assert "full/x: nothing can be written there (Not a directory)" in result.err
        assert not Path("runs").exists()

    def test_a_folder_that_is_there_and_takes_no_files_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files.check_writable(tmp_path)
        assert not [*tmp_path.iterdir()]
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        monkeypatch.setattr(Path, "touch", Mock(side_effect=full))
        with pytest.raises(InputError, match=r"nothing can be written there \(No space left[^)]*\)$"):
            files.check_writable(tmp_path)

    def test_rows_of_metrics_wait_for_a_program_that_holds_the_file_on_windows(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        logger = MetricsFile(tmp_path, name="x", version=0, flush_logs_every_n_steps=1)
        logger.log_metrics({"train/loss": 3.0}, 0)
        with monkeypatch.context() as patch:
            patch.setattr(logger.experiment._fs, "open", Mock(side_effect=PermissionError))
            logger.experiment.log_metrics({"val/loss": 2.0}, 1)
            with pytest.raises(PermissionError):
                logger.save()
            patch.setattr(sys, "platform", "win32")
            with pytest.warns(UserWarning, match=r"another program holds metrics\.csv"):
                logger.save()
        logger.log_metrics({"val/loss": 1.0}, 2)
        with (tmp_path / "x/version_0/metrics.csv").open(newline="") as file:
            rows = [(row["train/loss"], row["val/loss"], row["step"]) for row in csv.DictReader(file)]
        assert rows == [("3.0", "", "0"), ("", "2.0", "1"), ("", "1.0", "2")]

    def test_a_run_writes_its_metrics_so(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        save, saved = MetricsFile.save, list[MetricsFile]()
        monkeypatch.setattr(MetricsFile, "save", lambda self: (saved.append(self), save(self)))
        assert run("fit", *BRIEF).code == 0
        assert saved

    def test_a_folder_that_becomes_unwritable_ends_the_run(self, run: Run) -> None:
        result = run("fit", *BRIEF, "--trainer.callbacks+", "tests.test_runs.Spoil")
        assert result.code == 2
        assert "ckpt cannot be saved (File exists" in result.err


def unfinished(run: Run, *words: object) -> None:
    """Leave a run of one epoch, as if it had been killed then."""
    assert run("fit", *(words or BRIEF)).code == 0
    (path,) = Path().rglob("run.json")
    runs.record(path.parent, finished=False)


class TestGoingOn:
    def test_with_nothing_to_go_on_with_it_says_so_and_starts(self, run: Run) -> None:
        result = run("fit", *BRIEF, "--ckpt_path", "last")
        assert result.code == 0
        assert "nothing to resume in runs/cnn: a new run" in result.err
        again = run("fit", *BRIEF, "--ckpt_path", "last")
        assert (  # the first has come to its end
            "nothing to resume in runs/cnn: a new run; to train the newest run for longer: --ckpt_path "
            "runs/cnn/version_0/checkpoints/last.ckpt --trainer.max_epochs N, N above what it has done\n"
        ) in again.err
        assert sorted(path.name for path in Path("runs/cnn").iterdir()) == ["version_0", "version_1"]

    def test_a_bare_command_does_not_begin_another_kind_of_run(self, run: Run) -> None:
        """Such as the one that is printed after Ctrl-C, typed again when the run has ended."""
        assert run("fit", *BRIEF, "--experiment", "digits").code == 0
        place = ("--trainer.default_root_dir", Path.cwd(), "--allow_custom_classes")
        for words in (place, ("--trainer.max_epochs", 2)):
            result = run("fit", "--ckpt_path", "last", "--experiment", "digits", *words)
            assert result.code == 2
            assert "version_0 has finished; to train the newest run for longer" in result.err
        result = run("fit", "--ckpt_path", "last", "--experiment", "digits")
        assert result.code == 2
        assert result.err.endswith(
            "nothing to resume in runs/digits: runs/digits/version_0 has finished; to train the newest run for longer: "
            "--ckpt_path runs/digits/version_0/checkpoints/last.ckpt --trainer.max_epochs N, N above what it has done\n"
        )
        assert len([*Path("runs/digits").iterdir()]) == 1
        held = runs.Run(Path("runs/digits/version_0"))
        runs.record(held.folder, finished=False)
        result = run("fit", "--ckpt_path", "last", "--experiment", "digits")
        held.release()
        assert result.code == 2
        assert "nothing to resume in runs/digits: another process is training in runs/digits/version_0" in result.err

    def test_runs_that_have_ended_without_a_checkpoint_do_not_hide_the_one_before(self) -> None:
        for _ in range(3):
            held = runs.start(Path("runs"), "pets")
            runs.record(held.folder, finished=True)
            held.release()
        last = Path("runs/pets/version_1", runs.LAST)
        last.parent.mkdir()
        last.touch()
        with pytest.raises(InputError, match=f"version_1 has finished; to train the newest run for longer: .* {last} "):
            read(["fit", "--ckpt_path", "last", "--experiment", "pets"])

    @pytest.mark.parametrize("content", [None, ""])
    def test_where_its_config_is_lost_it_goes_on_elsewhere(self, content: str | None) -> None:
        runs.start(Path("runs"), "cnn").release()
        last, config = Path("runs/cnn/version_0", runs.LAST), Path("runs/cnn/version_0/config.yaml")
        last.parent.mkdir()
        last.touch()
        if content is not None:
            config.write_text(content)
        new = f"the run goes on in a new folder only, with --ckpt_path {last} and --config of the file that began it$"
        with pytest.raises(InputError, match=rf"^{config}: ((?!name a config file).)*; without it {new}"):
            read(["fit", "--ckpt_path", "last"])

    def test_nor_does_it_where_the_run_died_before_its_first_checkpoint(self) -> None:
        """But for the command that began it, which a job script repeats."""
        runs.start(Path("runs"), "pets").release()
        config, words = Path("runs/pets/version_0/config.yaml"), ["fit", "--ckpt_path", "last", "--experiment", "pets"]
        with pytest.raises(InputError, match=r"version_0 has no checkpoint yet: begin it anew with its own settings$"):
            read(words)
        config.write_text(header({"fit --experiment pets --data Digits": ""}) + "data: Digits\n")
        with pytest.raises(InputError, match=f"version_0 has no checkpoint yet: begin it anew with --config {config}$"):
            read(words)
        for own in (["--data", "Digits"], ["--model.net=SpeedNet"], ["--config", str(config)]):
            assert read([*words, *own]).going_on is None
        config.write_text(header({"fit --experiment pets": ""}))
        assert read(words).going_on is None

    @pytest.mark.slow
    def test_it_goes_on_in_the_folder_that_it_is_found_in(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wherever its config says that it was begun, and whatever its experiment was called there."""
        unfinished(run, *BRIEF, "--trainer.default_root_dir", "out")
        shutil.copytree("out/runs/cnn", "runs/pets")
        before = Path("out/runs/cnn/version_0/config.yaml").read_text()
        result = run("fit", "--ckpt_path", "last", "--experiment", "pets", "--trainer.max_epochs", 2)
        assert result.code == 0, result.err
        assert "kept in runs/pets/version_0/checkpoints/best.ckpt" in result.out
        assert Path("out/runs/cnn/version_0/config.yaml").read_text() == before
        assert "\n1," in Path("runs/pets/version_0/metrics.csv").read_text()
        monkeypatch.chdir("out")
        result = run("fit", "--ckpt_path", "last", "--trainer.max_epochs", 2)
        assert result.code == 0, result.err
        assert [str(path) for path in Path().rglob("version_*")] == ["runs/cnn/version_0"]

    def test_its_name_may_look_like_a_date(self, run: Run) -> None:
        for name in ("2024-05-01", "2024-31-12"):
            Path("x.yaml").write_text(f"experiment: {name}\n")
            result = run("fit", "--config", "x.yaml", *BRIEF, "--ckpt_path", "last", "--print_config")
            assert f"nothing to resume in runs/{name}: a new run" in result.err
            assert (result.code, yaml.safe_load(result.out)["experiment"]) == (0, name)

    def test_its_name_may_look_like_a_number(self, run: Run) -> None:
        unfinished(run, *BRIEF, "--experiment", "1e-3")
        for words in (("--config", "runs/1e-3/version_0/config.yaml"), ("--ckpt_path", "last", "--experiment", "1e-3")):
            result = run("fit", *words, "--print_config")
            assert (result.code, yaml.safe_load(result.out)["experiment"]) == (0, "1e-3"), result.err

    @pytest.mark.parametrize("name", ["1e-3", "7305e12", "1.5e3", "1_0.e-2", "12", "1.5", "2024-05-01", "no", "null"])
    def test_words_and_numbers_stay_what_they_are_in_a_config(self, name: str) -> None:
        settings = {"experiment": name, "classes": [name], "rates": [1e-3, 1e-7, 3e20, 0.5, 10]}
        assert load_yaml(dump_yaml(settings)) == settings

    def test_of_two_processes_that_resume_a_run_at_once_the_second_is_refused(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unfinished(run)
        other = runs.Run(Path("runs/cnn/version_0"))
        monkeypatch.setattr(runs, "held", lambda _: False)  # as it was a moment before
        result = run("fit", "--ckpt_path", "last")
        other.release()
        assert result.code == 2
        assert "error: another process is using this folder (lock file " in result.err
        assert result.err.endswith("version_0/.lock)\n")

    def test_the_printed_command_allows_classes_of_ones_own(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        write_net("timed_net", "Timed", monkeypatch)
        words = ("--data", "Digits", "--model.net", "timed_net.Timed", "--trainer.max_epochs", 100_000)
        result = run("fit", *words, "--trainer.max_time", "00:00:00:01", "--trainer.default_root_dir", "out")
        command = "fit --ckpt_path last --experiment cnn --trainer.default_root_dir out --allow_custom_classes"
        assert result.out.splitlines()[-1] == f"next: python -m cifar_lightning {command}"
        again = run(*command.split())
        assert again.code == 0, again.err
        assert "resuming out/runs/cnn/version_0" in again.err

    def test_it_is_the_newest_unfinished_run_of_the_experiment_that_no_one_holds(self, run: Run) -> None:
        assert run("fit", *BRIEF, "--experiment", "a").code == 0
        for copy in ("a/version_1", "a/version_2", "a/version_3", "b/version_0"):
            shutil.copytree("runs/a/version_0", f"runs/{copy}")
        for version in (0, 1, 2):
            runs.record(Path(f"runs/a/version_{version}"), finished=False)
        root = Path("runs")
        assert runs.unfinished(root, "a") == root / "a" / "version_2"
        assert runs.unfinished(root, "b") is None
        held = runs.Run(root / "a" / "version_2")
        assert runs.unfinished(root, "a") == root / "a" / "version_1"
        assert runs.unfinished(root, "a", rank=1) == root / "a" / "version_2"  # which the first process holds for it
        held.release(discard=True)
        (root / "a" / "version_2" / "checkpoints" / "last.ckpt").unlink()
        assert runs.unfinished(root, "a") == root / "a" / "version_1"
        result = run("fit", "--experiment", "a", "--ckpt_path", "last", "--trainer.max_epochs", 2)
        assert result.code == 0, result.err
        assert "resuming runs/a/version_1" in result.err
        assert "epoch 2/2" in result.out
        assert "epoch 1/2" not in result.out
        assert json.loads(Path("runs/a/version_1/run.json").read_text())["finished"] is True

    def test_out_of_time_it_is_not_finished_and_each_time_it_gets_further(self, run: Run) -> None:
        steps = [0]
        for _ in range(3):
            result = run("fit", "--data", "Digits", "--trainer.max_time", "00:00:00:01", "--ckpt_path", "last")
            assert result.code == 0, result.err
            assert re.search(r" [01] s left$", result.out, re.MULTILINE)  # and not what all epochs would take
            hint = "next: python -m cifar_lightning fit --ckpt_path last --experiment cnn"
            assert result.out.splitlines()[-1] == hint
            assert runs.unfinished(Path("runs"), "cnn") == Path("runs/cnn/version_0")
            steps.append(load("runs/cnn/version_0/checkpoints/last.ckpt")["global_step"])
            assert steps[-1] > steps[-2]

    def test_out_of_time_within_the_last_epoch_it_is_not_finished_either(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In the second step of four."""
        check = Timer._check_time_remaining

        def late(timer: Timer, trainer: L.Trainer) -> None:
            timer._offset = 1e9 if trainer.global_step == 6 else 0
            check(timer, trainer)

        monkeypatch.setattr(Timer, "_check_time_remaining", late)
        words = ("fit", *BRIEF, "--trainer.max_epochs", 2, "--trainer.max_time", "01:00:00:00")
        assert run(*words).out.endswith("next: python -m cifar_lightning fit --ckpt_path last --experiment cnn\n")
        assert "has not finished" in run("reproduce", "runs/cnn/version_0").err
        result = run(*words, "--ckpt_path", "last")
        assert "resuming runs/cnn/version_0" in result.err
        assert load("runs/cnn/version_0/checkpoints/last.ckpt")["global_step"] == 8
        assert runs.facts(Path("runs/cnn/version_0"))["finished"]

    def test_where_early_stopping_has_ended_the_training_there_is_nothing_to_do(self, run: Run) -> None:
        """Unless it is to be longer, in a folder of its own."""
        stop = ("--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss")
        words = (*BRIEF, "--trainer.max_epochs", 2, *stop, "--trainer.callbacks.stopping_threshold", 1e9)
        unfinished(run, *words)
        kept = Path("runs/cnn/version_0")
        rows = (kept / "metrics.csv").read_text()
        runs.record(kept, pruned=True)  # as a sweep does, whose trial goes on as a run
        result = run("fit", "--ckpt_path", "last")
        assert result.code == 0, result.err
        assert "EarlyStopping had ended the run: Stopping threshold reached" in result.out
        assert load(kept / "checkpoints/last.ckpt")["global_step"] == 4
        assert (kept / "metrics.csv").read_text() == rows
        facts = runs.facts(kept)
        assert (facts["finished"], facts["pruned"]) == (True, False)
        assert run("fit", *words, "--ckpt_path", kept / "checkpoints/last.ckpt").code == 0
        assert load("runs/cnn/version_1/checkpoints/last.ckpt")["global_step"] == 8
        longer = run("fit", *BRIEF, "--trainer.max_epochs", 2, *stop, "--ckpt_path", kept / "checkpoints/last.ckpt")
        assert (longer.code, "EarlyStopping" in longer.out) == (0, False), longer.out

    @pytest.mark.slow
    def test_what_did_not_work_does_not_stay(self, run: Run) -> None:
        """Neither a net that the weights do not fit nor a callback that fails after the first epoch."""
        unfinished(run)
        config = Path("runs/cnn/version_0/config.yaml").read_text()
        for words in (
            ["--model.net.hidden", 16],
            ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "nope", "--trainer.max_epochs", 2],
        ):
            assert run("fit", "--ckpt_path", "last", *words).code == 2
            assert Path("runs/cnn/version_0/config.yaml").read_text() == config
        assert run("fit", "--ckpt_path", "last", "--trainer.max_epochs", 2).code == 0

    def test_what_is_typed_comes_on_top_of_its_config_and_the_same_again_changes_nothing(self, run: Run) -> None:
        first = (*BRIEF, "--data.augment+", "Mirror")
        unfinished(run, *first)
        for words, count in ((first, 1), (["--data.augment+", "Mirror"], 2), ([], 1)):
            result = run("fit", *words, "--ckpt_path", "last", "--print_config")
            assert result.code == 0, result.err
            assert len(yaml.safe_load(result.out)["data"]["init_args"]["augment"]) == count
        more = ("--data.augment+", "Cutout", "--trainer.max_epochs", 2)
        assert run("fit", *more, "--ckpt_path", "last").code == 0
        path = Path("runs/cnn/version_0")
        assert len(yaml.safe_load((path / "config.yaml").read_text())["data"]["init_args"]["augment"]) == 2
        (path / "run.json").write_text("")
        for words in (first, more):
            result = run("fit", *words, "--ckpt_path", "last", "--print_config")
            assert len(yaml.safe_load(result.out)["data"]["init_args"]["augment"]) == 2

    @pytest.mark.slow
    def test_a_config_file_that_was_edited_counts_again_and_lists_are_appended_to_once(self, run: Run) -> None:
        words, config, kept = (
            ("--config", "x.yaml", "--data.augment+", "Mirror"),
            Path("x.yaml"),
            Path("runs/cnn/version_0"),
        )

        def write(epochs: int, size: int) -> None:
            data = f"{{class_path: Digits, init_args: {{batch_size: {size}}}}}"
            config.write_text(f"trainer: {{max_epochs: {epochs}, limit_train_batches: 4}}\ndata: {data}\n")

        def asked() -> tuple[int, int, int, bool]:
            result = run("fit", *words, "--ckpt_path", "last", "--print_config")
            settings = yaml.safe_load(result.out)
            data = settings["data"]["init_args"]
            changed = f"x.yaml changed since {kept}/config.yaml was written from it" in result.err
            return settings["trainer"]["max_epochs"], data["batch_size"], len(data["augment"]), changed

        write(1, 64)
        unfinished(run, *words)
        assert asked() == (1, 64, 1, False)
        write(2, 32)
        assert asked() == (2, 32, 1, True)
        result = run("fit", *words, "--ckpt_path", "last")
        assert result.code == 0, result.err
        assert "epoch 2/2" in result.out
        (kept / "run.json").write_text("")
        assert asked() == (2, 32, 1, False)
        write(1, 64)
        assert asked() == (1, 64, 1, True)

    @pytest.mark.parametrize("content", ["", "[]", "null", '{"finished": fal', "[" * 100_000])
    def test_a_damaged_record_does_not_hide_a_run(self, run: Run, content: str) -> None:
        unfinished(run)
        Path("runs/cnn/version_0/run.json").write_text(content)
        assert runs.unfinished(Path("runs"), "cnn") == Path("runs/cnn/version_0")

    def test_rows_that_are_damaged_or_will_be_written_again_are_left_out(self, tmp_path: Path) -> None:
        held = runs.start(tmp_path, "x")
        text = "epoch,step,val/loss,lr\n0,3,0.5,\n0,7,,0.1\n0,7,0.4,\n1,8,0.3,\nx,y,1,2\n0,3,1,2,3\n0,5\n1,1"
        (held.folder / "metrics.csv").write_bytes(text.encode() + b"\xff\n")
        assert [(row["step"], row["lr"]) for row in held.metrics(8, True)] == [("3", ""), ("7", "0.1"), ("7", "")]
        assert [(row["step"], row["lr"]) for row in held.metrics(8, False)] == [("3", ""), ("7", "0.1")]
        (held.folder / "metrics.csv").write_text("epoch\n1\n")
        assert held.metrics(8, True) == []
        held.release()

    def test_two_that_start_at_once_have_a_folder_each(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runs, "folders", lambda _: [])  # both have looked before the first made its own
        first, second = runs.start(tmp_path, "x"), runs.start(tmp_path, "x")
        assert (runs.number(first.folder), runs.number(second.folder)) == (0, 1)

    def test_a_new_run_comes_after_the_newest_whatever_has_been_removed(self, tmp_path: Path) -> None:
        for name in ("version_7", "version_12.old"):
            (tmp_path / "x" / name).mkdir(parents=True)
        assert runs.number(runs.start(tmp_path, "x").folder) == 8

    def test_what_is_discarded_takes_its_empty_folders_along_and_no_others(self, tmp_path: Path) -> None:
        root = tmp_path / "mine" / "runs"
        first, second = runs.start(root, "x"), runs.start(root, "y")
        first.release()
        second.release(discard=True)
        assert [path.name for path in root.iterdir()] == ["x"]
        assert runs.facts(first.folder) == {}
        runs.record(first.folder, seed=1, finished=False)
        runs.record(first.folder, finished=True)
        assert runs.facts(first.folder) == {"seed": 1, "finished": True}
        runs.Run(first.folder).release(discard=True)
        assert not root.exists()
        assert root.parent.exists()

    @pytest.mark.parametrize(
        ("before", "now", "sentence"),
        [
            (
                [],
                ["--model.optimizer", "torch.optim.SGD"],
                "was trained with torch.optim.Adam: it cannot be resumed",
            ),
            (
                [],
                ["--model.scheduler", "ExponentialLR", "--model.scheduler.gamma", 0.9],
                "was trained with no scheduler",
            ),
            (
                ["--model.scheduler", "OneCycleLR", "--model.scheduler.max_lr", 0.1],
                ["--trainer.max_epochs", 2],
                "the OneCycleLR ends after 4 steps, before the 8 that are asked for: the schedule of a resumed run",
            ),
            (
                ["--trainer.max_epochs", 2],
                ["--trainer.max_epochs", 2],
                "last.ckpt has been trained for 2 of 2 epochs: give a higher trainer.max_epochs to train for longer",
            ),
            (
                [],
                ["--trainer.max_epochs", 9, "--trainer.max_steps", 3],
                "last.ckpt has been trained for 4 of 3 steps: give a higher trainer.max_steps to train for longer",
            ),
            (
                ["--model.scheduler", "ExponentialLR", "--model.scheduler.gamma", 0.9],
                ["--model.scheduler.gamma", 0.1, "--trainer.max_epochs", 2],
                "a schedule that began with model.scheduler.gamma 0.9: it cannot be resumed with 0.1",
            ),
            (
                [],
                ["--model.optimizer.amsgrad", "true", "--model.optimizer.lr", 0.1, "--trainer.max_epochs", 2],
                "model.optimizer needs max_exp_avg_sq of each weight, which the checkpoint does not hold: leave "
                "model.optimizer.amsgrad as it was",
            ),
            (
                ["--model.optimizer", "RMSprop"],
                ["--model.optimizer", "RMSprop", "--model.optimizer.momentum", 0.9, "--trainer.max_epochs", 2],
                "model.optimizer needs momentum_buffer of each weight, which the checkpoint does not hold",
            ),
        ],
    )
    def test_what_cannot_go_on_is_said(self, run: Run, before: list[object], now: list[object], sentence: str) -> None:
        assert run("fit", *BRIEF, *before).code == 0
        result = run("fit", *BRIEF, "--ckpt_path", "runs/cnn/version_0/checkpoints/last.ckpt", *now)
        assert result.code == 2
        assert sentence in result.err
        assert len(list(Path("runs/cnn").iterdir())) == 1

    def test_data_of_another_class_begins_with_the_epoch_that_was_going_on(self, run: Run) -> None:
        """Of which two batches were done."""
        words = ("fit", *BRIEF, "--trainer.max_epochs", 3)
        assert run(*words, "--trainer.max_steps", 6).code == 0
        last = Path("runs/cnn/version_0/checkpoints/last.ckpt")
        result = run(*words, "--ckpt_path", last, "--data", "tests.test_runs.Others")
        assert result.code == 0, result.err
        assert "the data or the batch size differ from those of the interrupted run: epoch 1 restarts" in result.out
        assert [line[:9] for line in result.out.splitlines() if line.startswith("epoch ")] == ["epoch 2/3", "epoch 3/3"]
        assert load("runs/cnn/version_1/checkpoints/last.ckpt")["global_step"] == 14

    def test_a_schedule_without_settings_goes_on(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("flat_schedule.py").write_text(
            "from torch.optim import Optimizer, lr_scheduler\n"
            "class Flat(lr_scheduler.LRScheduler):\n"
            "    def __init__(self, optimizer: Optimizer):\n"
            "        super().__init__(optimizer)\n"
            "    def get_lr(self):\n"
            "        return self.base_lrs\n"
        )
        monkeypatch.syspath_prepend(Path.cwd())
        assert run("fit", *BRIEF, "--model.scheduler", "flat_schedule.Flat").code == 0
        last = "runs/cnn/version_0/checkpoints/last.ckpt"
        result = run("fit", *BRIEF, "--allow_custom_classes", "--ckpt_path", last, "--trainer.max_epochs", 2)
        assert result.code == 0, result.err

    def test_momentum_may_begin_where_nothing_was_kept_of_the_weights(self, run: Run) -> None:
        words = ("fit", *BRIEF, "--model.optimizer", "SGD", "--trainer.max_epochs")
        assert run(*words, 1).code == 0
        last = "runs/cnn/version_0/checkpoints/last.ckpt"
        result = run(*words, 2, "--ckpt_path", last, "--model.optimizer.momentum", 0.9)
        assert result.code == 0, result.err

    def test_weights_only_cannot_be_gone_on_from(self, run: Run) -> None:
        assert run("fit", *BRIEF, "--checkpoint.save_weights_only", "true").code == 0
        result = run("fit", "--ckpt_path", "runs/cnn/version_0/checkpoints/best.ckpt")
        assert result.code == 2
        assert "holds weights only: fit cannot resume from it" in result.err


def test_a_lock_that_cannot_be_removed_while_it_is_held_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = runs.Run(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", Mock(side_effect=PermissionError))  # as Windows has it of a file that is open
        held.release()
    assert not runs.held(tmp_path)


def test_a_run_that_comes_to_nothing_leaves_nothing(run: Run) -> None:
    result = run("fit", *BRIEF, "--model.net.widths", "[4, 4, 4, 4, 4, 4]")
    assert result.code == 2
    assert not list(Path().iterdir())


@pytest.mark.parametrize("name", ["cnn", "a b", "v1.2+x", "lr=0.1,wd=0"])
def test_names_of_experiments(name: str) -> None:
    runs.check_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a", "a\0b", " a"])
def test_what_is_no_name_of_an_experiment(name: str) -> None:
    with pytest.raises(InputError, match="cannot name a folder"):
        runs.check_name(name)


class TestReproduce:
    def test_the_same_config_gives_the_same_weights(self, run: Run) -> None:
        assert run("fit", *BRIEF, "--seed_everything", 3).code == 0
        result = run("reproduce", "runs/cnn/version_0")
        assert result.code == 0, result.err
        old, new, verdict = result.out.splitlines()[-3:]
        assert old.startswith("weights of runs/cnn/version_0: sha256 ")
        assert new.startswith("weights of runs/cnn/version_1: sha256 ")
        assert old[-64:] == new[-64:]
        assert verdict == "the same, bit for bit"

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("dropout: 0.5", "dropout: 0.25", "model.net.dropout was 0.5 and is 0.25"),
            ("max_epochs: 1\n", "max_epochs: 2\n", "it had 4 steps, and has 8"),
        ],
    )
    def test_a_config_that_was_edited_is_said(self, run: Run, old: str, new: str, said: str) -> None:
        assert run("fit", *BRIEF).code == 0
        config = Path("runs/cnn/version_0/config.yaml")
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))
        result = run("reproduce", "runs/cnn/version_0")
        assert result.code == 1, result.err
        assert result.out.splitlines()[-1] == f"not the same: {said}"

    def test_what_decides_the_bits_is_said_where_it_differs(self, run: Run) -> None:
        assert run("fit", *BRIEF).code == 0
        folder = Path("runs/cnn/version_0")
        config = folder / "config.yaml"
        config.write_text(config.read_text().replace("seed_everything: 0", "seed_everything: 1"))
        now = runs.facts(folder)
        versions = now["versions"]
        runs.record(folder, threads=99, devices=9, versions={**versions, "torch": "0.1"})
        result = run("reproduce", folder)
        assert result.code == 1, result.err
        assert result.out.splitlines()[-1] == (
            f"not the same: seed was 0 and is 1, threads was 99 and is {now['threads']}, "
            f"devices was 9 and is {now['devices']}, torch was 0.1 and is {versions['torch']}"
        )

    def test_a_run_elsewhere_is_not_compared_with_itself(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        assert run("fit", *BRIEF).code == 0
        Path("runs/cnn/version_0").rename("kept")
        config = Path("kept/config.yaml")
        config.write_text(config.read_text().replace("seed_everything: 0", "seed_everything: 1"))
        Path("elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        result = run("reproduce", "../kept")
        assert result.code == 1, result.err
        assert result.out.splitlines()[-2].startswith("weights of runs/cnn/version_0: sha256 ")
        assert result.out.splitlines()[-1] == "not the same: seed was 0 and is 1"

    @pytest.mark.parametrize("moved", [False, True])
    def test_the_checkpoint_that_a_run_started_from_is_found_from_another_folder(
        self, checkpoint: Path, tmp_path: Path, moved: bool
    ) -> None:
        given: list[str] = []
        folder = Path(shutil.copytree(checkpoint.parent.parent, "kept"))
        Path("there").mkdir()
        (Path() if moved else Path("there")).joinpath("first.ckpt").touch()
        runs.record(folder, begun_in=str(tmp_path / "there"), started_from="first.ckpt")
        assert reproduce([str(folder)], lambda words: given.extend(words)) == 0  # type: ignore[func-returns-value]
        assert given[-1] == ("first.ckpt" if moved else str(tmp_path / "there/first.ckpt"))

    def test_whether_there_is_a_bar_is_for_the_next_terminal_to_say(self, run: Run) -> None:
        config = Path("runs/cnn/version_0/config.yaml")
        assert run("fit", *BRIEF).code == 0  # without a terminal
        assert (
            not {"enable_progress_bar", "enable_model_summary"} & yaml.safe_load(config.read_text())["trainer"].keys()
        )
        assert run("fit", *BRIEF, "--trainer.enable_model_summary", "true").code == 0
        asked = Path("runs/cnn/version_1/config.yaml")
        assert yaml.safe_load(asked.read_text())["trainer"]["enable_model_summary"] is True

    @pytest.mark.slow
    def test_what_was_typed_on_several_lines_is_read_again(self, run: Run) -> None:
        factors = "{net.blocks: 0.5,\n net.head: 1.0}"
        assert run("fit", *BRIEF, "--model.lr_factors", factors).code == 0
        result = run("reproduce", "runs/cnn/version_0")
        assert result.code == 0, result.err
        assert run("fit", *BRIEF, "--config", "runs/cnn/version_0/config.yaml").code == 0

    def test_other_photos_are_said(self, run: Run, photos: Path) -> None:
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos).code == 0
        (photos / "train" / "red" / "00.jpg").unlink()
        result = run("reproduce", "runs/cnn/version_0")
        assert result.code == 1, result.err
        assert result.out.splitlines()[-1] == "not the same: the training images differ"

    def test_code_and_images_of_ones_own_that_changed_are_said(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        source = (
            "import numpy as np\nfrom cifar_lightning.data import Digits\nfrom cifar_lightning.nets import CNN\n"
            "class Net(CNN):\n    def forward(self, x):\n        return super().forward(1.0 * x)\n"
            "class Scans(Digits):\n    def load(self, part):\n        images = super().load(part)\n"
            "        images.pixels[-1] += np.uint8(0)\n        return images\n"
        )
        monkeypatch.syspath_prepend(Path.cwd())
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        own = Path("own_code.py")
        own.write_text(source)
        words = ("--data", "own_code.Scans", "--model.net", "own_code.Net")
        assert run("fit", *BRIEF[2:], *words).code == 0
        same = ", although seed, threads, images, versions and the settings of model and data are"
        for old, new, said in (
            ("1.0 * x", "0.5 * x", f"{same}; the code of own_code.Net or own_code.Scans may have changed"),
            ("uint8(0)", "uint8(9)", ": the training images differ"),
        ):
            source = source.replace(old, new)
            own.write_text(source)
            del sys.modules["own_code"]
            result = run("reproduce", "runs/cnn/version_0")
            assert result.code == 1, result.err
            assert result.out.splitlines()[-1] == f"not the same{said}"

    def test_other_photos_to_validate_on_are_said(self) -> None:
        facts = {"images": "a", "validation": "b"}
        assert _differences(facts, facts) == []
        assert _differences(facts, {**facts, "validation": "c"}) == ["the validation images differ"]

    def test_what_cannot_be_reproduced(self, run: Run) -> None:
        for words, sentence in (
            ((), "reproduce takes the folder of a run"),
            (("nowhere",), "nowhere/config.yaml is not there: reproduce takes the folder of a run"),
        ):
            result = run("reproduce", *words)
            assert result.code == 2
            assert sentence in result.err
        assert run("fit", *BRIEF).code == 0
        runs.record(Path("runs/cnn/version_0"), finished=False)
        assert "has not finished: resume it first" in run("reproduce", "runs/cnn/version_0").err


def test_a_run_that_goes_on_with_other_photos_says_so(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(photos / "test", photos / "val")
    words = ("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos, "--ckpt_path", "last")
    for epochs in (1, 2, 3, 4):
        if epochs == 3:
            for part in ("train", "val"):
                shutil.copy(photos / "test" / "red" / "00.jpg", photos / part / "red" / "new.jpg")
            known = runs.facts(Path("runs/cnn/version_0"))
            with monkeypatch.context() as refused:
                refused.setattr("cifar_lightning.module.Classifier.on_train_start", Mock(side_effect=InputError("no")))
                assert run(*words, "--trainer.max_epochs", epochs).code == 2
            assert runs.facts(Path("runs/cnn/version_0")) == known  # which has learnt nothing from them
        result = run(*words, "--trainer.max_epochs", epochs)
        assert result.code == 0, result.err
        said = [
            f"the {part} images are not those with which the run began" in result.out
            for part in ("training", "validation")
        ]
        assert said == [epochs > 2] * 2
        runs.record(Path("runs/cnn/version_0"), finished=False)


def test_photos_that_may_have_been_held_out_are_told_once(run: Run, photos: Path) -> None:
    words = ("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos, "--ckpt_path", "last")
    assert run(*words).code == 0
    runs.record(Path("runs/cnn/version_0"), finished=False)
    shutil.copy(photos / "test" / "red" / "00.jpg", photos / "train" / "red" / "new.jpg")
    result = run(*words, "--trainer.max_epochs", 2)
    assert "it may have seen some of the images that are held out now" in result.out
    assert "the training images are not those" not in result.out


def test_a_run_whose_time_is_up_when_it_is_done_has_ended(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.pytorch.callbacks.Timer.time_remaining", lambda *_: -1.0)
    result = run("fit", *BRIEF, "--trainer.max_time", "00:01:00:00")
    assert result.code == 0, result.err
    assert "--ckpt_path last" not in result.out
    assert runs.facts(Path("runs/cnn/version_0"))["finished"]


def test_a_home_of_nobody_is_named(run: Run, photos: Path) -> None:
    own = ("--data", "ImageFolder", "--data.root", photos)
    for option, words in (
        ("trainer.default_root_dir", ("--ckpt_path", "last")),
        ("data.cache_dir", own),
        ("data.labels", own),
        ("data.root", ("--data", "CIFAR10")),
    ):
        result = run("fit", *BRIEF, *words, f"--{option}", "~nobody-of-this-name")
        assert result.code == 2
        assert result.err.endswith(f"error: {option} is ~nobody-of-this-name: there is no such home\n")


@pytest.mark.skipif(os.name != "posix", reason="HOME is that of POSIX")
def test_the_home_folder_may_be_called_as_in_a_shell(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(photos.parent))
    data = f"data: {{class_path: ImageFolder, init_args: {{root: ~/{photos.name}}}}}"
    Path("c.yaml").write_text(f"{data}\ntrainer: {{default_root_dir: ~/kept}}")
    assert run("fit", "--trainer.max_epochs", 1, "--config", "c.yaml").code == 0
    assert (photos.parent / "kept" / "runs" / "cnn" / "version_0" / "config.yaml").is_file()
    assert not Path("~").exists()


@pytest.mark.parametrize("group", ["trainer", "model", "data"])
@pytest.mark.parametrize("command", ["fit", "sweep"])
def test_a_group_of_settings_that_is_empty_is_named(run: Run, group: str, command: str) -> None:
    Path("c.yaml").write_text(f"{group}:\n")
    Path("sweep.yaml").write_text("config: c.yaml\nspace: {data.batch_size: [8, 16]}\n")
    result = run(command, "--config", "c.yaml" if command == "fit" else "sweep.yaml")
    assert result.code == 2
    assert result.err == f"error: c.yaml: {group} is empty: give its settings, or leave it out\n"
