"""The model that is served: loaded, and replaced while requests go on when its file is."""

import asyncio
import gc
import io
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from cifar_onnx import contract, images, probe
from cifar_onnx.classifier import Classifier
from cifar_onnx.cpus import usable_cpus
from cifar_onnx.errors import ContractError
from cifar_onnx.explain import scaled
from cifar_onnx.images import Pixels
from cifar_onnx.prediction import Prediction, Scores
from cifar_onnx.serving.batches import Batches
from cifar_onnx.serving.gate import RequestError
from cifar_onnx.serving.metrics import Metrics
from cifar_onnx.serving.room import Room
from cifar_onnx.session import Providers

TOGETHER = 10  # pictures of the largest size: a request's pictures have as many pixels at most
_DECODED = 8  # pictures by one thread before it gives them on,
_SECONDS = 0.05  # or after so long
_ROOM = 256_000_000  # bytes that the pictures of all requests may take between their files and their answers
_LOOK = 1.0  # seconds between two looks at the file
_LOG = logging.getLogger(__name__)  # which, unlike print, goes on where nobody reads any more
Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class Settings:
    """How a model is served.

    Attributes:
        batch: pictures that run together at most.
        pixels: of a picture at most.
        threads: of the net; None is one for each CPU.
        providers: as of `Classifier`.
    """

    batch: int
    pixels: int
    threads: int | None
    providers: Providers = None


@dataclass(frozen=True)
class Answer:
    """Of one picture: logits and probabilities `(K,)`, familiarity, and what they mean."""

    logits: Scores
    probabilities: Scores
    familiarity: float
    prediction: Prediction


