from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, LearningRateFinder, ModelCheckpoint
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassF1Score, MulticlassPrecision, MulticlassRecall

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning import trained
from cifar_lightning.augment import AlternatingMirror, Cutout, Mirror, ShiftedCrop
from cifar_lightning.batch import Batch
from cifar_lightning.cli.dry_run import dry_run
from cifar_lightning.data import Digits
from cifar_lightning.finite import LossWatch
from cifar_lightning.loss import CrossEntropy
from cifar_lightning.module import Classifier
from cifar_lightning.nets import CNN, SpeedNet, Whitening
from cifar_lightning.optim import MuonSGD, WarmupLinear
from cifar_lightning.recipe import Recipe
from cifar_onnx import InputError
from tests.conftest import BRIEF, Run, quiet, write_net

CLASSES = list("0123456789")

trainer = partial(quiet, limit_val_batches=0)


class Rates(L.Callback):
    """Learning rates, one for each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_onecycle_is_given_the_number_of_steps_and_steps_per_batch() -> None:
    rates = Rates()
    model = Classifier(CLASSES, CNN(), scheduler=partial(OneCycleLR, max_lr=0.1))
    trainer(max_epochs=2, limit_train_batches=5, callbacks=[rates]).fit(model, datamodule=Digits())
    optimizer = torch.optim.Adam([torch.zeros(1)])
    schedule = OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    expected = []
    for _ in range(10):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates.seen == pytest.approx(expected)


class Own(OneCycleLR):
    """Of the user's own, as it was."""


class Short(OneCycleLR):
    """One that knows its end."""

    def __init__(self, optimizer: torch.optim.Optimizer, max_lr: float) -> None:
        super().__init__(optimizer, max_lr, total_steps=7)


class Further(OneCycleLR):
    """One that passes on what it is given."""

    def __init__(self, optimizer: torch.optim.Optimizer, **settings: Any) -> None:
        super().__init__(optimizer, **settings)


@pytest.mark.parametrize(("schedule", "steps"), [(OneCycleLR, 9), (Own, 9), (Further, 9), (Short, 7)])
def test_subclasses_are_given_the_number_of_steps_if_they_take_it(schedule: type[OneCycleLR], steps: int) -> None:
    optimizer = torch.optim.Adam([torch.zeros(1)])
    made = Recipe(torch.optim.Adam, partial(schedule, max_lr=0.1)).schedule(optimizer, lambda: 9)
    assert made.total_steps == steps  # type: ignore[union-attr]


def test_a_schedule_may_be_what_a_function_makes() -> None:
    def halved(period: int, optimizer: torch.optim.Optimizer, **settings: float) -> StepLR:
        return StepLR(optimizer, period, **settings)

    made = Recipe(torch.optim.Adam, partial(halved, 3, gamma=0.5)).schedule(torch.optim.Adam([torch.zeros(1)]), int)
    assert (made.step_size, made.gamma) == (3, 0.5)  # type: ignore[union-attr]


@pytest.mark.parametrize("told", [{}, {"total_steps": 6}])
def test_steps_of_epochs_that_add_up_gradients_otherwise_are_counted_one_by_one(told: dict[str, int]) -> None:
    model = Classifier(CLASSES, CNN(), scheduler=partial(OneCycleLR, max_lr=0.1, **told))
    coach = trainer(max_epochs=2, limit_train_batches=4, callbacks=[GradientAccumulationScheduler({1: 2})])
    coach.fit(model, datamodule=Digits())
    assert coach.lr_scheduler_configs[0].scheduler.total_steps == coach.global_step == 6  # type: ignore[union-attr]


def test_other_schedules_step_per_epoch() -> None:
    rates = Rates()
    model = Classifier(CLASSES, CNN(), scheduler=partial(CosineAnnealingLR, T_max=2))
    trainer(max_epochs=2, limit_train_batches=3, callbacks=[rates]).fit(model, datamodule=Digits())
    assert rates.seen == pytest.approx([1e-3] * 3 + [5e-4] * 3)


def test_a_plateau_is_one_of_the_validation_loss() -> None:
    rates = Rates()
    model = Classifier(CLASSES, CNN(), scheduler=partial(ReduceLROnPlateau, patience=0, threshold=1e9))
    settings = {"limit_train_batches": 1, "limit_val_batches": 1}
    trainer(max_epochs=3, callbacks=[rates], **settings).fit(model, datamodule=Digits())
    assert rates.seen == pytest.approx([1e-3, 1e-4, 1e-5])


