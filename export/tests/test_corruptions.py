import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from cifar_onnx.evaluation import corruptions
from cifar_onnx.evaluation.corruptions import KINDS, SEVERITIES, corrupt
from cifar_onnx.images import Pixels

DRAWN = ("gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "fog", "spatter")
BLURS = ("defocus_blur", "motion_blur", "zoom_blur")


def scene(height: int = 32, width: int = 32, turn: float = 0) -> Pixels:
    """A pale sky over green hills, a striped ball, and texture at every scale, as in photographs."""
    y, x = np.mgrid[0:height, 0:width] / (min(height, width) - 1)
    sky = np.stack([130 + 60 * y, 160 + 40 * y, 200 - 10 * y], axis=2)
    hills = np.stack([90 + 20 * x, 120 + 20 * np.sin(9 * x + turn), 80 + 20 * y], axis=2)
    picture = np.where((y > 0.7 + 0.1 * np.sin(5 * x + turn))[..., None], hills, sky)
    stripes = 0.8 + 0.2 * np.sin(30 * x + 9 * turn)
    ball = np.stack([190 - 90 * y, 110 - 30 * y, 90 - 30 * y], axis=2) * stripes[..., None]
    inside = np.hypot(y - 0.5 - 0.1 * np.cos(turn), x - 0.5 - 0.1 * np.sin(turn)) < 0.3
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = np.inf
    noise = np.fft.fft2(np.random.default_rng(round(9 * turn)).standard_normal((height, width)))
    texture = np.fft.ifft2(noise / frequency).real
    picture = np.where(inside[..., None], ball, picture) + 20 * (texture / texture.std())[..., None]
    return np.asarray(picture.clip(0, 255), np.uint8)


def flat(value: int, *shape: int) -> Pixels:
    return np.full((*shape, 3), value, np.uint8)


def difference(a: Pixels, b: Pixels) -> float:
    return float(np.square(a.astype(float) - b).mean())


def test_kinds_are_those_of_the_paper_in_its_order() -> None:
    expected = (
        *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "motion_blur", "zoom_blur"),
        *("brightness", "fog", "spatter", "contrast", "saturate", "jpeg", "pixelate"),
    )
    assert expected == KINDS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 40), (32, 32), (33, 47), (96, 64)])
def test_shape_and_dtype_stay_and_something_changes(kind: str, height: int, width: int) -> None:
    pixels = np.stack([scene(height, width), scene(height, width)[:, ::-1]])
    pixels.setflags(write=False)
    for severity in SEVERITIES:
        corrupted = corrupt(pixels, kind, severity, [1, 2])
        assert corrupted.shape == pixels.shape
        assert corrupted.dtype == np.uint8
    assert all(difference(a, b) > 1 for a, b in zip(corrupted, pixels, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_depends_on_its_picture_and_seed_alone(kind: str) -> None:
    pixels = np.stack([scene(turn=turn) for turn in range(5)])
    seeds = [3, 2**127, 0, 3, 77]
    together = corrupt(pixels, kind, 3, seeds)
    assert np.array_equal(corrupt(pixels, kind, 3, seeds), together)
    order = [4, 2, 0, 1, 3]
    assert np.array_equal(corrupt(pixels[order], kind, 3, [seeds[i] for i in order]), together[order])
    for i in range(5):
        assert np.array_equal(corrupt(pixels[i : i + 1], kind, 3, seeds[i : i + 1])[0], together[i])


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_matter_for_what_is_drawn_and_only_there(kind: str) -> None:
    one, other = corrupt(np.stack([scene()] * 2), kind, 4, [1, 2])
    assert np.array_equal(one, other) == (kind not in DRAWN)


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_each_severity_is_stronger_than_the_one_before(kind: str, side: int) -> None:
    clean = np.stack([scene(side, side, turn / 4) for turn in range(24)])
    strengths = [difference(corrupt(clean, kind, severity, range(24)), clean) for severity in SEVERITIES]
    assert strengths[0] > 0
    assert all(stronger > weaker for weaker, stronger in pairwise(strengths)), strengths


@pytest.mark.parametrize("kind", KINDS)
def test_strength_is_alike_at_every_size(kind: str) -> None:
    seeds = range(8)
    small, large = (
        np.mean([difference(corrupt(clean, kind, severity, seeds), clean) for severity in (3, 4, 5)])
        for clean in (np.stack([scene(side, side, turn) for turn in range(8)]) for side in (32, 128))
    )
    assert 1 / 2 < large / small < 2


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_one_colour_stays_that_colour_where_nothing_is_laid_over_it(value: int, severity: int) -> None:
    clean = flat(value, 1, 24, 32)
    for kind in (*BLURS, "contrast", "saturate", "jpeg", "pixelate"):
        tolerance = 1 if kind == "jpeg" else 0  # its steps may miss a level
        assert np.allclose(corrupt(clean, kind, severity, [5]), value, rtol=0, atol=tolerance), kind


def test_white_does_not_wrap_around_to_black() -> None:
    clean = flat(250, 1, 32, 32)
    assert corrupt(clean, "brightness", 5, [0]).min() == 255
    assert corrupt(clean, "gaussian_noise", 5, [0]).min() > 100
    assert corrupt(clean, "shot_noise", 5, [0]).min() > 60
    assert corrupt(flat(2, 1, 32, 32), "gaussian_noise", 5, [0]).max() < 150


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.04), (5, 0.10)])
def test_gaussian_noise_has_the_published_deviation(severity: int, deviation: float) -> None:
    noisy = corrupt(flat(128, 4, 32, 32), "gaussian_noise", severity, range(4)) / 255
    assert noisy.mean() == pytest.approx(128 / 255, abs=0.005)
    assert noisy.std() == pytest.approx(deviation, rel=0.03)


