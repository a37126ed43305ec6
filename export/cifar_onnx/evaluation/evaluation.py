"""Everything that is known of a model on some pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cifar_onnx.evaluation.metrics import Bootstrap, Estimate, OfClass, by_class
from cifar_onnx.evaluation.outcome import Outcome
from cifar_onnx.evaluation.robustness import Robustness
from cifar_onnx.evaluation.slices import Slicing


@dataclass(frozen=True)
class Evaluation:
    """Everything that is known of a model on some pictures.

    Attributes:
        title: the model's name.
        model: what is known of it, in words.
        bootstrap: of the outcome.
        slicings: accuracy within groups.
        robustness: accuracy on pictures that were made harder.
    """

    title: str
    model: Mapping[str, str]
    bootstrap: Bootstrap
    slicings: Sequence[Slicing] = ()
    robustness: Sequence[Robustness] = ()

    @property
    def outcome(self) -> Outcome:
        """Pictures and answers."""
        return self.bootstrap.outcome

    @property
    def estimates(self) -> Mapping[str, Estimate]:
        """Every metric with its interval."""
        return self.bootstrap.estimates

    @cached_property
    def classes(self) -> list[OfClass]:
        """How each class fares."""
        return by_class(self.outcome, self.bootstrap)
