"""Run an image classifier from one ONNX file that carries its own preprocessing and labels. No PyTorch.

>>> from cifar_onnx import Classifier
>>> Classifier("model.onnx")("photo.jpg").label
"""

import os

# Newer builds of onnxruntime send events to Microsoft and keep an identifier of the machine, unless they find this when
# they are loaded: https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from cifar_onnx.classifier import Classifier
from cifar_onnx.contract import Contract
from cifar_onnx.errors import ContractError, ImageError, InputError, ProviderError
from cifar_onnx.prediction import Prediction
from cifar_onnx.replay import Replay

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "Contract",
    "ContractError",
    "ImageError",
    "InputError",
    "Prediction",
    "ProviderError",
    "Replay",
]
