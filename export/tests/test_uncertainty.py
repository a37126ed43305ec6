"""Prediction sets, unknown pictures, and what a replay says of the stage that differs."""

from pathlib import Path

import numpy as np
import pytest

from cifar_onnx import Classifier, contract, images
from cifar_onnx.__main__ import main
from cifar_onnx.classifier import Scores
from cifar_onnx.uncertainty import PredictionSets, Unknown, nonconformity

P = np.array([[0.5, 0.3, 0.2], [0.05, 0.9, 0.05]])


def test_sets_by_probability() -> None:
    assert np.allclose(nonconformity(P, "lac"), 1 - P)
    assert PredictionSets("lac", 0.1, 0.7).of(P).tolist() == [[True, True, False], [False, True, False]]
    assert not PredictionSets("lac", 0.1, 0.05).of(P).any()


def test_sets_by_sums_of_probabilities() -> None:
    assert np.allclose(nonconformity(P, "aps"), [[0, 0.5, 0.8], [0.9, 0, 0.95]])
    assert PredictionSets("aps", 0.1, 0.7).of(P).tolist() == [[True, True, False], [False, True, False]]
    assert PredictionSets("aps", 0.1, 0.0).of(P).tolist() == [[True, False, False], [False, True, False]]


def test_a_threshold_of_one_lets_every_label_in() -> None:
    scores = np.random.default_rng(0).dirichlet(np.ones(50), 200).astype(np.float32)
    for method in ("lac", "aps"):
        assert PredictionSets(method, 0.1, 1.0).of(scores).all()  # type: ignore[arg-type]


def test_unknown_is_what_lies_below_the_threshold() -> None:
    assert Unknown("energy", 2.0).of(np.array([1.9, 2.0, 5.0])).tolist() == [True, False, False]


def test_a_prediction_says_what_it_is_not_sure_of(model: Path, digits: Path) -> None:
    classifier = Classifier(model)
    sets, unknown = classifier.contract.sets, classifier.contract.unknown
    for picture in digits.iterdir():
        pixels = images.decode(picture)
        prediction = classifier(pixels)
        _, probabilities, familiarity = classifier.run(pixels[None])
        expected = [classifier.classes[k] for k in np.flatnonzero(sets.of(probabilities)[0])]
        assert sorted(prediction.labels) == sorted(expected)
        assert prediction.unknown == bool(unknown.of(familiarity)[0])
        ranks = [prediction.probabilities[classifier.classes.index(label)] for label in prediction.labels]
        assert ranks == sorted(ranks, reverse=True)


def test_digits_are_known_and_noise_and_plain_colours_are_not(model: Path) -> None:
    classifier = Classifier(model)
    (plain,) = (golden.encoded for golden in classifier.contract.golden if golden.name == "plain")
    assert not classifier(plain).unknown
    generator = np.random.default_rng(0)
    noise = list(generator.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))
    colours = [np.full((40, 30, 3), colour, np.uint8) for colour in range(0, 256, 25)]
    assert all(prediction.unknown for prediction in classifier([*noise, *colours]))


def test_all_kinds_of_pictures_are_replayed(model: Path) -> None:
    names = [golden.name for golden in contract.read(model)[1].golden]
    assert names == ["plain", "wide", "tall", "grey", "16-bit grey", "transparent", "rotated", "JPEG"]
    assert [replay.stage for replay in Classifier(model).verify()] == [""] * 8


@pytest.mark.parametrize("stage", ["decode", "resize", "net", "probabilities"])
def test_a_replay_names_the_stage_that_differs(
    stage: str, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decode, run = images.decode, Classifier.run

    def wrong(self: Classifier, batch: images.Pixels) -> tuple[Scores, Scores, Scores]:
        logits, probabilities, familiarity = run(self, batch)
        if stage == "resize" and batch.shape[1:3] == (32, 32):
            return logits, probabilities, familiarity
        logits = logits if stage == "probabilities" else np.roll(logits, 1, axis=1)
        return logits, np.roll(probabilities, 1, axis=1), familiarity

    if stage == "decode":
        monkeypatch.setattr(images, "decode", lambda source: 255 - decode(source))
    else:
        monkeypatch.setattr(Classifier, "run", wrong)
    assert main(["verify", str(model)]) == 1
    stages = {line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines() if "WRONG" in line}
    assert stages == {stage}
