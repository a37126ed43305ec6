"""config.yaml: what a run was asked to do."""

from typing import Any

import lightning.pytorch as L
from lightning.pytorch.cli import SaveConfigCallback

from cifar_lightning.callbacks.run_folder import run_folder
from cifar_lightning.cli.command import Command, commands, header
from cifar_lightning.cli.config_file import load_yaml
from cifar_lightning.files import write_whole


class RunConfig(SaveConfigCallback):
    """config.yaml of a run, with the commands that made it, and without the checkpoint that it started from.

    Loggers that were asked for are told the same settings, by which boards of runs sort and filter.

    In a run that goes on it is replaced with the first new checkpoint: settings that fail never replace it.

    Args:
        command: what is done.
        **kwargs: SaveConfigCallback's.
    """

    def __init__(self, *args: Any, command: Command, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.command = command
        self.config = self.config.clone()
        self.config.ckpt_path = None
        for name in ("enable_progress_bar", "enable_model_summary"):  # as the next terminal, or log file, will have it
            if self.config.trainer[name] == self.parser.get_default(f"trainer.{name}"):
                self.config.trainer.pop(name)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.already_saved = False
        if self.command.going_on is None:
            self._save(trainer)
        if others := trainer.loggers[1:]:  # the first is the run's metrics.csv
            settings = load_yaml(self._text())
            for logger in others:
                logger.log_hyperparams(settings)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if self.already_saved:
            return
        self.already_saved = True
        if folder := run_folder(trainer):
            path = folder / "config.yaml"
            made = {**commands(path), self.command.line: self.command.digest}
            write_whole(path, (header(made) + self._text()).encode())

    def _text(self) -> str:
        text: str = self.parser.dump(self.config, skip_unset=False)
        return text
