"""Calibration on a validation set: temperature, conformal prediction sets, and a threshold for unknown pictures.

Notation: `N` pictures, `K` classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import nn

from cifar_lightning.data.images import Images, spread
from cifar_lightning.familiarity import Familiarity, Watched, candidates, held_out, outputs_of, values
from cifar_lightning.temperature import Quality, by_rows, fit_temperature, quality
from cifar_onnx import InputError
from cifar_onnx.evaluation import outliers
from cifar_onnx.evaluation.outcome import Integers
from cifar_onnx.evaluation.reliability import Rejection, rejections
from cifar_onnx.images import Pictures
from cifar_onnx.prediction import Scores
from cifar_onnx.uncertainty import Method, PredictionSets, Unknown, nonconformity

REFUSED = 0.05  # share of pictures like the validation images that may be taken for unknown
_MOST = 10_000  # images: of so many, chance moves a coverage of 90 % by 0.3 points
_TELLING = 0.7  # mean AUROC of a score that tells something
_NOTICED = 0.5  # share of one kind of other pictures, at least, that such a score calls unknown


@dataclass(frozen=True)
class Calibration:
    """What was found on `images` validation images.

    Attributes:
        images: their number.
        temperature: what logits are divided by.
        before: of the probabilities without it.
        after: of those with it.
        sets: how labels get into prediction sets.
        unknown: which pictures the model does not know.
        rejected: share of the images that are called unknown.
        score: by what familiarity.
        rejections: what it makes of pictures of several kinds that show none of its classes.
        gains: `(images,)`, how much more familiar each is for the score having been learnt from it.
    """

    images: int
    temperature: float
    before: Quality
    after: Quality
    sets: PredictionSets
    unknown: Unknown
    rejected: float
    score: Familiarity
    rejections: tuple[Rejection, ...]
    gains: Scores

    def __str__(self) -> str:
        before, after = (100 * each.expected_calibration_error for each in (self.before, self.after))
        others = ", ".join(f"{each.rejected:.0%} of {each.kind}" for each in self.rejections)
        return (
            f"calibrated on {self.images:,} validation images: temperature {self.temperature:g}, expected calibration "
            f"error {before:.1f} % before, {after:.1f} % after\n"
            f"called unknown (by {self.unknown.score.replace('_', ' ')}): {self.rejected:.1%} of these images, {others}"
            + "".join(f"\nwarning: {each}" for each in self.warnings)
        )

    @property
    def warnings(self) -> list[str]:
        """What the validation images are too few, or the net too weak, for."""
        found, needed = [], math.ceil(1 / self.sets.alpha - 1e-9) - 1
        if self.images < needed:
            found.append(
                f"{self.images} validation images are too few for prediction sets at alpha {self.sets.alpha:g}: "
                f"each set holds all classes (at least {needed} images are needed)"
            )
        if self.images < (needed := math.ceil(1 / REFUSED) - 1):
            found.append(
                f"{self.images} validation images are too few for a threshold that calls at most {REFUSED:.0%} of such "
                f"pictures unknown (at least {needed} images are needed)"
            )
        if (mean := float(np.mean([each.auroc for each in self.rejections]))) < _TELLING:
            found.append(f"its unknown score is hardly better than chance (mean AUROC {mean:.2f})")
        elif max(each.rejected for each in self.rejections) < _NOTICED:
            found.append("it calls hardly any of these other pictures unknown: do not rely on it for that")
        return found

    def again(
        self,
        run: Callable[[Pictures, str | None], tuple[Scores, Scores]],
        known: Images,
        classes: Sequence[str],
    ) -> "Calibration":
        """The same of a variant of the net, run as `outputs_of` runs one, to logits and familiarities."""
        logits, familiarity = run(known.pixels, "calibrating")
        others = {kind: run(each, None)[1] for kind, each in outliers.make(known.pixels.shape[1], classes)}
        score, gains, sets = self.score, self.gains, self.sets
        return _calibration(score, logits, familiarity - gains, gains, known.labels, others, sets.alpha, sets.method)

    def entries(self) -> dict[str, Any]:
        """What the contract holds of it."""
        measured = {each.kind: {"auroc": each.auroc, "rejected": each.rejected} for each in self.rejections}
        return {
            "temperature": self.temperature,
            "sets": asdict(self.sets),
            "unknown": {**asdict(self.unknown), "refused": REFUSED, "measured": measured},
            "calibration": {"images": self.images, "before": asdict(self.before), "after": asdict(self.after)},
        }


def calibration_images(validation: Images) -> Images:
    """The validation images that a calibration works on: all of them, or 10,000 spread over more than that.

    All of ImageNet's would take a large net hours on a CPU, where it is exported.
    """
    return validation.take(spread(len(validation), _MOST)) if len(validation) > _MOST else validation


def calibrate(
    model: nn.Module, known: Images, classes: Sequence[str], alpha: float = 0.1, method: Method = "lac"
) -> Calibration:
    """Run a net on validation images, and on pictures that show none of its classes, and calibrate it.

    Args:
        model: pixels 0..255 `(B, 3, S, S)` to logits, in evaluation mode.
        known: the validation images.
        classes: their names.
        alpha: share of pictures whose right label may be missing from its set.
        method: of the sets.

    Raises:
        InputError: alpha is no share, or an answer of the net is not finite.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha:g}: the share of sets without the right label lies between 0 and 1")
    watched = Watched(model)
    logits, contrasts = outputs_of(watched, known.pixels, "calibrating")
    bad = np.flatnonzero(~((logits < np.inf).all(axis=1) & np.isfinite(contrasts).all(axis=1)))
    if len(bad):
        raise InputError(
            f"the net's answers or activations for {len(bad):,} of {len(logits):,} validation images are not finite: "
            f"train it with a lower learning rate, or inspect these images, of which the first is {known.names[bad[0]]}"
        )
    strange = {kind: outputs_of(watched, each) for kind, each in outliers.make(known.pixels.shape[1], classes)}
    found = []
    for score in candidates(contrasts):
        own = held_out(score, logits, contrasts)
        found.append((score, own, {kind: values(score, *each) for kind, each in strange.items()}))
    score, own, others = max(found, key=lambda x: np.mean([each.auroc for each in rejections(Unknown("", 0), *x[1:])]))
    gains = values(score, logits, contrasts) - own
    return _calibration(score, logits, own, gains, known.labels, others, alpha, method)


