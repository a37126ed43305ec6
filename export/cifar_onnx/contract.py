"""The contract inside model.onnx: what the file says of itself, read and checked without onnxruntime or onnx."""

import base64
import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from cifar_onnx import guard, shell
from cifar_onnx.errors import EMPTY, ContractError, NoContractError, check_choice
from cifar_onnx.resizing import MAX_SIZE, ResizeMode
from cifar_onnx.uncertainty import Method, PredictionSets, Unknown

Precision = Literal["fp32", "fp16", "int8"]  # of the net in a file

KEY = "classifier"
FORMAT = 1
BLANK = "0" * 64  # stands where the digest will be while the digest is computed
MAX_BYTES = 2**31 - 1  # of a file: the most that protobuf allows a message
_MOST = 32_000_000  # bytes of JSON, which may take twenty times as much memory once they are read
_GOLDEN = 64  # samples at most: verify runs each
_METADATA = 14  # ModelProto.metadata_props: StringStringEntryProto {key = 1, value = 2}


@dataclass(frozen=True)
class Golden:
    """A picture and the answer that the model must give for it on any machine.

    Attributes:
        name: what is special about it.
        encoded: its file.
        fingerprint: `images.fingerprint` of its pixels.
        label: the predicted class.
        logits: one for each class.
        probabilities: one for each class.
        familiarity: None in a file of an older version, which has none.
    """

    name: str
    encoded: bytes = field(repr=False)
    fingerprint: str
    label: str
    logits: tuple[float, ...] = field(repr=False)
    probabilities: tuple[float, ...] = field(repr=False)
    familiarity: float | None = None


@dataclass(frozen=True)
class Contract:
    """What a model says of itself.

    Attributes:
        classes: names, in the order of the outputs.
        size: side of the square, in pixels, that the net sees.
        resize: how a picture becomes that square.
        temperature: what logits are divided by before softmax (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
        sets: which labels are in a prediction set.
        unknown: which pictures the model does not know.
        digest: sha256 of the file, in hexadecimal, with the digest's own place filled with zeros.
        golden: pictures with the answers they must get.
        info: the whole JSON, with whatever else the exporter wrote.
    """

    classes: tuple[str, ...] = field(repr=False)
    size: int
    resize: ResizeMode
    temperature: float
    sets: PredictionSets
    unknown: Unknown
    digest: str
    golden: tuple[Golden, ...] = field(repr=False)
    info: dict[str, Any] = field(repr=False)


def read(path: str | PathLike[str]) -> tuple[bytes, Contract]:
    """Read a model file and its contract.

    Raises:
        ContractError: no such file, not ONNX, something in it that no classifier needs, no contract, an unknown format,
            or damage.
    """
    try:
        if (size := Path(path).stat().st_size) > MAX_BYTES:
            raise ContractError(f"{path}: is of {size:,} bytes, and no ONNX file has more than {MAX_BYTES:,}")
        data = Path(path).read_bytes()
    except ContractError:
        raise
    except (OSError, ValueError) as error:  # the latter of a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ContractError(f"{path}: cannot be read ({reason}): name an exported model.onnx") from None
    try:
        return data, parse(data)
    except ContractError as error:
        export = shell.line("python", "-m", "cifar_lightning", "export", "--ckpt_path", path)
        advice = f": export it with {export}" if str(path).endswith(".ckpt") else ""
        raise type(error)(f"{path}: {error}{advice}") from None


def parse(data: bytes) -> Contract:
    """The contract inside the bytes of an ONNX file; raises ContractError as `read` does."""
    if not data:
        raise ContractError(EMPTY)
    try:
        text = _text(data)
        if text is None:
            raise NoContractError(
                f"an ONNX file without a contract (metadata key '{KEY}'): "
                "export it with python -m cifar_lightning export"
            )
        guard.check(data)
    except (IndexError, UnicodeDecodeError):
        raise ContractError("not an ONNX file, or a damaged one") from None
    try:
        info = json.loads(text, parse_int=_whole, parse_constant=_no_number)
        if type(info["format"]) is not int or info["format"] != FORMAT:
            raise ContractError(f"contract format {info['format']!r} is unknown: this version reads format {FORMAT}")
        contract = _from_info(info)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, ContractError):
            raise
        raise ContractError(f"its contract cannot be read ({type(error).__name__}: {error})") from None
    if _digest(data, contract.digest) != contract.digest:
        raise ContractError("damaged or changed since it was exported: its digest is not that of its bytes")
    return contract


