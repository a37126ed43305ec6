"""A model to be judged: an exported file, or any other ONNX classifier with what the command line says of it."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cifar_onnx import Classifier
from cifar_onnx.contract import Contract
from cifar_onnx.errors import InputError, NoContractError
from cifar_onnx.evaluation.answers import Model
from cifar_onnx.evaluation.foreign import ForeignClassifier
from cifar_onnx.evaluation.report import Maps
from cifar_onnx.explain import occlusion
from cifar_onnx.images import Pixels
from cifar_onnx.session import Providers


@dataclass(frozen=True)
class Subject(Model):
    """A model to be judged.

    Attributes:
        path: its file.
        providers: what onnxruntime runs it on.
        explain: what in a picture supports a class.
        by_occlusion: how it does that; else by class activation maps.
        contract: what the file says of itself; None of one that does not.
    """

    path: Path
    providers: Sequence[str]
    explain: Maps
    by_occlusion: bool
    contract: Contract | None = None

    @property
    def megabytes(self) -> float:
        """Size of its file, and of that beside it where PyTorch leaves the weights of one without a contract."""
        files = [self.path] if self.contract else [self.path, self.path.with_name(f"{self.path.name}.data")]
        return sum(each.stat().st_size for each in files if each.exists()) / 1e6

    @property
    def facts(self) -> dict[str, str]:
        """What a report says of it."""
        return {
            "file": str(self.path),
            "size": f"{self.megabytes:.2f} MB",
            **({"digest": self.contract.digest} if self.contract else {}),
            "input": f"{self.size} x {self.size} pixels ({self.mode})",
            "maps_by": "occlusion" if self.by_occlusion else "class activation",
            "run_by": f"onnxruntime {onnxruntime.__version__} on {', '.join(self.providers)}",
        }


def subjects(paths: Sequence[str], options: argparse.Namespace) -> list[Subject]:
    """The models in some files.

    Args:
        paths: of the files.
        options: of the command line; classes, mean, std, size and resize are those of files without a contract.

    Raises:
        InputError: one cannot be judged, or these options are given and every file has a contract.
    """
    found = [_subject(path, options) for path in paths]
    given = [f"--{name}" for name in ("classes", "mean", "std", "size", "resize") if getattr(options, name)]
    if given and all(each.contract for each in found):
        raise InputError(f"{given[0]} is for files without a contract: {' and '.join(paths)} came with one")
    return found


def _subject(path: str, options: argparse.Namespace) -> Subject:
    settings: dict[str, Any] = {"providers": options.provider, "threads": options.threads}
    try:
        return exported(path, **settings)
    except NoContractError:
        return _foreign(path, options, settings)


def exported(path: str, providers: Providers = None, threads: int | None = None) -> Subject:
    """The model in a file that has a contract; arguments as of `Classifier`.

    Raises:
        NoContractError: it has none.
        InputError: it cannot be judged.
    """
    classifier = Classifier(path, providers=providers, threads=threads)
    contract = classifier.contract
    if len(contract.classes) < 2:
        raise InputError(f"{path} knows one class, {contract.classes[0]}, and is always right: a classifier has two")
    temperature = np.float32(contract.temperature)

    def run(batch: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        logits, _, familiarity = classifier.run(batch)
        return logits / temperature, familiarity

    return Subject(
        path=Path(path),
        providers=classifier.providers,
        classes=contract.classes,
        size=contract.size,
        mode=contract.resize,
        run=run,
        explain=lambda pixels, k: classifier.explain(pixels, contract.classes[k]),
        by_occlusion=not classifier.has_maps,
        contract=contract,
    )


def _foreign(path: str, options: argparse.Namespace, settings: dict[str, Any]) -> Subject:
    if not options.classes:
        raise InputError(
            f"{path} holds no contract: say what it answers and takes with --classes, --mean, --std and --size"
        )
    net = ForeignClassifier(path, _names(options.classes), options.mean, options.std, options.size, **settings)
    return Subject(
        path=Path(path),
        providers=net.providers,
        classes=net.classes,
        size=net.size,
        mode=options.resize or "stretch",
        run=lambda batch: (net.logits(batch), None),
        explain=partial(occlusion, net.logits),
        by_occlusion=True,
    )


def _names(text: str) -> list[str]:
    """Class names: the lines of a file, or words with commas between them."""
    if "," in text:
        lines = text.split(",")
    elif not Path(text).is_file():
        raise InputError(f"--classes {text}: no such file, and no names with commas between them")
    else:
        try:
            lines = Path(text).read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{text} is not text in UTF-8: {error}") from None
    return [line.strip() for line in lines if line.strip()]
