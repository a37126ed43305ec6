"""`evaluate` and `compare`, as people type them, and the files they leave."""

import csv
import json
import re
import shutil
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sklearn")
from handmade import with_info
from scipy.stats import binom, binomtest, chi2_contingency
from sklearn.datasets import load_digits

from cifar_onnx import Classifier, InputError, contract
from cifar_onnx.__main__ import main
from cifar_onnx.evaluation import answers, commands, compare, outliers, robustness, subject, tables
from cifar_onnx.evaluation import outcome as outcomes
from cifar_onnx.evaluation.answers import Model, answer, familiarity
from cifar_onnx.evaluation.bootstrap import Bootstrap, Estimate, draw, shares
from cifar_onnx.evaluation.compare import Comparison, bounds, latency, same_classes
from cifar_onnx.evaluation.metrics import expected_calibration_error
from cifar_onnx.evaluation.outcome import Outcome, Unreadable, in_parts
from cifar_onnx.evaluation.reliability import Coverage, reliability
from cifar_onnx.evaluation.report import _findings
from cifar_onnx.evaluation.robustness import Robustness, under_corruptions
from cifar_onnx.evaluation.slices import Groups, Slice, Slicing, _thirds, slicings
from cifar_onnx.folders import find, labelled
from cifar_onnx.images import Pixels, decode
from cifar_onnx.resizing import resize
from cifar_onnx.uncertainty import PredictionSets, Unknown

MODEL = Path(__file__).parent / "digits.onnx"


