"""Metrics, of the pictures as they are and as they were drawn for the bootstrap, against scikit-learn."""

import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn import metrics

from cifar_onnx.evaluation import outcome as outcomes
from cifar_onnx.evaluation import ranking as rankings
from cifar_onnx.evaluation.bootstrap import Bootstrap, draw, estimate, shares
from cifar_onnx.evaluation.evaluation import by_class
from cifar_onnx.evaluation.metrics import (
    BINS,
    TOP,
    bins,
    calibration,
    calibration_interval,
    confusion,
    expected_calibration_error,
)
from cifar_onnx.evaluation.outcome import Floats, Outcome
from cifar_onnx.evaluation.ranking import ranking
from cifar_onnx.evaluation.reliability import reliability
from cifar_onnx.uncertainty import PredictionSets, Unknown


def outcome(count: int = 200, classes: int = 7, seed: int = 0, skill: float = 2.0) -> Outcome:
    """Answers that are right rather often."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=count)
    logits = generator.normal(size=(count, classes)) + skill * np.eye(classes)[labels]
    names = [str(number) for number in range(count)]
    return Outcome(
        tuple(f"class {k}" for k in range(classes)),
        names,
        labels,
        logits.astype(np.float32),
        np.zeros((count, 2, 2, 3), np.uint8),
    )


def without_a_class() -> Outcome:
    whole = outcome()
    return take(whole, np.flatnonzero(whole.labels != 3))


def of_one_class() -> Outcome:
    whole = outcome()
    return take(whole, np.flatnonzero(whole.labels == 3))


def with_ties() -> Outcome:
    whole = outcome(300, 6)
    return replace(whole, logits=np.round(whole.logits).clip(-1, 1))


def all_right_and_of_one_class() -> Outcome:
    return of_one_class_with(100.0)


def of_one_class_with(logit: float) -> Outcome:
    few = of_one_class()
    logits = np.zeros_like(few.logits)
    logits[:, 3] = logit
    return replace(few, logits=logits)


def take(whole: Outcome, which: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Outcome:
    return replace(
        whole,
        names=[whole.names[i] for i in which],
        labels=whole.labels[which],
        logits=whole.logits[which],
        pixels=whole.pixels[which],
    )


CASES: dict[str, Callable[[], Outcome]] = {
    "seven classes": outcome,
    "two classes": lambda: outcome(150, 2),
    "five classes": lambda: outcome(150, 5, skill=0.5),
    "a class is missing": without_a_class,
    "one class only": of_one_class,
    "one class only, all right": all_right_and_of_one_class,
    "ties": with_ties,
    "all the same": lambda: replace(outcome(), logits=np.zeros((200, 7), np.float32)),
    "sure and wrong": lambda: replace(outcome(), logits=1000 * np.eye(7, dtype=np.float32)[outcome(seed=1).labels]),
    "one picture": lambda: outcome(1),
    "two pictures": lambda: outcome(2),
}


def scores(whole: Outcome) -> dict[str, float]:
    """Every metric of the pictures as they are."""
    return {name: each.value for name, each in Bootstrap(whole, draw(len(whole.labels), 1)).estimates.items()}


def judged(whole: Outcome) -> dict[str, float]:
    """All metrics by scikit-learn, which has no calibration error, in the order in which people ask for them."""
    classes, present = np.arange(len(whole.classes)), np.unique(whole.labels)
    answers, guesses = (whole.labels, whole.probabilities), (whole.labels, whole.predictions)
    found = {"accuracy": metrics.accuracy_score(*guesses)}
    if len(classes) > TOP:
        found["top5_accuracy"] = metrics.top_k_accuracy_score(*answers, k=TOP, labels=classes)
    for average in ("macro", "micro", "weighted"):
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            *guesses, labels=present if average == "macro" else None, average=average, zero_division=0
        )
        found |= {f"precision_{average}": precision, f"recall_{average}": recall, f"f1_{average}": f1}
    found["balanced_accuracy"] = found["recall_macro"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A single label was found")  # it is 0 then
        found["matthews_correlation"] = metrics.matthews_corrcoef(*guesses)
    several = len(np.union1d(*guesses)) > 1
    found["cohen_kappa"] = metrics.cohen_kappa_score(*guesses) if several else np.nan
    for name, score in (("roc_auc", metrics.roc_auc_score), ("average_precision", metrics.average_precision_score)):
        of_classes = [score(whole.labels == k, whole.probabilities[:, k]) for k in present if len(present) > 1]
        found[name] = np.mean(of_classes or [np.nan])
    found["negative_log_likelihood"] = metrics.log_loss(*answers, labels=classes)
    found["brier_score"] = metrics.brier_score_loss(*answers, labels=classes, scale_by_half=False)
    return found


@pytest.mark.parametrize("case", CASES)
def test_metrics_equal_scikit_learns(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the parts that are worked on hold several pictures, the last one fewer, or less than one."""
    whole = CASES[case]()
    margins = np.diff(np.sort(whole.probabilities, axis=1)[:, -2:])[:, 0]
    error = expected_calibration_error(whole.confidences, whole.correct)
    expected = {**judged(whole), "expected_calibration_error": error}
    for cells in (1, 70, 1 << 18):
        monkeypatch.setattr(outcomes, "_CELLS", cells)
        again = replace(whole)
        found = scores(again)
        assert list(found) == list(expected)
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-13, nan_ok=True)
        assert np.array_equal(again.margins, margins)


