"""Corruptions of pictures by kind and severity, to measure how much of its accuracy a classifier keeps.

After Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261, with the constants of CIFAR-10-C from
https://github.com/hendrycks/robustness (`make_cifar_c.py`), in NumPy and Pillow alone. Accuracies compare with each
other, not with those published on CIFAR-10-C: the random draws are others, and so are some ways of drawing.

Each kind is a function of one picture `x`, float32 `(H, W, 3)` from 0 to 1, and of its seed: a batch cannot leak into a
result. A seed gives the same angle, cloud or noise at each severity: severities differ in strength, not in luck.

Notation: `H W` height and width; the `unit` is a 32nd of the shorter side, and lengths are in units, so that a severity
looks alike at any size. Noise is per pixel, and the finer the larger the picture.
"""

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifar_onnx.images import Pixels

Floats = NDArray[np.float32]

SEVERITIES = (1, 2, 3, 4, 5)
_TURQUOISE = np.array([175, 238, 238], np.float32) / 255
_MUD = np.array([63, 42, 20], np.float32) / 255


def gaussian_noise(x: Floats, severity: int, seed: int) -> Floats:
    """Add normal noise, as a sensor does in the dark."""
    deviation = np.float32((0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1])
    return x + deviation * _stream(seed).standard_normal(x.shape, np.float32)


def shot_noise(x: Floats, severity: int, seed: int) -> Floats:
    """Count photons: Poisson with a mean of so many for white."""
    photons = (500, 250, 100, 75, 50)[severity - 1]
    return (_stream(seed).poisson(x * photons) / photons).astype(np.float32)


def impulse_noise(x: Floats, severity: int, seed: int) -> Floats:
    """Set a share of all values to 0 or 1, half each."""
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    chance = _stream(seed).random(x.shape, np.float32)
    return np.where(chance < share, chance < share / 2, x)


def defocus_blur(x: Floats, severity: int, _: int) -> Floats:
    """Average over a disc that spreads as the published kernels do, with variances 0.08, 0.21, 0.33, 0.4 and 0.67."""
    radius = (0.2, 0.5, 0.78, 0.94, 1.42)[severity - 1]
    return _convolved(x, _disc(radius * _unit(x)))


def motion_blur(x: Floats, severity: int, seed: int) -> Floats:
    """Smear to one side, within 45 degrees of the horizontal, by half a normal curve.

    Published are the deviations 1, 1.5, 2, 2, 2.5 with supports that cut nothing off: 3 and 4 would be the same.
    """
    deviation = (1, 1.5, 2, 2.25, 2.5)[severity - 1] * _unit(x)
    angle = np.deg2rad(_stream(seed).uniform(-45, 45))
    along = np.arange(0, 3 * deviation, 0.5)  # (P,)
    return _convolved(x, _kernel(np.sin(angle) * along, np.cos(angle) * along, np.exp(-((along / deviation) ** 2) / 2)))


def zoom_blur(x: Floats, severity: int, _: int) -> Floats:
    """Average over the zooms from 1 to a little more, in steps of a pixel at the border."""
    zoom = (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1]
    height, width = x.shape[:2]
    image = _image(x)
    total = np.zeros_like(x)
    zooms = np.linspace(1, zoom, 2 + int(max(height, width) / 2 * (zoom - 1)))
    for margin in (1 - 1 / zooms) / 2:
        box = (margin * width, margin * height, (1 - margin) * width, (1 - margin) * height)
        total += np.asarray(image.resize(image.size, Image.Resampling.BILINEAR, box))
    return total / np.float32(255 * len(zooms))


def brightness(x: Floats, severity: int, _: int) -> Floats:
    """Add to the value of HSV: hue and saturation stay."""
    more = np.float32((0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1])
    value: Floats = x.max(axis=2, keepdims=True)  # (H, W, 1)
    colour: Floats = np.divide(x, value, out=np.ones_like(x), where=value > 0)
    colour *= np.minimum(value + more, 1)
    return colour


def fog(x: Floats, severity: int, seed: int) -> Floats:
    """Lay clouds over the picture: noise whose amplitude falls with frequency, as that of the published plasma does."""
    density, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity - 1]  # decay from octave to octave
    noise, frequency = _spectrum(x, seed)
    frequency[0, 0] = np.inf
    cloud = np.fft.irfft2(noise * frequency ** -(1 + np.log2(decay)), s=x.shape[:2])
    cloud = (cloud - cloud.min()) / np.ptp(cloud)
    foggy: Floats = (x + density * cloud[:, :, None]) / (1 + density)
    return foggy


def spatter(x: Floats, severity: int, seed: int) -> Floats:
    """Splash water, and from severity 4 mud, where blurred noise is above so many deviations.

    Published is a painting of drops by edges and distances; here are drops of like size that cover a like share.
    """
    size, level, opacity = ((0.7, 2, 0.5), (0.8, 1.4, 0.5), (1, 0.9, 0.5), (0.7, 1.2, 1), (0.8, 0.7, 1))[severity - 1]
    noise, frequency = _spectrum(x, seed)
    blurred = noise * np.exp(-2 * (np.pi * size * _unit(x) * frequency) ** 2)
    drops: Floats = np.fft.irfft2(blurred, s=x.shape[:2]).astype(np.float32, copy=False)
    film = opacity * np.clip(2 * (drops / drops.std() - level), 0, 1)[:, :, None]
    splashed: Floats = x + film * ((_TURQUOISE if severity < 4 else _MUD) - x)
    return splashed


