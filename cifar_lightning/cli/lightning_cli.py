"""LightningCLI over Classifier and the data sources, with run folders and checkpoints."""

from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar, Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from cifar_lightning import augment, distill, loss, mix, nets, runs  # noqa: F401  so that a config may name their classes without a module
from cifar_lightning import checkpoint as checkpoints
from cifar_lightning.callbacks import BestCheckpoint, EpochProgressBar, LastCheckpoint, keep_found
from cifar_lightning.cli import devices, settings
from cifar_lightning.cli.choices import DEFAULTS, names_class, without_others
from cifar_lightning.cli.command import Command, rank
from cifar_lightning.cli.dry_run import dry_run
from cifar_lightning.cli.from_checkpoint import check_resumable, choose_photos, parser_defaults
from cifar_lightning.cli.metrics_file import MetricsFile
from cifar_lightning.cli.next_command import say_next, short
from cifar_lightning.cli.run_config import RunConfig
from cifar_lightning.cli.trainer import Trainer
from cifar_lightning.data import ImageData, ImageFolder
from cifar_lightning.data.match import check_match
from cifar_lightning.error_source import innermost, said
from cifar_lightning.files import check_writable
from cifar_lightning.interruption import Interrupted
from cifar_lightning.module import Classifier
from cifar_lightning.trusted_classes import custom_classes
from cifar_onnx import InputError
from cifar_onnx.errors import one_line


