"""The command line: LightningCLI over Classifier and the data sources, with `export` as one more command."""

import argparse
import csv
import logging
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger

from cifar_lightning import augment, loss, nets  # noqa: F401  so that a config may name their classes without a module
from cifar_lightning import checkpoint as checkpoints
from cifar_lightning.callbacks import EpochLines
from cifar_lightning.data import ImageData
from cifar_lightning.export import ParityError, Sample, export
from cifar_lightning.module import Classifier
from cifar_lightning.parser import Parser
from cifar_onnx import InputError

# The tutorial's experiment, and what keeps its best epoch.
DEFAULTS: dict[str, Any] = {
    "model.net": {"class_path": "cifar_lightning.nets.CNN"},
    "model.optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}},
    "model.loss": {"class_path": "cifar_lightning.loss.CrossEntropy"},
    "data": {"class_path": "cifar_lightning.data.CIFAR10"},
    "checkpoint.filename": "best",
    "checkpoint.monitor": "val/accuracy",
    "checkpoint.mode": "max",
    "checkpoint.enable_version_counter": False,
}


# What Lightning warns of although all is well.
_NOISE = (
    "`isinstance.treespec, LeafSpec.` is deprecated",  # by torch 2.10, in Lightning's own code
    "The number of training batches",  # is smaller than the logging interval: steps are not logged
    "LightningCLI's args parameter",  # is given the words of the command line in another order
    "Be aware that when using `ckpt_path`, callbacks",  # that wrote it are needed: not for its weights
    "The dirpath has changed",  # a resumed run has a folder of its own
)


# What torch and Lightning raise as RuntimeError although the user can mend it: weights that do not fit the net that was
# asked for, and a metric that is not there.
_MISTAKES = ("Error(s) in loading state_dict", "Early stopping conditioned on metric")


class Trainer(L.Trainer):
    """Lightning's Trainer with a CSV file from `predict`, and with `export`."""

    def predict(  # type: ignore[override]
        self,
        model: Classifier,
        datamodule: ImageData,
        ckpt_path: str | None = None,
        output: str | None = None,
    ) -> None:
        """Write the predictions of a checkpoint to a CSV file.

        Args:
            ckpt_path: the checkpoint.
            output: the file; by default predictions.csv in the run's folder.
        """
        batches = super().predict(model, datamodule=datamodule, ckpt_path=ckpt_path)
        assert ckpt_path is not None
        assert batches is not None
        path = Path(output or checkpoints.run_folder(ckpt_path) / "predictions.csv")
        names = datamodule.predicted.names
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label", "probability"])
            for indices, probabilities in batches:
                best, labels = (tensor.tolist() for tensor in probabilities.max(1))
                for index, label, probability in zip(indices.tolist(), labels, best, strict=True):
                    writer.writerow([names[index], model.classes[label], f"{probability:.6f}"])
        print(f"wrote {path}")

    def export(
        self, model: Classifier, datamodule: ImageData, ckpt_path: str | None = None, output: str | None = None
    ) -> None:
        """Write a checkpoint as one ONNX file, after proving on real images that it gives the same answers.

        Args:
            ckpt_path: the checkpoint.
            output: the file; by default model.onnx in the run's folder.
        """
        assert ckpt_path is not None
        checkpoint = checkpoints.load(ckpt_path)
        model.load_state_dict(checkpoint["state_dict"])
        path = Path(output or checkpoints.run_folder(ckpt_path) / "model.onnx")
        samples = [Sample(*sample) for sample in datamodule.samples(256)]
        report = export(
            model.pixels,
            model.net,
            samples,
            path,
            classes=model.classes,
            size=datamodule.image_size,
            resize=datamodule.resize_mode,
            facts=checkpoints.facts(checkpoint, datamodule),
        )
        print(f"{report}\nwrote {path}\nnext: python -m cifar_onnx classify --model {path} PHOTO.jpg")


