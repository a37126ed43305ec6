"""What a command starts from: typed options, config files, and checkpoints."""

import csv
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI
from PIL import Image

from cifar_lightning import runs
from cifar_lightning.cli import trainer
from cifar_lightning.cli.command import read
from cifar_lightning.cli.lightning_cli import CLI
from cifar_lightning.data import Digits
from cifar_lightning.files import target
from cifar_onnx import InputError
from tests.conftest import BRIEF, Run, config_of, make_photos


class TestPrecedence:
    """Typed > config file > checkpoint > defaults."""

    def test_options_of_a_class_may_stand_before_its_name(self, run: Run) -> None:
        words = ("--data.mix.alpha", 0.3, "--data.batch_size=7", "--model.net.dropout", 0.2, "--data.mix=CutMix")
        config = config_of(run, "fit", *words, "--model.net", "CNN", "--experiment", "a", "--data", "Digits")
        assert config["data"]["class_path"].endswith("Digits")
        assert config["data"]["init_args"]["batch_size"] == 7
        assert config["data"]["init_args"]["mix"]["class_path"].endswith("CutMix")
        assert config["data"]["init_args"]["mix"]["init_args"] == {"alpha": 0.3}
        assert config["model"]["net"]["init_args"]["dropout"] == 0.2
        assert config["experiment"] == "a"
        named = ("--model.optimizer.lr", 0.3, "--model.optimizer.class_path=torch.optim.SGD")
        assert config_of(run, "fit", *named)["model"]["optimizer"]["init_args"]["lr"] == 0.3

    @pytest.fixture
    def made(self, run: Run) -> Path:
        """A checkpoint with a dropout of 0.1 and a batch size of 32."""
        words = ("--model.net.init_args.dropout", 0.1, "--model.net.init_args.hidden", 8, "--data.batch_size", 32)
        assert run("fit", *BRIEF, *words).code == 0
        return Path("runs/cnn/version_0/checkpoints/last.ckpt")

    def test_the_config_file_beats_the_checkpoint_which_beats_the_defaults(self, run: Run, made: Path) -> None:
        config = config_of(run, "fit", "--ckpt_path", made)
        assert config["model"]["net"]["init_args"]["dropout"] == 0.1
        assert config["data"]["class_path"].endswith("Digits")
        assert config["data"]["init_args"]["batch_size"] == 32
        Path("c.yaml").write_text("model: {net: {class_path: CNN, init_args: {dropout: 0.2}}}")
        net = config_of(run, "fit", "--config", "c.yaml", "--ckpt_path", made)["model"]["net"]["init_args"]
        assert (net["dropout"], net["hidden"]) == (0.2, 8)

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_what_was_typed_beats_the_config_file_wherever_it_stands(self, run: Run, order: tuple[int, int]) -> None:
        Path("c.yaml").write_text("model: {net: {class_path: CNN, init_args: {dropout: 0.2}}}")
        parts = ("--config=c.yaml",), ("--model.net.init_args.dropout", 0.3)
        net = config_of(run, "fit", *parts[order[0]], *parts[order[1]])["model"]["net"]
        assert net["init_args"]["dropout"] == 0.3

    def test_a_class_that_is_chosen_has_no_settings_of_another_one(self, run: Run) -> None:
        Path("c.yaml").write_text(
            "model:\n"
            "  net: {class_path: CNN, init_args: {widths: [4]}}\n"
            "  optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.5, weight_decay: 0.5}}\n"
            "  loss: {class_path: CrossEntropy, init_args: {class_weights: inverse}}\n"
            "data:\n"
            "  class_path: Digits\n"
            "  init_args:\n"
            "    batch_size: 7\n"
            "    mix: {class_path: MixUp, init_args: {alpha: 0.3}}\n"
            "    augment: [{class_path: Mirror, init_args: {probability: 0.9}}]\n"
            "trainer:\n"
            "  callbacks: [{class_path: EMA, init_args: {from_epoch: 3}}]\n"
        )
        words: list[object] = ["--model.net", "SpeedNet", "--model.loss=Focal", "--model.optimizer", "AdamW"]
        words += ["--model.optimizer.lr", 0.1, "--data.mix", "CutMix", "--data.augment", "[Mirror]"]
        config = config_of(run, "fit", "--config", "c.yaml", *words, "--trainer.callbacks", "[SWA, EMA]")
        model, data = config["model"], config["data"]["init_args"]
        assert model["net"]["init_args"]["widths"] == [64, 256, 256]
        optimizer = model["optimizer"]["init_args"]
        assert (optimizer["lr"], optimizer["weight_decay"]) == (0.1, 0.01)
        assert model["loss"]["init_args"]["class_weights"] is None
        assert (data["mix"]["init_args"]["alpha"], data["augment"][0]["init_args"]["probability"]) == (1.0, 0.5)
        assert [each["init_args"]["from_epoch"] for each in config["trainer"]["callbacks"]] == [None, 0]
        assert data["batch_size"] == 7  # which is no matter of the class
        Path("d.yaml").write_text(
            "model: {net: SpeedNet, optimizer: AdamW, loss: {class_path: Focal, init_args: {gamma: 1.0}}}\n"
            "data: {class_path: Digits, init_args: {mix: CutMix, augment: [Mirror]}}\n"
            "trainer: {callbacks: [SWA, EMA]}\n"
        )
        lr = ("--model.optimizer.lr", 0.1)
        assert config_of(run, "fit", "--config", "c.yaml", "--config", "d.yaml", *lr) == config | {
            "model": model | {"loss": model["loss"] | {"init_args": model["loss"]["init_args"] | {"gamma": 1.0}}}
        }
        same = config_of(run, "fit", "--config", "c.yaml", "--model.optimizer", "Adam", "--data.mix.class_path=MixUp")
        assert same["model"]["optimizer"]["init_args"]["weight_decay"] == 0.5
        assert same["data"]["init_args"]["mix"]["init_args"]["alpha"] == 0.3

    def test_a_class_that_is_chosen_has_no_settings_of_another_one_of_the_checkpoints(self, run: Run) -> None:
        words = ("--data.mix", "MixUp", "--data.mix.alpha", 0.3, "--model.loss.class_weights", "inverse")
        assert run("fit", *BRIEF, *words).code == 0
        last = "runs/cnn/version_0/checkpoints/last.ckpt"
        Path("c.yaml").write_text("data: {init_args: {mix: CutMix}}\nmodel: {loss: Focal}\n")
        for chosen in (("--data.mix", "CutMix", "--model.loss", "Focal"), ("--config", "c.yaml")):
            config = config_of(run, "fit", "--ckpt_path", last, *chosen)
            assert config["data"]["init_args"]["mix"]["init_args"]["alpha"] == 1.0
            assert config["model"]["loss"]["init_args"]["class_weights"] is None
        Path("d.yaml").write_text("model: {loss: {init_args: {gamma: 3}}}\n")
        config = config_of(run, "fit", "--ckpt_path", last, "--config", "d.yaml", "--model.loss", "Focal")
        loss = config["model"]["loss"]["init_args"]
        assert (loss["gamma"], loss["class_weights"]) == (3, None)

    @pytest.mark.parametrize(
        "content",
        [
            "data: {batch_size: 7}\nmodel: {net: {init_args: {dropout: 0.2}}, optimizer: {weight_decay: 0.3}}\n",
            "data.batch_size: 7\nmodel: {net.dropout: 0.2, optimizer.weight_decay: 0.3}\n",
        ],
    )
    def test_a_class_that_is_typed_is_given_the_settings_of_a_config_file_that_names_none(
        self, run: Run, content: str
    ) -> None:
        Path("c.yaml").write_text(content)
        words = ("--config", "c.yaml", "--data=Digits", "--model.net", "CNN", "--model.optimizer.class_path", "SGD")
        config = config_of(run, "fit", *words, "--model.optimizer.lr", 0.1)
        assert config["data"]["class_path"].endswith(".Digits")
        assert config["data"]["init_args"]["batch_size"] == 7
        assert config["model"]["net"]["init_args"]["dropout"] == 0.2
        assert config["model"]["optimizer"]["class_path"].endswith(".SGD")
        assert [config["model"]["optimizer"]["init_args"][key] for key in ("lr", "weight_decay")] == [0.1, 0.3]

    def test_a_list_that_is_appended_to_is_the_config_files_or_else_begins_anew_and_says_so(self, run: Run) -> None:
        assert run("fit", *BRIEF, "--data.augment", "[Mirror, ShiftedCrop]").code == 0
        words = ("fit", "--ckpt_path", "runs/cnn/version_0/checkpoints/last.ckpt", "--data.augment+", "Cutout")
        Path("c.yaml").write_text("data: {init_args: {augment: [Mirror]}}\n")
        given: tuple[tuple[tuple[str, ...], list[str]], ...] = (
            ((), ["Cutout"]),
            (("--config", "c.yaml"), ["Mirror", "Cutout"]),
            (("--data.augment", "[Mirror]"), ["Mirror"]),
        )
        for more, names in given:
            result = run(*words, *more, "--print_config")
            assert result.code == 0, result.err
            augment = yaml.safe_load(result.out)["data"]["init_args"]["augment"]
            assert [each["class_path"].rpartition(".")[2] for each in augment] == names
            told = "--data.augment+ begins a new list: that of the checkpoint (Mirror, ShiftedCrop) is left out\n"
            assert (told in result.err) == (not more)
        result = run(*words[:3], "--data.init_args.augment+", "Cutout", "--print_config")
        (only,) = yaml.safe_load(result.out)["data"]["init_args"]["augment"]
        assert only["class_path"].endswith(".Cutout")
        assert "that of the checkpoint (Mirror, ShiftedCrop) is left out\n" in result.err

    def test_a_resumed_run_belongs_to_the_same_experiment(self, run: Run) -> None:
        assert run("fit", *BRIEF, "--experiment", "mine").code == 0
        assert config_of(run, "fit", "--ckpt_path", "runs/mine/version_0/checkpoints/last.ckpt")["experiment"] == "mine"

    def test_what_was_typed_beats_the_checkpoint_in_the_run_itself(self, run: Run, made: Path) -> None:
        words: tuple[object, ...] = ("--model.optimizer.init_args.lr", 0.5, "--model.loss.class_weights", [2.0] * 10)
        words += ("--model.net.init_args.dropout", 0.4)
        result = run("fit", "--ckpt_path", made, *words, "--trainer.max_epochs", 2, "--experiment", "on")
        assert result.code == 0
        assert "no callbacks: --config runs/cnn/version_0/config.yaml adds those of its run" in result.err
        kept = torch.load("runs/on/version_0/checkpoints/last.ckpt", weights_only=True)
        assert kept["optimizer_states"][0]["param_groups"][0]["lr"] == 0.5
        net, loss = (kept["hyper_parameters"][part]["init_args"] for part in ("net", "loss"))
        assert (net["dropout"], net["hidden"]) == (0.4, 8)
        assert loss["class_weights"] == [2.0] * 10
        assert "loss.weight" not in kept["state_dict"]