class Served:
    """A loaded model: pictures are decoded in threads, and what the net sees of them runs together.

    Attributes:
        classifier: the model.
        data: its file, as it was tried.
        about: its contract but for the golden samples, in JSON's types.
        digest: of its file.
        limit: pixels of a picture at most.
        room: for pictures.
    """

    def __init__(self, path: Path, data: bytes, settings: Settings, metrics: Metrics) -> None:
        try:
            self.classifier = Classifier(data, providers=settings.providers, threads=settings.threads)
        except ContractError as error:  # of bytes, which have no name
            raise ContractError(f"{path}: {str(error).removeprefix('the model: ')}") from None
        self.data, found = data, self.classifier.contract
        self.digest = found.digest
        self.about: dict[str, Any] = {key: value for key, value in found.info.items() if key != "golden"}
        self.limit, self._metrics = settings.pixels, metrics
        # A picture's square, what is known of each class, and the tasks that wait for both.
        self.room = Room(max(1, _ROOM // (3 * found.size**2 + 64 * len(found.classes) + 4096)))
        self._decoding = Batches[bytes | Pixels, Pixels](self._squares, usable_cpus(), _DECODED)
        self._net = Batches[Pixels, Answer](self._answers, 1, settings.batch)
        self._mapping = ThreadPoolExecutor(1)

    async def admit(self, pictures: Sequence[bytes]) -> None:
        """Refuse the files of a request that would take too long, by what their headers say, before any is decoded.

        Raises:
            RequestError: they have more pixels than `TOGETHER` of the largest size.
        """
        if len(pictures) <= TOGETHER:
            return
        pixels = await asyncio.to_thread(lambda: sum(self._pixels(picture) for picture in pictures))
        if pixels > TOGETHER * self.limit:
            raise RequestError(
                413,
                f"the pictures have {pixels:,} pixels, and a request {TOGETHER * self.limit:,} at most: send fewer at "
                f"a time, or serve with a larger --max-pixels, of which this is {TOGETHER} times",
            )

    async def square(self, picture: bytes | Pixels) -> Pixels:
        """What the net sees of a picture's file, or of its pixels `(H, W, 3)`: uint8 `(S, S, 3)`; raises ImageError."""
        return await self._decoding.do(picture)

    async def answer(self, square: Pixels) -> Answer:
        """The answer to what the net sees of a picture."""
        return await self._net.do(square)

    async def map_of(self, square: Pixels, label: str) -> dict[str, Any] | None:
        """What supports a label, in JSON's types; None of a model that cannot tell."""
        if not self.classifier.has_maps:
            return None
        maps = await asyncio.get_running_loop().run_in_executor(self._mapping, self.classifier.maps, square)
        heat = scaled(maps[self.classifier.classes.index(label)])
        shares = [round(share, 4) for share in heat.ravel().tolist()]
        return {"height": heat.shape[0], "width": heat.shape[1], "values": shares}

    def _pixels(self, picture: bytes) -> int:
        """Pixels that will be decoded of a picture's file: none where there are more than the limit."""
        try:
            with images.opened(io.BytesIO(picture)) as image:
                pixels = image.width * image.height
        except Exception:  # which reason it is, the decoder says
            return 0
        return pixels if pixels <= self.limit else 0

    def _squares(self, pictures: Sequence[bytes | Pixels]) -> list[Pixels | Exception]:
        squares: list[Pixels | Exception] = []
        end = time.monotonic() + _SECONDS
        for picture in pictures:
            if squares and time.monotonic() > end:
                break
            try:
                squares.append(self.classifier.square(picture, self.limit))
            except Exception as error:  # the others may be other clients'
                squares.append(error)
        return squares

    def _answers(self, squares: Sequence[Pixels]) -> list[Answer]:
        self._metrics.batch.observe(len(squares))
        logits, probabilities, familiarity = self.classifier.run(np.stack(squares))
        predictions = self.classifier.predictions(probabilities, familiarity)
        rows = zip(logits, probabilities, map(float, familiarity), predictions, strict=True)
        return [Answer(*row) for row in rows]


class ModelFile:
    """A model file, and the model in it that is served now: a good one takes over, a broken one is left alone.

    Args:
        path: of the file.
        settings: how its models are served.
        metrics: where batches are counted, and which say what model is served.

    Raises:
        ContractError: the first model cannot be served.
    """

    def __init__(self, path: Path, settings: Settings, metrics: Metrics) -> None:
        self._path, self._settings, self._metrics = path, settings, metrics
        self.name = contract.title(path)
        self._stamp = self._look()
        self._serve(Served(path, self._tried(), settings, metrics))

    def _serve(self, found: Served) -> None:
        self.current = found
        self._metrics.model.info({"name": self.name, "digest": found.digest})

    async def watch(self) -> None:
        """Look at the file until cancelled."""
        replaced = False
        while True:
            await asyncio.sleep(_LOOK)
            if replaced:
                gc.collect()  # the old model and its threads, which refer to each other
                replaced = False
            stamp = self._look()
            if stamp is None or stamp == self._stamp:
                continue
            self._stamp = stamp
            try:
                found = await self._load()
            except Exception as error:  # whatever it is: the next file may be a better one
                _LOG.warning("%s; still serving %s", error, self.current.digest[:12])
                continue
            if found.digest != self.current.digest:
                self._serve(found)
                replaced = True
                _LOG.info("%s: now serving %s", self._path, found.digest[:12])

    async def _load(self) -> Served:
        """The model that is in the file now; the process may end meanwhile, and must not wait for the trial.

        It does wait for asyncio's threads: onnxruntime, cut off while it loads a model, would abort the process.
        """
        tried: Future[bytes] = Future()

        def attempt() -> None:
            tried.set_running_or_notify_cancel()
            try:
                tried.set_result(self._tried())
            except Exception as error:  # which is raised where it is waited for
                tried.set_exception(error)

        Thread(target=attempt, daemon=True).start()
        data = await asyncio.wrap_future(tried)
        return await asyncio.to_thread(Served, self._path, data, self._settings, self._metrics)

    def _tried(self) -> bytes:
        """What is in the file, once a process of its own has tried it."""
        data, _ = contract.read(self._path)
        probe.run(data, str(self._path))
        return data

    def _look(self) -> Stamp | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
