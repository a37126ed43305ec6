"""Tiny data, and the command line run in this process or in forks of one: a fresh `import lightning` costs seconds."""

import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning.__main__ import main
from cifar_lightning.calibration import Calibration, calibrate
from cifar_lightning.data.images import Images
from cifar_lightning.module import Classifier
from cifar_lightning.nets import Normalize

# OpenVINO tells its makers over the network of each import, unless its package for that is missing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


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


@pytest.fixture(scope="session", autouse=True)
def _own_terminal() -> Iterator[None]:
    """The one that the tests are started from, or CI, may ask for colours, for none, or for lines of some length."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FORCE_COLOR", "NO_COLOR", "PYTHON_COLORS", "TTY_COMPATIBLE", "COLUMNS", "LINES"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm")
        yield


@pytest.fixture(scope="session", autouse=True)
def _operators_once() -> Iterator[None]:
    """torch.onnx.export reads all its operators anew each time, which takes longer than the export of a small net."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
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


# Starting a process also asks how the others ended, and of two threads that ask only one hears it (the other: 255).
ASKING = threading.Lock()


@dataclass
class Child:
    """A command in a process of its own, which may be killed."""

    process: ForkServerProcess
    log: Path

    def ended(self) -> int | None:
        """Its exit code, -9 if it was killed by signal 9, None while it runs."""
        with ASKING:
            return self.process.exitcode

    def wait(self, seconds: float = 100) -> Result:
        """Its exit code and what it printed, errors too."""
        wait([self.process.sentinel], seconds)
        code = self.ended()
        assert code is not None, "it hangs"
        return Result(code, text := self.log.read_text(), text)

    def wait_for(self, condition: Callable[[], object], seconds: float = 60) -> bool:
        """Wait until a condition holds or the process has ended; whether it holds."""
        end = time.monotonic() + seconds
        while self.ended() is None and time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.002)
        return bool(condition())


def in_child(function: Callable[..., object], folder: Path, log: Path, args: tuple[Any, ...]) -> None:
    """What a child does: one thread, a folder of its own, and everything it prints in a file."""
    os.chdir(folder)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for each in (1, 2):
        os.dup2(descriptor, each)
    sys.argv = ["cifar_lightning"]
    torch.set_num_threads(1)
    code = function(*args)
    sys.exit(code if isinstance(code, int) else 0)


def command_line(*words: str) -> int:
    """`main` for a child."""
    return main(list(words))


@pytest.fixture(scope="session")
def _server() -> ForkServerContext:
    """A process that has imported everything and computed nothing, from which children are forked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cifar_lightning.main", "tests.conftest", "sklearn.datasets"])
    return context


Start = Callable[..., Child]


@pytest.fixture
def start(_server: ForkServerContext, tmp_path: Path) -> Iterator[Start]:
    """Start a function in a child, `command_line` by default."""
    yield from starting(_server, tmp_path)


@pytest.fixture(scope="module")
def start_for_all(_server: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """The same for what the tests of a module share."""
    yield from starting(_server, tmp_path_factory.mktemp("shared"))


def starting(server: ForkServerContext, place: Path) -> Iterator[Start]:
    children: list[Child] = []

    def begin(*args: object, function: Callable[..., object] = command_line, folder: Path = place) -> Child:
        log = Path(tempfile.mkstemp(".log", dir=folder)[1])
        words = tuple(map(str, args)) if function is command_line else args
        process = server.Process(target=in_child, args=(function, folder, log, words))
        with ASKING:
            process.start()
        children.append(Child(process, log))
        return children[-1]

    yield begin
    for child in children:
        child.process.kill()
        child.wait()


def calibrated(pixels: Normalize, net: nn.Module, classes: Sequence[str], size: int = 32) -> Calibration:
    """A calibration on noise."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, size, size, 3), dtype=np.uint8)
    labels = generator.integers(0, len(classes), 60)
    return calibrate(nn.Sequential(pixels, net).eval(), Images(images, labels, [""] * 60), classes)


def write_model(path: Path, model: Classifier, **settings: object) -> str:
    """A checkpoint of a model as `fit` leaves it, whose net is a class of this project with these settings."""
    name = f"cifar_lightning.nets.{type(model.net).__name__}"
    net = {"class_path": name, "init_args": {"num_classes": len(model.classes), **settings}}
    run = {"experiment": "x", "seed": 0, "threads": 1, "metrics": {}, "validated": True, "train_loss": (0.0, 0)}
    state = {
        "state_dict": model.state_dict(),
        "hyper_parameters": {"classes": model.classes, "net": net, "loss": None},
        "datamodule_hyper_parameters": {"_class_path": "cifar_lightning.data.Digits"},
        "run": run,
    }
    checkpoints.write(state, path)
    return str(path)


def write_net(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the current folder with a net of the user's own, which can be imported."""
    Path(f"{module}.py").write_text(
        f"from torch import nn\nclass {name}(nn.Sequential):\n    def __init__(self, num_classes: int):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(3072, num_classes))\n"
    )
    monkeypatch.syspath_prepend(Path.cwd())


# A run that takes a second: four small batches of digits.
BRIEF = ("--data", "Digits", "--data.batch_size", 16, "--trainer.max_epochs", 1, "--trainer.limit_train_batches", 4)


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


def quiet(**settings: Any) -> L.Trainer:
    """A Trainer on the CPU, which prints and keeps nothing unless the settings say so."""
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return L.Trainer(**{"accelerator": "cpu", **dict.fromkeys(names, False), **settings})


def config_of(run: Run, *words: object) -> dict[str, Any]:
    """What a command would run with."""
    result = run(*words, "--print_config")
    assert result.code == 0, result.err
    config: dict[str, Any] = yaml.safe_load(result.out)
    return config


def lines(text: str, start: str) -> list[str]:
    """The lines that begin so."""
    return [line for line in text.splitlines() if line.startswith(start)]