def contrast(x: Floats, severity: int, _: int) -> Floats:
    """Draw every value towards the mean of its channel."""
    rest = np.float32((0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1])
    mean: Floats = x.mean(axis=(0, 1))  # (3,)
    return mean + rest * (x - mean)


def saturate(x: Floats, severity: int, _: int) -> Floats:
    """Wash out, and from severity 4 exaggerate, the saturation of HSV; grey stays grey.

    Published is (1.5, 0) instead of (0.6, 0), as the third: weaker than the first.
    """
    factor, more = ((0.6, 0), (0.3, 0), (0.1, 0), (2, 0.1), (2.5, 0.2))[severity - 1]
    value: Floats = x.max(axis=2, keepdims=True)  # (H, W, 1)
    chroma = value - x.min(axis=2, keepdims=True)
    saturation: Floats = np.divide(chroma, value, out=np.ones_like(value), where=chroma > 0)
    change: Floats = np.clip(factor * saturation + more, 0, 1) / saturation
    return value - (value - x) * change


def jpeg(x: Floats, severity: int, _: int) -> Floats:
    """Compress as JPEG; quality falls with the root of the unit, about as published for 64 and 224 pixels."""
    quality = (80, 65, 58, 50, 40)[severity - 1] / max(1, _unit(x)) ** 0.5
    buffer = io.BytesIO()
    _image(x).save(buffer, "JPEG", quality=round(quality))
    return _floats(Image.open(buffer))


def pixelate(x: Floats, severity: int, _: int) -> Floats:
    """Draw with fewer pixels; their share falls with the root of the unit, about as published for 64 and 224."""
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1] / max(1, _unit(x)) ** 0.5
    image = _image(x)
    small = image.resize((int(share * image.width), int(share * image.height)), Image.Resampling.BOX)
    return _floats(small.resize(image.size, Image.Resampling.BOX))


_FUNCTIONS = {
    function.__name__: function
    for function in (
        *(gaussian_noise, shot_noise, impulse_noise),
        *(defocus_blur, motion_blur, zoom_blur),
        *(brightness, fog, spatter),
        *(contrast, saturate, jpeg, pixelate),
    )
}
KINDS = tuple(_FUNCTIONS)


def corrupt(pixels: Pixels, kind: str, severity: int, seeds: Sequence[int]) -> Pixels:
    """Corrupt each picture on its own: its result does not depend on the others, nor on the order.

    Args:
        pixels: uint8 `(N, H, W, 3)`; made for sides from 8 to 512.
        kind: one of `KINDS`.
        severity: from 1, weak, to 5, strong.
        seeds: one per picture, from 0 without limit; kinds that draw nothing at random ignore them.

    Returns:
        uint8 `(N, H, W, 3)`.
    """
    corrupted = np.empty_like(pixels)
    for picture, seed, result in zip(pixels, seeds, corrupted, strict=True):
        result[:] = _bytes(_FUNCTIONS[kind](_floats(picture), severity, seed))
    return corrupted


def _stream(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def _unit(x: Floats) -> float:
    return float(min(x.shape[:2])) / 32


def _bytes(x: Floats) -> Pixels:
    return (np.clip(x, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


def _floats(pixels: Pixels | Image.Image) -> Floats:
    return np.asarray(pixels, np.float32) / np.float32(255)


def _image(x: Floats) -> Image.Image:
    return Image.fromarray(_bytes(x))


def _spectrum(x: Floats, seed: int) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """Spectrum of white noise, and the frequency in cycles per pixel: both `(H, W // 2 + 1)`."""
    height, width = x.shape[:2]
    noise = np.fft.rfft2(_stream(seed).standard_normal((height, width)))
    return noise, np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))


@cache
def _disc(radius: float) -> Floats:
    y, x = radius * np.mgrid[-1:1:129j, -1:1:129j].reshape(2, -1)
    return _kernel(y, x, np.hypot(y, x) <= radius)


def _kernel(y: NDArray[np.float64], x: NDArray[np.float64], weights: NDArray[np.generic]) -> Floats:
    """Kernel `(2R + 1, 2R + 1)` with sum 1 of weighted points `(P,)`: each is shared by its four pixels bilinearly."""
    radius = int(np.ceil(max(np.abs(y).max(), np.abs(x).max())))
    pixel = np.arange(-radius, radius + 1)[:, None]
    rows = np.maximum(0, 1 - np.abs(pixel - y)) * weights  # (2R + 1, P)
    columns = np.maximum(0, 1 - np.abs(pixel - x))  # (2R + 1, P)
    kernel: NDArray[np.float64] = rows @ columns.T
    kernel /= kernel.sum()
    return kernel.astype(np.float32)


def _convolved(x: Floats, kernel: Floats) -> Floats:
    """Convolve each channel with `(2R + 1, 2R + 1)`, by FFT, as if the picture were mirrored at its borders."""
    radius = len(kernel) // 2
    padded = np.pad(x.transpose(2, 0, 1), ((0, 0), (radius, radius), (radius, radius)), "reflect")
    size = padded.shape[1:]  # H + 2R, W + 2R
    whole = np.fft.irfft2(np.fft.rfft2(padded) * np.fft.rfft2(kernel, s=size), s=size)  # (3, H + 2R, W + 2R)
    return whole[:, 2 * radius :, 2 * radius :].transpose(1, 2, 0).astype(np.float32, copy=False)