def _calibration(
    score: Familiarity,
    logits: Scores,
    familiarity: Scores,
    gains: Scores,
    labels: Integers,
    others: Mapping[str, Scores],
    alpha: float,
    method: Method,
) -> Calibration:
    temperature = fit_temperature(logits, labels)
    conformity = by_rows(
        lambda z, own: nonconformity(np.exp(log_softmax(z / temperature, axis=1)), method)[own], logits, labels
    )
    unknown = Unknown(score.name, unknown_threshold(familiarity))
    return Calibration(
        images=len(labels),
        temperature=temperature,
        before=quality(logits, labels, 1),
        after=quality(logits, labels, temperature),
        sets=PredictionSets(method, alpha, conformal_threshold(conformity, alpha)),
        unknown=unknown,
        rejected=float(unknown.of(familiarity).mean()),
        score=score,
        rejections=rejections(unknown, familiarity, others),
        gains=gains,
    )


def conformal_threshold(nonconformity: NDArray[np.float64], alpha: float) -> float:
    """The threshold below which `1 - alpha` of new labels are, from those of `(N,)` labelled pictures.

    The `ceil((N + 1)(1 - alpha))`-th of them (Vovk et al. 2005; https://arxiv.org/abs/2107.07511, section 1); 1, which
    lets every label in, where there are too few. Rounded up to six digits, by more than single precision loses.
    """
    rank = math.ceil((len(nonconformity) + 1) * (1 - alpha) - 1e-9)
    if rank > len(nonconformity):
        return 1.0
    return min(1.0, math.ceil(float(np.sort(nonconformity)[rank - 1]) * 1e6 + 0.5) / 1e6)


def unknown_threshold(familiarity: Scores) -> float:
    """The familiarity below which at most `REFUSED` of new pictures like the known ones `(N,)` are.

    The `floor((N + 1) REFUSED)`-th of them, for the reason that `conformal_threshold` has, rounded down to four digits;
    the least where there are fewer than 19, of which more would be below it. What is not a number counts as the least.

    Raises:
        InputError: that one is not a finite number.
    """
    rank = max(1, math.floor((len(familiarity) + 1) * REFUSED + 1e-9))
    found = float(np.sort(np.where(np.isnan(familiarity), -np.inf, familiarity))[rank - 1])
    if not math.isfinite(found):
        raise InputError(
            f"the familiarity of {rank:,} or more of {len(familiarity):,} validation images is {found:g}: the net "
            "overflows: export it in fp32, or train it with a lower learning rate"
        )
    return math.floor(found * 1e4) / 1e4
