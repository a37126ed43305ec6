import io
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from handmade import INFO, colours, field, with_info
from PIL import Image

from cifar_onnx import (
    Classifier,
    ContractError,
    ImageError,
    InputError,
    Prediction,
    ProviderError,
    contract,
    cpus,
    images,
)
from cifar_onnx.errors import ReadError


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(Path(__file__).parent / "digits.onnx")


def alike(answers: Sequence[Prediction | ImageError], expected: Sequence[Prediction]) -> bool:
    """Whether they are the same but for rounding: on ARM it depends on what other pictures run with one."""

    def facts(answer: Prediction | ImageError, probabilities: Any) -> tuple[object, ...]:
        assert isinstance(answer, Prediction)
        return answer.classes, answer.labels, answer.unknown, probabilities

    right = [facts(each, pytest.approx(each.probabilities, abs=1e-6)) for each in expected]
    return [facts(each, each.probabilities) for each in answers] == right


def test_a_picture_gives_a_frozen_prediction(classifier: Classifier, digits: Path) -> None:
    for path in sorted(digits.iterdir()):
        prediction = classifier(path)
        assert prediction.label == path.stem[-1]
        assert prediction.probability == max(prediction.probabilities)
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-6)
        assert prediction.familiarity == float(classifier.run(classifier.square(path)[None])[2][0])
        assert prediction.unknown == (prediction.familiarity < classifier.contract.unknown.threshold)
        with pytest.raises(FrozenInstanceError):
            prediction.label = "0"  # type: ignore[misc]


def test_what_a_notebook_shows_is_short(classifier: Classifier, digits: Path) -> None:
    """Of a thousand classes, too."""
    assert repr(classifier) == "<Classifier of 10 classes: 0, 1, 2, ...>"
    prediction = classifier(next(digits.iterdir()))
    for shown in (prediction, classifier.contract, classifier.contract.golden[0], classifier.verify()[0]):
        text = repr(shown)
        assert len(text) < 400
        assert "'1', '2', '3'" not in text
    assert f"Prediction(label={prediction.label!r}, probability={prediction.probability}, labels=" in repr(prediction)
    assert f"digest={classifier.contract.digest!r}" in repr(classifier.contract)


def test_top_is_ranked(classifier: Classifier, digits: Path) -> None:
    prediction = classifier(next(digits.iterdir()))
    assert prediction.top(1) == [(prediction.label, prediction.probability)]
    assert len(prediction.top()) == 5
    probabilities = [probability for _, probability in prediction.top(99)]
    assert probabilities == sorted(prediction.probabilities, reverse=True)


def test_of_equal_classes_the_first_is_the_label() -> None:
    """As torch, the golden samples and the browser take it."""
    prediction = Classifier(colours())(np.full((8, 8, 3), 77, np.uint8))
    assert prediction.label == "red"
    assert [label for label, _ in prediction.top()] == ["red", "green", "blue"]


def test_path_text_bytes_image_and_array_give_one_answer(classifier: Classifier, digits: Path) -> None:
    path = next(digits.iterdir())
    image = Image.open(path)
    for source in (str(path), path.read_bytes(), image, np.array(image)):
        assert classifier(source) == classifier(path)


class Upload:
    """As Flask's and Django's: no file by its class, but read like one, and line by line."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._file)


class Awaited(Upload):
    """As FastAPI's."""

    async def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        return super().read(size)


def test_a_binary_file_is_one_picture(classifier: Classifier, digits: Path, tmp_path: Path) -> None:
    path = next(digits.iterdir())
    data, expected = path.read_bytes(), classifier(path)
    assert classifier(Upload(data)) == classifier(io.BytesIO(data)) == expected
    assert classifier(bytearray(data)) == classifier(memoryview(data)) == expected
    for nothing in (b"", bytearray(), memoryview(b"")):  # no file that could be read again
        with pytest.raises(ImageError, match="an empty file: was it copied"):
            classifier(nothing)
    (released := memoryview(data)).release()
    assert [type(each) for each in classifier.stream([released, data])] == [ReadError, Prediction]
    with path.open("rb") as file, tempfile.NamedTemporaryFile(dir=tmp_path) as temporary:
        temporary.write(data)
        temporary.seek(0)
        assert alike(classifier([file, temporary, Upload(data)], batch_size=2), [expected] * 3)
        with pytest.raises(ImageError, match=r"its file is empty, or has been read to its end: seek\(0\) goes back"):
            classifier(file)
    with path.open(encoding="utf-8") as text, pytest.raises(ImageError, match="its file is open as text: open it with"):
        classifier(text)  # type: ignore[call-overload]
    with pytest.raises(ReadError, match=r"its file cannot be read .*closed"):
        classifier(file)
    with pytest.raises(ImageError, match=r"Awaited is read by await: give the bytes, await file.read\(\)"):
        classifier(Awaited(data))  # type: ignore[call-overload]
    with pytest.raises(InputError, match=r"put a single one into a list, and give iter\(source\) of what can be read"):
        next(classifier.stream(Upload(data)))
    answers = list(classifier.stream([file, Upload(data), io.StringIO("text")]))  # type: ignore[list-item]
    assert [type(answer).__name__ for answer in answers] == ["ReadError", "Prediction", "ImageError"]