def test_metrics_of_earlier_weights_are_none_of_those_that_were_not_validated(tmp_path: Path) -> None:
    model = Classifier(CLASSES, CNN(widths=(4, 4), hidden=8))
    settings = {"limit_train_batches": 1, "limit_val_batches": 1, "check_val_every_n_epoch": 2}
    kept = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer(max_epochs=3, callbacks=[kept], enable_checkpointing=True, **settings).fit(model, Digits())
    assert model.origin["metrics"].keys() == {"train/loss"}
    for epoch, judged in ((1, True), (2, False)):
        checkpoint = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)
        assert "val/accuracy" in checkpoint["run"]["metrics"]  # for a run that goes on
        model.on_load_checkpoint(checkpoint)
        assert ("val/accuracy" in model.origin["metrics"]) == judged
        assert ("val/accuracy" in checkpoints.origin(checkpoint)["metrics"]) == judged


def test_a_stated_number_of_steps_is_kept() -> None:
    rates = Rates()
    model = Classifier(CLASSES, CNN(), scheduler=partial(OneCycleLR, max_lr=0.1, total_steps=100))
    trainer(max_epochs=1, limit_train_batches=3, callbacks=[rates]).fit(model, datamodule=Digits())
    assert max(rates.seen) < 0.01


def test_warmup_linear_that_was_told_where_to_end_stays_there() -> None:
    rates = Rates()
    schedule = partial(WarmupLinear, total_steps=2, final=0.5)
    trainer(max_epochs=1, limit_train_batches=4, callbacks=[rates]).fit(
        Classifier(CLASSES, CNN(), scheduler=schedule), datamodule=Digits()
    )
    assert rates.seen == pytest.approx([1e-3, 5e-4, 5e-4, 5e-4])


class Waits(TorchDispatchMode):
    """Counts operations whose result Python needs before it can go on: values, and shapes that depend on values."""

    WAITING = (
        torch.ops.aten._local_scalar_dense.default,
        torch.ops.aten.nonzero.default,
        torch.ops.aten.masked_select.default,
        torch.ops.aten.equal.default,
    )

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        masks = func is torch.ops.aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.count += func in self.WAITING or masks
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("wait", [Tensor.item, Tensor.nonzero, lambda x: x[x > 0], lambda x: bool(x.all())])
def test_the_watch_for_waits_sees_them(wait: Callable[[Tensor], object]) -> None:
    with Waits() as waits:
        wait(torch.ones(1))
    assert waits.count


