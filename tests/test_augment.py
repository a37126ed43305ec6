import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms import v2

from cifar_lightning.augment import (
    AlternatingMirror,
    Augmentation,
    Cutout,
    Draw,
    Mirror,
    RandAugment,
    RandomResizedCrop,
    ShiftedCrop,
    TrivialAugment,
)
from cifar_lightning.mix import CutMix, Mixing, MixUp
from cifar_onnx import InputError
from tests.conftest import BRIEF, Run

IMAGES = torch.randint(0, 256, (64, 3, 12, 10), dtype=torch.uint8, generator=Generator().manual_seed(0))
EVERY = [Mirror(), ShiftedCrop(3), RandomResizedCrop(), Cutout(4), TrivialAugment(4), RandAugment(groups=4)]
LABELS = torch.arange(64) % 5


def draw(augmentation: Augmentation, seed: int = 1, epoch: int = 0) -> Tensor:
    return augmentation(IMAGES, Draw(Generator().manual_seed(seed), torch.arange(len(IMAGES)), epoch))


@pytest.mark.parametrize("augmentation", EVERY)
def test_the_generator_decides_and_nothing_else(augmentation: Augmentation) -> None:
    first = draw(augmentation)
    torch.manual_seed(123)
    assert torch.equal(first, draw(augmentation))
    assert not torch.equal(first, draw(augmentation, seed=2))


@pytest.mark.parametrize("augmentation", [*EVERY, AlternatingMirror()])
def test_shape_and_type_stay(augmentation: Augmentation) -> None:
    before = IMAGES.clone()
    after = draw(augmentation)
    assert after.shape == IMAGES.shape
    assert after.dtype == torch.uint8
    assert torch.equal(IMAGES, before)


@pytest.mark.parametrize("augmentation", [*EVERY, AlternatingMirror()])
def test_channels_stay_last_in_memory(augmentation: Augmentation) -> None:
    """Else the first convolution would copy each batch."""
    images = IMAGES.contiguous(memory_format=torch.channels_last)
    after = augmentation(images, Draw(Generator().manual_seed(1), torch.arange(len(images)), 0))
    assert after.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(after, draw(augmentation))