@pytest.fixture(scope="module")
def own() -> Model:
    """The digits' net, which says nothing of familiarity."""
    model = Classifier(MODEL)
    return Model(model.classes, 32, "stretch", lambda batch: (model.run(batch)[0], None))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 handwritten digits as `scans/<digit>/*.png`, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("photos") / "scans"
    digits = load_digits()
    for number in range(200):
        grey = np.rint(digits.images[number] * (255 / 16)).astype(np.uint8)
        path = folder / str(digits.target[number]) / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(resize(np.repeat(grey[..., None], 3, axis=2), 32)).save(path)
    (folder / "3" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def scans(photos: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(photos, tmp_path / "scans")


def seeing(size: int, classes: str = "0123456789") -> Model:
    """A model of ten classes that answers by ten pixels in the middle."""
    return Model(
        classes, size, "stretch", lambda batch: (batch.reshape(len(batch), -1)[:, -99:-89].astype(np.float32), None)
    )


@pytest.fixture(scope="module")
def evaluated(photos: Path) -> Path:
    output = photos.parent / "out"
    assert main(["evaluate", str(MODEL), str(photos), "--output", str(output), "--resamples", "50"]) == 0
    return output


def test_pixels_are_kept_on_disk_and_answers_without_them_are_the_same(
    own: Model, photos: Path, tmp_path: Path
) -> None:
    (whole,), (light,) = answer(photos, own, keep=tmp_path), answer(photos, own)
    assert (len(whole.pixels), len(light.pixels)) == (200, 0)
    assert isinstance(whole.pixels, np.memmap)
    assert [*tmp_path.iterdir()] == []
    for place in (0, 123, 199):
        assert np.array_equal(whole.pixels[place], decode(whole.names[place]))
    assert np.array_equal(whole.logits, light.logits)
    assert np.array_equal(whole.labels, light.labels)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
def test_a_disk_that_is_full_is_named(
    own: Model, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Path("/dev/full").open("w+b")  # noqa: SIM115  # which `answer` closes
    monkeypatch.setattr("cifar_onnx.evaluation.answers.TemporaryFile", lambda **_: full)
    with pytest.raises(InputError, match=f"^{tmp_path}: No space left .* of 201 pictures takes 0.00062 GB there"):
        answer(photos, own, keep=tmp_path)


@pytest.mark.parametrize("size", [67, 100, 199])
@pytest.mark.parametrize("keep", [True, False])
def test_every_picture_is_answered_however_many_run_together(
    size: int, keep: bool, own: Model, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last batch may be full, or but for one, or hold one picture: 200 = 2 x 100 = 2 x 67 + 66 = 199 + 1."""
    (expected,) = answer(photos, own)
    monkeypatch.setattr(outcomes, "_BATCH", size)
    (found,) = answer(photos, own, keep=tmp_path if keep else None)
    assert np.allclose(found.logits, expected.logits, atol=1e-4)
    assert found.names == expected.names


def test_sizes_are_those_before_the_net_sees_them(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    for number, side in enumerate((8, 40)):
        Image.new("L", (side, 10)).save(tmp_path / "0" / f"{number}.png")
    own = Model(("0", "1"), 4, "stretch", lambda batch: (np.zeros((len(batch), 2), np.float32), None))
    (found,) = answer(tmp_path, own)
    assert found.areas is not None
    assert found.areas.tolist() == [80, 400]


def test_where_nothing_is_kept_no_folder_is_blamed(own: Model, photos: Path) -> None:
    with pytest.raises(OSError, match=r"^gone$"):
        answer(photos, replace(own, run=Mock(side_effect=OSError("gone"))))


def test_all_pictures_that_can_be_read_are_asked_whether_they_are_known(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part by part: there may be more of them than fit into memory."""
    seen = []

    def run(batch: Pixels) -> "tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], ...]":
        seen.append(len(batch))
        return batch[:, 0, 0].astype(np.float32), batch.mean(axis=(1, 2, 3), dtype=np.float32)

    monkeypatch.setattr(outcomes, "_BATCH", 67)
    model = Model("0123456789", 8, "stretch", run)  # type: ignore[arg-type]
    found = familiarity(photos, model)
    assert seen == [67, 67, 66]
    broken = photos / "3" / "broken.png"
    assert f"skipped 1 of the 201 files of {photos}, such as {broken}: not a picture in" in capsys.readouterr().err
    pixels = np.stack([resize(decode(path), 8) for path in find(photos) if path != broken])
    assert np.allclose(found, pixels.mean(axis=(1, 2, 3)))
    assert np.allclose(in_parts(model.run, pixels)[1], found)
    with pytest.raises(InputError, match="nowhere is not a folder: name one with pictures"):
        familiarity(photos / "nowhere", model)


def test_classes_without_pictures_hide_no_bad_one() -> None:
    shares = {"a": 0.9, "b": np.nan, "c": 0.2, "d": np.nan, "e": 0.5}
    by_class = {name: Estimate(share, share, share) for name, share in shares.items()}
    worst = Coverage(PredictionSets("lac", 0.1, 0.8), by_class["a"], 1, 1, by_class).worst
    assert worst == [(name, by_class[name]) for name in "cea"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def outcome(labels: "np.ndarray[tuple[int], np.dtype[np.int64]]", right: float, seed: int = 0) -> Outcome:
    """Answers of two classes, of which a share is right."""
    generator = np.random.default_rng(seed)
    hits = generator.random(len(labels)) < right
    predictions = np.where(hits, labels, 1 - labels)
    names = [str(i) for i in range(len(labels))]
    logits = np.eye(2, dtype=np.float32)[predictions] * 3
    return Outcome(("a", "b"), names, labels, logits, np.zeros((len(labels), 4, 4, 3), np.uint8))


def published(whole: Outcome, folder: Path, title: str = "model") -> str:
    """The report of answers."""
    evaluation = commands.Evaluation(title, {}, Bootstrap(whole, draw(len(whole.labels), 5)))
    commands.publish(evaluation, folder, lambda pixels, k: np.zeros(pixels.shape[:2], np.float32))
    return (folder / "report.html").read_text(encoding="utf-8")


class TestEvaluate:
    def test_figures_are_those_of_the_classifier(self, evaluated: Path, photos: Path) -> None:
        summary = json.loads((evaluated / "metrics.json").read_text())
        paths = sorted(path for path in photos.rglob("*.png") if path.name != "broken.png")
        predictions = Classifier(MODEL)(paths)
        right = [p.label == path.parent.name for p, path in zip(predictions, paths, strict=True)]
        accuracy = summary["metrics"]["accuracy"]
        assert accuracy["value"] == pytest.approx(np.mean(right), abs=1e-12)
        assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
        losses = [
            -np.log(p.probabilities[p.classes.index(path.parent.name)])
            for p, path in zip(predictions, paths, strict=True)
        ]
        assert summary["metrics"]["negative_log_likelihood"]["value"] == pytest.approx(np.mean(losses), abs=1e-5)
        assert (summary["images"], summary["unreadable"]) == (200, 1)
        assert summary["model"]["digest"] == Classifier(MODEL).contract.digest
        assert set(summary["slices"]) == {
            "brightness (mean grey level)",
            "contrast (standard deviation of grey levels)",
        }
        assert len(summary["metrics"]) == 19

    def test_figures_are_those_of_calibrated_answers(self, scans: Path, tmp_path: Path) -> None:
        """Also of a file whose temperature is not 1."""
        data, known = contract.read(MODEL)
        soft, output = tmp_path / "soft.onnx", tmp_path / "out"
        facts = {"temperature": 4.0, "sets": {**known.info["sets"], "alpha": 0.025}}
        soft.write_bytes(with_info(data, {**known.info, **facts, "digest": contract.BLANK}))
        assert main(["evaluate", str(soft), str(scans), "--output", str(output), "--resamples", "2"]) == 0
        found = json.loads((output / "metrics.json").read_text())
        paths = sorted(path for path in scans.rglob("*.png") if path.name != "broken.png")
        labels = np.array([int(path.parent.name) for path in paths])
        logits = Classifier(MODEL).run(np.stack([decode(path) for path in paths]))[0] / 4
        losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels]
        assert found["metrics"]["negative_log_likelihood"]["value"] == pytest.approx(losses.mean(), rel=1e-4)
        before, after = (found["reliability"]["expected_calibration_error"][key] for key in ("before", "after"))
        assert after == found["metrics"]["expected_calibration_error"]["value"] > before
        assert "Made so that at least 97.5%" in (output / "report.html").read_text(encoding="utf-8")

    def test_every_picture_has_a_row_and_so_has_an_unreadable_file(self, evaluated: Path, photos: Path) -> None:
        predictions = rows(evaluated / "predictions.csv")
        assert len(predictions) == 201
        (broken,) = [row for row in predictions if row["error"]]
        assert broken["path"].endswith("broken.png")
        assert broken["label"] == "3"
        assert "not a picture" in broken["error"]
        first = next(row for row in predictions if row["path"] == str(photos / "0" / "000.png"))
        known = Classifier(MODEL)(photos / "0" / "000.png")
        assert first["prediction"] == known.label
        assert float(first["probability"]) == pytest.approx(known.probability, abs=1e-5)
        (_, best), (_, second) = known.top(2)
        assert float(first["margin"]) == pytest.approx(best - second, abs=1e-5)

    def test_tables_add_up(self, evaluated: Path) -> None:
        confusion = np.array(
            [[int(v) for k, v in row.items() if k.isdigit()] for row in rows(evaluated / "confusion.csv")]
        )
        assert confusion.sum() == 200
        for number, row in enumerate(rows(evaluated / "per_class.csv")):
            assert int(row["support"]) == confusion[number].sum()
            assert float(row["recall"]) == pytest.approx(confusion[number, number] / confusion[number].sum(), abs=1e-6)
            own = binomtest(confusion[number, number], confusion[number].sum()).proportion_ci(method="wilson")
            assert (float(row["recall_low"]), float(row["recall_high"])) == pytest.approx((own.low, own.high), abs=1e-6)
            wrong = confusion[number].copy()
            wrong[number] = 0
            assert row["most_often_taken_for"] == (str(wrong.argmax()) if wrong.any() else "")

    def test_the_coverage_of_each_class_has_its_pictures_and_interval(self, evaluated: Path) -> None:
        text = (evaluated / "report.html").read_text(encoding="utf-8").partition("right label in the set")[2]
        known = json.loads((evaluated / "metrics.json").read_text())["reliability"]["prediction_sets"]
        for row in rows(evaluated / "per_class.csv"):
            count, share = int(row["support"]), known["coverage_by_class"][row["class"]]
            own = binomtest(round(share * count), count).proportion_ci(method="wilson")
            interval = f"{100 * own.low:.1f}% to {100 * own.high:.1f}%"
            assert f"<td>{row['class']}</td><td>{count}</td><td>{100 * share:.1f}%</td><td>{interval}</td>" in text

    def test_the_report_is_one_file_that_needs_no_other(self, evaluated: Path) -> None:
        text = (evaluated / "report.html").read_text(encoding="utf-8")
        assert len(text) < 2_000_000
        assert "<script" not in text
        addresses = re.findall(r"""(?:src|href|url\()\s*=?\s*["']?([^"'\s)>]+)""", text)
        assert addresses
        assert all(address.startswith(("data:", "#")) for address in addresses)
        assert "prefers-color-scheme: dark" in text
        assert "currentColor" in text
        for heading in ("Confusion matrix", "Calibration", "Most confident mistakes", "Groups of"):
            assert heading in text

        class Images(HTMLParser):
            found = 0

            def handle_starttag(self, tag: str, attributes: "list[tuple[str, str | None]]") -> None:
                self.found += tag == "img"

        parser = Images()
        parser.feed(text)
        wrong = sum(
            row["label"] != row["prediction"] and not row["error"] for row in rows(evaluated / "predictions.csv")
        )
        assert parser.found == min(wrong, 24) * 2 + 12

    def test_again_gives_the_same_files(self, evaluated: Path, photos: Path, tmp_path: Path) -> None:
        again = tmp_path / "again"
        assert main(["evaluate", str(MODEL), str(photos), "--output", str(again), "--resamples", "50"]) == 0
        for file in evaluated.iterdir():
            assert (again / file.name).read_bytes() == file.read_bytes()

    def test_names_are_shown_as_they_are(self, tmp_path: Path) -> None:
        """A class or file name is text, never markup."""
        labels = np.arange(40) % 2
        plain = outcome(labels, 0.5)
        named = Outcome(("<b>&x", "{{ a }}"), ["<i>.png"] * 40, plain.labels, plain.logits, plain.pixels)
        text = published(named, tmp_path, "<u>")
        assert "<b>&x" not in text
        assert "<i>.png" not in text
        assert "<u>" not in text
        assert "&lt;b&gt;&amp;x" in text
        assert "{{ a }}" in text

    def test_a_report_of_odd_names_and_of_a_class_without_pictures(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A name that is no text is written; the hardest class is one with pictures; hits begin with the least sure."""
        labels = np.arange(30) % 2
        logits = np.zeros((30, 3), np.float32)
        logits[np.arange(30), labels] = np.linspace(1, 5, 30)
        logits[0] = [0, 4, 0]
        names = ["caf\udce9.png", *(f"picture-{number}.png" for number in range(1, 30))]
        whole = Outcome(("a", "b", "c"), names, labels, logits, np.zeros((30, 4, 4, 3), np.uint8))
        page = published(whole, tmp_path)
        assert "The hardest class is “a”: 14 of its 15 pictures are recognised (93.3%). The most" in page
        assert "30 pictures of 3 classes, none of them of c" in page
        assert "there were no pictures of c\n" in capsys.readouterr().out
        assert "0.0 points below the best" not in page
        assert re.findall(r"picture-\d+", page.partition("Least confident correct predictions")[2])[0] == "picture-1"
        assert r"caf\udce9.png" in (tmp_path / "predictions.csv").read_text(encoding="utf-8")
        row = rows(tmp_path / "per_class.csv")[2]
        assert (row["class"], row["support"], row["recall_low"], row["recall_high"]) == ("c", "0", "", "")

    def test_a_single_picture_has_a_report(self, tmp_path: Path) -> None:
        whole = outcome(np.zeros(1, np.int64), 1.0)
        assert "more confident half of the pictures, accuracy is 100.0%" in published(whole, tmp_path)

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (lambda scans: (scans / "zebra").mkdir(), "'zebra' is not one of the classes 0, 1, 2"),
            (lambda scans: scans.rename(scans.parent / "away"), "scans is not a folder: name one that holds"),
            (
                lambda scans: [p.unlink() for p in scans.rglob("*.png")],
                "scans holds no folder with pictures: it must hold one for each class",
            ),
            (
                lambda scans: [p.write_text("x") for p in scans.rglob("*.png")],
                "none of the 201 files can be read as a picture",
            ),
            (
                lambda scans: (
                    scans.rename(scans.parent / "test"),
                    scans.mkdir(),
                    (scans.parent / "test").rename(scans / "test"),
                ),
                "did you mean",
            ),
        ],
    )
    def test_bad_folders(
        self, change: Callable[[Path], object], sentence: str, scans: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        change(scans)
        assert main(["evaluate", str(MODEL), str(scans), "--output", str(scans.parent / "out")]) == 2
        assert sentence in capsys.readouterr().err
        assert not (scans.parent / "out").exists()

    def test_a_folder_that_is_none_is_found_before_others_are_looked_at(
        self, scans: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(commands, "familiarity", None)
        assert main(["evaluate", str(MODEL), "scan", "--others", str(scans), "--output", str(scans.parent)]) == 2
        assert "scan is not a folder: name one that holds" in capsys.readouterr().err

    def test_what_an_evaluation_writes_of_its_pictures_names_them_for_others(
        self, scans: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With paths from where the command was started, and with the file that is no picture."""
        monkeypatch.chdir(scans.parent)
        words = ["evaluate", str(MODEL), "--resamples", "5"]
        assert main([*words, "scans"]) == 0
        Path("groups.csv").write_text("path,light\nscans/0/000.png,day\n")
        listed = "report/predictions.csv"
        assert main([*words, listed, "--output", "again", "--groups", "groups.csv"]) == 0
        figures = [json.loads(Path(each, "metrics.json").read_text()) for each in ("report", "again")]
        assert figures[0]["metrics"] == figures[1]["metrics"]
        assert [each["unreadable"] for each in figures] == [1, 1]
        assert figures[1]["slices"]["light"]["groups"]["day"]["images"] == 1
        assert rows(Path(listed)) == rows(Path("again/predictions.csv"))
        assert main(["compare", str(MODEL), str(MODEL), listed, "--output", "both"]) == 0
        assert json.loads(Path("both/comparison.json").read_text())["images"] == 200

    def test_a_table_of_pictures_is_what_people_write(self, scans: Path, tmp_path: Path) -> None:
        """With paths from where it lies, in any case and order of columns, and a picture twice by other paths."""
        lines = ("Label;note;PATH", "1;;scans\\1\\001.png", "0;x;scans/0/000.png", "0;;scans/../scans/0/000.png")
        (tmp_path / "own.csv").write_text("\n".join(lines))
        first, second = scans / "1" / "001.png", scans / "0" / "000.png"
        assert labelled(tmp_path / "own.csv", ["0", "1"]) == [(first, 1), (second, 0)]

    def test_labels_of_a_table_may_be_spelled_as_macos_does(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").touch()
        (tmp_path / "own.csv").write_text("path,label\na.png,cafe\u0301\n", encoding="utf-8")
        assert labelled(tmp_path / "own.csv", ["caf\u00e9"]) == [(tmp_path / "a.png", 0)]

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("", "has no rows: it needs the columns path and label, each once"),
            ("path,label\n", "lists no pictures: it needs a row for each"),
            ("path,kind\nscans/0/000.png,0\n", "has the columns path, kind: it needs the columns path and label"),
            ("path,label,label\nscans/0/000.png,0,0\n", "has the columns path, label, label: it needs the columns"),
            ("path,label,probability\nscans/0/000.png,0,0.9\n", "its labels are a model's answers: take predictions"),
            ("path,label\nscans/0/000.png,zebra\n", "line 2: 'zebra' is not one of the classes 0, 1, 2"),
            ("path,label\nscans/0/000.png,0\nnowhere.png,0\n", "line 3: there is no file 'nowhere.png', neither seen"),
            ("path,label\n,0\n", "line 2: there is no file ''"),
            ("path,label\nscans/0/000.png\n", "line 2: 1 values for 2 columns"),
            ("path,label\nscans/0/000.png,0\nscans/0/000.png,1\n", "line 3: {0} has another label in an earlier line"),
        ],
    )
    def test_a_table_that_does_not_say_what_pictures_show_is_refused(
        self, text: str, sentence: str, scans: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (table := scans.parent / "own.csv").write_text(text)
        assert main(["evaluate", str(MODEL), str(table), "--output", str(scans.parent / "out")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert sentence.format(scans / "0" / "000.png") in line
        assert not (scans.parent / "out").exists()

    def test_a_folder_that_cannot_be_written(self, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (scans.parent / "file").write_text("")
        assert main(["evaluate", str(MODEL), str(scans), "--output", str(scans.parent / "file" / "out")]) == 2
        assert f"error: {scans.parent / 'file' / 'out'} cannot be written to" in capsys.readouterr().err

    def test_nor_is_one_that_may_not_be_written_to(
        self, scans: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Found before a picture is read, and by trying: on Windows all seem to be writable."""
        monkeypatch.setattr(Path, "touch", Mock(side_effect=PermissionError(13, "Permission denied")))
        monkeypatch.setattr(commands, "answer", None)
        assert main(["evaluate", str(MODEL), str(scans), "--output", str(scans.parent)]) == 2
        assert f"{scans.parent} cannot be written to: name another folder" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("words", "name"),
        [(["evaluate"], name) for name in tables.EVALUATION]
        + [(["compare", str(MODEL)], n) for n in tables.COMPARISON],
    )
    def test_a_file_that_cannot_be_replaced_is_named_before_the_work(
        self,
        words: list[str],
        name: str,
        scans: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """As one that a spreadsheet holds open on Windows; here it is a folder."""
        (path := scans.parent / "out" / name).mkdir(parents=True)
        monkeypatch.setattr(commands, "answer", None)
        assert main([*words, str(MODEL), str(scans), "--output", str(path.parent)]) == 2
        assert f"error: {path} cannot be written (Is a directory): close it" in capsys.readouterr().err
        assert [*path.parent.iterdir()] == [path]

    def test_the_files_that_are_looked_at_before_are_those_that_are_written(self, evaluated: Path, scans: Path) -> None:
        assert {path.name for path in evaluated.iterdir()} == {*tables.EVALUATION}
        assert main(["compare", str(MODEL), str(MODEL), str(scans), "--output", str(scans.parent / "out")]) == 0
        assert {path.name for path in (scans.parent / "out").iterdir()} == {*tables.COMPARISON}


class TestForeign:
    def test_it_gets_the_same_figures(self, foreign: Path, evaluated: Path, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("\n".join(map(str, range(10))))
        words = ["evaluate", str(foreign), str(photos), "--output", str(tmp_path / "again"), "--resamples", "50"]
        assert main([*words, "--classes", str(tmp_path / "names.txt"), "--size", "32"]) == 0
        for name in ("per_class.csv", "confusion.csv", "predictions.csv"):
            assert (tmp_path / "again" / name).read_text() == (evaluated / name).read_text()

    def test_weights_beside_a_file_count_for_its_size(self, foreign: Path, photos: Path, tmp_path: Path) -> None:
        """PyTorch leaves them in NAME.onnx.data; what lies so beside a file with a contract is none of it."""
        whole = Path(shutil.copy(MODEL, tmp_path))
        for path in (foreign, whole):
            path.with_name(f"{path.name}.data").write_bytes(bytes(5_000_000))
        words = ["--output", str(tmp_path / "out"), "--classes", ",".join("0123456789"), "--size", "32"]
        assert main(["evaluate", str(foreign), str(photos), *words, "--resamples", "2"]) == 0
        size = foreign.stat().st_size / 1e6
        summary = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert summary["model"]["size"] == f"{size + 5:.2f} MB"
        assert main(["compare", str(foreign), str(whole), str(photos), *words]) == 0
        models = json.loads((tmp_path / "out" / "comparison.json").read_text())["models"]
        assert [each["megabytes"] for each in models] == pytest.approx([size + 5, size])

    def test_what_it_takes_must_be_said(self, foreign: Path, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["--output", str(scans.parent / "out")]
        assert main(["evaluate", str(foreign), str(scans), *words]) == 2
        assert "holds no contract: say what it answers and takes with --classes" in capsys.readouterr().err
        assert main(["evaluate", str(MODEL), str(scans), *words, "--size", "8"]) == 2
        assert f"--size is for files without a contract: {MODEL} came with one" in capsys.readouterr().err
        assert main(["evaluate", str(foreign), str(scans), *words, "--classes", "names.txt"]) == 2
        assert "--classes names.txt: no such file, and no names with commas" in capsys.readouterr().err
        with pytest.raises(SystemExit, match="2"):
            main(["evaluate", str(foreign), str(scans), "--mean", "1,2"])
        assert "is not three numbers with commas between them" in capsys.readouterr().err

    def test_a_file_of_names_is_what_people_write(self, tmp_path: Path) -> None:
        path = tmp_path / "names.txt"
        path.write_bytes("cat\r\n dog \r\n\r\n".encode("utf-8-sig"))
        assert subject._names(str(path)) == ["cat", "dog"]
        assert subject._names("cat, dog,") == ["cat", "dog"]
        path.write_bytes(b"caf\xe9\n")
        with pytest.raises(InputError, match=r"names\.txt is not text in UTF-8"):
            subject._names(str(path))

    def test_it_is_not_asked_what_it_does_not_know(
        self, foreign: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["evaluate", str(foreign), str(scans), "--classes", ",".join("0123456789"), "--size", "32"]
        assert main([*words, "--others", str(scans), "--output", str(tmp_path / "out")]) == 2
        assert "--others needs a model with a contract" in capsys.readouterr().err


class TestSlices:
    def test_thirds_have_their_pictures_and_the_worst_is_named(self) -> None:
        labels = np.arange(300) % 2
        plain = outcome(labels, 0.8)
        pixels = np.zeros((300, 4, 4, 3), np.uint8) + (np.arange(300) // 2).astype(np.uint8)[:, None, None, None]
        whole = Outcome(plain.classes, plain.names, labels, plain.logits, pixels, np.full(300, 16))
        bright, *others = slicings(whole)
        assert others == []  # no contrast, and all of one size
        assert [each.count for each in bright.slices] == [100, 100, 100]
        for part, each in enumerate(bright.slices):
            accuracy = whole.correct[100 * part : 100 * part + 100].mean()
            assert each.accuracy.value == pytest.approx(accuracy)
            assert each.accuracy.low < accuracy < each.accuracy.high
        values = [each.accuracy.value for each in bright.slices]
        assert bright.worst.accuracy.value == min(values)
        assert bright.gap == pytest.approx(max(values) - min(values))

    @pytest.mark.parametrize(
        ("right", "chance"),
        [((80, 85, 75), True), ((80, 95, 65), False), ((0, 95), True), ((0, 97), False), ((100, 100), True)],
    )
    def test_a_gap_that_chance_makes_is_called_so(self, right: tuple[int, ...], chance: bool, tmp_path: Path) -> None:
        """Of 101 pictures the only one of a group is among 6 wrong ones in 5.9 % of cases, and among 4 in 4.0 %."""
        sizes = [1 if hits == 0 else 100 for hits in right]
        wrong = np.concatenate([np.arange(size) >= hits for size, hits in zip(sizes, right, strict=True)])
        plain = outcome(np.zeros(len(wrong), np.int64), 1.0)
        whole = replace(plain, logits=np.where(wrong[:, None], plain.logits[:, ::-1], plain.logits))
        (own,) = slicings(whole, {"own": np.repeat([*"abc"[: len(sizes)]], sizes).tolist()})
        assert own.may_be_chance == chance
        evaluation = commands.Evaluation("model", {}, Bootstrap(whole, draw(len(wrong), 5)), [own])
        commands.publish(evaluation, tmp_path, lambda pixels, k: np.zeros(pixels.shape[:2], np.float32))
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert ("points below the best, which may be chance." in page) == (chance and own.gap > 0)
        assert ("points below the best." in page) != chance
        assert json.loads((tmp_path / "metrics.json").read_text())["slices"]["own"]["may_be_chance"] == chance

    def test_of_many_pictures_chance_is_what_pearsons_test_takes_for_it(self) -> None:
        generator, found = np.random.default_rng(0), []
        for gap in np.linspace(0, 0.15, 30):
            counts = generator.integers(200, 400, 3)
            hits = generator.binomial(counts, [0.8, 0.8, 0.8 - gap])
            expected = chi2_contingency([hits, counts - hits], correction=False).pvalue
            those = [Slice("", int(n), Estimate(k / n, 0, 1)) for n, k in zip(counts, hits, strict=True)]
            if not 0.04 < expected < 0.06:
                assert Slicing("", tuple(those)).may_be_chance == (expected > 0.05)
                found.append(expected > 0.05)
        assert 5 < sum(found) < len(found) - 5

    def test_large_pictures_are_looked_at_a_few_at_a_time(self) -> None:
        """As many as a net runs: as floating-point numbers they take four times their room, and more."""
        blank = np.zeros((40, 512, 512, 3), np.uint8)
        whole = replace(outcome(np.arange(40) % 2, 0.8), pixels=blank)
        tracemalloc.start()
        try:
            slicings(whole)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 16 * blank[0].size * 8

    def test_groups_of_the_users_own(self, tmp_path: Path, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
        names = sorted(map(str, scans.rglob("0*.png")))
        table = tmp_path / "groups.csv"
        lines = [f"{Path(name).relative_to(scans)},{'night' if i % 2 else 'day'}" for i, name in enumerate(names[1:])]
        table.write_text("path,light\n" + "\n".join(lines))
        groups = Groups(table).of(names, scans)
        assert groups["light"][:3] == ["not listed", "day", "night"]
        capsys.readouterr()
        words = ["evaluate", str(MODEL), str(scans), "--output", str(tmp_path / "out"), "--resamples", "20"]
        assert main([*words, "--groups", str(table)]) == 0
        found = json.loads((tmp_path / "out" / "metrics.json").read_text())["slices"]["light"]
        assert found["groups"]["night"]["images"] == sum("night" in line for line in lines)
        assert set(found["groups"]) == {"day", "night", "not listed"}
        assert f"lists {len(lines)} of 200 pictures" in capsys.readouterr().out
        accuracies = {name: group["value"] for name, group in found["groups"].items()}
        assert accuracies[found["worst"]] == min(accuracies.values())
        assert found["gap"] == pytest.approx(max(accuracies.values()) - min(accuracies.values()))

    def test_paths_may_be_written_in_many_ways(
        self, tmp_path: Path, scans: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        names = ["scans/0/000.png", "scans/1/001.png", "scans/2/002.png", "scans/3/003.png"]
        table = tmp_path / "groups.csv"
        table.write_bytes(
            f"path,side\r\n./0/000.png,a\r\n1\\001.png,b\r\n{scans / '2/002.png'},c\r\nscans/3/003.png\r\n".encode(
                "utf-8-sig"
            )
        )
        assert Groups(table).of(names, Path("scans")) == {"side": ["a", "b", "c", "(empty)"]}

    def test_paths_may_be_spelled_as_macos_does_or_as_keyboards_do(self, tmp_path: Path) -> None:
        (tmp_path / "groups.csv").write_text("path,side\nk\u00e4fer/1.png,a\n", encoding="utf-8")
        names = [str(tmp_path / "ka\u0308fer" / "1.png")]
        assert Groups(tmp_path / "groups.csv").of(names, tmp_path) == {"side": ["a"]}

    def test_tables_of_groups_are_what_people_write(self, tmp_path: Path) -> None:
        """With empty lines, and fifty groups."""
        table = tmp_path / "groups.csv"
        table.write_text("\npath,id\n\n" + "".join(f"{i}.png,{i}\n\n" for i in range(50)))
        assert Groups(table).of(["7.png"], None) == {"id": ["7"]}
        table.write_text("ID;Path\n a b ; 7.png\n7 ;8.png\n")
        assert Groups(table).of(["7.png"], None) == {"ID": ["a b"]}
        table.write_bytes(b"\xef\xbb\xbfsep=;\r\npath;size\r\n7.png;1,5\r\n8.png;2,5,1;x\r\n")
        with pytest.raises(InputError, match=r"groups\.csv, line 4: 3 values for 2 columns"):
            Groups(table)
        table.write_text("SEP=|\npath|size,mm\n7.png|1,5\n")
        assert Groups(table).of(["7.png"], None) == {"size,mm": ["1,5"]}
        table.write_bytes(b"path,place\n1.png,caf\xe9\n")
        with pytest.raises(InputError, match=r"groups\.csv cannot be read as a CSV file: save it as CSV UTF-8"):
            Groups(table)
        with pytest.raises(InputError, match=r"none cannot be read as a CSV file: No such file or directory$"):
            Groups(tmp_path / "none")

    def test_numbers_stand_in_their_order(self) -> None:
        whole = outcome(np.arange(40) % 2, 0.8)
        *_, found = slicings(whole, {"camera": [str(i % 4 * 5) for i in range(40)]})
        assert [each.name for each in found.slices] == ["0", "5", "10", "15"]

    def test_of_a_few_that_are_all_right_little_is_known(self) -> None:
        whole = outcome(np.arange(12) % 2, 1.0)
        first, second = shares(whole.correct, np.eye(2, dtype=bool)[whole.labels])
        assert first.high == second.high == 1
        assert first.low == pytest.approx(6 / (6 + 1.96**2), abs=1e-3)
        accuracy = Bootstrap(whole, draw(12, 50)).estimates["accuracy"]
        assert (accuracy.value, accuracy.high) == (1, 1)
        assert accuracy.low == pytest.approx(12 / (12 + 1.96**2), abs=1e-3)

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("file,light\nx,day\n", "it needs the column path"),
            ("path,light\nelsewhere.png,day\n", "lists none of the pictures"),
            ("", "has no rows"),
            ("path\n0/000.png,x\n", "another for each kind of group"),
            ("path,light,light\n0/000.png,day,a\n", "the columns path, light, light: each needs a name of its own"),
            ("path,light,\n0/000.png,day,\n", "has the columns path, light, (empty): each needs a name of its own"),
            ("path,light\n0/000.png,day,bright\n", "line 2: 3 values for 2 columns"),
            ("path,light\n0/000.png,day\n./0/000.png,night\n", "line 3: 0/000.png is in other groups in an earlier"),
            ("path,id\n" + "".join(f"{i},{i}\n" for i in range(60)), "column id has 60 groups: 50 at most"),
        ],
    )
    def test_bad_tables(
        self,
        text: str,
        sentence: str,
        scans: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (tmp_path / "groups.csv").write_text(text)
        words = ["evaluate", str(MODEL), str(scans), "--groups", str(tmp_path / "groups.csv")]
        monkeypatch.setattr(commands, "answer", None)  # it shows before the work
        assert main([*words, "--output", str(tmp_path / "out")]) == 2
        assert sentence in capsys.readouterr().err

    def test_large_numbers_are_whole(self) -> None:
        _, names, _ = _thirds("size", np.array([10.0, 12.345, 3464.1, 99999.0, 5.0, 2000.4]), ("s", "m", "l"), "side")
        assert names == ["s, up to 11.6", "m, up to 2,488", "l, above"]
        _, names, _ = _thirds("size", np.full(3, 999.7), ("s", "m", "l"), "side")
        assert names == ["s, up to 1,000", "m, up to 1,000", "l, above"]


@pytest.mark.parametrize("command", [["evaluate", str(MODEL)], ["compare", str(MODEL), str(MODEL)]])
def test_too_little_memory_is_one_sentence(
    command: list[str], scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "answer", Mock(side_effect=MemoryError("Unable to allocate 7.5 GiB")))
    assert main([*command, str(scans), "--output", str(tmp_path / "out")]) == 2
    less = "take fewer or smaller pictures" + (", or a smaller --resamples" if command[0] == "evaluate" else "")
    assert capsys.readouterr().err == f"error: not enough memory (Unable to allocate 7.5 GiB): {less}\n"


class TestCompare:
    labels = np.arange(2000) % 2

    @pytest.mark.parametrize(
        ("before", "after", "verdict"),
        [(0.8, 0.86, "B is better"), (0.86, 0.8, "B is worse"), (0.8, 0.8, "no difference can be shown")],
    )
    def test_the_verdict_on_known_pairs(self, before: float, after: float, verdict: str) -> None:
        a, b = outcome(self.labels, before, 1), outcome(self.labels, after, 2)
        comparison = Comparison(a, b)
        assert comparison.verdict == verdict
        change = comparison.change
        assert change.value == pytest.approx(b.correct.mean() - a.correct.mean())
        assert change.low < change.value < change.high
        assert (change.low > 0) == (verdict == "B is better")
        assert (change.high < 0) == (verdict == "B is worse")
        assert set(comparison.newly_wrong) == set(np.flatnonzero(a.correct & ~b.correct))

    @staticmethod
    def pair(newly_right: int, newly_wrong: int, others: int) -> Comparison:
        """Two models that agree on the other pictures, of which every second is right."""
        hits = [
            np.array([*[first] * newly_right, *[not first] * newly_wrong, *[k % 2 for k in range(others)]], bool)
            for first in (False, True)
        ]
        labels = np.zeros(len(hits[0]), np.int64)
        blank = outcome(labels, 1.0)
        return Comparison(*(replace(blank, logits=np.eye(2, dtype=np.float32)[np.where(each, 0, 1)]) for each in hits))

    def test_an_interval_is_that_of_bonett_and_price(self) -> None:
        """R: statpsych's ci.prop.ps(.05, 12, 4, 26, 6)."""
        change = self.pair(26, 4, 18).change
        assert (change.low, change.value, change.high) == pytest.approx((0.2548067, 22 / 48, 0.6251933), abs=1e-6)

    def test_of_equal_models_a_twentieth_are_said_to_differ(self) -> None:
        """Also where few pictures change: of resamples of four that are newly right, 98 % see an improvement."""
        wrongly = []
        for changed in range(1, 31):
            verdicts = [self.pair(right, changed - right, 1000).verdict for right in range(changed + 1)]
            differ = [verdict != "no difference can be shown" for verdict in verdicts]
            wrongly.append(binom.pmf(range(changed + 1), changed, 0.5) @ differ)
        assert max(wrongly) < 0.07
        assert np.mean(wrongly) < 0.05

    def test_no_change_is_beyond_all_pictures(self) -> None:
        for count in (1, 3, 500):
            change = self.pair(0, count, 0).change
            assert -1 == change.low == change.value < change.high

    def test_models_that_answer_alike_do_not_differ(self) -> None:
        a = outcome(self.labels, 0.8)
        comparison = Comparison(a, a)
        assert comparison.verdict == "no difference can be shown"
        # No picture changes; of all such pictures a few may.
        assert -comparison.change.low == comparison.change.high == pytest.approx(1.96 * 2**0.5 / 2002, rel=1e-3)

    def test_an_interval_of_pairs_is_narrower_than_of_two_sets(self) -> None:
        a, b = outcome(self.labels, 0.8, 1), outcome(self.labels, 0.81, 1)
        change = Comparison(a, b).change
        alone = [Bootstrap(each, draw(2000, 400)).estimates["accuracy"] for each in (a, b)]
        assert change.high - change.low < 0.5 * sum(each.high - each.low for each in alone)

    def test_bounds(self) -> None:
        comparison = Comparison(outcome(self.labels, 0.86, 1), outcome(self.labels, 0.8, 2))
        drop = -100 * comparison.change.value
        assert bounds(comparison, drop, None) == []
        assert bounds(comparison, drop - 0.01, None) == [
            f"accuracy falls by {drop:.4g} points, --max-drop allows {drop - 0.01:g}"
        ]
        assert bounds(comparison, None, 0.5) == []
        assert len(bounds(comparison, None, 0.9)) == 2

    def test_what_breaks_a_bound_is_not_rounded_to_it(self) -> None:
        comparison = self.pair(0, 3, 987)
        assert bounds(comparison, 0.3, None) == ["accuracy falls by 0.303 points, --max-drop allows 0.3"]
        all_right = outcome(np.zeros(2500, np.int64), 1.0)
        logits = np.where(np.arange(2500)[:, None] < 2249, all_right.logits, all_right.logits[:, ::-1])
        assert bounds(Comparison(all_right, replace(all_right, logits=logits)), None, 0.9)[-1] == (
            "recall of a is 0.8996 (2,249 of 2,500 pictures; before: 1), --no-class-below asks for 0.9"
        )

    def test_a_recall_that_is_the_bound_has_reached_it(self) -> None:
        labels = np.arange(20) % 2
        a = outcome(labels, 1.0)
        logits = a.logits.copy()
        logits[:4] = logits[:4, ::-1]  # 8 of 10 of each class are right
        comparison = Comparison(a, Outcome(a.classes, a.names, labels, logits, a.pixels))
        assert bounds(comparison, None, 0.8) == []
        assert len(bounds(comparison, None, 0.8001)) == 2

    def test_classes_without_pictures_do_not_pass(self) -> None:
        a = outcome(np.zeros(50, np.int64), 1.0)
        a = replace(a, classes=("a", "b", "c"), logits=np.pad(a.logits, ((0, 0), (0, 1))))
        assert bounds(Comparison(a, a), None, 0.5) == [
            "there are no pictures of b, c: --no-class-below cannot be judged"
        ]

    @pytest.mark.parametrize("given", [(0.3, None), (None, 0.5)])
    def test_no_bound_passes_for_files_that_could_not_be_read(self, given: tuple[float | None, float | None]) -> None:
        beside = Unreadable("cut.json", 0, "not a picture")  # as some programs put one beside each picture
        a = replace(outcome(self.labels[:4], 1.0), unreadable=(Unreadable("cut.JPG", 0, "cut"),) * 1996 + (beside,))
        assert bounds(Comparison(a, a), *given) == [
            "1,996 of 2,000 pictures could not be read, and the bounds are judged by the rest alone: "
            "mend or remove them (in a CSV file, their rows)"
        ]
        assert bounds(Comparison(a, a), None, None) == []
        a = replace(a, unreadable=(beside,))
        assert bounds(Comparison(a, a), *given) == []

    @pytest.mark.parametrize("bound", [["--max-drop", "nan"], ["--max-drop", "-1"], ["--no-class-below", "90"]])
    def test_bounds_that_are_none(self, bound: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(["compare", str(MODEL), str(MODEL), "x", *bound])
        assert "is not a number from 0 to" in capsys.readouterr().err

    def test_models_of_other_classes_are_refused(self) -> None:
        same_classes(("a", "b"), ("b", "a"))
        same_classes(("a\u0308", "b"), ("b", "\u00e4"))  # two spellings of one letter
        with pytest.raises(InputError, match=r"know different classes \(one alone knows b, c\): only models of"):
            same_classes(("a", "b"), ("a", "c"))

    def test_classes_may_be_in_another_order(self, scans: Path) -> None:
        a, b = outcome(self.labels, 0.8, 1), outcome(self.labels, 0.7, 2)
        swapped = Outcome(("b", "a"), b.names, 1 - b.labels, b.logits[:, ::-1], b.pixels)
        expected, found = (Comparison(a, each) for each in (b, swapped))
        assert found.classes == expected.classes
        assert np.array_equal(found.newly_wrong, expected.newly_wrong)
        digits = "0123456789"
        one, other = answer(scans, *(seeing(8, classes) for classes in (digits, digits[::-1])))
        assert one.names == other.names  # the same pictures in the same order
        assert np.array_equal(one.labels, 9 - other.labels)

    def test_each_picture_is_decoded_once_and_so_the_same_for_both(
        self, scans: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoded = Mock(side_effect=decode)
        monkeypatch.setattr(answers, "decode", decoded)
        small, large = seeing(8), seeing(32)
        both = answer(scans, small, large)
        assert decoded.call_count == 201
        for model, found in zip((small, large), both, strict=True):
            (alone,) = answer(scans, model)
            assert (found.names, found.unreadable) == (alone.names, alone.unreadable)
            assert np.array_equal(found.logits, alone.logits)

    def test_latency_is_in_milliseconds(self) -> None:
        def slow(batch: Pixels) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
            time.sleep(0.005)
            return np.zeros((len(batch), 2), np.float32)

        assert latency([(slow, 8)])[0] >= 5

    @pytest.mark.parametrize(("seconds", "rounds"), [(60.0, 50), (0.0, 3)])
    def test_slow_nets_are_timed_less_often(self, seconds: float, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compare, "_SECONDS", seconds)
        runs = Mock(), Mock()
        latency([(run, 8) for run in runs])
        assert [run.call_count for run in runs] == [rounds] * 2

    def test_names_of_classes_do_not_steer_the_terminal(
        self, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data, known = contract.read(str(MODEL))
        info = {**known.info, "digest": contract.BLANK, "classes": ["\x1b[2J", *known.classes[1:]]}
        (tmp_path / "odd.onnx").write_bytes(with_info(data, info))
        shutil.rmtree(scans / "0")
        words = ["compare", *[str(tmp_path / "odd.onnx")] * 2, str(scans), "--output", str(tmp_path / "out")]
        assert main([*words, "--no-class-below", "0"]) == 1
        assert r"there are no pictures of \x1b[2J: " in capsys.readouterr().out

    def test_of_many_classes_only_those_are_printed_that_say_most(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        labels, places = np.arange(1000) % 10, np.arange(1000) // 10  # within the class
        hits = np.where(labels == 2, places >= 42, True), places >= np.where(labels == 2, 0, 5 * labels)
        names, pixels = list(map(str, range(1000))), np.zeros((0, 8, 8, 3), np.uint8)
        both = [
            Outcome(tuple("0123456789"), names, labels, np.eye(10, dtype=np.float32)[(labels + ~right) % 10], pixels)
            for right in hits
        ]
        monkeypatch.setattr(commands, "answer", lambda *_: both)
        monkeypatch.setattr(commands, "_LINES", 3)
        words = ["compare", str(MODEL), str(MODEL), "photos", "--output", str(tmp_path), "--no-class-below", "0.9"]
        assert main(words) == 1
        out = capsys.readouterr().out.splitlines()
        found, place = tmp_path / "comparison.json", next(i for i, line in enumerate(out) if " recall " in line)
        assert [line.split()[0] for line in out[place : place + 3]] == ["9", "8", "2"]
        assert out[place + 3] == f"  and 7 more classes, whose recall changed no more: see {found}"
        assert [line.partition(" is ")[0] for line in out[-4:-1]] == [f"broken: recall of {k}" for k in (9, 8, 7)]
        assert out[-1] == f"broken: and 4 more classes: see {found}"
        summary = json.loads(found.read_text())
        assert (len(summary["recall"]), len(summary["broken"])) == (10, 7)

    def test_in_a_pipeline(self, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["compare", str(MODEL), str(MODEL), str(scans), "--output", str(tmp_path / "out")]
        assert main(words) == 0
        out = capsys.readouterr().out
        assert "no difference" in out
        assert f"files that could not be read: 1, {scans / '3' / 'broken.png'} is the first" in out
        bounded = [*words, "--max-drop", "0.3", "--no-class-below", "0.5"]
        assert main(bounded) == 1
        assert "broken: 1 of 201 pictures could not be read" in capsys.readouterr().out
        assert json.loads((tmp_path / "out" / "comparison.json").read_text())["unreadable"] == 1
        (scans / "3" / "broken.png").unlink()
        assert main(bounded) == 0
        for path in (scans / "7").iterdir():
            path.rename(scans / "8" / path.name)
        assert main([*words, "--no-class-below", "0.9"]) == 1
        out = capsys.readouterr().out
        assert "broken: recall of 8 is" in out
        assert "broken: there are no pictures of 7" in out
        found = json.loads((tmp_path / "out" / "comparison.json").read_text())
        assert found["unreadable"] == 0
        assert (found["verdict"], found["newly_wrong"], found["accuracy_change"]["value"]) == (
            "no difference can be shown",
            0,
            0,
        )
        assert found["models"][0]["milliseconds"] > 0
        assert rows(tmp_path / "out" / "newly_wrong.csv") == []

    def test_a_model_that_is_worse_by_more_than_was_typed_is_held_back(
        self, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data, known = contract.read(str(MODEL))
        classes = ["1", "0", *known.classes[2:]]  # so that a fifth is wrong
        info = {**known.info, "digest": contract.BLANK, "classes": classes, "golden": []}
        worse = tmp_path / "worse.onnx"
        worse.write_bytes(with_info(data, info))
        words = ["compare", str(MODEL), str(worse), str(scans), "--output", str(tmp_path / "out")]
        (scans / "3" / "broken.png").unlink()
        for most, code in (("5", 1), ("50", 0)):
            assert main([*words, "--max-drop", most]) == code
            said = re.findall(r"broken: accuracy falls by .* --max-drop allows (.*)", capsys.readouterr().out)
            assert said == [most] * code


class TestFindings:
    @pytest.mark.parametrize(
        ("right", "logit", "sentence"),
        [(0.95, 3.0, ": well calibrated"), (0.6, 9.0, ": overconfident"), (1.0, 0.5, ": underconfident")],
    )
    def test_they_say_how_sure_it_is(self, right: float, logit: float, sentence: str, tmp_path: Path) -> None:
        labels = np.arange(1000) % 2
        plain = outcome(labels, right)
        whole = replace(plain, logits=logit / 3 * plain.logits)
        assert sentence in published(whole, tmp_path)

    def test_few_pictures_show_no_overconfidence_that_chance_would_make(self) -> None:
        """Of twelve right ten times, sure of it by 95 %."""
        labels, hits = np.zeros(12, np.int64), np.arange(12) >= 2
        logits = 3 * np.column_stack([hits, ~hits]).astype(np.float32)
        whole = replace(outcome(labels, 1.0), logits=logits)
        sentence = _findings(commands.Evaluation("model", {}, Bootstrap(whole, draw(12, 2))), [])[0]
        assert "accuracy 83.3%: these pictures show neither over- nor underconfidence, but are too few" in sentence

    def test_two_hundred_classes_fit_on_the_page(self, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        labels = np.arange(2000) % 200
        logits = generator.normal(size=(2000, 200)) + 3 * np.eye(200)[labels]
        classes = tuple(f"a class with the number {number}" for number in range(200))
        pixels = generator.integers(0, 256, (2000, 64, 64, 3), dtype=np.uint8)
        whole = Outcome(classes, list(map(str, range(2000))), labels, logits.astype(np.float32), pixels)
        text = published(whole, tmp_path)
        assert len(text) < 2_000_000
        assert "Shown are the 40 classes of lowest recall" in text
        assert "<th>predicted as</th>" in text


@pytest.mark.parametrize("name", ["7", "0 - zero", "zero", "Nine", "digit_0", "digits", "no. 4"])
def test_digits_are_not_unknown_to_a_classifier_of_digits(name: str) -> None:
    assert "digits" not in dict(outliers.make(8, ["cat", name]))


def test_to_others_they_are() -> None:
    names = ["bone", "digital watch", "stone", "Boeing 747", "v2", "eighteen wheeler"]
    assert "digits" in dict(outliers.make(8, names))


def test_each_kind_is_made_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large pictures all together would take a gigabyte and more."""
    monkeypatch.setitem(outliers._KINDS, "plain colours", Mock(side_effect=AssertionError))
    kind, pictures = next(outliers.make(8, ["cat"]))
    assert (kind, pictures.shape, pictures.dtype) == ("noise", (100, 8, 8, 3), np.uint8)


def test_a_score_is_judged_by_other_pictures_than_those_that_chose_it() -> None:
    seen: list[bytes] = []

    def run(batch: Pixels) -> "tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], ...]":
        seen.extend(picture.tobytes() for picture in batch)
        return np.zeros((len(batch), 2), np.float32), np.zeros(len(batch), np.float32)

    whole = outcome(np.arange(6) % 2, 1.0)
    whole = replace(whole, familiarity=np.ones(6, np.float32), pixels=np.zeros((6, 16, 16, 3), np.uint8))
    reliability(whole, 1.0, PredictionSets("lac", 0.1, 0.8), Unknown("energy", 0.5), run)  # type: ignore[arg-type]
    assert len(seen) == 400
    chose = dict(outliers.make(16, whole.classes))
    assert not {*seen} & {each.tobytes() for kind in ("noise", "plain colours", "textures") for each in chose[kind]}


def test_coverage_has_the_interval_of_other_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is the same wherever the answers are taken apart, because there are too many for one copy more."""
    generator = np.random.default_rng(0)
    whole = Outcome(
        ("a", "b", "c"),
        list(map(str, range(60))),
        np.arange(60) % 2,
        generator.normal(0, 2, (60, 3)).astype(np.float32),
        np.zeros((60, 16, 16, 3), np.uint8),
        familiarity=np.ones(60, np.float32),
    )
    sets, strange = PredictionSets("aps", 0.1, 0.8), (np.zeros((100, 3), np.float32), np.zeros(100, np.float32))
    hits = sets.of(whole.probabilities)[np.arange(60), whole.labels]
    uncalibrated = replace(whole, logits=whole.logits * np.float32(1.5))
    monkeypatch.setattr(outcomes, "_CELLS", 21)
    found = reliability(whole, 1.5, sets, Unknown("energy", 0.5), lambda _: strange)
    own = binomtest(int(hits.sum()), 60).proportion_ci(method="wilson")
    assert found.coverage.covered == Estimate(hits.mean(), own.low, own.high)
    for name, those in (("a", hits[::2]), ("b", hits[1::2])):
        own = binomtest(int(those.sum()), 30).proportion_ci(method="wilson")
        assert found.coverage.by_class[name] == Estimate(those.mean(), own.low, own.high)
    assert np.isnan(found.coverage.by_class["c"].value)
    assert found.uncalibrated == expected_calibration_error(uncalibrated.confidences, whole.correct)


def test_an_answer_that_is_not_finite_is_refused() -> None:
    whole = outcome(np.arange(6) % 2, 1.0)
    for value in (np.nan, np.inf):
        logits = whole.logits.copy()
        logits[4, 1] = value
        with pytest.raises(InputError, match=f"answer to 4 is not finite: {value} for b$"):
            Outcome(whole.classes, whole.names, whole.labels, logits, whole.pixels)


class TestRobustness:
    def test_a_net_that_looks_at_the_colour_is_fooled_by_what_changes_it(self) -> None:
        """Dark or bright, by the mean: fog and brightness harm it, noise and blur do not."""
        generator = np.random.default_rng(0)
        labels = np.arange(64) % 2
        pixels = (generator.integers(0, 60, (64, 8, 8, 3)) + 95 * labels[:, None, None, None]).astype(np.uint8)

        def run(batch: Pixels) -> "tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], None]":
            mean = batch.mean(axis=(1, 2, 3)) - 80
            return np.column_stack([-mean, mean]).astype(np.float32), None

        whole = Outcome(("dark", "bright"), [""] * 64, labels, run(pixels)[0], pixels)
        assert whole.correct.all()
        found = under_corruptions(whole, run)
        assert found.columns == ("1", "2", "3", "4", "5")
        assert min(found.rows["gaussian_noise"]) == 1
        assert found.rows["brightness"][4] < 0.9
        assert found.mean == pytest.approx(np.mean([*found.rows.values()]))
        assert under_corruptions(whole, run).rows == found.rows

    def test_of_many_pictures_some_are_corrupted_evenly_spread(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With the noise that they would have among all of them; of no more, all are."""
        numbers, seen = np.arange(25, dtype=np.uint8), list[Pixels]()

        def run(batch: Pixels) -> "tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], None]":
            seen.append(batch)
            return np.eye(2, dtype=np.float32)[np.zeros(len(batch), int)], None

        pixels = np.broadcast_to(numbers[:, None, None, None], (25, 8, 8, 3))
        whole = replace(outcome(numbers.astype(np.int64) % 2, 1.0), pixels=pixels)
        assert (under_corruptions(whole, run).images, len(seen[0])) == (None, 25)
        monkeypatch.setattr(robustness, "_MOST", 10)
        monkeypatch.setattr(outcomes, "_BATCH", 4)
        monkeypatch.setattr(outcomes, "_SIDE", 8)
        everything = seen.copy()
        seen.clear()
        found = under_corruptions(whole, run)
        chosen = [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]
        assert [len(batch) for batch in seen[:4]] == [4, 4, 2, 4]
        assert np.array_equal(np.concatenate(seen), np.concatenate([batch[chosen] for batch in everything]))
        assert (found.images, found.mean) == (10, pytest.approx(0.6))  # those of even numbers are right
        evaluation = commands.Evaluation("model", {}, Bootstrap(whole, draw(25, 5)), robustness=[found])
        commands.publish(evaluation, tmp_path, lambda pixels, k: np.zeros(pixels.shape[:2], np.float32))
        assert "mean accuracy 60.0% of 10 pictures, evenly spread\n" in capsys.readouterr().out
        assert json.loads((tmp_path / "metrics.json").read_text())["corruptions"]["images"] == 10
        assert "10 of them were made harder, evenly spread." in (tmp_path / "report.html").read_text(encoding="utf-8")

    def test_steps_that_the_user_chose_have_no_mean(self, tmp_path: Path) -> None:
        whole = outcome(np.arange(20) % 2, 0.8)
        for mean, columns in ((0.375, 4), (None, 3)):
            harder = Robustness("attacks", ("1/255", "8/255"), {"FGSM": (0.5, 0.25)}, mean)
            evaluation = commands.Evaluation("model", {}, Bootstrap(whole, draw(20, 5)), robustness=[harder])
            commands.publish(evaluation, tmp_path, lambda pixels, k: np.zeros(pixels.shape[:2], np.float32))
            page = (tmp_path / "report.html").read_text(encoding="utf-8")
            table = page.partition("<h2>Attacks</h2>")[2].partition("</table>")[0]
            assert (table.count("<th>"), table.count("<td")) == (columns, columns)
            assert ("37.5%" in table) == (mean is not None)

    def test_it_is_in_the_report(self, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for path in scans.rglob("*[1-9].png"):
            path.unlink()
        words = ["evaluate", str(MODEL), str(scans), "--corruptions", "--output", str(tmp_path / "out")]
        assert main([*words, "--resamples", "5"]) == 0
        found = json.loads((tmp_path / "out" / "metrics.json").read_text())["corruptions"]
        assert len(found["accuracy"]) == 13
        assert 0 < found["mean_accuracy"] < 1
        assert "impulse noise" in (tmp_path / "out" / "report.html").read_text()