def test_of_one_file_that_comes_again_each_picture_is_read_in_time(classifier: Classifier, digits: Path) -> None:
    """As a member of an archive after another; decoding them waits for a thread."""
    paths, buffer, array = sorted(digits.iterdir()), io.BytesIO(), bytearray()

    def refilled() -> Iterator[io.BytesIO | bytearray]:
        for path in paths:
            buffer.seek(0)
            buffer.truncate()
            buffer.write(path.read_bytes())
            buffer.seek(0)
            yield buffer
            array[:] = path.read_bytes()
            yield array

    assert list(classifier.stream(refilled())) == classifier([path for path in paths for _ in range(2)])


def test_a_copy_for_another_process_is_as_it_was_made(
    model: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As multiprocessing and joblib send it, also to a process in another folder."""
    shutil.copy(model, tmp_path / "near.onnx")
    monkeypatch.chdir(tmp_path)
    pictures = sorted(digits.iterdir())
    data = model.read_bytes()
    for source in ("near.onnx", Path("near.onnx"), data, bytearray(data), memoryview(data)):
        sent = pickle.dumps(first := Classifier(source, providers="cpu", threads=1))
        assert (len(sent) < 1000) == isinstance(source, str | Path)
        monkeypatch.chdir("/")
        copy = pickle.loads(sent)
        monkeypatch.chdir(tmp_path)
        assert copy._session.get_session_options().intra_op_num_threads == 1
        assert copy(pictures) == first(pictures)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
@pytest.mark.parametrize("threads", [2, 4])  # of which onnxruntime's end would hang, and crash
def test_a_forked_copy_answers_and_comes_to_its_end(model: Path, threads: int) -> None:
    """As with `gunicorn --preload`: a process that is forked and ends as Python does."""
    code = f"""
import os, signal, sys, numpy
from cifar_onnx import Classifier
classifier, picture = Classifier({str(model)!r}, threads={threads}), numpy.zeros((40, 50, 3), numpy.uint8)
known, child = classifier(picture), os.fork()
if not child:
    signal.alarm(20)
    classifier.run(picture[None])  # in the session for other sizes, which is made here
    sys.exit(0 if classifier(picture) == known else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or classifier(picture) != known)
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code]).returncode == 0


def test_a_file_that_is_another_than_it_says_meets_with_a_sentence(classifier: Classifier, digits: Path) -> None:
    info = {**INFO, "classes": ["red", "green", "blue"]}
    other = Classifier(with_info(colours().replace(b"familiarity", b"familiaritY"), info))
    cannot = f"the model: onnxruntime {ort.__version__} cannot run it"
    with pytest.raises(InputError, match=f"{cannot} .*familiarity"):
        other(next(digits.iterdir()))
    with pytest.raises(InputError, match=f"{cannot} .*INVALID_ARGUMENT"):
        other.maps(np.zeros((3, 3), np.uint8))


def test_many_of_all_sizes_come_back_in_order_and_as_alone(classifier: Classifier) -> None:
    generator = np.random.default_rng(0)
    sizes = [(20, 30), (32, 32), (20, 30), (5, 7), (32, 32), (64, 10), (20, 30)]
    pictures = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    together = classifier(pictures, batch_size=4)
    assert isinstance(together, list)
    for prediction, picture in zip(together, pictures, strict=True):
        alone = classifier(picture)
        assert prediction.label == alone.label
        assert np.allclose(prediction.probabilities, alone.probabilities, atol=1e-6)
    assert len(classifier(iter(pictures))) == len(pictures)
    assert classifier([]) == []


