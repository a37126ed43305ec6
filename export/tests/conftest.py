"""A small classifier of handwritten digits, as `python -m cifar_lightning export` wrote it.

Made by: fit --data Digits --model.net.init_args.widths "[8, 8]" --model.net.init_args.hidden 16
--model.net.init_args.dropout 0 --model.optimizer.init_args.lr 0.01 --trainer.max_epochs 20
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_onnx import contract

MODEL = Path(__file__).parent / "digits.onnx"


@pytest.fixture
def model() -> Path:
    return MODEL


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A folder with the pictures that the model carries."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for number, golden in enumerate(contract.read(MODEL)[1].golden):
        (folder / f"{number}-{golden.label}.png").write_bytes(golden.encoded)
    return folder


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """A copy of the model with some bytes replaced, and sealed anew if asked."""

    def change(old: bytes, new: bytes, seal: bool = False) -> Path:
        data, known = contract.read(MODEL)
        assert old in data
        data = data.replace(old, new, 1)
        if seal:
            data = contract.seal(data.replace(known.digest.encode(), contract.BLANK.encode(), 1))
        path = tmp_path / "changed.onnx"
        path.write_bytes(data)
        return path

    return change
