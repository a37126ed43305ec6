"""Reliability of a model's uncertainty: calibration, coverage of prediction sets, detection of unknown pictures.

Notation: `N` pictures, `K` classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from cifar_onnx.evaluation.bootstrap import Estimate, shares
from cifar_onnx.evaluation.metrics import expected_calibration_error
from cifar_onnx.evaluation.outcome import Answers, Outcome, bands, in_parts, softmax
from cifar_onnx.evaluation.outliers import COUNT, make
from cifar_onnx.prediction import Scores
from cifar_onnx.uncertainty import PredictionSets, Unknown


@dataclass(frozen=True)
class Rejection:
    """What a model makes of pictures that show none of its classes.

    Attributes:
        kind: what they show.
        count: how many there are.
        auroc: how well its score tells them from pictures of its classes, 0.5 by chance, 1 without a mistake.
        rejected: share of them that it takes for unknown.
    """

    kind: str
    count: int
    auroc: float
    rejected: float


def rejections(unknown: Unknown, known: Scores, others: Mapping[str, Scores]) -> tuple[Rejection, ...]:
    """How a rule tells pictures of its classes from others, by kind, all by their familiarity `(N,)`."""
    found, least = [], float(np.finfo(np.float32).min)
    for kind, strange in others.items():
        truth = np.repeat([1, 0], [len(known), len(strange)])
        scores = np.nan_to_num(np.concatenate([known, strange]), nan=least)  # NaN is unknown
        auroc = float(roc_auc_score(truth, scores))
        found.append(Rejection(kind, len(strange), auroc, float(unknown.of(strange).mean())))
    return tuple(found)


@dataclass(frozen=True)
class Coverage:
    """How often the right label is in the prediction set.

    Attributes:
        sets: the rule.
        covered: share of the pictures, with Wilson's interval.
        mean_size: labels in a set, on average.
        single: share of sets with one.
        by_class: likewise of the pictures of each, NaN where there is none.
    """

    sets: PredictionSets
    covered: Estimate
    mean_size: float
    single: float
    by_class: Mapping[str, Estimate]

    @property
    def worst(self) -> list[tuple[str, Estimate]]:
        """Classes with pictures, and their shares, the smallest first."""
        known = [(name, share) for name, share in self.by_class.items() if not np.isnan(share.value)]
        return sorted(known, key=lambda pair: pair[1].value)


@dataclass(frozen=True)
class Reliability:
    """What a model's doubts are worth on some pictures.

    Attributes:
        temperature: what its logits are divided by.
        uncalibrated: calibration error without that.
        calibrated: and with it.
        coverage: of its prediction sets.
        unknown: its rule for unknown pictures.
        rejected: share of the pictures that it takes for unknown.
        rejections: the same of pictures that show none of its classes, by kind.
    """

    temperature: float
    uncalibrated: float
    calibrated: float
    coverage: Coverage
    unknown: Unknown
    rejected: float
    rejections: tuple[Rejection, ...]


def reliability(
    outcome: Outcome,
    temperature: float,
    sets: PredictionSets,
    unknown: Unknown,
    run: Answers,
    others: Scores | None = None,
) -> Reliability:
    """Judge a model's doubts.

    Args:
        outcome: its answers.
        temperature: what their logits have been divided by.
        sets: its rule for sets.
        unknown: its rule for unknown pictures.
        run: the model.
        others: familiarity `(N,)` of pictures of the user's that show none of its classes.
    """
    assert outcome.familiarity is not None
    strange = make(outcome.pixels.shape[1], outcome.classes, first=COUNT)  # those before chose the model's score
    familiar = {kind: in_parts(run, pixels)[1] for kind, pixels in strange}
    if others is not None:
        familiar["others"] = others
    rows = bands(outcome.logits)
    inside = np.concatenate([sets.of(outcome.probabilities[band]) for band in rows])
    hits, sizes = inside[np.arange(len(inside)), outcome.labels], inside.sum(axis=1)
    (covered,) = shares(hits, np.ones((len(hits), 1), bool))
    of_classes = shares(hits, outcome.labels[:, None] == np.arange(len(outcome.classes)))
    coverage = Coverage(
        sets=sets,
        covered=covered,
        mean_size=float(sizes.mean()),
        single=float((sizes == 1).mean()),
        by_class=dict(zip(outcome.classes, of_classes, strict=True)),
    )
    uncalibrated = [softmax(outcome.logits[band] * np.float32(temperature)).max(axis=1) for band in rows]
    return Reliability(
        temperature=temperature,
        uncalibrated=expected_calibration_error(np.concatenate(uncalibrated), outcome.correct),
        calibrated=expected_calibration_error(outcome.confidences, outcome.correct),
        coverage=coverage,
        unknown=unknown,
        rejected=float(unknown.of(outcome.familiarity).mean()),
        rejections=rejections(unknown, outcome.familiarity, familiar),
    )
