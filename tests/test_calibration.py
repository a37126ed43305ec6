"""Temperature, prediction sets and unknown pictures, as a validation set decides them."""

import json
import re
import tracemalloc
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torch import nn

from cifar_lightning import temperature
from cifar_lightning.calibration import calibrate, conformal_threshold, fit_temperature, unknown_threshold
from cifar_lightning.data.images import Images
from cifar_lightning.familiarity import (
    Contrasts,
    Energy,
    MaxLogit,
    Scored,
    Watched,
    candidates,
    held_out,
    outputs_of,
    values,
)
from cifar_lightning.nets import CNN, Normalize, SpeedNet
from cifar_onnx import Classifier, InputError
from cifar_onnx.evaluation.metrics import expected_calibration_error
from cifar_onnx.uncertainty import PredictionSets, nonconformity
from tests.conftest import Run


def answers(count: int, sureness: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a net of ten classes that is `sureness` times as sure as it should be, and labels."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, 10)) * 2
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)  # drawn by their softmax
    return (sureness * logits).astype(np.float32), labels


@pytest.mark.parametrize("sureness", [0.3, 3])
def test_the_temperature_is_that_of_the_formula(monkeypatch: pytest.MonkeyPatch, sureness: float) -> None:
    monkeypatch.setattr(temperature, "_ROWS", 77)
    logits, labels = answers(400, sureness, 0)
    targets = np.full(logits.shape, 1 / 402 / 9)
    targets[np.arange(400), labels] = 1 - 1 / 402

    def loss(logarithm: float) -> float:
        likelihoods = log_softmax(logits.astype(float) / np.exp(logarithm), axis=1)
        return float(-(targets * likelihoods).sum(axis=1).mean())

    found = minimize_scalar(loss, bounds=np.log([0.05, 20]), method="bounded", options={"xatol": 1e-8})
    assert fit_temperature(logits, labels) == pytest.approx(np.exp(found.x), rel=2e-4)
    own = log_softmax(logits.astype(float) / 2, axis=1)[np.arange(400), labels]
    assert temperature.quality(logits, labels, 2).negative_log_likelihood == pytest.approx(-own.mean(), rel=1e-12)


@pytest.mark.parametrize("mask", [-1e4, -np.inf])
def test_a_class_that_is_masked_changes_nothing(mask: float) -> None:
    logits, labels = answers(400, 2, 0)
    masked = np.insert(logits, 0, np.float32(mask), axis=1)
    assert fit_temperature(masked, labels + 1) == pytest.approx(fit_temperature(logits, labels), rel=1e-3)


