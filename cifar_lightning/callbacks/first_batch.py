"""batch.svg: images of the first training batch as the net sees them, augmented, with their labels."""

from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as L
from torch import Tensor

from cifar_lightning.batch import Batch
from cifar_lightning.callbacks.run_folder import run_folder
from cifar_lightning.files import write_whole
from cifar_onnx.evaluation.templates import picture, render

_SHOWN = 32  # images


class FirstBatch(L.Callback):
    """Draws what a run begins with: wrong labels and too much augmentation are seen before training has ended."""

    def __init__(self) -> None:
        self._seen = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if self._seen:
            return
        self._seen = True
        if (folder := run_folder(trainer)) and not (path := folder / "batch.svg").exists():
            draw(batch, trainer.datamodule.classes, path)  # type: ignore[attr-defined]


def draw(batch: Batch, classes: Sequence[str], path: Path) -> None:
    """Draw the first images of a batch, and the classes that they are of."""
    images = batch.images[:_SHOWN].permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
    labels = [_words(label, classes) for label in batch.labels[:_SHOWN].cpu()]
    cells = list(zip(map(picture, images), labels, strict=True))
    text = render("cifar_lightning.callbacks", "batch.svg.jinja", cells=cells, count=len(batch.images))
    write_whole(path, text.encode(errors="backslashreplace"))


def _words(label: Tensor, classes: Sequence[str]) -> list[str]:
    """A class by its number, or the largest two of its shares `(K,)`, where images are mixed."""
    if label.ndim == 0:
        return [classes[int(label)]]
    shares = label.topk(min(2, len(classes)))
    pairs = zip(shares.values.tolist(), shares.indices.tolist(), strict=True)
    return [f"{share:.0%} {classes[place]}" for share, place in pairs if share >= 0.005]