class CLI(LightningCLI):
    """LightningCLI with this project's defaults and run folders.

    What was typed beats the config file, which beats the checkpoint, which beats the defaults.
    """

    def __init__(self, checkpoint: dict[str, Any] | None, **kwargs: Any) -> None:
        self.checkpoint = checkpoint
        super().__init__(Classifier, ImageData, trainer_class=Trainer, subclass_mode_data=True, **kwargs)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        hidden = {"model", "datamodule"}
        return {**LightningCLI.subcommands(), "predict": hidden, "export": hidden}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--experiment", type=str, default="cnn", help="Name of the run's folder under runs/.")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")
        parser.link_arguments("data.classes", "model.net.init_args.num_classes", compute_fn=len, apply_on="instantiate")
        parser.set_defaults({**DEFAULTS, **(checkpoints.parser_defaults(self.checkpoint) if self.checkpoint else {})})

    def _parse_ckpt_path(self) -> None:
        """Lightning lets the checkpoint win over what was typed (PR #21455); here it only changes the defaults."""

    def before_instantiate_classes(self) -> None:
        if self.subcommand != "fit":
            self.save_config_callback = None
            if self.checkpoint is None:
                raise InputError(f"{self.subcommand} needs a checkpoint: name its file with --ckpt_path")

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except Exception as error:  # jsonargparse wraps what a constructor says of its arguments in many messages
            cause = _innermost(error)
            if not isinstance(cause, TypeError | ValueError | MisconfigurationException):
                raise
            raise InputError(str(cause)) from error

    def after_instantiate_classes(self) -> None:
        if self.checkpoint is None:
            return
        known, trained = (self.checkpoint[key] for key in ("hyper_parameters", "datamodule_hyper_parameters"))
        if known["classes"] != self.model.classes:
            has = ", ".join(self.model.classes)
            raise InputError(f"the checkpoint knows the classes {', '.join(known['classes'])}; the data has {has}")
        for name, value in (("image_size", self.datamodule.image_size), ("resize_mode", self.datamodule.resize_mode)):
            if self.subcommand == "export" and trained.get(name, value) != value:
                raise InputError(f"the checkpoint was trained with data.{name} {trained[name]}: export takes no other")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """A run of `fit` gets a folder of its own, with metrics.csv, beside whatever other loggers were asked for."""
        config = self.config_init[self.subcommand]
        given = config.trainer.logger
        loggers = list(given) if isinstance(given, Iterable) else [given] if isinstance(given, Logger) else []
        folder = Path(config.trainer.default_root_dir or ".", "runs")
        logger = [CSVLogger(folder, name=config.experiment), *loggers] if self.subcommand == "fit" else False
        return super().instantiate_trainer(logger=logger, **kwargs)

    def after_fit(self) -> None:
        best = self.trainer.checkpoint_callback
        if not self.trainer.is_global_zero or not isinstance(best, ModelCheckpoint) or best.best_model_score is None:
            return
        path = Path(best.best_model_path)
        path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        print(f"best {best.monitor} {float(best.best_model_score):.4f}, kept in {path}")
        _next(f"test --ckpt_path {path}")

    def after_test(self) -> None:
        _next(f"export --ckpt_path {self.config.test.ckpt_path}")


def _next(command: str) -> None:
    print(f"next: python -m cifar_lightning {command}")


def _configs_first(words: Sequence[str]) -> list[str]:
    """The words of a command line with its config files in front, so that what was typed beats them wherever it stands.

    Raises:
        InputError: a config file cannot be read, or is no mapping of options.
    """
    splitter = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    splitter.add_argument("-c", "--config", action="append", default=[])
    found, rest = splitter.parse_known_args(words)
    for path in found.config:
        try:
            mapping = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}): name a config file") from None
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
        if not isinstance(mapping, dict):
            raise InputError(f"{path}: not a mapping of options, such as 'trainer: {{max_epochs: 3}}'")
    return [*rest[:1], *(word for path in found.config for word in ("--config", path)), *rest[1:]]


def _innermost(error: BaseException) -> BaseException:
    """The first exception of a chain, or our own one if there is one."""
    while not isinstance(error, InputError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _not_advertising(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()


def main(args: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 refused by a check, 2 a mistake in what was given."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_not_advertising)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
    words = sys.argv[1:] if args is None else list(args)
    terminal = sys.stdout.isatty()
    last = ModelCheckpoint(filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    try:
        CLI(
            checkpoint=checkpoints.named_in(words),
            args=_configs_first(words),
            parser_class=Parser,
            parser_kwargs={"prog": "python -m cifar_lightning", "allow_abbrev": False},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={
                "max_epochs": 50,
                "devices": 1,
                "enable_progress_bar": terminal,
                "enable_model_summary": terminal,
                "callbacks": [last] if terminal else [last, EpochLines()],
            },
        )
    except SystemExit as stop:
        return int(stop.code or 0)
    except ParityError as error:
        return _fail(f"no file was written: {error}", 1)
    except (InputError, MisconfigurationException) as error:
        return _fail(str(error), 2)
    except (ImportError, SyntaxError) as error:  # of a class that a config or checkpoint names
        return _fail(f"{type(error).__name__}: {error}", 2)
    except RuntimeError as error:
        if not any(mistake in str(error) for mistake in _MISTAKES):
            raise
        return _fail(" ".join(str(error).split()), 2)
    return 0


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
