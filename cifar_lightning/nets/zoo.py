"""Nets of torchvision and timm by name, with random or pretrained weights."""

import re
import sys
import urllib.error
from abc import ABC, abstractmethod
from collections.abc import Collection
from copy import deepcopy
from types import MethodType
from typing import Any

from torch import Tensor, nn

from cifar_lightning.error_source import named
from cifar_lightning.nets import weights as weight_files
from cifar_lightning.nets.stem import make_small
from cifar_lightning.suggestion import hint
from cifar_onnx.errors import InputError, one_line

_DECIDED = {"num_classes", "weights", "weights_backbone", "progress", "pretrained", "checkpoint_path", "cache_dir"}
_DECIDED |= {"pretrained_cfg", "pretrained_cfg_overlay"}  # by other arguments than `settings`
_OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
Statistics = tuple[tuple[float, ...], tuple[float, ...]]


class Named(nn.Module, ABC):
    """A net by its name, with a head for `K` classes.

    The head begins by torch's rule: EfficientNet's own, made for 1,000 classes, has logits of tens for a few, from
    which training takes long to recover.

    Attributes:
        statistics: channel means and standard deviations that its weights were trained with, of pixels scaled to 0..1;
            None where it begins at random.
    """

    statistics: Statistics | None

    def __init__(
        self, name: str, body: nn.Module, num_classes: int, weights: str | None, sha256: str | None, small_stem: bool
    ) -> None:
        super().__init__()
        if sha256 and not weights:
            raise InputError("model.net.sha256 is that of a file: name it with model.net.weights")
        if sha256 and not _is_file(weights):
            raise InputError(
                f"model.net.sha256 is that of a file, but model.net.weights is the name {weights}: leave the digest "
                "out (null)"
            )
        self.name, self.weights, self.sha256 = name, weights, sha256
        if small_stem:
            make_small(body, name)
        for head in weight_files.heads(body, num_classes):
            if isinstance(layer := body.get_submodule(head), nn.Linear):
                layer.reset_parameters()
        self.body = body

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Normalised pixels `(B, 3, S, S)` to logits `(B, K)`; in training some nets give auxiliary ones, too."""
        outputs: Tensor | tuple[Tensor, ...] = self.body(x)
        return outputs

    def load_pretrained(self) -> None:
        """Take over the weights that were asked for, but for the head and what else has another shape.

        Raises:
            InputError: there are no such weights, they cannot be had, or they are of another net.
        """
        if self.weights is not None:
            file = _is_file(self.weights)
            state = weight_files.read(self.weights, self.sha256) if file else self.published(self.weights)
            weight_files.take(self.body, self.adapted(state), f"{self.name} with {self.weights}")

    def fused(self) -> "Named":
        """A copy with the same answers but for rounding, whose branches of training are single layers."""
        return self

    @abstractmethod
    def published(self, weights: str) -> dict[str, Tensor]:
        """Weights by a name of the library, downloaded where they are not yet there."""

    def adapted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights with the names of the net, made to fit pictures of another size."""
        return weight_files.unwrapped(state, self.body)


def _is_file(weights: str | None) -> bool:
    return weights is not None and ("." in weights or "/" in weights)


class Torchvision(Named):
    """A net of torchvision (https://docs.pytorch.org/vision/stable/models.html).

    Args:
        name: as torchvision.models.list_models has it, such as resnet18, vgg11_bn, inception_v3 or vit_b_16.
        num_classes: `K`.
        weights: None begins at random; DEFAULT or a name such as IMAGENET1K_V1 are torchvision's, which downloads
            them; what has a dot or a slash is a file of weights, .safetensors or torch.save's. The head begins anew
            where the data has another number of classes.
        sha256: digest of that file.
        small_stem: begin with a convolution 3x3 of stride 1 and without pooling: for pictures of 32 pixels or so.
        settings: further arguments of torchvision's function, such as image_size of vit_b_16.
    """

    def __init__(
        self,
        name: str,
        num_classes: int = 10,
        weights: str | None = None,
        sha256: str | None = None,
        small_stem: bool = False,
        settings: dict[str, Any] | None = None,
    ) -> None:
        from torchvision import models

        _check(name, models.list_models(module=models), "torchvision.models.list_models()")
        if name in ("inception_v3", "googlenet"):
            # torch's own initialisation: torchvision's begins with logits of hundreds.
            settings = {"init_weights": False, "transform_input": weights is not None} | (settings or {})
        with named("model.net.settings"):
            body = models.get_model(name, num_classes=num_classes, **_allowed(settings))
        if name.startswith("mnasnet"):  # its own asks of weights how old they are, which averaged ones do not say
            body._load_from_state_dict = MethodType(nn.Module._load_from_state_dict, body)
        weights = weights and re.sub(r"^\w+_Weights\.(?=[A-Z0-9_]+$)", "", weights)  # as torchvision's own names begin
        super().__init__(name, body, num_classes, weights, sha256, small_stem)
        self.statistics = None
        if weights:  # of a file, too: who has trained it has most likely begun with torchvision's
            preset = self._published("DEFAULT" if _is_file(weights) else weights).transforms()
            self.statistics = tuple(preset.mean), tuple(preset.std)

    def _published(self, weights: str) -> Any:
        """What torchvision knows of weights by their name."""
        from torchvision import models

        known = models.get_model_weights(self.name).__members__
        _check(weights, known, f"torchvision's weights of {self.name}", "weights")
        return known[weights]

    def published(self, weights: str) -> dict[str, Tensor]:
        known = self._published(weights)
        try:
            state: dict[str, Tensor] = known.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:  # no network, or a file that is not what it should be
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise InputError(
                f"weights {weights} of {self.name}: {known.url} cannot be downloaded ({reason}): fetch it elsewhere, "
                "and name the file by --model.net.weights and --model.net.sha256, or take random weights (null)"
            ) from None
        return state

    def adapted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        from torchvision.models import DenseNet
        from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

        if isinstance(self.body, DenseNet):  # whose published weights are older than the names of its layers
            state = {_OLD_DENSE_LAYER.sub(r"\1\2", name): value for name, value in state.items()}
        state = super().adapted(state)
        if isinstance(self.body, VisionTransformer) and "encoder.pos_embedding" in state:
            return dict(interpolate_embeddings(self.body.image_size, self.body.patch_size, state))
        return state


