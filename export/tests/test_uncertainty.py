"""Prediction sets, unknown pictures, and what a replay says of the stage that differs."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from handmade import INFO, model_of

from cifar_onnx import Classifier, Prediction, contract, images
from cifar_onnx.__main__ import main
from cifar_onnx.classifier import Scores
from cifar_onnx.replay import replay
from cifar_onnx.uncertainty import Method, PredictionSets, Unknown, nonconformity

P = np.array([[0.5, 0.3, 0.2], [0.05, 0.9, 0.05]])


def test_sets_by_probability() -> None:
    assert np.allclose(nonconformity(P, "lac"), 1 - P)
    assert PredictionSets("lac", 0.1, 0.7).of(P).tolist() == [[True, True, False], [False, True, False]]


def test_sets_by_sums_of_probabilities() -> None:
    assert np.allclose(nonconformity(P, "aps"), [[0, 0.5, 0.8], [0.9, 0, 0.95]])
    assert PredictionSets("aps", 0.1, 0.7).of(P).tolist() == [[True, True, False], [False, True, False]]
    assert PredictionSets("aps", 0.1, 0.0).of(P).tolist() == [[True, False, False], [False, True, False]]


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_the_most_probable_label_is_in_every_set(method: Method) -> None:
    """Of equal ones the first, which is the prediction: by probability a good net's sets would else be empty."""
    p = np.array([[0.3, 0.5, 0.2], [0.2, 0.4, 0.4], [np.nan, np.nan, np.nan]])
    expected = [[False, True, False], [False, True, False], [True, False, False]]
    assert PredictionSets(method, 0.1, -1.0).of(p).tolist() == expected


def test_of_equal_probabilities_those_of_earlier_classes_count_as_higher() -> None:
    """In double precision, as JavaScript computes them: at the threshold a label is in the set or not."""
    p = np.tile(np.float32([0.04, 0.01]), 20)[None]
    higher = np.cumsum([0, *p[0, ::2], *p[0, 1::2]], dtype=np.float64)[:-1]
    assert np.array_equal(nonconformity(p, "aps")[0], higher.reshape(2, 20).T.ravel())
    assert np.array_equal(nonconformity(p, "lac"), 1 - p.astype(np.float64))


def test_a_threshold_of_one_lets_every_label_in() -> None:
    scores = np.random.default_rng(0).dirichlet(np.ones(50), 200).astype(np.float32)
    for method in ("lac", "aps"):
        assert PredictionSets(method, 0.1, 1.0).of(scores).all()  # type: ignore[arg-type]


def test_unknown_is_what_lies_below_the_threshold() -> None:
    assert Unknown("energy", 2.0).of(np.array([1.9, 2.0, 5.0])).tolist() == [True, False, False]


def test_a_net_that_overflows_does_not_know() -> None:
    """Half precision can give NaN: never a known picture, and `null` in JSON, which has no NaN."""
    assert Unknown("energy", 2.0).of(np.array([np.nan, -np.inf])).all()
    answer = Prediction("a", np.nan, ("a", "b"), (np.nan, np.nan), (), True, np.nan).as_dict()
    assert json.loads(json.dumps(answer, allow_nan=False))["probability"] is None
    assert [each["probability"] for each in answer["top"]] == [None, None]


def test_nor_do_its_pictures_end_an_evaluation() -> None:
    pytest.importorskip("sklearn")
    from cifar_onnx.evaluation.reliability import rejections

    known, strange = np.array([3, np.inf, np.nan, 5], np.float32), np.array([np.nan, -np.inf, 1], np.float32)
    (found,) = rejections(Unknown("energy", 2.0), known, {"noise": strange})
    assert (found.rejected, found.auroc) == (1, pytest.approx((9 + 2 / 2) / 12))


def test_a_golden_sample_of_many_pixels_is_not_decoded() -> None:
    """A hostile one of 100 KB would have the graph take gigabytes."""
    wide = images.encode_png(np.zeros((1000, 1001, 3), np.uint8))
    sample = {"name": "a", "fingerprint": "", "label": "a", "logits": [0, 0], "probabilities": [0.5, 0.5]}
    known = contract.parse(model_of({**INFO, "golden": [{**sample, "file": base64.b64encode(wide).decode()}]}))
    found = replay(known, None, known.golden[0])  # type: ignore[arg-type]
    assert (found.ok, found.stage) == (False, "decode")


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


@pytest.mark.parametrize("stage", ["decode", "net", "probabilities"])
def test_a_replay_names_the_stage_that_differs(
    stage: str, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decode, run = images.decode, Classifier.run

    def wrong(self: Classifier, batch: images.Pixels) -> tuple[Scores, Scores, Scores]:
        logits, probabilities, familiarity = run(self, batch)
        logits = logits if stage == "probabilities" else np.roll(logits, 1, axis=1)
        return logits, np.roll(probabilities, 1, axis=1), familiarity

    if stage == "decode":
        monkeypatch.setattr(images, "decode", lambda *source: 255 - decode(*source))
    else:
        monkeypatch.setattr(Classifier, "run", wrong)
    assert main(["verify", str(model)]) == 1
    stages = {line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines() if "WRONG" in line}
    assert stages == {stage}


@pytest.mark.parametrize(
    ("logits", "probabilities", "stage"),
    [
        ([2000, 0, 0], [0.6009, 0.1995, 0.1996], ""),
        ([2000, 0, 0], [0.5988, 0.2006, 0.2006], "probabilities"),  # one of them is off by 0.0012, the others by half
        ([2000, -1.9, 0], [0.5988, 0.2006, 0.2006], "probabilities"),  # what float32 has of 2000
        ([2000, -2.1, 0], [0.5988, 0.2006, 0.2006], "net"),
        ([2000, 0, 0], [0.1996, 0.6009, 0.1995], "probabilities"),
    ],
)
def test_an_answer_must_have_the_label_and_every_probability_within_a_thousandth(
    logits: list[float], probabilities: list[float], stage: str
) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    picture, fingerprint = images.encode_png(pixels), images.fingerprint(pixels)
    golden = contract.Golden("plain", picture, fingerprint, "a", (2000.0, 0.0, 0.0), (0.6, 0.2, 0.2))
    known = contract.parse(model_of({**INFO, "classes": ["a", "b", "c"]}))
    answer = np.array([logits]), np.array([probabilities]), np.zeros(1)
    again = replay(known, lambda _: answer, golden)
    assert (again.stage, again.ok) == (stage, not stage)


def test_a_picture_that_cannot_be_decoded_here_is_no_right_answer() -> None:
    golden = contract.Golden("plain", b"no picture", "", "a", (1.0, 0.0), (0.7, 0.3))
    again = replay(contract.parse(model_of(INFO)), lambda _: pytest.fail("it was run"), golden)
    assert (again.stage, again.label, again.ok) == ("decode", "", False)
