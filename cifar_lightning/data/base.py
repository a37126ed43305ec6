"""The LightningDataModule under every source: split, statistics, batches on the device, augmentation."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch

from cifar_lightning.augment import Augmentation, Draw
from cifar_lightning.batch import Batch, GivesBatches
from cifar_lightning.data.batches import Batches
from cifar_lightning.data.images import Images, Part, Rows, Sampling, channel_statistics, check_images, slices
from cifar_lightning.mix import Mixing
from cifar_onnx import InputError
from cifar_onnx.errors import check_choice, some
from cifar_onnx.images import encode_png, fingerprint
from cifar_onnx.resizing import ResizeMode


class ImageData(L.LightningDataModule, GivesBatches, ABC):
    """Images in memory, or streamed from disk; a source says what they are.

    Parts that the source does not give are seeded, stratified slices of train. The test set is loaded by `test` and
    `predict` only.

    Args:
        batch_size: images a step.
        augment: random changes of each training batch, in this order, such as `Mirror`.
        mix: `MixUp` or `CutMix`: blends the images of a batch, and their labels, after `augment`.
        sampling: of an epoch: `once` shows each image once; `balanced` draws as many images anew, each class as often
            as any other, so that those of rare classes come again and again.
        val_fraction: share of each class held out for validation, where there is no validation set.
        test_fraction: share of each class held out for the test, where there is no test set.
        split_seed: decides what is held out, and what `limit_val_batches` and `limit_test_batches` leave; the run's
            seed does not, so that runs with other seeds are comparable.

    Attributes:
        image_size: side of the images in pixels.
        resize_mode: how a picture of another size or shape becomes one of them.
        elsewhere: whether these are other pictures than the checkpoint's; without a test set, `predict` then takes all.
    """

    image_size: int = 32
    resize_mode: ResizeMode = "stretch"
    elsewhere = False

    def __init__(
        self,
        batch_size: int = 64,
        augment: list[Augmentation] | None = None,
        mix: Mixing | None = None,
        sampling: Sampling = "once",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        for name, number, least in (("batch_size", batch_size, 1), ("split_seed", split_seed, 0)):
            if number < least:
                raise InputError(f"data.{name} is {number}: it must be at least {least}")
        for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 < fraction < 0.5:
                raise InputError(f"data.{name} is {fraction}: it must lie between 0 and 0.5")
        check_choice("data.sampling", sampling, Sampling)
        self.save_hyperparameters(logger=False)
        for name, given in (("augment", augment), ("mix", mix)):
            if given and self.hparams[name] == given:  # made in Python, not from YAML: no plain values
                self.remove_ignored_hparams([name])
        self.batch_size, self.augment, self.mix, self.sampling = batch_size, augment or [], mix, sampling
        self.val_fraction, self.test_fraction, self.split_seed = val_fraction, test_fraction, split_seed
        self.position = (0, 0)  # where training stood when it was saved: epochs, and batches of the next
        self._seed = 0
        self._parts: dict[Part, Images] = {}
        self._tensors: dict[Part, tuple[torch.Tensor | Rows, torch.Tensor]] = {}

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """Class names in the order of the labels, known before any image is read."""

    @property
    @abstractmethod
    def given(self) -> frozenset[Part]:
        """The parts that the source has of itself; always `train`."""

    @abstractmethod
    def load(self, part: Part) -> Images:
        """Read one of the given parts."""

    def __str__(self) -> str:
        """What there is to train on, in a line."""
        train, val, names = self.images("train"), self.images("val"), self.classes
        size = f"{len(train):,} training images of {self.image_size} x {self.image_size} pixels"
        held = "" if "val" in self.given else "held out "
        absent = [names[label] for label in sorted({*range(len(names))} - {*val.labels.tolist()})]
        none = f" (none of {some(absent)})" if absent else ""
        test = "" if "test" in self.given else f", {len(self._parts['test']):,} held out for testing"
        return f"{len(names)} classes ({some(names)}): {size}, {len(val):,} {held}for validation{none}{test}"

    @property
    def input_rule(self) -> dict[str, Any]:
        """What a net learns to see: the size of the images and, where that is a setting, how pictures become square."""
        way = {"resize_mode": self.resize_mode} if "resize_mode" in self.hparams else {}
        return {"image_size": self.image_size, **way}

    def folder(self, part: Part) -> Path | None:
        """The folder that the pictures of a part are in, where they are files."""
        return None

    def original(self, part: Part, index: int) -> tuple[Path | bytes, str]:
        """The file of an image, or the bytes of one, and the fingerprint of what it was decoded to for training.

        Where the source has no files, a lossless one is made.
        """
        pixels = self.images(part).pixels[index]
        return encode_png(pixels), fingerprint(pixels)

    @property
    def predicted(self) -> Images:
        """What `predict` works on: the test set, or what the source gives for it."""
        return self.images(self._to_predict)

    @property
    def _to_predict(self) -> Part:
        return "predict" if "predict" in self.given else "test"

    def images(self, part: Part) -> Images:
        """A part, read or sliced off when first asked for."""
        if part not in self._parts:
            read: Part = part if part in self.given else "train"
            images = check_images(self.load(read), type(self).__name__, read, self.image_size, len(self.classes))
            if read != "train":
                self._parts[part] = images
            else:
                fractions: dict[Part, float] = {"test": self.test_fraction, "val": self.val_fraction}
                missing = {each: fraction for each, fraction in fractions.items() if each not in self.given}
                self._parts |= slices(images, missing, self.split_seed)
        return self._parts[part]

    @property
    def statistics(self) -> tuple[list[float], list[float]]:
        """Channel means and standard deviations of the training images, pixels scaled to 0..1."""
        return channel_statistics(self.images("train").pixels)

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        judged: dict[str, Part] = {"validate": "val", "test": "test", "predict": self._to_predict}
        needed: tuple[Part, ...] = ("train", "val") if stage == "fit" else (judged[stage],)
        device = self.trainer.strategy.root_device
        for part in needed:
            if (count := len(self.images(part))) < self.trainer.world_size:
                raise InputError(f"{count} images for {part} are too few for {self.trainer.world_size} processes")
        streamed = self.streamed(needed, device)
        for part, images in zip(needed, map(self.images, needed), strict=True):
            rows = images.pixels if streamed and isinstance(images.pixels, Rows) else None
            pixels = torch.from_numpy(images.pixels[:]).to(device) if rows is None else rows
            self._tensors[part] = pixels, torch.from_numpy(images.labels).to(device)
        if stage == "fit":
            self.position = (0, 0)  # of an earlier run; where this one goes on, its checkpoint is loaded after this
            self._seed = torch.initial_seed()  # of seed_everything; the training step seeds anew

    def streamed(self, parts: Iterable[Part], device: torch.device) -> bool:
        """Whether these parts stay on disk, where they lie there, because they are too large for the memory."""
        return False

    def state_dict(self) -> dict[str, int]:
        """Where training stands: epochs done, batches done of the next one, and how many there are in one.

        While gradients are being accumulated, it stands where the weights do: before the first batch of these.
        """
        assert self.trainer is not None
        loop, number = self.trainer.fit_loop, self.trainer.num_training_batches
        epochs, batches = (asdict(each.current) for each in (loop.epoch_progress, loop.epoch_loop.batch_progress))
        epoch, batch = epochs["processed"], batches["processed"]
        if epoch == epochs["ready"]:  # between two
            epoch, batch = (epoch - 1, batch) if 0 < batch < number else (epoch, 0)  # one that was cut short goes on
        if batch < number:
            batch -= batch % self.trainer.accumulate_grad_batches
        return {"epoch": epoch, "batch": batch, "batches": len(self.train_dataloader())}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        if "train" not in self._tensors:
            return  # nothing is trained
        epoch, batch = state_dict["epoch"], state_dict["batch"]
        if batch and state_dict["batches"] != len(self.train_dataloader()):
            print(f"the data or the batch size differ from those of the interrupted run: epoch {epoch} restarts")
            batch = 0
        self.position = epoch, batch

    def _place(self) -> tuple[int, int]:
        assert self.trainer is not None
        epoch, batch = self.position
        return self.trainer.current_epoch, batch if self.trainer.current_epoch == epoch else 0

    def train_dataloader(self) -> Batches:
        return self._batches("train")

    def val_dataloader(self) -> Batches:
        return self._batches("val")

    def test_dataloader(self) -> Batches:
        return self._batches("test")

    def predict_dataloader(self) -> Batches:
        return self._batches(self._to_predict)

    def _batches(self, part: Part) -> Batches:
        assert self.trainer is not None
        pixels, labels = self._tensors[part]
        training, limit = part == "train", getattr(self.trainer, f"limit_{part}_batches", 1.0)
        few = part in ("val", "test") and (isinstance(limit, int) or limit < 1)  # in order, only the first classes
        # Without gradients four times as many fit into memory; into the caches of a CPU they do not.
        times = 1 if training or labels.device.type == "cpu" else 4
        return Batches(
            pixels,
            labels,
            times * self.batch_size,
            seed=self._seed if training else self.split_seed,
            place=self._place if training else None,
            rank=self.trainer.global_rank,
            processes=self.trainer.world_size,
            shuffled=training or few,
            balanced=training and self.sampling == "balanced",
            fixed=self.trainer.overfit_batches > 0,  # type: ignore[attr-defined]
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch  # it is there already, and Lightning would look at every part of it

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return self.augmented(batch) if self.trainer and self.trainer.training else batch

    def augmented(self, batch: Batch) -> Batch:
        """A batch as training sees it: images uint8 `(B, 3, S, S)`; labels `(B,)`, or shares `(B, K)` where mixed."""
        images, labels = batch.images, batch.labels
        draw = Draw(torch.Generator(images.device).manual_seed(batch.seed), batch.indices, batch.epoch)
        for augmentation in self.augment:
            images = augmentation(images, draw)
        if self.mix is not None:
            images, labels = self.mix(images, labels, len(self.classes), draw)
        return batch._replace(images=images, labels=labels)

    def excerpt(self, count: int) -> torch.Tensor:
        """At most `count` training images spread over the set, uint8 `(n, 3, S, S)`, on the device of training."""
        pixels = self.images("train").pixels
        chosen = torch.linspace(0, len(pixels) - 1, min(count, len(pixels))).round().long()
        return torch.from_numpy(pixels[chosen.numpy()]).to(self._tensors["train"][1].device).permute(0, 3, 1, 2)
