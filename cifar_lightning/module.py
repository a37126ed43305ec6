"""The LightningModule: an injected net, loss, optimizer and schedule, and one step for train, val and test.

Notation: `B` batch, `K` classes, `S` side of the images in pixels.
"""

import inspect
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import UninitializedParameter
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cifar_lightning.batch import Batch, GivesBatches
from cifar_lightning.familiarity import Watched
from cifar_lightning.finite import LossWatch
from cifar_lightning.initial_weights import take_over
from cifar_lightning.loss import CrossEntropy
from cifar_lightning.metrics import Measured, Measurement
from cifar_lightning.nets.normalize import Normalize
from cifar_lightning.nets.whitening import Whitening
from cifar_lightning.recipe import Recipe, SchedulerCallable
from cifar_onnx import InputError

Outputs = Tensor | tuple[Tensor, ...]  # logits `(B, K)`, or these and auxiliary ones
_AUXILIARY = 0.3  # weight of the losses of the latter
_GIVEN = "Classifier needs an ImageData, or loaders of cifar_lightning.batch.Batch without a data module"
_EXCERPT = 1000  # training images that whitening layers are computed from; at 32x32 pixels they have a million patches


def _check(batch: object) -> None:
    if not isinstance(batch, Batch):
        raise InputError(f"{_GIVEN}: a batch was a {type(batch).__name__}")


