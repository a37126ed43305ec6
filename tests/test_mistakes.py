"""Mistakes that people make: each is answered with one sentence."""

import errno
import logging
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import lightning.pytorch as L
import pytest
import torch
from lightning_utilities.core.imports import RequirementCache
from PIL import Image
from torch import nn

from cifar_lightning import error_source
from cifar_lightning.checkpoint import write
from cifar_lightning.cli import usage
from cifar_lightning.cli.settings import check_batch_norm
from cifar_lightning.data import Digits
from cifar_lightning.leaderboard.command import main as runs
from cifar_lightning.main import _not_advertising, main
from cifar_lightning.nets import SpeedNet
from tests.conftest import BRIEF, Run, config_of, lines

ONE_CYCLE = ["--data", "Digits", "--model.scheduler", "OneCycleLR", "--model.scheduler.max_lr", "0.1"]
RESNET = ["--model.net", "Torchvision", "--model.net.name", "resnet18"]

OWN_NETS = """import torch
from torch import nn

from cifar_lightning.augment import Augmentation
from cifar_lightning.mix import MixUp

class Few(nn.Sequential):
    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3072, 3))
class Pair(Few):
    def forward(self, x):
        return super().forward(x), 0
class Deep(nn.Sequential):
    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Conv2d(3, 8, 1), *[nn.MaxPool2d(2)] * 6, nn.Flatten(), nn.Linear(8, num_classes))
class Wrong(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
    def forward(self, x):
        raise KeyError("no such layer")
class Loud(Augmentation):
    def __call__(self, images, draw):
        return images + torch.randn(images.shape, generator=draw.generator)
class Unmixed(MixUp):
    def __call__(self, images, labels, num_classes, draw):
        raise ValueError("cannot be mixed")
class Lazy(nn.Sequential):
    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))
def build(num_classes: int):
    return Few(num_classes)
class Fixed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3072, 10))
class Twice(Fixed):
    def forward(self, x):
        return super().forward(x), super().forward(x)
class Squeezed(Fixed):
    def forward(self, x):
        return super().forward(x).squeeze()
class Double(Fixed):
    def forward(self, x):
        return super().forward(x).double()
class Relative(Fixed):
    def forward(self, x):
        y = super().forward(x)
        return y - y.mean(0)
class Whole(Fixed):
    def forward(self, x):
        return super().forward(x).view(2, 10)
class Unbuilt(Fixed):
    def __init__(self) -> None:
        raise KeyError("no such width")
class Uncopied(Fixed):
    def __init__(self) -> None:
        super().__init__()
        self.product = self[1].weight * 2
class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3072, 10), nn.BatchNorm1d(10))
"""


