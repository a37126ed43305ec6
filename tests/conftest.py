"""Tiny data, and the command line run in this process: a fresh `import lightning` costs seconds."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_lightning.__main__ import main


@dataclass(frozen=True)
class Result:
    """What a command returned and printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(scope="session", autouse=True)
def _own_words() -> Iterator[None]:
    """LightningCLI warns of words on the command line that it was not given: pytest's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cifar_lightning"])
        yield


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and caches go to a folder of this test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line as a user would type it."""

    def command(*words: object) -> Result:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return command


# A run that takes a second: four batches of digits.
BRIEF = ("--data", "Digits", "--trainer.max_epochs", 1, "--trainer.limit_train_batches", 4)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best checkpoint of a run on the digits that has learnt something."""
    root = tmp_path_factory.mktemp("digits")
    words = ("fit", "--data", "Digits", "--trainer.max_epochs", 2, "--trainer.default_root_dir", root)
    assert main([str(word) for word in words]) == 0
    return root / "runs" / "cnn" / "version_0" / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> Path:
    """That checkpoint, exported."""
    assert main(["export", "--ckpt_path", str(checkpoint)]) == 0
    return checkpoint.parent.parent / "model.onnx"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """`root/train/<class>/*` and `root/test/<class>/*`: noisy pictures of three colours, of many sizes."""
    root = tmp_path / "photos"
    make_photos(root / "train", 12)
    make_photos(root / "test", 3)
    return root


def make_photos(folder: Path, count: int) -> None:
    """Write `count` pictures for each of the classes blue, green and red."""
    generator = np.random.default_rng(count)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            height, width = generator.integers(8, 60, 2)
            pixels = generator.integers(0, 120, (height, width, 3), dtype=np.uint8)
            pixels[:, :, channel] += 120
            Image.fromarray(pixels).save(folder / name / f"{number:02}.{'png' if number % 2 else 'jpg'}")