def test_judging_takes_little_memory_beside_the_probabilities() -> None:
    """Of 5,000 classes and many pictures they are gigabytes."""
    pixels, strange = np.zeros((8000, 8, 8, 3), np.uint8), np.zeros((100, 250), np.float32)
    whole = replace(outcome(8000, 250), pixels=pixels, familiarity=np.ones(8000, np.float32))
    rules = PredictionSets("aps", 0.1, 0.8), Unknown("energy", 0.5)
    tracemalloc.start()
    try:
        size = whole.probabilities.nbytes
        _, softmax = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        assert min(scores(whole)["brier_score"], whole.margins.max()) > 0
        assert reliability(whole, 2.0, *rules, lambda _: (strange, strange[:, 0])).coverage.mean_size > 0
        _, all_of_it = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert softmax < 1.1 * size
    assert all_of_it < 2 * size


def test_resamples_are_ranked_in_parts_and_say_how_far_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draws = draw(200, 5)
    assert rankings.rankings(outcome(), draws, "of few classes")
    monkeypatch.setattr(rankings, "_MANY", 6)
    expected = rankings.rankings(outcome(), draws, "all at once")
    monkeypatch.setattr(rankings, "_CHUNK", 400)  # the draws of two resamples
    found = rankings.rankings(outcome(), draws, "two at once")
    assert np.allclose(found, expected, rtol=0, atol=1e-12)
    assert capsys.readouterr().err == "all at once (7)\ntwo at once (21)\n"


@pytest.mark.parametrize("case", CASES)
def test_what_is_vectorised_equals_scikit_learn_on_every_resample(case: str) -> None:
    whole = CASES[case]()
    draws = draw(len(whole.labels), 20, seed=1)
    resampled = Bootstrap(whole, draws).resampled
    for number, row in enumerate(draws):
        expected = judged(take(whole, np.repeat(np.arange(len(row)), row)))
        assert resampled.keys() == expected.keys()
        for name, value in expected.items():
            assert resampled[name][number] == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_a_ranking_with_ties_equals_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    values, positive = generator.integers(5, size=80) / 4, generator.random(80) < 0.3
    draws = draw(80, 50)
    areas, precisions = ranking(values, positive, draws.T.astype(np.int32))
    for row, area, precision in zip(draws, areas, precisions, strict=True):
        chosen = np.repeat(np.arange(80), row)
        assert area == pytest.approx(metrics.roc_auc_score(positive[chosen], values[chosen]), abs=1e-12)
        assert precision == pytest.approx(metrics.average_precision_score(positive[chosen], values[chosen]), abs=1e-12)


def test_rankings_take_no_more_cpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()

    def slow(*words: Any) -> tuple[Floats, Floats]:
        threads.add(threading.get_ident())
        time.sleep(0.001)
        return ranking(*words)

    monkeypatch.setattr(rankings, "usable_cpus", lambda: 1)
    monkeypatch.setattr(rankings, "ranking", slow)
    assert len(Bootstrap(outcome(), draw(200, 2)).resampled["roc_auc"]) == 2
    assert len(threads) == 1


def test_a_single_class_has_no_ranking() -> None:
    """Whatever is answered, all that could be ranked first is of it: its average precision would be 1."""
    found = Bootstrap(of_one_class(), draw(len(of_one_class().labels), 5)).estimates
    for name in ("roc_auc", "average_precision"):
        assert np.isnan([found[name].value, found[name].low, found[name].high]).all()


