import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import MobileNetV2

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning.callbacks import Pruned
from cifar_lightning.callbacks.prune import prune
from cifar_lightning.data import Digits
from cifar_lightning.module import Classifier
from cifar_lightning.nets import CNN, SpeedNet, Timm
from cifar_onnx import InputError
from tests.conftest import BRIEF, Run, quiet, write_model

CLASSES = list("0123456789")
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
PRUNED = (*BRIEF, "--trainer.callbacks+", "Pruned", "--trainer.callbacks.checkpoint")
NARROW = ("--model.net.widths", "[16, 32, 64]", "--model.net.hidden", 64)


def logits(net: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = net.eval()(IMAGES)
    return found


def speed(*widths: int, views: int = 2) -> SpeedNet:
    return SpeedNet(10, widths, views=views)  # type: ignore[arg-type]


@pytest.mark.parametrize("views", [1, 2, 6])
def test_with_nothing_removed_the_net_is_the_wide_one(views: int) -> None:
    wide, net = speed(8, 16, views=views), speed(8, 16, views=views)
    wide.whitening.fit(IMAGES)
    expected = logits(wide)
    assert not torch.equal(logits(net), expected)
    prune(wide, net, IMAGES[:1])
    assert torch.equal(logits(net), expected)
    assert net.whitening.fitted


def test_channels_that_do_nothing_are_what_is_removed() -> None:
    wide, net = speed(8, 16), speed(6, 13)
    convolutions = [layer for layer in wide.modules() if isinstance(layer, nn.Conv2d)]
    dead = [[0, 5], [1, 2], [3, 4, 15], [0, 7, 8]]
    following = [*convolutions[1:], wide.head]
    for layer, after, channels in zip(convolutions, following, dead, strict=True):
        layer.weight.data[channels] = 0
        after.weight.data[:, channels] = 0
    expected = logits(wide)
    prune(wide, net, IMAGES[:1])
    assert torch.allclose(logits(net), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("wide", "net"),
    [
        (CNN(), CNN(widths=(16, 32, 64), hidden=64)),
        (speed(64, 128, 128), speed(48, 64, 96)),
        (MobileNetV2(10), MobileNetV2(10, width_mult=0.5)),  # residual and depthwise
        (Timm("mobilenetv3_small_100", 10), Timm("mobilenetv3_small_075", 10)),  # squeezed and excited
    ],
    ids=lambda net: type(net).__name__,
)
def test_nets_of_any_shape_become_ordinary_narrow_ones(wide: nn.Module, net: nn.Module) -> None:
    before, drawn = logits(net), torch.get_rng_state()
    prune(wide, net, IMAGES[:1])
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.equal(logits(net), logits(wide))
    assert not torch.equal(logits(net), before)


def test_a_net_that_is_wider_somewhere_is_refused() -> None:
    with pytest.raises(InputError, match=r"not narrower: its layer groups\.2\.0 has 32 channels, the wide net's 16"):
        prune(speed(16, 16), speed(8, 32), IMAGES[:1])


def test_a_net_whose_layers_hang_together_otherwise_is_refused() -> None:
    """Heads of attention share what is pruned alone."""
    wide, net = (Timm("test_vit", 10, settings={"img_size": 32, "embed_dim": width}) for width in (64, 32))
    with pytest.raises(InputError, match=r"model\.net cannot be filled: body\..* is \(.*left of the wide net's \("):
        prune(wide, net, IMAGES[:1])


class TestCommands:
    @pytest.mark.slow
    def test_a_pruned_net_is_trained_and_handed_over_without_the_wide_one(self, run: Run, checkpoint: Path) -> None:
        shutil.copytree(checkpoint.parent.parent, "wide")
        wide = Path("wide/checkpoints/best.ckpt")
        told = f"{wide} was trained on other images or another split: it may have seen some of the images"
        assert told in run("fit", *PRUNED, wide, *NARROW, "--data.split_seed", 1, "--experiment", "split").out
        still = ("--model.optimizer.lr", 0.0, "--trainer.max_epochs", 2)
        result = run("fit", *PRUNED, wide, *NARROW, *still)
        assert result.code == 0, result.err
        kept = checkpoints.load("runs/cnn/version_0/checkpoints/last.ckpt")
        net, trained = CNN(widths=(16, 32, 64), hidden=64), CNN()
        of_wide = checkpoints.load(wide)["state_dict"]
        trained.load_state_dict({name[4:]: value for name, value in of_wide.items() if name.startswith("net.")})
        prune(trained, net, IMAGES[:1])
        assert all(torch.equal(kept["state_dict"][f"net.{name}"], value) for name, value in net.state_dict().items())
        wide.unlink()
        best = "runs/cnn/version_0/checkpoints/best.ckpt"
        for command in (("test", "--resamples", 10), ("export",), ("fit", "--trainer.max_epochs", 3)):
            result = run(*command, "--ckpt_path", best)
            assert result.code == 0, result.err

    def test_a_run_that_goes_on_is_not_pruned_again(self, run: Run, checkpoint: Path) -> None:
        words = (*PRUNED, checkpoint, *NARROW)
        assert run("fit", *words, "--experiment", "whole", "--trainer.max_epochs", 2).code == 0
        assert run("fit", *words).code == 0
        last = "runs/cnn/version_0/checkpoints/last.ckpt"
        result = run("fit", *words, "--ckpt_path", last, "--trainer.max_epochs", 2, "--experiment", "again")
        assert result.code == 0, result.err
        whole, again = (
            checkpoints.load(f"runs/{name}/version_0/checkpoints/last.ckpt")["state_dict"]
            for name in ("whole", "again")
        )
        assert all(torch.equal(whole[name], value) for name, value in again.items())

    def test_a_wide_net_of_a_class_of_others_is_refused(self, run: Run, checkpoint: Path) -> None:
        state = checkpoints.load(checkpoint)
        state["hyper_parameters"]["net"]["class_path"] = "elsewhere.Net"
        checkpoints.write(state, "wide.ckpt")
        result = run("fit", *PRUNED, "wide.ckpt", *NARROW)
        assert result.code == 2
        assert (
            "elsewhere.Net is not a class of this project or its libraries; Distillation and Pruned take no nets of"
            in result.err
        )

    def test_whitening_and_normalisation_are_carried_over(self, run: Run, tmp_path: Path) -> None:
        net = speed(16, 16)
        net.whitening.fit(IMAGES)
        model = Classifier(CLASSES, net)
        model.pixels.set_statistics([0.1, 0.5, 0.9], [0.2, 0.3, 0.4])
        path = write_model(tmp_path / "wide.ckpt", model, widths=[16, 16])
        result = run("fit", *PRUNED, path, "--model.net", "SpeedNet", "--model.net.widths", "[8, 8]")
        assert result.code == 0, result.err
        kept = checkpoints.load("runs/cnn/version_0/checkpoints/last.ckpt")["state_dict"]
        assert torch.equal(kept["net.whitening.weight"], net.whitening.weight)
        assert torch.equal(kept["pixels.mean"], model.pixels.mean)

    def test_with_a_trainer_of_ones_own_other_initial_weights_come_before(self, tmp_path: Path) -> None:
        wide = Classifier(CLASSES, speed(16, 16))
        wide.pixels.set_statistics([0.1, 0.5, 0.9], [0.2, 0.3, 0.4])
        path = write_model(tmp_path / "wide.ckpt", wide, widths=[16, 16])
        other = write_model(tmp_path / "other.ckpt", Classifier(CLASSES, speed(8, 8)), widths=[8, 8])
        net = speed(8, 8)
        model = Classifier(CLASSES, net, partial(torch.optim.SGD, lr=0), init_from=other)
        trainer = quiet(max_epochs=1, limit_train_batches=1, limit_val_batches=1, callbacks=[Pruned(path)])
        trainer.fit(model, Digits())
        assert torch.equal(model.pixels.mean, wide.pixels.mean)
        left = speed(8, 8)
        prune(wide.net, left, IMAGES[:1])
        assert all(torch.equal(value, dict(net.named_parameters())[name]) for name, value in left.named_parameters())

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--model.net", "SpeedNet"], "holds a CNN, and model.net is a SpeedNet: it takes the weights of its own"),
            (
                ["--model.net.hidden", 256],
                "model.net is not narrower: its layer head.1 has 256 channels, the wide net's 128",
            ),
            (["--model.net.widths", "[32, 64]"], "differ in more than channels (2 tensors, such as blocks.2.0.bias)"),
            (["--data", "ImageFolder", "--data.root", "photos"], "knows the classes 0, 1, 2"),
            (["--trainer.callbacks.checkpoint", "nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        ],
    )
    def test_what_cannot_be_filled_is_refused(
        self, run: Run, checkpoint: Path, photos: Path, words: list[object], sentence: str
    ) -> None:
        result = run("fit", *PRUNED, checkpoint, *words)
        assert result.code == 2
        assert sentence in result.err.splitlines()[-1]

    def test_a_missing_package_is_named_with_its_remedy(
        self, run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "torch_pruning", None)
        result = run("fit", *PRUNED, checkpoint, *NARROW)
        assert result.code == 2
        sentence = 'error: Pruned needs torch_pruning: pip install "cifar-lightning[prune]"'
        assert result.err.splitlines()[-1] == sentence
