"""What a JPEG may hold: judged on its bytes, since decoders would work on a hostile one for hours."""

import re
from itertools import islice
from typing import IO

from cifar_onnx.errors import ImageError

MOST = 100  # scans and pieces of EXIF, as libvips has it of scans
# Each scan goes over the whole picture, and may be of 40 bytes: marker, length of its head, components. Pieces of EXIF
# Pillow puts together in time that grows with the square of their number: marker, length, name.
_PARTS = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)|\xff\xe1..Exif\x00\x00", re.DOTALL)


def check(file: IO[bytes]) -> None:
    """Refuse a JPEG of too many parts; a file is at its beginning afterwards.

    Raises:
        ImageError: it has more than `MOST`.
    """
    file.seek(0)
    if file.read(2) == b"\xff\xd8":
        parts = islice(_PARTS.finditer(file.read()), MOST + 1)
        if sum(1 for _ in parts) > MOST:
            raise ImageError(f"a JPEG of more than {MOST} scans or pieces of EXIF, which would take very long")
    file.seek(0)
