"""A model repository for NVIDIA's Triton Inference Server, with its onnxruntime backend.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_repository.html
"""

import json
import shutil
from pathlib import Path

from cifar_onnx import InputError, contract
from cifar_onnx.contract import Contract

BATCH, DELAY = 32, 2000  # pictures that run together at most, and microseconds to wait for more


def write_triton(model: Path, name: str, folder: Path) -> Path:
    """Write the repository: `<folder>/<name>/1/model.onnx` and `config.pbtxt`.

    Raises:
        InputError: the folder cannot be written.
    """
    known = contract.read(model)[1]
    place = folder / name
    try:
        (place / "1").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model, place / "1" / "model.onnx")
        labels = "".join(f"{each}\n" for each in known.classes)
        (place / "labels.txt").write_text(labels, encoding="utf-8", newline="\n")
        (place / "config.pbtxt").write_text(_config(name, known), encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): name another folder with --triton") from None
    return place


def _config(name: str, known: Contract) -> str:
    count = len(known.classes)
    return f"""\
name: {json.dumps(name)}
backend: "onnxruntime"
max_batch_size: {BATCH}
input [
  {{ name: "image" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }}
]
output [
  {{ name: "logits" data_type: TYPE_FP32 dims: [ {count} ] }},
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {count} ] label_filename: "labels.txt" }},
  {{ name: "familiarity" data_type: TYPE_FP32 dims: [ 1 ] reshape {{ shape: [ ] }} }}
]
dynamic_batching {{ max_queue_delay_microseconds: {DELAY} }}
"""
