"""Callbacks: progress, checkpoints, resuming, and averaged, frozen or pruned weights."""

from cifar_lightning.callbacks.average import EMA, SWA
from cifar_lightning.callbacks.best import BestCheckpoint
from cifar_lightning.callbacks.curves import Curves
from cifar_lightning.callbacks.first_batch import FirstBatch
from cifar_lightning.callbacks.freeze import Freeze, FreezeBatchNorm
from cifar_lightning.callbacks.last import LastCheckpoint
from cifar_lightning.callbacks.progress import EpochLines, EpochProgressBar
from cifar_lightning.callbacks.prune import Pruned
from cifar_lightning.callbacks.record import Record
from cifar_lightning.callbacks.resume import Resume, keep_found

__all__ = [
    "EMA",
    "SWA",
    "BestCheckpoint",
    "Curves",
    "EpochLines",
    "EpochProgressBar",
    "FirstBatch",
    "Freeze",
    "FreezeBatchNorm",
    "LastCheckpoint",
    "Pruned",
    "Record",
    "Resume",
    "keep_found",
]