def test_pictures_of_all_sizes_run_together(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    run = classifier.run
    monkeypatch.setattr(classifier, "run", lambda batch: shapes.append(batch.shape) or run(batch))
    generator = np.random.default_rng(0)
    sizes = [(1001, 1200), (20, 30), (32, 32)]
    pictures = [generator.integers(256, size=(*size, 3), dtype=np.uint8) for size in sizes]
    predictions = classifier(pictures)
    assert classifier(pictures[0]).label == predictions[0].label
    assert shapes == [(3, 32, 32, 3), (1, 32, 32, 3)]
    for prediction, picture in zip(predictions, pictures, strict=True):
        by_graph = run(picture[None])[1][0]
        assert np.abs(np.array(prediction.probabilities) - by_graph).max() < 1e-6


@pytest.mark.parametrize("source", [None, 3, {"a.jpg": 1}, io.StringIO("x")], ids=lambda each: type(each).__name__)
def test_what_is_no_picture_is_said(classifier: Classifier, source: object) -> None:
    with pytest.raises(ImageError, match=rf"^{type(source).__name__} is not a picture: give a path, encoded bytes"):
        classifier(source)  # type: ignore[call-overload]
    (answer,) = classifier.stream([source])  # type: ignore[list-item]
    assert isinstance(answer, ImageError)
    assert "is not a picture: give a path" in str(answer)


class Response:
    """As that of requests."""

    def iter_content(self, size: int) -> Iterator[bytes]:
        yield from [b"ab"] * size

    def __iter__(self) -> Iterator[bytes]:
        return self.iter_content(128)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("https://a.b/c.png", "https://a.b/c.png: nothing is fetched from elsewhere: download the picture first"),
        (Response(), "Response is not a picture: give a path, encoded bytes, a binary file"),
        *((text, "the picture is given as text: give its bytes, as base64.b64decode makes them of base64$")
          for text in ("data:image/png;base64,iVBORw0KGgo=", "/9j/4AAQSkZ+" * 99, "iVBORw0KGgo\n" * 99)),
        *((path, f"{path}: no such file") for path in ("/data/" + "b" * 200 + "/" + "c" * 200 + "/img000001",)),
    ],
)  # fmt: skip
def test_what_an_app_has_in_the_place_of_a_picture_is_said(classifier: Classifier, source: Any, sentence: str) -> None:
    with pytest.raises(ImageError, match=f"^{sentence}"):
        classifier(source)


@pytest.mark.parametrize(
    "source", ["a.jpg", Path("a.jpg"), b"abc", np.zeros((2, 8, 3), np.uint8), Response()], ids=type
)
def test_a_stream_of_one_picture_is_refused_and_not_taken_apart(classifier: Classifier, source: object) -> None:
    """Letters would be names of files, and rows of pixels grey pictures."""
    with pytest.raises(InputError, match="put a single one into a list"):
        classifier.stream(source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (None, "NoneType is no model: give the path of a model.onnx, or its bytes"),
        ("a\0b", r"a\0b: cannot be read \(.*null"),
    ],
)
def test_what_is_no_model_is_said(model: str, sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{sentence}"):
        Classifier(model)


@pytest.mark.parametrize(("asked", "threads"), [(None, 3), (2, 2)])
def test_by_default_there_is_a_thread_for_each_usable_cpu(
    asked: int | None, threads: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cifar_onnx.session.usable_cpus", lambda: 3)
    made = Classifier(model, threads=asked)._session
    assert made.get_session_options().intra_op_num_threads == threads


def test_its_threads_do_not_keep_others_from_the_cpus(model: Path) -> None:
    """They would wait for the next picture in a busy loop."""
    options = Classifier(model)._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.spin_duration_us") == "30"


@pytest.mark.parametrize("threads", [-1, 0, 1025, 99999999999, "2", 1.5])
def test_threads_are_bounded(model: Path, threads: int) -> None:
    with pytest.raises(InputError, match=f"^threads is {threads!r}: it must be a whole number from 1 to 1024$"):
        Classifier(model, threads=threads)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "3200000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
def test_a_container_is_used_up_to_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, str], expected: int
) -> None:
    """Docker's `--cpus` and Kubernetes' limits leave all CPUs of the machine to be seen."""
    (tmp_path / "cpu").mkdir()
    for name, text in limits.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cpus, "_CGROUP", tmp_path)
    monkeypatch.setattr(sys, "platform", "other")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert cpus.usable_cpus() == expected


