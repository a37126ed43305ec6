"""Folders on disk: pictures that a word of the command line means, labelled pictures, and where to write."""

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from glob import glob, has_magic
from os import PathLike
from pathlib import Path, PurePath
from typing import TypeVar
from uuid import uuid4

from cifar_onnx import sheet
from cifar_onnx.errors import InputError, some
from cifar_onnx.sources import check_path

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp"})
_SUFFIX = re.compile(r"\.[A-Za-z]\w{1,4}", re.ASCII)  # of a file; a class may be called v1.5 or St. Bernard
_JUNK = frozenset(  # of Windows, macOS' archives, Synology's servers (small copies of each picture) and Linux
    {
        "thumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
        "__macosx",
        "@eadir",
        "lost+found",
        "icon\r",
    }
)
_OURS = {  # folders that commands make where they are started, and what tells them from a class of that name
    "comparison": ("comparison.json",),
    "report": ("report.html",),
    "runs": ("*/version_*", "*/journal.log"),
}
_PARTS = ("test", "val", "train")

AnyPath = TypeVar("AnyPath", bound=PurePath)


def expanded(path: str | Path, option: str) -> Path:
    """A path in which `~` and `~name` stand for a home, as in a shell.

    Raises:
        InputError: there is none; names the option that the path was given by.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{option} is {path}: there is no such home") from None


def subfolders(folder: Path) -> list[str]:
    """Names of the class folders, sorted.

    Raises:
        InputError: a link that may be meant as one leads nowhere, as to a disk that is not mounted.
    """
    with os.scandir(folder) as inside:  # which tells folders from files without another call, but for links
        found = [Path(entry) for entry in inside if entry.is_symlink() or entry.is_dir()]
    names = []
    for path in found:
        if path.is_dir():
            if not _no_class(path):
                names.append(path.name)
        elif not _SUFFIX.fullmatch(path.suffix) and not path.exists() and not _left_behind(path.name):
            raise InputError(f"{path} is a link that leads nowhere: mount its disk, or remove the link")
    return sorted(names)


def _no_class(folder: Path) -> bool:
    """Whether it is left behind, or holds runs or a report, of commands that were started beside it."""
    return _left_behind(folder.name) or any(any(folder.glob(each)) for each in _OURS.get(folder.name, ()))


def _left_behind(name: str) -> bool:
    """Whether it is hidden, or a system's own."""
    return name.startswith(".") or name.lower() in _JUNK


def composed(name: str) -> str:
    """A name in the one form (NFC) of those in which Unicode can spell it: macOS has others than keyboards."""
    return unicodedata.normalize("NFC", name)


def natural(name: str) -> list[str | int]:
    """What names are sorted by so that 2 comes before 10."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", name))]


def in_order(paths: Iterable[AnyPath]) -> list[AnyPath]:
    """Paths in one order on all systems: Windows' own passes over whether letters are capital."""
    return sorted(paths, key=lambda path: path.parts)


def try_writing(folder: Path) -> None:
    """Make a file in a folder, and remove it.

    Windows says of every folder that it may be written to, and in one that may not be, tempfile would try for hours.

    Raises:
        OSError: it cannot be made.
    """
    file = folder / f".{uuid4().hex}"
    file.touch(exist_ok=False)
    file.unlink()


def files(folder: Path) -> list[Path]:
    """Every file below a folder that may be meant as a picture, sorted; links to folders are followed.

    Raises:
        InputError: a folder in it cannot be read.
    """
    found, waiting = list[Path](), [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as inside:
                for entry in inside:
                    path = Path(entry)
                    if _is_folder(entry):
                        if not _no_class(path) and not _leads_back(path):
                            waiting.append(path)
                    elif not _left_behind(entry.name) and _may_be_file(entry):
                        found.append(path)
        except OSError as error:
            raise InputError(f"{error.filename} cannot be read ({error.strerror})") from None
    return in_order(found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry))  # of links that lead nowhere
    except OSError:  # the decoder says why it cannot be read
        return True


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in."""
    return folder.is_symlink() and folder.resolve() in map(Path.resolve, folder.absolute().parents)


def labelled(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Files with the place of their label among the classes: of `folder/<class>/*`, or of a CSV file in its place.

    Raises:
        InputError: the folder is none, holds no class folders or no file, or one whose name is no class; or a CSV file
            is not as `_listed` reads it.
    """
    places = {composed(name): place for place, name in enumerate(classes)}
    if folder.is_file():
        return _listed(folder, places)
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder: name one that holds a folder of pictures for each class, or a CSV file with "
            "the columns path and label"
        )
    found = subfolders(folder)
    if unknown := [name for name in found if composed(name) not in places]:
        part = next((part for part in _PARTS if part in unknown), None)
        hint = f"did you mean {folder / part}?" if part else "leave it out, or train with photos of it"
        raise InputError(f"{folder / unknown[0]}: {unknown[0]!r} is not one of the classes {some(classes)}: {hint}")
    pairs = [(path, places[composed(name)]) for name in found for path in files(folder / name)]
    if not pairs:
        raise InputError(f"{folder} holds no folder with pictures: it must hold one for each class")
    return pairs