def test_nothing_in_the_training_step_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the augmentation nor the step itself; a look at the loss, which on a CPU is part of it, waits a step."""
    waits = Waits()
    monkeypatch.setattr(LossWatch, "check", lambda self, trainer: None)

    class WatchedStep(Classifier):
        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            with waits:
                return super().training_step(batch, batch_idx)

    class WatchedData(Digits):
        def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
            with waits:
                return super().on_after_batch_transfer(batch, dataloader_idx)

    data = WatchedData(augment=[Mirror(), AlternatingMirror(), ShiftedCrop(), Cutout()])
    trainer(max_epochs=1, limit_train_batches=3).fit(WatchedStep(CLASSES, CNN()), datamodule=data)
    assert waits.count == 0


@pytest.mark.parametrize(("given", "taken"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_losses_are_in_single_precision_at_least(given: torch.dtype, taken: torch.dtype) -> None:
    model, logits = Classifier(CLASSES, CNN()), torch.randn(64, 10).to(given)
    labels = torch.arange(64) % 10
    loss = model.loss_of(logits, labels, torch.zeros(64, 3, 8, 8))
    assert loss.dtype == taken
    assert torch.equal(loss, torch.nn.functional.cross_entropy(logits.to(taken), labels))


def test_probabilities_are_in_single_precision_of_a_net_in_half() -> None:
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    model = Classifier(CLASSES, CNN()).eval()
    with torch.autocast("cpu", torch.bfloat16):
        places, found, labels = model.predict_step(Batch(images, *[torch.arange(4)] * 2, 0), 0)
        expected = model(images).float().softmax(1)  # (4, K)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected[places, labels])
    assert torch.equal(found, expected.max(1).values)


def test_a_loss_that_was_restored_goes_to_where_the_model_is() -> None:
    model = Classifier(CLASSES, CNN())
    model.trainer = trainer()
    run = {"validated": False, "train_loss": (torch.tensor(3.0), 2), "metrics": {}, "seed": 0}
    model.on_load_checkpoint({"run": run})
    assert [each.device.type for each in model.to("meta").loss_of_all("train")] == ["meta", "meta"]


def test_statistics_of_the_training_images_are_in_the_state() -> None:
    data, model = Digits(), Classifier(CLASSES, CNN())
    trainer(max_epochs=1, limit_train_batches=1).fit(model, datamodule=data)
    mean, std = data.statistics
    assert model.state_dict()["pixels.mean"].tolist() == pytest.approx(mean)
    assert model.state_dict()["pixels.std"].tolist() == pytest.approx(std)


def test_a_second_training_leaves_the_normalisation_that_the_weights_have_learnt_with() -> None:
    model, seen = Classifier(CLASSES, CNN(10, (4, 4), 8)), []
    for data in (Digits(), Digits(val_fraction=0.4)):
        trainer(max_epochs=1, limit_train_batches=1).fit(model, datamodule=data)
        seen.append(model.pixels.mean.tolist())
    assert seen[0] == seen[1]


def test_whitening_is_computed_from_training_images_before_the_first_step() -> None:
    data, net = Digits(), SpeedNet(10, (8, 8))
    model = Classifier(CLASSES, net)
    trainer(max_epochs=1, limit_train_batches=1).fit(model, datamodule=data)
    images = torch.from_numpy(data.images("train").pixels).permute(0, 3, 1, 2)
    chosen = torch.linspace(0, len(images) - 1, 1000).round().long()
    expected = Whitening()
    expected.fit(model.pixels(images[chosen]))
    assert torch.allclose(net.whitening.weight, expected.weight, atol=1e-4)
    assert net.whitening.fitted


def test_whitening_is_computed_before_the_learning_rate_finder_judges_the_net() -> None:
    net, fitted = SpeedNet(10, (8, 8)), list[bool]()
    net.register_forward_pre_hook(lambda net, _: fitted.append(bool(net.whitening.fitted)) if net.training else None)
    finder = LearningRateFinder(num_training_steps=3)
    trainer(max_epochs=1, limit_train_batches=3, callbacks=[finder]).fit(Classifier(CLASSES, net), datamodule=Digits())
    assert fitted == [True] * 6


@pytest.mark.parametrize(
    ("loss", "reason"),
    [(None, "whitening needs a data module"), (CrossEntropy(class_weights="inverse"), "inverse needs a data module")],
)
def test_what_asks_for_training_images_is_refused_where_there_is_no_data_module(
    loss: CrossEntropy | None, reason: str
) -> None:
    data = Digits()
    data.trainer = trainer()
    data.setup("fit")
    model = Classifier(CLASSES, SpeedNet(10, (8, 8)), loss=loss)
    with pytest.raises(InputError, match=reason):
        trainer(max_epochs=1).fit(model, data.train_dataloader(), data.val_dataloader())


PAIRS = [(torch.full((3, 32, 32), 10 * place, dtype=torch.uint8), place % 10) for place in range(20)]


def loader(collate: Callable[[list[tuple[Tensor, int]]], Batch] | None = None) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(PAIRS, batch_size=10, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not", "ignore:.*has shuffling enabled")
def test_data_modules_and_batches_of_other_kinds_are_refused() -> None:
    needed = "Classifier needs an ImageData, or loaders of cifar_lightning.batch.Batch without a data module"
    with pytest.raises(InputError, match=f"{needed}: LightningDataModule is neither"):
        trainer(max_epochs=1).fit(
            Classifier(CLASSES, CNN()),
            datamodule=L.LightningDataModule.from_datasets(PAIRS, PAIRS),  # type: ignore[arg-type]
        )
    with pytest.raises(InputError, match=f"{needed}: a batch was a list"):
        trainer(max_epochs=1).fit(Classifier(CLASSES, CNN()), loader(), loader())
    for judge in (trainer().test, trainer().predict):
        with pytest.raises(InputError, match=f"{needed}: a batch was a list"):
            judge(Classifier(CLASSES, CNN()), loader())


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not", "ignore:.*has shuffling enabled")
def test_steps_of_a_subclass_take_what_batches_they_like() -> None:
    class Pairs(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val/loss", self.training_step(batch, batch_idx))

        def on_train_epoch_end(self) -> None:
            pass

        on_validation_epoch_end = on_train_epoch_end

    coach = trainer(max_epochs=1)
    coach.fit(Pairs(CLASSES, CNN()), loader(), loader())
    assert coach.global_step == 2


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not")
def test_loaders_of_batches_with_seeds_of_their_own_have_another_order_in_each_epoch() -> None:
    orders, seeds = [], count()

    def collate(pairs: list[tuple[Tensor, int]]) -> Batch:
        images, labels = zip(*pairs, strict=True)
        places = torch.stack(images)[:, 0, 0, 0] // 10
        orders.append(places.tolist())
        return Batch(torch.stack(images), torch.tensor(labels), places.long(), seed=next(seeds))

    model = Classifier(CLASSES, CNN())
    model.pixels.set_statistics([0.3] * 3, [0.2] * 3)
    trainer(max_epochs=4).fit(model, loader(collate), loader())
    assert len({tuple(each) for each in orders}) == len(orders) == 8
    assert model.pixels.mean.tolist() == pytest.approx([0.3] * 3)


def test_class_weights_by_rule_may_be_told_how_many_images_there_are() -> None:
    data, loss = Digits(), CrossEntropy(class_weights="inverse")
    data.trainer = trainer()
    data.setup("fit")
    loss.set_counts(torch.tensor([1] * 9 + [2]))
    model = Classifier(CLASSES, CNN(10, (4, 4), 8), loss=loss)
    trainer(max_epochs=1, limit_train_batches=1).fit(model, data.train_dataloader(), data.val_dataloader())
    assert loss.weight is not None
    assert loss.weight[9] == pytest.approx(float(loss.weight[0]) / 2)


def test_whitening_that_a_checkpoint_brought_stays() -> None:
    net = SpeedNet(10, (8, 8))
    net.whitening.fit(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    before = net.whitening.weight.clone()
    trainer(max_epochs=1, limit_train_batches=1).fit(Classifier(CLASSES, net), datamodule=Digits())
    assert torch.equal(net.whitening.weight, before)


def test_every_group_of_an_optimizer_keeps_its_own_learning_rate() -> None:
    model = Classifier(CLASSES, SpeedNet(10, (8, 8)), optimizer=partial(MuonSGD, lr=0.1, dense_lr=0.02, bias_lr=3.0))
    coach = trainer(max_epochs=1, limit_train_batches=1)
    coach.fit(model, datamodule=Digits())
    assert [group["lr"] for group in coach.optimizers[0].param_groups] == [0.1, 0.02, 3.0]


def test_warmup_linear_is_given_the_number_of_steps_and_steps_per_batch() -> None:
    rates = Rates()
    model = Classifier(CLASSES, CNN(), scheduler=partial(WarmupLinear, warmup=0.5))
    trainer(max_epochs=2, limit_train_batches=2, callbacks=[rates]).fit(model, datamodule=Digits())
    assert rates.seen == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])


def test_metrics_equal_scikit_learns() -> None:
    data, model = Digits(), Classifier(CLASSES, CNN())
    (metrics,) = trainer(max_epochs=1).test(model, datamodule=data, verbose=False)
    images = data.images("test")
    with torch.inference_mode():
        predicted = model.eval()(torch.from_numpy(images.pixels).permute(0, 3, 1, 2)).argmax(1).numpy()
    shown = sorted({*predicted.tolist(), *images.labels.tolist()})
    expected = precision_recall_fscore_support(images.labels, predicted, average="macro", labels=shown, zero_division=0)
    assert metrics["test/accuracy"] == pytest.approx((predicted == images.labels).mean())
    for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
        assert metrics[f"test/{name}"] == pytest.approx(value, abs=1e-6)


class Largest(TorchDispatchMode):
    """The most numbers of any tensor that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, out.numel() if isinstance(out, Tensor) else 0)
        return out


