"""Runs in order, the best of them, and remarks on each and on all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from cifar_lightning.leaderboard.differences import Differences
from cifar_lightning.leaderboard.entry import Entry
from cifar_onnx.folders import natural
from cifar_onnx.shell import duration

NAMES = [each.name for each in fields(Entry) if each.name not in ("curve", "best", "settings", "validation", "damaged")]
_HIGHEST_FIRST = ("epochs", "val_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Column:
    """A column for people.

    Attributes:
        title: its head.
        cell: what it says of a run.
        dropped: where there is no room for all, columns are left out, the highest of these first; those of 0 never.
        number: whether it holds numbers.
    """

    title: str
    cell: Callable[[Entry], str]
    dropped: int = 0
    number: bool = True


@dataclass(frozen=True)
class Board:
    """Runs in an order, and what there is to say of all.

    Args:
        entries: the runs, in their order.
    """

    entries: Sequence[Entry]

    @cached_property
    def best(self) -> Entry | None:
        """The run of the highest validation accuracy, and of the lowest loss where several have that."""
        known = [each for each in self.entries if each.val_accuracy is not None]
        return min(known, key=_merit, default=None)

    @cached_property
    def differences(self) -> Differences:
        """What their configs differ in."""
        return Differences([each.settings for each in self.entries])

    @cached_property
    def columns(self) -> list[Column]:
        """Those that say something of one run at least."""
        return [each for each in (*_COLUMNS, self.own) if any(map(each.cell, self.entries))]

    @cached_property
    def own(self) -> Column:
        """The last of them: how a run's config differs from the others'."""
        return Column("differs in", lambda entry: self.differences.own(entry.settings), number=False)

    @property
    def findings(self) -> list[str]:
        """What the table shows, in sentences."""
        sentences = []
        if self.best and len(self.entries) > 1:
            rivals = sum(_within(each.val_accuracy, self.best) for each in self.entries if each is not self.best)
            chance = f"; {rivals} more within its interval, so it may be chance" if rivals else ""
            sentences.append(f"best validation accuracy: {self.best.run}, {_accuracy(self.best)}{chance}")
        validations = {each.validation for each in self.entries if each.val_accuracy is not None} - {None}
        images = self.differences.images() or ("photos or labels have changed" if len(validations) > 1 else "")
        if images:
            sentences.append(f"not comparable as they are: not all were validated on the same images ({images})")
        if losses := self.differences.losses():
            sentences.append(f"not comparable by val loss: not all use the same loss ({losses})")
        if common := self.differences.otherwise():
            sentences.append(f"unless stated otherwise: {common}")
        return sentences


def ranked(entries: Sequence[Entry], name: str) -> list[Entry]:
    """Runs by a column, the best first: high accuracies, else low values; those where it is not known come last."""
    entries = sorted(entries, key=lambda entry: (_merit(entry), natural(entry.run)))
    known = [each for each in entries if getattr(each, name) is not None]

    def key(entry: Entry) -> Any:
        value = getattr(entry, name)
        return natural(value) if isinstance(value, str) else -value if name.startswith(_HIGHEST_FIRST) else value

    return sorted(known, key=key) + [each for each in entries if getattr(each, name) is None]


def _merit(entry: Entry) -> tuple[float, float]:
    """The lower, the better."""
    accuracy, loss = entry.val_accuracy, entry.val_loss
    return float("inf") if accuracy is None else -accuracy, float("inf") if loss is None else loss


def _within(value: float | None, other: Entry) -> bool:
    """Whether a validation accuracy lies within the interval of another run's."""
    return value is not None and other.val_accuracy_low is not None and value >= other.val_accuracy_low


def _share(entry: Entry, name: str) -> str:
    value, low, high = (getattr(entry, f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return ""
    return f"{value:.1%}" + ("" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})")


def _accuracy(entry: Entry) -> str:
    return _share(entry, "val_accuracy")


def _form(name: str, form: str = "{}") -> Callable[[Entry], str]:
    return lambda entry: "" if (value := getattr(entry, name)) is None else form.format(value)


ACCURACY = Column("val accuracy", _accuracy)
_COLUMNS = (
    Column("run", _form("run"), number=False),
    Column("state", lambda entry: "" if entry.state in (None, "finished") else str(entry.state), 2, number=False),
    ACCURACY,
    Column("val loss", _form("val_loss", "{:.4f}"), 8),
    Column("test accuracy", lambda entry: _share(entry, "test_accuracy"), 1),
    Column("epochs", _form("epochs"), 7),
    Column("time", lambda entry: "" if entry.seconds is None else duration(entry.seconds), 3),
    Column("parameters", _form("parameters", "{:,}"), 4),
    Column("checkpoint", _form("checkpoint_mb", "{:.2f} MB"), 9),
    Column("model.onnx", _form("onnx_mb", "{:.2f} MB"), 5),
    Column("seed", _form("seed"), 6),
)
