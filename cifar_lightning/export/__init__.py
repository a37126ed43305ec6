"""From a trained model to model.onnx: one file with its contract, proven on real pictures before it is written."""

from cifar_lightning.export.handover import Exported, ParityError, export

__all__ = ["Exported", "ParityError", "export"]