def test_means_over_classes_are_torchmetrics_own_without_a_table_of_classes() -> None:
    """Of 40 classes, some are never shown, some never answered, and some neither."""
    generator = torch.Generator().manual_seed(0)
    kinds = {"precision": MulticlassPrecision, "recall": MulticlassRecall, "f1": MulticlassF1Score}
    reference = MetricCollection({name: kind(40, average="macro") for name, kind in kinds.items()}, prefix="val/")
    metrics, largest = Classifier([str(k) for k in range(40)], CNN(40)).val_metrics, Largest()
    for epoch in range(2):  # torchmetrics finds in the first batch what has its counts in common
        for size in (9, 16, 7):
            labels = torch.randint(30, (size,), generator=generator)
            logits = torch.randn(size, 40, generator=generator)
            logits[range(size), labels] += 2
            logits[:, epoch::3] -= 9
            reference.update(logits, labels)
            with largest:
                metrics.update(logits, labels)
        found, expected = metrics.compute(), reference.compute()
        assert {name: float(found[name]) for name in expected} == pytest.approx(
            {name: float(value) for name, value in expected.items()}
        )
        assert min(expected.values()) > 0.1
        metrics.reset()
        reference.reset()
    assert largest.numbers <= 16 * 40


def test_class_weights_must_be_one_for_each_class() -> None:
    with pytest.raises(InputError, match="3 class weights for 10 classes"):
        Classifier(CLASSES, CNN(), loss=CrossEntropy(class_weights=[1.0, 1.0, 1.0]))


