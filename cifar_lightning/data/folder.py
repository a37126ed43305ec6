"""Photos in folders, one folder a class, decoded once into memory and into a cache."""

import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from cifar_lightning.data.base import ImageData, Images, Part
from cifar_lightning.data.lock import alone
from cifar_lightning.progress import track
from cifar_onnx import ImageError, InputError
from cifar_onnx.images import Pixels, ResizeMode, decode, fingerprint, resize

_VERSION = 1  # of how pictures become pixels: a change makes old caches stale
Texts = NDArray[np.str_]
_JUNK = frozenset({"thumbs.db", "desktop.ini"})


class ImageFolder(ImageData):
    """Photos as `root/train/<class>/*`, with `root/val/` and `root/test/` where present, or as `root/<class>/*`.

    Any size, shape and mode; a file that cannot be read is named with its reason and left out.

    Args:
        root: the folder.
        image_size: side in pixels of the squares that the net sees.
        resize_mode: how a photo becomes a square: `stretch` its sides, `crop` the middle, or `pad` it with grey.
        classes: names in the order of the outputs; by default the folders' names, sorted.
        cache_dir: where decoded images are kept; by default `~/.cache/cifar-lightning`.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 32,
        resize_mode: ResizeMode = "stretch",
        classes: list[str] | None = None,
        cache_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = Path(root)
        if not self.root.is_dir():
            raise InputError(
                f"data.root {root!r} is not a folder: name one that holds a folder of pictures for each class"
            )
        if not 1 <= image_size <= 1024:
            raise InputError(f"data.image_size is {image_size}: it must lie between 1 and 1024 pixels")
        self.image_size = image_size
        self.resize_mode = resize_mode
        self.cache_dir = Path(cache_dir or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "cifar-lightning"))
        self._classes = classes or _subfolders(self._training_folder())
        self.hparams["classes"] = self._classes
        if len(self._classes) < 2:
            raise InputError(
                f"{self._folder('train')} holds {len(self._classes)} class folders, at least two are needed: "
                "put the photos of each class into a folder with its name"
            )
        self._fingerprints: dict[str, str] = {}

    @property
    def classes(self) -> list[str]:
        return self._classes

    @property
    def given(self) -> frozenset[Part]:
        parts: set[Part] = {"train", *(part for part in ("val", "test") if (self.root / part).is_dir())}
        if "test" not in parts and _subfolders(self._folder("train")) != self._classes:
            parts.add("predict")  # no training set: a folder of pictures to predict, all of them
        return frozenset(parts)

    def _folder(self, part: Part) -> Path:
        return self.root / part if (self.root / part).is_dir() else self.root

    def _training_folder(self) -> Path:
        for part in ("val", "test"):
            if (self.root / part).is_dir() and not (self.root / "train").is_dir():
                raise InputError(f"{self.root} has {part}/ but no train/ beside it: there is nothing to train on")
        return self._folder("train")

    def load(self, part: Part) -> Images:
        folder = self._training_folder() if part == "train" else self._folder(part)
        files = [(path, -1) for path in _files(folder)] if part == "predict" else self._labelled(folder)
        if not files:
            raise InputError(f"{folder} holds no pictures")
        paths = [path for path, _ in files]
        pixels, fingerprints, errors = self._decoded(folder, paths)
        for error in filter(None, errors):
            print(f"left out: {error}", file=sys.stderr)
        kept = [i for i, error in enumerate(errors) if not error]
        if not kept:
            raise InputError(f"{folder}: none of the {len(paths)} files can be read as a picture")
        names = [str(paths[i]) for i in kept]
        self._fingerprints |= dict(zip(names, (str(fingerprints[i]) for i in kept), strict=True))
        return Images(pixels[kept], np.array([files[i][1] for i in kept], np.int64), names)

    def original(self, part: Part, index: int) -> tuple[bytes, str]:
        name = self.images(part).names[index]
        return Path(name).read_bytes(), self._fingerprints[name]

    def _labelled(self, folder: Path) -> list[tuple[Path, int]]:
        found = _subfolders(folder)
        if unknown := [name for name in found if name not in self._classes]:
            raise InputError(
                f"{folder / unknown[0]}: class {unknown[0]!r} is not one of the classes of train "
                f"({', '.join(self._classes)})"
            )
        files = [(path, self._classes.index(name)) for name in found for path in _files(folder / name)]
        if folder == self._folder("train"):
            present = {label for _, label in files}
            for label, name in enumerate(self._classes):
                if label not in present:
                    raise InputError(f"{folder / name}: no pictures of class {name!r} to train on")
        return files

    def _decoded(self, folder: Path, paths: Sequence[Path]) -> tuple[Pixels, Texts, Texts]:
        """Pixels `(N, S, S, 3)`, fingerprints and errors of the files, from the cache if it knows them."""
        stats = [(path.relative_to(folder), path.stat()) for path in paths]
        lines = [f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}" for path, stat in stats]
        settings = (_VERSION, PIL.__version__, self.image_size, self.resize_mode, folder.resolve())
        key = "\n".join([*map(str, settings), *lines])
        cache = self.cache_dir.expanduser() / f"{hashlib.sha256(os.fsencode(key)).hexdigest()}.npz"
        if kept := _kept(cache):
            return kept
        with alone(cache.with_name(".lock"), str(folder)):
            return _kept(cache) or self._decode(folder, paths, cache)

    def _decode(self, folder: Path, paths: Sequence[Path], cache: Path) -> tuple[Pixels, Texts, Texts]:
        size, mode = self.image_size, self.resize_mode

        def read(path: Path) -> tuple[Pixels, str, str]:
            try:
                picture = decode(path)
            except ImageError as error:
                return np.zeros((size, size, 3), np.uint8), "", str(error)
            return resize(picture, size, mode), fingerprint(picture), ""

        with ThreadPoolExecutor() as pool:
            rows = list(track(pool.map(read, paths), f"decoding {folder}", len(paths)))
        pixels = np.stack([row[0] for row in rows])
        fingerprints, errors = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
        _save(cache, pixels=pixels, fingerprints=fingerprints, errors=errors)
        return pixels, fingerprints, errors


def _kept(cache: Path) -> tuple[Pixels, Texts, Texts] | None:
    """What the cache holds, if it is whole."""
    if not cache.exists():
        return None
    try:
        with cache.open("rb") as file, np.load(file) as arrays:
            return arrays["pixels"], arrays["fingerprints"], arrays["errors"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        print(f"{cache} is damaged ({error}): decoding the pictures again", file=sys.stderr)
        return None


def _save(cache: Path, **arrays: Any) -> None:
    """Write the cache, or say why not: training does not need it."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        for left in cache.parent.glob(".decoding-*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=cache.parent, prefix=".decoding-") as temporary:
            new = Path(temporary) / cache.name
            np.savez(new, **arrays)
            new.replace(cache)
    except OSError as error:
        print(f"decoded images are not kept for the next run: {error} (see --data.cache_dir)", file=sys.stderr)


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _files(folder: Path) -> list[Path]:
    """Every file below a folder that may be meant as a picture, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name.lower() not in _JUNK and not _hidden(path.relative_to(folder))
    )
