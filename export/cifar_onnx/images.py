"""Pictures to pixels: the one decoder and the one resize rule that training, export and inference share.

Notation: `H W` height and width of the picture, `S` side of the square that the net sees.
"""

import hashlib
import io
import os
import struct
from contextlib import suppress
from functools import lru_cache
from os import PathLike
from typing import IO, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from cifar_onnx import jpeg
from cifar_onnx.errors import ImageError, ReadError

Pixels = NDArray[np.uint8]
Weights = NDArray[np.float32]
Source = str | PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
ResizeMode = Literal["stretch", "crop", "pad"]

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
PAD_VALUE = 128  # mid-grey, where mode `pad` has no picture
MAX_SIDE = 65_535  # pixels, as JPEG's
# Weights of the resize are whole numbers of steps. So float32 adds them, and pixels times weights, without rounding
# (sums stay below 2^24 where S is 8 or more): every runtime on every machine sees the same pixels, in whatever order it
# adds.
TRIANGLE_STEPS = 2048
WEIGHT_STEPS = 8192
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
        source: path, encoded bytes, Pillow image, or an array: uint8 `(H, W, 3)` in RGB order, or `(H, W)` grey.
        limit: pixels that a picture may have.

    Returns:
        uint8 `(H, W, 3)`.

    Raises:
        ImageError: the picture cannot be decoded; the message names the file, where there is one, and the reason.
        ReadError: of these, its file cannot be read.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if not isinstance(source, str | PathLike | bytes | Image.Image):
        raise ImageError(
            f"{type(source).__name__} is not a picture: give a path, encoded bytes, a Pillow image or a uint8 array "
            "(H, W, 3), or several of these"
        )
    name = "the picture" if isinstance(source, bytes | Image.Image) else os.fsdecode(source)
    try:
        if isinstance(source, Image.Image):
            if isinstance(source, JpegImageFile) and source.fp:
                jpeg.check(source.fp)
            return _upright_rgb(source, limit)
        with _file(source) as file, opened(file) as image:
            return _upright_rgb(image, limit)
    except FileNotFoundError:
        raise ReadError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder, not a picture") from None
    except Image.DecompressionBombError:  # of Pillow's own limit, which is higher
        raise ImageError(f"{name}: it has more pixels than the limit of {limit:,}") from None
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except MemoryError:
        raise ReadError(f"{name}: there is not enough memory to decode it") from None
    except Exception as error:  # Pillow raises nearly anything for cut or rotten files
        if isinstance(error, OSError) and error.strerror:  # permission denied, for one
            raise ReadError(f"{name}: cannot be read ({error.strerror})") from None
        raise ImageError(f"{name}: cannot be decoded ({error})") from None


def opened(file: IO[bytes]) -> ImageFile:
    """A picture whose pixels are not decoded yet."""
    jpeg.check(file)
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        file.seek(0)
        advice = ": convert it to JPEG" if file.read(12)[4:] in _PHONES else ""
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
    if image.mode == "F":
        raise ImageError("floating-point pixels have no fixed range: convert them to 8 bits first")
    step = next((_GREY_STEPS.get(tile.args) for tile in tiles if tile.codec_name == "zip"), None)
    image.load()  # a PNG may hold its EXIF behind the pixels
    if step and "transparency" in image.info:
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
    return np.array(image.convert("RGB"))


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


def resize(pixels: Pixels, size: int, mode: ResizeMode = "stretch") -> Pixels:
    """Antialiased bilinear resize to a square, as two matrix products with triangle weights.

    The same formula is in the exported graph, which gives the same pixels on every machine, and within one grey level
    of Pillow's `BILINEAR`: both passes round to whole grey levels, columns first.

    Args:
        pixels: uint8 `(H, W, 3)`.
        size: `S`.
        mode: `stretch` both sides to `S`; `crop` the central square; `pad` to a square with mid-grey.

    Returns:
        uint8 `(S, S, 3)`.
    """
    height, width = pixels.shape[:2]
    if height == width == size:
        return pixels
    rows, columns = resize_weights(height, width, size, mode)
    half = np.float32(0.5)

    planes = []
    for channel in range(3):  # one after the other takes a third of the memory
        wide = np.floor(pixels[:, :, channel].astype(np.float32) @ columns.T + half)  # (H, S)
        planes.append(np.floor(rows @ wide + half))  # (S, S)
    x = np.stack(planes)
    if mode == "pad":
        inside = np.outer(rows.any(axis=1), columns.any(axis=1))
        x = np.where(inside, x, np.float32(PAD_VALUE))
    return np.ascontiguousarray(x.transpose(1, 2, 0)).astype(np.uint8)


@lru_cache(maxsize=4)  # photos of one camera have one size, and their weights take a third of a resize or more
def resize_weights(height: int, width: int, size: int, mode: ResizeMode) -> tuple[Weights, Weights]:
    """Weights of the two passes: rows `(S, H)` and columns `(S, W)`, float32; a row of zeros is padding.

    Output pixel `i` looks at the input around `c = begin + (i + 1/2 - margin) * box / extent` with
    `w[i, j] = max(0, 1 - |j + 1/2 - c| / max(box / extent, 1))`, normalised, where `box` input pixels, from `begin`,
    are drawn on `extent` output pixels, from `margin`. Places are computed in units of `1 / (2 extent)` input pixels,
    in which they are whole numbers, and weights are rounded before and after they are normalised.
    """
    short, long = min(height, width), max(height, width)
    one, two = np.float32(1), np.float32(2)

    def axis(length: int) -> Weights:
        box = np.float32(short if mode == "crop" else length)
        extent = np.float32(size)
        if mode == "pad":
            extent = max(one, np.floor(np.float32(length * size) / np.float32(long) + np.float32(0.5)))
        margin = np.floor((np.float32(size) - extent) / two)
        at = (two * np.arange(size, dtype=np.float32) + one - two * margin)[:, None]  # (S, 1)
        place = two * np.arange(length, dtype=np.float32) + one - (np.float32(length) - box)  # (length,)
        distance = np.abs(place * extent - at * box)  # (S, length)
        triangle = np.maximum(np.float32(0), one - distance / (two * max(box, extent)))
        steps = np.floor(triangle * TRIANGLE_STEPS + np.float32(0.5)).astype(np.int64)
        steps *= (at > 0) & (at < two * extent)
        total = np.maximum(steps.sum(axis=1, keepdims=True), 1)
        weights: Weights = ((2 * WEIGHT_STEPS * steps + total) // (2 * total)).astype(np.float32)
        return weights / np.float32(WEIGHT_STEPS)

    return axis(height), axis(width)
