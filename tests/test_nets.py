import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, max_pool2d

from cifar_lightning.nets import CNN, Normalize, SpeedNet, Whitening
from cifar_onnx import InputError


def test_cnn_has_the_tutorials_parameters() -> None:
    assert sum(parameter.numel() for parameter in CNN(10).parameters()) == 356_810


def test_weights_are_he_uniform_and_biases_zero() -> None:
    convolutions = [layer for layer in CNN().modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 3
    for layer in convolutions:
        bound = math.sqrt(6 / (layer.in_channels * 9))  # He et al. 2015
        assert layer.weight.abs().max() <= bound
        assert torch.isclose(layer.weight.std(), torch.tensor(bound / math.sqrt(3)), rtol=0.1)
        assert layer.bias is not None
        assert not layer.bias.any()


def test_pooling_before_relu_is_the_tutorials_function_bit_for_bit() -> None:
    net = CNN().eval()
    x = torch.randn(4, 3, 32, 32)
    as_written = x
    for block in net.blocks:
        convolution = block[0]
        as_written = nn.functional.max_pool2d(convolution(as_written).relu(), 2)
    assert torch.equal(net.blocks(x), as_written)


def test_cnn_takes_any_size_of_picture() -> None:
    for side in (8, 32, 45, 64):
        assert CNN(7)(torch.zeros(2, 3, side, side)).shape == (2, 7)


def test_dropout_works_in_training_only() -> None:
    net, x = CNN(dropout=0.5), torch.randn(2, 3, 32, 32)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_pixels_normalise_by_the_statistics_they_are_given() -> None:
    layer = Normalize()
    layer.set_statistics([0.5, 0.25, 0.0], [0.5, 0.25, 1.0])
    x = torch.tensor([255, 51, 102], dtype=torch.uint8).view(1, 3, 1, 1)
    assert torch.allclose(layer(x).flatten(), torch.tensor([1.0, -0.2, 0.4]), atol=1e-6)
    assert set(layer.state_dict()) == {"mean", "std"}


def test_a_channel_that_never_changes_stays_finite() -> None:
    layer = Normalize()
    layer.set_statistics([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    assert layer(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).isfinite().all()


def natural(count: int = 200) -> Tensor:
    """Pictures whose neighbouring pixels resemble each other, as photos' do."""
    noise = torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(noise, 32, mode="bilinear") + 0.1 * noise.repeat(1, 1, 3, 3)[:, :, :32, :32]


@pytest.mark.parametrize(("kernel_size", "stride", "components"), [(2, 1, None), (2, 2, 5), (3, 2, 16)])
def test_whitening_leaves_uncorrelated_outputs_of_variance_one(
    kernel_size: int, stride: int, components: int | None
) -> None:
    layer = Whitening(kernel_size, stride, components=components, eps=0.0).double()
    assert layer.filters == 2 * (components or 3 * kernel_size**2)
    images = natural().double()
    layer.fit(images.float().double())
    outputs = nn.functional.conv2d(images, layer.weight[: layer.filters // 2])
    outputs = outputs.transpose(0, 1).flatten(1)  # (F / 2, B * positions)
    covariance = outputs @ outputs.T / outputs.shape[1]
    assert torch.allclose(covariance, torch.eye(len(outputs)).double(), atol=2e-2)
    assert torch.equal(layer.weight[layer.filters // 2 :], -layer.weight[: layer.filters // 2])


def test_whitening_of_the_same_images_is_the_same_and_not_trained() -> None:
    first, second = Whitening(), Whitening()
    first.fit(natural())
    second.fit(natural().flip(0))
    assert torch.allclose(first.weight, second.weight, atol=1e-5)
    assert [name for name, _ in first.named_parameters()] == ["bias"]
    assert not list(Whitening(bias=False).parameters())


@pytest.mark.parametrize("kernel_size", [2, 3, 4])
def test_the_sign_of_a_filter_does_not_hang_on_rounding(kernel_size: int) -> None:
    """Of patches that are as likely mirrored, filters are symmetrical, and two of their entries are largest."""
    images = natural()
    images = torch.cat([images, images.flip(3), images.flip(2), images.flip(2).flip(3)])
    first, second = Whitening(kernel_size), Whitening(kernel_size)
    first.fit(images)
    second.fit(images + 1e-6 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1)))
    assert torch.allclose(first.weight, second.weight, atol=1e-2)


def test_whitening_takes_the_components_that_pictures_vary_in_most() -> None:
    every, some = Whitening(3, eps=0.0), Whitening(3, components=4, eps=0.0)
    every.fit(natural())
    some.fit(natural())
    assert torch.allclose(some.weight[:4], every.weight[27 - 4 : 27], atol=1e-5)
    # Filters of variance one: the more a component varies, the shorter its filter.
    assert (every.weight[:27].flatten(1).norm(dim=1).diff() < 0).all()
    with pytest.raises(InputError, match="has 1 to 12 components, not 13"):
        Whitening(2, components=13)


def test_whitening_is_finite_on_pictures_of_one_colour() -> None:
    layer = Whitening()
    layer.fit(torch.ones(4, 3, 8, 8))
    assert layer.weight.isfinite().all()


def test_speed_net_is_the_published_one() -> None:
    """airbench94's: 1,971,352 numbers are trained, and neither gains nor whitening filters are."""
    net = SpeedNet()
    convolutions = [layer.weight for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert [tuple(weight.shape[:2]) for weight in convolutions] == [
        *((64, 24), (64, 64), (256, 64), (256, 256), (256, 256), (256, 256)),
    ]
    for weight in convolutions:  # each starts as the identity on its first channels
        identity = nn.init.dirac_(torch.empty_like(weight))[: weight.shape[1]]
        assert torch.equal(weight[: weight.shape[1]], identity)
    trained = {name: value for name, value in net.named_parameters() if value.requires_grad}
    assert sum(value.numel() for value in trained.values()) == 1_971_352
    assert {name.rpartition(".")[2] for name, value in trained.items() if value.ndim < 2} == {"bias"}


def test_deeper_groups_are_those_of_airbench96() -> None:
    net = SpeedNet(widths=(128, 384, 512), depth=3)
    assert sum(value.numel() for value in net.parameters() if value.requires_grad) == 9_915_416
    net, x = SpeedNet(7, (8, 16), depth=3).eval(), natural(4)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
    convolutions = [layer for layer in net.groups.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in net.groups.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(convolutions) == len(norms) == 6
    expected = gelu(net.whitening(x))
    for first, second, third in ((0, 1, 2), (3, 4, 5)):
        expected = gelu(norms[first](max_pool2d(convolutions[first](expected), 2)))
        inner = gelu(norms[second](convolutions[second](expected)))
        expected = gelu(expected + norms[third](convolutions[third](inner)))
    assert torch.allclose(net(x), net.head(expected.amax((2, 3))), atol=1e-5)
    with pytest.raises(InputError, match="depth is 1: a group of SpeedNet has at least 2 convolutions"):
        SpeedNet(depth=1)


def test_speed_net_takes_other_sizes_and_refuses_too_small_ones() -> None:
    for side in (9, 32, 33, 64):
        assert SpeedNet(7, (8, 8, 16))(torch.randn(2, 3, side, side)).shape == (2, 7)
        assert SpeedNet(7, (8, 8), stride=2)(torch.randn(2, 3, side, side)).shape == (2, 7)
    with pytest.raises(InputError, match="needs pictures of at least 9 pixels"):
        SpeedNet(7, (8, 8, 16))(torch.randn(2, 3, 8, 8))


def test_views_are_averages_of_the_net_on_changed_pictures() -> None:
    net, x = SpeedNet(7, (8, 8, 16)).eval(), natural(4)

    def single(x: Tensor) -> Tensor:
        net.views = 1
        return net(x)

    def mirrored(x: Tensor) -> Tensor:
        return (single(x) + single(x.flip(3))) / 2

    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    shifted = (mirrored(padded[:, :, :32, :32]) + mirrored(padded[:, :, 2:, 2:])) / 2
    expected = {2: mirrored(x), 6: (mirrored(x) + shifted) / 2}
    for net.views in (2, 6):
        assert torch.allclose(net(x), expected[net.views], atol=1e-6)
    net.views = 2
    assert torch.allclose(net(x), net(x.flip(3)), atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):  # whose steps are as large as differences of classes
        halves = single(x), single(x.flip(3))
        net.views = 2
        assert torch.equal(net(x), (halves[0].float() + halves[1].float()) / 2)
    net.train()
    assert not torch.allclose(net(x), net(x.flip(3)), atol=1e-4)
