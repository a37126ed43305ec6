"""A model repository for NVIDIA's Triton Inference Server, from 24.06 on, with its onnxruntime backend.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_repository.html
Older servers refuse options of CUDA: https://github.com/triton-inference-server/onnxruntime_backend/pull/256
"""

import json
from pathlib import Path

from cifar_lightning.files import write_whole
from cifar_onnx import contract
from cifar_onnx.contract import Contract

BATCH, DELAY = 32, 2000  # pictures that run together at most, and microseconds to wait for more


def write_triton(model: Path, name: str, folder: Path) -> Path:
    """Write the repository: `<folder>/<name>/1/model.onnx` (which may be the model itself), labels and `config.pbtxt`.

    Raises:
        InputError: a file of it cannot be written.
    """
    (data, known), place = contract.read(model), folder / name
    parts = {
        "1/model.onnx": data,
        "labels.txt": "".join(f"{each}\n" for each in known.classes).encode(),
        "config.pbtxt": _config(name, known).encode(),
    }
    for part, content in parts.items():
        write_whole(place / part, content)
    return place


def _config(name: str, known: Contract) -> str:
    count, size = len(known.classes), known.size
    return f"""\
name: {json.dumps(name)}
backend: "onnxruntime"
max_batch_size: {BATCH}
# Send squares as Classifier.square of cifar_onnx makes them ({size} x {size} pixels, {known.resize}): only pictures of
# one size run together, and a pixel takes 27 bytes in the graph.
input [
  {{ name: "image" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }}
]
output [
  {{ name: "logits" data_type: TYPE_FP32 dims: [ {count} ] }},
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {count} ] label_filename: "labels.txt" }},
  {{ name: "familiarity" data_type: TYPE_FP32 dims: [ 1 ] reshape {{ shape: [ ] }} }}
]
dynamic_batching {{ max_queue_delay_microseconds: {DELAY} }}
# With TF32 the resize in the graph would not give the same pixels.
optimization {{ execution_accelerators {{
  gpu_execution_accelerator: [ {{ name: "cuda" parameters {{ key: "use_tf32" value: "0" }} }} ]
}} }}
"""
