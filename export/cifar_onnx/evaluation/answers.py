"""Answers of models to labelled pictures, which are decoded once, in parts, and not kept in memory.

Notation: `N` pictures, `B` of them at once, `S` side in pixels of the square that a net sees.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from cifar_onnx.ahead import ahead, chunk_size
from cifar_onnx.cpus import usable_cpus
from cifar_onnx.errors import ImageError, InputError
from cifar_onnx.evaluation.outcome import Answers, Outcome, Unreadable, at_once
from cifar_onnx.folders import composed, find, labelled
from cifar_onnx.images import Pixels, decode
from cifar_onnx.progress import track
from cifar_onnx.resizing import ResizeMode, resize
from cifar_onnx.shell import say

_Form = tuple[int, ResizeMode]  # how large a square is, and how a picture becomes it


@dataclass(frozen=True)
class Model:
    """What answers.

    Attributes:
        classes: names, in the order of the logits.
        size: side in pixels of the square that the net sees.
        mode: how a picture becomes that square.
        run: the net.
    """

    classes: Sequence[str]
    size: int
    mode: ResizeMode
    run: Answers


def answer(photos: Path, *models: Model, keep: Path | None = None) -> list[Outcome]:
    """Decode and classify labelled pictures.

    They are resized here by the formula that the graph has too, so that many run together and what the net saw can be
    shown.

    Args:
        photos: a folder that holds one for each class, or a CSV file, as of `labelled`; classes may be missing.
        models: know the same classes, in whatever order, and are asked about the same pictures.
        keep: the pixels that the first sees, in a file without a name in this folder; else there are none in outcomes.

    Raises:
        InputError: there are no pictures, or one is of a class that the first model does not know.
    """
    files = labelled(photos, models[0].classes)
    paths, titles = [path for path, _ in files], [composed(models[0].classes[label]) for _, label in files]
    answers: list[list[tuple[NDArray[np.float32], NDArray[np.float32] | None]]] = [[] for _ in models]
    errors, kept, areas = dict[int, str](), list[int](), list[int]()
    try:
        with TemporaryFile(dir=keep) if keep else nullcontext() as file:
            for places, sizes, squares in _read(paths, models, f"classifying {photos}", errors):
                kept += places
                areas += sizes
                for model, found in zip(models, answers, strict=True):
                    found.append(model.run(squares[model.size, model.mode]))
                if file:
                    file.write(squares[models[0].size, models[0].mode].data)
            if not kept:
                raise InputError(f"{photos}: none of the {len(files)} files can be read as a picture")
            shape = (len(kept) if file else 0, models[0].size, models[0].size, 3)
            pixels = np.memmap(file, np.uint8, "r", shape=shape) if file else np.empty(shape, np.uint8)
    except OSError as error:
        if keep is None:
            raise
        needed = 3 * models[0].size ** 2 * len(files) / 1e9
        raise InputError(
            f"{keep}: {error.strerror}: what the net sees of {len(files):,} pictures takes {needed:.2g} GB there for "
            "the time being: name another folder with --output"
        ) from None
    outcomes = []
    for model, found in zip(models, answers, strict=True):
        places_of = {composed(name): place for place, name in enumerate(model.classes)}
        labels = [places_of[title] for title in titles]
        logits, familiar = zip(*found, strict=True)
        outcomes.append(
            Outcome(
                classes=tuple(model.classes),
                names=[str(paths[place]) for place in kept],
                labels=np.array([labels[place] for place in kept], np.int64),
                logits=np.concatenate(logits),
                pixels=pixels,
                areas=np.array(areas, np.int64),
                unreadable=tuple(Unreadable(str(paths[n]), labels[n], reason) for n, reason in errors.items()),
                familiarity=None if any(each is None for each in familiar) else np.concatenate(familiar),
            )
        )
    return outcomes


def familiarity(folder: Path, model: Model) -> NDArray[np.float32]:
    """How familiar every picture below a folder that can be read is to a model that says so, `(N,)`.

    It prints how many cannot be read.

    Raises:
        InputError: there is none, or no folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name one with pictures")
    paths, errors = find(folder), dict[int, str]()
    parts = _read(paths, [model], f"classifying {folder}", errors)
    found = [model.run(squares[model.size, model.mode])[1] for _, _, squares in parts]
    if not found:
        raise InputError(f"{folder}: none of the {len(paths)} files can be read as a picture")
    for place, reason in list(errors.items())[:1]:
        first = f"{paths[place]}: {reason}"
        say(f"skipped {len(errors):,} of the {len(paths):,} files of {folder}, such as {first}", sys.stderr)
    return np.concatenate([each for each in found if each is not None])


def _read(
    paths: Sequence[Path], models: Sequence[Model], title: str, errors: dict[int, str]
) -> Iterator[tuple[list[int], list[int], Mapping[_Form, Pixels]]]:
    """Pictures as models see them, as many as they all take at once.

    Args:
        paths: of the files.
        models: that look at them.
        title: of what is being done.
        errors: takes the places of files that are no pictures, and the reasons.

    Yields:
        the pictures' places among the files, how many pixels each had, and uint8 `(B, S, S, 3)` of each form.
    """
    forms = {(model.size, model.mode) for model in models}
    threads, batch = usable_cpus(), min(at_once(size) for size, _ in forms)
    chunk = chunk_size(len(paths), threads)

    def read(path: Path) -> tuple[int, Mapping[_Form, Pixels]] | str:
        try:
            picture = decode(path)
        except ImageError as error:
            return error.reason
        return picture.shape[0] * picture.shape[1], {form: resize(picture, *form) for form in forms}

    results = ahead(read, paths, threads, 2 * max(batch, threads * chunk), chunk)
    waiting: list[tuple[int, int, Mapping[_Form, Pixels]]] = []
    for place, result in enumerate(track(results, title, len(paths))):
        if isinstance(result, str):
            errors[place] = result
        else:
            waiting.append((place, *result))
        if len(waiting) == batch or (waiting and place == len(paths) - 1):
            places, areas, squares = zip(*waiting, strict=True)
            yield [*places], [*areas], {form: np.stack([each[form] for each in squares]) for form in forms}
            waiting = []