class TestFromACheckpoint:
    def test_metrics_need_no_config_and_write_no_run(self, run: Run, checkpoint: Path) -> None:
        result = run("validate", "--ckpt_path", checkpoint)
        assert result.code == 0, result.err
        for name in ("accuracy", "precision", "recall", "f1", "loss"):
            assert f"val/{name}" in result.out
        assert run("test", "--ckpt_path", checkpoint).code == 0
        assert not list(Path().iterdir())

    def test_predict_writes_a_row_for_every_test_image(self, run: Run, checkpoint: Path, tmp_path: Path) -> None:
        result = run("predict", "--ckpt_path", checkpoint, "--output", "p.csv")
        assert result.code == 0, result.err
        with Path("p.csv").open() as file:
            rows = list(csv.DictReader(file))
        images = Digits().images("test")
        assert [row["path"] for row in rows] == list(images.names)
        right = [row["label"] == str(label) for row, label in zip(rows, images.labels, strict=True)]
        assert sum(right) / len(right) > 0.8
        assert all(0.1 <= float(row["probability"]) <= 1 for row in rows)

    def test_predict_takes_photos_also_where_the_run_had_none(self, run: Run, checkpoint: Path, photos: Path) -> None:
        new = photos / "test" / "red"
        words = ("--data", "ImageFolder", "--data.root", new, "--output", "p.csv")
        result = run("predict", "--ckpt_path", checkpoint, *words)
        assert result.code == 0, result.err
        rows = Path("p.csv").read_text().splitlines()[1:]
        assert sorted(row.partition(",")[0] for row in rows) == sorted(map(str, new.iterdir()))

    @pytest.mark.parametrize("folder", [pytest.param("there", marks=pytest.mark.slow), "new/"])
    def test_what_is_written_may_go_into_a_folder(self, run: Run, checkpoint: Path, folder: str) -> None:
        Path("there").mkdir()
        for command, name in (("predict", "predictions.csv"), ("export", "model.onnx")):
            assert run(command, "--ckpt_path", checkpoint, "--output", folder).code == 0
            assert Path(folder, name).is_file()

    def test_what_ends_with_a_separator_is_a_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sep", "\\")  # as on Windows
        for folder in ("new/", "new\\"):
            assert target(folder, Path("runs/a.csv")) == Path(folder, "a.csv")

    def test_predict_takes_a_folder_of_any_pictures(self, run: Run, photos: Path, tmp_path: Path) -> None:
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos).code == 0
        shutil.copytree(photos / "test" / "red", "new")
        Path("new/broken.jpg").write_bytes(b"nothing")
        ckpt = "runs/cnn/version_0/checkpoints/best.ckpt"
        result = run("predict", "--ckpt_path", ckpt, "--data.root", "new")
        assert result.code == 0, result.err
        with Path("runs/cnn/version_0/predictions-new.csv").open() as file:
            rows = list(csv.DictReader(file))
        broken = rows.pop()
        assert sorted(row["path"] for row in rows) == ["new/00.jpg", "new/01.png", "new/02.jpg"]
        assert {row["label"] for row in rows} <= {"blue", "green", "red"}
        assert {row["error"] for row in rows} == {""}
        assert (broken["path"], broken["label"]) == ("new/broken.jpg", "")
        assert "not a picture" in broken["error"]

    @pytest.mark.slow
    def test_held_out_photos_that_may_have_been_trained_on_are_told(self, run: Run, photos: Path) -> None:
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos / "train").code == 0
        kept = Path("runs/cnn/version_0/checkpoints")
        shutil.copy(photos / "test" / "red" / "00.jpg", photos / "train" / "red" / "new.jpg")
        tested = run("test", "--ckpt_path", kept / "best.ckpt", "--resamples", 2)
        assert "which fit may have used in part: they, or how they are split, have changed since" in tested.out
        assert [path.name for path in kept.parent.glob("report*")] == ["report-seen"]
        exported = run("export", "--ckpt_path", kept / "best.ckpt")
        assert "images that calibrate the file may have been trained on: they, or how they are" in exported.out
        resumed = run("fit", "--trainer.max_epochs", 2, "--ckpt_path", kept / "last.ckpt")
        assert "it may have seen some of the images that are held out now" in resumed.out
        tested = run("test", "--ckpt_path", "runs/cnn/version_1/checkpoints/best.ckpt", "--resamples", 2)
        assert "which fit may have used in part" in tested.out
        assert [path.name for path in Path("runs/cnn/version_1").glob("report*")] == ["report-seen"]

    @pytest.mark.parametrize("given", [False, True])
    def test_a_file_that_other_photos_calibrate_is_told_and_photos_that_moved_are_not(
        self, run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, given: bool
    ) -> None:
        if given:
            make_photos(photos / "val", 3)
        own = photos if given else photos / "train"
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", own).code == 0
        shutil.copytree(own, "moved")
        shutil.copytree(own, "edited")
        for file in [*Path("edited/val" if given else "edited").rglob("0[01].*")]:
            file.unlink()
        make_photos(Path("others/val" if given else "others"), 14)
        if given:
            shutil.copytree(own / "train", "others/train")
        monkeypatch.setattr(trainer, "export", Mock(side_effect=InputError("enough")))
        words = ("export", "--ckpt_path", "runs/cnn/version_0/checkpoints/best.ckpt", "--data.root")
        changed = "some of the images that calibrate the file may have been trained on: they, or how they are split"
        sentence = "the file is calibrated on other validation images than the run's" if given else changed
        told = {root: run(*words, root).out for root in ("moved", "edited", "others")}
        assert told["moved"] == ""
        assert told["edited"].startswith(sentence)
        assert told["others"].startswith(sentence)
        if given:  # the run went on with other photos: which are its own is not known
            runs.record(Path("runs/cnn/version_0"), validation="various")
            assert run(*words, "others").out == ""

    def test_photos_that_only_moved_are_judged_as_the_runs_own(self, run: Run, photos: Path) -> None:
        """And others, or the test set of these, which fit does not know, leave the run's report as it is."""
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos / "train").code == 0
        words = ("test", "--ckpt_path", "runs/cnn/version_0/checkpoints/best.ckpt", "--resamples", 2, "--data.root")
        shutil.copytree(photos / "train", "moved")
        result = run(*words, "moved")
        assert "the test set is 3 pictures of moved, which fit never uses" in result.out
        assert "skipping" not in result.out
        assert Path("runs/cnn/version_0/report/metrics.json").exists()
        shutil.copytree(photos / "test", "moved/test")
        Path("moved/train").mkdir()
        for name in ("blue", "green", "red"):
            Path("moved", name).rename(Path("moved/train", name))
        assert run(*words, "moved").code == 0
        assert "fit would not use: if none were trained on, python -m cifar_onnx" in run(*words, photos / "test").out
        found = sorted(path.name for path in Path("runs/cnn/version_0").glob("report*"))
        assert found == ["report", "report-moved", "report-test"]

    def test_a_part_of_the_test_set_leaves_the_runs_report_as_it_is(self, run: Run, checkpoint: Path) -> None:
        shutil.copytree(checkpoint.parents[1], "kept", ignore=shutil.ignore_patterns("report*"))
        words = ("test", "--ckpt_path", "kept/checkpoints/best.ckpt", "--resamples", 2)
        assert run(*words).code == 0
        report = Path("kept/report/metrics.json")
        whole = report.read_bytes()
        result = run(*words, "--trainer.limit_test_batches", 1)
        assert "only 64 of 179 images are evaluated" in result.out
        assert report.read_bytes() == whole
        assert json.loads(Path("kept/report-part/metrics.json").read_text())["images"] == 64

    def test_pictures_that_become_square_otherwise_leave_the_runs_report_as_it_is(self, run: Run, photos: Path) -> None:
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos).code == 0
        ckpt = "runs/cnn/version_0/checkpoints/best.ckpt"
        result = run("test", "--ckpt_path", ckpt, "--data.resize_mode", "crop", "--resamples", 2)
        assert "data.resize_mode is crop, and the net was trained with stretch" in result.out
        assert [path.name for path in Path("runs/cnn/version_0").glob("report*")] == ["report-resized"]

    def test_pictures_of_another_source_leave_the_runs_report_as_it_is(
        self, run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(checkpoint.parents[1], "kept", ignore=shutil.ignore_patterns("report*"))
        (tmp_path / "a_source.py").write_text("from cifar_lightning.data import Digits\nclass Mine(Digits): pass\n")
        monkeypatch.syspath_prepend(tmp_path)
        words = ("test", "--ckpt_path", "kept/checkpoints/best.ckpt", "--resamples", 2)
        assert run(*words, "--data", "a_source.Mine").code == 0
        assert [path.name for path in Path("kept").glob("report*")] == ["report-Mine"]

    @pytest.mark.parametrize("command", ["predict", "export"])
    def test_what_is_written_takes_no_checkpoints_place(self, run: Run, checkpoint: Path, command: str) -> None:
        kept = checkpoint.read_bytes()
        result = run(command, "--ckpt_path", checkpoint, "--output", checkpoint)
        assert result.code == 2
        assert f"{checkpoint} ends in .ckpt, like a checkpoint: name another file, such as " in result.err
        assert checkpoint.read_bytes() == kept

    def test_where_nothing_can_be_written_nothing_is_predicted(
        self, run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("file").write_text("")
        monkeypatch.setattr(Digits, "load", None)
        result = run("predict", "--ckpt_path", checkpoint, "--output", "file/p.csv")
        assert result.code == 2
        assert "error: file: nothing can be written there (" in result.err
        assert result.err.endswith("): name another place with --output\n")

    def test_pillow_warns_nobody_of_exif_that_is_rotten(self, run: Run, photos: Path) -> None:
        """A warning would be an error here, and the photo be left out."""
        Image.new("RGB", (9, 9)).save(photos / "train" / "red" / "rotten.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08")
        result = run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos)
        assert result.code == 0
        assert "skipped" not in result.err

    @pytest.mark.parametrize(("command", "name"), [("test", "test"), ("predict", "predict"), ("validate", "val")])
    def test_no_batch_at_all_is_refused(self, run: Run, checkpoint: Path, command: str, name: str) -> None:
        result = run(command, "--ckpt_path", checkpoint, f"--trainer.limit_{name}_batches", 0)
        assert result.code == 2
        assert f"trainer.limit_{name}_batches is 0: {command} would have nothing to do" in result.err

    @pytest.mark.filterwarnings("ignore:GPU available but not used")
    @pytest.mark.parametrize(
        ("typed", "gpus", "taken"), [("[1]", 2, [1]), ("[3, 2]", 4, [3]), ("2", 4, 1), ("[1]", 1, 1), ("[0]", 0, 1)]
    )
    def test_what_is_for_one_device_takes_the_first_that_is_named(
        self, run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, typed: str, gpus: int, taken: object
    ) -> None:
        """Where there is such a one: the config may be that of a run on another machine."""
        given: dict[str, object] = {}
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(LightningCLI, "instantiate_trainer", lambda _, **settings: given.update(settings))
        monkeypatch.setattr(CLI, "_run_subcommand", lambda *_: None)
        words = ("predict", "--ckpt_path", checkpoint, "--trainer.devices", typed)
        assert run(*words).code == 0
        assert given["devices"] == taken
        assert run(*words, "--trainer.accelerator", "cpu").code == 0
        assert given["devices"] == 1

    def test_a_folder_that_is_called_as_a_setting_is_no_danger(self, run: Run) -> None:
        assert run("fit", *BRIEF, "--model.loss.class_weights", "inverse").code == 0
        Path("inverse").mkdir()
        ckpt = "runs/cnn/version_0/checkpoints/best.ckpt"
        assert run("predict", "--ckpt_path", ckpt).code == 0

    def test_class_names_travel_with_the_checkpoint(self, run: Run, photos: Path) -> None:
        """A test set that lacks a class keeps the order of the training folder."""
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos).code == 0
        (Path("other") / "test").mkdir(parents=True)
        shutil.copytree(photos / "train" / "red", "other/test/red")
        ckpt = Path("runs/cnn/version_0/checkpoints/best.ckpt")
        assert torch.load(ckpt, weights_only=True)["hyper_parameters"]["classes"] == ["blue", "green", "red"]
        result = run("test", "--ckpt_path", ckpt, "--data.root", "other")
        assert result.code == 0
        assert "skipping calibration, prediction sets and unknown pictures: other has test/ but no train/" in result.out

    def test_a_checkpoint_is_calibrated_by_its_own_photos_only(self, run: Run, photos: Path) -> None:
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.root", photos).code == 0
        ckpt = "runs/cnn/version_0/checkpoints/best.ckpt"
        words = ("test", "--ckpt_path", ckpt, "--resamples", 2, "--data.root")
        shutil.copytree(photos, "moved")
        moved = run(*words, "moved")
        assert (moved.code, "without calibration" in moved.out) == (0, False)
        shutil.copytree(photos, "others")
        Path("others/train/red/00.jpg").unlink()
        assert "these are not the run's pictures (python -m cifar_onnx evaluate judges" in run(*words, "others").out
        Path("models").mkdir()
        shutil.copy(ckpt, "models/pets.ckpt")
        alone = run("test", "--ckpt_path", "models/pets.ckpt", *words[3:], "moved")
        assert "these are not known to be the run's pictures (python -m cifar_onnx" in alone.out

    def test_checkpoints_hold_nothing_but_tensors_and_plain_values(self, checkpoint: Path) -> None:
        for name in ("best.ckpt", "last.ckpt"):
            kept = torch.load(checkpoint.with_name(name), weights_only=True)
            assert kept["run"]["seed"] == 0
            assert kept["run"]["metrics"]["val/accuracy"] > 0.8


