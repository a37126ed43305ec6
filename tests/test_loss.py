"""Losses, and what helps classes of which there are few pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy

from cifar_lightning.data.batches import Batches
from cifar_lightning.loss import CrossEntropy, Focal
from cifar_onnx import InputError
from tests.conftest import Run

LOGITS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 4
COUNTS = torch.tensor([1000, 100, 10, 0])


@pytest.mark.parametrize("rule", ["inverse", "effective"])
def test_a_rule_weighs_classes_by_their_counts_in_training_only(rule: Any) -> None:
    loss = CrossEntropy(0.1, rule)
    assert torch.equal(loss(LOGITS, LABELS), cross_entropy(LOGITS, LABELS, label_smoothing=0.1))
    loss.set_counts(COUNTS)
    number = torch.tensor([1000.0, 100, 10, 1], dtype=torch.float64)
    weights = 1 / number if rule == "inverse" else (1 - 0.9999) / (1 - 0.9999**number)
    weights = (weights / weights.mean()).float()
    each = cross_entropy(LOGITS, LABELS, label_smoothing=0.1, reduction="none")
    assert torch.allclose(loss(LOGITS, LABELS), (weights[LABELS] * each).sum() / weights[LABELS].sum())
    assert not loss.state_dict()
    loss.eval()
    assert torch.equal(loss(LOGITS, LABELS), cross_entropy(LOGITS, LABELS, label_smoothing=0.1))


def test_weights_that_are_given_hold_in_training_whatever_the_counts() -> None:
    loss = CrossEntropy(class_weights=[1.0, 2.0, 3.0, 4.0])
    expected = cross_entropy(LOGITS, LABELS, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    loss.set_counts(COUNTS)
    assert torch.allclose(loss(LOGITS, LABELS), expected)


@pytest.mark.parametrize("kind", [CrossEntropy, Focal])
def test_the_loss_of_validation_hangs_on_no_batches(kind: type[CrossEntropy]) -> None:
    order = LABELS.argsort()  # as folders have it
    loss = kind(class_weights=[0.0, 1.0, 2.0, 50.0]).eval()
    of_all = loss(LOGITS[order], LABELS[order])
    for size in (2, 3, 4, 6):
        batches = zip(LOGITS[order].split(size), LABELS[order].split(size), strict=True)
        assert torch.allclose(torch.stack([loss(*batch) for batch in batches]).mean(), of_all)


@pytest.mark.parametrize("kind", [CrossEntropy, Focal])
def test_images_that_count_nothing_have_no_loss(kind: type[CrossEntropy]) -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = kind(class_weights=[0.0, 1.0, 1.0, 1.0])(logits, torch.zeros_like(LABELS))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 3.0, 4.0]])
def test_focal_is_cross_entropy_at_gamma_0_and_its_formula_elsewhere(weights: list[float] | None) -> None:
    assert torch.allclose(Focal(0, weights)(LOGITS, LABELS), CrossEntropy(class_weights=weights)(LOGITS, LABELS))
    p = LOGITS.softmax(1)[torch.arange(12), LABELS]
    w = torch.tensor(weights or [1.0] * 4)[LABELS]
    expected = (-w * (1 - p) ** 2 * p.log()).sum() / w.sum()
    assert torch.allclose(Focal(2, weights)(LOGITS, LABELS), expected)


@pytest.mark.parametrize("loss", [CrossEntropy(), Focal(2.0)])
def test_shares_of_one_class_are_its_label(loss: CrossEntropy) -> None:
    shares = torch.nn.functional.one_hot(LABELS, 4).float()
    assert torch.allclose(loss(LOGITS, shares), loss(LOGITS, LABELS))
    blend = (shares + shares.roll(1, 0)) / 2
    halves = (loss(LOGITS, LABELS) + loss(LOGITS, LABELS.roll(1))) / 2
    assert torch.allclose(loss(LOGITS, blend), halves)


@pytest.mark.parametrize("kind", [CrossEntropy, Focal])
def test_a_blend_weighs_what_its_classes_do(kind: type[CrossEntropy]) -> None:
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    loss, each = kind(class_weights=weights.tolist()), kind()
    shares = torch.nn.functional.one_hot(LABELS, 4).float()
    assert torch.allclose(loss(LOGITS, shares), loss(LOGITS, LABELS))
    blend = (shares + shares.roll(1, 0)) / 2
    losses = torch.stack([each(LOGITS[i : i + 1], blend[i : i + 1]) for i in range(12)])
    assert torch.allclose(loss(LOGITS, blend), (losses * (blend @ weights)).sum() / (blend @ weights).sum())


@pytest.mark.parametrize("kind", [CrossEntropy, Focal])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_blend_is_weighed_in_its_own_precision(kind: type[CrossEntropy], dtype: torch.dtype) -> None:
    loss = kind(class_weights="inverse")
    loss.set_counts(COUNTS)
    blend = torch.nn.functional.one_hot(LABELS, 4).float().lerp(torch.full((12, 4), 0.25), 0.5)
    found = loss(LOGITS.to(dtype), blend.to(dtype))
    assert found.dtype == dtype
    assert torch.allclose(found.float(), loss(LOGITS, blend), rtol=1e-5 if dtype == torch.float64 else 0.05)


@pytest.mark.parametrize("passing", [False, True])
def test_a_sure_hit_has_a_finite_gradient(monkeypatch: pytest.MonkeyPatch, passing: bool) -> None:
    """Also where clamp passes the gradient of what equals its bound, which differs between versions of torch."""
    if passing:
        monkeypatch.setattr(Tensor, "clamp", lambda each, **at: torch.where(each < at["min"], at["min"], each))
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    Focal(0.5)(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_negative_gamma_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.loss\.gamma is -1: it must not be below 0"):
        Focal(-1.0)


def balanced(labels: Tensor, epoch: int = 0, rank: int = 0, processes: int = 1) -> list[int]:
    images = torch.zeros(len(labels), 1, 1, 3, dtype=torch.uint8)
    batches = Batches(images, labels, 8, 5, lambda: (epoch, 0), rank, processes, shuffled=True, balanced=True)
    return torch.cat([batch.indices for batch in batches]).tolist()


def test_balanced_sampling_shows_each_class_as_often() -> None:
    labels = torch.tensor([0] * 70 + [1] * 20 + [3] * 9)
    drawn = balanced(labels)
    assert [int((labels[drawn] == k).sum()) for k in (0, 1, 3)] == [33, 33, 33]
    assert drawn == balanced(labels)
    assert drawn != balanced(labels, epoch=1)
    assert sorted(balanced(labels, 0, 0, 2) + balanced(labels, 0, 1, 2)) == sorted(drawn)
    seen = {place for epoch in range(20) for place in balanced(labels, epoch)}
    assert len(seen) == 99  # none is left out for good


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hues that overlap, 400 to 4: `root/train/<class>/*` and `root/test/<class>/*`."""
    root, generator = tmp_path_factory.mktemp("skewed"), np.random.default_rng(0)
    for part, counts in (
        ("train", {"many": 400, "few": 4}),
        ("val", {"many": 40, "few": 40}),
        ("test", {"many": 40, "few": 40}),
    ):
        for name, count in counts.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                red = generator.normal(105 if name == "many" else 150, 20)
                pixels = generator.normal([red, 128, 128], 8, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.mark.slow
def test_on_a_set_of_100_to_1_each_remedy_raises_the_recall_of_the_rare_class(run: Run, skewed: Path) -> None:
    def recall(name: str, *words: object) -> float:
        source = ("--data", "ImageFolder", "--data.root", skewed, "--data.image_size", 8, "--experiment", name)
        net = ("--model.net", "CNN", "--model.net.widths", "[8]", "--model.net.hidden", 16)
        recipe = ("--trainer.max_epochs", 12, "--model.optimizer.lr", 0.01)
        result = run("fit", *source, *net, *recipe, *words)
        assert result.code == 0, result.err
        last = f"runs/{name}/version_0/checkpoints/last.ckpt"
        assert run("test", "--ckpt_path", last, "--resamples", 10).code == 0
        report = Path(f"runs/{name}/version_0/report/per_class.csv").read_text().splitlines()
        (row,) = (line.split(",") for line in report[1:] if line.startswith("few,"))
        return float(row[report[0].split(",").index("recall")])

    plain = recall("plain")
    remedies = {
        "weights": ("--model.loss.class_weights", "inverse"),
        "effective": ("--model.loss.class_weights", "effective"),
        "sampling": ("--data.sampling", "balanced"),
        "focal": ("--model.loss", "Focal", "--model.loss.class_weights", "inverse"),
    }
    found = {name: recall(name, *words) for name, words in remedies.items()}
    assert plain < 0.5
    assert all(value > plain + 0.2 for value in found.values()), (plain, found)
