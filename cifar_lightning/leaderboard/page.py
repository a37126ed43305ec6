"""The table of runs as one HTML page, nothing loaded from elsewhere, with the curve of each run."""

from collections.abc import Sequence
from dataclasses import dataclass

from cifar_lightning.leaderboard.board import ACCURACY, Board
from cifar_onnx.evaluation.templates import render

_WIDTH, _HEIGHT, _EDGE = 120, 28, 4  # of a drawing, in pixels, and what is left free around it


def page(board: Board, title: str) -> str:
    """The page.

    Args:
        board: what it shows.
        title: of the page.
    """
    ends = [(each.val_accuracy, each.val_accuracy_low, each.val_accuracy_high) for each in board.entries]
    return render(
        "cifar_lightning.leaderboard",
        "page.html.jinja",
        board=board,
        title=title,
        accuracy=ACCURACY,
        columns=[each for each in board.columns if each is not board.own],
        own=board.own,
        intervals=_scale([each for three in ends for each in three if each is not None]),
        curves=_scale([accuracy for each in board.entries for accuracy in each.curve]),
        width=_WIDTH,
        height=_HEIGHT,
    )


@dataclass(frozen=True)
class Scale:
    """Where accuracies lie in drawings, the same for all runs, so that these can be compared.

    Attributes:
        low: the accuracy at the left end, or at the bottom.
        high: that at the right end, or at the top.
    """

    low: float
    high: float

    def across(self, accuracy: float) -> float:
        """Pixels from the left."""
        return self._pixels(accuracy, _WIDTH)

    def line(self, accuracies: Sequence[float]) -> list[tuple[float, float]]:
        """Pixels from the left and from the top of accuracies that follow each other."""
        step = (_WIDTH - 2 * _EDGE) / max(len(accuracies) - 1, 1)
        return [
            (round(_EDGE + place * step, 1), _HEIGHT - self._pixels(accuracy, _HEIGHT))
            for place, accuracy in enumerate(accuracies)
        ]

    def _pixels(self, accuracy: float, size: int) -> float:
        share = (accuracy - self.low) / (self.high - self.low or 1)
        return round(_EDGE + (size - 2 * _EDGE) * share, 1)


def _scale(accuracies: Sequence[float]) -> Scale:
    return Scale(min(accuracies, default=0.0), max(accuracies, default=1.0))
