"""ImageNet (Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575), and what is laid out like it."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_lightning.data.catalogue import Catalogue
from cifar_lightning.data.folder import ImageFolder
from cifar_lightning.data.images import Part
from cifar_onnx import InputError, sheet
from cifar_onnx.folders import expanded, files, subfolders
from cifar_onnx.resizing import ResizeMode

_KAGGLE, _DEVKIT, _META = "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


class ImageNet(ImageFolder):
    """ImageNet's photos as `root/train/<wnid>/*` and `root/val/*`, which may have a folder for each wnid, too.

    `val` is the test set, since the labels of ImageNet's own are not public; validation is a slice of train. Classes
    are in the order of their wnids, as torchvision's are, and not by the ILSVRC2012_ID of the development kit.

    The labels of a flat `val` come from LOC_val_solution.csv (Kaggle's, with wnids) or, in the order of the files'
    names, from ILSVRC2012_validation_ground_truth.txt (the development kit's, with ILSVRC2012_IDs, and so with its
    meta.mat). The first of a class's names comes from LOC_synset_mapping.txt, imagenet_class_index.json, words.txt or
    meta.mat; without these it is the wnid, which also follows a name that two classes have.

    Args:
        root: the folder.
        lists: the folder with the lists of labels and names; by default `root`.
        image_size: as ImageFolder's.
        resize_mode: likewise.
    """

    def __init__(
        self,
        root: str | None = None,
        lists: str | None = None,
        image_size: int = 224,
        resize_mode: ResizeMode = "crop",
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, image_size=image_size, resize_mode=resize_mode, **kwargs)

    def _folders(self) -> Catalogue:
        lists = self.hparams["lists"]  # save_hyperparameters has kept it
        return Synsets(self.root, expanded(lists or self.root, "data.lists"))


class Synsets(Catalogue):
    """Pictures of ImageNet with their labels.

    Args:
        root: the folder that holds `train` and `val`.
        lists: the folder with names and labels.
    """

    def __init__(self, root: Path, lists: Path) -> None:
        super().__init__(root)
        if not lists.is_dir():
            raise InputError(f"data.lists {str(lists)!r} is not a folder: name that of the lists of labels and names")
        self.lists = lists

    @property
    def labels(self) -> list[str]:
        return list(self._names(subfolders(self._training_folder())).values())

    def parts(self, classes: Sequence[str]) -> frozenset[Part]:
        if self.folder("test").is_dir():
            return frozenset({"train", "test"})
        return frozenset({"train"} if self.folder("train").is_dir() else {"train", "predict"})

    def folder(self, part: Part) -> Path:
        return {"test": self.root / "val", "predict": self.root}.get(part, self.root / "train")

    def _training_folder(self) -> Path:
        if not (folder := self.folder("train")).is_dir():
            raise InputError(f"{self.root} has no train/, with a folder of pictures for each wnid")
        return folder

    def pairs(self, part: Part, classes: Sequence[str]) -> list[tuple[Path, int]]:
        folder = self._training_folder() if part == "train" else self.folder(part)
        if part == "predict":
            return [(path, -1) for path in files(folder)]
        known = [(path, wnid) for wnid in subfolders(folder) for path in files(folder / wnid)] or self._flat(folder)
        trained = self.folder("train")
        names = self._names(subfolders(trained) if trained.is_dir() else sorted({wnid for _, wnid in known}))
        places = {name: place for place, name in enumerate(classes)}
        # The net may know another class of that name, of which there is no picture.
        spelt = [(wnid, each) for wnid, name in names.items() for each in (f"{name} ({wnid})", name)]
        labels = {wnid: places[name] for wnid, name in spelt if name in places}
        for path, wnid in known:
            if wnid not in labels:
                raise InputError(f"{path}: {names.get(wnid, wnid)!r} is not one of the {len(classes)} classes")
        return [(path, labels[wnid]) for path, wnid in known]

    def _names(self, wnids: Sequence[str]) -> dict[str, str]:
        """The name of each class."""
        found = _read_names(self.lists)
        firsts = {wnid: found.get(wnid, wnid).split(",")[0].strip() for wnid in wnids}
        counts = Counter(firsts.values())
        return {wnid: name if counts[name] == 1 else f"{name} ({wnid})" for wnid, name in firsts.items()}

    def _flat(self, folder: Path) -> list[tuple[Path, str]]:
        """Files with their wnids, of a folder that does not tell these."""
        paths = files(folder)
        if (file := self.lists / _KAGGLE).is_file():
            wnids = _solution(file)
            if missing := [path for path in paths if path.stem not in wnids]:
                raise InputError(f"{file} has no line for {missing[0]}")
            return [(path, wnids[path.stem]) for path in paths]
        if (file := self.lists / _DEVKIT).is_file():
            numbers = file.read_text(encoding="utf-8-sig", errors="replace").rstrip().splitlines()
            if len(numbers) != len(paths):
                raise InputError(
                    f"{file} has {len(numbers):,} lines, but {folder} {len(paths):,} files: it needs one for each, "
                    "in the order of their names"
                )
            if not (meta := self.lists / _META).is_file():
                raise InputError(f"{file} needs {_META} beside it, which says what its numbers mean")
            known = {str(number): wnid for number, wnid, _ in _synsets(meta)}
            for line, number in enumerate(numbers, 1):
                if number not in known:
                    raise InputError(f"{file}, line {line}: {number!r} is not an ILSVRC2012_ID of {meta}")
            return [(path, known[number]) for path, number in zip(paths, numbers, strict=True)]
        raise InputError(
            f"{folder} has no folders by wnid, and {self.lists} has neither {_KAGGLE} nor {_DEVKIT}: "
            "name the folder with one of these by --data.lists"
        )


def _solution(file: Path) -> dict[str, str]:
    """The wnid of each picture by Kaggle's list: columns ImageId, and PredictionString, which begins with a wnid."""
    columns, rows = sheet.table(file)
    wnids = {}
    for line, cells in rows:
        row = dict(zip(columns, cells, strict=False))
        words = row.get("PredictionString", "").split()
        if not row.get("ImageId") or not words:
            raise InputError(f"{file}, line {line}: no ImageId, or no PredictionString")
        wnids[row["ImageId"]] = words[0]
    return wnids


def _read_names(lists: Path) -> dict[str, str]:
    """Names of classes by their wnids, from the first of the known files that is there."""
    for name in ("LOC_synset_mapping.txt", "imagenet_class_index.json", "words.txt", _META):
        if not (file := lists / name).is_file():
            continue
        try:
            if name == _META:
                return {wnid: words for _, wnid, words in _synsets(file)}
            text = file.read_text(encoding="utf-8-sig")
            if file.suffix == ".json":
                return {str(wnid): str(words) for wnid, words in json.loads(text).values()}
            return dict(line.split(maxsplit=1) for line in text.splitlines() if line.strip())
        except InputError:
            raise
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{file} is not a list of wnids with names ({error})") from None
    return {}


def _synsets(file: Path) -> list[tuple[int, str, str]]:
    """ILSVRC2012_ID, wnid and names of each class of the development kit."""
    from scipy.io import loadmat

    try:
        found = np.atleast_1d(loadmat(file, squeeze_me=True)["synsets"])
        columns = [found[name].tolist() for name in ("ILSVRC2012_ID", "WNID", "words")]
        return [(int(number), str(wnid), str(words)) for number, wnid, words in zip(*columns, strict=True)]
    except Exception as error:  # loadmat raises whatever the bytes lead it to
        raise InputError(f"{file} is not that of the development kit ({error})") from None
