"""Pictures on disk: those that a word of the command line means, and labelled ones, `folder/<class>/*`."""

import os
import unicodedata
from collections.abc import Sequence
from glob import glob, has_magic
from os import PathLike
from pathlib import Path

from cifar_onnx.errors import InputError, some

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp"})
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
    """Names of the class folders, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not _no_class(path))


def _no_class(folder: Path) -> bool:
    """Whether it is left behind, or holds runs or a report, of commands that were started beside it."""
    return _left_behind(folder.name) or any(any(folder.glob(each)) for each in _OURS.get(folder.name, ()))


def _left_behind(name: str) -> bool:
    """Whether it is hidden, or a system's own."""
    return name.startswith(".") or name.lower() in _JUNK


def composed(name: str) -> str:
    """A name in the one form (NFC) of those in which Unicode can spell it: macOS has others than keyboards."""
    return unicodedata.normalize("NFC", name)


def files(folder: Path) -> list[Path]:
    """Every file below a folder that may be meant as a picture, sorted; links to folders are followed.

    Raises:
        InputError: a folder in it cannot be read.
    """
    found = list[Path]()
    for place, inside, names in os.walk(folder, onerror=_refuse, followlinks=True):
        here = Path(place)
        inside[:] = [name for name in inside if not _no_class(here / name) and not _leads_back(here / name)]
        found += [here / name for name in names if not _left_behind(name)]
    return sorted(filter(_may_be_file, found))


def _may_be_file(path: Path) -> bool:
    try:
        return path.is_file() or (path.is_symlink() and not path.exists())  # the latter of links that lead nowhere
    except OSError:  # the decoder says why it cannot be read
        return True


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read ({error.strerror})") from None


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in."""
    return folder.is_symlink() and folder.resolve() in map(Path.resolve, folder.absolute().parents)


def labelled(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Files with the place of their folder's name among the classes.

    Raises:
        InputError: the folder is none, holds no class folders or no file, or one whose name is no class.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name one that holds a folder of pictures for each class")
    found, places = subfolders(folder), {composed(name): place for place, name in enumerate(classes)}
    if unknown := [name for name in found if composed(name) not in places]:
        part = next((part for part in _PARTS if part in unknown), None)
        hint = f": did you mean {folder / part}?" if part else ""
        raise InputError(f"{folder / unknown[0]}: {unknown[0]!r} is not one of the classes {some(classes)}{hint}")
    pairs = [(path, places[composed(name)]) for name in found for path in files(folder / name)]
    if not pairs:
        raise InputError(f"{folder} holds no folder with pictures: it must hold one for each class")
    return pairs


def find(pattern: str | PathLike[str]) -> list[Path]:
    """Picture files that a word of the command line means: a file, every picture below a folder, or a glob.

    Raises:
        InputError: nothing is there.
    """
    if not str(pattern):  # a variable of a shell that is not set
        raise InputError("an empty argument names no picture")
    if "://" in str(pattern):
        raise InputError(f"{pattern}: nothing is fetched from elsewhere: download the picture first")
    path = Path(pattern)
    if os.path.isdir(path):  # Path's own raises where it may not look
        found = _pictures(path)
        if not found:
            raise InputError(f"{path}: no pictures in this folder (looked for {', '.join(sorted(_SUFFIXES))})")
        return found
    if os.path.exists(path) or not has_magic(str(pattern)):
        return [path]
    matches = sorted(map(Path, glob(str(pattern), recursive=True)))
    # A pattern that names no suffix means pictures, as a folder does.
    named = [match for match in matches if os.path.isdir(match) or path.suffix or match.suffix.lower() in _SUFFIXES]
    found = [file for match in named for file in (_pictures(match) if os.path.isdir(match) else [match])]
    if not found:
        raise InputError(f"{pattern}: no {'file' if path.suffix else 'picture'} matches")
    shortest: dict[tuple[str, str], Path] = {}  # of those that lead to one file, by links in circles for some
    for file in sorted(found, key=lambda file: len(file.parts)):
        shortest.setdefault((os.path.realpath(file.parent), file.name), file)
    return sorted(shortest.values())


def others(folder: Path) -> list[Path]:
    """Files below a folder that `find` leaves out: of formats that are not read, for some."""
    return [file for file in files(folder) if file.suffix.lower() not in _SUFFIXES]


def _pictures(folder: Path) -> list[Path]:
    return [file for file in files(folder) if file.suffix.lower() in _SUFFIXES]
