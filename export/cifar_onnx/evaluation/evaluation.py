"""Everything that is known of a model on some pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from cifar_onnx.evaluation.bootstrap import Bootstrap, Estimate, shares
from cifar_onnx.evaluation.metrics import confusion
from cifar_onnx.evaluation.outcome import Outcome
from cifar_onnx.evaluation.reliability import Reliability
from cifar_onnx.evaluation.robustness import Robustness
from cifar_onnx.evaluation.slices import Slicing


@dataclass(frozen=True)
class ClassMetrics:
    """How one class fares.

    Attributes:
        name: of the class.
        support: how many pictures there are of it.
        precision: share of those taken for it that are of it.
        recall: share of its own that are taken for it.
        f1: their harmonic mean.
        taken_for: the other class that its pictures are most often taken for, empty where none is.
        recall_interval: Wilson's; NaN where it has no pictures.
    """

    name: str
    support: int
    precision: float
    recall: float
    f1: float
    taken_for: str
    recall_interval: Estimate


@dataclass(frozen=True)
class Evaluation:
    """Everything that is known of a model on some pictures.

    Attributes:
        title: the model's name.
        facts: what is known of the model, in words.
        bootstrap: of the outcome.
        slicings: accuracy within groups.
        robustness: accuracy on pictures that were made harder.
        reliability: what its doubts are worth; None of a model without a contract, which has none.
    """

    title: str
    facts: Mapping[str, str]
    bootstrap: Bootstrap
    slicings: Sequence[Slicing] = ()
    robustness: Sequence[Robustness] = ()
    reliability: Reliability | None = None

    @property
    def outcome(self) -> Outcome:
        """Pictures and answers."""
        return self.bootstrap.outcome

    @property
    def estimates(self) -> Mapping[str, Estimate]:
        """Every metric with its interval."""
        return self.bootstrap.estimates

    @cached_property
    def classes(self) -> list[ClassMetrics]:
        """How each class fares."""
        return by_class(self.outcome)


def by_class(outcome: Outcome) -> list[ClassMetrics]:
    """Every class of the model, also those without a picture."""
    classes = np.arange(len(outcome.classes))
    columns = precision_recall_fscore_support(outcome.labels, outcome.predictions, labels=classes, zero_division=0)
    wrong = confusion(outcome)
    np.fill_diagonal(wrong, 0)
    intervals = shares(outcome.correct, outcome.labels[:, None] == classes)
    return [
        ClassMetrics(
            name,
            int(support),
            float(precision),
            float(recall),
            float(f1),
            outcome.classes[int(row.argmax())] if row.any() else "",
            interval,
        )
        for name, precision, recall, f1, support, row, interval in zip(
            outcome.classes, *columns, wrong, intervals, strict=True
        )
    ]