def test_mirror_flips_about_half_and_leaves_the_rest() -> None:
    flipped = [torch.equal(a, b.flip(2)) for a, b in zip(draw(Mirror()), IMAGES, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(draw(Mirror()), IMAGES, strict=True)]
    assert all(f != k for f, k in zip(flipped, kept, strict=True))
    assert 16 < sum(flipped) < 48


def test_alternating_mirror_shows_each_image_both_ways_in_two_epochs() -> None:
    first, second, third = (draw(AlternatingMirror(), seed, epoch) for seed, epoch in ((1, 0), (2, 1), (3, 2)))
    assert torch.equal(first, second.flip(3))
    assert torch.equal(first, third)
    kept = [torch.equal(a, b) for a, b in zip(first, IMAGES, strict=True)]
    assert 24 <= sum(kept) <= 40


def test_alternating_mirror_knows_an_image_in_any_batch() -> None:
    order = torch.randperm(len(IMAGES), generator=Generator().manual_seed(0))
    shuffled = AlternatingMirror()(IMAGES[order], Draw(Generator(), order, 0))
    assert torch.equal(shuffled, draw(AlternatingMirror())[order])


@pytest.mark.parametrize("pixels", [3, 9])
def test_shifted_crop_is_a_window_of_the_reflected_image(pixels: int) -> None:
    padded = torch.nn.functional.pad(IMAGES.float(), (pixels,) * 4, mode="reflect").to(torch.uint8)
    places, shifts = set(), range(2 * pixels + 1)
    for crop, image in zip(draw(ShiftedCrop(pixels)), padded, strict=True):
        windows = {(y, x): image[:, y : y + 12, x : x + 10] for y in shifts for x in shifts}
        found = [place for place, window in windows.items() if torch.equal(window, crop)]
        assert found
        places.add(found[0])
    assert len(places) > 20


def test_every_shift_comes_up_and_as_often_to_either_side() -> None:
    point = torch.zeros(4000, 3, 9, 9, dtype=torch.uint8)
    point[:, :, 4, 4] = 1
    found = ShiftedCrop(2)(point, Draw(Generator().manual_seed(0), torch.arange(4000), 0))[:, 0]  # (B, H, W)
    for sides in (found.sum(2), found.sum(1)):
        counts = torch.bincount(sides.argmax(1), minlength=9)[2:7]
        assert counts.sum() == 4000
        assert (counts > 650).all()


def test_shifted_crop_refuses_more_than_the_image() -> None:
    with pytest.raises(ValueError, match="cannot shift images of 12 x 10 by 10 pixels"):
        draw(ShiftedCrop(10))


def test_a_resized_crop_is_a_part_of_the_image_of_a_size_and_shape_in_the_ranges() -> None:
    """Each pixel's place as its colour: where the part was cut out can be read off it."""
    side, count = 64, 400
    places = torch.arange(0, 256, 4).expand(side, side)
    images = torch.stack([places, places.T, torch.full_like(places, 9)]).to(torch.uint8).expand(count, -1, -1, -1)
    crop = RandomResizedCrop(scale=(0.2, 0.8), ratio=(0.5, 1.5))
    found = crop(images, Draw(Generator().manual_seed(0), torch.arange(count), 0)).float()
    assert (found[:, 2] == 9).all()
    across, down = found[:, 0].mean(1) / 4, found[:, 1].mean(2) / 4  # (count, side): the column that each was
    sides = []
    for line in (across, down):
        inner = line[:, 1:-1]  # at the rim of the image colours end
        assert (inner.diff().diff().abs() <= 0.51).all()  # in a straight line, but for rounding to a quarter
        sides.append((inner[:, -1] - inner[:, 0]) / (side - 3))
    width, height = sides
    area, ratio = width * height, width / height
    assert area.min() > 0.19
    assert area.max() < 0.82
    assert (area.min() < 0.25, area.max() > 0.7) == (True, True)
    assert ratio.min() > 0.48
    assert ratio.max() < 1.55
    assert (ratio.min() < 0.6, ratio.max() > 1.3) == (True, True)
    for line in (across, down):
        assert line[:, 0].min() < 2  # parts at either end, and none beyond
        assert line[:, -1].max() > side - 3


@pytest.mark.parametrize("ratio", [(1, 1), (3 / 4, 4 / 3), (2, 3)])
def test_a_resized_crop_of_everything_is_the_image(ratio: tuple[float, float]) -> None:
    """Of whatever shape it should be: a side that does not fit is no smaller share."""
    assert torch.equal(draw(RandomResizedCrop((1, 1), ratio)), IMAGES)


@pytest.mark.parametrize("wrong", [{"scale": (0, 1)}, {"scale": (0.5, 1.5)}, {"ratio": (2, 1)}])
def test_a_resized_crop_refuses_what_is_no_range(wrong: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(InputError, match=rf"RandomResizedCrop\.{next(iter(wrong))} is \[.*: give a range, such as"):
        RandomResizedCrop(**wrong)


def test_cutout_greys_one_square_of_each_image() -> None:
    changed = (draw(Cutout(4, value=7)) != IMAGES).any(1)  # (B, H, W)
    greyed = (draw(Cutout(4, value=7)) == 7).all(1)
    for change, grey in zip(changed, greyed, strict=True):
        rows, columns = grey.any(1).nonzero(), grey.any(0).nonzero()
        assert grey[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
        assert 2 <= len(rows) <= 4
        assert 2 <= len(columns) <= 4
        assert not (change & ~grey).any()


@pytest.mark.parametrize("policy", [TrivialAugment, RandAugment])
def test_a_policy_changes_each_part_of_a_batch_in_a_way_of_its_own(policy: type[TrivialAugment | RandAugment]) -> None:
    same = IMAGES[:1].expand(64, -1, -1, -1)
    found = policy(groups=8)(same, Draw(Generator().manual_seed(3), torch.arange(64), 0))
    parts = [part for part in found.chunk(8) if all(torch.equal(part[0], each) for each in part)]
    assert len(parts) == 8
    assert len({part[0].numpy().tobytes() for part in parts}) >= 5
    with pytest.raises(InputError, match="groups is 0: it must be at least 1"):
        draw(policy(groups=0))


def test_a_policy_that_stands_twice_in_a_list_draws_anew() -> None:
    source = Draw(Generator().manual_seed(3), torch.arange(64), 0)
    first, second = (TrivialAugment(8)(IMAGES, source) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, draw(TrivialAugment(8), seed=3))


def mixed(mixing: Mixing, seed: int = 1) -> tuple[Tensor, Tensor]:
    return mixing(IMAGES, LABELS, 5, Draw(Generator().manual_seed(seed), torch.arange(64), 0))


@pytest.mark.parametrize("mixing", [MixUp(1.0), CutMix()])
def test_blends_are_a_function_of_the_generator_and_their_labels_are_shares(mixing: Mixing) -> None:
    before, state = IMAGES.clone(), torch.get_rng_state()
    images, shares = mixed(mixing)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(IMAGES, before)
    assert (images.shape, images.dtype) == (IMAGES.shape, torch.uint8)
    assert shares.shape == (64, 5)
    assert torch.allclose(shares.sum(1), torch.ones(64))
    torch.manual_seed(9)
    again, _ = mixed(mixing)
    assert torch.equal(images, again)
    assert not torch.equal(images, mixed(mixing, seed=2)[0])


def test_mixup_lays_the_image_before_over_each_by_the_share_of_its_label() -> None:
    images, shares = mixed(MixUp(1.0))
    own = shares[torch.arange(64), LABELS][0]
    expected = own * IMAGES + (1 - own) * IMAGES.roll(1, 0)
    assert (images - expected).abs().max() <= 0.51
    assert 0.01 < own < 0.99


def test_cutmix_puts_a_rectangle_of_the_image_before_into_each_by_the_share_of_its_area() -> None:
    images, shares = mixed(CutMix())
    other = (images != IMAGES).any(1)  # (B, H, W)
    inside = other.any(0)
    rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
    box = (slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1))
    assert torch.equal(images[(..., *box)], IMAGES.roll(1, 0)[(..., *box)])
    area = inside[box].numel() / inside.numel()
    assert torch.allclose(shares[torch.arange(64), LABELS], torch.tensor(1 - area))


@pytest.mark.parametrize("loss", [pytest.param("CrossEntropy", marks=pytest.mark.slow), "Focal"])
def test_a_run_mixes_from_a_config_and_its_checkpoint_is_read(run: Run, loss: str) -> None:
    words = ("--data.mix", "CutMix", "--data.mix.alpha", 0.5, "--data.augment+", "TrivialAugment", "--model.loss", loss)
    result = run("fit", *BRIEF, *words)
    assert result.code == 0, result.err
    result = run("test", "--ckpt_path", "runs/cnn/version_0/checkpoints/best.ckpt", "--resamples", 10)
    assert result.code == 0, result.err


def test_images_lie_in_memory_as_before_where_torchvision_moves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As its roll does on a GPU."""
    blend = v2.MixUp.forward
    monkeypatch.setattr(v2.MixUp, "forward", lambda self, *parts: (blend(self, *parts)[0].contiguous(), parts[1]))
    images = IMAGES.contiguous(memory_format=torch.channels_last)
    found, _ = MixUp()(images, torch.zeros(len(images), dtype=torch.int64), 2, Draw(Generator(), torch.arange(64), 0))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_shares_of_no_distribution_are_refused(kind: type[MixUp]) -> None:
    with pytest.raises(InputError, match=r"data\.mix\.alpha is -1: it must be above 0"):
        kind(alpha=-1)