def test_many_classes_take_little_memory() -> None:
    logits = np.random.default_rng(0).normal(size=(10_000, 100)).astype(np.float32)
    labels = np.arange(10_000) % 100
    fit_temperature(logits[:9], labels[:9])
    tracemalloc.start()
    fit_temperature(logits, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * logits.size


def test_contrasts_are_likelihoods_by_principal_directions() -> None:
    generator = np.random.default_rng(0)
    known = np.exp(generator.normal(size=(300, 90)) @ generator.normal(size=(90, 90)) / 9).astype(np.float32)
    score = Contrasts(known)
    x = (np.log(known + score.floor.numpy().astype(float)) - score.mean.numpy()) / score.scale.numpy()
    _, singular, directions = np.linalg.svd(x, full_matrices=False)
    variances = singular**2 / 300
    variances[32:] = max(variances[32:].mean(), 0.01)
    expected = -((x @ directions.T) ** 2 / variances).mean(axis=1)
    assert np.allclose(values(score, known[:, :2], known), expected, rtol=1e-4)


def test_a_variant_that_answers_alike_knows_the_same_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose familiarities are of a score that was learnt from the pictures themselves."""
    monkeypatch.setattr("cifar_lightning.calibration.candidates", lambda contrasts: candidates(contrasts)[-1:])
    torch.manual_seed(0)
    net = nn.Sequential(Normalize(), CNN(3, widths=(8, 8), hidden=8)).eval()
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (80, 32, 32, 3), dtype=np.uint8)
    known, classes = Images(pixels, generator.integers(0, 3, 80), [""] * 80), ["a", "b", "c"]
    calibration = calibrate(net, known, classes)
    assert calibration.unknown.score == "contrasts"
    again = calibration.again(partial(outputs_of, Scored(net, calibration.score)), known, classes)
    assert again.unknown.threshold == pytest.approx(calibration.unknown.threshold, rel=1e-5)
    assert [each.rejected for each in again.rejections] == [each.rejected for each in calibration.rejections]


def test_answers_that_are_not_finite_are_counted() -> None:
    class Relative(nn.Module):
        """To the brightest pixel, which is 0 in a black picture."""

        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x / x.amax((1, 2, 3), keepdim=True))  # type: ignore[no-any-return]

    pixels = np.random.default_rng(0).integers(1, 256, (60, 8, 8, 3), dtype=np.uint8)
    pixels[[7, 9]] = 0
    known = Images(pixels, np.arange(60) % 2, [f"{number}.png" for number in range(60)])
    for layers in ([], [nn.Conv2d(3, 3, 1)]):
        net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(192, 2))
        with pytest.raises(InputError, match=r"for 2 of 60 validation images are not finite: .* is 7\.png$"):
            calibrate(Relative(net).eval(), known, ["a", "b"])


class TestTemperature:
    @pytest.mark.parametrize("sureness", [0.5, 1.0, 3.0])
    def test_it_is_how_much_too_sure_the_net_is(self, sureness: float) -> None:
        assert fit_temperature(*answers(20_000, sureness, 0)) == pytest.approx(sureness, rel=0.05)

    def test_labels_are_never_less_likely_and_none_changes(self) -> None:
        for seed in range(50):
            logits, labels = answers(100, np.random.default_rng(seed).uniform(0.7, 1.5), seed)
            temperature = fit_temperature(logits, labels)
            losses, best = zip(*(self.quality(logits / t, labels)[::2] for t in (1, temperature)), strict=True)
            assert losses[1] <= losses[0]
            assert np.array_equal(*best)

    def test_a_net_that_is_too_sure_is_made_less_sure_by_few_pictures(self) -> None:
        """Also where on these, by chance, the calibration error is then more."""
        found = []
        for seed in range(20):
            logits, labels = answers(50, 1.5, seed)
            temperature = fit_temperature(logits, labels)
            assert temperature > 1.1
            found.append([self.quality(logits / t, labels)[1] for t in (1, temperature)])
        assert any(after > before for before, after in found)

    def quality(self, logits: np.ndarray, labels: np.ndarray) -> tuple[float, float, np.ndarray]:
        likelihoods, best = log_softmax(logits.astype(np.float64), axis=1), logits.argmax(axis=1)
        loss = -likelihoods[np.arange(len(labels)), labels].mean()
        return loss, expected_calibration_error(np.exp(likelihoods.max(axis=1)), best == labels), best

    def test_of_a_single_class_there_is_nothing_to_calibrate(self) -> None:
        assert fit_temperature(np.ones((5, 1), np.float32), np.zeros(5, np.int64)) == 1

    def test_a_net_without_a_mistake_is_not_made_sure_beyond_measure(self) -> None:
        labels = np.arange(200) % 4
        logits = (3 * np.eye(4)[labels]).astype(np.float32)
        temperature = fit_temperature(logits, labels)
        assert 0.2 < temperature < 1
        assert softmax(logits / temperature, axis=1).max() < 1 - 1e-4


class TestSets:
    @pytest.mark.parametrize("method", ["lac", "aps"])
    @pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
    def test_they_cover_what_they_promise_on_fresh_data(self, method: str, alpha: float) -> None:
        """Over 50 seeds: their mean within what chance allows, and each within its own interval, 99.9 %."""
        known, fresh, covered = 1000, 2000, []
        for seed in range(50):
            (logits, labels), (new, truth) = answers(known, 2, seed), answers(fresh, 2, 1000 + seed)
            own = nonconformity(softmax(logits, axis=1), method)[np.arange(known), labels]  # type: ignore[arg-type]
            rule = PredictionSets(method, alpha, conformal_threshold(own, alpha))  # type: ignore[arg-type]
            covered.append(rule.of(softmax(new, axis=1))[np.arange(fresh), truth].mean())
        spread = np.sqrt(alpha * (1 - alpha) * (1 / known + 1 / fresh))
        assert abs(np.mean(covered) - (1 - alpha)) < 3.3 * spread / np.sqrt(50) + 1 / known
        assert np.abs(np.array(covered) - (1 - alpha)).max() < 4 * spread

    def test_by_sums_the_surest_pictures_have_one_label(self) -> None:
        logits, labels = answers(2000, 1, 0)
        probabilities = softmax(logits, axis=1)
        own = nonconformity(probabilities, "aps")[np.arange(2000), labels]
        sizes = PredictionSets("aps", 0.1, conformal_threshold(own, 0.1)).of(probabilities).sum(axis=1)
        sure = probabilities.max(axis=1) > 0.95
        assert sure.sum() > 10
        assert (sizes[sure] == 1).all()
        assert sizes.min() == 1

    def test_too_few_pictures_let_every_label_in(self) -> None:
        assert conformal_threshold(np.array([0.1, 0.2, 0.3]), 0.1) == 1.0
        assert conformal_threshold(np.linspace(0.01, 0.09, 9), 0.1) == pytest.approx(0.09, abs=2e-6)

    def test_probabilities_of_single_precision_do_not_fall_out_by_rounding(self) -> None:
        """A hundredth is less than 0.01 there."""
        rule = PredictionSets("lac", 0.1, conformal_threshold(np.full(50, 0.99), 0.1))
        assert rule.of(np.full((1, 100), 0.01, np.float32)).all()

    def test_a_share_lies_between_0_and_1(self) -> None:
        pictures = Images(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int64), [""])
        with pytest.raises(InputError, match="alpha is 1: the share of sets without the right label lies between"):
            calibrate(CNN(2, widths=(4,), hidden=4), pictures, ["a", "b"], alpha=1)


class TestUnknown:
    @pytest.mark.parametrize("count", [1, 19, 20, 100, 179])
    def test_it_refuses_a_twentieth_of_the_known_at_most(self, count: int) -> None:
        scores = np.random.default_rng(count).normal(size=count).astype(np.float32)
        assert (scores < unknown_threshold(scores)).sum() <= 0.05 * count

    @pytest.mark.parametrize("count", [19, 20, 38, 39, 100])
    def test_nor_more_of_new_ones_like_them(self, count: int) -> None:
        """Of scores between 0 and 1 alike, the share that is below a threshold is the threshold."""
        scores = np.random.default_rng(0).random((2000, count), np.float32)
        assert np.mean([unknown_threshold(row) for row in scores]) == pytest.approx(
            (count + 1) // 20 / (count + 1), abs=3e-3
        )

    @pytest.mark.parametrize("worst", [np.nan, -np.inf])
    def test_a_familiarity_that_overflows_is_said(self, worst: float) -> None:
        scores = np.linspace(0, 1, 40, dtype=np.float32)
        scores[7] = worst  # the second of the least is the threshold
        assert unknown_threshold(scores) == 0
        scores[8] = worst
        with pytest.raises(InputError, match=r"familiarity of 2 or more of 40 validation images is -inf: the net over"):
            unknown_threshold(scores)

    @pytest.mark.parametrize(("count", "share"), [(10, "0.0%"), (39, "2.6%")])
    def test_the_share_of_the_validation_images_is_measured(self, count: int, share: str) -> None:
        torch.manual_seed(0)
        images = np.random.default_rng(0).integers(256, size=(count, 8, 8, 3), dtype=np.uint8)
        known = Images(images, np.arange(count) % 2, [""] * count)
        net = nn.Sequential(Normalize(), nn.Flatten(), nn.Linear(192, 2))
        assert f"): {share} of these images, " in str(calibrate(net, known, ["a", "b"]))

    def test_energy_and_the_largest_logit(self) -> None:
        logits = torch.tensor([[1.0, 2.0], [0.0, -3.0]])
        assert torch.allclose(Energy()(logits, logits), logits.exp().sum(1).log())
        assert MaxLogit()(logits, logits).tolist() == [2, 0]

    def test_contrasts_are_those_of_what_convolutions_are_given(self) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(80, 2)).eval()
        pixels = torch.randn(6, 3, 8, 8)
        logits, contrasts = Watched(net)(pixels)
        expected = [each.flatten(2).std(2, correction=0) for each in (pixels, net[:2](pixels))]
        assert torch.equal(logits, net(pixels))
        assert torch.allclose(contrasts, torch.cat(expected, 1))
        assert not net[0]._forward_pre_hooks

    def test_in_half_precision_the_strangest_pictures_stay_strange(self) -> None:
        """Squares beyond the largest number of fp16, times weights below 0, would make them the most familiar."""
        contrasts = np.random.default_rng(0).lognormal(size=(200, 600)).astype(np.float32)
        score, strange = Contrasts(contrasts), np.full((1, 600), 1e30, np.float32)
        expected = values(score, strange, strange)
        with torch.autocast("cpu", torch.float16):
            assert values(score, strange, strange) == expected
        assert expected < values(score, contrasts, contrasts).min()

    def test_a_net_of_several_views_is_watched_in_the_first(self) -> None:
        net = SpeedNet(3, (8, 8), views=2).eval()
        net.whitening.fit(torch.randn(8, 3, 32, 32))
        pixels = torch.randn(2, 3, 32, 32)
        net.views = 1
        one = Watched(net)(pixels)[1]
        net.views = 2
        assert torch.equal(Watched(net)(pixels)[1], one)

    def test_a_net_without_convolutions_has_the_other_scores(self) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
        contrasts = Watched(net)(torch.randn(50, 3, 2, 2))[1].detach()
        assert contrasts.shape == (50, 0)
        assert [score.name for score in candidates(contrasts.numpy())] == ["energy", "max_logit"]

    def test_rounding_of_silent_channels_is_not_looked_at_but_what_they_say_is(self) -> None:
        """Such as those for colours, of a net that knows grey pictures only."""
        generator = np.random.default_rng(0)
        contrasts = generator.lognormal(size=(200, 8)).astype(np.float32)
        contrasts[:, 6:] = generator.uniform(0, 1e-6, (200, 2))
        again = contrasts.copy()
        again[:, 6:] = generator.uniform(0, 1e-6, (200, 2))
        colourful = contrasts.copy()
        colourful[:, 6:] = 1
        score, logits = Contrasts(contrasts), np.zeros((200, 3), np.float32)
        usual, other, strange = (values(score, logits, each) for each in (contrasts, again, colourful))
        assert np.abs(usual - other).max() < 1e-4
        assert strange.max() < usual.min()

    def test_rounding_of_channels_that_hardly_vary_is_not_looked_at(self) -> None:
        """Such as the last of a deep net whose batch statistics are not those of its weights yet."""
        generator = np.random.default_rng(0)
        contrasts = generator.lognormal(size=(200, 8)).astype(np.float32)
        contrasts[:, 4:] = 1 + 1e-5 * generator.normal(size=(200, 4))
        again = contrasts.copy()
        again[:, 4:] += 1e-5
        score, logits = Contrasts(contrasts), np.zeros((200, 3), np.float32)
        assert np.abs(values(score, logits, again) - values(score, logits, contrasts)).max() < 1e-3

    def test_few_pictures_teach_no_distribution(self) -> None:
        contrasts = np.random.default_rng(0).lognormal(size=(19, 6)).astype(np.float32)
        assert [score.name for score in candidates(contrasts)] == ["energy", "max_logit", "contrasts"]
        assert [score.name for score in candidates(contrasts[1:])] == ["energy", "max_logit"]

    def test_the_likelihood_is_that_of_the_gaussian(self) -> None:
        """With all principal directions it is the Mahalanobis distance."""
        generator = np.random.default_rng(0)
        contrasts = np.exp(generator.normal(size=(500, 6)) @ generator.normal(size=(6, 6))).astype(np.float32)
        score = Contrasts(contrasts)
        x = np.log(contrasts + 0.01 * contrasts.mean(axis=0) + 1e-6)
        x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-3)
        covariance = x.T @ x / len(x)
        power, directions = np.linalg.eigh(covariance)
        rest = power[:-3].mean()  # half of the directions are told apart
        inverse = directions @ np.diag([*[1 / rest] * 3, *1 / power[-3:]]) @ directions.T
        expected = -np.einsum("ij,jk,ik->i", x, inverse, x) / 6
        assert np.allclose(values(score, contrasts, contrasts), expected, rtol=1e-3)

    def test_pictures_are_scored_by_what_was_learnt_from_others(self) -> None:
        contrasts = np.random.default_rng(0).lognormal(size=(60, 20)).astype(np.float32)
        own = held_out(Contrasts(contrasts), contrasts, contrasts)
        assert own.mean() < values(Contrasts(contrasts), contrasts, contrasts).mean()
        first = np.arange(60) % 5 == 0
        expected = values(Contrasts(contrasts[~first]), contrasts[first], contrasts[first])
        assert np.array_equal(own[first], expected)

    def test_the_graph_gets_what_it_needs_only(self) -> None:
        net = CNN(2, widths=(4,), hidden=4).eval()
        scored = Scored(net, Energy())
        assert scored.model is net
        logits, familiarity = scored(torch.zeros(3, 3, 32, 32))
        assert (logits.shape, familiarity.shape) == ((3, 2), (3,))


class TestCommand:
    def test_test_and_evaluate_agree_about_doubts(self, run: Run, checkpoint: Path, model: Path) -> None:
        from PIL import Image

        from cifar_lightning.data import Digits
        from cifar_onnx.__main__ import main as receiver

        images = Digits().images("test")
        for name, label, pixels in zip(images.names, images.labels, images.pixels, strict=True):
            path = Path("digits", str(label), f"{name}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        assert run("test", "--ckpt_path", checkpoint, "--resamples", 10, "--output", "a").code == 0
        assert receiver(["evaluate", str(model), "digits", "--resamples", "10", "--output", "b"]) == 0
        ours, theirs = (json.loads(Path(each, "metrics.json").read_text())["reliability"] for each in "ab")
        assert ours.keys() == theirs.keys()
        assert ours["temperature"] == theirs["temperature"] == Classifier(model).contract.temperature
        for key in ("coverage", "mean_size", "single", "coverage_by_class"):
            assert ours["prediction_sets"][key] == pytest.approx(theirs["prediction_sets"][key], abs=1e-6)
        assert ours["unknown"]["kinds"]["noise"]["rejected"] == 1
        assert ours["unknown"]["rejected"] == theirs["unknown"]["rejected"] < 0.15
        assert set(ours["unknown"]["kinds"]) == {"noise", "plain colours", "textures"}
        page = Path("b/report.html").read_text()
        assert "Prediction sets" in page
        assert "Unknown pictures" in page

    def test_what_they_are_too_few_for_is_said(self) -> None:
        torch.manual_seed(0)
        images = np.random.default_rng(0).integers(256, size=(8, 8, 8, 3), dtype=np.uint8)
        known = Images(images, np.arange(8) % 2, [""] * 8)
        net = nn.Sequential(Normalize(), nn.Flatten(), nn.Linear(192, 2))
        few = calibrate(net, known, ["a", "b"])
        assert few.sets.threshold == 1
        sentence = "8 validation images are too few for prediction sets at alpha 0.1: each set holds all classes"
        assert f"warning: {sentence} (at least 9 images are needed)" in str(few)
        assert not any("for prediction sets" in each for each in calibrate(net, known, ["a", "b"], alpha=0.2).warnings)
        assert "calls at most 5% of such pictures unknown (at least 19 images are needed)" in str(few)
        blind = replace(few, rejections=tuple(replace(each, auroc=0.5) for each in few.rejections))
        assert "its unknown score is hardly better than chance (mean AUROC 0.50)" in str(blind)
        first = replace(few.rejections[0], auroc=0.9, rejected=0.49)
        (warning,) = replace(few, images=19, rejections=(first,)).warnings
        assert warning == "it calls hardly any of these other pictures unknown: do not rely on it for that"
        assert not replace(few, images=19, rejections=(first, replace(first, rejected=0.5))).warnings

    def test_pictures_of_the_users_are_asked_about(
        self, run: Run, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from cifar_onnx.__main__ import main as receiver

        (photos / "digits" / "0").mkdir(parents=True)
        golden = Classifier(model).contract.golden[0]
        (photos / "digits" / "0" / "a.png").write_bytes(golden.encoded)
        words = ["evaluate", str(model), str(photos / "digits"), "--others", str(photos / "train"), "--resamples", "2"]
        capsys.readouterr()
        assert receiver([*words, "--output", "out"]) == 0
        assert re.search(r"others +\d+\.\d% of 36 called unknown \(AUROC [01]\.\d{3}\)", capsys.readouterr().out)
        known = json.loads(Path("out/metrics.json").read_text())["reliability"]["unknown"]["kinds"]["others"]
        assert known["count"] == 36
        assert known["rejected"] > 0.9

    def test_alpha_and_the_kind_of_sets_are_chosen(self, run: Run, checkpoint: Path) -> None:
        words = ("export", "--ckpt_path", checkpoint, "--output", "m.onnx")
        assert run(*words, "--alpha", 0.2, "--sets", "aps").code == 0
        sets = Classifier("m.onnx").contract.sets
        assert (sets.method, sets.alpha) == ("aps", 0.2)
        result = run(*words, "--alpha", 0)
        assert result.code == 2
        assert "alpha is 0: the share of sets" in result.err
