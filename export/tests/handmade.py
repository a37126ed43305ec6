"""ONNX files by hand, field by field, and a picture."""

import json
import struct
from typing import Any

from cifar_onnx import contract, guard


def field(number: int, value: bytes | int) -> bytes:
    """A protobuf field."""

    def varint(value: int) -> bytes:
        low, high = value & 0x7F, value >> 7
        return bytes([low | 0x80]) + varint(high) if high else bytes([low])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def model_of(info: object, graph: bytes = b"", versions: bytes = b"") -> bytes:
    """An ONNX file with this contract and graph."""
    text = json.dumps(info).encode()
    return contract.seal(versions + field(7, graph) + field(14, field(1, b"classifier") + field(2, text)))


INFO: dict[str, Any] = {
    "format": 1,
    "digest": contract.BLANK,
    "classes": ["a", "b"],
    "input": {"size": 8, "resize": "crop"},
    "temperature": 1.5,
    "sets": {"method": "lac", "alpha": 0.1, "threshold": 0.8},
    "unknown": {"score": "energy", "threshold": 2.5},
    "golden": [],
}


def with_info(model: bytes, info: dict[str, Any]) -> bytes:
    """A model with another contract, whose digest is `contract.BLANK`."""
    rest = b"".join(
        field(number, bytes(value) if isinstance(value, memoryview) else value)
        for number, value in guard.fields(memoryview(model))
        if number != 14
    )
    text = json.dumps(info).encode()
    return contract.seal(rest + field(14, field(1, b"classifier") + field(2, text)))


def colours(*operations: str, kind: int = 1, **facts: Any) -> bytes:
    """A classifier with the output `cam`: the maps are the colours of the picture, and the logits their means.

    Args:
        operations: of ONNX, done to each level first, such as `Log`.
        kind: of the numbers of the familiarity, as in ONNX's TensorProto.DataType.
        **facts: of the contract.
    """

    def value(name: str, kind: int, *dims: str | int) -> bytes:
        shape = b"".join(field(1, field(1, dim) if isinstance(dim, int) else field(2, dim.encode())) for dim in dims)
        return field(1, name.encode()) + field(2, field(1, field(1, kind) + field(2, shape)))

    def node(operation: str, source: str, result: str, **numbers: int | list[int]) -> bytes:
        words = field(1, source.encode()) + field(2, result.encode()) + field(4, operation.encode())
        for name, number in numbers.items():
            few = (
                [field(3, number), field(20, 2)]
                if isinstance(number, int)
                else [*(field(8, n) for n in number), field(20, 7)]
            )
            words += field(5, field(1, name.encode()) + b"".join(few))
        return field(1, words)

    graph = b"".join([
        node("Cast", "image", "levels0", to=1),
        *(node(word, f"levels{at}", f"levels{at + 1}") for at, word in enumerate(operations)),
        node("Transpose", f"levels{len(operations)}", "cam", perm=[0, 3, 1, 2]),
        node("ReduceMean", "cam", "logits", axes=[2, 3], keepdims=0),
        node("Softmax", "logits", "probabilities", axis=1),
        node("ReduceMean", "logits", "mean", axes=[1], keepdims=0),
        node("Cast", "mean", "familiarity", to=kind),
        field(2, b"colours"),
        field(11, value("image", 2, "batch", "height", "width", 3)),
        field(12, value("logits", 1, "batch", 3)),
        field(12, value("probabilities", 1, "batch", 3)),
        field(12, value("familiarity", kind, "batch")),
        field(12, value("cam", 1, "batch", 3, "height", "width")),
    ])  # fmt: skip
    info = {**INFO, "classes": ["red", "green", "blue"], **facts}
    return model_of(info, graph, field(1, 8) + field(8, field(2, 17)))


def run_length_encoded(width: int, height: int) -> bytes:
    """A black BMP, whose lines end after their first pixel."""
    head = struct.pack("<2s3I", b"BM", 0, 0, 62) + struct.pack("<I2i2H6I", 40, width, height, 1, 8, 1, 0, 0, 0, 2, 2)
    return head + b"\0\0\0\0\xff\0\0\0" + b"\1\0\0\0" * height
