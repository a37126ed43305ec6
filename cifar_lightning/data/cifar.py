"""CIFAR-10 (Krizhevsky 2009): 60,000 photos of 32x32 pixels in ten classes."""

import http.client
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from cifar_lightning.data.base import ImageData
from cifar_lightning.data.images import Images, Part
from cifar_lightning.data.lock import alone
from cifar_onnx import InputError
from cifar_onnx.progress import track

_CHUNK = 1 << 20  # bytes


class CIFAR10(ImageData):
    """CIFAR-10 as published (https://www.cs.toronto.edu/~kriz/cifar.html), read and checked by torchvision.

    Args:
        root: folder that holds, or will hold, `cifar-10-python.tar.gz` and what is inside it; by default `data`.
        url: where to download it from; by default the publisher's address. A mirror's file must have the same checksum.
    """

    def __init__(self, root: str | None = None, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root or "data")
        self.url = url

    @property
    def classes(self) -> list[str]:
        return ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

    @property
    def given(self) -> frozenset[Part]:
        return frozenset({"train", "test"})

    def load(self, part: Part) -> Images:
        self._prepare()
        from torchvision import datasets

        files = datasets.CIFAR10(str(self.root), train=part == "train")
        names = [str(index) for index in range(len(files.data))]
        return Images(np.ascontiguousarray(files.data), np.array(files.targets, np.int64), names)

    def _prepare(self) -> None:
        """Make sure that the files are there and whole: extract the archive, or download it first."""
        if self._whole():
            return
        with alone(self.root / ".cifar-10.lock", f"CIFAR-10 in {self.root}"):
            if not self._whole():
                self._unpack()

    def _whole(self) -> bool:
        from torchvision import datasets
        from torchvision.datasets.utils import check_integrity

        known = datasets.CIFAR10
        parts = [*known.train_list, *known.test_list, [known.meta["filename"], known.meta["md5"]]]
        return all(check_integrity(self.root / known.base_folder / name, md5) for name, md5 in parts)

    def _unpack(self) -> None:
        from torchvision import datasets
        from torchvision.datasets.utils import calculate_md5

        known = datasets.CIFAR10
        folder, archive = self.root / known.base_folder, self.root / known.filename
        url = self.url or known.url
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for left in self.root.glob(".cifar-10-*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=self.root, prefix=".cifar-10-") as temporary:
                if not archive.exists():
                    fetched = Path(temporary) / archive.name
                    self._download(url, fetched, known.tgz_md5)
                    fetched.replace(archive)
                elif (md5 := calculate_md5(archive)) != known.tgz_md5:
                    raise InputError(
                        f"{archive} is not CIFAR-10's file, or is damaged: its md5 is {md5}, not {known.tgz_md5}; "
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
                f"CIFAR-10 cannot be unpacked into {self.root} ({error}): name another --data.root"
            ) from None

    def _download(self, url: str, target: Path, md5: str) -> None:
        from torchvision.datasets.utils import calculate_md5

        try:
            with urllib.request.urlopen(url, timeout=30) as response, target.open("wb") as file:
                length = int(response.headers.get("Content-Length", 0))
                chunks = iter(lambda: response.read(_CHUNK), b"")
                for chunk in track(chunks, f"downloading CIFAR-10 (MB) from {url}", -(-length // _CHUNK)):
                    file.write(chunk)
            if length and target.stat().st_size < length:
                raise OSError(f"the connection ended after {target.stat().st_size:,} of {length:,} bytes")
            if (found := calculate_md5(target)) != md5:
                raise OSError(f"what came has md5 {found}, not {md5}")
        except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it holds the connection
            reason = str(error).removeprefix("<urlopen error ").removesuffix(">")
            raise InputError(
                f"CIFAR-10 is not in {self.root} and could not be downloaded from {url} ({reason}): put "
                f"{target.name} into {self.root}, name a mirror with --data.url, "
                "or train on the digits offline with --config configs/quickstart.yaml"
            ) from None
