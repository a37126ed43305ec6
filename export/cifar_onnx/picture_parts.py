"""Of how many parts a picture's file may be: decoders would work on a hostile one for minutes or hours."""

import io
import os
import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import IO

from cifar_onnx.errors import ImageError

MOST = 100  # scans of a JPEG, as libvips has it, and pieces of its EXIF; texts of a PNG
# Each scan goes over the whole picture, and may be of 40 bytes: marker, length of its head, components. Pieces of EXIF
# Pillow puts together in time that grows with the square of their number: marker, length, name.
_SCANS = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)|\xff\xe1..Exif\x00\x00", re.DOTALL)
_CHUNK = struct.Struct(">I4s")  # of a PNG: its length and name, before what it holds and four bytes more
_TEXTS = (b"iCCP", b"iTXt", b"zTXt")  # of which each may unpack to 1 MB, and to a thousand times its own size
READS = 100_000  # of a file, besides one for each KB: for each part of it Pillow, in Python, takes one or more


def counted(file: IO[bytes]) -> IO[bytes]:
    """What is in a file, from its beginning; it raises ImageError once it is read in too many parts.

    Raises:
        ImageError: it has more than `MOST` scans, pieces of EXIF or texts.
    """
    file.seek(0)
    start = file.read(READS)
    small = len(start) < READS  # so it has neither more parts than that nor a hundred large texts
    if small:
        file = io.BytesIO(start)
    check(file)
    if small:
        return file
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        _refuse(_texts(file), "a PNG of more than {} texts and profiles")
    size = file.seek(0, os.SEEK_END)
    return _Counted(file, READS + size // 1024)  # type: ignore[return-value]  # all of it that Pillow needs


def check(file: IO[bytes]) -> None:
    """Refuse a JPEG of too many scans or pieces of EXIF; a file is at its beginning afterwards.

    Raises:
        ImageError: it has more than `MOST`.
    """
    file.seek(0)
    if file.read(2) == b"\xff\xd8":
        _refuse(_SCANS.finditer(file.read()), "a JPEG of more than {} scans or pieces of EXIF")
    file.seek(0)


def _refuse(parts: Iterator[object], words: str) -> None:
    if sum(1 for _ in islice(parts, MOST + 1)) > MOST:
        raise ImageError(f"{words.format(MOST)}, which would take very long")


def _texts(file: IO[bytes]) -> Iterator[bytes]:
    """Names of those chunks of a PNG that Pillow may unpack."""
    file.seek(8)
    for _ in range(READS):
        head = file.read(_CHUNK.size)
        if len(head) < _CHUNK.size:
            return
        length, name = _CHUNK.unpack(head)
        if name in _TEXTS:
            yield name
        file.seek(length + 4, os.SEEK_CUR)


class _Counted:
    def __init__(self, file: IO[bytes], reads: int) -> None:
        self._read, self._left = file.read, reads
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ImageError("a file of so many small parts that reading it would take very long: save it anew")
        return self._read(size)
