"""Out-of-distribution pictures, of which no classifier of photos knows anything: noise, colours, textures, digits.

Each is a function of its number alone. Notation: `N` pictures, `S` side in pixels.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cifar_onnx.images import Pixels
from cifar_onnx.resizing import resize

COUNT = 100  # of each kind
_DIGIT_NAME = re.compile(  # words of a class's name, which underscores may part, too
    r"(?<![^\W_])(\d|digits?\d?|zero|one|two|three|four|five|six|seven|eight|nine)(?![^\W_])", re.IGNORECASE
)


def make(size: int, classes: Sequence[str], first: int = 0) -> Iterator[tuple[str, Pixels]]:
    """Pictures uint8 `(N, S, S, 3)` of one kind after the other, `COUNT` of each; no digits for a classifier of digits.

    Args:
        size: `S`.
        classes: names of what the classifier knows.
        first: the number of the first; a score that was chosen by some is judged by others.
    """
    knows_digits = any(name.isdigit() or _DIGIT_NAME.search(name) for name in classes)
    kinds = {name: kind for name, kind in _KINDS.items() if name != "digits" or not knows_digits}
    numbers = range(first, first + COUNT)
    for name, kind in kinds.items():
        pictures = (kind(np.random.default_rng([0, number]), size) for number in numbers)
        yield name, np.fromiter(pictures, np.dtype((np.uint8, (size, size, 3))), COUNT)


def _noise(generator: np.random.Generator, size: int) -> Pixels:
    """Independent pixels, of all values or around grey, in colour or grey."""
    shape = (size, size, int(generator.choice([1, 3])))
    values = generator.uniform(0, 256, shape) if generator.random() < 0.5 else generator.normal(128, 50, shape)
    return _pixels(values, size)


def _plain(generator: np.random.Generator, size: int) -> Pixels:
    """One colour."""
    return _pixels(generator.uniform(0, 256, 3), size)


def _texture(generator: np.random.Generator, size: int) -> Pixels:
    """Two colours mixed by a pattern that goes on and on: stripes, a checkerboard, rings or blotches."""
    y, x = np.mgrid[:size, :size] / size - generator.random((2, 1, 1))
    angle, waves = generator.uniform(0, np.pi), generator.uniform(2, 8)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    turn = 2 * np.pi * waves
    match generator.integers(4):
        case 0:
            pattern = np.sin(turn * along)
        case 1:
            pattern = np.sign(np.sin(turn * along) * np.sin(turn * across))
        case 2:
            pattern = np.sin(turn * np.hypot(x, y))
        case _:
            grains = generator.normal(size=(size, size))
            spectrum = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)) * size
            grains = np.fft.ifft2(np.fft.fft2(grains) * np.exp(-((spectrum - waves) ** 2) / 4)).real
            pattern = np.clip(grains / (2 * grains.std()), -1, 1)
    share = (pattern[..., None] + 1) / 2
    first, second = generator.uniform(0, 256, (2, 3))
    return _pixels(share * first + (1 - share) * second, size)


def _digit(generator: np.random.Generator, size: int) -> Pixels:
    """A handwritten digit of scikit-learn's, black on white or the reverse."""
    pictures = _digits()
    picture = pictures[generator.integers(len(pictures))] * (255 / 16)
    picture = 255 - picture if generator.random() < 0.5 else picture
    return resize(_pixels(picture[..., None], len(picture)), size)


@cache
def _digits() -> NDArray[np.float64]:
    """`(1797, 8, 8)`, from 0 to 16."""
    from sklearn.datasets import load_digits

    pictures: NDArray[np.float64] = load_digits().images
    return pictures


def _pixels(values: NDArray[np.float64], size: int) -> Pixels:
    """Colours as `(S, S, 3)`."""
    whole = np.broadcast_to(values, (size, size, 3))
    return np.clip(whole, 0, 255).astype(np.uint8)


_KINDS: dict[str, Callable[[np.random.Generator, int], Pixels]] = {
    "noise": _noise,
    "plain colours": _plain,
    "textures": _texture,
    "digits": _digit,
}