@pytest.mark.parametrize(("severity", "photons"), [(1, 500), (5, 50)])
def test_variance_of_shot_noise_is_brightness_over_photons(severity: int, photons: int) -> None:
    noisy = corrupt(flat(102, 4, 32, 32), "shot_noise", severity, range(4)) / 255
    assert noisy.mean() == pytest.approx(0.4, abs=0.005)
    assert noisy.var() == pytest.approx(0.4 / photons, rel=0.06)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.01), (3, 0.03), (5, 0.07)])
def test_impulse_noise_changes_the_published_share_half_to_black_and_half_to_white(severity: int, share: float) -> None:
    noisy = corrupt(flat(128, 9, 32, 32), "impulse_noise", severity, range(9))
    assert set(np.unique(noisy)) == {0, 128, 255}
    assert (noisy != 128).mean() == pytest.approx(share, rel=0.15)
    assert (noisy == 0).mean() == pytest.approx((noisy == 255).mean(), rel=0.25)


@pytest.mark.parametrize("kind", BLURS)
def test_blurs_keep_the_mean_and_add_no_new_extremes(kind: str) -> None:
    clean = scene()[None]
    blurred = corrupt(clean, kind, 5, [0])
    assert blurred.mean() == pytest.approx(clean.mean(), abs=4)
    assert clean.min() <= blurred.min()
    assert blurred.max() <= clean.max()


@pytest.mark.parametrize(("severity", "variance"), [(2, 0.21), (3, 0.33), (4, 0.40), (5, 0.67)])
def test_defocus_spreads_a_point_round_and_with_the_published_variance(severity: int, variance: float) -> None:
    point = flat(0, 1, 32, 32)
    point[0, 16, 16] = 255
    spread = corrupt(point, "defocus_blur", severity, [0])[0, :, :, 0].astype(float)
    assert np.array_equal(spread, spread.T)
    across = spread.sum(axis=0) / spread.sum()
    assert across @ (np.arange(32) - 16) ** 2 == pytest.approx(variance, abs=0.03)  # rounded to whole levels


def test_motion_smears_a_point_along_one_line_within_45_degrees() -> None:
    points, seen = flat(0, 20, 64, 64), []
    points[:, 32, 32] = 255
    for smeared in corrupt(points, "motion_blur", 3, range(20))[..., 0]:
        y, x = np.array(np.nonzero(smeared > 4)) - 32
        end = np.hypot(y, x).argmax()
        assert x[end] >= abs(y[end])
        assert np.abs((x[end] * y - y[end] * x) / np.hypot(x[end], y[end])).max() < 1.5  # distances from the line
        seen.append(np.sign(y[end]))
    assert {-1, 1} <= set(seen)


