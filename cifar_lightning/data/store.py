"""Decoded pictures on disk: each is decoded once, and read whenever it is asked for.

Notation: `N` pictures, `S` side in pixels.
"""

import hashlib
import io
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from errno import ENOSPC
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cifar_lightning.data.images import Fingerprints, Images, Rows
from cifar_lightning.files import put
from cifar_onnx.ahead import ahead
from cifar_onnx.evaluation.outcome import Integers, Unreadable
from cifar_onnx.images import Pixels

_EVERY = 60  # seconds between two savings of the index
_THREADS, _CHUNK = 16, 100  # that ask a disk, and paths that each is given at once

T = TypeVar("T")


class Picture(NamedTuple):
    """What a file was decoded to: uint8 `(S, S, 3)`, its area before that, its fingerprint, or why it was not.

    Of one that could not be read (`unread`) nothing is kept, so that it is tried again next time.
    """

    pixels: Pixels
    area: int
    fingerprint: str
    error: str
    unread: bool = False


class Decoded(NamedTuple):
    """Files as pictures `(N, S, S, 3)`, their areas before that `(N,)`, fingerprints, and errors by their places."""

    pixels: Rows
    areas: Integers
    fingerprints: Fingerprints
    errors: dict[int, str]

    def images(self, pairs: Sequence[tuple[Path, int]]) -> Images:
        """Those of the files, given with their labels, that could be read; the others are its unreadable ones."""
        names, labels = [str(path) for path, _ in pairs], np.array([label for _, label in pairs], np.int64)
        unreadable = [Unreadable(names[place], pairs[place][1], error) for place, error in self.errors.items()]
        images = Images(self.pixels, labels, names, self.areas, self.fingerprints)
        kept = images.take(np.delete(np.arange(len(names)), list(self.errors)))
        return replace(kept, unreadable=tuple(unreadable))


_Fact = tuple[str, int, str, str]  # key, area, fingerprint, error


class _Index(NamedTuple):
    """What is in the file of pixels, row by row: keys, areas and fingerprints, and rows that hold no picture."""

    keys: NDArray[np.bytes_]
    areas: Integers
    fingerprints: Fingerprints
    wrong: Integers
    reasons: NDArray[np.str_]


