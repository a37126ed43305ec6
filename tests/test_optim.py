from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cifar_lightning.optim import MuonSGD, WarmupLinear, orthogonalise
from tests.conftest import BRIEF, Run


def matrices(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(5, 8, 20), (3, 16, 16), (2, 20, 8)])
def test_orthogonalise_keeps_singular_vectors_and_brings_singular_values_near_one(shape: tuple[int, ...]) -> None:
    before = matrices(*shape).double()
    u, s, vh = torch.linalg.svd(before, full_matrices=False)
    values = s / before.norm(dim=(1, 2), keepdim=True).squeeze(2)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    after = orthogonalise(before, steps=5)
    assert torch.allclose(after, u * values[:, None] @ vh, atol=1e-9)
    assert values.min() > 0.4
    assert values.max() < 1.3


def test_orthogonalise_of_nothing_is_nothing() -> None:
    assert torch.equal(orthogonalise(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


class Layers(nn.Module):
    """Filters with more and with fewer inputs than there are of them, of one number and of several."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        shapes = ((8, 3, 3, 3), (8, 8, 3, 3), (16, 8, 1, 1), (16, 16, 3, 3))
        self.filters = nn.ParameterList(torch.randn(shape, generator=generator) for shape in shapes)
        self.dense = nn.Parameter(torch.randn(4, 8, generator=generator))
        self.bias = nn.Parameter(torch.randn(4, generator=generator))
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

    def loss(self) -> Tensor:
        return sum(parameter.pow(3).sum() for parameter in self.parameters())  # type: ignore[return-value]


def one_by_one(g: Tensor, steps: int) -> Tensor:
    """Newton and Schulz on one matrix, as in airbench94_muon."""
    x = g / (g.norm() + 1e-7)
    x = x.T if len(g) > g.shape[1] else x
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if len(g) > g.shape[1] else x


def test_muon_of_all_layers_at_once_is_muon_of_one_after_the_other() -> None:
    layers, reference = Layers(), Layers()
    optimizer = MuonSGD(layers.parameters(), lr=0.1, momentum=0.6, steps=3)
    momenta = [torch.zeros_like(each) for each in reference.filters]
    for _ in range(4):
        optimizer.zero_grad()
        layers.loss().backward()
        optimizer.step()
        reference.zero_grad()
        reference.loss().backward()
        with torch.no_grad():
            for weight, momentum in zip(reference.filters, momenta, strict=True):
                momentum.mul_(0.6).add_(weight.grad)
                update = one_by_one((weight.grad + 0.6 * momentum).flatten(1), 3)
                weight.mul_(len(weight) ** 0.5 / weight.norm()).sub_(0.1 * update.view_as(weight))
    for weight, expected in zip(layers.filters, reference.filters, strict=True):
        assert torch.allclose(weight, expected, atol=1e-5)


def test_everything_but_filters_is_torchs_sgd() -> None:
    layers, reference = Layers(), Layers()
    optimizer = MuonSGD(layers.parameters(), dense_lr=0.02, bias_lr=0.5, sgd_momentum=0.85, weight_decay=0.01)
    groups = [{"params": [reference.dense], "lr": 0.02}, {"params": [reference.bias], "lr": 0.5}]
    for group in groups:
        group["weight_decay"] = 0.01 / group["lr"]  # type: ignore[operator]
    sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
    for _ in range(4):
        for net, optim in ((layers, optimizer), (reference, sgd)):
            optim.zero_grad()
            net.loss().backward()
            optim.step()
    assert torch.allclose(layers.dense, reference.dense, atol=1e-6)
    assert torch.allclose(layers.bias, reference.bias, atol=1e-6)
    assert torch.equal(layers.frozen, torch.ones(4))


def test_a_restored_muon_goes_on_bit_for_bit() -> None:
    layers = Layers()
    optimizer = MuonSGD(layers.parameters())

    def step(net: Layers, optim: MuonSGD) -> None:
        optim.zero_grad()
        net.loss().backward()
        optim.step()

    step(layers, optimizer)
    other = deepcopy(layers)
    restored = MuonSGD(other.parameters(), lr=1.0)
    restored.load_state_dict(deepcopy(optimizer.state_dict()))
    step(layers, optimizer)
    step(other, restored)
    for first, second in zip(layers.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("missing", ["filters", "dense", "bias"])
def test_muon_takes_nets_without_one_kind_of_layer(missing: str) -> None:
    named = [value for name, value in Layers().named_parameters() if not name.startswith(missing)]
    optimizer = MuonSGD(named)
    sum(value.pow(2).sum() for value in named if value.requires_grad).backward()  # type: ignore[union-attr]
    optimizer.step()
    assert all(value.isfinite().all() for value in named)


def test_muon_takes_filters_of_zeros() -> None:
    filters = nn.Parameter(torch.zeros(4, 3, 3, 3))
    filters.grad = matrices(4, 3, 3, 3)
    MuonSGD([filters]).step()
    assert filters.isfinite().all()
    assert filters.any()


def test_without_a_step_of_newton_and_schulz_it_is_no_muon() -> None:
    with pytest.raises(ValueError, match=r"^MuonSGD\.steps is 0: it must be at least 1$"):
        MuonSGD(Layers().parameters(), steps=0)


@pytest.mark.parametrize("name", ["dense", "bias"])
def test_a_learning_rate_of_zero_leaves_its_weights_alone(name: str) -> None:
    layers, before = Layers(), getattr(Layers(), name)
    optimizer = MuonSGD(layers.parameters(), **{f"{name}_lr": 0.0})  # type: ignore[arg-type]
    layers.loss().backward()
    optimizer.step()
    assert torch.equal(getattr(layers, name), before)
    assert not torch.equal(layers.filters[0], Layers().filters[0])


def rates(**settings: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=2.0)
    schedule, seen = WarmupLinear(optimizer, 10, **settings), []
    for _ in range(10):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_warmup_linear_goes_up_and_down_in_straight_lines() -> None:
    assert rates() == pytest.approx([2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2])
    assert rates(warmup=0.2) == pytest.approx([1.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25])
    assert rates(final=0.5) == pytest.approx([2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 1.0, 1.0, 1.0, 1.0])


def test_warming_up_goes_no_higher_than_the_learning_rate() -> None:
    """Also where the share is no whole number of steps."""
    assert max(rates(warmup=0.25)) == 2.0


def test_warmup_linear_needs_an_end() -> None:
    with pytest.raises(ValueError, match="needs total_steps"):
        WarmupLinear(torch.optim.SGD([torch.zeros(1)]))


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        *(("warmup", value, f"warmup is {value}: it must be at least 0 and below 1") for value in (1, 2, -1)),
        *(("final", value, f"final is {value}: it must lie between 0 and 1") for value in (1.5, -0.1)),
    ],
)
def test_shares_that_cannot_be_are_refused_in_one_sentence(run: Run, setting: str, value: float, sentence: str) -> None:
    words = ("--model.scheduler", "WarmupLinear", f"--model.scheduler.{setting}", value)
    result = run("fit", *BRIEF, *words)
    assert result.code == 2
    assert result.err.startswith(f"error: model.scheduler: {sentence}")
    assert not list(Path().rglob("*.ckpt"))
