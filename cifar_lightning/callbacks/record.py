"""What training takes, in run.json: seconds, size of the net, which images."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning import runs
from cifar_lightning.callbacks.prune import Pruned
from cifar_lightning.callbacks.run_folder import run_folder
from cifar_lightning.data.batches import Batches


class Record(L.Callback):
    """Notes the size of the net, the images it learns from and is validated on, and the time over all sessions.

    Time and images are noted with each checkpoint: a run that goes on from there counts on from there, and one that is
    refused before it has trained leaves them as they were.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._before, self._start = 0.0, time.monotonic()  # seconds of earlier sessions, moment
        self._noted: dict[str, str | int] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._folder = run_folder(trainer) if stage == "fit" else None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = time.monotonic()
        if self._folder:
            begun = runs.facts(self._folder)  # empty, unless the run goes on in its own folder
            self._before = begun.get("seconds", 0.0)
            net: torch.nn.Module = pl_module.net  # type: ignore[assignment]
            data = trainer.datamodule  # type: ignore[attr-defined]
            images, validation = (data.images(part).digest for part in ("train", "val"))
            noted = images
            if not data.elsewhere and not data.given >= {"val", "test"}:
                for path in _learnt_from(trainer, pl_module):
                    others = runs.learnt_others(path, images)
                    if others and checkpoints.load(path)["hyper_parameters"]["classes"] == pl_module.classes:
                        noted = "various"  # which no digest is: whatever is held out later, some may have been seen
                        print(
                            f"{path} was trained on other images or another split: it may have seen some of the images "
                            "that are held out now"
                        )
            if begun.get("images", images) != images and noted == images:
                noted = "various"
                print("the training images are not those with which the run began")
            if begun.get("validation", validation) != validation:
                validation = "various"
                print("the validation images are not those with which the run began: its epochs are not comparable")
            self._noted |= {"images": noted, "validation": validation}
            runs.record(self._folder, parameters=sum(each.numel() for each in net.parameters()))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            batches: Batches = trainer.val_dataloaders  # type: ignore[assignment]
            self._noted["validation_images"] = batches.images_in(int(trainer.num_val_batches[0]))

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._folder:
            seconds = self._before + time.monotonic() - self._start
            runs.record(self._folder, seconds=round(seconds, 1), **self._noted)


def _learnt_from(trainer: L.Trainer, pl_module: L.LightningModule) -> Iterator[str]:
    """The checkpoint that a run goes on from, or those whose weights or answers it begins with."""
    if pl_module.resumed:  # Lightning's finders leave a path of their own behind
        yield str(trainer.ckpt_path)
        return
    yield from filter(None, (pl_module.hparams.get("init_from"), getattr(pl_module.loss, "teacher", None)))
    yield from (each.checkpoint for each in trainer.callbacks if isinstance(each, Pruned))  # type: ignore[attr-defined]
