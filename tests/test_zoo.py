"""Nets of torchvision and timm: each trains, and its file answers as it does; weights of others are taken over."""

import hashlib
import re
import sys
import urllib.error
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.ops import StochasticDepth

from cifar_lightning import runs
from cifar_lightning.data.images import Sample
from cifar_lightning.export import parity
from cifar_lightning.export.model_file import write_model
from cifar_lightning.module import Classifier
from cifar_lightning.nets import Timm, Torchvision
from cifar_lightning.nets.stem import make_small
from cifar_lightning.nets.weights import read, unwrapped
from cifar_lightning.nets.zoo import Named
from cifar_onnx import Classifier as Receiver
from cifar_onnx import InputError, images
from tests.conftest import BRIEF, Run, calibrated

CLASSES = ["ant", "bee", "cow"]
FAMILIES = {  # side of the pictures, and settings
    "resnet18": (32, {"small_stem": True}),
    "inception_v3": (299, {}),
    "vgg11": (32, {}),
    "mobilenet_v3_small": (32, {}),
    "efficientnet_b0": (32, {}),
    "convnext_tiny": (32, {}),
    "vit_b_16": (32, {"settings": {"image_size": 32}}),
    "densenet121": (32, {"small_stem": True}),
    "googlenet": (48, {}),  # at 32 pixels its last maps have one, and rounding comes near what is allowed
    "swin_t": (32, {}),
}
QUICK = {"resnet18"}

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    "name", [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in FAMILIES]
)
def test_every_family_learns_and_its_file_answers_as_it_does(tmp_path: Path, name: str) -> None:
    side, settings = FAMILIES[name]
    torch.manual_seed(0)
    net = Torchvision(name, len(CLASSES), **settings)  # type: ignore[arg-type]
    check(tmp_path, net, side)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "settings"),
    [("resnet10t", 32, {"small_stem": True}), ("test_maxvit", 64, {"settings": {"img_size": 64}})],
)
def test_a_net_of_timm_learns_and_its_file_answers_as_it_does(
    tmp_path: Path, name: str, side: int, settings: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    check(tmp_path, Timm(name, len(CLASSES), **settings), side)


def check(tmp_path: Path, net: Named, side: int) -> None:
    model = Classifier(CLASSES, net, loss=nn.CrossEntropyLoss())
    pictures = [np.random.default_rng(n).integers(0, 256, (side, side, 3), dtype=np.uint8) for n in range(8)]
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    labels = torch.arange(8) % len(CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0  # what it has seen once is what it goes by, as after many steps
        if isinstance(layer, StochasticDepth):
            layer.p = 0.0  # with parts left out it would have seen less than it gets later
    model.train()
    outputs = model(batch)
    loss = model.loss_of(outputs, labels, batch)
    loss.backward()
    logits = outputs[0] if isinstance(outputs, tuple) else outputs
    extra = 0.3 * sum(nn.functional.cross_entropy(each, labels) for each in outputs[1:]) if logits is not outputs else 0
    assert torch.isclose(loss, nn.functional.cross_entropy(logits, labels) + extra)
    assert (logits is not outputs) == (net.name in ("inception_v3", "googlenet"))
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None, parameter_name
    optimizer.step()

    model.eval()
    samples = [Sample(str(n), images.encode_png(p), images.fingerprint(p), p) for n, p in enumerate(pictures)]
    _, report = write_model(
        nn.Sequential(model.pixels, net), samples, tmp_path / "m.onnx", classes=CLASSES, size=side, resize="stretch",
        facts={}, calibration=calibrated(model.pixels, net, CLASSES, side),
    )  # fmt: skip
    assert report.labels == 8
    receiver = Receiver(tmp_path / "m.onnx")
    assert receiver.contract.size == side
    with torch.no_grad():
        expected = model(batch).argmax(1)
    assert [each.label for each in receiver(pictures)] == [CLASSES[k] for k in expected]


def test_a_small_stem_keeps_the_size_of_the_picture() -> None:
    def sizes(small: bool) -> list[int]:
        net = Torchvision("resnet18", 3, small_stem=small).body.eval()
        seen: list[int] = []
        net.layer1.register_forward_hook(lambda *given: seen.append(given[2].shape[-1]))  # type: ignore[union-attr]
        net(torch.zeros(1, 3, 32, 32))
        return seen

    assert (sizes(False), sizes(True)) == ([8], [32])
    with pytest.raises(InputError, match="vgg11 does not begin with a convolution of stride"):
        Torchvision("vgg11", 3, small_stem=True)
    with pytest.raises(InputError, match="repvgg_a0 begins with convolutions side by side"):
        Timm("repvgg_a0", 3, small_stem=True)
    with pytest.raises(InputError, match="mlp does not begin with a convolution of stride"):
        make_small(nn.Linear(3, 3), "mlp")


@pytest.mark.parametrize(
    ("net", "pool", "left"),
    [
        (partial(Torchvision, "squeezenet1_1"), "features.2", nn.Identity),
        (partial(Timm, "resnetv2_18"), "stem.pool", nn.Identity),
        (partial(Torchvision, "mobilenet_v3_small"), "features.2", InvertedResidual),
    ],
)
def test_it_leaves_out_the_pooling_of_the_stem_whatever_its_name(
    net: Callable[..., Named], pool: str, left: type[nn.Module]
) -> None:
    assert type(net(num_classes=3, small_stem=True).body.get_submodule(pool)) is left


def test_a_head_begins_small_whatever_the_family_does() -> None:
    head = Torchvision("efficientnet_b0", 4).body.get_submodule("classifier.1")
    assert isinstance(head, nn.Linear)
    assert 0 < head.weight.abs().max() <= 1280**-0.5  # torchvision: 4**-0.5


def test_mnasnet_takes_averaged_weights() -> None:
    """Of which Lightning keeps no more than the tensors."""
    net = deepcopy(Torchvision("mnasnet0_5", 3))
    averaged = {name: value + 1 for name, value in net.state_dict().items()}
    net.load_state_dict(averaged)
    assert all(torch.equal(value, averaged[name]) for name, value in net.state_dict().items())


@pytest.mark.slow
def test_branches_for_training_are_not_exported(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    from timm.models.byobnet import RepVggBlock

    def tiny(name: str, num_classes: int) -> nn.Module:
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
        net = nn.Sequential(RepVggBlock(3, 4, stride=4), *head)
        net.pretrained_cfg = {"mean": IMAGENET[0], "std": IMAGENET[1]}  # type: ignore[assignment]
        return net

    monkeypatch.setattr(timm, "list_models", lambda: ["tiny"])
    monkeypatch.setattr(timm, "create_model", tiny)
    assert run("fit", *BRIEF, "--model.net", "Timm", "--model.net.name", "tiny").code == 0
    best = "runs/cnn/version_0/checkpoints/best.ckpt"
    result = run("export", "--ckpt_path", best, "--output", "m.onnx")
    assert result.code == 0, result.err
    operators = [node.op_type for node in onnx.load("m.onnx").graph.node]
    assert operators.count("Conv") == 2  # and one for the activation maps
    result = run("verify", "m.onnx", "--against", best)
    assert result.code == 0, result.err
    assert Receiver("m.onnx").contract.info["cost"]["parameters"] == 4 * 27 + 4 + 40 + 10

    monkeypatch.setattr(parity, "TOLERANCE", 0)
    assert "tiny is exported with its branches: fused" in run("export", "--ckpt_path", best).err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("Torchvision --model.net.name resnet81", "'resnet81' is not among torchvision.* did you mean 'resnet18'"),
        ("Timm --model.net.name resnet10x", r"'resnet10x' is not among timm\.list_models\(\): did you mean"),
        ("Torchvision --model.net.name resnet18 --model.net.weights IMAGENET1K_V9", "did you mean 'IMAGENET1"),
        (
            "Torchvision --model.net.name resnet18 --model.net.weights no.pth",
            r"no\.pth: cannot be read .*: name a file of weights",
        ),
        (
            "Torchvision --model.net.name vgg11 --model.net.settings {'num_classes':3}",
            r"(?<!settings: )model\.net\.settings cannot hold num_classes",
        ),
        ("Torchvision --model.net.name inception_v3", "model.net, .*32 pixels.*Kernel size can't be greater"),
        ("Torchvision --model.net.name resnet18 --model.net.sha256 ab", "is that of a file: name it with"),
        ("Torchvision --model.net.name resnet18 --model.net.settings {'width':3}", "model.net.settings: .*'width'"),
        ("Timm --model.net.name resnet10t --model.net.settings {'base_width':3}", "model.net.settings: .*base width"),
        (
            "Torchvision --model.net.name vit_b_16",
            r"32 pixels .*ImageFolder and ImageNet have data\.image_size\): .*expected 224 but got 32",
        ),
        ("torchvision.models.resnet18", "a function, not a class: .* --model.net Torchvision"),
    ],
)
def test_mistakes_are_answered_with_what_would_be_right(run: Run, words: str, reason: str) -> None:
    result = run("fit", *BRIEF, "--model.net", *words.split())
    assert result.code == 2
    assert re.search(reason, result.err, re.IGNORECASE), result.err
    assert not list(Path().rglob("*.ckpt"))


def test_without_a_network_a_sentence_says_which_file_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: object, **_kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    words = ("--model.net", "Torchvision", "--model.net.name", "resnet18", "--model.net.weights", "DEFAULT")
    result = run("fit", *BRIEF, *words)
    assert result.code == 2
    assert "resnet18-f37072fd.pth cannot be downloaded (no network): fetch it elsewhere" in result.err


def test_without_the_hub_a_sentence_says_how_weights_of_timm_are_had(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **settings: Any) -> nn.Module:
        if pretrained:
            raise OSError("We couldn't connect\nCheck your connection")
        return create(name, **settings)

    monkeypatch.setattr(timm, "create_model", offline)
    words = ("--model.net", "Timm", "--model.net.name", "resnet10t", "--model.net.weights", "DEFAULT")
    result = run("fit", *BRIEF, *words)
    assert result.code == 2
    assert "cannot be downloaded from the hub (OSError: We couldn't connect): fetch them, and name the" in result.err


@pytest.mark.parametrize(
    ("name", "weights", "mean", "std"),
    [
        ("resnet18", "DEFAULT", IMAGENET[0], IMAGENET[1]),
        ("resnet18", "ResNet18_Weights.IMAGENET1K_V1", IMAGENET[0], IMAGENET[1]),  # as torchvision's pages say it
        ("vgg11", "some/file.pth", IMAGENET[0], IMAGENET[1]),
        ("vgg11", "Pets_Weights.pth", IMAGENET[0], IMAGENET[1]),
        ("vgg16", "IMAGENET1K_FEATURES", (0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)),
        ("efficientnet_v2_l", "DEFAULT", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_statistics_are_those_that_the_weights_were_trained_with(
    name: str, weights: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    with torch.device("meta"):
        found = Torchvision(name, weights=weights).statistics
    assert found == (pytest.approx(mean, abs=1e-5), pytest.approx(std, abs=1e-5))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A net with a name: what is asked for by it is small."""
    from torchvision import models

    def tiny(num_classes: int = 1000, hidden: int = 6) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(16, hidden), nn.ReLU(), nn.Linear(hidden, num_classes),
        )  # fmt: skip

    monkeypatch.setattr(models, "list_models", lambda module: ["tiny"])
    monkeypatch.setattr(models, "get_model", lambda name, **settings: tiny(**settings))
    monkeypatch.setattr(models, "get_model_weights", lambda name: models.ResNet18_Weights)
    return ["--model.net", "Torchvision", "--model.net.name", "tiny"]


def weights(path: Path, prefix: str = "", hidden: int = 6) -> tuple[Path, str, dict[str, torch.Tensor]]:
    """Weights for 1,000 classes, as others publish them: the file and its digest."""
    from torchvision import models

    torch.manual_seed(1)
    state = models.get_model("tiny", hidden=hidden).state_dict()
    named = {f"{prefix}{name}": value for name, value in state.items()}
    if path.suffix == ".safetensors":
        save_file(named, path)
    else:
        torch.save({"epoch": 3, "state_dict": named}, path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest(), state


@pytest.mark.parametrize(
    ("file", "prefix"), [("w.safetensors", ""), ("w.pth", "module."), ("w.pth", "other_"), ("same.pth", "other_")]
)
def test_weights_of_a_file_are_taken_over_but_for_the_head(
    run: Run, small: list[str], tmp_path: Path, file: str, prefix: str
) -> None:
    path, digest, state = weights(tmp_path / file, prefix)
    if prefix == "other_" and file.startswith("same"):  # with as many classes
        state = {**state, "6.weight": state["6.weight"][:10].clone(), "6.bias": state["6.bias"][:10].clone()}
        torch.save({f"other_{name}": value for name, value in state.items()}, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    words = (*small, "--model.net.weights", path, "--model.net.sha256", digest)
    result = run("fit", *BRIEF, *words, "--trainer.callbacks+", "Freeze")
    assert result.code == 0, result.err
    kept = torch.load("runs/cnn/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    same = {name for name, value in state.items() if torch.equal(kept[f"net.body.{name}"], value)}
    assert same == state.keys() - {"6.weight", "6.bias"}  # which are trained
    assert torch.allclose(kept["pixels.mean"], torch.tensor(IMAGENET[0]))
    assert torch.allclose(kept["pixels.std"], torch.tensor(IMAGENET[1]))
    taken = "11 of 11 tensors loaded" if file == "same.pth" else "9 of 11 tensors loaded; newly initialised: 6."
    assert taken in result.err

    path.unlink()  # what is trained needs it no more
    result = run("test", "--ckpt_path", "runs/cnn/version_0/checkpoints/last.ckpt", "--resamples", 10)
    assert result.code == 0, result.err
    assert "tensors loaded" not in result.err


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "model.backbone."])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"net": state, "acc": 1.0, "optimizer": {"state": {}, "param_groups": []}},
        lambda state: {"model": {"epoch": 3, "state_dict": state}},
        lambda state: {**state, "loss.weight": torch.zeros(3)},
    ],
)
def test_weights_are_found_in_what_training_scripts_put_around_them(
    small: list[str], tmp_path: Path, prefix: str, wrap: Callable[[Any], Any]
) -> None:
    path, _, state = weights(tmp_path / "w.pth")
    torch.save(wrap({f"{prefix}{name}": value for name, value in state.items()}), path)
    net = Torchvision("tiny", 1000, str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    net.load_pretrained()
    assert all(torch.equal(value, state[name]) for name, value in net.body.state_dict().items())


def test_names_stay_where_the_nets_own_do_not_come_of_a_part_that_they_share() -> None:
    own = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    for state in ({"stages.0.weight": torch.zeros(1), "stages.7.weight": torch.zeros(1)}, {"a.b": torch.zeros(1)}):
        assert unwrapped(state, own) is state


def test_weights_of_several_nets_or_of_none_are_refused(tmp_path: Path) -> None:
    state, endless = nn.Linear(1, 1).state_dict(), {"epoch": 1}
    endless["model"] = endless  # type: ignore[assignment]
    for n, content in enumerate(({"student": state, "teacher": state}, endless, {}, [1])):
        path = tmp_path / f"{n}.pth"
        torch.save(content, path)
        with pytest.raises(InputError, match=r"\.pth: neither a state_dict \(names with tensors\) nor a dict with a"):
            read(str(path), hashlib.sha256(path.read_bytes()).hexdigest())


def test_weights_as_old_as_torchvisions_of_densenet_are_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without counters of batches, which PyTorch 0.4.1 has brought, and with dots in names of layers."""
    net = Torchvision("densenet121", 3, "DEFAULT")
    tracked = {name: value + 1 for name, value in net.body.state_dict().items()}
    state = {name: value for name, value in tracked.items() if not name.endswith("num_batches_tracked")}
    old = {re.sub(r"(denselayer\d+\.\w+)([12])", r"\1.\2", name): value for name, value in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    old = {f"module.{name}": value for name, value in old.items()}  # as those of Places365
    monkeypatch.setattr(net, "published", lambda _: old)
    net.load_pretrained()
    assert all(torch.equal(net.body.state_dict()[name], value) for name, value in state.items())


def test_positions_of_another_size_are_resampled_as_timm_does(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(1)
    path = tmp_path / "vit.safetensors"
    save_file(timm.create_model("test_vit", img_size=64).state_dict(), path)
    digest, smaller = hashlib.sha256(path.read_bytes()).hexdigest(), {"img_size": 32}
    net = Timm("test_vit", 3, str(path), digest, settings=smaller)
    net.load_pretrained()
    loaded = timm.create_model("test_vit", pretrained=True, pretrained_cfg_overlay={"file": path}, **smaller)
    expected = loaded.state_dict()
    for name, value in net.body.state_dict().items():
        assert torch.equal(value, expected[name]) == (not name.startswith("head.")), name


def test_weights_that_timm_cannot_adapt_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    save_file({**Timm("test_vit", 3).body.state_dict(), "pos_embed": torch.zeros(5)}, path)
    net = Timm("test_vit", 3, str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(InputError, match=r"timm does not accept them for test_vit \(IndexError: .*\)$"):
        net.load_pretrained()


def test_weights_that_are_not_what_they_should_be_are_refused(run: Run, small: list[str], tmp_path: Path) -> None:
    path, digest, _ = weights(tmp_path / "w.pth")
    code = tmp_path / "code.pth"
    torch.save({"state_dict": nn.Linear(1, 1)}, code)
    other, other_digest, _ = weights(tmp_path / "other.safetensors", "other_")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(other.read_bytes()[:-1])
    cases = [
        (path, "0" * 64, f"the file has the sha256 {digest}, not 000"),
        (path, None, f"sha256 {digest}, which --model.net.sha256 must say"),
        (code, hashlib.sha256(code.read_bytes()).hexdigest(), "not a file of weights alone"),
        (cut, hashlib.sha256(cut.read_bytes()).hexdigest(), "not a safetensors file ("),
        (other, other_digest, "matches only 0 of the net's 11 tensors: it belongs to another net"),
    ]
    for file, said, reason in cases:
        words = ("--model.net.weights", file, *(("--model.net.sha256", said) if said else ()))
        result = run("fit", *BRIEF, *small, *words)
        assert result.code == 2
        assert reason in result.err


def test_a_net_beside_the_config_works(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "net_beside.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, num_classes: int):\n"
        "        super().__init__(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, num_classes))\n"
    )
    (folder / "x.yaml").write_text(yaml.safe_dump({"model": {"net": {"class_path": "net_beside.Net"}}}))
    result = run("fit", *BRIEF, "--config", folder / "x.yaml")
    assert result.code == 0, result.err
    runs.record(Path("runs/cnn/version_0"), finished=False)
    for again in (("fit", "--ckpt_path", "last", "--allow_custom_classes"), ("reproduce", "runs/cnn/version_0")):
        sys.path.remove(str(folder))
        del sys.modules["net_beside"]
        result = run(*again)
        assert result.code == 0, result.err


def test_pixels_are_the_datas_where_nothing_is_taken_over(run: Run, small: list[str]) -> None:
    assert run("fit", *BRIEF, *small).code == 0
    kept = torch.load("runs/cnn/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not torch.allclose(kept["pixels.mean"], torch.tensor(IMAGENET[0]), atol=1e-2)
