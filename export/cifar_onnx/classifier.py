"""Classifier: an ONNX file with a contract as a function from pictures to predictions."""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from os import PathLike
from typing import Any, SupportsIndex, overload

import numpy as np
from onnxruntime import InferenceSession
from PIL import Image

from cifar_onnx import contract, images, probe, resizing
from cifar_onnx.ahead import batches_ahead
from cifar_onnx.cpus import usable_cpus
from cifar_onnx.errors import ContractError, ImageError, InputError
from cifar_onnx.images import Pixels
from cifar_onnx.prediction import Prediction, Scores
from cifar_onnx.replay import Replay, replay
from cifar_onnx.session import Providers, run, session
from cifar_onnx.sources import Source, is_one, kept

BATCH = 32  # pictures that run together by default

_OUTPUTS = ["logits", "probabilities", "familiarity"]
_AXES = {"logits": 2, "probabilities": 2, "familiarity": 1, "cam": 4}  # of (B, K, h, w)


class Classifier:
    """An exported classifier.

    Args:
        model: path of a model.onnx that holds a contract, or its bytes.
        providers: onnxruntime execution providers in order of preference, or one: `"cuda"` or
            `"CUDAExecutionProvider"`, or with options `("cuda", {"device_id": 1})`; by default the CPU.
        threads: of the net; by default one for each CPU that this process or its container may use.
        untrusted: try the file first in a process of its own that may take little memory and time.

    Attributes:
        contract: what the file says of itself.
        classes: names, in the order of the outputs.
        providers: what onnxruntime runs it on, in order of preference.

    Raises:
        ContractError: the file holds no contract, one of an unknown format, or is damaged; or its trial fails.
        ProviderError: a provider that was asked for is not active.
        InputError: `model` is neither path nor bytes, a provider is none, or no session has so many threads.
    """

    def __init__(
        self,
        model: str | PathLike[str] | bytes | bytearray | memoryview = "model.onnx",
        *,
        providers: Providers = None,
        threads: int | None = None,
        untrusted: bool = False,
    ) -> None:
        if isinstance(model, bytearray | memoryview):
            model = bytes(model)
        if not isinstance(model, str | PathLike | bytes):
            raise InputError(f"{type(model).__name__} is no model: give the path of a model.onnx, or its bytes")
        if isinstance(model, bytes):
            name, data, self.contract = "the model", model, contract.parse(model)
        else:
            name, (data, self.contract) = str(model), contract.read(model)
        # Absolute: it may be read again after a change of folder, or by another process.
        self._model = model if isinstance(model, bytes) else os.path.abspath(model)
        if untrusted:
            probe.run(data, name)
        self.classes = self.contract.classes
        self._name, self._options, self._untrusted = name, (providers, threads), untrusted
        self._session = session(data, name, *self._options, square=self.contract.size)
        self.providers: list[str] = self._session.get_providers()
        known = {each.name: each for each in self._session.get_outputs() if each.name in _AXES}
        for output, found in known.items():
            if found.type != "tensor(float)":
                raise ContractError(f"{name}: its output {output} is a {found.type}: it must be a tensor(float)")
        shape = known["probabilities"].shape if "probabilities" in known else None
        if shape is None or len(shape) != 2 or shape[1] not in (len(self.classes), None):
            raise ContractError(
                f"{name}: its contract names {len(self.classes)} classes, but the shape of its probabilities is {shape}"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        providers, threads = self._options  # a session cannot be pickled: a copy loads the file anew
        return partial(type(self), providers=providers, threads=threads, untrusted=self._untrusted), (self._model,)

    def __repr__(self) -> str:
        more = ", ..." if len(self.classes) > 3 else ""
        return f"<Classifier of {len(self.classes)} classes: {', '.join(self.classes[:3])}{more}>"

    @overload
    def __call__(self, image: Source, batch_size: int = BATCH) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, image: Iterable[Source], batch_size: int = BATCH) -> list[Prediction]: ...
    def __call__(self, image: Source | Iterable[Source], batch_size: int = BATCH) -> Prediction | list[Prediction]:
        """Classify one picture, or many; while some run, the next ones are decoded.

        Args:
            image: path, encoded bytes, binary file, Pillow image or uint8 array `(H, W, 3)`; or an iterable of these.
            batch_size: how many run together.

        Raises:
            ImageError: a picture cannot be decoded.
            InputError: `batch_size` is no whole number from 1 on, or onnxruntime cannot run the file.
        """
        if is_one(image) or not isinstance(image, Iterable):
            return self._predict([self.square(image)])[0]  # type: ignore[arg-type]  # which it says
        predictions = []
        for answer in self.stream(image, batch_size):  # type: ignore[arg-type]  # no bytes, which are one
            if isinstance(answer, ImageError):
                raise answer
            predictions.append(answer)
        return predictions

    def stream(self, images: Iterable[Source], batch_size: int = BATCH) -> Iterator[Prediction | ImageError]:
        """Classify pictures batch by batch, from an iterable that may be endless; a bad picture yields its ImageError.

        Args:
            images: as for a prediction.
            batch_size: how many run together, while those after are decoded; 1 gives the answer for a picture before
                it asks for the next, as a camera needs it.

        Raises:
            InputError: `batch_size` is no whole number from 1 on, or `images` is a single picture; or, later, as `run`.
        """
        if is_one(images):
            single = "put a single one into a list, and give iter(source) of what can be read like a file, too"
            raise InputError(f"a stream takes several pictures: {single}")
        if not (isinstance(batch_size, SupportsIndex) and batch_size >= 1):
            raise InputError(f"batch_size is {batch_size!r}: it must be a whole number, and at least 1")
        return self._answers(images, batch_size)

    def _answers(self, images: Iterable[Source], batch_size: int) -> Iterator[Prediction | ImageError]:
        for pictures in batches_ahead(self._tried, map(self._taken, images), usable_cpus(), batch_size):
            predictions = iter(self._predict([each for each in pictures if not isinstance(each, ImageError)]))
            for picture in pictures:
                yield picture if isinstance(picture, ImageError) else next(predictions)

    def square(self, image: Source, limit: int = images.MAX_PIXELS) -> Pixels:
        """What the net sees of a picture: uint8 `(S, S, 3)`, where `S` is `contract.size`.

        The graph would make the same pixels of a picture of another size, but more slowly, and run only pictures of one
        size together. An array of this size is its own square.

        Args:
            image: as for a prediction.
            limit: pixels that it may have, but for an array.

        Raises:
            ImageError: it cannot be decoded.
        """
        return resizing.resize(images.decode(image, limit), self.contract.size, self.contract.resize)

    def _tried(self, source: Source | ImageError) -> Pixels | ImageError:
        """What the net sees of a picture, or why it cannot be decoded."""
        try:
            return source if isinstance(source, ImageError) else self.square(source)
        except ImageError as error:
            return error

    def _taken(self, source: Source) -> Source | ImageError:
        """A picture that stays as it is, even if the caller reuses its array, image or file for the next one."""
        return self._tried(source) if isinstance(source, Image.Image) else kept(source)

    def _predict(self, squares: Sequence[Pixels]) -> list[Prediction]:
        return self.predictions(*self.run(np.stack(squares))[1:]) if squares else []

    def predictions(self, probabilities: Scores, familiarity: Scores) -> list[Prediction]:
        """What outputs of `run` say: probabilities `(B, K)` and familiarity `(B,)`."""
        order = np.argsort(-probabilities, axis=1, kind="stable")
        inside, unknown = self.contract.sets.of(probabilities), self.contract.unknown.of(familiarity)
        return [
            Prediction(
                label=self.classes[ranked[0]],
                probability=float(p[ranked[0]]),
                classes=self.classes,
                probabilities=tuple(p.tolist()),
                labels=tuple(self.classes[k] for k in ranked[members[ranked]]),
                unknown=bool(odd),
                familiarity=float(score),
            )
            for p, ranked, members, odd, score in zip(probabilities, order, inside, unknown, familiarity, strict=True)
        ]

    def run(self, batch: Pixels) -> tuple[Scores, Scores, Scores]:
        """Logits and probabilities `(B, K)` and familiarity `(B,)`, float32, of pictures of one size.

        Args:
            batch: uint8 `(B, H, W, 3)`. What is no square of `contract.size` the graph makes one, in a session of its
                own, which takes as much memory again.

        Raises:
            InputError: onnxruntime cannot run the file on it.
            ContractError: it gives outputs of other shapes, or the file has changed when that session is made.
        """
        logits, probabilities, familiarity = self._run(_OUTPUTS, batch)
        return logits, probabilities, familiarity

    def _run(self, outputs: Sequence[str], batch: Pixels) -> Any:
        square = np.shape(batch)[1:3] == (self.contract.size, self.contract.size)
        found = run(self._session if square else self._resizing, self._name, outputs, {"image": batch})
        expected = len(batch), len(self.classes)
        for name, array in zip(outputs, found, strict=True):
            if array.ndim != _AXES[name] or array.shape[:2] != expected[: array.ndim]:
                raise ContractError(
                    f"{self._name}: its output {name} has the shape {array.shape} for {len(batch)} pictures and "
                    f"{len(self.classes)} classes"
                )
        return found

    @cached_property
    def _resizing(self) -> InferenceSession:
        """The session for pictures of any size."""
        model = self._model
        data, found = (model, self.contract) if isinstance(model, bytes) else contract.read(model)
        if found.digest != self.contract.digest:
            raise ContractError(f"{self._name}: another file has taken its place since it was loaded")
        return session(data, self._name, *self._options)

    @property
    def has_maps(self) -> bool:
        """Whether the file gives class activation maps."""
        return any(output.name == "cam" for output in self._session.get_outputs())

    def maps(self, pixels: Pixels) -> Scores:
        """Class activation maps `(K, h, w)` of a square `(S, S, 3)`; raises InputError where the file gives none."""
        maps: Scores = self._run(["cam"], pixels[None])[0][0]
        return maps

    def explain(self, image: Source, label: str | None = None) -> Scores:
        """What in a picture supports a class: `(S, S)` from 0 to 1, on the square that the net sees.

        It is the class activation map where the file has the output `cam`, and found by occlusion where it has not.

        Args:
            image: as for a prediction.
            label: the class; by default the predicted one.

        Raises:
            ImageError: the picture cannot be decoded.
            InputError: the model knows no such class, or cannot be run.
        """
        from cifar_onnx.explain import explained

        return explained(self, self.square(image), label)

    def verify(self) -> list[Replay]:
        """Replay the golden samples, from their encoded bytes, on this machine; raises as `run`."""
        return [replay(self.contract, self.run, golden) for golden in self.contract.golden]
