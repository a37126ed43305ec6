import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning.distill import Distillation
from cifar_lightning.module import Classifier
from cifar_lightning.nets import CNN
from cifar_onnx import InputError
from tests.conftest import BRIEF, Run, write_model

CLASSES = list("0123456789")
LOGITS, LABELS = torch.randn(6, 10, generator=torch.Generator().manual_seed(0)), torch.arange(6)
IMAGES = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
DISTILLED = (*BRIEF, "--model.loss", "Distillation", "--model.loss.teacher")


@pytest.fixture
def model() -> Classifier:
    """An untrained teacher whose pixels have statistics of its own."""
    model = Classifier(CLASSES, CNN())
    model.pixels.set_statistics([0.1, 0.5, 0.9], [0.2, 0.3, 0.4])
    return model.eval()


@pytest.fixture
def teacher(model: Classifier, tmp_path: Path) -> str:
    """Its checkpoint."""
    return write_model(tmp_path / "teacher.ckpt", model)


def test_it_is_the_formula_of_the_paper_term_by_term(model: Classifier, teacher: str) -> None:
    with torch.no_grad():
        answers = (model(IMAGES) / 3).softmax(1)
    own = (LOGITS / 3).softmax(1)
    divergence = sum(
        float(p * (p / q).log()) for ps, qs in zip(answers, own, strict=True) for p, q in zip(ps, qs, strict=True)
    )
    hard = float(cross_entropy(LOGITS, LABELS, label_smoothing=0.1))
    loss = Distillation(teacher, temperature=3, weight=0.7, label_smoothing=0.1)(LOGITS, LABELS, IMAGES, CLASSES)
    assert float(loss) == pytest.approx(0.3 * hard + 0.7 * 9 * divergence / 6, rel=1e-4)


def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn_from_it(model: Classifier, teacher: str) -> None:
    logits = model(IMAGES).detach().requires_grad_()
    Distillation(teacher, weight=1.0)(logits, LABELS, IMAGES, CLASSES).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_a_teacher_in_bfloat16_is_heard_in_full_precision(model: Classifier, teacher: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(IMAGES).detach().float()
        loss = Distillation(teacher, weight=1.0)(logits, LABELS, IMAGES, CLASSES)
    assert abs(loss) < 1e-6


def test_with_weight_0_it_is_cross_entropy(teacher: str) -> None:
    loss = Distillation(teacher, weight=0.0, label_smoothing=0.2)(LOGITS, LABELS, IMAGES, CLASSES)
    assert torch.equal(loss, cross_entropy(LOGITS, LABELS, label_smoothing=0.2))


def test_in_evaluation_mode_it_is_cross_entropy_and_asks_no_teacher() -> None:
    loss = Distillation("nowhere.ckpt").eval()(LOGITS, LABELS, IMAGES, CLASSES)
    assert torch.equal(loss, cross_entropy(LOGITS, LABELS))


def test_the_teacher_is_no_part_of_the_student_and_does_not_learn(teacher: str) -> None:
    loss = Distillation(teacher)
    drawn, logits = torch.get_rng_state(), LOGITS.clone().requires_grad_()
    loss(logits, LABELS, IMAGES, CLASSES).backward()
    assert torch.equal(torch.get_rng_state(), drawn)
    loss.train()
    (loaded,) = loss._loaded
    assert not loaded.training
    assert all(parameter.grad is None for parameter in loaded.parameters())
    assert not loss.state_dict()
    assert not list(loss.parameters())


def test_the_module_gives_a_loss_what_it_asks_for_by_name() -> None:
    seen = []

    class Curious(torch.nn.CrossEntropyLoss):
        def forward(self, logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:  # type: ignore[override]
            seen.append(images)
            return super().forward(logits, labels)

    model = Classifier(CLASSES, CNN(), loss=Curious())
    assert torch.equal(model.loss_of(LOGITS, LABELS, IMAGES), cross_entropy(LOGITS, LABELS))
    assert seen[0] is IMAGES


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.0), ("weight", 1.1), ("weight", -0.1)])
def test_numbers_that_cannot_be_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"model\.loss\.{name} is {value:g}: it must"):
        Distillation("x.ckpt", **{name: value})


