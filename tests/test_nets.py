import math

import torch
from torch import nn

from cifar_lightning.nets import CNN, Pixels


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
    layer = Pixels()
    layer.set_statistics([0.5, 0.25, 0.0], [0.5, 0.25, 1.0])
    x = torch.tensor([255, 51, 102], dtype=torch.uint8).view(1, 3, 1, 1)
    assert torch.allclose(layer(x).flatten(), torch.tensor([1.0, -0.2, 0.4]), atol=1e-6)
    assert set(layer.state_dict()) == {"mean", "std"}


def test_a_channel_that_never_changes_stays_finite() -> None:
    layer = Pixels()
    layer.set_statistics([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    assert layer(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).isfinite().all()