@pytest.mark.parametrize("weight", [0.5, torch.nn.Parameter(torch.ones(3))])
def test_what_else_a_loss_calls_weight_is_not_taken_for_class_weights(weight: float | Tensor) -> None:
    loss = torch.nn.L1Loss()
    loss.weight = weight  # type: ignore[assignment]
    assert Classifier(CLASSES, CNN(), loss=loss).loss is loss


def test_a_checkpoint_becomes_a_model_again(checkpoint: Path) -> None:
    """By this package, which lets no class be named that is not of its libraries, and by Lightning's own way."""
    images = torch.from_numpy(Digits().images("val").pixels[:8]).permute(0, 3, 1, 2)
    kept = checkpoints.load(checkpoint)["state_dict"]
    fresh = Classifier(CLASSES, CNN())
    fresh.load_state_dict(kept)
    for model in (trained.load(str(checkpoint)), Classifier.load_from_checkpoint(checkpoint)):
        assert model.classes == CLASSES
        assert torch.equal(model.eval()(images), fresh.eval()(images))


def test_a_model_that_was_loaded_is_trained_on_from_what_it_has(checkpoint: Path) -> None:
    for model in (trained.load(str(checkpoint)), Classifier.load_from_checkpoint(checkpoint)):
        model.train().pixels.set_statistics([0.1] * 3, [0.2] * 3)  # as of other pictures
        model.recipe = Recipe(partial(torch.optim.SGD, lr=0.0), None)
        before = deepcopy(model.state_dict())
        trainer(max_epochs=1, limit_train_batches=1).fit(model, Digits())
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_classes_of_others_are_loaded_where_that_is_allowed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_net("nets_to_load", "Loaded", monkeypatch)
    assert run("fit", *BRIEF, "--model.net", "nets_to_load.Loaded").code == 0
    best = "runs/cnn/version_0/checkpoints/best.ckpt"
    with pytest.raises(InputError, match=r"Loaded is not a class of .*; if you trust that code, give allow"):
        trained.load(best)
    assert type(trained.load(best, allow_custom_classes=True).net).__name__ == "Loaded"


def test_only_training_runs_a_compiled_net(monkeypatch: pytest.MonkeyPatch) -> None:
    model, stances = Classifier(CLASSES, CNN(), compile="default").eval(), []
    monkeypatch.setattr(model, "_eager", lambda: nullcontext(stances.append("eager")))
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    model.predict_step(Batch(images, torch.tensor([0]), torch.tensor([0]), seed=0), 0)
    assert stances == ["eager"]


def test_the_dry_run_does_not_look_for_fast_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    searching = []
    net = CNN()
    net.register_forward_pre_hook(lambda *_: searching.append(torch.backends.cudnn.benchmark))
    dry_run(Classifier(CLASSES, net), Digits(), torch.device("cpu"))
    assert set(searching) == {False}
    assert torch.backends.cudnn.benchmark


def test_the_dry_run_changes_nothing() -> None:
    model = Classifier(["a", "b"], CNN(2), scheduler=partial(ExponentialLR, gamma=0.5))
    data = Digits(augment=[ShiftedCrop(4)])
    before, drawn = deepcopy(model.state_dict()), torch.get_rng_state()
    dry_run(model, data, torch.device("cpu"))
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