class TestMistakes:
    """Each is one sentence with the nearest valid name, exit code 2, and nothing written."""

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["fti"], "there is no command 'fti': did you mean 'fit'?"),
            (["fit", "--trainer.max_epoch", "3"], "no option 'trainer.max_epoch': did you mean 'trainer.max_epochs'?"),
            (["fit", "--trainer.max_epoch=3"], "no option 'trainer.max_epoch': did you mean 'trainer.max_epochs'?"),
            (["fit", "--model.net.init_args.dropuot", "0.3"], "there is no option 'dropuot': did you mean 'dropout'?"),
            (["fit", "--model.net.dropuot", "0.3"], "there is no option 'dropuot': did you mean 'dropout'?"),
            (["fit", "--modle.net.dropout", "0.3"], "'modle.net.dropout': did you mean 'model.net.dropout'?"),
            (["fit", "--data.batchsize", "3"], "there is no option 'batchsize': did you mean 'batch_size'?"),
            (["fit", "--data", "Digit"], "data: no class is called 'Digit': did you mean 'Digits'?"),
            (["fit", "--model.net", "CNNN"], "model.net: no class is called 'CNNN': did you mean 'CNN'?"),
            (["fit", "--model.net", "cifar_lightning.nets.CNNN"], "has no 'CNNN': did you mean 'CNN'?"),
            (["fit", "--model.net", "cifar_lightnin.nets.CNN"], "'cifar_lightnin': did you mean 'cifar_lightning'?"),
            (["fit", "--model.optimizer", "Adma"], "no class is called 'Adma': did you mean 'Adam'?"),
            (["fit", "--model.optimizer.lrr", "1"], "there is no option 'lrr': did you mean 'lr'?"),
            (["fit", "--trainer.callbacks+", "EarlyStoping"], "'EarlyStoping': did you mean 'EarlyStopping'?"),
            (["fit", "--data.augment+", "CutMix"], "data.augment: CutMix is a class of another kind, Mixing"),
            (["fit", "--data.batch_size", "many"], "batch_size: expected int, got 'many'"),
            (["fit", "--trainer.max_epochs", "x"], "trainer.max_epochs: expected int or null, got 'x'"),
            (["fit", "--data", "ImageFolder"], "data.root is missing: name the folder that holds a folder of"),
            (["fit", "--data", "ImageFolder", "--data.root", "nowhere"], "data.root 'nowhere' is not a folder"),
            (["fit", "--config", "nowhere.yaml"], "nowhere.yaml: cannot be read (No such file or directory)"),
            (["fit", "--data", "ImageFolder", "--data.resize_mode", "croop"], "got 'croop': did you mean 'crop'?"),
            (["fit", "--data", "ImageFolder", "--data.memory", "much"], "memory: expected auto or float, got 'much'"),
            (["fit", "--model.net", "nowhere.Net"], "there is no module 'nowhere'"),
            (["fit", "--trainer.accelerator", "gpuu"], "invalid accelerator name: `accelerator='gpuu'`"),
            (["fit", "--data", "Digits", "--model.loss.class_weights", "[1.0]"], "1 class weights for 10 classes"),
            (["test"], "test needs a checkpoint: name its file with --ckpt_path"),
            (["test", "--ckpt_path", "last"], "last: no such checkpoint"),
            (["verify", "m.onnx"], "verify needs a checkpoint: name its file with --against"),
            (["fit", "--epochs", "3"], "there is no option 'epochs': did you mean 'trainer.max_epochs'?"),
            (["fit", "--seed", "3"], "there is no option 'seed': did you mean 'seed_everything'?"),
            (
                ["fit", "--data", "Digits", "--imgsz", "3"],
                "there is no option 'imgsz': ImageFolder and ImageNet have data.image_size",
            ),
            (["fit", "--data", "ImageFolder", "--imgsz", "3"], "'imgsz': did you mean 'data.image_size'?"),
            (["fit", "--data.image_size", "299"], "no option 'image_size': ImageFolder and ImageNet have data"),
            (["fit", "--model.net", "cnn"], "model.net: no class is called 'cnn': did you mean 'CNN'?"),
            (["fit", "--model.optimizer", "adamw"], "no class is called 'adamw': did you mean 'AdamW'?"),
            (["fit", "--model", "CNN"], "model: there is no file 'CNN' with settings: did you mean --model.net CNN?"),
            (
                ["fit", "--model", "lab.Mine"],
                "did you mean --model.net lab.Mine or, for a LightningModule, your own Trainer (docs/experiments.md, "
                "In Python)?",
            ),
            (["classify", "a.jpg"], "classify is a command of the other package: python -m cifar_onnx classify"),
            (["fit", "--data", "/"], "data: '/' is a folder: --data ImageFolder --data.root /"),
            (["fit", "--ckpt_path", "best"], "best: no such checkpoint"),
            (["fit", "--data", "ImageFolder", "--data.root", "caf\udce9"], "'caf\\udce9' is not valid UTF-8"),
            (["predict"], "predict needs a checkpoint: name its file with --ckpt_path"),
            (["fit", "--data", "Digits", "--trainer.accumulate_grad_batches", "0"], "must be at least 1"),
            (["fit", "--model.net.widths", "32"], "model.net.widths: expected tuple, got '32': write [32]"),
            (
                ["fit", "--model.net.widths", "[64,", "128]"],
                "model.net.widths: '[64,' is a part: put the whole of it in quotes, as in \"[1, 2]\"",
            ),
            (["fit", "--model.scheduler", "ReduceLROnPlateau"], "such as torch.optim.lr_scheduler.ReduceLROnPlateau"),
            (["fit", "--model.scheduler", "CosineAnnealingLR"], "model.scheduler.T_max is missing: give it as --model"),
            (["fit", "--data", "Digits", "--checkpoint.save_top_k", "3"], "--checkpoint.filename best-{step}"),
            (
                ["fit", "--data", "Digits", "--trainer.devices", "2", "--trainer.strategy", "ddp_spawn"],
                "fit takes no strategy that spawns or forks",
            ),
            (
                ["fit", *ONE_CYCLE, "--model.optimizer.lr", "5"],
                "model.optimizer.lr does nothing beside OneCycleLR: give model.scheduler.max_lr",
            ),
            (
                ["fit", *RESNET, "--model.net.weights", "DEFAULT", "--model.net.sha256", "00"],
                "model.net.weights is the name DEFAULT: leave the digest out (null)",
            ),
            (["fit", "--data", "Digits", "--trainer.callbacks+", "BackboneFinetuning"], "--trainer.callbacks+ Freeze"),
            (["fit", "--data", "Digits", "--trainer.max_epochs", "0"], "trainer.max_epochs is 0: nothing"),
            (["fit", "--data", "Digits", "--seed_everything", "-3"], "-3 is not in bounds"),
            (["fit", "--data", "Digits", "--last.every_n_train_steps", "-1"], "last.every_n_train_steps is -1"),
            (["fit", "--data", "Digits", "--last.every_n_epochs", "0"], "last.every_n_epochs is 0"),
            (["export", "--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_on_the_command_line(self, run: Run, words: list[str], sentence: str) -> None:
        result = run(*words)
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert sentence in line
        assert "Traceback" not in result.err
        assert not list(Path().iterdir())

    @pytest.mark.parametrize("key", ["model.net.memory", "trainer.memory"])
    def test_what_only_data_have_is_not_advised_elsewhere(self, run: Run, key: str) -> None:
        result = run("fit", f"--{key}", 1)
        assert result.code == 2
        assert "there is no option" in result.err
        assert "ImageFolder" not in result.err
        assert not list(Path().iterdir())

    @pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
    def test_a_disk_without_locks(
        self, number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reason = os.strerror(number)
        monkeypatch.setattr("cifar_lightning.main.run", Mock(side_effect=OSError(number, reason)))
        assert main(["fit"]) == 2
        assert capsys.readouterr().err == f"error: a file cannot be read or written: {reason}\n"

    @pytest.mark.parametrize("words", ["Tip: take", "You are using a CUDA device ('x') that has Tensor Cores. To"])
    def test_what_is_no_option_here_is_not_advised(self, words: str) -> None:
        assert not _not_advertising(logging.makeLogRecord({"msg": words}))

    def test_a_reader_that_has_gone(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as pipe:
            monkeypatch.setattr(sys, "stdout", pipe)
            monkeypatch.setattr("cifar_lightning.main.run", lambda _: print("epoch 1", flush=True))
            assert main(["fit"]) == 2
        assert capsys.readouterr().err == "error: standard output was closed before the end\n"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_an_output_that_cannot_be_written(self, unbuffered: str) -> None:
        words = [sys.executable, "-m", "cifar_lightning", "--version"]
        with open("/dev/full", "w") as full:
            env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
            done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, env=env)
        said = "error: standard output cannot be written: No space left on device\n"
        assert (done.returncode, done.stderr) == (2, said)

    @pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
    def test_without_any_output_there_is_still_an_exit_code(self) -> None:
        """As of a daemon."""
        words = [sys.executable, "-m", "cifar_lightning", "fit", *map(str, BRIEF)]
        assert subprocess.run(f"{shlex.join(words)} >&- 2>&-", shell=True).returncode == 0
        assert subprocess.run(f"{shlex.join(words)} --nonsense >&- 2>&-", shell=True).returncode == 2

    def test_on_windows_it_leaves_an_invalid_argument(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = Mock(side_effect=OSError(errno.EINVAL, "Invalid argument"))
        monkeypatch.setattr("cifar_lightning.main.run", gone)
        monkeypatch.setattr("cifar_lightning.leaderboard.command._shown", gone)
        with open(os.devnull, "w") as output:
            monkeypatch.setattr("cifar_onnx.shell.sys", SimpleNamespace(platform="win32", stdout=output))
            monkeypatch.setattr(sys, "stdout", output)
            assert (main(["fit"]), runs(["."])) == (2, 0)
        assert capsys.readouterr().err == "error: standard output was closed before the end\n"

    def test_pillow_says_nothing_of_large_pictures(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From 89 million pixels on it would."""
        Image.new("1", (9500, 9500)).save("large.png")
        monkeypatch.setattr("cifar_lightning.main.run", lambda _: Image.open("large.png").close())
        assert main(["fit"]) == 0

    def test_a_logger_that_is_not_installed(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
        result = run("fit", *BRIEF, "--trainer.logger", "WandbLogger")
        assert result.code == 2
        assert len(lines(result.err, "error: ")) == 1
        assert "Traceback" not in result.err

    def test_a_net_of_ones_own_is_named_with_its_module(self, run: Run) -> None:
        Path("mynet.py").write_text("from torch import nn\n\n\nclass MyNet(nn.Module): ...\n")
        for name, sentence in (
            ("MyNet", "model.net: no class is called 'MyNet': did you mean 'mynet.MyNet'?"),
            ("mynet.py", "model.net: mynet.py is a file: name a class in it, such as mynet.Net"),
        ):
            result = run("fit", "--data", "Digits", "--model.net", name)
            assert result.code == 2
            assert sentence in result.err

    def test_what_a_callback_of_lightning_needs_is_not_the_users_own(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        missing = RequirementCache("psutil>=999")
        monkeypatch.setattr("lightning.pytorch.callbacks.device_stats_monitor._PSUTIL_AVAILABLE", missing)
        result = run("fit", *BRIEF, "--trainer.callbacks+", "DeviceStatsMonitor")
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert "psutil" in line
        assert "your own" not in line

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("trainer: {max_epoch: 3}", "'trainer.max_epoch': did you mean 'trainer.max_epochs'?"),
            ("trainr: {max_epochs: 3}", "'trainr.max_epochs': did you mean 'trainer.max_epochs'?"),
            ("model: {net: {class_path: CNN, init_args: {dropuot: 0.3}}}", "did you mean 'dropout'?"),
            ("data: {class_path: Digits, init_args: {augment: [Miror]}}", "did you mean 'Mirror'?"),
            ("model: {loss: {class_path: CrossEntropy, init_args: {label_smothing: 1}}}", "'label_smoothing'?"),
            ("fit: {trainer: {max_epochs: 3}}", "'fit.trainer.max_epochs': leave 'fit' out"),
            (
                "model: {net: {class_path: CNN, dropout: 0.3}}",
                "c.yaml: model.net has dropout beside class_path: put that below init_args",
            ),
            (
                "data: {class_path: ImageFolder, root: photos, init_args: {batch_size: 8}}",
                "c.yaml: data has root beside class_path",
            ),
            ("model: {optimizer: {class_path: SGD, lr: 1, momentum: 0}}", "model.optimizer has lr, momentum beside"),
            (
                "data: {class_path: Digits, init_args: {augment: [{class_path: Cutout, size: 8}]}}",
                "c.yaml: data.init_args.augment has size beside class_path",
            ),
            (
                "data: {class_path: Digits, init_args: {augment: [Cutout: {size: 8}]}}",
                "augment: Cutout is a class: write {class_path: Cutout, init_args: {...}}",
            ),
            (
                "data: {class_path: Digits, init_args: {mix: {MixUp: {alpha: 1}}}}",
                "mix: MixUp is a class: write {class_path: MixUp, init_args: {...}}",
            ),
            ("model: {optimizer: {AdamW: {lr: 1}}}", "error: AdamW is a class: write {class_path: AdamW, init_args"),
            ("config: base.yaml", "c.yaml: config is no key of a config file: name each file with --config"),
            ("trainer: [", "c.yaml: not a YAML file"),
            ("[" * 3000, "c.yaml: not a YAML file"),
            ("seed_everything: !!bool x", "c.yaml: not a YAML file (a value does not fit the tag in front of it)"),
            ("experiment: !!timestamp x", "c.yaml: not a YAML file (a value does not fit the tag in front of it)"),
            ("seed_everything: !!int x", "c.yaml: not a YAML file"),
            ("- trainer", "c.yaml: not a mapping of options"),
            ("", "c.yaml: not a mapping of options"),
        ],
    )
    def test_in_a_config_file(self, run: Run, text: str, sentence: str) -> None:
        Path("c.yaml").write_text(text)
        result = run("fit", "--config", "c.yaml")
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert sentence in line
        assert not Path("runs").exists()

    @pytest.mark.parametrize("settings", ["{batch_size: 8}", "{init_args: {batch_size: 8}}"])
    def test_settings_of_a_class_that_only_a_later_config_file_names(self, run: Run, settings: str) -> None:
        Path("c.yaml").write_text(f"data: {settings}")
        Path("d.yaml").write_text("data: Digits")
        result = run("fit", "--config", "c.yaml", "--config", "d.yaml")
        assert result.code == 2
        advice = "give class_path, and its settings below init_args"
        assert result.err == f"error: data: no class is named there: {advice}\n"

    def test_a_file_that_is_no_checkpoint_is_named(self, run: Run) -> None:
        sentence = "error: x.ckpt: damaged, or not a checkpoint written by this project's fit"
        for content in (b"", b"not a checkpoint"):
            Path("x.ckpt").write_bytes(content)
            result = run("test", "--ckpt_path", "x.ckpt")
            assert result.code == 2
            assert lines(result.err, "error: ") == [sentence]
        torch.save({"state_dict": {}}, "x.ckpt")
        assert lines(run("test", "--ckpt_path", "x.ckpt").err, "error: ") == [sentence]
        for kept in ({"state_dict": {}}, torch.zeros(3)):
            write(kept, "x.ckpt")  # type: ignore[arg-type]
            result = run("test", "--ckpt_path", "x.ckpt")
            assert "error: x.ckpt: not a checkpoint written by this project's fit" in result.err

    def test_data_with_other_classes_than_the_checkpoints_is_refused(
        self, run: Run, checkpoint: Path, photos: Path
    ) -> None:
        for command in ("test", "export"):
            result = run(command, "--ckpt_path", checkpoint, "--data", "ImageFolder", "--data.root", photos)
            assert result.code == 2
            assert "the checkpoint knows the classes 0, 1, 2" in result.err
            assert "the data has blue, green, red" in result.err

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (
                ["--model.scheduler", "OneCycleLR", "--model.scheduler.max_lr", 0.1, "--trainer.max_epochs", -1],
                "model.scheduler needs an end",
            ),
            (["--trainer.val_check_interval", 99], "number of the training batches"),
            (
                [*ONE_CYCLE[2:], "--model.scheduler.total_steps", 3],
                "after 3 steps, before the 4 that are asked for: leave model.scheduler.total_steps, or epochs, out",
            ),
        ],
    )
    def test_that_show_only_in_the_run(self, run: Run, words: list[object], sentence: str) -> None:
        result = run("fit", *BRIEF, *words)
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert sentence in line

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--model.net.dropout", 2], "dropout probability has to be between 0 and 1"),
            (["--model.net", "ownnets.Few"], "model.net gives (2, 3) for 2 pictures and 10 classes"),
            (["--model.net", "ownnets.Pair"], "model.net gives a tuple for 2 pictures and 10 classes"),
            (["--model.net", "ownnets.Deep"], "model.net, on images of 32 pixels (those of Digits stay so, Image"),
            (
                ["--model.net", "ownnets.Wrong"],
                "ImageFolder and ImageNet have data.image_size): KeyError: 'no such layer' (",
            ),
            (["--model.net", "ownnets.Lazy"], "model.net has lazy layers of unknown size"),
            (["--model.net", "ownnets.Twice"], "in evaluation mode, gives a tuple for a batch of 2: then it must give"),
            (["--model.net", "ownnets.Squeezed"], "in evaluation mode, gives (10,) for a batch of 1: then it must"),
            (["--model.net", "ownnets.Double"], "model.net gives logits in float64: let it end with .float()"),
            (["--model.net", "ownnets.Whole"], "model.net, in evaluation mode, on a batch of 1: RuntimeError: shape"),
            (["--model.net", "ownnets.Relative"], "answers a picture differently alone than in a batch: nothing"),
            (["--model.net", "ownnets.build"], "ownnets.build is not a subclass of Module: name one"),
            (["--model.loss", "ownnets.build"], "model.loss: ownnets.build is not a subclass of Module: name one"),
            (["--data", "torch.nn.Linear"], "data: torch.nn.Linear is not a subclass of ImageData: name one"),
            (["--data.augment+", "torch.nn.Linear"], "data.augment: torch.nn.Linear is not a subclass of Augmentation"),
            (["--model.optimizer", "torch.nn.Linear"], "torch.nn.Linear is not a subclass of Optimizer: name one"),
            (["--model.scheduler", "torch.nn.Linear"], "torch.nn.Linear is not a subclass of LRScheduler: name one"),
            (["--trainer.logger", "torch.nn.Linear"], "torch.nn.Linear is not a subclass of Logger: name one"),
            (["--trainer.enable_checkpointing", "false"], "a run keeps its best epoch and its last"),
            (["--model.net", "torch.nn.Identity"], "model.optimizer: optimizer got an empty parameter list"),
            (
                ["--model.net.widths", "[4, 4, 4, 4, 4, 4]"],
                "CNN with 6 blocks needs pictures of at least 64 pixels, not 32",
            ),
            (["--model.optimizer.lr", "-1"], "model.optimizer: Invalid learning rate: -1"),
            (["--model.optimizer", "LBFGS"], "model.optimizer: RuntimeError: view size"),
            (
                ["--model.loss", "torch.nn.TripletMarginLoss"],
                "model.loss: TripletMarginLoss.forward() missing 1 required",
            ),
            (["--model.loss.label_smoothing", 2], "model.loss: RuntimeError: label_smoothing must be between"),
            (
                ["--model.scheduler", "CosineAnnealingLR", "--model.scheduler.T_max", 0],
                "model.scheduler: ZeroDivisionError",
            ),
            (
                ["--model.scheduler", "LambdaLR", "--model.scheduler.lr_lambda", "math.sqrt"],
                "model.scheduler: AttributeError",
            ),
            (
                ["--data.augment+", "ShiftedCrop", "--data.augment.pixels", 32],
                "ShiftedCrop cannot shift images of 32 x 32",
            ),
            (
                ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/acc"],
                "EarlyStopping monitors 'val/acc', which is not a metric: there are train/loss, val/loss, val/accuracy",
            ),
            (["--checkpoint.every_n_train_steps", 3], "keeps the best by val/accuracy, which only validations measure"),
            (
                [
                    *("--checkpoint.every_n_train_steps", 3, "--checkpoint.monitor", "train/loss"),
                    *("--checkpoint.mode", "min"),
                ],
                "best by train/loss, which is known at the ends of epochs only: take --last.every_n_train_steps to",
            ),
            (
                ["--checkpoint.save_on_train_epoch_end", "true", "--trainer.val_check_interval", 4],
                "trainer.val_check_interval 4 need not have measured it: leave one of them out",
            ),
            (["--checkpoint.train_time_interval", "00:00:01"], "or --last.every_n_train_steps to keep the last steps"),
            (["--checkpoint.dirpath", "best"], "checkpoints lie in the folder of their run, which --trainer.default"),
            (
                [
                    *("--checkpoint.save_top_k", 2, "--checkpoint.filename", "best-{epoch}"),
                    *("--trainer.val_check_interval", 0.5),
                ],
                "best-{epoch} may be one name for several: add --checkpoint.filename best-{epoch}-{step}",
            ),
            (  # after each batch, where 1.0 is after each epoch
                [
                    *("--checkpoint.save_top_k", 2, "--checkpoint.filename", "b-{epoch}"),
                    *("--trainer.val_check_interval", 1),
                ],
                "b-{epoch} may be one name for several",
            ),
            (
                [
                    *("--checkpoint.every_n_train_steps", 3, "--checkpoint.monitor", "null"),
                    *("--checkpoint.save_top_k", -1, "--checkpoint.filename", "c-{epoch}"),
                ],
                "c-{epoch} may be one name for several",
            ),
            (["--checkpoint.monitor", "val/acc"], "BestCheckpoint monitors 'val/acc'"),
            (
                [
                    *("--model.scheduler", "CyclicLR", "--model.scheduler.base_lr", 0.1, "--model.scheduler.max_lr", 1),
                    *("--trainer.callbacks+", "LearningRateFinder"),
                ],
                "LearningRateFinder does nothing beside CyclicLR",
            ),
            (["--data.augment+", "ownnets.Loud"], "data.augment makes images torch.float32 (2, 3, 32, 32): they must"),
            (["--data.mix", "ownnets.Unmixed"], "data.augment or data.mix: cannot be mixed ("),
            (
                ["--model.loss.class_weights", "inverse", "--data.sampling", "balanced"],
                "class_weights inverse and data.sampling balanced each make up for rare classes",
            ),
            (["--model.optimizer", "null"], "model.optimizer is null: name one, or leave it out for Adam"),
            (["--checkpoint.save_last", "true"], "checkpoint.save_last: last.ckpt is kept anyway (see --last.every"),
            (["--checkpoint.save_on_exception", "true"], "save_on_exception: it would put the weights of"),
            (["--seed_everything", "false"], "seed_everything is false: give a number, which a checkpoint keeps"),
            (["--data.batch_size", 0], "data.batch_size is 0: it must be at least 1"),
            (["--trainer.max_epochs", -2], "`max_epochs` must be a non-negative integer or -1. You passed in -2."),
            (["--checkpoint.mode", "most"], "`mode` can be min, max but got most"),
            (["--checkpoint.monitor", "val/loss"], "maximum of val/loss for the best: add --checkpoint.mode min"),
            (
                ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/accuracy"],
                "EarlyStopping takes the minimum of val/accuracy for the best: let its mode be max",
            ),
            (
                ["--checkpoint.filename", "last"],
                "checkpoint.filename is last, which is the name of the last step's",
            ),
            (
                ["--trainer.callbacks+", "EMA", "--trainer.callbacks+", "SWA", "--trainer.callbacks.from_epoch", 0],
                "EMA and SWA cannot be combined, since each averages the weights: use one",
            ),
            (["--trainer.callbacks+", "EMA", "--trainer.callbacks+", "EMA"], "more than one stateful callback"),
            (["--trainer.limit_train_batches", 0], "trainer.limit_train_batches is 0: fit would have nothing to do"),
            (["--model.net.widths", "[-4, 4]"], "RuntimeError: "),
            (["--model.net", "ownnets.Unbuilt"], "KeyError: 'no such width' ("),
            (["--model.net", "ownnets.Uncopied"], "model cannot be copied: RuntimeError: Only Tensors created"),
            (["--model.loss.class_weights", "[-1,1,1,1,1,1,1,1,1,1]"], "none may be below 0"),
            (["--model.optimizer", "MuonSGD", "--model.optimizer.lr", -1], "MuonSGD.lr is -1.0: it must be at least 0"),
            (["--data.augment+", "Mirror", "--data.augment.probability", 50], "Mirror.probability is 50: it must lie"),
            (["--data.augment+", "Cutout", "--data.augment.size", -4], "Cutout.size is -4: it must be at least 1"),
            (
                ["--data.augment+", "RandAugment", "--data.augment.magnitude", 31],
                "RandAugment.magnitude is 31: it must",
            ),
            (["--data.augment+", "RandAugment", "--data.augment.changes", 0], "RandAugment.changes is 0: it must"),
            (
                ["--model.loss.class_weights", "[0, 0]"],
                "class_weights are [0.0, 0.0]: none may be below 0, and not all",
            ),
            (
                ["--model.net", "ownnets.Normed", "--data.batch_size", 1],
                "model.net, on images of 32 pixels (those of",
            ),
            (["--config"], "--config has no value"),
            (["--config="], "--config has no value"),
            (["--ckpt_path"], "--ckpt_path has no value"),
        ],
    )
    def test_that_show_before_an_image_is_read(
        self, run: Run, words: list[object], sentence: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("ownnets.py").write_text(OWN_NETS)
        monkeypatch.syspath_prepend(".")
        monkeypatch.setattr(Digits, "load", None)
        result = run("fit", *BRIEF, *words)
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert sentence in line
        assert ("ownnets.py, line 21" in line) == ("Wrong" in str(words))

    def test_photos_that_are_too_small_for_a_net_may_be_larger(self, run: Run, photos: Path) -> None:
        words = ("--data", "ImageFolder", "--data.root", photos, "--data.image_size", 4)
        result = run("fit", *words, "--model.net", "Torchvision", "--model.net.name", "alexnet")
        assert result.code == 2
        assert "error: model.net, on images of 4 pixels (data.image_size): RuntimeError: " in result.err

    def test_a_net_that_the_weights_do_not_fit_is_named(self, run: Run, checkpoint: Path) -> None:
        result = run("test", "--ckpt_path", checkpoint, "--model.net.init_args.hidden", 9)
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert "size mismatch for net.head.1.weight" in line

    @pytest.mark.parametrize(
        "sentence",
        ["No working C++ compiler found", "Failed to find C compiler. Please specify", "Compiler: cl is not found."],
    )
    def test_a_compiler_that_is_missing_is_one_sentence(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, sentence: str
    ) -> None:
        def compiled(*_: object) -> None:
            raise RuntimeError(sentence)

        monkeypatch.setattr("cifar_lightning.module.Classifier.training_step", compiled)
        result = run("fit", *BRIEF)
        assert result.code == 2
        assert result.err.splitlines()[-1] == f"error: {sentence}"

    def test_a_gpu_that_this_pytorch_has_no_code_for_is_one_sentence(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_kernel(*_: object) -> None:
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nSearch for")

        monkeypatch.setattr("cifar_lightning.cli.lightning_cli.dry_run", no_kernel)
        result = run("fit", *BRIEF)
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert line.startswith("error: this PyTorch has no code for this GPU: ")
        assert line.endswith("--trainer.accelerator cpu")

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (
                torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"),
                "(CUDA out of memory. Tried to allocate 2.00 GiB)",
            ),
            (
                RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
                "(DefaultCPUAllocator: can't allocate",
            ),
            (RuntimeError("Invalid buffer size: 20.00 GiB"), "(Invalid buffer size: 20.00 GiB)"),  # on MPS
            (MemoryError("Unable to allocate 7.5 GiB for an array"), "(Unable to allocate 7.5 GiB for an array)"),
            (MemoryError(), "(MemoryError)"),
            (
                RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
                "(CUDA error: CUBLAS_STATUS_ALLOC_FAILED",
            ),
        ],
    )
    @pytest.mark.parametrize("where", ["module.Classifier.training_step", "nets.CNN.forward"])  # the latter: dry run
    def test_too_little_memory_is_one_sentence_with_a_remedy(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception, said: str
    ) -> None:
        def full(*_: object) -> None:
            raise error

        monkeypatch.setattr(f"cifar_lightning.{where}", full)
        result = run("fit", *BRIEF)
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert f"not enough memory {said}" in line
        pictures = "smaller pictures (--data.image_size of ImageFolder and ImageNet)"
        assert line.endswith(f": take smaller batches (--data.batch_size), {pictures} or a smaller net")

    @pytest.mark.slow
    def test_batch_normalisation_that_does_more_is_not_made_plain(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = ("--model.net", "Timm", "--model.net.name", "tf_efficientnet_lite0", "--trainer.sync_batchnorm", "true")
        assert run("fit", *BRIEF, *words).code == 0  # where there is one process, nothing is put in its place
        monkeypatch.setattr(L.Trainer, "world_size", 2)
        result = run("fit", *BRIEF, *words)
        assert result.code == 2
        assert "replace model.net's BatchNormAct2d" in result.err
        check_batch_norm(nn.Sequential(SpeedNet(3), nn.SyncBatchNorm(3)), torch.device("cuda"))

    def test_batch_normalisation_is_not_synchronised_on_cpus(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Digits, "load", None)
        monkeypatch.setattr(L.Trainer, "world_size", 2)
        asked = ("--model.net", "SpeedNet", "--trainer.sync_batchnorm", "true", "--trainer.accelerator", "cpu")
        result = run("fit", *BRIEF, *asked)
        assert result.code == 2
        (line,) = lines(result.err, "error: ")
        assert line.startswith("error: trainer.sync_batchnorm works on GPUs only: leave it out")

    def test_what_short_help_names_for_fit_is_taken(self, run: Run) -> None:
        named = [shlex.split(words) for words in re.findall(r"^  (--(?:\S| \S)+)", usage.OPTIONS["fit"], re.MULTILINE)]
        other = ("CIFAR100", "last", "gpu", "--help_all", "--data.help", "--print_config")  # in a line of its own
        words = [word for words in named if not {*other} & {*words} for word in words]
        assert len(words) >= 30
        config = config_of(run, "fit", *words, "--model.scheduler.max_lr", 0.01)
        assert config["data"]["class_path"].endswith("ImageFolder")
        assert config["model"]["optimizer"]["init_args"]["lr"] == 0.001

    @pytest.mark.parametrize("command", re.findall(r"cifar_lightning ((?!runs|sweep)[a-z]+) ", usage.COMMANDS))
    def test_help_is_short_and_names_what_there_is(self, run: Run, command: str) -> None:
        short = run(command, "--ckpt_path", "nowhere", "--help")
        assert short.code == 0
        assert len(short.out.splitlines()) < 50
        everything = run(command, "--help_all").out
        named = {option for option in re.findall(r"--[a-z_.+]*[a-z_+]", short.out) if not option.endswith("help")}
        of_classes = {"--data.root", "--data.labels", "--data.image_size", "--data.batch_size", "--data.augment+"}
        of_classes |= {"--model.net.name", "--model.optimizer.lr", "--model.scheduler.max_lr", "--data.resize_mode"}
        of_classes |= {"--model.loss.label_smoothing", "--data.val_fraction"}
        assert [each for each in named - of_classes - {"--help_all", "--against"} if each not in everything] == []

    def test_help_of_a_command_is_complete(self, run: Run) -> None:
        result = run("fit", "--help_all")
        assert result.code == 0
        for option in ("--model.net", "--model.optimizer", "--data", "--trainer.max_epochs", "--checkpoint.monitor"):
            assert option in result.out


@pytest.mark.parametrize(
    ("file", "own"),
    [
        (f"{sys.prefix}/src/app/nets.py", True),
        (f"{sysconfig.get_path('purelib')}/somebody/nets.py", False),
        (f"{sysconfig.get_path('stdlib')}/importlib/__init__.py", False),
        ("<frozen importlib._bootstrap>", False),
    ],
)
def test_the_line_that_is_named_is_of_the_users_own_code(file: str, own: bool) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile("1 / 0", file, "exec"))
    assert (file in error_source.line(caught.value)) == own
