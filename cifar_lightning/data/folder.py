"""Photos in folders, one folder a class or with a list of labels, decoded once into memory and into a cache."""

import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray

from cifar_lightning.data.base import ImageData
from cifar_lightning.data.catalogue import Catalogue, Folders
from cifar_lightning.data.images import Images, Part
from cifar_lightning.data.listing import Listing
from cifar_lightning.data.lock import alone
from cifar_onnx import ImageError, InputError
from cifar_onnx.evaluation.outcome import Unreadable
from cifar_onnx.images import Pixels, ResizeMode, decode, fingerprint, resize
from cifar_onnx.progress import track

_VERSION = 3  # of how pictures become pixels: a change makes old caches stale
Texts = NDArray[np.str_]


class ImageFolder(ImageData):
    """Photos as `root/train/<class>/*`, with `root/val/` and `root/test/` where present, or as `root/<class>/*`.

    Or anywhere, with a CSV file that labels them: `path,label`, and maybe `split` (train, val or test).
    Any size, shape and mode; a file that cannot be read is named with its reason and left out.

    Args:
        root: the folder; by default, where there are `labels`, that of their file.
        labels: the CSV file, in place of folders for classes and parts; its paths are relative to `root`, where it may
            be itself.
        image_size: side in pixels of the squares that the net sees.
        resize_mode: how a photo becomes a square: `stretch` its sides, `crop` the middle, or `pad` it with grey.
        classes: names in the order of the outputs; by default those of the folders or labels, sorted.
        cache_dir: where decoded images are kept; by default `~/.cache/cifar-lightning`.
    """

    def __init__(
        self,
        root: str | None = None,
        labels: str | None = None,
        image_size: int = 32,
        resize_mode: ResizeMode = "stretch",
        classes: list[str] | None = None,
        cache_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if root is None and labels is None:
            raise InputError("data.root is missing: name the folder that holds a folder of pictures for each class")
        self.root = Path(labels).parent if root is None and labels else Path(str(root))
        if not self.root.is_dir():
            raise InputError(
                f"data.root {root!r} is not a folder: name one that holds a folder of pictures for each class"
            )
        self.catalogue = self._catalogue(labels)
        if not 1 <= image_size <= 1024:
            raise InputError(f"data.image_size is {image_size}: it must lie between 1 and 1024 pixels")
        self.image_size = image_size
        self.resize_mode = resize_mode
        self.cache_dir = Path(cache_dir or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "cifar-lightning"))
        self._classes = classes or self.catalogue.labels
        self.hparams["classes"] = self._classes
        if len(self._classes) < 2:
            raise InputError(
                f"{self.catalogue} holds {len(self._classes)} classes, at least two are needed: "
                "put the photos of each class into a folder with its name, or list them with --data.labels"
            )
        self._fingerprints: dict[str, str] = {}

    @property
    def classes(self) -> list[str]:
        return self._classes

    @property
    def given(self) -> frozenset[Part]:
        return self.catalogue.parts(self._classes)

    def _catalogue(self, labels: str | None) -> Catalogue:
        if not labels:
            return Folders(self.root)
        inside = self.root / labels
        return Listing(inside if inside.is_file() and not Path(labels).is_file() else Path(labels), self.root)

    def folder(self, part: Part) -> Path:
        return self.catalogue.folder(part)

    def load(self, part: Part) -> Images:
        pairs, folder = self._pairs(part), self.folder(part)
        if not pairs:
            raise InputError(f"{self.catalogue} holds no pictures for {part}")
        paths = [path for path, _ in pairs]
        known = self._decoded(folder, paths)
        for path, error in zip(paths, known.errors, strict=True):
            if error:
                print(f"left out: {path}: {error}", file=sys.stderr)
        kept = np.flatnonzero(known.errors == "")
        if not len(kept):
            raise InputError(f"{folder}: none of the {len(paths)} files can be read as a picture")
        names = [str(paths[i]) for i in kept]
        self._fingerprints |= dict(zip(names, known.fingerprints[kept].tolist(), strict=True))
        labels = np.array([label for _, label in pairs], np.int64)
        unreadable = (
            Unreadable(str(path), label, str(error))
            for (path, label), error in zip(pairs, known.errors, strict=True)
            if error
        )
        return Images(known.pixels[kept], labels[kept], names, known.areas[kept], tuple(unreadable))

    def original(self, part: Part, index: int) -> tuple[bytes, str]:
        name = self.images(part).names[index]
        return Path(name).read_bytes(), self._fingerprints[name]

    def _pairs(self, part: Part) -> list[tuple[Path, int]]:
        """The files of a part with their labels."""
        pairs = self.catalogue.pairs(part, self._classes)
        if part == "train":
            present = {label for _, label in pairs}
            for label, name in enumerate(self._classes):
                if label not in present:
                    raise InputError(f"{self.catalogue}: no pictures of class {name!r} to train on")
        return pairs

    def _decoded(self, folder: Path, paths: Sequence[Path]) -> "_Decoded":
        """What the files hold, from the cache if it knows them."""
        stats = [(os.path.relpath(path, folder), path.stat()) for path in paths]
        lines = [f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}" for path, stat in stats]
        settings = (_VERSION, PIL.__version__, self.image_size, self.resize_mode, folder.resolve())
        key = "\n".join([*map(str, settings), *lines])
        cache = self.cache_dir.expanduser() / f"{hashlib.sha256(os.fsencode(key)).hexdigest()}.npz"
        if kept := _kept(cache):
            return kept
        with alone(cache.with_name(".lock"), str(folder)):
            return _kept(cache) or self._decode(folder, paths, cache)

    def _decode(self, folder: Path, paths: Sequence[Path], cache: Path) -> "_Decoded":
        size, mode = self.image_size, self.resize_mode

        def read(path: Path) -> tuple[Pixels, int, str, str]:
            try:
                picture = decode(path)
            except ImageError as error:
                return np.zeros((size, size, 3), np.uint8), 0, "", str(error).removeprefix(f"{path}: ")
            return resize(picture, size, mode), picture.shape[0] * picture.shape[1], fingerprint(picture), ""

        with ThreadPoolExecutor() as pool:
            rows = list(track(pool.map(read, paths), f"decoding {folder}", len(paths)))
        decoded = _Decoded(*map(np.array, zip(*rows, strict=True)))
        _save(cache, decoded)
        return decoded


class _Decoded(NamedTuple):
    """Files as pictures `(N, S, S, 3)`, their areas before that, fingerprints, and errors, empty where none is."""

    pixels: Pixels
    areas: NDArray[np.int64]
    fingerprints: Texts
    errors: Texts


def _kept(cache: Path) -> _Decoded | None:
    """What the cache holds, if it is whole."""
    if not cache.exists():
        return None
    try:
        with cache.open("rb") as file, np.load(file) as arrays:
            return _Decoded(*(arrays[name] for name in _Decoded._fields))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        print(f"{cache} is damaged ({error}): decoding the pictures again", file=sys.stderr)
        return None


def _save(cache: Path, decoded: _Decoded) -> None:
    """Write the cache, or say why not: training does not need it."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        for left in cache.parent.glob(".decoding-*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=cache.parent, prefix=".decoding-") as temporary:
            new = Path(temporary) / cache.name
            np.savez(new, **decoded._asdict())
            new.replace(cache)
    except OSError as error:
        print(f"decoded images are not kept for the next run: {error} (see --data.cache_dir)", file=sys.stderr)