class Timm(Named):
    """A net of timm (Wightman 2019, https://github.com/huggingface/pytorch-image-models), where that is installed.

    Args:
        name: as timm.list_models has it, such as resnet18 or efficientnet_lite0.
        num_classes: `K`.
        weights: None begins at random; DEFAULT are those that timm has for the name, which it downloads; what has a dot
            or a slash is a file of weights, .safetensors or torch.save's. The head begins anew where the data has
            another number of classes.
        sha256: digest of that file.
        small_stem: begin with a convolution 3x3 of stride 1 and without pooling: for pictures of 32 pixels or so.
        settings: further arguments of timm.create_model, such as img_size.
    """

    def __init__(
        self,
        name: str,
        num_classes: int = 10,
        weights: str | None = None,
        sha256: str | None = None,
        small_stem: bool = False,
        settings: dict[str, Any] | None = None,
    ) -> None:
        try:
            import timm
        except ModuleNotFoundError:
            raise InputError('Timm needs timm: pip install "cifar-lightning[timm]"') from None

        _check(name.partition(".")[0], timm.list_models(), "timm.list_models()")
        self._settings = _allowed(settings)
        with named("model.net.settings"):
            body = timm.create_model(name, num_classes=num_classes, **self._settings)
        super().__init__(name, body, num_classes, weights, sha256, small_stem)
        known: Any = body.pretrained_cfg
        self.statistics = (tuple(known["mean"]), tuple(known["std"])) if weights else None

    def published(self, weights: str) -> dict[str, Tensor]:
        import timm

        _check(weights, ["DEFAULT"], "timm's weights; others are part of the name, as in resnet18.a1_in1k", "weights")
        try:
            state: dict[str, Tensor] = timm.create_model(self.name, pretrained=True, **self._settings).state_dict()
        except Exception as error:  # of the hub's own kinds
            first = str(error).partition("\n")[0]
            raise InputError(
                f"weights DEFAULT of {self.name}: cannot be downloaded from the hub ({type(error).__name__}: {first}): "
                "fetch them, and name the file by model.net.weights and model.net.sha256, or take random weights (null)"
            ) from None
        return state

    def adapted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        state = super().adapted(state)
        adapt = vars(sys.modules[type(self.body).__module__]).get("checkpoint_filter_fn")  # many families have one
        if adapt is None or not _is_file(self.weights):  # what timm has loaded itself, it has adapted
            return state
        try:
            found: dict[str, Tensor] = adapt(state, self.body)
        except Exception as error:  # whatever the names in it lead to
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise InputError(f"weights {self.weights}: timm does not accept them for {self.name} ({reason})") from None
        return found

    def fused(self) -> "Timm":
        from timm.utils.model import reparameterize_model

        copy = deepcopy(self)
        copy.body = reparameterize_model(copy.body, inplace=True)
        return copy


def _check(name: str, known: Collection[str], where: str, setting: str = "name") -> None:
    if name not in known:
        raise InputError(f"model.net.{setting} {name!r} is not among {where}{hint(name, known)}")


def _allowed(settings: dict[str, Any] | None) -> dict[str, Any]:
    if refused := _DECIDED & (settings or {}).keys():
        raise InputError(f"model.net.settings cannot hold {', '.join(sorted(refused))}")
    return settings or {}
