"""A first layer that is computed from training images and not trained, as a layer: checkpoints and files carry it.

Notation: `B` batch, `F` filters, `k` side of a patch, `S` side of the images in pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from cifar_onnx.errors import InputError


class Whitening(nn.Module):
    """Convolution whose outputs, on patches of the training images, are uncorrelated and of variance one.

    The filters are the eigenvectors of the patches' covariance, each divided by the root of its eigenvalue, and then
    their negatives (Page 2019, https://github.com/davidcpage/cifar10-fast; Jordan 2024,
    https://arxiv.org/abs/2404.00498, section 3.2). A net with such a layer starts where others arrive after some
    epochs. Before `fit` each filter picks one pixel of its patch.

    Args:
        kernel_size: `k`.
        stride: in pixels; 2 leaves a quarter of the work to all layers that follow.
        bias: train one for each filter. Without, nothing flows back into this layer, which spares the most expensive
            gradient of the net.
        eps: added to the eigenvalues, so that noise is not blown up.
        components: how many eigenvectors are taken, those of the largest eigenvalues first; None is all. What JPEG has
            left of the others is little but noise.
    """

    weight: Tensor
    fitted: Tensor

    def __init__(
        self,
        kernel_size: int = 2,
        stride: int = 1,
        bias: bool = True,
        eps: float = 5e-4,
        components: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.eps = kernel_size, stride, eps
        length = 3 * kernel_size**2  # of a patch as a vector
        if components is not None and not 1 <= components <= length:
            raise InputError(
                f"a patch of {kernel_size} x {kernel_size} pixels has 1 to {length} components, not {components}"
            )
        pixels = torch.eye(length)[:components].view(-1, 3, kernel_size, kernel_size)
        self.register_buffer("weight", torch.cat([pixels, -pixels]))
        self.register_buffer("fitted", torch.tensor(False))
        self.bias = nn.Parameter(torch.zeros(len(self.weight))) if bias else None

    @property
    def filters(self) -> int:
        """`F`: twice the components, of which a patch has `3 k^2`."""
        return len(self.weight)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take the filters from training images, normalised `(B, 3, S, S)`."""
        k = self.kernel_size
        length = 3 * k**2
        # Summed in double precision: the directions of small eigenvalues are divided by little.
        covariance, count = torch.zeros(length, length, dtype=torch.float64), 0
        for some in torch.split(images, 64):
            # Not torch.nn.functional.unfold, which launches a kernel for each image on a GPU.
            patches = some.float().unfold(2, k, 1).unfold(3, k, 1)  # (64, 3, rows, columns, k, k)
            patches = patches.permute(0, 1, 4, 5, 2, 3).reshape(len(some), length, -1)  # (64, 3 k^2, positions)
            covariance += (patches @ patches.mT).cpu().double().sum(0)
            count += len(patches) * patches.shape[2]
        values, vectors = torch.linalg.eigh(covariance / count)
        # The sign of an eigenvector is arbitrary. Its product with one that has no symmetry is far from zero, so that
        # the same images give the same filters, up to rounding, on every machine.
        vectors = vectors * (torch.arange(1, length + 1, dtype=torch.float64).sqrt() @ vectors).sign()
        filters = (vectors / (values + self.eps).sqrt()).T.reshape(-1, *self.weight.shape[1:])
        filters = filters[-(self.filters // 2) :]  # the eigenvalues rise
        self.weight.copy_(torch.cat([filters, -filters]))
        self.fitted.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pixels `(B, 3, S, S)` to `(B, F, (S - k) // stride + 1, the same)`."""
        return conv2d(x, self.weight, self.bias, self.stride)