class CLI(LightningCLI):
    """LightningCLI with this project's defaults and run folders.

    What was typed beats the config file, which beats the checkpoint, which beats the defaults.

    Args:
        command: what is to be done.
        checkpoint: the content of the checkpoint that the command starts from, if any.
        **kwargs: LightningCLI's.
    """

    def __init__(self, command: Command, checkpoint: dict[str, Any] | None, **kwargs: Any) -> None:
        self.checkpoint = checkpoint
        self.command = command
        self.going_on = command.going_on
        self.defaults = parser_defaults(checkpoint, command.appended) if checkpoint else {}
        self.run: runs.Run | None = None
        try:
            super().__init__(
                Classifier,
                ImageData,
                trainer_class=Trainer,
                subclass_mode_data=True,
                save_config_callback=RunConfig,
                save_config_kwargs={"command": command},
                **kwargs,
            )
        except BaseException as error:
            if isinstance(error, Interrupted):
                self._say_how_to_resume()
            if self.run:
                self.run.release(discard=isinstance(error, Interrupted | ValueError | MisconfigurationException))
            raise
        if self.run:
            self.run.release()

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # a static method there
        """Commands and their hidden parameters: where one is asked for, it alone, since every parser takes time."""
        hidden = {"model", "datamodule", "weights_only"}
        commands = {name: parameters | hidden for name, parameters in LightningCLI.subcommands().items()}
        commands |= {"predict": hidden, "export": hidden, "verify": hidden}
        return {name: commands[name] for name in self.command.words[:1] if name in commands} or commands

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--experiment", type=str, default="cnn", help="Its runs are in runs/NAME/version_N.")
        parser.add_argument(
            "--allow_custom_classes",
            action="store_true",
            help="Import whatever classes the checkpoint names, not only those that you name, too: their code runs.",
        )
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last")
        parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")
        parser.link_arguments("data.classes", "model.net.init_args.num_classes", compute_fn=len, apply_on="instantiate")
        # The settings of a default class would be handed on to the one that is chosen: Adam's weight decay to AdamW.
        defaults = {k: x for k, x in DEFAULTS.items() if not names_class(k, self.command.words, self.command.contents)}
        parser.set_defaults({**defaults, **self.defaults})

    def _parse_ckpt_path(self) -> None:
        """Lightning lets the checkpoint win over what was typed (PR #21455); here it only changes the defaults."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, self.words(args))

    def words(self, args: Any) -> list[str]:
        """The words for the parser: a class that is typed inherits no settings of the class that it replaces."""
        return without_others(args, self.defaults, self.command.contents)

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if self.subcommand != "fit":
            self.save_config_callback = None
            # Finders of a run's config would search once more, in data that is not read.
            config.trainer.callbacks = [x for x in settings.asked_callbacks(config) if "Finder" not in x.class_path]
            if self.checkpoint is None:
                option = "--against" if self.subcommand == "verify" else "--ckpt_path"
                raise InputError(f"{self.subcommand} needs a checkpoint: name its file with {option}")
        elif self.checkpoint:
            check_resumable(self.checkpoint, self.config.fit, longer=self.going_on is None)
        runs.check_name(config.experiment)
        data = config.data.get("init_args", {})
        if self.checkpoint and "classes" in data:
            choose_photos(self.checkpoint, data, str(self.subcommand), self.command.typed_keys)
        if "init_args" not in config.model.net:  # where Lightning notes the number of classes, taken or not
            config.model.net.init_args = Namespace()  # type: ignore[no-untyped-call]
        if any("ProgressBar" in each.class_path for each in settings.asked_callbacks(config)):
            config.trainer.enable_progress_bar = True  # asked for, also where there is no terminal
        if self.subcommand == "fit":
            settings.check_training(config, self.command.typed_keys)

    def instantiate_classes(self) -> None:
        try:
            settings.check_trainer(self.config[self.subcommand], str(self.subcommand))
            super().instantiate_classes()
        except Exception as error:  # jsonargparse wraps what a constructor says of its arguments in many messages
            if isinstance(cause := innermost(error), OSError):
                raise cause from None
            enough = isinstance(cause, MisconfigurationException)
            raise InputError(one_line(cause) if enough else said(cause)) from error

    def after_instantiate_classes(self) -> None:
        if self.checkpoint is None:
            return
        known = self.checkpoint["datamodule_hyper_parameters"]
        if isinstance(self.datamodule, ImageFolder):
            self.datamodule.elsewhere = self.datamodule.differs(known)
        elif self.subcommand == "test":
            self.datamodule.elsewhere = known["_class_path"].rpartition(".")[2] != type(self.datamodule).__name__
        rule = self.checkpoint["run"].get("input", {}) if self.subcommand == "export" else {}
        check_match("the checkpoint", self.checkpoint["hyper_parameters"]["classes"], rule, self.datamodule)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        config = self.config_init[self.subcommand]
        asked = settings.asked_callbacks(config)
        if config.trainer.enable_progress_bar and not any(isinstance(each, ProgressBar) for each in asked):
            kwargs["callbacks"] = [*asked, EpochProgressBar()]
        plugins = config.trainer.plugins or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), checkpoints.CheckpointFiles()]
        if self.subcommand in ("predict", "export", "verify"):
            kwargs |= {"devices": devices.one_device(config), "num_nodes": 1, "strategy": "auto"}
        logger = self._start_run(config) if self.subcommand == "fit" else False
        return super().instantiate_trainer(logger=logger, **kwargs)

    def _start_run(self, config: Namespace) -> list[Logger]:
        """Make or take up the run's folder; its metrics.csv comes before whatever other loggers were asked for."""
        given = config.trainer.logger
        loggers = list(given) if isinstance(given, Iterable) else [given] if isinstance(given, Logger) else []
        root, name, version = runs.root(config.trainer.default_root_dir), config.experiment, None
        if self.going_on:  # which may have been moved, or be reached from elsewhere, since its config was written
            root, name, version = self.going_on.parents[1], self.going_on.parent.name, runs.number(self.going_on)
        if rank() == 0 and not config.trainer.fast_dev_run:
            self.run = runs.Run(self.going_on) if self.going_on else runs.start(root, name)
            version = runs.number(self.run.folder)
        for each in loggers:
            if isinstance(each, TensorBoardLogger) and each._version is None:  # of one name and number with the run
                each._name, each._version = name if each._name == "lightning_logs" else each._name, version
        metrics = MetricsFile(root, name=name, version=version or 0, flush_logs_every_n_steps=1)
        if self.run and self.going_on and self.checkpoint:
            metrics.go_on(self.run, self.checkpoint)
        return [metrics, *loggers]

    def before_fit(self) -> None:
        self.trainer.check_launcher("fit")  # type: ignore[attr-defined]
        settings.check_callbacks(self.trainer.callbacks, self.model)  # type: ignore[attr-defined]
        device = self.trainer.strategy.root_device
        settings.check_compilation(self.model.compile_mode, self.trainer)
        if self.config.fit.trainer.sync_batchnorm and self.trainer.world_size > 1:
            settings.check_batch_norm(self.model.net, device)
        devices.advise(self.config.fit.trainer.accelerator, self.trainer.precision, device)
        self.model.begin(resumed=self.checkpoint is not None)
        if self.checkpoint:
            keep_found(self.trainer, self.model, self.datamodule, self.checkpoint, self.command.typed_keys)
        dry_run(self.model, self.datamodule, device, self.checkpoint)
        described = str(self.datamodule)  # by each: who joins the others later than 30 minutes finds them gone
        if self.trainer.is_global_zero:
            print(described, flush=True)
            if why := _left_out(self.trainer):
                print(f"the last epoch will not be validated{why}", flush=True)
        for callback in self.trainer.checkpoint_callbacks:
            if folder := getattr(callback, "dirpath", None):
                check_writable(Path(folder))
        if self.run:
            versions = {name: metadata.version(name) for name in ("cifar-lightning", "torch", "lightning")}
            more = {"seed": self.config.fit.seed_everything, "threads": torch.get_num_threads(), "versions": versions}
            begun = {} if self.going_on else {"begun_in": str(Path.cwd()), "started_from": self.command.ckpt_path}
            runs.record(self.run.folder, finished=False, pruned=False, devices=self.trainer.world_size, **more, **begun)

    def after_fit(self) -> None:
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        left = [each.time_remaining() for each in callbacks if isinstance(each, Timer)]
        unfinished = self.trainer.current_epoch != self.trainer.max_epochs or self.model.cut_short
        out_of_time = unfinished and any(seconds is not None and seconds <= 0 for seconds in left)
        if self.run:
            runs.record(self.run.folder, finished=not out_of_time)
        why, best = _left_out(self.trainer), next(each for each in callbacks if isinstance(each, BestCheckpoint))
        if self.trainer.is_global_zero and best.best_model_score is not None:
            path = short(best.best_model_path)
            print(f"best {best.monitor} {float(best.best_model_score):.4f}, kept in {path}")
            if self.run and best.monitor in self.trainer.callback_metrics.keys() - self.model.measured().keys():
                print(f"the last weights were not validated{why} and cannot be the best: they are in {self.run.last}")
            say_next("test", "--ckpt_path", path, *self._custom())
        elif self.run and self.run.last.exists():
            validated = "val/loss" in self.trainer.callback_metrics
            none = "no epoch was chosen as the best" if validated else f"nothing was validated{why}"
            print(f"{none}; the last weights are in {self.run.last}")
            say_next("test", "--ckpt_path", self.run.last, *self._custom())
        if out_of_time:
            self._say_how_to_resume()

    def _say_how_to_resume(self) -> None:
        if self.run and self.run.last.exists():
            experiment, place = self.run.folder.parent.name, short(self.run.folder.parents[2])
            where = [] if place == Path() else ["--trainer.default_root_dir", place]
            say_next("fit", "--ckpt_path", "last", "--experiment", experiment, *where, *self._custom()[:1])

    def after_test(self) -> None:
        if self.trainer.is_global_zero:
            say_next("export", "--ckpt_path", self.config.test.ckpt_path, *self._custom(), *self.command.configs)

    def _custom(self) -> list[str]:
        """Further options that a command with the checkpoint needs, whose classes may be the user's own."""
        if not custom_classes([dict(each.hparams) for each in (self.model, self.datamodule)]):
            return []
        config = ["--config", str(short(self.run.folder / "config.yaml"))] if self.run else []
        return ["--allow_custom_classes", *config]


def _left_out(trainer: L.Trainer) -> str:
    """Why the last epoch is not validated, as far as the trainer's settings say so."""
    every, of = trainer.check_val_every_n_epoch, trainer.max_epochs or -1
    left_out = trainer.limit_val_batches and every and of > 0 and of % every
    return f" (trainer.check_val_every_n_epoch is {every}, max_epochs {of})" if left_out else ""