class Store:
    """Pictures of one size, to which others can be added while it is read.

    `pixels` holds them one after the other, `index.npz` says of what they are. What `pixels` holds beyond that was left
    by a process that was killed.

    Args:
        folder: where the two files are.
        size: `S`.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.shape = (size, size, 3)
        self._row = 3 * size * size  # bytes of a picture
        self._pixels, self._index = folder / "pixels", folder / "index.npz"

    def find(self, keys: Sequence[str], unread: Mapping[str, str] = MappingProxyType({})) -> Decoded | None:
        """The pictures with these keys; None where it is empty, or lacks one that is not in `unread`.

        Raises:
            OSError: it cannot be read, which says nothing of what it holds.
        """
        index = self._load()
        rows = {key: row for row, key in enumerate(index.keys.tolist())}
        places = np.array([rows.get(key.encode(), -1) for key in keys], np.int64)
        errors = {place: unread[key] for place, key in enumerate(keys) if key in unread}
        if not len(index.keys) or np.count_nonzero(places < 0) > len(errors):
            return None
        with self._pixels.open("rb") as file:
            mapped = mmap(file.fileno(), 0, access=ACCESS_READ)
        pixels = np.frombuffer(mapped, np.uint8, len(index.keys) * self._row).reshape(-1, *self.shape)
        reasons = dict(zip(index.wrong.tolist(), index.reasons.tolist(), strict=True))
        errors |= {place: reasons[row] for place, row in enumerate(places.tolist()) if row in reasons}
        errors = dict(sorted(errors.items()))
        return Decoded(Rows(pixels, places, mapped), index.areas[places], index.fingerprints[places], errors)

    def lacks(self, keys: Sequence[str]) -> list[int]:
        """Places of the keys that it does not hold."""
        known = {*self._load(report=True).keys.tolist()}
        return [place for place, key in enumerate(keys) if key.encode() not in known]

    def add(self, keys: Sequence[str], pictures: Iterable[Picture]) -> dict[str, str]:
        """Write more pictures; those that are written when it is interrupted stay.

        Returns:
            keys of files that could not be read, and why.

        Raises:
            OSError: they cannot be written, or there is no room for them.
        """
        index, new, unread = self._load(), list[_Fact](), dict[str, str]()
        self.folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self.folder).free < (needed := len(keys) * self._row):
            raise OSError(ENOSPC, f"{needed / 1e9:,.1f} GB are needed in {self.folder}")
        if not len(index.keys):
            self._pixels.unlink(missing_ok=True)  # not overwritten: others may be reading what is damaged for us
        with self._pixels.open("ab") as file:
            file.truncate(len(index.keys) * self._row)
            saved = time.monotonic()
            try:
                for key, picture in zip(keys, pictures, strict=True):
                    if picture.unread:
                        unread[key] = picture.error
                        continue
                    file.write(picture.pixels.data)
                    new.append((key, picture.area, picture.fingerprint, picture.error))
                    if time.monotonic() - saved > _EVERY:
                        index, new, saved = self._save(file, index, new), [], time.monotonic()
            finally:
                try:
                    self._save(file, index, new)
                except OSError:  # what nobody will know of must not fill a disk that the run is to be written to
                    os.truncate(self._pixels, len(index.keys) * self._row)
                    raise
        return unread

    def _load(self, report: bool = False) -> _Index:
        try:
            data, size = self._index.read_bytes(), self._pixels.stat().st_size
        except FileNotFoundError:
            return _indexed([], 0)
        try:
            with np.load(io.BytesIO(data)) as arrays:
                index = _Index(*(arrays[name] for name in _Index._fields))
            if size < len(index.keys) * self._row:
                raise ValueError("there are fewer pixels than it says")
            return index
        except MemoryError:  # which says nothing of the bytes
            raise
        except Exception as error:  # numpy and zipfile raise whatever the bytes lead them to
            if report:
                print(f"{self._index} is damaged ({error}): decoding the pictures again", file=sys.stderr)
        return _indexed([], 0)

    def _save(self, file: BinaryIO, index: _Index, new: Sequence[_Fact]) -> _Index:
        more = _indexed(new, len(index.keys))
        index = _Index(*(np.concatenate([old, new]) for old, new in zip(index, more, strict=True)))
        file.flush()
        os.fsync(file.fileno())
        fresh = self.folder / "index.new"
        try:
            with fresh.open("wb") as out:
                np.savez(out, **index._asdict())
            put(fresh, self._index)
        finally:
            fresh.unlink(missing_ok=True)
        return index


def asked(function: Callable[[Path], T], paths: Sequence[Path]) -> Iterator[T]:
    """What a function that asks the disk says of each path: many at once, since a network drive answers late."""
    return ahead(function, paths, _THREADS, 4 * _THREADS * _CHUNK, _CHUNK)


def file_keys(folder: Path, paths: Sequence[Path]) -> list[str]:
    """What a store calls files below a folder: a file that is changed has another key."""
    inside = f"{folder}{os.sep}"
    stats = asked(_status, paths)
    names = [str(path).removeprefix(inside) for path in paths]
    return [digest(f"{name}\0{it.st_size}\0{it.st_mtime_ns}") for name, it in zip(names, stats, strict=True)]


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError:  # a link that leads nowhere or to itself, as the decoder will say
        return path.lstat()


def digest(text: str) -> str:
    """A short name for a long text."""
    return hashlib.blake2b(os.fsencode(text), digest_size=16).hexdigest()


def _indexed(new: Sequence[_Fact], first: int) -> _Index:
    """The index of pictures that stand in the rows from `first` on."""
    wrong = [(row, reason) for row, (*_, reason) in enumerate(new, first) if reason]
    return _Index(
        np.array([key for key, *_ in new], np.bytes_),
        np.array([area for _, area, *_ in new], np.int64),
        np.array([fingerprint for *_, fingerprint, _ in new], np.bytes_),
        np.array([row for row, _ in wrong], np.int64),
        np.array([reason for _, reason in wrong], np.str_),
    )
