"""Two models on the same pictures: is the one better, and for which classes.

Notation: `N` pictures, `G` groups.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath

import numpy as np

from cifar_onnx.errors import InputError, some
from cifar_onnx.evaluation.bootstrap import Estimate, Z
from cifar_onnx.evaluation.outcome import Booleans, Integers, Outcome
from cifar_onnx.folders import called_picture, composed
from cifar_onnx.images import Pixels

_LEAST, _MOST, _SECONDS = 3, 50, 10.0  # rounds of runs that are timed; no more than the least after so long


@dataclass(frozen=True)
class RecallChange:
    """Recall of a class by both models, and its change with a paired interval."""

    name: str
    support: int
    before: float
    after: float
    change: Estimate


@dataclass(frozen=True)
class Comparison:
    """What model B changes, where model A was.

    Attributes:
        a: its answers.
        b: the other's, to the same pictures; its classes may be in another order.
    """

    a: Outcome
    b: Outcome

    @cached_property
    def change(self) -> Estimate:
        """Of the accuracy, from A to B."""
        return changes(self.a, self.b, np.ones((len(self.a.labels), 1), bool))[0]

    @cached_property
    def newly_wrong(self) -> Integers:
        """Places of the pictures that only A gets right."""
        return np.flatnonzero(self.a.correct & ~self.b.correct)

    @cached_property
    def newly_right(self) -> Integers:
        """Places of the pictures that only B gets right."""
        return np.flatnonzero(self.b.correct & ~self.a.correct)

    @property
    def verdict(self) -> str:
        """`B is better`, `B is worse`, or that these pictures show no difference: that its interval holds 0."""
        if self.change.low <= 0 <= self.change.high:
            return "no difference can be shown"
        return "B is better" if self.change.value > 0 else "B is worse"

    @cached_property
    def classes(self) -> list[RecallChange]:
        """Every class that has pictures."""
        present = np.unique(self.a.labels)
        members = self.a.labels[:, None] == present
        before, after = (
            (members * each.correct[:, None]).sum(axis=0) / members.sum(axis=0) for each in (self.a, self.b)
        )
        return [
            RecallChange(self.a.classes[k], *columns)
            for k, *columns in zip(
                present.tolist(),
                members.sum(axis=0).tolist(),
                before.tolist(),
                after.tolist(),
                changes(self.a, self.b, members),
                strict=True,
            )
        ]


def changes(a: Outcome, b: Outcome, groups: Booleans) -> list[Estimate]:
    """Change of the accuracy from `a` to `b` within each group `(N, G)` of the same pictures, with paired intervals.

    Those of Bonett and Price 2012 (https://doi.org/10.3102/1076998611411915), which count one picture more for each
    direction. They hold where few pictures change, of which resamples see too little: of four that are newly right, and
    none newly wrong, nearly all see an improvement, which is by chance in one of eight cases.
    """
    won, lost = ((groups & each[:, None]).sum(axis=0) for each in (b.correct & ~a.correct, a.correct & ~b.correct))
    count = groups.sum(axis=0)
    middle = (won - lost) / (count + 2)
    rest = Z * np.sqrt(((won + lost + 2) / (count + 2) - middle**2) / (count + 2))
    columns = ((won - lost) / count, np.maximum(middle - rest, -1), np.minimum(middle + rest, 1))
    return [Estimate(*map(float, each)) for each in zip(*columns, strict=True)]


def same_classes(a: Sequence[str], b: Sequence[str]) -> None:
    """Make sure that two models know the same classes, in whatever order.

    Raises:
        InputError: they do not.
    """
    if differing := {*map(composed, a)} ^ {*map(composed, b)}:
        raise InputError(
            f"the models know different classes (one alone knows {some(sorted(differing))}): "
            "only models of the same classes can be compared"
        )


def bounds(comparison: Comparison, max_drop: float | None, no_class_below: float | None) -> list[str]:
    """Sentences that say which bound is broken, at the end those of classes, the lowest recall first.

    None holds for pictures that could not be read: that there are any, by their names, breaks it.

    Args:
        comparison: of A and B.
        max_drop: percentage points that the accuracy of B may lie below that of A.
        no_class_below: what the recall of each class by B must reach, from 0 to 1.
    """
    broken = []
    judged, unreadable = len(comparison.a.labels), [PurePath(each.name) for each in comparison.a.unreadable]
    if (count := sum(map(called_picture, unreadable))) and (max_drop, no_class_below) != (None, None):
        pictures = f"{count:,} of {judged + count:,} pictures could not be read"
        rest = "and the bounds are judged by the rest alone"
        broken.append(f"{pictures}, {rest}: mend or remove them (in a CSV file, their rows)")
    drop = -100 * comparison.change.value
    if max_drop is not None and drop > max_drop + 1e-9:
        broken.append(f"accuracy falls by {drop:.4g} points, --max-drop allows {max_drop:g}")
    if no_class_below is not None:
        if absent := comparison.a.absent:
            broken.append(f"there are no pictures of {absent}: --no-class-below cannot be judged")
        broken += [
            f"recall of {each.name} is {each.after:.4g} ({round(each.after * each.support):,} of {each.support:,} "
            f"pictures; before: {each.before:.4g}), --no-class-below asks for {no_class_below:g}"
            for each in sorted(comparison.classes, key=lambda each: each.after)
            if each.after < no_class_below
        ]
    return broken


def latency(models: Sequence[tuple[Callable[[Pixels], object], int]]) -> list[float]:
    """Milliseconds for one picture by each model, the median of runs that take turns.

    Args:
        models: what runs each on uint8 `(1, S, S, 3)`, and the side `S` of its pictures.
    """
    pictures = [np.zeros((1, size, size, 3), np.uint8) for _, size in models]
    rows: list[list[float]] = []
    end = time.perf_counter() + _SECONDS
    while len(rows) < _MOST and (len(rows) < _LEAST or time.perf_counter() < end):
        row = []
        for (run, _), picture in zip(models, pictures, strict=True):
            start = time.perf_counter()
            run(picture)
            row.append(time.perf_counter() - start)
        rows.append(row)
    return [float(value) for value in 1000 * np.median(rows, axis=0)]