@pytest.mark.parametrize("words", [
    ["m.onnx", "--against", "P"],
    ["--against", "P", "m.onnx"],
    ["--against=P", "m.onnx", "--images", "9"],
    ["--against", "P", "--allow_custom_classes", "m.onnx"],
    ["--against", "P", "--print_config", "m.onnx"],
    ["--images", "9", "--against", "P", "--file", "m.onnx"],
], ids=" ".join)  # fmt: skip
def test_the_file_to_verify_may_stand_anywhere(words: list[str]) -> None:
    (command, *rest) = read(["verify", *words]).words
    assert command == "verify"
    assert rest[rest.index("--file") + 1] == "m.onnx"
    assert rest.count("--file") == 1
    assert ("9" in rest) == ("9" in words)


def test_typed_keys_are_those_of_the_options_however_they_are_written() -> None:
    words = ["fit", "--model.optimizer.init_args.lr=1", "--data.batch_size", "3"]
    assert read(words).typed_keys == ["model.optimizer.lr", "data.batch_size"]


def test_what_is_below_a_class_in_a_config_may_be_joined_by_dots_and_stand_in_itself() -> None:
    Path("c.yaml").write_text("data: &data {class_path: Digits, init_args.augment: [*data], dict_kwargs: {}}")
    assert "data" in read(["fit", "--config", "c.yaml"]).contents[0]


def test_of_the_commands_only_the_one_that_is_asked_for_gets_a_parser() -> None:
    def parsers(word: str) -> set[str]:
        return {*CLI.subcommands(SimpleNamespace(command=SimpleNamespace(words=[word])))}  # type: ignore[arg-type]

    assert parsers("test") == {"test"}
    assert parsers("tset") == {"fit", "validate", "test", "predict", "export", "verify"}
