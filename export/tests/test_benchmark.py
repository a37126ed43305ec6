"""How fast a model is: what is measured, and what follows from it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cifar_onnx import Classifier, InputError, benchmark, images
from cifar_onnx.__main__ import main
from cifar_onnx.benchmark import Timing, advise
from cifar_onnx.classifier import BATCH


def timing(threads: int, batch: int, rate: float, work: str = "pixels") -> Timing:
    latency = 1000 * batch / rate
    return Timing(work, threads, batch, latency, latency, latency, rate, None)


def test_every_setting_is_timed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "PATIENCE", 1000)  # for slow machines
    monkeypatch.setattr(benchmark, "usable_cpus", lambda: 3)
    timings = list(benchmark.benchmark(str(model), benchmark.encoded(str(model), []), 0))
    settings = {(each.work, each.threads, each.batch) for each in timings}
    assert settings == {
        (work, threads, batch) for work in ("pixels", "files") for threads in (1, 2, 3) for batch in (1, 8, 32, 256)
    }
    for each in timings:
        assert 0 < each.p50 <= each.p90 <= each.p99


def test_batches_that_would_take_minutes_are_left_out(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of photos from a camera 256 take half a minute, five times over, for each number of threads."""
    monkeypatch.setattr(benchmark, "usable_cpus", lambda: 1)

    def laps(call: Any, _seconds: float) -> list[float]:
        batch: int | None = call.keywords.get("batch_size")
        return [0.1 * batch] if batch else [0.02 * len(call.args[0])]

    monkeypatch.setattr(benchmark, "laps", laps)
    timings = list(benchmark.benchmark(str(model), benchmark.encoded(str(model), []), 0))
    settings = {(each.work, each.batch) for each in timings}
    assert settings == {("pixels", 1), ("pixels", 8), ("pixels", 32), ("files", 1), ("files", 8)}
    assert {(each.work, round(each.images_per_second)) for each in timings} == {("pixels", 50), ("files", 10)}
    assert advise(timings).batch == BATCH


@pytest.mark.parametrize("error", [InputError("Failed to allocate memory"), MemoryError()], ids=type)
def test_batches_that_do_not_fit_into_memory_are_left_out(
    error: Exception, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a large net: what has been timed before is worth having."""
    most, run, tried = 8, Classifier.run, []

    def short(self: Classifier, batch: images.Pixels) -> Any:
        if len(batch) > most:
            tried.append(len(batch))
            raise error
        return run(self, batch)

    monkeypatch.setattr(benchmark, "usable_cpus", lambda: 1)
    monkeypatch.setattr(Classifier, "run", short)
    settings = str(model), benchmark.encoded(str(model), []), 0
    timings = list(benchmark.benchmark(*settings))
    assert {(each.work, each.batch) for each in timings} == {(work, n) for work in ("pixels", "files") for n in (1, 8)}
    assert tried == [32, 32]  # and no larger ones
    assert advise(timings).batch <= 8
    most = 0
    with pytest.raises(type(error)):
        list(benchmark.benchmark(*settings))


def test_files_are_taken_in_turns_and_a_single_one_without_threads(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the first photo, which may be large or small, does not stand for all."""
    pictures = [images.encode_png(np.zeros((side, side, 3), np.uint8)) for side in (8, 64, 16)]
    taken: list[int] = []
    sizes: list[int] = []
    square, stream = Classifier.square, Classifier.stream

    def seen(self: Classifier, picture: bytes) -> images.Pixels:
        taken.append(pictures.index(picture))
        return square(self, picture)

    def streamed(self: Classifier, some: Any, batch_size: int) -> Any:
        sizes.append(batch_size)
        return stream(self, some, batch_size)

    monkeypatch.setattr(Classifier, "square", seen)
    monkeypatch.setattr(Classifier, "stream", streamed)
    monkeypatch.setattr(benchmark, "usable_cpus", lambda: 1)
    monkeypatch.setattr(benchmark, "BATCHES", (1, 2))
    assert len(list(benchmark.benchmark(str(model), pictures, 0))) == 4
    assert taken[:5] == [0, 1, 2, 0, 1]  # of two calls that do not count, and three
    assert Counter(taken[5:]) == {0: 4, 1: 3, 2: 3}
    assert sizes == [2] * 5


@pytest.mark.parametrize("count", [1, 32, 33, 48, 70])
def test_of_a_large_folder_some_pictures_are_taken_from_all_over_it(count: int, model: Path, tmp_path: Path) -> None:
    picture = benchmark.encoded(str(model), [])[0]
    for number in range(count):
        (tmp_path / f"{number:02}.png").write_bytes(picture + bytes([number]))
    numbers = [each[-1] for each in benchmark.encoded(str(model), [str(tmp_path)])]
    assert len(numbers) == min(count, 32)
    gaps = {after - before for before, after in zip(numbers, [*numbers[1:], count], strict=True)}
    assert numbers[0] == 0
    assert max(gaps) - min(gaps) <= 1


def test_advice_is_the_default_where_nothing_is_clearly_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "usable_cpus", lambda: 2)
    same = [timing(threads, batch, 1000) for threads in (1, 2) for batch in (1, 8, 32, 256)]
    advice = advise(same)
    assert (advice.threads_for_one, advice.threads_for_many, advice.batch) == (2, 2, BATCH)


