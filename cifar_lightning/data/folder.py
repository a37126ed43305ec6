"""Photos in folders, one folder a class or with a list of labels, decoded once into a cache."""

import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
import torch

from cifar_lightning.data import copies
from cifar_lightning.data.base import ImageData
from cifar_lightning.data.catalogue import Catalogue, Folders
from cifar_lightning.data.images import Images, Part, Rows
from cifar_lightning.data.listing import Listing
from cifar_lightning.data.lock import alone
from cifar_lightning.data.memory import free
from cifar_lightning.data.store import Decoded, Picture, Store, digest, file_keys
from cifar_onnx.ahead import ahead, chunk_size
from cifar_onnx.cpus import usable_cpus
from cifar_onnx.errors import ImageError, InputError, ReadError, check_choice
from cifar_onnx.folders import expanded
from cifar_onnx.images import decode, fingerprint
from cifar_onnx.progress import track
from cifar_onnx.resizing import ResizeMode, resize
from cifar_onnx.shell import say

_TOLD = 5  # unreadable files that are named
_VERSION = 4  # of how pictures become pixels: a change makes old caches stale


class ImageFolder(ImageData):
    """Photos as `root/train/<class>/*`, with such a `root/val/` and `root/test/` where present, or as `root/<class>/*`.

    Or anywhere, with a CSV file that labels them: `path,label`, and maybe `split` (train, val or test).
    Any size, shape and mode; a file that cannot be read is named with its reason and skipped.

    Args:
        root: the folder; by default, where there are `labels`, that of their file.
        labels: the CSV file, in place of folders for classes and parts; its paths are relative to `root`, where it may
            be itself.
        image_size: side in pixels of the squares that the net sees.
        resize_mode: how a photo becomes a square: `stretch` its sides, `crop` the middle, or `pad` it with grey.
        classes: names in the order of the outputs; by default those of the folders or labels, sorted.
        cache_dir: where decoded images are kept, `3 image_size^2` bytes each; by default `~/.cache/cifar-lightning`.
        memory: GB of images that are held in memory at most; more are streamed from the cache. By default a quarter of
            what is free, on the machine and on its GPU: with the copy of them in an epoch's order they take half.
    """

    def __init__(
        self,
        root: str | None = None,
        labels: str | None = None,
        image_size: int = 32,
        resize_mode: ResizeMode = "stretch",
        classes: list[str] | None = None,
        cache_dir: str | None = None,
        memory: float | Literal["auto"] = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if root is None and labels is None:
            raise InputError("data.root is missing: name the folder that holds a folder of pictures for each class")
        self.root, listed = _places(root, labels)
        if not self.root.is_dir():
            raise InputError(f"data.root {root!r} is not a folder: name one with a folder of pictures for each class")
        self.catalogue = Listing(listed, self.root) if labels else self._folders()
        if not 1 <= image_size <= 1024:
            raise InputError(f"data.image_size is {image_size}: it must lie between 1 and 1024 pixels")
        check_choice("data.resize_mode", resize_mode, ResizeMode)
        if memory != "auto" and memory < 0:
            raise InputError(f"data.memory is {memory}: it must be a number of GB, or auto")
        self.image_size = image_size
        self.resize_mode = resize_mode
        usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "cifar-lightning")
        self.cache_dir = expanded(cache_dir or usual, "data.cache_dir")
        self.memory = memory
        self._classes = classes or self.catalogue.labels
        self.hparams["classes"] = self._classes
        if len(self._classes) < 2:
            folders = "put the photos of each class into a folder with its name, or list them with --data.labels"
            rows = "list photos of each, with train as their split where there is that column"
            raise InputError(
                f"{self.catalogue} holds {'one class' if self._classes else 'no classes'} to train on, at least two "
                f"are needed: {rows if labels else folders}"
            )
        for name in self._classes:
            if name.encode(errors="replace").decode() != name:
                raise InputError(f"{self.catalogue}: the class {name!r} has no name in UTF-8: rename its folder")

    @property
    def classes(self) -> list[str]:
        return self._classes

    @property
    def given(self) -> frozenset[Part]:
        parts = self.catalogue.parts(self._classes)
        return parts | {"predict"} if self.elsewhere and "test" not in parts else parts

    def _folders(self) -> Catalogue:
        return Folders(self.root)

    @property
    def title(self) -> str:
        """What to call them: that of the listing or, without one, of the folder."""
        labels = self.hparams.get("labels")
        return Path(labels).stem if labels else self.root.resolve().name

    def differs(self, settings: Mapping[str, Any]) -> bool:
        """Whether these are other pictures than those of the data whose settings a checkpoint holds."""
        own, others = (
            [path.resolve() for path in _places(each.get("root"), each.get("labels"))]
            for each in (self.hparams, settings)
        )
        kind = str(settings["_class_path"]).rpartition(".")[2]
        return kind != type(self).__name__ or own != others

    def folder(self, part: Part) -> Path:
        return self.catalogue.folder(part)

    def load(self, part: Part) -> Images:
        pairs, folder = self._pairs(part), self.folder(part)
        if not pairs:
            raise InputError(f"{self.catalogue} holds no pictures for {part}")
        paths = [path for path, _ in pairs]
        known = self._decoded(folder, paths)
        for place, error in islice(known.errors.items(), _TOLD):
            say(f"skipped: {paths[place]}: {error}", sys.stderr)
        if len(known.errors) > _TOLD:
            print(f"skipped: {len(known.errors) - _TOLD} more files of {folder}", file=sys.stderr)
        images = known.images(pairs)
        if not len(images):
            raise InputError(f"{folder}: none of the {len(paths)} files can be read as a picture")
        if part == "train":
            for label in {label for _, label in pairs} - {*images.labels.tolist()}:
                name = self._classes[label]
                raise InputError(f"{self.catalogue}: none of the files of class {name!r} can be read as a picture")
        return images

    def setup(self, stage: str) -> None:
        super().setup(stage)
        assert self.trainer is not None
        if not self.trainer.is_global_zero:
            return
        if stage == "fit":
            copies.tell(self.images("train"), self.classes, self.images("val"), "val")
        elif stage == "test" and not self.elsewhere:  # a slice has no copies in the rest, but maybe in other classes
            trained = self._cached("train") if "test" in self.given else self.images("train")
            if trained:
                copies.tell(trained, self.classes, self.images("test"), "test")

    def streamed(self, parts: Iterable[Part], device: torch.device) -> bool:
        assert self.trainer is not None
        size = sum(math.prod(self.images(part).pixels.shape) for part in parts) / 1e9
        most = free(device, self.trainer.num_devices) / 4e9 if self.memory == "auto" else self.memory
        if size > most and self.trainer.is_global_zero:
            more = f"{size:.3g} GB of images are more than data.memory, {most:.3g} GB"
            print(f"{more}: each batch is read when it is needed", file=sys.stderr)
        return size > most

    def original(self, part: Part, index: int) -> tuple[Path | bytes, str]:
        images = self.images(part)
        assert images.fingerprints is not None
        return Path(images.names[index]), images.fingerprints[index].decode()

    def _pairs(self, part: Part) -> list[tuple[Path, int]]:
        """The files of a part with their labels."""
        pairs = self.catalogue.pairs(part, self._classes)
        if part == "train":
            present = {label for _, label in pairs}
            for label, name in enumerate(self._classes):
                if label not in present:
                    more = ": python -m cifar_onnx evaluate judges photos of some classes" if self.elsewhere else ""
                    raise InputError(f"{self.catalogue}: no pictures of class {name!r} to train on{more}")
        return pairs

    def _cached(self, part: Part) -> Images | None:
        """A part, as long as its files and the cache can be read, and none has to be decoded for it."""
        try:
            pairs = self.catalogue.pairs(part, self._classes)
            found = self._store(self.folder(part)).find(file_keys(self.folder(part), [path for path, _ in pairs]))
        except (InputError, OSError):
            return None
        return found.images(pairs) if found else None

    def _store(self, folder: Path) -> Store:
        settings = (_VERSION, PIL.__version__, self.image_size, self.resize_mode, folder.resolve())
        return Store(self.cache_dir / digest("\n".join(map(str, settings))), self.image_size)

    def _decoded(self, folder: Path, paths: Sequence[Path]) -> Decoded:
        """What the files hold, from the cache as far as it knows them."""
        store, keys = self._store(folder), file_keys(folder, paths)
        try:
            if found := store.find(keys):
                return found
            with alone(store.folder.with_suffix(".lock"), str(folder), "data.cache_dir"):
                new, unread = store.lacks(keys), dict[str, str]()
                if new:
                    unread = store.add([keys[i] for i in new], self._pictures(folder, [paths[i] for i in new]))
                if found := store.find(keys, unread):
                    return found
        except OSError as error:
            print(f"decoded images are not kept for the next run: {error} (see --data.cache_dir)", file=sys.stderr)
        return self._in_memory(folder, paths)

    def _pictures(self, folder: Path, paths: Sequence[Path]) -> Iterator[Picture]:
        size, mode = self.image_size, self.resize_mode

        def read(path: Path) -> Picture:
            try:
                picture = decode(path)
            except ImageError as error:
                unread = isinstance(error, ReadError)
                return Picture(np.zeros((size, size, 3), np.uint8), 0, "", error.reason, unread)
            return Picture(resize(picture, size, mode), picture.shape[0] * picture.shape[1], fingerprint(picture), "")

        threads = usable_cpus()
        chunk = chunk_size(len(paths), threads)
        pictures = ahead(read, paths, threads, 2 * threads * chunk, chunk)
        return track(pictures, f"decoding {folder}", len(paths))

    def _in_memory(self, folder: Path, paths: Sequence[Path]) -> Decoded:
        size = self.image_size
        if len(paths) * size * size * 3 > free(torch.device("cpu")) / 2:
            raise InputError(
                f"{len(paths):,} images of {size} x {size} pixels do not fit into memory, and {self.cache_dir} "
                "cannot be used: name a folder with room for them by --data.cache_dir"
            )
        pixels = np.empty((len(paths), size, size, 3), np.uint8)
        facts = []
        for place, picture in enumerate(self._pictures(folder, paths)):
            pixels[place] = picture.pixels
            facts.append((picture.area, picture.fingerprint, picture.error))
        areas, fingerprints, errors = zip(*facts, strict=True)
        wrong = {place: error for place, error in enumerate(errors) if error}
        return Decoded(Rows(pixels, np.arange(len(paths))), np.array(areas), np.array(fingerprints, "S32"), wrong)


def _places(root: str | None, labels: str | None) -> tuple[Path, Path]:
    """The folder of the pictures, and the file that lists them; where there is none, the folder again."""
    listed = expanded(labels or "", "data.labels")
    folder = listed.parent if root is None else expanded(root, "data.root")
    if not labels:
        return folder, folder
    inside = folder / listed
    return folder, inside if inside.is_file() and not listed.is_file() else listed
