"""Image classifiers you can hand to anybody: train with PyTorch Lightning, export one ONNX file that proves itself."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # for onnxruntime, as in cifar_onnx

__version__ = "0.1.0"
