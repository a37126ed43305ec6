"""What may be given for a picture, told from several, and from what is none."""

import os
import re
from collections.abc import Coroutine, Mapping
from io import TextIOWrapper
from os import PathLike
from typing import IO, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifar_onnx.errors import ImageError, ReadError

UNNAMED = "the picture"  # in messages, where it has no file
# A picture as text: a data URL, or base64 of the first bytes of JPEG, PNG, GIF, WebP or BMP, and much more.
_TEXT = re.compile(r"data:image/.*|(/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk)[\w+/=\s-]{240,}", re.ASCII | re.DOTALL)


class File(Protocol):
    """What is open for reading bytes, or is an upload."""

    def read(self) -> bytes: ...


class Upload(Protocol):
    """What werkzeug (Flask) makes of an upload, whose `read` type checkers do not see."""

    stream: IO[bytes]


Source = str | PathLike[str] | bytes | bytearray | memoryview | File | Upload | Image.Image | NDArray[np.uint8]
_ONE = (str, PathLike, bytes, Image.Image, np.ndarray, Mapping)


def is_one(source: object) -> bool:
    """Whether it is one picture or none, whatever else it could be taken apart into: letters, bytes, rows, keys."""
    response = hasattr(source, "iter_content")  # of requests
    return isinstance(source, _ONE) or has_contents(source) or response


def has_contents(source: object) -> TypeGuard[File | bytearray | memoryview]:
    """Whether it is a buffer, or can be read: files and uploads have no class in common."""
    return isinstance(source, bytearray | memoryview) or (hasattr(source, "read") and not isinstance(source, PathLike))


def contents(file: File | bytearray | memoryview) -> bytes:
    """The rest of a file, or what is in a buffer.

    Raises:
        ImageError: there is none, or it is text.
        ReadError: it cannot be read.
    """
    if isinstance(file, TextIOWrapper):
        raise ImageError("its file is open as text: open it with 'rb'", UNNAMED)
    try:
        data = bytes(file) if isinstance(file, bytearray | memoryview) else file.read()
    except Exception as error:  # of many kinds: it is closed, or a connection is
        raise ReadError(f"its file cannot be read ({error})", UNNAMED) from None
    if isinstance(data, Coroutine):
        data.close()
        raise ImageError(f"{type(file).__name__} is read by await: give the bytes, await file.read()")
    if not isinstance(data, bytes):
        raise no_picture(file)
    if not data and not isinstance(file, bytearray | memoryview):
        raise ImageError("its file is empty, or has been read to its end: seek(0) goes back", UNNAMED)
    return data


def kept(source: Source) -> Source | ImageError:
    """A picture; of what may be filled anew for the next one (array, buffer, file) a copy, or why there is none."""
    if isinstance(source, np.ndarray):
        return source.copy()
    try:
        return contents(source) if has_contents(source) else source
    except ImageError as error:
        return error


def no_picture(source: object) -> ImageError:
    """What to raise of something else."""
    return ImageError(
        f"{type(source).__name__} is not a picture: give a path, encoded bytes, a binary file, a Pillow image or a "
        "uint8 array (H, W, 3), or several of these"
    )


def is_address(text: object) -> bool:
    """Whether it is one such as https://... or s3://..., and no path of Windows such as C://photos."""
    return re.match(r"[A-Za-z][\w+.-]+://", str(text)) is not None


def check_path(path: str | PathLike[str]) -> None:
    """Refuse what apps may take for the path of a picture: an address, or all of the picture as text.

    Raises:
        ImageError: it is one of these.
    """
    if is_address(path):
        raise ImageError("nothing is fetched from elsewhere: download the picture first", str(path))
    if _TEXT.fullmatch(str(path)) and not os.path.exists(path):
        raise ImageError("the picture is given as text: give its bytes, as base64.b64decode makes them of base64")