def test_a_contract_that_names_too_few_classes_is_refused(model: Path, tmp_path: Path) -> None:
    data, known = contract.read(model)
    golden = [{**g, "logits": g["logits"][:9], "probabilities": g["probabilities"][:9]} for g in known.info["golden"]]
    info = {**known.info, "digest": contract.BLANK, "classes": known.info["classes"][:9], "golden": golden}
    path = tmp_path / "nine.onnx"
    path.write_bytes(with_info(data, info))
    with pytest.raises(ContractError, match=r"names 9 classes, but the shape of its probabilities is \['batch', 10\]"):
        Classifier(path)


def numbers(*values: int) -> bytes:
    """An attribute's, as `handmade.colours` writes them."""
    return b"".join(field(8, value) for value in values)


@pytest.mark.parametrize(
    ("output", "right", "wrong", "shape"),
    [
        ("logits", (2, 3), (1, 3), (2, 8)),
        ("familiarity", (1,), (0,), (3,)),
        ("cam", (0, 3, 1, 2), (0, 1, 2, 3), (1, 8, 9, 3)),
    ],
)
def test_outputs_of_other_shapes_than_declared_are_refused(
    output: str, right: tuple[int, ...], wrong: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    classes = ["red", "green", "blue"]
    changed = colours().replace(numbers(*right) + field(20, 7), numbers(*wrong) + field(20, 7), 1)
    classifier, pixels = Classifier(with_info(changed, {**INFO, "classes": classes})), np.zeros((8, 9, 3), np.uint8)
    with pytest.raises(ContractError, match=rf"^the model: its output {output} has the shape {re.escape(str(shape))}"):
        classifier.maps(pixels) if output == "cam" else classifier([pixels, pixels])


@pytest.mark.parametrize(("kind", "word"), [(7, "int64"), (8, "string")])
def test_outputs_must_be_float32(kind: int, word: str) -> None:
    with pytest.raises(ContractError, match=rf"^the model: its output familiarity is a tensor\({word}\): it must be"):
        Classifier(colours(kind=kind))


def test_a_picture_that_cannot_be_decoded_is_named(classifier: Classifier) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.jpg: no such file"):
        classifier("nowhere.jpg")


def test_run_gives_logits_and_their_softmax(classifier: Classifier) -> None:
    logits, probabilities, _ = classifier.run(np.zeros((2, 9, 9, 3), np.uint8))
    assert logits.shape == probabilities.shape == (2, 10)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(probabilities, expected, atol=1e-6)


def test_other_sizes_than_the_nets_run_in_a_session_of_their_own(model: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(model, tmp_path))
    for source in (path, path.read_bytes()):
        classifier = Classifier(source)
        size = classifier.contract.size
        noise = np.random.default_rng(0).integers(256, size=(4, 3 * size, size, 3), dtype=np.uint8)
        squares = np.stack([classifier.square(each) for each in noise])
        own = classifier.run(squares)
        assert classifier._session.get_inputs()[0].shape == ["batch", size, size, 3]
        assert np.array_equal(own[0], classifier.run(list(squares))[0])  # type: ignore[arg-type]
        assert "_resizing" not in vars(classifier)
        for by_package, by_graph in zip(own, classifier.run(noise), strict=True):
            assert np.array_equal(by_package, by_graph)
        for one, other in zip(
            own, classifier._resizing.run(["logits", "probabilities", "familiarity"], {"image": squares}), strict=True
        ):
            assert np.array_equal(one, other)
    classifier = Classifier(path)
    data, known = contract.read(path)
    path.write_bytes(contract.seal(data.replace(known.digest.encode(), contract.BLANK.encode(), 1) + b"\x1a\x00"))
    with pytest.raises(ContractError, match=r"digits\.onnx: another file has taken its place since it was loaded"):
        classifier.verify()
    assert classifier.run(squares)[0].shape == (4, 10)


def test_the_provider_in_use_is_told(classifier: Classifier) -> None:
    assert classifier.providers == ["CPUExecutionProvider"]


def test_a_provider_that_is_not_active_is_an_error(model: Path) -> None:
    missing = next(name for name in ("CUDA", "CoreML", "ROCM") if f"{name}ExecutionProvider" in ort.get_all_providers())
    assert f"{missing}ExecutionProvider" not in ort.get_available_providers()
    with pytest.raises(ProviderError, match=rf"{missing}ExecutionProvider is not active.*CPUExecutionProvider"):
        Classifier(model, providers=[missing.lower(), "cpu"])
    with pytest.raises(InputError, match="unknown execution provider 'warp'"):
        Classifier(model, providers=["warp"])
    assert Classifier(model, providers="cpu").providers == ["CPUExecutionProvider"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What a session is asked for where there is a GPU, which then fails."""
    asked: list[object] = []

    def make(model: bytes, options: object, providers: object, **_: object) -> None:
        asked.append(providers)
        raise RuntimeError("CUDA failure 100")

    monkeypatch.setattr(ort, "get_all_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "get_available_providers", ort.get_all_providers)
    monkeypatch.setattr(ort, "InferenceSession", make)
    return asked


def test_how_a_gpu_is_hidden_is_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel asks for onnxruntime, whose files pip writes over those of onnxruntime-gpu."""
    monkeypatch.setattr(ort, "get_all_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(ProviderError, match=r"not active .*: pip uninstall onnxruntime, then pip install --force-re"):
        Classifier(model, providers="cuda")


def test_providers_may_have_options(model: Path, asked: list[Any]) -> None:
    with pytest.raises(ContractError, match=r"cannot load it \(CUDA failure 100\)"):
        Classifier(model, providers=[("cuda", {"device_id": 1}), "cpu"])
    (((cuda, options), cpu),) = asked
    assert (cuda, options["device_id"], cpu) == ("CUDAExecutionProvider", 1, ("CPUExecutionProvider", {}))


def test_on_cuda_float32_keeps_its_bits_unless_asked(model: Path, asked: list[Any]) -> None:
    """Rounded to 10 bits, as GPUs do by default, a resize's weights of 13 bits would give other pixels."""
    for provider in ("cuda", ("cuda", {"use_tf32": "1"})):
        with pytest.raises(ContractError):
            Classifier(model, providers=[provider])
    assert asked == [[("CUDAExecutionProvider", {"use_tf32": bit})] for bit in "01"]


def test_no_provider_is_the_cpu_and_what_is_none_is_said(model: Path) -> None:
    for providers in (None, "cpu", ("cpu", {}), ["cpu"], [("cpu", {})]):
        assert Classifier(model, providers=providers).providers == ["CPUExecutionProvider"]
    for providers, word in ((3, "3"), ([None], "None"), (["cpu", {"a": 1}], "{'a': 1}"), ([("cpu",)], r"\('cpu',\)")):
        with pytest.raises(InputError, match=rf"^{word} is no execution provider: give its name, such as 'cuda', or"):
            Classifier(model, providers=providers)  # type: ignore[arg-type]


def test_a_provider_that_onnxruntime_gives_up_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so in its log only, and runs on the CPU: a driver of another version, for one."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    make = ort.InferenceSession
    monkeypatch.setattr(
        ort, "InferenceSession", lambda data, options, providers, **_: make(data, options, providers[1:])
    )
    said = "CUDAExecutionProvider is not active on this machine: available are CPUExecutionProvider$"  # and no more
    with pytest.raises(ProviderError, match=said):
        Classifier(model, providers=["cuda", "cpu"])


def test_what_fails_is_not_run_elsewhere_without_a_word(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself onnxruntime goes on with the CPU."""
    assert not Classifier(model)._session._enable_fallback
    make = ort.InferenceSession
    monkeypatch.setattr(  # older versions pass the setting over
        ort, "InferenceSession", lambda data, options, providers, **_: make(data, options, providers=providers)
    )
    assert not Classifier(model)._session._enable_fallback


@pytest.mark.skipif(
    tuple(map(int, ort.__version__.split(".")[:2])) < (1, 23), reason="older versions of onnxruntime try twice"
)
def test_what_cannot_be_loaded_is_tried_once(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By itself onnxruntime prints what failed, among the answers."""
    tried = []

    def fail(self: object, providers: object, *_: object) -> None:
        tried.append(providers)
        raise RuntimeError("CUDA failure 100")

    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", fail)
    with pytest.raises(ContractError, match=r"cannot load it \(CUDA failure 100\)"):
        Classifier(model)
    assert len(tried) == 1
    assert capsys.readouterr().out == ""


def test_threads_change_no_answer(model: Path, digits: Path) -> None:
    path = next(digits.iterdir())
    one, two = (Classifier(model, threads=threads)(path) for threads in (1, 2))
    assert one.label == two.label
    assert np.allclose(one.probabilities, two.probabilities, atol=1e-6)


def test_prediction_can_be_made_by_hand() -> None:
    prediction = Prediction("b", 0.75, ("a", "b"), (0.25, 0.75), ("b", "a"), False, 1.0)
    assert prediction.top(2) == [("b", 0.75), ("a", 0.25)]


def test_a_stream_goes_on_after_a_picture_that_cannot_be_read(classifier: Classifier, digits: Path) -> None:
    files = sorted(digits.iterdir())
    sources = [files[0], b"no picture", *files[1:], files[0]]
    answers = list(classifier.stream(iter(sources), batch_size=2))
    assert [type(answer).__name__ for answer in answers] == ["Prediction", "ImageError", *["Prediction"] * len(files)]
    assert alike(answers[:1], answers[-1:])
    with pytest.raises(ImageError):
        classifier(sources)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_picture_is_judged_as_it_was_when_it_came(classifier: Classifier, digits: Path, batch_size: int) -> None:
    pictures = [classifier.square(path) for path in sorted(digits.iterdir())]
    buffer, one = pictures[0].copy(), Image.fromarray(pictures[0])

    def refilled() -> Iterator[np.ndarray | Image.Image]:  # as a camera does, and Pillow's ImageSequence
        for pixels in pictures:
            buffer[:] = pixels
            yield buffer
            one.paste(Image.fromarray(pixels))
            yield one

    expected = [classifier(pixels) for pixels in pictures for _ in range(2)]
    assert not alike(expected[:1], expected[-1:])
    assert alike(list(classifier.stream(refilled(), batch_size)), expected)


def test_one_pillow_image_may_be_there_several_times(classifier: Classifier, digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.png"  # the longer decoding takes, the surer two threads would meet in it
    with Image.open(next(digits.iterdir())) as picture:
        picture.convert("RGB").resize((990, 990)).save(path)
    with Image.open(path) as lazy:
        answers = classifier([lazy] * 8)
    assert alike(answers, [classifier(path)] * 8)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_what_came_before_an_iterable_failed_is_answered(classifier: Classifier, digits: Path, batch_size: int) -> None:
    def unplugged() -> Iterator[Path]:
        yield from sorted(digits.iterdir())[:5]
        raise OSError("the camera is gone")

    answers = classifier.stream(unplugged(), batch_size)
    assert alike([next(answers) for _ in range(5)], classifier(sorted(digits.iterdir())[:5]))
    with pytest.raises(OSError, match="the camera is gone"):
        next(answers)


def test_a_stream_reads_no_further_ahead_than_a_batch(classifier: Classifier, digits: Path) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield next(digits.iterdir())

    for number, _ in zip(range(1, 8), classifier.stream(endless(), batch_size=2), strict=False):
        assert taken <= number + 4
    taken = 0
    for number, _ in zip(range(1, 8), classifier.stream(endless(), batch_size=1), strict=False):
        assert taken == number


def test_the_next_pictures_are_decoded_while_some_run(
    classifier: Classifier, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second batch has been begun when the first one runs, and the run does not wait for it."""
    begun, ran = threading.Event(), threading.Event()
    files = sorted(digits.iterdir())[:3]
    decode, run = images.decode, classifier.run

    def waiting(source: Path, limit: int) -> images.Pixels:
        if source == files[2]:
            begun.set()
            assert ran.wait(10)
        return decode(source, limit)

    def running(batch: images.Pixels) -> object:
        assert begun.wait(10)
        ran.set()
        return run(batch)

    monkeypatch.setattr(images, "decode", waiting)
    monkeypatch.setattr(classifier, "run", running)
    assert len(classifier(files, batch_size=2)) == 3


def test_a_batch_of_none_is_refused(classifier: Classifier, digits: Path) -> None:
    with pytest.raises(InputError, match="batch_size is 0"):
        classifier(list(digits.iterdir()), batch_size=0)
    assert [*classifier.stream([], np.int64(8))] == []  # type: ignore[arg-type]
    for size in (0, 2.5, "8", None):
        with pytest.raises(InputError, match=f"batch_size is {size!r}: it must be"):  # before it is gone through
            classifier.stream([], size)  # type: ignore[arg-type]
