"""ONNX files by hand, field by field."""

import json
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


def model_of(info: object, graph: bytes = b"") -> bytes:
    """An ONNX file with this contract and graph."""
    text = json.dumps(info).encode()
    return contract.seal(field(7, graph) + field(14, field(1, b"classifier") + field(2, text)))


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
