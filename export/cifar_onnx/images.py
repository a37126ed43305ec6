"""Pictures to pixels: the one decoder that training, export and inference share.

Notation: `H W` height and width of the picture.
"""

import hashlib
import io
import os
import struct
from contextlib import suppress
from os import PathLike
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from cifar_onnx import picture_parts
from cifar_onnx.errors import EMPTY, ImageError, ReadError
from cifar_onnx.sources import UNNAMED, Source, check_path, contents, has_contents, no_picture

Pixels = NDArray[np.uint8]

# Pillow's rarer decoders are where most of its security advisories come from: they stay off.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP")
_PHONES = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif")  # how HEIC and AVIF begin, after four bytes
_UPRIGHT = {  # by what EXIF says of the orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GREY_STEPS: dict[object, int] = {"L;2": 85, "L;4": 17}  # Pillow scales a PNG's levels but the transparent one
MAX_PIXELS = 100_000_000  # 300 MB once decoded; a 230 KB file can claim more
MAX_SIDE = 65_535  # pixels, as JPEG's
_SLOW = {  # what Pillow decodes in Python, pixel by pixel
    "bmp_rle": "a run-length encoded BMP",
    "ppm": "a PPM or PGM whose levels do not end at 255",
}
_SLOWER = 256  # times as many other pixels take as long
_PART = 60_000  # pixels that are copied at once
_CHUNK = 256  # pictures, or lines of one, that are hashed at once


class Pictures(Protocol):
    """Pictures `(N, S, S, 3)`, uint8: an array, or what copies them from disk when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


def decode(source: Source, limit: int = MAX_PIXELS) -> Pixels:
    """Decode a picture to upright RGB.

    EXIF orientation is applied, transparency is laid over white, 16-bit grey is scaled to 8 bits, and of an animation
    the first frame is taken.

    Args:
        source: path, encoded bytes, a binary file, which is read from where it stands to its end, Pillow image, or an
            array: uint8 `(H, W, 3)` in RGB order, or `(H, W)` grey.
        limit: pixels that a picture may have, but for an array.

    Returns:
        uint8 `(H, W, 3)`.

    Raises:
        ImageError: the picture cannot be decoded; the message names the file, where there is one, and the reason.
        ReadError: of these, its file cannot be read.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if has_contents(source):
        source = contents(source)
    if not isinstance(source, str | PathLike | bytes | Image.Image):
        raise no_picture(source)
    if isinstance(source, str):
        check_path(source)
    name = UNNAMED if isinstance(source, bytes | Image.Image) else os.fsdecode(source)
    try:
        if isinstance(source, Image.Image):
            if isinstance(source, JpegImageFile) and source.fp:
                picture_parts.check(source.fp)
            return _upright_rgb(source, limit)
        with _file(source) as file, opened(file) as image:
            return _upright_rgb(image, limit)
    except FileNotFoundError:
        raise ReadError("no such file", name) from None
    except IsADirectoryError:
        raise ImageError("is a folder, not a picture", name) from None
    except Image.DecompressionBombError:  # of Pillow's own limit, which is higher
        raise ImageError(f"it has more pixels than the limit of {limit:,}", name) from None
    except ImageError as error:
        raise ImageError(error.reason, name) from None
    except MemoryError:
        raise ReadError("there is not enough memory to decode it", name) from None
    except Exception as error:  # Pillow raises nearly anything for cut or rotten files
        if isinstance(error, OSError) and error.strerror:  # permission denied, for one
            raise ReadError(f"cannot be read ({error.strerror})", name) from None
        raise ImageError(f"cannot be decoded ({error})", name) from None


def opened(file: IO[bytes]) -> ImageFile:
    """A picture whose pixels are not decoded yet."""
    try:
        return Image.open(picture_parts.counted(file), formats=FORMATS)
    except UnidentifiedImageError:
        file.seek(0)
        beginning = file.read(12)
        if not beginning:
            raise ImageError(EMPTY) from None
        advice = ": convert it to JPEG" if beginning[4:] in _PHONES else ""
        raise ImageError(f"not a picture in one of the formats {', '.join(FORMATS)}{advice}") from None


def _file(source: str | PathLike[str] | bytes) -> IO[bytes]:
    file = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115
    if file.seekable():
        return file
    with file:  # a pipe
        return io.BytesIO(file.read())


def _from_array(array: NDArray[np.uint8]) -> Pixels:
    if array.dtype != np.uint8 or array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ImageError(
            f"an array of dtype {array.dtype} and shape {array.shape} is not a picture: "
            "give uint8 of shape (H, W, 3) in RGB order, or (H, W) for grey; for many, a list of these"
        )
    return array if array.ndim == 3 else np.repeat(array[:, :, None], 3, axis=2)


def _upright_rgb(image: Image.Image, limit: int) -> Pixels:
    if not all(image.size):
        raise ImageError(f"{image.width} x {image.height} pixels are no picture")
    if image.width * image.height > limit:
        raise ImageError(f"{image.width} x {image.height} pixels are more than the limit of {limit:,}")
    if max(image.size) > MAX_SIDE:
        raise ImageError(f"{image.width} x {image.height} pixels: no side may be longer than {MAX_SIDE:,}")
    tiles = image.tile if isinstance(image, ImageFile) else []
    if any(tile.codec_name == "ppm_plain" for tile in tiles):
        raise ImageError("its pixels are written as text (plain PPM), which is slow to read: save it as PNG")
    for tile in tiles:
        if tile.codec_name in _SLOW and image.width * image.height > limit // _SLOWER:
            slow = _SLOW[tile.codec_name]
            raise ImageError(f"{slow} of more than {limit // _SLOWER:,} pixels is slow to read: save it as PNG")
    if image.mode == "F":
        raise ImageError("floating-point pixels have no fixed range: convert them to 8 bits first")
    step = next((_GREY_STEPS.get(tile.args) for tile in tiles if tile.codec_name == "zip"), None)
    image.load()  # a PNG may hold its EXIF behind the pixels
    if step and image.info.get("transparency", 256) * step <= 255:  # beyond, Pillow has come to scale that, too
        image.info["transparency"] *= step
    exif = Image.Exif()
    with suppress(SyntaxError, struct.error):  # what is no EXIF turns no picture, as in browsers
        exif.load(image.info.get("exif") or b"")  # Pillow's getexif looks at XMP besides, which browsers do not
    turn = _UPRIGHT.get(exif.get(ExifTags.Base.Orientation, 1))
    if turn is not None:  # FLIP_LEFT_RIGHT is 0
        image = image.transpose(turn)
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own convert("RGB") would clip it to white
        grey = np.asarray(image).astype(np.uint32)  # in which those below 0 are the highest
        if grey.max() > 65535:
            raise ImageError("32-bit pixels have no fixed range: convert them to 8 bits first")
        return _from_array(((grey + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return _copied(image if image.mode == "RGB" else image.convert("RGB"))


def _copied(image: Image.Image) -> Pixels:
    """The pixels of an RGB image: of a large one part by part, since Pillow copies on the way all that it is asked for.

    Memory that the system clears for such copies, each time anew, would take as long as decoding.
    """
    lines = max(1, _PART // image.width)
    if lines >= image.height:
        return np.array(image)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for start in range(0, image.height, lines):
        end = min(start + lines, image.height)
        pixels[start:end] = np.asarray(image.crop((0, start, image.width, end)))
    return pixels


def encode_png(pixels: Pixels) -> bytes:
    """Encode uint8 `(H, W, 3)`, or `(H, W, 4)` with transparency, losslessly."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def fingerprint(pixels: Pictures) -> str:
    """What tells a decoded picture, or several, from others: 128 bits over shape and pixels, in hexadecimal."""
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
    for start in range(0, len(pixels), _CHUNK):
        digest.update(pixels[start : start + _CHUNK].tobytes())
    return digest.hexdigest()
