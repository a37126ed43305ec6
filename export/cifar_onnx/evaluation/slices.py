"""Accuracy within groups of pictures: dark and bright ones, small and large ones, or any groups of the user's own.

Notation: `N` pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cifar_onnx import sheet
from cifar_onnx.errors import InputError
from cifar_onnx.evaluation.bootstrap import Estimate, shares
from cifar_onnx.evaluation.outcome import Booleans, Floats, Integers, Outcome, parts
from cifar_onnx.folders import composed, natural
from cifar_onnx.images import Pixels

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of R, G, B: ITU-R BT.601
_MOST = 50  # groups that a page can show
_SHUFFLES = 10_000


@dataclass(frozen=True)
class Slice:
    """A group of pictures: what they have in common, how many they are, and the accuracy among them."""

    name: str
    count: int
    accuracy: Estimate


@dataclass(frozen=True)
class Slicing:
    """All pictures, by one of their properties."""

    title: str
    slices: tuple[Slice, ...]

    @property
    def worst(self) -> Slice:
        """The group of lowest accuracy."""
        return min(self.slices, key=lambda each: each.accuracy.value)

    @property
    def gap(self) -> float:
        """How far it lies below the group of highest accuracy."""
        return max(each.accuracy.value for each in self.slices) - self.worst.accuracy.value

    @cached_property
    def may_be_chance(self) -> bool:
        """Whether groups of equal accuracy would differ as much, or more, in over 5 % of cases.

        By Pearson's chi-squared where the same mistakes are dealt out at random: its own distribution does not hold for
        groups of few pictures.
        """
        counts = np.array([each.count for each in self.slices])
        wrong = np.array([round(each.count * (1 - each.accuracy.value)) for each in self.slices])
        dealt = np.random.default_rng(0).multivariate_hypergeometric(counts, wrong.sum(), _SHUFFLES)
        apart = ((np.vstack([wrong, dealt]) - counts * wrong.sum() / counts.sum()) ** 2 / counts).sum(axis=1)
        return bool((apart[1:] >= apart[0] - 1e-9).mean() > 0.05)


def slicings(outcome: Outcome, groups: Mapping[str, Sequence[str]] | None = None) -> list[Slicing]:
    """Thirds by brightness, contrast and size, and groups of the user's own; without those that hold all pictures.

    Args:
        outcome: of `N` pictures.
        groups: name of a property -> its value for each picture, from `Groups`.
    """
    grey = np.concatenate([_moments(outcome.pixels[part]) for part in parts(outcome.pixels)])
    found = [
        _thirds("brightness", grey[:, 0], ("dark", "medium", "bright"), "mean grey level"),
        _thirds("contrast", grey[:, 1], ("flat", "medium", "rich"), "standard deviation of grey levels"),
    ]
    if outcome.areas is not None:
        sides = np.sqrt(outcome.areas)
        found.append(_thirds("size", sides, ("small", "medium", "large"), "side of a square of that area"))
    for title, values in (groups or {}).items():
        names = sorted(set(values), key=natural)
        found.append((title, names, np.array([names.index(value) for value in values])))
    return [_slicing(outcome.correct, *each) for each in found if len(np.unique(each[2])) > 1]


def _moments(pixels: Pixels) -> Floats:
    """Mean and standard deviation of the grey levels of pictures `(B, S, S, 3)`: `(B, 2)`."""
    grey = (pixels.reshape(-1, 3).astype(np.float32) @ _LUMA).reshape(len(pixels), -1)
    return np.column_stack([grey.mean(axis=1, dtype=np.float64), grey.std(axis=1, dtype=np.float64)])


def _thirds(title: str, values: Floats, names: Sequence[str], unit: str) -> tuple[str, list[str], Integers]:
    """Names of the thirds, and the third of each picture; equal values are in one, so that there may be fewer."""
    low, high = np.quantile(values, [1 / 3, 2 / 3])
    ends = *(f"up to {end:,.0f}" if end >= 999.5 else f"up to {end:.3g}" for end in (low, high)), "above"
    members = np.searchsorted([low, high], values)
    return f"{title} ({unit})", [f"{name}, {end}" for name, end in zip(names, ends, strict=True)], members


def _slicing(hits: Booleans, title: str, names: Sequence[str], members: Integers) -> Slicing:
    present = np.unique(members)
    groups = members[:, None] == present
    accuracies = shares(hits, groups)
    return Slicing(title, tuple(map(Slice, [names[i] for i in present], groups.sum(axis=0).tolist(), accuracies)))


class Groups:
    """Groups of the user's own, from a CSV file with the column `path` and one column for each property.

    Args:
        path: the CSV file.

    Raises:
        InputError: it cannot be read, has no such column, or one without a name of its own, or a property has too many
            values, of all or of one picture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            columns, rows = sheet.table(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read as a CSV file: {error.strerror}") from None
        places = [place for place, column in enumerate(columns) if column.lower() == "path"]
        if len(places) != 1 or len(columns) < 2:
            has = f"the columns {', '.join(columns)}" if columns else "no rows"
            raise InputError(f"{path} has {has}: it needs the column path, and another for each kind of group")
        if "" in columns or len({*columns}) < len(columns):
            has = ", ".join(column or "(empty)" for column in columns)
            raise InputError(f"{path} has the columns {has}: each needs a name of its own")
        self.columns = [column for column in columns if column.lower() != "path"]
        self.rows: dict[Path, list[str]] = {}
        for line, row in rows:
            if len(row) > len(columns):
                raise InputError(f"{path}, line {line}: {len(row)} values for {len(columns)} columns")
            cells = [cell or "(empty)" for cell in (*row, *[""] * (len(columns) - len(row)))]
            name = Path(cells.pop(places[0]).replace("\\", "/"))
            if self.rows.setdefault(name, cells) != cells:
                raise InputError(f"{path}, line {line}: {name} is in other groups in an earlier line")
        for number, column in enumerate(self.columns):
            if (count := len({row[number] for row in self.rows.values()})) > _MOST:
                raise InputError(f"{path}: column {column} has {count} groups: {_MOST} at most can be shown")

    def check(self, names: Sequence[str], folder: Path | None) -> list[list[str] | None]:
        """The rows of pictures, None for those that the file lacks; as `of`."""
        root = (folder or Path()).resolve()
        # As the folder sees them, and as the shell does.
        listed = {_key(base / path): row for path, row in self.rows.items() for base in (Path(), root)}
        found = [listed.get(_key(Path(name))) for name in names]
        if not any(found):
            example = Path(names[0])
            inside = example.relative_to(folder) if folder and example.is_relative_to(folder) else example
            raise InputError(f"{self.path} lists none of the pictures: its paths must be like {inside.as_posix()}")
        return found

    def of(self, names: Sequence[str], folder: Path | None) -> dict[str, list[str]]:
        """Name of each property -> its value for each picture; "not listed" for those that the file lacks.

        Args:
            names: the pictures' paths.
            folder: what the paths in the file may be relative to.

        Raises:
            InputError: the file lists none of the pictures.
        """
        found = self.check(names, folder)
        if missing := sum(row is None for row in found):
            print(f"{self.path} lists {len(found) - missing:,} of {len(found):,} pictures")
        return {
            column: [row[number] if row else "not listed" for row in found]
            for number, column in enumerate(self.columns)
        }


def _key(path: Path) -> str:
    """One spelling of those that a path may have."""
    return composed(str(path.resolve()))
