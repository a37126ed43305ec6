"""Stems, the first layers of a net, for pictures of 32 pixels or so."""

from torch import nn

from cifar_onnx.errors import InputError

_POOLS = {"maxpool", "maxpool1", "maxpool_3a", "Pool1", "pool0", "stem.pool", "features.pool0", "features.conv1_pool"}
_POOLS |= {"features.2"}  # the second halving of a stem, by the names of several families
_LARGEST_STRIDE = 4  # of a stem; what takes larger steps cuts the picture into patches


def make_small(body: nn.Module, name: str) -> None:
    """Let the first convolution keep the size of the picture, and take out the pooling that follows it.

    Args:
        body: the net, which is changed.
        name: of it, for messages.

    Raises:
        InputError: it begins otherwise.
    """
    layers = {path: layer for path, layer in body.named_modules() if isinstance(layer, nn.Conv2d)}
    path, first = next(iter(layers.items()), ("", None))
    if first is None or not 1 < first.stride[0] <= _LARGEST_STRIDE:
        raise InputError(f"model.net.small_stem: {name} does not begin with a convolution of stride 2 to 4")
    if sum(each.in_channels == first.in_channels and each.stride[0] > 1 for each in layers.values()) > 1:
        raise InputError(
            f"model.net.small_stem: {name} begins with convolutions side by side, of which none can be replaced alone: "
            "leave it out, and take larger pictures with data.image_size"
        )
    stem = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=first.bias is not None)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    body.set_submodule(path, stem)
    for pool, layer in [*body.named_modules()]:
        # Blurred pooling is several layers; what has the name in another family has weights.
        pools = any(isinstance(each, nn.MaxPool2d) for each in layer.modules()) and not [*layer.parameters()]
        if pool in _POOLS and pools:
            body.set_submodule(pool, nn.Identity())