def title(path: str | PathLike[str]) -> str:
    """What to call a model file; its name need not be text."""
    return Path(path).stem.encode(errors="backslashreplace").decode()


def seal(data: bytes) -> bytes:
    """Write the digest into the bytes of a model whose contract holds a blank one (`"digest": BLANK`)."""
    return data.replace(_entry(BLANK), _entry(hashlib.sha256(data).hexdigest()), 1)


def _digest(data: bytes, stated: str) -> str:
    found, at = hashlib.sha256(), data.find(_entry(stated))
    if at < 0:
        return ""
    parts = memoryview(data)  # a copy of a large file would take as much memory
    for part in (parts[:at], _entry(BLANK), parts[at + len(_entry(stated)) :]):
        found.update(part)
    return found.hexdigest()


def _entry(digest: str) -> bytes:
    return f'"digest": "{digest}"'.encode()


def _from_info(info: dict[str, Any]) -> Contract:
    classes, sets, unknown = _names(info["classes"]), info["sets"], info["unknown"]
    if not re.fullmatch("[0-9a-f]{64}", str(info["digest"])):
        raise ValueError("digest is not 64 hexadecimal digits")
    if not isinstance(info["golden"], list):
        raise ValueError("golden is not a list")
    if len(info["golden"]) > _GOLDEN:
        raise ValueError(f"golden holds {len(info['golden']):,} samples: at most {_GOLDEN} are taken")
    for key in ("cost", "metrics", "provenance"):
        if not isinstance(info.get(key, {}), dict):
            raise ValueError(f"{key} is not an object")
    check_choice("input.resize", info["input"]["resize"], ResizeMode)
    check_choice("sets.method", sets["method"], Method)
    return Contract(
        classes=classes,
        size=_side(info["input"]["size"]),
        resize=info["input"]["resize"],
        temperature=_positive(info["temperature"]),
        sets=PredictionSets(sets["method"], _finite(sets["alpha"]), _finite(sets["threshold"])),
        unknown=Unknown(str(unknown["score"]), _finite(unknown["threshold"])),
        digest=str(info["digest"]),
        golden=tuple(
            Golden(
                str(g["name"]),
                base64.b64decode(g["file"], validate=True),
                str(g["fingerprint"]),
                str(g["label"]),
                _numbers(g["logits"], len(classes)),
                _numbers(g["probabilities"], len(classes)),
                _finite(g["familiarity"]) if "familiarity" in g else None,
            )
            for g in info["golden"]
        ),
        info=info,
    )


def _whole(digits: str) -> int | float:
    """A whole number as JavaScript reads it: large ones are rounded, and the largest are infinite."""
    return int(digits) if len(digits) < 16 else float(digits)


def _no_number(word: str) -> None:
    """For NaN and infinities, which Python reads, and JavaScript does not."""
    raise ValueError(f"{word} is not a finite number")


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name for name in value):
        raise ValueError("classes is not a list of names")
    if len(set(value)) < len(value):
        raise ValueError("classes names one class twice")
    return tuple(name.encode().decode() for name in value)  # a lone surrogate is refused


def _side(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MAX_SIZE:
        raise ValueError(f"input.size is {value!r}: it must be a whole number from 1 to {MAX_SIZE:,}")
    return value


def _finite(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _positive(value: Any) -> float:
    if (number := _finite(value)) <= 0:
        raise ValueError(f"temperature is {number:g}: it must be above 0")
    return number


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    numbers = tuple(map(_finite, values))
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} numbers for {count} classes")
    return numbers


def _text(data: bytes) -> str | None:
    """The JSON; None of a file without a contract."""
    text: memoryview | None = None
    for number, value in guard.fields(memoryview(data)):
        if number == _METADATA and isinstance(value, memoryview):
            entry = {n: v for n, v in guard.fields(value) if isinstance(v, memoryview)}
            if entry.get(1) == memoryview(KEY.encode()):
                text = entry.get(2, memoryview(b""))
    if text is not None and len(text) > _MOST:
        raise ContractError(f"its contract is of {len(text):,} bytes: more than {_MOST:,} are not taken")
    return None if text is None else str(text, "utf-8")