def _seed(seed: int, device: torch.device) -> None:
    """As torch.manual_seed for the generators that a step can draw from, in a hundredth of its time."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


class Classifier(Measured):
    """Trains and judges any net that maps normalised pixels `(B, 3, S, S)` to logits `(B, K)`.

    Args:
        classes: names, in the order of the logits.
        net: the net.
        optimizer: makes the optimizer from the parameters; None is Adam.
        scheduler: makes the schedule from the optimizer, such as partial(OneCycleLR, max_lr=0.01). It and WarmupLinear
            are told the number of steps; these and CyclicLR step per batch, others per epoch (a plateau's by val/loss).
        loss: of logits `(B, K)` and labels `(B,)`; where its forward asks for `images` or `classes` by these names, it
            is given them, too.
        init_from: checkpoint of another run whose weights the net begins with, but for the head where that knows other
            classes.
        lr_factors: by names of parts, such as net.head, what the optimizer's learning rate is multiplied by for their
            parameters. Where a part lies within another, the inner one's counts.
        compile: mode of torch.compile for the net while it is trained, such as default or max-autotune; None is eager.
            The first steps then take minutes: worth it where training takes hours, or on the same GPU again and again.

    Attributes:
        normalised: whether the normalisation is settled: it came with weights, or an earlier training has set it. If
            not, `setup` takes it from the training images.
        resumed: whether the weights are those of a run that goes on, or of a loaded model: `begin` leaves these.
    """

    def __init__(
        self,
        classes: list[str],
        net: nn.Module,
        optimizer: OptimizerCallable | None = None,
        scheduler: SchedulerCallable | None = None,
        loss: nn.Module | None = None,
        init_from: str | None = None,
        lr_factors: dict[str, float] | None = None,
        compile: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None = None,  # noqa: A002
    ) -> None:
        super().__init__(Recipe(optimizer or torch.optim.Adam, scheduler, lr_factors or {}), classes)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Attribute .* is an instance of `nn.Module`")
            self.save_hyperparameters(logger=False)
        # From YAML they are plain values; objects made in Python stay out of checkpoints, which hold nothing else.
        objects = [name for name, value in self.hparams.items() if callable(value)]
        self.remove_ignored_hparams(objects)
        if any(isinstance(each, UninitializedParameter) for each in net.parameters()):
            raise InputError("model.net has lazy layers of unknown size: give it, as in nn.Linear(512, 10)")
        self.pixels = Normalize()
        self.net = net.to(memory_format=torch.channels_last)
        self.compile_mode = compile
        self.loss = loss or nn.CrossEntropyLoss()
        self._asked = {"images", "classes"} & inspect.signature(self.loss.forward).parameters.keys()  # by the loss
        weights = dict(self.loss.named_buffers(recurse=False)).get("weight")  # by which torch's losses weigh classes
        if weights is not None and weights.shape != (len(classes),):
            raise InputError(
                f"model.loss has {weights.numel()} class weights for {len(classes)} classes: give one for each"
            )
        if isinstance(self.loss, CrossEntropy):
            self.loss.reserve(len(classes))
        self._watch = LossWatch()
        self._init_from = init_from
        self._begun = self.normalised = self.resumed = False

    def begin(self, resumed: bool = False) -> None:
        """Take over the weights that the net begins with, once; a run that goes on brings its own.

        Raises:
            InputError: they cannot be had, or are of another net.
        """
        if self._begun:
            return
        self._begun, self.resumed = True, resumed
        self.normalised = resumed or take_over(self.net, self.pixels, self.classes, self._init_from)

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if not issubclass(kind := type(datamodule), GivesBatches | None):
            raise InputError(f"{_GIVEN}: {kind.__name__} is neither")
        self.seed = torch.initial_seed()  # of seed_everything; each step seeds anew
        # Lightning converts after it has restored a checkpoint, and would have rounded 64-bit weights to 32.
        self.trainer.precision_plugin.convert_module(self)
        if self.compile_mode:
            # A graph for each size: one for all would be slower at each. Stages of Freeze each need their own.
            torch.compiler.config.recompile_limit = 64
            self.net.compile(mode=self.compile_mode, dynamic=False)
        self.begin()
        if isinstance(self.loss, CrossEntropy):
            if datamodule is not None:
                labels = torch.from_numpy(datamodule.images("train").labels)
                self.loss.set_counts(labels.bincount(minlength=len(self.classes)).to(self.device))
            elif self.loss.rule and not self.loss.counted:
                raise InputError(
                    f"class_weights {self.loss.rule} needs a data module, whose images are counted: without one, "
                    "give the loss their numbers, loss.set_counts(torch.tensor([...])), or weights"
                )
        if datamodule is not None and not self.normalised:
            self.pixels.set_statistics(*datamodule.statistics)
            self.normalised = True
        self._watch.begin(self.state_dict())  # Lightning's finders save before training starts

    def forward(self, images: Tensor) -> Outputs:
        """Pixels 0..255, uint8 or float `(B, 3, S, S)`, to logits `(B, K)`; in training maybe auxiliary ones, too."""
        outputs: Outputs = self.net(self.pixels(images))
        return outputs

    def loss_of(self, outputs: Outputs, labels: Tensor, images: Tensor) -> Tensor:
        """The mean loss of logits `(B, K)`, labels `(B,)`, and the images that they are of.

        That of auxiliary logits, as Inception's, counts 0.3 (Szegedy et al. 2014, https://arxiv.org/abs/1409.4842).
        """
        if isinstance(outputs, tuple):
            logits, *auxiliary = outputs
            return self.loss_of(logits, labels, images) + _AUXILIARY * sum(
                self.loss_of(each, labels, images) for each in auxiliary
            )
        further = {"images": images, "classes": self.classes}
        if outputs.dtype.itemsize < 4:  # a sum of losses in half precision is on a grid of a few per mille
            outputs = outputs.float()
        loss: Tensor = self.loss(outputs, labels, **{name: further[name] for name in self._asked})
        return loss

    def _judged(self, outputs: Outputs, batch: Batch, part: Measurement) -> tuple[Tensor, Tensor]:
        """Loss and logits of a batch; the loss is noted."""
        loss = self.loss_of(outputs, batch.labels, batch.images)
        self.note_loss(part, loss, len(batch.labels))
        return loss, outputs[0] if isinstance(outputs, tuple) else outputs

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # Dropout is a function of the seed and the step, whatever was drawn before; augmentation has drawn from the
        # batch's own seed.
        _check(batch)
        _seed(batch.seed + 1, self.device)
        loss, logits = self._judged(self(batch.images), batch, "train")
        if not self.searching:  # for a learning rate, up to those that are too high
            self._watch.watch(self.trainer, loss, batch.indices, logits)
        return loss * batch.weight if self.trainer.world_size > 1 else loss

    def _eager(self) -> AbstractContextManager[None]:
        """Where pictures are judged, a compiled net is not: another graph would take minutes to compile."""
        return torch.compiler.set_stance("force_eager") if self.compile_mode else nullcontext()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        _check(batch)
        with self._eager():
            outputs = self(batch.images)
        self.val_metrics.update(self._judged(outputs, batch, "val")[1], batch.labels)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        _check(batch)
        with self._eager():
            logits, contrasts = Watched(self)(batch.images)
        self._judged(logits, batch, "test")
        self.note_answers(batch.indices, logits, contrasts, batch.labels)

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        """Indices, highest probabilities and their labels, each `(B,)`: those of all images are kept to the end."""
        _check(batch)
        with self._eager():
            return batch.indices, *self(batch.images).float().softmax(1).max(1)

    def on_train_epoch_end(self) -> None:
        """Log the loss, and step a schedule that waits for a plateau, before checkpoints are written.

        Lightning would step it after that, and a resumed run would have one step less.
        """
        self.log_loss("train")
        schedule = self.lr_schedulers()
        if self.validated and not self.cut_short and isinstance(schedule, ReduceLROnPlateau):
            schedule.step(self.trainer.callback_metrics["val/loss"])
        self.validated = False

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the average where the weights alone are kept, and nothing that is not finite.

        Raises:
            NotFiniteError: the weights are not worth keeping.
        """
        self._watch.check(self.trainer)
        if "callbacks" not in checkpoint:  # weights only, of which Lightning tells no callback: what was judged is kept
            for each in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(each, WeightAveraging) and each._average_model is not None:
                    checkpoint["state_dict"] = each._average_model.module.state_dict()
        for state in ("state_dict", "current_model_state"):  # averaged weights, and those that they are of
            self._watch.check_weights(self.trainer, checkpoint.get(state, {}))
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.begin(resumed=True)

    def on_train_start(self) -> None:
        """Compute whitening from training images, where no checkpoint has brought it, and take up settings.

        In on_fit_start it would come after the learning-rate finder, which trains there.
        """
        super().on_train_start()
        layers = [each for each in self.net.modules() if isinstance(each, Whitening) and not each.fitted]
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if layers and datamodule is None:
            raise InputError("whitening needs a data module for its images: without one, call its fit before training")
        if layers:
            images = self.pixels(datamodule.excerpt(_EXCERPT))
            for layer in layers:
                layer.fit(images)
        self.settle_optimizer()
