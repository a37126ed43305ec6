"""Golden samples run again: what must be the same, and how nearly."""

import base64
from typing import Any

import numpy as np
import pytest
from handmade import colours

from cifar_onnx import Classifier, images, resizing
from cifar_onnx.replay import Replay

GREY = (100, 100, 100)


def replayed(colour: tuple[int, ...], precision: object = "fp32", **stored: Any) -> Replay:
    """What a net whose logits are the mean colour makes of a plain picture, where its file has these answers for it."""
    pixels = np.full((8, 8, 3), colour, np.uint8)
    logits = np.array(colour, float)
    probabilities = np.exp(logits - logits.max())
    golden = {
        "name": "plain",
        "file": base64.b64encode(images.encode_png(pixels)).decode(),
        "fingerprint": images.fingerprint(pixels),
        "label": "red",
        "logits": list(logits),
        "probabilities": list(probabilities / probabilities.sum()),
    }
    (found,) = Classifier(colours(golden=[{**golden, **stored}], precision=precision)).verify()
    return found


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "of a later version", []])
def test_the_tolerance_is_that_of_the_precision(precision: object) -> None:
    allowed = {"fp16": 1e-2, "int8": 2e-2}.get(str(precision), 1e-3)
    right = np.full(3, 1 / 3)
    for share, ok in ((0.9, True), (1.1, False)):
        off = share * allowed * np.array([1, -1, 0])
        assert replayed(GREY, precision, probabilities=list(right + off)).ok == ok
        for sign in (1, -1):
            found = replayed(GREY, precision, familiarity=100 / (1 - sign * share * allowed))
            assert found.stage == ("" if ok else "familiarity")


@pytest.mark.parametrize("resized", ["here", "in the graph"])
def test_a_resize_that_differs_is_named(resized: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The net's logits are the mean colour: of another size it is the same, but in a graph that resizes otherwise."""
    red = np.full((1, 8, 8, 3), (255, 0, 0), np.uint8)
    if resized == "here":
        monkeypatch.setattr(resizing, "resize", lambda *_: red[0])
    else:
        run = Classifier.run
        calls = iter([True, False])
        monkeypatch.setattr(Classifier, "run", lambda self, batch: run(self, red if next(calls) else batch))
    found = replayed(GREY)
    assert found.stage == "resize"
    assert found.difference > 0.5


def test_small_familiarities_are_compared_as_they_are() -> None:
    assert replayed((2, 0, 0), familiarity=2 / 3 + 9e-4).ok
    assert replayed((0, 0, 0), familiarity=0.0011).stage == "familiarity"


def test_a_file_without_familiarities_is_replayed_as_before() -> None:
    assert replayed(GREY).ok


def test_of_labels_that_are_as_probable_either_will_do() -> None:
    assert replayed(GREY, label="blue").ok
    assert not replayed(GREY, label="purple").ok
    assert replayed((4, 3, 0), "int8", label="green").stage == "probabilities"