def test_advice_follows_what_is_clearly_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "usable_cpus", lambda: 2)
    rates = {(1, 1): 900, (2, 1): 500, (1, 8): 1000, (2, 8): 1980, (1, 256): 1000, (2, 256): 2000, (2, 32): 1500}
    advice = advise([timing(*key, rate) for key, rate in rates.items()] + [timing(1, 1, 9999, "files")])
    assert (advice.threads_for_one, advice.threads_for_many, advice.batch) == (1, 2, 8)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "BATCHES", (1,))
    monkeypatch.setattr(benchmark, "ceiling", lambda: 50.0)


@pytest.mark.usefixtures("quick")
def test_the_command_prints_a_table_and_the_advice(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(model), "--seconds", "0"]) == 0
    out = capsys.readouterr().out
    assert "p50 ms" in out
    assert "ceiling: " in out
    assert "for one picture at a time: Classifier(model, threads=" in out


def test_a_picture_that_cannot_be_read_is_named(model: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (digits / "rotten.png").write_bytes(b"no picture")
    assert main(["benchmark", str(model), "--seconds", "0", "--photos", str(digits)]) == 2
    assert f"error: {digits / 'rotten.png'}: not a picture" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_the_command_prints_json(model: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(model), "--seconds", "0", "--photos", str(digits), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ceiling_gflops"] == 50
    assert {"threads_for_one", "threads_for_many", "batch"} == set(found["advice"])
    assert {each["work"] for each in found["timings"]} == {"pixels", "files"}


def test_photos_that_are_none_are_refused(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(model), "--photos", str(tmp_path / "nowhere.jpg")]) == 2
    assert "nowhere.jpg" in capsys.readouterr().err


def test_work_is_held_against_what_the_file_says_it_costs() -> None:
    timings = [Timing("pixels", 1, 1, 1.0, 1.0, 1.0, 1000.0, 50.0)]
    assert benchmark.table(timings, top=200.0).splitlines()[1].split()[-2:] == ["50.0", "25%"]
    assert benchmark.ceiling(seconds=0.01) > 0


def test_of_the_ceiling_nothing_is_said_of_divisions_that_there_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """As numpy does in products on some ARM machines."""
    monkeypatch.setattr(benchmark, "laps", lambda *_: np.divide(np.ones(1), np.zeros(1)))
    assert benchmark.ceiling() == 0


@pytest.mark.parametrize("cost", [{}, {"flops": "many"}])
def test_a_cost_that_is_no_number_is_not_told(cost: object, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier(model)
    classifier.contract.info["cost"] = cost
    monkeypatch.setattr(benchmark, "BATCHES", (1,))
    monkeypatch.setattr(benchmark, "Classifier", lambda *_, **__: classifier)
    timings = list(benchmark.benchmark(str(model), benchmark.encoded(str(model), []), 0))
    assert {each.gflops for each in timings} == {None}


def test_less_than_one_picture_a_second_is_not_none() -> None:
    table = benchmark.table([timing(1, 1, 0.3), timing(1, 8, 1234)], top=200.0)
    assert [line.split()[-1] for line in table.splitlines()] == ["images/s", "0.3", "1,234"]
