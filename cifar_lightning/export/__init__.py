"""From a trained model to model.onnx: one file with its contract, proven on real pictures before it is written."""

from cifar_lightning.export.errors import ParityError
from cifar_lightning.export.pipeline import Exported, export, verify

__all__ = ["Exported", "ParityError", "export", "verify"]
