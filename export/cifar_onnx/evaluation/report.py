"""report.html: one page, nothing loaded from elsewhere, that shows a model's figures and where it fails."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifar_onnx.evaluation.bootstrap import Z
from cifar_onnx.evaluation.charts import charts
from cifar_onnx.evaluation.evaluation import Evaluation
from cifar_onnx.evaluation.metrics import SCALES, confusion, words
from cifar_onnx.evaluation.outcome import Integers
from cifar_onnx.evaluation.templates import picture, png, render
from cifar_onnx.explain import occlusion_runs
from cifar_onnx.images import Pixels

_HEADLINE = (
    *("accuracy", "top5_accuracy", "f1_macro", "roc_auc"),
    *("negative_log_likelihood", "brier_score", "expected_calibration_error"),
)
_MISTAKES, _HITS = 24, 12  # pictures shown
_CONFUSIONS = 8  # pairs of classes shown
_CALIBRATED = 0.02  # distance of mean confidence and accuracy that is not worth a word
_EXPLAINED, _SHARE = 4, 0.03  # mistakes with a map at least, and what these may cost of running the net on all

Maps = Callable[[Pixels, int], NDArray[np.float32]]  # picture (S, S, 3) and class: what supports it, (S, S) in 0..1


@dataclass(frozen=True)
class Picture:
    """A picture on the page, and what the model looked at, as data addresses."""

    name: str
    label: str
    prediction: str
    probability: float
    source: str
    map: str = ""


def write(evaluation: Evaluation, path: Path, explain: Maps, by_occlusion: bool) -> None:
    """Write the page.

    Args:
        evaluation: what it shows.
        path: the file.
        explain: what in a picture supports a class, for the mistakes.
        by_occlusion: explaining takes many runs of the net, so that only the first mistakes are explained.
    """
    outcome, estimates = evaluation.outcome, evaluation.estimates
    ranked = outcome.ranked
    mistakes = ranked[~outcome.correct[ranked]][:_MISTAKES]
    hits = ranked[outcome.correct[ranked]][: -_HITS - 1 : -1]
    affordable = int(_SHARE * len(ranked) / occlusion_runs(outcome.pixels.shape[1]))
    explained = max(_EXPLAINED, affordable) if by_occlusion else _MISTAKES
    drawn, confusions = charts(outcome, evaluation.classes), _confusions(evaluation)
    page = render(
        "cifar_onnx.evaluation",
        "report.html.jinja",
        words=words,
        title=evaluation.title,
        model=evaluation.facts,
        outcome=outcome,
        estimates=estimates,
        headline=[name for name in _HEADLINE if name in estimates],
        scales=SCALES,
        findings=_findings(evaluation, confusions),
        confusions=confusions,
        charts=drawn,
        shades="" if drawn.shades is None else png(drawn.shades),
        doubts=evaluation.reliability,
        support={each.name: each.support for each in evaluation.classes},
        robustness=evaluation.robustness,
        slicings=evaluation.slicings,
        galleries=[
            (
                "Most confident mistakes",
                "Beside the first, in orange, what supports the wrong class. Wrong labels show up here, too.",
                _pictures(evaluation, mistakes, explain, explained),
            ),
            ("Least confident correct predictions", "Right, but only just.", _pictures(evaluation, hits, explain, 0)),
        ],
    )
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def _confusions(evaluation: Evaluation) -> list[tuple[str, str, int, float]]:
    """The most frequent mistakes: label, prediction, how many, and of what share of the class."""
    table = confusion(evaluation.outcome)
    support = table.sum(axis=1)
    np.fill_diagonal(table, 0)
    places = np.argsort(-table, axis=None, kind="stable")[:_CONFUSIONS]
    names = evaluation.outcome.classes
    pairs = zip(*np.unravel_index(places, table.shape), strict=True)
    return [(names[i], names[j], int(table[i, j]), float(table[i, j] / support[i])) for i, j in pairs if table[i, j]]


def _findings(evaluation: Evaluation, confusions: list[tuple[str, str, int, float]]) -> list[str]:
    """The three things to know first, in words."""
    outcome = evaluation.outcome
    sentences = []
    if confusions:
        worst = min((each for each in evaluation.classes if each.support), key=lambda each: each.recall)
        label, prediction, _, share = confusions[0]
        hits = round(worst.recall * worst.support)
        sentences.append(
            f"The hardest class is “{worst.name}”: {hits:,} of its {worst.support:,} pictures are recognised "
            f"({worst.recall:.1%}). "
            f"The most frequent mistake: {share:.1%} of “{label}” are predicted as “{prediction}”."
        )
    sure, gaps = outcome.confidences, outcome.confidences - outcome.correct
    chance = Z * (max((sure * (1 - sure)).mean(), gaps.var()) / len(gaps)) ** 0.5  # were it calibrated, or as it is
    gap = gaps.mean()
    if abs(gap) > max(_CALIBRATED, chance):
        verdict = f"{'overconfident' if gap > 0 else 'underconfident'} on average"
    elif chance > _CALIBRATED:
        verdict = "these pictures show neither over- nor underconfidence, but are too few to rule it out"
    else:
        verdict = "well calibrated on average"
    error = evaluation.estimates["expected_calibration_error"].value
    sentences.append(
        f"Mean confidence is {outcome.confidences.mean():.1%}, accuracy {outcome.correct.mean():.1%}: {verdict} "
        f"(expected calibration error {error:.1%})."
    )
    half = outcome.ranked[: max(len(outcome.labels) // 2, 1)]
    sentences.append(f"On the more confident half of the pictures, accuracy is {outcome.correct[half].mean():.1%}.")
    return sentences


def _pictures(evaluation: Evaluation, chosen: Integers, explain: Maps, explained: int) -> list[Picture]:
    outcome = evaluation.outcome
    return [
        Picture(
            outcome.names[i],
            outcome.classes[outcome.labels[i]],
            outcome.classes[outcome.predictions[i]],
            float(outcome.confidences[i]),
            picture(outcome.pixels[i]),
            picture(overlay(outcome.pixels[i], explain(outcome.pixels[i], int(outcome.predictions[i]))))
            if place < explained
            else "",
        )
        for place, i in enumerate(chosen.tolist())
    ]


def overlay(pixels: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """A grey picture `(S, S, 3)`, coloured where `heat` `(S, S)` in 0..1 is high."""
    grey = pixels.mean(axis=2, keepdims=True) * 0.6
    colour = np.array([255, 90, 0]) * heat[..., None] ** 1.5
    mixed: Pixels = np.clip(grey + colour, 0, 255).astype(np.uint8)
    return mixed