def test_known_values() -> None:
    """Four pictures of two classes, worked out by hand."""
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
    few = Outcome(
        ("a", "b"),
        list("1234"),
        np.array([0, 0, 1, 1]),
        np.log(probabilities).astype(np.float32),
        np.zeros((4, 1, 1, 3), np.uint8),
    )
    found = scores(few)
    assert found["accuracy"] == found["f1_micro"] == 0.75
    assert found["recall_macro"] == found["balanced_accuracy"] == 0.75
    assert found["precision_macro"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["negative_log_likelihood"] == pytest.approx(-np.log([0.9, 0.6, 0.7, 0.2]).mean(), abs=1e-6)
    assert found["brier_score"] == pytest.approx(2 * np.square([0.1, 0.4, 0.3, 0.8]).mean(), abs=1e-6)
    assert found["expected_calibration_error"] == pytest.approx((0.1 + 0.4 + 0.3 + 0.8) / 4, abs=1e-6)
    assert found["roc_auc"] == 0.75
    assert "top5_accuracy" not in found


def test_means_over_classes_leave_out_those_without_pictures() -> None:
    """Of two of seven classes: what is taken for one of the others has no part of its own."""
    few = take(outcome(), np.flatnonzero(outcome().labels < 2))
    found, classes = scores(few), by_class(few)[:2]
    assert set(few.predictions) > {0, 1}
    for name in ("precision", "recall", "f1"):
        assert found[f"{name}_macro"] == pytest.approx(np.mean([getattr(each, name) for each in classes]))


def test_draws_are_resamples_that_the_seed_decides() -> None:
    draws = draw(500, 30)
    assert (draws.sum(axis=1) == 500).all()
    assert np.array_equal(draws, draw(500, 30))
    assert not np.array_equal(draws, draw(500, 30, seed=1))
    assert draws.mean(axis=0).std() < 0.3


@pytest.mark.parametrize("sureness", [1.0, 1.3])
def test_the_interval_of_the_calibration_error_holds_the_true_one(sureness: float) -> None:
    def sample(count: int, seed: int) -> Outcome:
        generator = np.random.default_rng(seed)
        logits = generator.normal(0, 2, (count, 4))
        labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)  # drawn by their softmax
        answers = (sureness * logits).astype(np.float32)
        return Outcome(tuple("abcd"), [""] * count, labels, answers, np.zeros((count, 1, 1, 3), np.uint8))

    many, held = sample(100_000, 0), 0
    true = expected_calibration_error(many.confidences, many.correct)
    for seed in range(1, 21):
        each = sample(300, seed)
        low, high = calibration_interval(each.confidences, each.correct)
        held += low <= true <= high
        found = expected_calibration_error(each.confidences, each.correct)
        assert low <= found <= high  # also where chance makes most of it
    assert held >= 17
    error = Bootstrap(each, draw(300, 2)).estimates["expected_calibration_error"]
    assert (error.low, error.value, error.high) == (low, found, high)


@pytest.mark.parametrize(("confidence", "accuracy"), [(0.99, 0.99), (0.999, 0.999), (0.99, 0.97), (1.0, 0.95)])
def test_the_interval_of_the_calibration_error_holds_it_where_mistakes_are_few(
    confidence: float, accuracy: float
) -> None:
    """Most samples show no mistake at all."""
    generator, sure = np.random.default_rng(0), np.full(30, confidence)
    found = [calibration_interval(sure, generator.random(30) < accuracy) for _ in range(60)]
    assert sum(low <= confidence - accuracy + 1e-9 <= high + 2e-9 for low, high in found) >= 54


def test_a_calibration_error_smaller_than_chance_makes_it_is_not_certain() -> None:
    """Right as often as it says, to the picture, where chance would miss it by one or two points."""
    confidences, correct = np.repeat(np.arange(1, 11) / 10 - 0.05, 100), np.tile(np.arange(100), 10)
    correct = correct < 100 * confidences - 1e-6
    assert expected_calibration_error(confidences, correct) == pytest.approx(0)
    low, high = calibration_interval(confidences, correct)
    assert low == pytest.approx(0)
    assert 0.005 < high < 0.05


def test_an_interval_holds_what_many_samples_show() -> None:
    """The interval of one sample is as wide as the spread of the figure over samples."""
    once = np.ones((1, 400), np.uint8)
    found = [Bootstrap(outcome(400, seed=seed), once).resampled for seed in range(200)]
    estimates = Bootstrap(outcome(400), draw(400, 500)).estimates
    for name in ("accuracy", "f1_macro", "roc_auc", "negative_log_likelihood", "brier_score"):
        one = estimates[name]
        spread = 2 * 1.96 * float(np.std([each[name][0] for each in found]))
        assert one.low < one.value < one.high
        assert 0.75 < (one.high - one.low) / spread < 1.35


def test_an_interval_holds_its_figure_and_knows_ties_and_what_is_not_defined() -> None:
    above = estimate(0.0, np.linspace(0.1, 1, 100))
    assert (above.low, above.value) == (0, 0)
    ties = estimate(0.5, np.repeat([0, 0.5, 1], [25, 50, 25]))
    assert (ties.low, ties.high) == (0, 1)
    some = estimate(0.5, np.array([0.4, np.nan, 0.5, 0.6]))
    assert some.low <= 0.5 <= some.high