def test_convolution_equals_the_naive_sum_with_mirrored_borders() -> None:
    generator = np.random.default_rng(0)
    x = generator.random((9, 12, 3), np.float32)
    kernel = generator.random((5, 5), np.float32)
    padded = np.pad(x, ((2, 2), (2, 2), (0, 0)), "reflect")
    naive = sum(kernel[i, j] * padded[4 - i : 13 - i, 4 - j : 16 - j] for i in range(5) for j in range(5))
    assert np.allclose(corruptions._convolved(x, kernel), naive, atol=1e-5)


def test_zoom_blurs_the_border_more_than_the_centre() -> None:
    stripes = flat(60, 1, 32, 32)
    stripes[:, :, 2::4] = stripes[:, :, 3::4] = 200
    change = np.abs(corrupt(stripes, "zoom_blur", 5, [0]).astype(int) - stripes)
    assert change[:, :, 14:18].mean() < change[:, :, :4].mean() / 2


def test_brightness_adds_to_the_value_and_keeps_the_hue() -> None:
    clean = np.array([[[100, 50, 0], [0, 0, 0], [200, 200, 240]]], np.uint8)[None]
    brighter = corrupt(clean, "brightness", 4, [0])  # by 0.2 * 255 = 51
    assert brighter.tolist() == [[[[151, 76, 0], [51, 51, 51], [213, 213, 255]]]]


def test_fog_is_between_the_picture_and_white_and_smooth() -> None:
    for severity, density in ((1, 0.2), (5, 1.5)):
        black, white = corrupt(np.stack([flat(0, 64, 64), flat(255, 64, 64)]), "fog", severity, [4, 4]).astype(int)
        assert np.abs(white - black - round(255 / (1 + density))).max() <= 1
        assert black.min() == 0
        assert black.max() == pytest.approx(255 * density / (1 + density), abs=0.5)
        assert np.abs(np.diff(black, axis=0)).mean() < black.std() / 2


def test_spatter_is_water_and_then_mud_on_part_of_the_picture() -> None:
    grey = flat(128, 8, 64, 64)
    shares = []
    for severity in SEVERITIES:
        splashed = corrupt(grey, "spatter", severity, range(8)).astype(int)
        changed = (splashed != 128).any(axis=3)
        shares.append(changed.mean())
        red, _, blue = splashed[changed].mean(axis=0)
        assert 128 < red < blue if severity < 4 else 128 > red > blue
    assert min(shares) > 0.005
    assert max(shares) < 0.3


def test_contrast_draws_two_levels_to_their_mean() -> None:
    halves = flat(64, 1, 8, 8)
    halves[:, 4:] = 192
    assert np.array_equal(corrupt(halves, "contrast", 2, [0]), np.where(halves == 64, 96, 160))  # 128 -+ 64 / 2


def test_saturate_washes_out_and_exaggerates() -> None:
    clean = np.array([[[200, 100, 100], [90, 90, 90]]], np.uint8)[None]  # saturation 1/2, and grey
    assert corrupt(clean, "saturate", 3, [0]).tolist() == [[[[200, 190, 190], [90, 90, 90]]]]
    assert corrupt(clean, "saturate", 5, [0]).tolist() == [[[[200, 0, 0], [90, 90, 90]]]]


def test_jpeg_is_that_of_pillow() -> None:
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, "JPEG", quality=40)
    assert np.array_equal(corrupt(scene()[None], "jpeg", 5, [0])[0], np.asarray(Image.open(buffer)))


def test_pixelate_makes_blocks() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), np.uint8)
    blocks = corrupt(noise, "pixelate", 5, [0])[0]  # 0.65 / sqrt(128 / 32) * 128 = 41 blocks a side
    for lines in (blocks, blocks.transpose(1, 0, 2)):
        assert np.any(lines[1:] != lines[:-1], axis=(1, 2)).sum() == 40


def test_each_picture_needs_its_seed() -> None:
    with pytest.raises(ValueError, match="zip"):
        corrupt(flat(128, 2, 8, 8), "fog", 1, [0])
    assert corrupt(flat(128, 0, 8, 8), "fog", 1, []).shape == (0, 8, 8, 3)
