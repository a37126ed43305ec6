"""Tensors of the Open Inference Protocol, as JSON and in binary form.

Notation: `B` pictures, `H W` their size, `K` classes.
"""

import json
import math
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar_onnx import images
from cifar_onnx.images import Pixels
from cifar_onnx.serving.gate import RequestError

LENGTH = "Inference-Header-Content-Length"  # bytes of JSON before the binary tensors
PICTURES = 1000  # in one request
JSON = 5_000_000  # bytes of it: 640 x 480 pixels; parsed they may take 130 MB
VALUES = 400_000  # in the JSON of an answer: 8 MB
Value = NDArray[Any] | list[bytes]


@dataclass(frozen=True)
class Wanted:
    """What a request asks for.

    Attributes:
        id: its own, if any.
        pictures: uint8 `(B, H, W, 3)`.
        outputs: names of those to give, and whether in binary form.
    """

    id: str | None
    pictures: Pixels
    outputs: dict[str, bool]


def outputs(classes: int) -> dict[str, tuple[str, list[int]]]:
    """Datatype and shape of each output, of one picture."""
    return {
        "label": ("BYTES", []),
        "probabilities": ("FP32", [classes]),
        "in_set": ("BOOL", [classes]),
        "unknown": ("BOOL", []),
        "logits": ("FP32", [classes]),
        "familiarity": ("FP32", []),
    }


def read(body: bytes, length: str | None, limit: int, classes: int) -> Wanted:
    """What a request asks for, without its JSON, which may take much memory.

    Args:
        body: its JSON, and what follows it.
        length: of this JSON, as the header has it.
        limit: pixels of a picture at most.
        classes: of the model.

    Raises:
        RequestError: it is not what it must be.
    """
    message, binary = _parts(body, length)
    pictures = _pictures(message.get("inputs"), binary, limit)
    return Wanted(message.get("id"), pictures, _asked(message, outputs(classes), len(pictures)))


def _parts(body: bytes, length: str | None) -> tuple[dict[str, Any], bytes]:
    """The JSON of a request, and what follows it."""
    end = len(body)
    if length is not None:
        if not (length.isascii() and length.isdecimal() and len(length) < 20 and int(length) <= end):
            raise RequestError(400, f"{LENGTH} is {length!r}: it must be the number of bytes of the JSON")
        end = int(length)
    if end > JSON:
        raise RequestError(
            413,
            f"the JSON has {end:,} bytes, and {JSON:,} at most are read: send pixels behind it, in binary form, "
            f"with their number as binary_data_size and that of the JSON's bytes as the header {LENGTH}",
        )
    try:
        message = json.loads(body[:end])
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is not JSON that can be read") from None
    if not isinstance(message, dict) or not isinstance(message.get("id", ""), str):
        raise RequestError(400, "the body must be a JSON object with 'inputs', and 'id', if any, a string")
    return message, body[end:]


def _pictures(inputs: Any, binary: bytes, limit: int) -> Pixels:
    """The one input, uint8 `(B, H, W, 3)`, of pictures with so many pixels at most."""
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RequestError(400, "'inputs' must hold one tensor, 'image'")
    tensor = inputs[0]
    if tensor.get("name") != "image" or tensor.get("datatype") != "UINT8":
        raise RequestError(400, "the input must have the name 'image' and the datatype 'UINT8'")
    shape = tensor.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) != 4
        or not all(isinstance(length, int) and not isinstance(length, bool) and 0 < length < 2**31 for length in shape)
        or shape[3] != 3
    ):
        raise RequestError(400, f"the shape of 'image' is {json.dumps(shape)[:100]}: it must be [B, H, W, 3]")
    if shape[0] > PICTURES or max(shape[1:3]) > images.MAX_SIDE or shape[1] * shape[2] > limit:
        raise RequestError(
            413, f"{PICTURES:,} pictures of {limit:,} pixels, no side longer than {images.MAX_SIDE:,}, are the most"
        )
    parameters = tensor.get("parameters") or {}
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None:
        if size != len(binary) or size != math.prod(shape):
            raise RequestError(
                400, f"binary_data_size and {len(binary)} bytes after the JSON must be {math.prod(shape)}"
            )
        return np.frombuffer(binary, np.uint8).reshape(shape)
    values = _flat(tensor.get("data"))
    if len(values) != math.prod(shape) or set(map(type, values)) != {int} or min(values) < 0 or max(values) > 255:
        raise RequestError(400, f"'data' must be {math.prod(shape)} whole numbers from 0 to 255")
    return np.frombuffer(bytes(values), np.uint8).reshape(shape)


def _flat(data: Any) -> list[Any]:
    """What is in a list, or in lists in it that are of one length; nothing where there is no such list."""
    while isinstance(data, list) and list in (kinds := set(map(type, data))):
        if len(kinds) > 1 or len(set(map(len, data))) > 1:
            return []
        data = list(chain.from_iterable(data))
    return data if isinstance(data, list) else []


def _asked(message: dict[str, Any], known: dict[str, tuple[str, list[int]]], pictures: int) -> dict[str, bool]:
    """Which of `outputs` are asked for, and whether in binary form; raises RequestError, also where they are too many.

    The encoder of JSON lets nobody else be served meanwhile, in a thread neither.
    """
    parameters = message.get("parameters") or {}
    wanted = message.get("outputs") or [{"name": name} for name in known]
    if not isinstance(parameters, dict) or not isinstance(wanted, list):
        raise RequestError(400, "'parameters' must be an object and 'outputs' a list")
    found = {}
    for output in wanted:
        if not isinstance(output, dict) or output.get("name") not in [*known]:  # it may be unhashable
            raise RequestError(400, f"an output is unknown: there are {', '.join(known)}")
        own = output.get("parameters") or {}
        if not isinstance(own, dict):
            raise RequestError(400, "'parameters' of an output must be an object")
        found[output["name"]] = bool(own.get("binary_data", parameters.get("binary_data_output", False)))
    values = pictures * sum(math.prod(known[name][1]) for name, as_binary in found.items() if not as_binary)
    if values > VALUES:
        raise RequestError(
            413,
            f"the answer would have {values:,} values as JSON, and {VALUES:,} are the most: ask for fewer outputs, or "
            "for binary ones by the parameter binary_data_output, or send fewer pictures at a time",
        )
    return found


def blob(value: Value) -> bytes:
    """A tensor's bytes, little-endian; texts with their lengths before them."""
    if isinstance(value, list):
        return b"".join(len(each).to_bytes(4, "little") + each for each in value)
    return value.astype(value.dtype.newbyteorder("<")).tobytes()
