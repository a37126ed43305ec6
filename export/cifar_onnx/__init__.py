"""Run an image classifier from one ONNX file that carries its own preprocessing and labels. No PyTorch.

>>> from cifar_onnx import Classifier
>>> Classifier("model.onnx")("photo.jpg").label
"""

from cifar_onnx.classifier import Classifier, Prediction
from cifar_onnx.contract import Contract
from cifar_onnx.errors import ContractError, ImageError, InputError, ProviderError

__version__ = "0.1.0"
__all__ = ["Classifier", "Contract", "ContractError", "ImageError", "InputError", "Prediction", "ProviderError"]
