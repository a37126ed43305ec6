"""Beginning with another run's weights, parts that stay as they are, and learning rates by part."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning.callbacks import Freeze, FreezeBatchNorm
from cifar_lightning.data import ImageFolder
from cifar_lightning.initial_weights import take_over
from cifar_lightning.module import Classifier
from cifar_lightning.nets import CNN, Normalize, SpeedNet
from cifar_lightning.nets.weights import heads, take
from cifar_lightning.optim import MuonSGD, WarmupLinear
from cifar_lightning.recipe import Recipe
from cifar_onnx import InputError
from tests.conftest import BRIEF, Run, lines, quiet, write_model

ONE_CYCLE = "OneCycleLR --model.scheduler.max_lr 0.01 --model.scheduler.total_steps 6"
SPEED = {"widths": (8, 8, 16)}


def state(path: str | Path = "runs/cnn/version_0/checkpoints/last.ckpt") -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return {name: value for name, value in found.items() if name.startswith(("net.", "pixels."))}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> set[str]:
    """Names of the tensors that are the same bit for bit."""
    return {name for name in a if a[name].shape == b[name].shape and torch.equal(a[name], b[name])}


@pytest.fixture
def others(tmp_path: Path) -> tuple[str, dict[str, Tensor]]:
    """A checkpoint of ten classes with other names than the digits', and its weights."""
    torch.manual_seed(3)
    model = Classifier([f"thing {k}" for k in range(10)], CNN())
    model.pixels.set_statistics([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    path = write_model(tmp_path / "others.ckpt", model)
    return path, state(path)


class TestInitFrom:
    def test_all_but_the_head_is_taken_over_where_the_classes_are_others(
        self, run: Run, others: tuple[str, dict[str, Tensor]]
    ) -> None:
        path, before = others
        result = run("fit", *BRIEF, "--model.init_from", path, "--trainer.callbacks+", "Freeze")
        assert result.code == 0, result.err
        assert f"{path}: 8 of 10 tensors loaded; newly initialised: head.4.weight, head.4.bias" in result.err
        assert equal(state(), before) == before.keys() - {"net.head.4.weight", "net.head.4.bias"}

    def test_where_they_are_the_same_the_head_is_taken_too(self, run: Run, checkpoint: Path) -> None:
        result = run("fit", *BRIEF, "--model.init_from", checkpoint, "--model.optimizer.lr", 0)
        assert result.code == 0, result.err
        assert "10 of 10 tensors loaded\n" in result.err
        assert "held out now" not in result.out
        finder = ("--trainer.callbacks+", "LearningRateFinder", "--trainer.callbacks.num_training_steps", 3)
        result = run("fit", *BRIEF, "--model.init_from", checkpoint, "--data.val_fraction", 0.2, *finder)
        assert f"{checkpoint} was trained on other images or another split" in result.out
        assert equal(state(), state(checkpoint)) == state(checkpoint).keys()

    @pytest.mark.slow
    def test_a_run_that_goes_on_and_a_test_need_it_no_more(
        self, run: Run, others: tuple[str, dict[str, Tensor]]
    ) -> None:
        assert run("fit", *BRIEF, "--model.init_from", others[0]).code == 0
        Path(others[0]).unlink()
        last = "runs/cnn/version_0/checkpoints/last.ckpt"
        result = run("fit", *BRIEF, "--model.init_from", others[0], "--ckpt_path", last, "--trainer.max_epochs", 2)
        assert result.code == 0, result.err
        assert "tensors loaded" not in result.err
        assert run("test", "--ckpt_path", last, "--resamples", 10).code == 0

    def test_a_layer_is_taken_over_whole_or_not_at_all(self) -> None:
        old, new = (SpeedNet(3, **SPEED, kernel_size=size) for size in (2, 3))
        old.whitening.fit(torch.randn(8, 3, 9, 9))
        take(new, old.state_dict(), "old")
        assert not new.whitening.fitted
        same = equal(new.state_dict(), old.state_dict())
        assert not {name for name in same if name.startswith("whitening")}
        assert {"groups.2.0.weight", "head.weight"} <= same

    def test_a_layer_whose_weights_are_not_finite_begins_anew(self, capsys: pytest.CaptureFixture[str]) -> None:
        """As those of torchvision's VGG-16 with IMAGENET1K_FEATURES, which has learnt no classes."""

        def net() -> nn.Module:
            layers = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
            layers[1].register_buffer("mask", torch.tensor([0, -torch.inf]))  # which is so of itself
            return layers

        old, new = net(), net()
        with torch.no_grad():
            old[2].weight[1, 3] = torch.nan  # type: ignore[union-attr,operator,index]
        take(new, old.state_dict(), "old")
        assert equal(new.state_dict(), old.state_dict()) == {"0.weight", "0.bias", "1.weight", "1.bias", "1.mask"}
        assert "old: 5 of 7 tensors loaded; newly initialised: 2.weight, 2.bias\n" in capsys.readouterr().err

    def test_both_heads_of_a_net_with_two_are_found(self) -> None:
        layers = {"first": nn.Linear(3, 3), "body": nn.Linear(3, 4), "head": nn.Linear(4, 3), "dist": nn.Linear(4, 3)}
        assert heads(nn.ModuleDict(layers), 3) == ["dist", "head"]
        assert heads(nn.ModuleDict(layers), 4) == ["body"]
        assert heads(nn.ModuleDict(layers), 5) == []

    def test_a_parametrised_head_is_left_whole_too(self) -> None:
        def net() -> nn.Module:
            head = nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))
            return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), head)

        old, new = net(), net()
        take(new, old.state_dict(), "old", skip=heads(new, 2))
        assert equal(new.state_dict(), old.state_dict()) == {"0.weight", "0.bias", "1.weight", "1.bias"}

    def test_a_net_whose_head_is_no_layer_can_begin_with_the_same_classes_or_another_number(
        self, tmp_path: Path
    ) -> None:
        class Cosine(nn.Sequential):
            def __init__(self, classes: int) -> None:
                super().__init__(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
                self.anchors = nn.Parameter(torch.randn(classes, 8))

        path = write_model(tmp_path / "cosine.ckpt", Classifier(["a", "b"], Cosine(2)))
        for classes, taken in ((["a", "b"], 3), (["a", "b", "c"], 2)):
            net = Cosine(len(classes))
            assert take_over(net, Normalize(), classes, path)
            assert len(equal(net.state_dict(), {n[4:]: v for n, v in state(path).items() if n[:4] == "net."})) == taken
        with pytest.raises(InputError, match=r"^model\.init_from: .* knows other classes \(a, b\), and the net has no"):
            take_over(Cosine(2), Normalize(), ["c", "d"], path)

    def test_parameters_beside_layers_are_taken_over_one_by_one(self) -> None:
        """A class token is as good where pictures have another size, and so another number of positions."""

        class Transformer(nn.Module):
            def __init__(self, places: int) -> None:
                super().__init__()
                self.token, self.positions = nn.Parameter(torch.randn(2)), nn.Parameter(torch.randn(places))
                self.layer = nn.Linear(2, 2)

        old, new = Transformer(4), Transformer(9)
        take(new, old.state_dict(), "old")
        assert equal(new.state_dict(), old.state_dict()) == {"token", "layer.weight", "layer.bias"}

    def test_another_net_and_a_missing_file_are_refused(self, run: Run, tmp_path: Path) -> None:
        speed = write_model(tmp_path / "speed.ckpt", Classifier(["a", "b"], SpeedNet(2, **SPEED)), **SPEED)
        python = checkpoints.load(speed)
        del python["hyper_parameters"]["net"]
        checkpoints.write(python, "python.ckpt")
        another = "it belongs to another net"
        for path, reason in (
            (speed, f"{another}: choose that, cifar_lightning.nets.SpeedNet, with the same settings\n"),
            ("python.ckpt", f"{another}\n"),
            ("no.ckpt", "no such checkpoint (No such file or directory)\n"),
        ):
            result = run("fit", *BRIEF, "--model.init_from", path)
            assert result.code == 2
            assert f"error: model.init_from: {path}" in result.err
            assert result.err.endswith(reason)
            assert not Path("runs").exists()


def trained(folder: Path, callbacks: list[L.Callback]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State of a net before and after three epochs of three steps, with weight decay and momentum."""
    torch.manual_seed(0)
    data = ImageFolder(str(folder), image_size=16, batch_size=11, cache_dir=str(folder.parent / "cache"))
    model = Classifier(data.classes, SpeedNet(3, **SPEED), lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quiet(max_epochs=3, callbacks=callbacks).fit(model, datamodule=data)
    after = model.state_dict()
    names = [name for name in after if name.startswith("net.") and "whitening.w" not in name and "fitted" not in name]
    return {name: before[name] for name in names}, {name: after[name] for name in names}


class Look(L.Callback):
    """What is equal to the beginning after each epoch, and which layers were in training mode in its steps."""

    def __init__(self) -> None:
        self.equal: list[set[str]] = []
        self.modes: list[bool] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.begin = {name: value.clone() for name, value in pl_module.state_dict().items()}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.modes.append(pl_module.net.groups[1][2].training)  # type: ignore[union-attr,index]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.equal.append(equal(pl_module.state_dict(), self.begin))


class TestFreeze:
    def test_a_linear_probe_leaves_all_else_bit_equal_and_batch_statistics_too(self, photos: Path) -> None:
        before, after = trained(photos, [Freeze()])
        assert before.keys() - equal(before, after) == {"net.head.weight"}
        free, moved = trained(photos, [])
        gains = {f"net.groups.{n}.{layer}.weight" for n in (1, 2, 3) for layer in (2, 5)}  # never trained
        assert equal(free, moved) == gains

    def test_the_next_training_is_of_all_of_the_net(self, photos: Path) -> None:
        data = ImageFolder(str(photos), image_size=16, batch_size=11)
        model = Classifier(data.classes, SpeedNet(3, **SPEED))
        learnt = [name for name, each in model.named_parameters() if each.requires_grad]
        quiet(max_epochs=1, callbacks=[Freeze()]).fit(model, datamodule=data)
        assert all(each.training for each in model.net.modules())
        before = {name: value.clone() for name, value in model.state_dict().items()}
        quiet(max_epochs=1).fit(model, datamodule=data)
        assert not equal(model.state_dict(), before) & set(learnt)

    def test_a_net_is_unfrozen_in_stages(self, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        look = Look()
        stages = [Freeze(["net.whitening", "net.groups.1"], 1), Freeze(["net.groups.2"], 2), Freeze(["net.head"], 3)]
        trained(photos, [*stages, look])
        never = "Freeze.until_epoch is 3, and the run ends after 3 epochs: nothing will be unfrozen"
        assert lines(capsys.readouterr().out, "Freeze") == [never]
        weights = {n: f"net.groups.{n}.0.weight" for n in (1, 2, 3)}
        means = {n: f"net.groups.{n}.2.running_mean" for n in (1, 2, 3)}
        for kind in (weights, means):
            assert [kind[1] in each for each in look.equal] == [True, False, False]
            assert [kind[2] in each for each in look.equal] == [True, True, False]
            assert not any(kind[3] in each for each in look.equal)
        assert look.modes == [False] * (len(look.modes) // 3) + [True] * (len(look.modes) * 2 // 3)

    @pytest.mark.parametrize("until", [2, None])
    def test_a_part_that_stays_longer_stays_in_whichever_order_they_are_given(
        self, photos: Path, until: int | None
    ) -> None:
        parts = [Freeze(["net.groups.1"], until), Freeze(["net.groups"], 1)]
        for order in (parts, parts[::-1]):
            look = Look()
            trained(photos, [*order, look])
            for name in ("0.weight", "2.running_mean"):
                assert [f"net.groups.1.{name}" in each for each in look.equal] == [True, True, until is None]
                assert [f"net.groups.2.{name}" in each for each in look.equal] == [True, False, False]

    @pytest.mark.parametrize("frozen", [Freeze(["net.groups"]), FreezeBatchNorm()], ids=["part", "statistics"])
    def test_batch_normalisation_that_is_synchronised_is_frozen_too(self, photos: Path, frozen: L.Callback) -> None:
        class Synchronised(Look):
            """Puts it in place where Lightning does, between `setup` and `on_fit_start`."""

            def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
                torch.nn.SyncBatchNorm.convert_sync_batchnorm(pl_module)

            def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
                layers = [each for each in pl_module.modules() if isinstance(each, torch.nn.SyncBatchNorm)]
                assert len(layers) == 6
                self.modes.append(any(each.training for each in layers))

        look = Synchronised()
        trained(photos, [frozen, look])
        assert look.modes == [False] * 9

    @pytest.mark.parametrize("frozen", [[], [Freeze(["net.groups.1"], 2)]])
    @pytest.mark.parametrize("last", [True, False])
    def test_statistics_of_batch_normalisation_stay_while_all_else_is_trained(
        self, photos: Path, frozen: list[L.Callback], last: bool
    ) -> None:
        look = Look()
        callbacks = [*frozen, FreezeBatchNorm()] if last else [FreezeBatchNorm(), *frozen]
        before, after = trained(photos, [*callbacks, look])
        assert look.modes == [False] * 9
        gains = {f"net.groups.{n}.{layer}.weight" for n in (1, 2, 3) for layer in (2, 5)}  # which SpeedNet never trains
        statistics = {name for name in before if re.search("running_|num_batches", name)}
        assert equal(before, after) == gains | statistics

    def test_the_next_training_moves_them_and_a_net_without_any_is_refused(self, photos: Path) -> None:
        data = ImageFolder(str(photos), image_size=16, batch_size=11)
        model = Classifier(data.classes, SpeedNet(3, **SPEED))
        quiet(max_epochs=1, callbacks=[FreezeBatchNorm()]).fit(model, datamodule=data)
        assert all(each.training for each in model.net.modules())
        with pytest.raises(InputError, match="FreezeBatchNorm: the net has no batch normalisation: leave"):
            quiet(max_epochs=1, callbacks=[FreezeBatchNorm()]).fit(Classifier(data.classes, CNN(3)), datamodule=data)

    @pytest.mark.parametrize(
        ("words", "reason"),
        [
            (("parts", "[]"), "Freeze.parts is empty"),
            (("until_epoch", 0), "Freeze.until_epoch is 0: it must be at least 1"),
            (("parts", "[net]"), "Freeze: nothing is left to train"),
            (("parts", "[net.head]", "until_epoch", 1, "parts", "[net.blocks]", "until_epoch", 1), "nothing is left"),
        ],
    )
    def test_what_freezes_nothing_or_all_is_refused(self, run: Run, words: tuple[object, ...], reason: str) -> None:
        given: list[object] = []
        for at in range(0, len(words), 2):
            given += ["--trainer.callbacks+", "Freeze"] if at % 4 == 0 else []
            given += [f"--trainer.callbacks.{words[at]}", words[at + 1]]
        result = run("fit", *BRIEF, *given)
        assert result.code == 2
        assert reason in result.err

    def test_muon_takes_up_what_is_unfrozen(self, run: Run) -> None:
        net = ("--model.net", "SpeedNet", "--model.net.widths", "[8, 8]", "--model.net.components", 4)
        freeze = ("--trainer.callbacks+", "Freeze", "--trainer.callbacks.until_epoch", 1, "--trainer.max_epochs", 2)
        result = run("fit", *BRIEF, *net, "--model.optimizer", "MuonSGD", *freeze, "--last.every_n_epochs", 1)
        assert result.code == 0, result.err
        assert re.search("^training 80 of [0-9,]{5} parameters on cpu$", result.out, re.MULTILINE)  # the head's
        kept = torch.load("runs/cnn/version_0/checkpoints/last.ckpt", weights_only=True)
        steps = {len(each) for each in kept["optimizer_states"][0]["state"].values()}
        assert steps == {1}

    def test_a_part_that_is_not_there_is_named(self, photos: Path) -> None:
        with pytest.raises(InputError, match=r"no part 'net\.grups': there are net\.whitening, net\.groups, net\.head"):
            trained(photos, [Freeze(["net.grups"])])


class TestLearningRates:
    FACTORS = {"net": 0.5, "net.head": 2.0, "net.blocks.0": 0.0}  # noqa: RUF012

    def test_the_longest_name_counts(self) -> None:
        model = Classifier(["a", "b"], CNN(2))
        optimizer = Recipe(lambda p: torch.optim.SGD(p, lr=0.1), None, self.FACTORS).optimizer_of(model)
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        found = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
        assert len(found) == len(rates) == 10
        for name, rate in found.items():
            factor = 2.0 if "head" in name else 0.0 if "blocks.0" in name else 0.5
            assert rate == pytest.approx(0.1 * factor), name

    def test_the_finder_is_told_the_optimizers_own_where_the_first_factor_is_0(self) -> None:
        model = Classifier(["a", "b"], CNN(2), partial(torch.optim.SGD, lr=0.1), lr_factors={"net.blocks": 0.0})
        assert model.lr == 0.1

    def test_they_hold_in_a_cycle(self) -> None:
        cycle = partial(CyclicLR, base_lr=0.01, max_lr=0.1)
        recipe = Recipe(partial(torch.optim.SGD, lr=1, momentum=0.9), cycle, {"net.head": 0.5})
        optimizer = recipe.optimizer_of(Classifier(["a", "b"], CNN(2)))
        schedule = recipe.schedule(optimizer, lambda: 10)
        assert isinstance(schedule, CyclicLR)
        assert schedule.base_lrs == [0.01, 0.005]
        assert schedule.max_lrs == [0.1, 0.05]

    def test_a_factor_below_0_is_refused(self, run: Run) -> None:
        result = run("fit", *BRIEF, "--model.lr_factors", '{"net": -1}')
        assert result.code == 2
        assert "model.lr_factors of net is -1: it must be at least 0" in result.err

    def test_a_factor_of_nothing_and_an_optimizer_with_groups_of_its_own_are_refused(self, run: Run) -> None:
        for words, reason in (
            (
                ('{"net.haed": 2}',),
                "lr_factors: no parameter begins with 'net.haed': there are net.blocks, net.head",
            ),
            (('{"net.head": 2}', "--model.optimizer", "MuonSGD"), "MuonSGD makes its own groups"),
        ):
            result = run("fit", *BRIEF, "--model.lr_factors", *words)
            assert result.code == 2
            assert reason in result.err

    def test_groups_of_an_optimizers_own_stay_in_proportion(self) -> None:
        net = SpeedNet(2, (4, 4))
        recipe = Recipe(MuonSGD, partial(OneCycleLR, max_lr=0.48, cycle_momentum=False))

        def rates(key: str, lr: float | None = None) -> list[float]:
            optimizer = recipe.optimizer_of(net, lr)
            if key == "max_lr":
                recipe.schedule(optimizer, lambda: 10, lr)
            return [group[key] for group in optimizer.param_groups]

        assert rates("lr") == [0.24, 0.02, 100.0]
        assert rates("lr", 0.12) == pytest.approx([0.12, 0.01, 50.0])
        assert rates("max_lr") == pytest.approx([0.48, 0.04, 200.0])
        assert rates("max_lr", 0.12) == pytest.approx([0.12, 0.01, 50.0])

    def test_a_schedule_may_be_its_class_alone(self) -> None:
        recipe = Recipe(partial(torch.optim.SGD, lr=1.0), WarmupLinear)
        schedule = recipe.schedule(recipe.optimizer_of(Classifier(["a", "b"], CNN(2))), lambda: 10)
        assert isinstance(schedule, WarmupLinear)
        assert schedule.total_steps == 10

    @pytest.mark.parametrize("scheduler", ["", pytest.param(ONE_CYCLE, marks=pytest.mark.slow)])
    def test_they_hold_through_a_schedule_and_a_run_that_goes_on(self, run: Run, scheduler: str) -> None:
        words = ("fit", "--data", "Digits", "--trainer.limit_train_batches", 3)
        words += ("--model.scheduler", *scheduler.split()) if scheduler else ()
        words = (*words, "--trainer.max_epochs", 2)
        factors = ("--model.lr_factors", '{"net.blocks": 0.0}')  # which the checkpoint knows
        assert run(*words, *factors, "--experiment", "whole").code == 0
        assert run(*words, *factors, "--experiment", "parts", "--trainer.max_epochs", 1).code == 0
        last = "runs/parts/version_0/checkpoints/last.ckpt"
        assert run(*words, "--experiment", "parts", "--ckpt_path", last).code == 0
        whole = state("runs/whole/version_0/checkpoints/last.ckpt")
        for version in (0, 1):
            path = Path(f"runs/parts/version_{version}/checkpoints/last.ckpt")
            blocks = {name for name in whole if "blocks" in name}
            assert blocks <= equal(whole, state(path))  # their rate is 0
        assert equal(whole, state("runs/parts/version_1/checkpoints/last.ckpt")) == whole.keys()


def test_the_learning_rate_finder_finds_one_and_leaves_no_file(run: Run) -> None:
    words = ("--trainer.callbacks+", "LearningRateFinder", "--trainer.callbacks.num_training_steps", 30)
    words += ("--model.net.widths", "[4,4]", "--model.net.hidden", 8)
    factors = ("--model.lr_factors", '{"net.head": 0.5}')
    result = run("fit", "--data", "Digits", "--trainer.max_epochs", 1, *words, *factors)
    assert result.code == 0, result.err
    kept = torch.load("runs/cnn/version_0/checkpoints/last.ckpt", weights_only=True)
    slow, fast = sorted(group["lr"] for group in kept["optimizer_states"][0]["param_groups"])
    assert slow == pytest.approx(fast / 2)
    assert fast != pytest.approx(1e-3)  # which is the config's
    assert not list(Path().glob(".lr_find*"))
    assert json.loads(Path("runs/cnn/version_0/run.json").read_text())["seconds"] < 600
    schedule = ("--model.scheduler", "OneCycleLR", "--model.scheduler.max_lr", 0.01)
    result = run("fit", "--data", "Digits", "--trainer.max_epochs", 2, *words, *schedule, "--experiment", "cycle")
    assert result.code == 0, result.err
    kept = torch.load("runs/cycle/version_0/checkpoints/last.ckpt", weights_only=True)
    (group,) = kept["optimizer_states"][0]["param_groups"]
    assert group["max_lr"] != 0.01
