"""The contract inside model.onnx: what the file says of itself, read and checked without onnxruntime or onnx.

An ONNX file is a protobuf message. The few fields needed here are walked directly, so that a file is judged before
any runtime opens it. Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, get_args

from cifar_onnx.errors import ContractError, NoContractError
from cifar_onnx.images import ResizeMode

KEY = "classifier"
FORMAT = 1
BLANK = "0" * 64  # stands where the digest will be while the digest is computed

_METADATA = 14  # ModelProto.metadata_props: StringStringEntryProto {key = 1, value = 2}
_TRAINING = 20  # ModelProto.training_info
# Which fields of a message hold the messages that can hold a tensor.
_CHILDREN = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of TensorProto


@dataclass(frozen=True)
class Golden:
    """A picture and the answer that the model must give for it on any machine."""

    png: bytes
    label: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Contract:
    """What a model says of itself.

    Attributes:
        classes: names, in the order of the outputs.
        size: side of the square, in pixels, that the net sees.
        resize: how a picture becomes that square.
        temperature: what logits are divided by before softmax (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
        digest: sha256 of the file, in hexadecimal, with the digest's own place filled with zeros.
        golden: pictures with the probabilities they must give.
        info: the whole JSON, with whatever else the exporter wrote.
    """

    classes: tuple[str, ...]
    size: int
    resize: ResizeMode
    temperature: float
    digest: str
    golden: tuple[Golden, ...]
    info: dict[str, Any]


def read(path: str | PathLike[str]) -> tuple[bytes, Contract]:
    """Read a model file and its contract.

    Raises:
        ContractError: no such file, not ONNX, weights outside the file, no contract, an unknown format, or damage.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror}): name an exported model.onnx") from None
    try:
        return data, parse(data)
    except ContractError as error:
        raise type(error)(f"{path}: {error}") from None


def parse(data: bytes) -> Contract:
    """The contract inside the bytes of an ONNX file; raises ContractError as `read` does."""
    try:
        metadata = _metadata(data)
        external = _uses_external_data(data)
    except (IndexError, UnicodeDecodeError):
        raise ContractError("not an ONNX file, or a damaged one") from None
    if KEY not in metadata:
        raise NoContractError(
            f"an ONNX file without a contract (metadata key '{KEY}'): export it with python -m cifar_lightning export"
        )
    if external:
        raise ContractError("keeps weights outside the file (external data): ask for a model in one file")
    try:
        info = json.loads(metadata[KEY])
        if info["format"] != FORMAT:
            raise ContractError(f"contract format {info['format']!r} is unknown: this version reads format {FORMAT}")
        contract = _from_info(info)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ContractError):
            raise
        raise ContractError(f"its contract cannot be read ({type(error).__name__}: {error})") from None
    if _digest(data, contract.digest) != contract.digest:
        raise ContractError("damaged or changed since it was exported: its digest is not that of its bytes")
    return contract


def seal(data: bytes) -> bytes:
    """Write the digest into the bytes of a model whose contract holds a blank one (`"digest": BLANK`)."""
    return _with_digest(data, BLANK, hashlib.sha256(data).hexdigest())


def _digest(data: bytes, stated: str) -> str:
    return hashlib.sha256(_with_digest(data, stated, BLANK)).hexdigest()


def _with_digest(data: bytes, old: str, new: str) -> bytes:
    return data.replace(f'"digest": "{old}"'.encode(), f'"digest": "{new}"'.encode(), 1)


def _from_info(info: dict[str, Any]) -> Contract:
    resize = info["input"]["resize"]
    if resize not in get_args(ResizeMode):
        raise ValueError(f"resize {resize!r}")
    return Contract(
        classes=tuple(str(name) for name in info["classes"]),
        size=int(info["input"]["size"]),
        resize=resize,
        temperature=float(info["temperature"]),
        digest=str(info["digest"]),
        golden=tuple(
            Golden(base64.b64decode(g["png"]), str(g["label"]), tuple(map(float, g["probabilities"])))
            for g in info["golden"]
        ),
        info=info,
    )


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Fields of a protobuf message as (number, value); raises IndexError where the bytes are not a message.

    https://protobuf.dev/programming-guides/encoding
    """
    at, end = 0, len(message)

    def varint() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise IndexError("varint")

    while at < end:
        key = varint()
        match key & 7:
            case 0:
                yield key >> 3, varint()
                continue
            case 1:
                length = 8
            case 2:
                length = varint()
            case 5:
                length = 4
            case _:
                raise IndexError("wire type")
        if at + length > end:
            raise IndexError("length")
        yield key >> 3, message[at : at + length]
        at += length


def _metadata(data: bytes) -> dict[str, str]:
    metadata = {}
    for number, value in _fields(memoryview(data)):
        if number == _METADATA and isinstance(value, memoryview):
            entry = {n: bytes(v).decode() for n, v in _fields(value) if isinstance(v, memoryview)}
            metadata[entry.get(1, "")] = entry.get(2, "")
    return metadata


def _uses_external_data(data: bytes) -> bool:
    todo: list[tuple[str, memoryview]] = [("model", memoryview(data))]
    while todo:
        kind, message = todo.pop()
        for number, value in _fields(message):
            if kind == "model" and number == _TRAINING:
                raise ContractError("holds training information: an inference model has none")
            if kind == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value == 1)):
                return True
            if isinstance(value, memoryview) and (child := _CHILDREN[kind].get(number)):
                todo.append((child, value))
    return False