def test_an_interval_is_no_narrower_where_resamples_are_biased() -> None:
    """As of average precision, of 100 classes of five pictures each: nearly all resamples are better."""
    resampled = np.random.default_rng(0).normal(0.75, 0.02, 500)
    found = estimate(0.72, resampled)
    assert (found.low, found.high) == pytest.approx((0.65, 0.73), abs=0.006)


@pytest.mark.parametrize(("right", "low", "high"), [(57, 0.8630, 0.9829), (36, 0.4737, 0.7143), (3, 0.0171, 0.1370)])
def test_an_interval_of_a_share_of_few_is_nearly_that_of_wilson(right: int, low: float, high: float) -> None:
    found = estimate(right / 60, np.random.default_rng(0).binomial(60, right / 60, 2000) / 60)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_of_what_is_always_right_resamples_know_too_little() -> None:
    """Intervals are those of Wilson 1927."""
    labels = np.arange(24) % 8
    logits = (9 * np.eye(8)[labels]).astype(np.float32)
    whole = Outcome(tuple("abcdefgh"), [""] * 24, labels, logits, np.zeros((24, 1, 1, 3), np.uint8))
    found = Bootstrap(whole, draw(24, 20)).estimates
    for name in ("accuracy", "top5_accuracy", "precision_micro", "recall_micro", "f1_micro"):
        assert found[name].low == pytest.approx(24 / (24 + 1.96**2), abs=1e-3)


def test_of_easy_pictures_resamples_know_too_little_of_means_over_classes() -> None:
    """Of easy pictures, of which one class is rare, most samples show no mistake."""

    def sample(count: int, seed: int) -> Outcome:
        generator = np.random.default_rng(seed)
        labels = generator.choice(3, size=count, p=[0.6, 0.3, 0.1])
        logits = generator.normal(size=(count, 3)) + 4.5 * np.eye(3)[labels]
        return Outcome(tuple("abc"), [""] * count, labels, logits, np.zeros((count, 1, 1, 3), np.uint8))

    true, draws = scores(sample(10_000, 0)), draw(60, 20)
    samples = [Bootstrap(sample(60, seed), draws) for seed in range(1, 11)]
    assert sum(each.outcome.correct.all() for each in samples) > 5
    for name in true.keys() - {"negative_log_likelihood", "brier_score", "expected_calibration_error"}:
        found = [each.estimates[name] for each in samples]
        assert sum(each.low <= true[name] <= each.high for each in found) >= 9, name
        assert all(each.low <= each.value <= each.high for each in found)


def test_shares_of_groups() -> None:
    """Their intervals are the solutions of (p - share)^2 = 1.96^2 p (1 - p) / n."""
    places = np.arange(117)
    groups = np.column_stack([places < 17, places >= 17, places < 0])
    *found, nobody = shares((places > 0) & (places < 57), groups)
    for each, right, count in zip(found, (16, 40), (17, 100), strict=True):
        share, square = right / count, 1.959964**2 / count
        high, low = np.roots([1 + square, -2 * share - square, share**2])
        assert (each.value, each.low, each.high) == pytest.approx((share, low, high), abs=1e-6)
    assert np.isnan([nobody.value, nobody.low, nobody.high]).all()


def test_calibration_of_one_who_knows_how_often_he_is_right() -> None:
    generator = np.random.default_rng(0)
    confidences = generator.uniform(0.5, 1, 20_000)
    logits = np.log(np.column_stack([confidences, 1 - confidences])).astype(np.float32)
    labels = (generator.random(20_000) > confidences).astype(np.int64)
    honest = Outcome(("a", "b"), [""] * 20_000, labels, logits, np.zeros((20_000, 1, 1, 3), np.uint8))
    known = calibration(honest.confidences, honest.correct)
    assert known.counts.sum() == 20_000
    assert np.isnan(known.accuracies[: BINS // 2]).all()
    assert scores(honest)["expected_calibration_error"] < 0.015
    assert scores(replace(honest, logits=3 * logits))["expected_calibration_error"] > 0.1


def test_classes_with_what_they_are_taken_for() -> None:
    whole = take(outcome(), np.flatnonzero(outcome().labels != 3))
    classes = by_class(whole)
    table = confusion(whole)
    assert table.sum() == len(whole.labels)
    assert [each.support for each in classes] == table.sum(axis=1).tolist()
    assert (classes[3].support, classes[3].recall, classes[3].taken_for) == (0, 0.0, "")
    wrong = np.where(np.eye(7, dtype=bool), 0, table)
    assert classes[0].taken_for == whole.classes[int(wrong[0].argmax())]
    assert classes[0].recall_interval.low < classes[0].recall < classes[0].recall_interval.high


def test_bins_have_their_upper_edge() -> None:
    assert bins(np.array([0.0, 1 / BINS, 1 / BINS + 1e-9, 1.0])).tolist() == [0, 0, 1, BINS - 1]
