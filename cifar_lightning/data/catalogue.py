"""Which pictures there are, in which part each is, and what is on it; none of them is opened."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.data.images import Part
from cifar_onnx import InputError
from cifar_onnx.folders import composed, files, labelled, subfolders

_PARTS = {  # names that are used elsewhere for train, val and test
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class Catalogue(ABC):
    """Picture files with their labels.

    Args:
        root: the folder that holds them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.folder("train"))

    @property
    @abstractmethod
    def labels(self) -> list[str]:
        """Names of the classes that it has pictures of to train on, in their order."""

    @abstractmethod
    def parts(self, classes: Sequence[str]) -> frozenset[Part]:
        """The parts that it has; also `predict`, those without labels or all, where it has none of `classes`."""

    def folder(self, part: Part) -> Path:
        """The folder that the pictures of a part are in."""
        return self.root

    @abstractmethod
    def pairs(self, part: Part, classes: Sequence[str]) -> list[tuple[Path, int]]:
        """Files of a part with the places of their labels among the classes, -1 for those to predict.

        Raises:
            InputError: a label is no class, or there is no such part.
        """


class Folders(Catalogue):
    """A folder for each class, in `root/train/`, `root/val/` and `root/test/` or in `root` itself.

    Without folders in it, `root/test/` holds the pictures to predict, as Kaggle's competitions have it.
    """

    @property
    def labels(self) -> list[str]:
        return sorted({*map(composed, subfolders(self._training_folder()))})

    def parts(self, classes: Sequence[str]) -> frozenset[Part]:
        own: tuple[Part, ...] = ("val", "test")
        parts: set[Part] = {"train", *(part for part in own if self.folder(part) != self.root)}
        found = {*map(composed, subfolders(self.folder("train")))}
        unlabelled = self.folder("predict") != self.root or found.isdisjoint(map(composed, classes))
        if "test" not in parts and unlabelled:
            parts.add("predict")
        return frozenset(parts)

    def folder(self, part: Part) -> Path:
        own = self.root / ("test" if part == "predict" else part)
        if part == "predict":
            there = _holds_files(own)
        else:
            there = own.is_dir() and (bool(subfolders(own)) or (part == "train" and not self._train_is_class()))
        return own if there else self.root

    def _train_is_class(self) -> bool:
        """Whether `root/train/`, in which there are no folders, is a class like two others, as a train is a vehicle.

        Beside a single folder, or one such as `test1/` of Kaggle's Dogs vs. Cats, it would rather be a training set
        that nobody has sorted.
        """
        others = {*subfolders(self.root)} - {"train"}
        parts = any(name.lower().startswith(("val", "test")) for name in others)
        return len(others) > 1 and not parts and _holds_files(self.root / "train")

    def _training_folder(self) -> Path:
        names = subfolders(self.root) if self.root.is_dir() else []
        meant = {name: part for name in names if (part := _PARTS.get(name.lower())) and name != part}
        if meant and ("train" in names or len(meant) == len(names)):
            wrong, part = next(iter(meant.items()))
            raise InputError(f"{self.root / wrong} is neither a class nor train/, val/ or test/: rename it to {part}")
        for part in ("val", "test"):
            if (self.root / part).is_dir() and not (self.root / "train").is_dir():
                raise InputError(f"{self.root} has {part}/ but no train/ beside it: there is nothing to train on")
        return self.folder("train")

    def pairs(self, part: Part, classes: Sequence[str]) -> list[tuple[Path, int]]:
        folder = self._training_folder() if part == "train" else self.folder(part)
        return [(path, -1) for path in files(folder)] if part == "predict" else labelled(folder, classes)


def _holds_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.glob("[!.]*"))
