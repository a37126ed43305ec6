"""Optimizers and schedules that torch lacks."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_A, _B, _C = 3.4445, -4.7750, 2.0315  # of the quintic: steepest at zero while 0.7 < f(f(...)) < 1.2 (see `MuonSGD`)


def orthogonalise(matrices: Tensor, steps: int = 3) -> Tensor:
    """Bring the singular values of matrices near one, all at once, by Newton-Schulz iteration.

    `X -> aX + b(XX')X + c(XX')^2 X`, after division by the Frobenius norm: singular vectors stay, and each singular
    value `s` becomes `as + bs^3 + cs^5`.

    Args:
        matrices: `(N, rows, columns)`; no more rows than columns is cheapest.
        steps: of the iteration. Three bring all but the small ones between 0.5 and 1.5, which is good enough.
    """
    x: Tensor = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x


class MuonSGD(Optimizer):
    """Muon for the filters of convolutions, and SGD with Nesterov's momentum for everything else, as one optimizer.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of each layer, as a
    matrix `(filters, inputs)`, by the nearest matrix with orthogonal rows or columns, so that no direction is left
    behind; the filters are scaled to a norm of the root of their number before each step, as in airbench
    (https://github.com/KellerJordan/cifar10-airbench). torch.optim.Muon takes no convolutions.

    Args:
        params: of a net. Those of four dimensions are filters; of two or three, dense; of fewer, biases and gains.
        lr: of filters.
        momentum: of filters.
        dense_lr: of dense weights; in airbench 0.67 times the batch over the square of the channels that they take.
        bias_lr: of biases and gains.
        sgd_momentum: of both of these.
        weight_decay: of both of these: the share that one step at their full learning rate takes off, before momentum
            adds to it: with one of 0.85 some seven times as much.
        steps: of Newton and Schulz.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.24,
        momentum: float = 0.6,
        dense_lr: float = 0.02,
        bias_lr: float = 100.0,
        sgd_momentum: float = 0.85,
        weight_decay: float = 0.004,
        steps: int = 3,
    ) -> None:
        params = list(params)
        for name, rate in (("lr", lr), ("dense_lr", dense_lr), ("bias_lr", bias_lr)):
            if rate < 0:
                raise ValueError(f"MuonSGD.{name} is {rate}: it must be at least 0")
        if steps < 1:
            raise ValueError(f"MuonSGD.steps is {steps}: it must be at least 1")
        if any(isinstance(each, dict) for each in params):
            raise ValueError("MuonSGD makes its own groups, by lr, dense_lr and bias_lr: it takes no model.lr_factors")
        kinds = [
            ([each for each in params if each.ndim > 3], lr, momentum, 0.0, steps),
            ([each for each in params if each.ndim in (2, 3)], dense_lr, sgd_momentum, weight_decay, 0),
            ([each for each in params if each.ndim < 2], bias_lr, sgd_momentum, weight_decay, 0),
        ]
        groups: list[dict[str, Any]] = [
            {"params": kind, "lr": rate, "momentum": mass, "weight_decay": decay / rate if rate else 0, "steps": steps}
            for kind, rate, mass, decay, steps in kinds
            if kind
        ]
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step; `closure` computes the loss and the gradients anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [each for each in group["params"] if each.grad is not None]
            if weights:
                self._step(weights, **{key: group[key] for key in ("lr", "momentum", "weight_decay", "steps")})
        return loss

    def _step(self, weights: list[Tensor], lr: float, momentum: float, weight_decay: float, steps: int) -> None:
        gradients = [each.grad for each in weights]
        if weight_decay:
            gradients = torch._foreach_add(gradients, weights, alpha=weight_decay)  # type: ignore[assignment,arg-type]
        for each in weights:
            if not self.state[each]:
                self.state[each]["momentum_buffer"] = torch.zeros_like(each)
        momenta = [self.state[each]["momentum_buffer"] for each in weights]
        torch._foreach_mul_(momenta, momentum)
        torch._foreach_add_(momenta, gradients)  # type: ignore[arg-type]
        updates = torch._foreach_add(gradients, momenta, alpha=momentum)  # type: ignore[arg-type]
        if steps:
            norms = torch._foreach_norm(weights)
            torch._foreach_clamp_min_(norms, 1e-7)  # zeros stay zeros
            torch._foreach_mul_(norms, [len(each) ** -0.5 for each in weights])
            # Each by a norm of its own: on a GPU torch._foreach_div_ and _foreach_add_ would launch two for each here.
            for weight, norm, change in zip(weights, norms, _orthogonalised(updates, steps, -lr), strict=True):
                torch.addcdiv(change, weight, norm, out=weight)
        else:
            torch._foreach_add_(weights, updates, alpha=-lr)


def _orthogonalised(updates: Sequence[Tensor], steps: int, scale: float) -> list[Tensor]:
    """Updates of filters, orthogonal, times `scale`; those of as many rows at once: columns of zeros change nothing."""
    # The order of the columns is all the same: that of memory, channels last, needs no copy.
    flat = [each.movedim(1, -1).flatten(1) for each in updates]
    wide = [matrix.T if len(matrix) > matrix.shape[1] else matrix for matrix in flat]
    alike = defaultdict(list)
    for place, matrix in enumerate(wide):
        alike[len(matrix)].append(place)
    result = list(updates)
    for places in alike.values():
        columns = max(wide[place].shape[1] for place in places)
        missing = [columns - wide[place].shape[1] for place in places]
        stacked = torch.stack(
            [pad(wide[place], (0, some)) if some else wide[place] for place, some in zip(places, missing, strict=True)]
        )
        stacked = stacked.bfloat16() if _is_fast_in_bfloat16(stacked.device) else stacked.float()  # precise enough
        scaled = orthogonalise(stacked, steps).to(updates[0].dtype).mul_(scale)
        for place, matrix in zip(places, scaled, strict=True):
            filters, inputs, *sides = updates[place].shape
            matrix = matrix[:, : wide[place].shape[1]]
            matrix = matrix if len(matrix) == filters else matrix.T
            result[place] = matrix.unflatten(1, (*sides, inputs)).movedim(-1, 1)
    return result


@cache
def _is_fast_in_bfloat16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


class WarmupLinear(LRScheduler):
    """Up from zero and down to zero, in straight lines, batch by batch, but never below a share.

    Args:
        optimizer: whose learning rates are the highest.
        total_steps: in which it ends; None is all of the training.
        warmup: share of these that goes up, below 1.
        final: share of the learning rates below which they never are, in the warm-up either.

    Raises:
        ValueError: there is no end, or one of the shares cannot be.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int | None = None, warmup: float = 0.0, final: float = 0.0
    ) -> None:
        if total_steps is None:
            raise ValueError("WarmupLinear needs total_steps")
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup is {warmup:g}: it must be at least 0 and below 1, a share of the steps")
        if not 0 <= final <= 1:
            raise ValueError(f"final is {final:g}: it must lie between 0 and 1, a share of the learning rates")
        self.total_steps = total_steps
        self.warmup = warmup
        self.final = final
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        done, up = self.last_epoch / self.total_steps, self.warmup  # torch calls its steps epochs
        share = (done + 1 / self.total_steps) / up if done < up else (1 - done) / (1 - up)
        return [rate * max(min(share, 1.0), self.final) for rate in self.base_lrs]
