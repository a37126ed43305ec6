"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 60,000 photos of 32x32 pixels each, in ten and in a hundred classes."""

import errno
import http.client
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cifar_lightning.data.base import ImageData
from cifar_lightning.data.images import Images, Part
from cifar_lightning.data.lock import alone
from cifar_onnx import InputError
from cifar_onnx.errors import check_choice
from cifar_onnx.folders import expanded, try_writing
from cifar_onnx.progress import track

Labels = Literal["fine", "coarse"]  # of CIFAR-100

_CHUNK = 1 << 20  # bytes
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # on the disk
_SUPERCLASSES = {  # https://www.cs.toronto.edu/~kriz/cifar.html; both kinds of labels are numbered by the alphabet
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}


class CIFAR10(ImageData):
    """CIFAR-10 as published (https://www.cs.toronto.edu/~kriz/cifar.html), read and checked by torchvision.

    Args:
        root: folder that holds, or will hold, `cifar-10-python.tar.gz` and what is inside it; by default `data`.
        url: where to download it from; by default the publisher's address. A mirror's file must have the same checksum.
    """

    _title = "CIFAR-10"

    def __init__(self, root: str | None = None, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = expanded(root or "data", "data.root")
        self.url = url

    @property
    def classes(self) -> list[str]:
        return ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

    @property
    def given(self) -> frozenset[Part]:
        return frozenset({"train", "test"})

    @property
    def _published(self) -> Any:
        """The class of torchvision, which knows names and checksums of the files."""
        from torchvision import datasets

        return datasets.CIFAR10

    def load(self, part: Part) -> Images:
        files = self._read(part) or self._prepared(part)
        names = [str(index) for index in range(len(files.data))]
        return Images(np.ascontiguousarray(files.data), np.array(files.targets, np.int64), names)

    def _read(self, part: Part) -> Any:
        """What torchvision reads; None where a file is not there, or not whole."""
        try:
            return self._published(str(self.root), train=part == "train")
        except RuntimeError:
            return None

    def _prepared(self, part: Part) -> Any:
        """What torchvision reads, once the archive is extracted, or downloaded first."""
        photos = self.root.glob("*/*.[jJ][pP]*[gG]")
        if not (self.root / self._published.filename).exists() and len({path.parent for path in photos}) > 1:
            raise InputError(
                f"{self.root} holds folders of photos and no {self._title}: use --data ImageFolder "
                f"--data.root {self.root}, or name another --data.root"
            )
        with alone(self.root / f"{self._hidden}.lock", f"{self._title} in {self.root}", "data.root"):
            if not (files := self._read(part)):
                self._unpack()
                files = self._published(str(self.root), train=part == "train")
        return files

    @property
    def _hidden(self) -> str:
        """What names begin with of files that are not for people."""
        return f".{self._title.lower()}"

    def _unpack(self) -> None:
        from torchvision.datasets.utils import calculate_md5

        known = self._published
        folder, archive = self.root / known.base_folder, self.root / known.filename
        url = self.url or known.url
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            try_writing(self.root)
            for left in self.root.glob(f"{self._hidden}-*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=self.root, prefix=f"{self._hidden}-") as temporary:
                if not archive.exists():
                    fetched = Path(temporary) / archive.name
                    self._download(url, fetched, known.tgz_md5)
                    fetched.replace(archive)
                elif (md5 := calculate_md5(archive)) != known.tgz_md5:
                    raise InputError(
                        f"{archive} is not {self._title}'s file, or is damaged: its md5 is {md5}, not {known.tgz_md5}; "
                        "delete it to download it again"
                    )
                with tarfile.open(archive) as tar:
                    # Python 3.11.0 to 3.11.3 have no filters yet; what is unpacked has the known checksum.
                    tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
                    tar.extractall(temporary)  # noqa: S202
                shutil.rmtree(folder, ignore_errors=True)
                (Path(temporary) / known.base_folder).replace(folder)
        except OSError as error:
            raise InputError(
                f"{self._title} cannot be unpacked into {self.root} ({error}): name another --data.root"
            ) from None

    def _download(self, url: str, target: Path, md5: str) -> None:
        from torchvision.datasets.utils import calculate_md5

        try:
            with urllib.request.urlopen(url, timeout=30) as response, target.open("wb") as file:
                length = int(response.headers.get("Content-Length", 0))
                chunks = iter(lambda: response.read(_CHUNK), b"")
                for chunk in track(chunks, f"downloading {self._title} (MB) from {url}", -(-length // _CHUNK)):
                    file.write(chunk)
            if length and target.stat().st_size < length:
                raise OSError(f"the connection ended after {target.stat().st_size:,} of {length:,} bytes")
            if (found := calculate_md5(target)) != md5:
                raise OSError(f"the download has md5 {found}, not {md5}")
        except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it holds the connection
            reason = str(error).removeprefix("<urlopen error ").removesuffix(">")
            raise InputError(
                f"{self._title} is not in {self.root} and could not be downloaded from {url} ({reason}): put "
                f"{target.name} into {self.root}, name a mirror with --data.url, "
                "or train on handwritten digits, which need no network, with --data Digits"
            ) from None


class CIFAR100(CIFAR10):
    """CIFAR-100, published with CIFAR-10 and read and checked as it is.

    Args:
        labels: `fine` for the 100 classes, `coarse` for the 20 superclasses that each hold five of them.
        root: folder that holds, or will hold, `cifar-100-python.tar.gz` and what is inside it; by default `data`.
        url: as CIFAR10's.
    """

    _title = "CIFAR-100"

    def __init__(self, labels: Labels = "fine", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_choice("data.labels", labels, Labels)
        self.labels = labels

    @property
    def classes(self) -> list[str]:
        return sorted(_SUPERCLASSES) if self.labels == "coarse" else sorted(" ".join(_SUPERCLASSES.values()).split())

    @property
    def _published(self) -> Any:
        from torchvision import datasets

        return datasets.CIFAR100

    def load(self, part: Part) -> Images:
        images = super().load(part)
        if self.labels == "fine":
            return images
        above = {fine: place for place, name in enumerate(self.classes) for fine in _SUPERCLASSES[name].split()}
        places = np.array([above[fine] for fine in sorted(above)], np.int64)
        return replace(images, labels=places[images.labels])
