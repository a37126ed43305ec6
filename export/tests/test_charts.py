"""What the charts of a report show is what was measured."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from cifar_onnx.evaluation import report
from cifar_onnx.evaluation.axis import ticks
from cifar_onnx.evaluation.bootstrap import Bootstrap, draw
from cifar_onnx.evaluation.charts import Charts, charts
from cifar_onnx.evaluation.evaluation import Evaluation, by_class
from cifar_onnx.evaluation.outcome import Outcome


def drawn(classes: int, count: int = 300) -> tuple[Outcome, Charts]:
    generator = np.random.default_rng(0)
    labels = np.arange(count) % classes
    return drawn_of(labels, generator.normal(size=(count, classes)) + 2 * np.eye(classes)[labels])


def drawn_of(
    labels: "np.ndarray[tuple[int], np.dtype[np.int64]]", logits: "np.ndarray[tuple[int, int], np.dtype[np.float64]]"
) -> tuple[Outcome, Charts]:
    count, classes = logits.shape
    names, pixels = list(map(str, range(count))), np.zeros((count, 4, 4, 3), np.uint8)
    outcome = Outcome(tuple(map(str, range(classes))), names, labels, logits.astype(np.float32), pixels)
    return outcome, charts(outcome, by_class(outcome))


def test_cells_are_the_pictures_and_shades_the_shares_of_their_row() -> None:
    outcome, found = drawn(4)
    assert found.cells
    assert found.shades is None
    for label, row in enumerate(found.cells):
        of_class = outcome.labels == label
        for prediction, (count, shade) in enumerate(row):
            assert count == (of_class & (outcome.predictions == prediction)).sum()
            assert shade == pytest.approx(np.sqrt(count / of_class.sum()))


def test_many_classes_are_shown_as_a_picture() -> None:
    outcome, found = drawn(25)
    assert found.cells is None
    assert found.shades is not None
    assert (found.shades.shape, found.block) == ((25, 25, 4), 1)
    hits = np.array([outcome.correct[outcome.labels == k].mean() for k in range(25)])
    assert np.allclose(found.shades[..., 3].diagonal(), 255 * np.sqrt(hits), atol=0.5)


def test_of_very_many_classes_a_pixel_is_the_darkest_of_a_block_of_cells(tmp_path: Path) -> None:
    """The last blocks may hold fewer: 1,103 = 367 x 3 + 2."""
    classes, labels = 1103, np.arange(1103)
    predictions = np.where(labels == 1102, 0, np.where(labels % 5, labels, (labels + 1) % classes))
    outcome, found = drawn_of(labels, 9.0 * np.eye(classes)[predictions])
    expected = np.zeros((368, 368), np.uint8)
    expected[labels // 3, predictions // 3] = 255
    assert found.block == 3
    assert found.shades is not None
    assert np.array_equal(found.shades[..., 3], expected)
    page = tmp_path / "page.html"
    evaluation = Evaluation("model", {}, Bootstrap(outcome, draw(classes, 2)))
    report.write(evaluation, page, lambda pixels, k: np.zeros((4, 4), np.float32), True)
    text = page.read_text()
    assert "of 1103 classes, each pixel the darkest of 3 x 3 cells: confusion.csv has" in text
    assert "of 3 x 3 cells; rows and columns are in the order of confusion.csv, which has the numbers.</p>" in text
    outcome, _ = drawn(4)  # whose cells have names and numbers
    evaluation = Evaluation("model", {}, Bootstrap(outcome, draw(len(outcome.labels), 2)))
    report.write(evaluation, page, lambda pixels, k: np.zeros((4, 4), np.float32), True)
    assert "in the order of confusion.csv" not in page.read_text()


def test_classes_are_those_of_lowest_recall_the_worst_first() -> None:
    outcome, found = drawn(50, 1000)
    recalls = sorted(outcome.correct[outcome.labels == k].mean() for k in range(50))
    assert [each.recall for each in found.classes] == pytest.approx(recalls[:40])


def test_a_class_without_pictures_is_not_the_worst() -> None:
    _, found = drawn_of(np.zeros(4, np.int64), np.eye(2)[[0, 0, 0, 1]])
    assert [each.name for each in found.classes] == ["0"]


def test_bins_hold_all_pictures() -> None:
    outcome, found = drawn(4)
    assert sum(each.share for each in found.bins) == pytest.approx(1)
    assert max(each.share for each in found.bins) <= found.most
    known = [each for each in found.bins if each.share]
    assert sum(each.share * each.accuracy for each in known) == pytest.approx(outcome.correct.mean())
    assert all(each.low <= each.confidence <= each.high for each in known)


def test_the_curve_ends_with_the_accuracy_of_all() -> None:
    outcome, found = drawn(4)
    assert found.coverage.points[-1] == (1.0, pytest.approx(outcome.correct.mean()))
    surest = np.argsort(-outcome.confidences)[:30]
    at_a_tenth = next(y for x, y in found.coverage.points if x >= 0.1)
    assert at_a_tenth == pytest.approx(outcome.correct[surest].mean())
    assert found.coverage.ticks[0] <= min(y for _, y in found.coverage.points)


def test_whole_per_cents_have_no_digits_behind_the_point() -> None:
    _, found = drawn_of(np.ones(400, np.int64), np.eye(2)[np.arange(400) % 2])
    assert found.coverage.digits == 0


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 0.26), (0.698, 1.0), (0.9991, 1.0), (1.0, 1.0), (0.0, 1.0), (0.35, 0.4), (1.2, 3.7)]
)
def test_ticks_are_round_and_hold_what_is_drawn(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert found[0] <= low + 1e-9
    assert high - 1e-9 <= found[-1]
    step = found[1] - found[0]
    assert np.allclose(np.diff(found), step)
    assert round(step / 10 ** np.floor(np.log10(step) + 1e-9), 6) in (1, 2, 5)


def test_ticks_of_what_is_counted_are_whole() -> None:
    assert ticks(1, 1, 1) == [0, 1]
    assert ticks(1, 3, 1) == [1, 2, 3]
    assert ticks(1, 50, 1) == [0, 10, 20, 30, 40, 50]


def test_the_page_draws_them_in_their_places(tmp_path: Path) -> None:
    """Drawings are 640 wide: 0 to 1 are 64 to 612 across, and 310 to 10, or 270 to 10, upwards."""
    outcome, found = drawn(4)
    evaluation = Evaluation("model", {}, Bootstrap(outcome, draw(300, 20)))
    report.write(evaluation, tmp_path / "page.html", lambda pixels, k: np.zeros((4, 4), np.float32), True)
    text = (tmp_path / "page.html").read_text()

    cells = re.findall(r"<td style=[^>]*>([\d,]*)</td>", text)
    assert [int(cell or 0) for cell in cells] == [count for row in found.cells or [] for count, _ in row]
    widths = re.findall(r'class="bar" style="width: ([\d.]+)%', text)
    assert [float(width) for width in widths] == pytest.approx([100 * each.recall for each in found.classes], abs=0.05)
    marks = re.findall(r'class="mark" style="left: ([\d.]+)%', text)
    assert [float(left) for left in marks] == pytest.approx([100 * each.precision for each in found.classes], abs=0.05)

    (points,) = re.findall(r'<polyline points="([^"]*)"', text)
    x, y = map(float, points.split()[-1].split(","))
    low, high = found.coverage.ticks[0], found.coverage.ticks[-1]
    assert x == 612
    assert (310 - y) / 300 * (high - low) + low == pytest.approx(outcome.correct.mean(), abs=1e-3)

    known = [each for each in found.bins if each.share]
    rects = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="([\d.]+)" class="bar"/>', text)
    assert len(rects) == len(known)
    for (left, top, height), each in zip(rects, known, strict=True):
        assert (float(left) - 65.5) / 548 == pytest.approx(each.low, abs=1e-3)
        assert float(top) + float(height) == pytest.approx(270, abs=0.1)
        assert float(height) / 260 == pytest.approx(each.accuracy, abs=1e-3)
    dots = re.findall(r'<circle cx="([\d.]+)"', text)
    assert [(float(dot) - 64) / 548 for dot in dots] == pytest.approx([each.confidence for each in known], abs=1e-3)


@pytest.mark.parametrize(("wrong", "digits"), [(100, 0), (3, 1)])
def test_the_title_of_an_axis_stands_beside_its_numbers(tmp_path: Path, wrong: int, digits: int) -> None:
    count = 300
    labels = np.arange(count) % 4
    missed = np.arange(count) < wrong  # and not sure of it
    logits = ((5 - 2 * missed[:, None]) * np.eye(4)[(labels + missed) % 4]).astype(np.float32)
    outcome = Outcome(tuple("abcd"), list(map(str, range(count))), labels, logits, np.zeros((count, 4, 4, 3), np.uint8))
    evaluation = Evaluation("model", {}, Bootstrap(outcome, draw(count, 20)))
    assert charts(outcome, evaluation.classes).coverage.digits == digits
    report.write(evaluation, tmp_path / "page.html", lambda pixels, k: np.zeros((4, 4), np.float32), True)
    text = (tmp_path / "page.html").read_text()
    (edge, drawing) = re.findall(
        r'<svg viewBox="(-?\d+) [^>]*aria-label="accuracy against coverage">(.*?)</svg>', text, re.S
    )[0]
    place = float(re.findall(r"translate\((-?\d+) ", drawing)[0])
    longest = max(map(len, re.findall(r'text-anchor="end">([^<]*)<', drawing)))
    assert float(edge) + 7 <= place <= 58 - 8 * longest - 3  # letters of 14 pixels are 8 wide at most
