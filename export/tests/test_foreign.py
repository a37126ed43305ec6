"""ONNX classifiers that carry no contract."""

from argparse import Namespace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import onnxruntime
import pytest

from cifar_onnx import Classifier, InputError
from cifar_onnx.__main__ import _parser
from cifar_onnx.evaluation.foreign import ForeignClassifier

MODEL = Path(__file__).parent / "digits.onnx"
DIGITS = [str(digit) for digit in range(10)]


def test_it_gives_the_same_logits(foreign: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    expected, *_ = Classifier(MODEL).run(pixels)
    assert np.array_equal(ForeignClassifier(foreign, DIGITS, size=32).logits(pixels), expected)


@pytest.mark.parametrize("provider", [None, ["cpu"]])
def test_what_it_runs_on_is_told_as_verify_tells_it(foreign: Path, provider: list[str] | None) -> None:
    pytest.importorskip("sklearn")
    from cifar_onnx.evaluation.subject import subjects

    own = Namespace(classes=",".join(DIGITS), mean=None, std=None, size=32, resize=None)
    options = Namespace(**vars(own), provider=provider, threads=None)
    for found in subjects([str(foreign), str(MODEL)], options):
        assert found.facts["run_by"] == f"onnxruntime {onnxruntime.__version__} on CPUExecutionProvider"


@pytest.mark.parametrize(("resize", "mode"), [([], "stretch"), (["--resize", "crop"], "crop")])
def test_it_is_as_the_command_line_says(
    resize: list[str], mode: str, foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    from cifar_onnx.evaluation import subject

    net = Mock(spec=ForeignClassifier)
    monkeypatch.setattr(subject, "ForeignClassifier", net)
    words = ["evaluate", str(foreign), "photos", "--classes", "a, b", "--mean", "0.1,0.2,0.3", "--std", "0.4,0.5,0.6"]
    options = _parser().parse_args([*words, "--size", "48", *resize, "--threads", "3", "--provider", "cpu"])
    (found,) = subject.subjects([str(foreign)], options)
    net.assert_called_once_with(
        str(foreign), ["a", "b"], mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), size=48, providers=["cpu"], threads=3
    )
    assert found.mode == mode


def test_probabilities_are_told_once_from_logits(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded ones, as of a softmax in int8, may miss a sum of 1 by more in one batch than in another."""
    rows = np.full((16, 10), 0.1, np.float32)
    rows[::2] += 0.0005
    monkeypatch.setattr(ForeignClassifier, "_run", lambda self, x, count: rows[: len(x)])
    model = ForeignClassifier(foreign, DIGITS, size=32)
    for count in (1, 2, 16):
        logits = model.logits(np.zeros((count, 32, 32, 3), np.uint8))
        assert np.array_equal(logits, np.log(rows[:count]))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"size": None}, "does not say how large its pictures are: give --size"),
        (
            {"classes": ["a", "b"]},
            r"gives logits \(4, 10\), .* for 4 pictures: --classes names 2, so .* of shape \(4, 2\)",
        ),
        ({"classes": ["a", "a"]}, "names one class twice"),
        ({"classes": ["a"]}, "a classifier has at least two"),
        ({"mean": (0.5, 0.5, 0.5)}, "takes pixels as they are"),
        ({"std": (1, 1, float("nan"))}, "those of --std above 0"),
        ({"std": (1, 1, 0)}, "those of --std above 0"),
    ],
)
def test_what_does_not_fit(settings: dict[str, object], sentence: str, foreign: Path) -> None:
    known: dict[str, object] = {"classes": DIGITS, "size": 32, **settings}
    with pytest.raises(InputError, match=sentence):
        ForeignClassifier(foreign, **known).logits(np.zeros((2, 32, 32, 3), np.uint8))  # type: ignore[arg-type]


def test_of_several_outputs_the_one_that_fits_is_taken(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    expected = ForeignClassifier(foreign, DIGITS, size=32).logits(pixels)
    run = onnxruntime.InferenceSession.run

    def give(*places: int) -> None:
        monkeypatch.setattr(
            onnxruntime.InferenceSession, "run", lambda *words: [[*run(*words), np.array(7)][at] for at in places]
        )

    give(2, 0, 3)
    assert np.array_equal(ForeignClassifier(foreign, DIGITS, size=32).logits(pixels), expected)
    for places, shapes in (
        ((3, 3, 3), r"logits \(\), probabilities \(\), familiarity \(\)"),
        ((2, 0, 1), r"logits \(4,\), probabilities \(4, 10\), familiarity \(4, 10\)"),
    ):
        give(*places)
        with pytest.raises(InputError, match=f"gives {shapes} for 4 pictures"):
            ForeignClassifier(foreign, DIGITS, size=32)


@pytest.mark.parametrize("count", [0, 2])
def test_it_has_one_input(count: int, foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = Classifier(MODEL)._session.get_inputs() * count
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_inputs", lambda self: inputs)
    with pytest.raises(InputError, match="a classifier takes one batch of pictures"):
        ForeignClassifier(foreign, DIGITS, size=32)


def test_onnxruntime_says_what_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=f"onnxruntime {onnxruntime.__version__} cannot load it"):
        ForeignClassifier(path, DIGITS, size=32)


def test_what_it_cannot_do_is_said_in_one_line(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", Mock(side_effect=RuntimeError("no\n  memory\n")))
    with pytest.raises(InputError, match=rf"onnxruntime {onnxruntime.__version__} cannot run it \(no memory\)$"):
        ForeignClassifier(foreign, DIGITS, size=32)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Mock(side_effect=RuntimeError("no\n  model\n")))
    with pytest.raises(InputError, match=rf"onnxruntime {onnxruntime.__version__} cannot load it \(no model\)$"):
        ForeignClassifier(foreign, DIGITS, size=32)
