"""Nets as users write them: what can be exported is, and for what cannot one sentence says why."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from cifar_lightning.export.graph import core
from cifar_lightning.export.quantize import runner
from cifar_lightning.export.silence import silent
from cifar_lightning.familiarity import Contrasts, Scored, Watched, outputs_of
from cifar_lightning.nets import Normalize
from cifar_onnx import InputError
from tests.test_export import exported, noise, samples


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(3, 8, 3, 2, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.map(x).relu().mean((2, 3)))  # type: ignore[no-any-return]


class Counted(Own):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).view(len(x), -1)


class Named(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(input=self.map(input=x).relu().mean((2, 3)))  # type: ignore[no-any-return]


class Cropped(Own):
    def forward(self, x: Tensor) -> Tensor:
        parts = x.unfold(3, 16, 16).permute(0, 3, 1, 2, 4).reshape(-1, 3, 32, 16)
        return super().forward(parts).view(x.shape[0], 2, -1).mean(1)


class Branching(Own):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(-x if x.mean() > 0 else x)


class Looping(Own):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([super(Looping, self).forward(each[None]) for each in x])


class Bessel(Own):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(super().forward(x))


class Deformed(Own):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(deform_conv2d(x, x[:, :2], torch.eye(3)[..., None, None]))


class Autocast(Own):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x).float()


@pytest.mark.parametrize("kind", [Counted, Cropped, Named])
def test_usual_ways_to_write_a_net_can_be_exported(tmp_path: Path, kind: type[Own]) -> None:
    torch.manual_seed(0)
    given = samples()
    assert exported(tmp_path / "own.onnx", Normalize(), kind(), given).labels == len(given)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (
            Branching,
            r"data-dependent expression .*test_capture\.py, line \d+\): no step may depend on values: use torch\.where",
        ),
        (Looping, "a static shape of 2 .*: it must take any number of pictures: x.shape"),
        (Deformed, "No Op registered for DeformConv with domain_version of 18: use operations of opset 18"),
        (Autocast, r"unsupported type: tensor\(bfloat16\): leave torch\.autocast to --trainer\.precision"),
        (Bessel, "No ONNX function found for .*bessel_j0.*: ONNX has no such operation: take others"),
    ],
)
def test_why_a_net_cannot_be_exported_is_one_sentence(
    tmp_path: Path, kind: type[Own], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as error:
        exported(tmp_path / "own.onnx", Normalize(), kind())
    found = re.fullmatch(
        rf"model\.net \({kind.__name__}\) cannot be exported: (?:torch|onnx) says: (.*)", str(error.value)
    )
    assert found
    assert re.search(reason, found[1])
    assert not [*tmp_path.iterdir()]
    assert "def forward" not in "".join(capfd.readouterr())


def test_where_nobody_listens_yet_nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """logging.warning would set up a handler, for good, that writes to what is standard error meanwhile."""
    monkeypatch.setattr(logging.root, "handlers", [])
    with silent():
        logging.warning("a step")
    assert logging.root.handlers == []


def test_what_the_caller_has_silenced_stays_so() -> None:
    logging.disable(logging.INFO)
    try:
        with silent():
            assert logging.root.manager.disable == logging.CRITICAL
        assert logging.root.manager.disable == logging.INFO
    finally:
        logging.disable(logging.NOTSET)


def test_what_sees_parts_of_the_pictures_is_not_looked_at() -> None:
    images = torch.zeros(4, 3, 32, 32)
    assert Watched(Cropped())(images)[1].shape == (4, 0)
    assert Watched(nn.Sequential(nn.Conv2d(3, 3, 1), Cropped()))(images)[1].shape == (4, 3)


def test_what_a_convolution_is_given_by_name_is_looked_at() -> None:
    images, picture = torch.rand(40, 3, 32, 32), noise(32, 32)[None]
    contrasts = Watched(Named())(images)[1].detach()
    assert torch.equal(contrasts, images.std((2, 3), correction=0))
    scored = Scored(nn.Sequential(Normalize(), Named()), Contrasts(contrasts.numpy())).eval()
    (_, familiarity), (_, expected) = runner(core(scored, 32))(picture), outputs_of(scored, picture)
    assert np.allclose(familiarity, expected, rtol=1e-4)
