import pytest
import torch
from torch import Generator, Tensor

from cifar_lightning.augment import AlternatingMirror, Augmentation, Cutout, Draw, Mirror, ShiftedCrop

IMAGES = torch.randint(0, 256, (64, 3, 12, 10), dtype=torch.uint8, generator=Generator().manual_seed(0))
EVERY = [Mirror(), ShiftedCrop(3), Cutout(4)]


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


def test_shifted_crop_is_a_window_of_the_reflected_image() -> None:
    padded = torch.nn.functional.pad(IMAGES.float(), (3, 3, 3, 3), mode="reflect").to(torch.uint8)
    places = set()
    for crop, image in zip(draw(ShiftedCrop(3)), padded, strict=True):
        windows = {(y, x): image[:, y : y + 12, x : x + 10] for y in range(7) for x in range(7)}
        found = [place for place, window in windows.items() if torch.equal(window, crop)]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 20


def test_shifted_crop_refuses_more_than_the_image() -> None:
    with pytest.raises(ValueError, match="cannot shift images of 12 x 10 by 10 pixels"):
        draw(ShiftedCrop(10))


def test_cutout_greys_one_square_of_each_image() -> None:
    changed = (draw(Cutout(4, value=7)) != IMAGES).any(1)  # (B, H, W)
    greyed = (draw(Cutout(4, value=7)) == 7).all(1)
    for change, grey in zip(changed, greyed, strict=True):
        rows, columns = grey.any(1).nonzero(), grey.any(0).nonzero()
        assert grey[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
        assert 2 <= len(rows) <= 4
        assert 2 <= len(columns) <= 4
        assert not (change & ~grey).any()
