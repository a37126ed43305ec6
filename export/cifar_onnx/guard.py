"""What an ONNX file may hold: judged on its bytes, without onnxruntime or onnx, and without running anything.

An ONNX file is a protobuf message, which is walked directly. Field numbers:
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from collections.abc import Iterator
from itertools import islice
from math import prod

from cifar_onnx.errors import ContractError

MAX_NODES = 20_000
MAX_FIELDS = 500_000  # of two bytes at least, which take a hundred times their size of memory while they are judged
MAX_ELEMENTS = 2**29  # of a tensor: 2 GB as float32, which is as much as an ONNX file can hold
MAX_SIDES = 64  # of a tensor, as in numpy: to multiply them takes time that grows with the square of their number

# What messages hold, as far as it matters here: field -> kind of message.
_CHILDREN = {
    "model": {7: "graph", 8: "opset"},
    "graph": {1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor"},
    "value": {2: "type"},
    "type": {1: "tensor type"},
    "tensor type": {2: "shape"},
    "shape": {1: "dimension"},
}
# What may stand there once: readers would merge more of it into one, whose parts are judged here one by one.
_ONCE = {"model": {7}, "attribute": {5}, "value": {2}, "type": {1}, "tensor type": {2}}
# What no classifier needs: field -> what to say of it.
_REFUSED = {
    "model": {20: "training information", 25: "functions of its own"},
    "graph": {15: "sparse weights"},
    "attribute": {
        6: "graphs within its graph (a loop or a branch)",
        11: "graphs within its graph (a loop or a branch)",
        22: "sparse weights",
        23: "sparse weights",
    },
    "tensor": {3: "weights in segments"},
}
_DOMAINS = {b"", b"ai.onnx"}
_LOOPS = {b"If", b"Loop", b"Scan", b"SequenceMap"}
Fields = list[tuple[int, int | memoryview]]
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of TensorProto
_DIMS, _TYPE, _RAW = 1, 2, 9  # likewise
# Bytes of an element by TensorProto.DataType; elements of half a byte are not here.
_SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2}


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Fields of a protobuf message as (number, value).

    https://protobuf.dev/programming-guides/encoding

    Raises:
        IndexError: the bytes are no message.
        ContractError: there are more than `MAX_FIELDS`.
    """
    at, end, count = 0, len(message), 0
    while at < end:
        count += 1
        _check_fields(count)
        key, at = _varint(message, at)
        if not 8 <= key < 2**32:  # readers would take its lower half for another field
            raise IndexError("field number")
        match key & 7:
            case 0:
                value, at = _varint(message, at)
                yield key >> 3, value
                continue
            case 1:
                length = 8
            case 2:
                length, at = _varint(message, at)
            case 5:
                length = 4
            case _:
                raise IndexError("wire type")
        if at + length > end:
            raise IndexError("length")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at a place, and where it ends; raises IndexError where it does not."""
    value = 0
    for place, shift in enumerate(range(0, 70, 7), at):
        byte = message[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
    raise IndexError("varint")


def check(data: bytes) -> None:
    """Refuse a file that holds what no classifier needs, or that would ask for absurd amounts of memory.

    Raises:
        ContractError: naming what it holds.
        IndexError: the bytes are no ONNX model.
    """
    nodes = count = 0
    todo: list[tuple[str, memoryview]] = [("model", memoryview(data))]
    while todo:
        kind, message = todo.pop()
        children, refused = _CHILDREN.get(kind, {}), _REFUSED.get(kind, {})
        found = list(fields(message))
        count += len(found)
        _check_fields(count)
        if any(sum(number == each for each, _ in found) > 1 for number in _ONCE.get(kind, ())):
            raise IndexError("twice what is there once")
        for number, value in found:
            if number in refused:
                raise ContractError(f"holds {refused[number]}: a classifier has none")
            if number in children:
                if not isinstance(value, memoryview):
                    raise IndexError("a number where a message should be")
                todo.append((children[number], value))
        match kind:
            case "tensor":
                _check_tensor(found)
            case "dimension":
                if any(number == 1 and isinstance(value, int) and value > MAX_ELEMENTS for number, value in found):
                    raise ContractError("states a size that is too large")
            case "opset":
                _check_domain(found, 1)
            case "node":
                nodes += 1
                _check_domain(found, 7)
                if not _LOOPS.isdisjoint(_texts(found, 4)):
                    raise ContractError("holds loops or branches: a classifier has none")
    if nodes > MAX_NODES:
        raise ContractError(f"holds {nodes:,} operations: more than {MAX_NODES:,} are not taken")


def _check_fields(count: int) -> None:
    if count > MAX_FIELDS:
        raise ContractError(f"holds more than {MAX_FIELDS:,} fields: a classifier has fewer")


def _texts(found: Fields, field: int) -> set[bytes]:
    return {bytes(value) for number, value in found if number == field and isinstance(value, memoryview)}


def _check_domain(found: Fields, field: int) -> None:
    for name in _texts(found, field) - _DOMAINS:
        raise ContractError(
            f"needs operations of {name.decode(errors='replace')!r}: only those of ONNX itself are taken"
        )


def _check_tensor(found: Fields) -> None:
    dims: list[int] = []
    for number, value in found:
        if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
            raise ContractError("keeps weights outside the file (external data): ask for a model in one file")
        if number == _DIMS:
            dims += [value] if isinstance(value, int) else islice(_packed(value), MAX_SIDES + 1)
            if len(dims) > MAX_SIDES:
                break
    if len(dims) > MAX_SIDES or any(dim > MAX_ELEMENTS for dim in dims) or prod(dims) > MAX_ELEMENTS:
        raise ContractError("holds a tensor that is too large")
    kinds = [value for number, value in found if number == _TYPE and isinstance(value, int)]
    size = _SIZES.get(kinds[-1] % 2**32) if kinds else None
    for number, value in found:
        if number == _RAW and size and isinstance(value, memoryview) and len(value) != size * prod(dims):
            raise ContractError("holds a tensor whose bytes do not fit its size")


def _packed(message: memoryview) -> Iterator[int]:
    """Numbers written one after the other."""
    at = 0
    while at < len(message):
        value, at = _varint(message, at)
        yield value
