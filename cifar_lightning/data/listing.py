"""Labels of pictures from a CSV file."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

from cifar_lightning.data.catalogue import Catalogue
from cifar_lightning.data.images import Part
from cifar_lightning.data.store import asked
from cifar_onnx import InputError, sheet
from cifar_onnx.errors import some
from cifar_onnx.folders import composed

_SPLITS = ("train", "val", "test")


class _Row(NamedTuple):
    """A picture, by its line in the file."""

    line: int
    file: Path
    label: str
    part: Part


class Listing(Catalogue):
    """Pictures and their labels, from a CSV file with the columns `path`, `label` and, maybe, `split`.

    Without `split` all are to be trained on.

    Args:
        file: the CSV file.
        root: what its paths are relative to.

    Raises:
        InputError: it cannot be read, lacks a column, or a line has no label, a split that is none, or a picture that
            an earlier one has with another label or in another part.
    """

    def __init__(self, file: Path, root: Path) -> None:
        super().__init__(root)
        self.file = file
        self._rows: dict[str, _Row] = {}  # by their paths, which may be written in several ways
        try:
            rows = sheet.rows(file)
            line, columns = next(rows, (1, []))
            self._columns = [name.lower() for name in columns]
            self._check_columns(line, columns)
            for line, cells in rows:
                self._add(line, cells)
        except OSError as error:
            raise InputError(
                f"data.labels {str(file)!r} cannot be read ({error.strerror}): name a CSV file, or null for folders"
            ) from None

    def __str__(self) -> str:
        return str(self.file)

    @property
    def labels(self) -> list[str]:
        return sorted({row.label for row in self._rows.values() if row.part == "train"})

    def parts(self, classes: Sequence[str]) -> frozenset[Part]:
        parts: set[Part] = {"train", *(row.part for row in self._rows.values())}
        if "test" not in parts and {*self.labels}.isdisjoint(map(composed, classes)):
            parts.add("predict")
        return frozenset(parts)

    def _check_columns(self, line: int, given: Sequence[str]) -> None:
        if missing := [name for name in ("path", "label") if self._columns.count(name) != 1]:
            has = f"the columns {', '.join(given)}" if given else "no lines"
            raise InputError(
                f"{self.file}, line {line}: it has {has}, but {missing[0]} must be one: "
                "it needs path, label and maybe split"
            )

    def _add(self, line: int, cells: Sequence[str]) -> None:
        where = f"{self.file}, line {line}"
        if len(cells) != len(self._columns):
            raise InputError(
                f"{where}: {len(cells)} values for {len(self._columns)} columns: put one that holds a comma in quotes"
            )
        values = dict(zip(self._columns, cells, strict=True))
        for name in ("path", "label"):
            if not values[name]:
                raise InputError(f"{where}: the {name} is empty")
        path, label = values["path"].replace("\\", "/"), composed(values["label"])
        split = values.get("split", "train")
        if split not in _SPLITS:
            raise InputError(f"{where}: split is {split!r}: it must be {', '.join(_SPLITS[:-1])} or {_SPLITS[-1]}")
        row = _Row(line, self.root / path, label, cast(Part, split))
        first = self._rows.setdefault(os.path.abspath(row.file), row)
        if first[2:] != row[2:]:
            raise InputError(
                f"{where}: {path} is {label!r} in {split}, but {first.label!r} in {first.part} in line {first.line}"
            )

    def pairs(self, part: Part, classes: Sequence[str]) -> list[tuple[Path, int]]:
        places = {composed(name): place for place, name in enumerate(classes)}
        rows = [row for row in self._rows.values() if part in (row.part, "predict")]
        found = []
        for row, there in zip(rows, asked(Path.is_file, [row.file for row in rows]), strict=True):
            where = f"{self.file}, line {row.line}"
            if not there:
                raise InputError(
                    f"{where}: there is no file {row.file}: paths are relative to data.root, here {str(self.root)!r}"
                )
            if part != "predict" and row.label not in places:
                raise InputError(f"{where}: {row.label!r} is not one of the classes {some(classes)}")
            found.append((row.file, -1 if part == "predict" else places[row.label]))
        return sorted(found, key=lambda pair: pair[0].parts)  # paths of Windows take no notice of case
