"""Image classifiers you can hand to anybody: train with PyTorch Lightning, export one ONNX file that proves itself."""

__version__ = "0.1.0"