def _listed(file: Path, places: Mapping[str, int]) -> list[tuple[Path, int]]:
    """Files with the place of their label, from the columns `path` and `label` of a CSV file, in its order.

    Paths are relative to the file or, where nothing is there, to the current folder, as those that `test` and
    `evaluate` write in predictions.csv are.

    Raises:
        InputError: it lacks a column or rows, its labels are a model's answers, or a row has too few or many cells, a
            label that is no class, no file, or one that has another label in an earlier row.
    """
    columns, rows = sheet.table(file)
    columns = [column.lower() for column in columns]
    if any(columns.count(name) != 1 for name in ("path", "label")):
        has = f"the columns {', '.join(columns)}" if columns else "no rows"
        raise InputError(f"{file} has {has}: it needs the columns path and label, each once")
    if "probability" in columns and "prediction" not in columns:
        raise InputError(f"{file}: its labels are a model's answers: take predictions.csv of test or evaluate")
    found = dict[str, tuple[Path, int]]()  # by their paths, which may be written in several ways
    for line, cells in rows:
        where = f"{file}, line {line}"
        if len(cells) != len(columns):
            raise InputError(f"{where}: {len(cells)} values for {len(columns)} columns")
        name, label = cells[columns.index("path")].replace("\\", "/"), composed(cells[columns.index("label")])
        if label not in places:
            raise InputError(f"{where}: {label!r} is not one of the classes {some([*places])}")
        path = next((path for path in (file.parent / name, Path(name)) if name and os.path.lexists(path)), None)
        if path is None:
            raise InputError(f"{where}: there is no file {name!r}, neither seen from {file.parent} nor from here")
        if found.setdefault(os.path.abspath(path), (path, places[label]))[1] != places[label]:
            raise InputError(f"{where}: {path} has another label in an earlier line")
    if not found:
        raise InputError(f"{file} lists no pictures: it needs a row for each")
    return [*found.values()]


def find(pattern: str | PathLike[str]) -> list[Path]:
    """Picture files that a word of the command line means: a file, every picture below a folder, or a glob.

    Raises:
        InputError: nothing is there.
    """
    if not str(pattern):  # a variable of a shell that is not set
        raise InputError("an empty argument names no picture")
    check_path(pattern)
    path = Path(pattern)
    if os.path.isdir(path):  # Path's own raises where it may not look
        if found := _pictures(path):
            return found
        raise InputError(f"{path}: no pictures in this folder (looked for {', '.join(sorted(_SUFFIXES))})")
    if os.path.exists(path) or not has_magic(str(pattern)):
        return [path]
    matches = in_order(map(Path, glob(str(pattern), recursive=True)))
    # A pattern that names no suffix means pictures, as a folder does.
    named = [match for match in matches if os.path.isdir(match) or path.suffix or called_picture(match)]
    found = [file for match in named for file in (_pictures(match) if os.path.isdir(match) else [match])]
    if not found:
        raise InputError(f"{pattern}: no {'file' if path.suffix else 'picture'} matches")
    shortest: dict[tuple[str, str], Path] = {}  # of those that lead to one file, by links in circles for some
    for file in sorted(found, key=lambda file: len(file.parts)):
        shortest.setdefault((os.path.realpath(file.parent), file.name), file)
    return in_order(shortest.values())


def others(folder: Path) -> list[Path]:
    """Files below a folder that `find` leaves out: of formats that are not read, for some."""
    return [file for file in files(folder) if not called_picture(file)]


def called_picture(path: PurePath) -> bool:
    """Whether a file is called as the pictures are that can be read."""
    return path.suffix.lower() in _SUFFIXES


def _pictures(folder: Path) -> list[Path]:
    return [*filter(called_picture, files(folder))]