class TestCommands:
    def test_a_student_learns_from_its_teacher_and_needs_it_no_more(self, run: Run, checkpoint: Path) -> None:
        shutil.copytree(checkpoint.parent.parent, "teacher")
        teacher = Path("teacher/checkpoints/best.ckpt")
        for weight in (0.0, 0.9):
            result = run("fit", *DISTILLED, teacher, "--model.loss.weight", weight)
            assert result.code == 0, result.err
        plain, taught = (checkpoints.load(f"runs/cnn/version_{run}/checkpoints/last.ckpt") for run in (0, 1))
        assert (
            plain["state_dict"].keys() == taught["state_dict"].keys() == Classifier(CLASSES, CNN()).state_dict().keys()
        )
        assert not torch.equal(*(kept["state_dict"]["net.head.4.weight"] for kept in (plain, taught)))
        result = run("reproduce", "runs/cnn/version_1")
        assert "the same, bit for bit" in result.out, result.err
        told = f"{teacher} was trained on other images or another split: it may have seen some of the images"
        assert told not in result.out
        assert told in run("fit", *DISTILLED, teacher, "--data.split_seed", 1, "--experiment", "split").out
        teacher.unlink()
        for command in (("test", "--resamples", 10), ("export",)):
            result = run(*command, "--ckpt_path", "runs/cnn/version_1/checkpoints/best.ckpt")
            assert result.code == 0, result.err

    @pytest.mark.slow
    def test_the_student_that_a_checkpoint_holds_goes_on_by_itself(self, run: Run, checkpoint: Path) -> None:
        for experiment, epochs in (("whole", 2), ("part", 1)):
            words = ("--experiment", experiment, "--trainer.max_epochs", epochs)
            assert run("fit", *DISTILLED, checkpoint, *words).code == 0
        whole = checkpoints.load("runs/whole/version_0/checkpoints/last.ckpt")
        first = "runs/part/version_0/checkpoints/last.ckpt"
        assert run("fit", "--ckpt_path", first, *BRIEF, "--trainer.max_epochs", 2).code == 0
        again = checkpoints.load("runs/part/version_1/checkpoints/last.ckpt")
        assert all(torch.equal(whole["state_dict"][name], value) for name, value in again["state_dict"].items())

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (lambda kept: kept.clear(), "not a checkpoint written by this project's fit"),
            (
                lambda kept: kept["hyper_parameters"]["classes"].reverse(),
                "knows the classes 9, 8, .*; the data has 0, 1, ",
            ),
            (
                lambda kept: kept["run"].update(input={"image_size": 64}),
                "was trained with data.image_size 64, and the data has 32",
            ),
            (
                lambda kept: kept["hyper_parameters"]["net"].update(class_path="own.Net"),
                "own.Net is not a class of .*; Distillation and Pruned take no nets of your own; --model.init",
            ),
            (
                lambda kept: kept["hyper_parameters"]["net"]["init_args"].update(dropuot=1),
                "there is no option 'dropuot': did you mean 'dropout'",
            ),
        ],
    )
    def test_a_teacher_that_cannot_teach_is_refused_before_an_image_is_read(
        self, run: Run, checkpoint: Path, change: Callable[..., None], sentence: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cifar_lightning.data.Digits.load", None)
        kept = deepcopy(checkpoints.load(checkpoint))
        change(kept)
        checkpoints.write(kept, "t.ckpt")
        result = run("fit", *DISTILLED, "t.ckpt")
        assert result.code == 2
        assert re.search(rf"error: t\.ckpt:? .*{sentence}", result.err)
        assert "nowhere.ckpt: no such checkpoint" in run("fit", *DISTILLED, "nowhere.ckpt").err
        assert not Path("runs").exists()
