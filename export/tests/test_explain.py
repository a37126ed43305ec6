"""Maps of what supports a class, from functions of pixels whose evidence is known."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_onnx import Classifier, InputError, contract, explain
from cifar_onnx.explain import cam, occlusion
from cifar_onnx.images import Pixels, decode
from cifar_onnx.resizing import resize

COLOURS = np.array([[220, 40, 40], [40, 200, 40], [40, 60, 220]])
SIDE = 8  # of a planted patch


def planted(count: int, size: int = 32) -> list[tuple[Pixels, int, tuple[int, int]]]:
    """Noise with a patch of one colour: pictures, colours and where."""
    generator = np.random.default_rng(0)
    made = []
    for _ in range(count):
        pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
        k, top, left = (int(generator.integers(end)) for end in (3, size - SIDE + 1, size - SIDE + 1))
        pixels[top : top + SIDE, left : left + SIDE] = COLOURS[k]
        made.append((pixels, k, (top, left)))
    return made


def on_patch(heat: np.ndarray, place: tuple[int, int]) -> bool:
    peak = np.unravel_index(heat.argmax(), heat.shape)
    return all(start <= at < start + SIDE for at, start in zip(peak, place, strict=True))


def share_of_each_colour(batch: Pixels) -> np.ndarray:
    """Logits `(B, 3)`: 20 times the share of pixels within 60 grey levels of each colour."""
    near = (np.abs(batch[..., None, :].astype(int) - COLOURS) < 60).all(axis=-1)  # (B, S, S, 3)
    return 20 * near.mean(axis=(1, 2), dtype=np.float32)


class Divided(np.ndarray):
    """Tells of a division that there is not, as numpy does in products on some ARM machines."""

    def __matmul__(self, other: np.ndarray) -> np.ndarray:  # type: ignore[override]
        np.divide(np.ones(2), np.zeros(2))
        return np.asarray(self) @ other


class TestCam:
    def test_nothing_is_said_of_divisions_that_there_are_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        weights = explain.resize_weights
        monkeypatch.setattr(explain, "resize_weights", lambda *way: [each.view(Divided) for each in weights(*way)])
        assert cam(np.ones((4, 4), np.float32), 8).max() == 1

    def test_it_is_pillows_bilinear_of_the_positive_part_over_its_maximum(self) -> None:
        for shape, size in (((4, 4), 32), ((7, 7), 224), ((3, 5), 30), ((8, 8), 8)):
            maps = np.random.default_rng(0).normal(size=shape).astype(np.float32)
            resized = np.asarray(
                Image.fromarray(np.maximum(maps, 0)).resize((size, size), Image.Resampling.BILINEAR), np.float32
            )
            heat = cam(maps, size)
            assert heat.dtype == np.float32
            assert heat.shape == (size, size)
            assert heat.min() >= 0
            assert heat.max() == 1
            assert np.allclose(heat, resized / resized.max(), atol=1e-3)

    @pytest.mark.parametrize("value", [0.0, -3.0])
    def test_where_nothing_speaks_for_the_class_it_is_0(self, value: float) -> None:
        assert not cam(np.full((4, 4), value, np.float32), 32).any()


class TestOcclusion:
    @pytest.mark.parametrize(("count", "size"), [(50, 32), (10, 45)])
    def test_its_peak_is_on_the_planted_patch(self, count: int, size: int) -> None:
        made = planted(count, size)
        assert 0.9 * count <= sum(
            on_patch(occlusion(share_of_each_colour, pixels, k), place) for pixels, k, place in made
        )

    @pytest.mark.parametrize(("size", "square", "step"), [(16, 4, 2), (30, 7, 3)])
    def test_it_is_the_mean_over_the_covering_squares(self, size: int, square: int, step: int) -> None:
        """Pixel by pixel, for a net where only one pixel counts."""
        pixels = np.full((size, size, 3), 10, np.uint8)
        pixels[2, 9] = 250
        heat = occlusion(lambda batch: np.stack([batch[:, 2, 9, 0] / 9, np.zeros(len(batch))], axis=1), pixels, 0)
        starts = range(step - square, size, step)
        expected = np.zeros((size, size))
        for y in range(size):
            for x in range(size):
                covering = [t <= 2 < t + square and s <= 9 < s + square
                            for t in starts if t <= y < t + square for s in starts if s <= x < s + square]  # fmt: skip
                expected[y, x] = np.mean(covering)
        assert np.allclose(heat, expected / expected.max(), atol=1e-6)

    def test_a_certain_net_is_explained_as_well(self) -> None:
        """Its probability is 1 in double precision, covered or not."""
        ((pixels, k, place),) = planted(1)
        heat = occlusion(lambda batch: 1000 + 10_000 * np.eye(3)[[k]] + 50 * share_of_each_colour(batch), pixels, k)
        assert on_patch(heat, place)
        assert heat.max() == 1

    def test_what_speaks_against_the_class_is_0(self) -> None:
        ((pixels, k, (top, left)),) = planted(1)
        other = occlusion(share_of_each_colour, pixels, (k + 1) % 3)
        assert other[top + SIDE // 2, left + SIDE // 2] == 0

    def test_a_picture_of_one_colour_has_nothing_to_cover(self) -> None:
        dark = np.full((32, 32, 3), 9, np.uint8)

        def darkness(batch: Pixels) -> np.ndarray:
            return -np.stack([batch.mean(axis=(1, 2, 3)), np.zeros(len(batch))], axis=1)

        assert not occlusion(darkness, dark, 0).any()

    def test_a_net_that_sees_nothing_gives_0(self) -> None:
        assert not occlusion(lambda batch: np.ones((len(batch), 3), np.float32), planted(1)[0][0], 0).any()

    @pytest.mark.parametrize("size", [1, 2, 7, 32, 37])
    def test_every_size_has_a_map_and_few_pictures_run_together(self, size: int) -> None:
        counts = []

        def brightness(batch: Pixels) -> np.ndarray:
            counts.append(len(batch))
            assert batch.dtype == np.uint8
            assert batch.shape[1:] == (size, size, 3)
            return np.stack([batch.mean(axis=(1, 2, 3)), np.zeros(len(batch))], axis=1).astype(np.float32)

        pixels = np.zeros((size, size, 3), np.uint8)
        pixels[0, 0] = 255
        heat = occlusion(brightness, pixels, 0)
        assert heat.shape == (size, size)
        assert heat.dtype == np.float32
        assert 0 <= heat.min() <= heat.max() <= 1
        assert max(counts) <= 16


class TestClassifier:
    def test_a_file_without_cam_is_explained_by_occlusion(self, model: Path, digits: Path) -> None:
        classifier = Classifier(model)
        for path in digits.iterdir():
            label = path.stem[-1]
            pixels = resize(decode(path), classifier.contract.size, classifier.contract.resize)
            heat = classifier.explain(pixels)
            expected = occlusion(lambda batch: classifier.run(batch)[0], pixels, classifier.classes.index(label))
            assert np.array_equal(heat, expected)
            assert heat.max() == 1
            assert np.array_equal(heat, classifier.explain(pixels, label))
            assert not np.allclose(heat, classifier.explain(pixels, next(c for c in classifier.classes if c != label)))

    def test_pictures_of_any_size_and_kind_have_a_map_of_the_nets_size(self, model: Path, digits: Path) -> None:
        classifier = Classifier(model)
        size = classifier.contract.size
        path = next(digits.iterdir())
        assert np.array_equal(classifier.explain(path), classifier.explain(path.read_bytes()))
        assert classifier.explain(np.zeros((20, 30, 3), np.uint8)).shape == (size, size)

    def test_an_unknown_label_is_refused_with_the_known_ones(self, model: Path) -> None:
        classes = ", ".join(contract.read(model)[1].classes)
        with pytest.raises(InputError, match=rf"unknown class 'ten': the model knows {classes}"):
            Classifier(model).explain(np.zeros((8, 8, 3), np.uint8), "ten")
