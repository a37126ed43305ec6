import json
import re
import shutil
import textwrap
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from handmade import INFO, colours, field, model_of
from PIL import Image

from cifar_onnx import Classifier, ContractError, contract, guard
from cifar_onnx.__main__ import main

SAMPLE = {"name": "a", "file": "", "fingerprint": "", "label": "a", "logits": [0.5], "probabilities": [1.0]}

README = (Path(__file__).parent.parent / "README.md").read_text().partition("With onnxruntime alone")[2]
SNIPPET = textwrap.dedent(re.search(r"\n\n((?:    .*\n|\n)+)", README)[1])  # type: ignore[index]


def test_it_is_read_without_a_runtime(model: Path) -> None:
    data, known = contract.read(model)
    assert len(data) == model.stat().st_size
    assert known.classes == tuple("0123456789")
    assert (known.size, known.resize, known.temperature) == (32, "stretch", 1.0)
    assert len(known.golden) == 8
    assert all(len(golden.probabilities) == 10 for golden in known.golden)
    assert known.info["provenance"]["seed"] == 0


def test_the_lines_of_the_readme_give_the_same_answers(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(model, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    for golden in contract.read(model)[1].golden:
        if golden.name not in ("16-bit grey", "transparent"):
            Path("photo.jpg").write_bytes(golden.encoded)
            found: dict[str, object] = {}
            exec(SNIPPET, found)
            assert found["label"] == golden.label
            assert bool(found["unknown"]) == Classifier(model)("photo.jpg").unknown


def test_by_the_lines_of_the_readme_what_is_not_a_number_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(colours("Neg", "Sqrt"))
    Image.new("RGB", (8, 8), "white").save("photo.jpg")
    found: dict[str, object] = {}
    exec(SNIPPET, found)
    assert found["unknown"]


def test_a_contract_of_the_known_format_is_taken() -> None:
    known = contract.parse(model_of(INFO))
    assert (known.classes, known.size, known.resize, known.temperature) == (("a", "b"), 8, "crop", 1.5)


def test_a_checkpoint_is_to_be_exported_first(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    path.write_bytes(b"PK\3\4")
    with pytest.raises(ContractError, match="not an ONNX file, or a damaged one: export it with") as error:
        contract.read(path)
    assert str(error.value).endswith(f"python -m cifar_lightning export --ckpt_path {path.as_posix()}")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an empty file: was it copied"),
        (b"not an onnx file at all", "not an ONNX file, or a damaged one"),
        (field(7, b""), r"without a contract \(metadata key 'classifier'\): export it with"),
        (model_of({**INFO, "format": 2}), "contract format 2 is unknown: this version reads format 1"),
        (model_of({**INFO, "input": {"size": 8, "resize": "magic"}}), "cannot be read .*magic"),
        (model_of({key: value for key, value in INFO.items() if key != "classes"}), "cannot be read .*classes"),
        (model_of({**INFO, "classes": ["a", "\ud800"]}), "cannot be read .*surrogates"),
        (model_of([]), "its contract cannot be read"),
        (model_of({**INFO, "sets": {**INFO["sets"], "method": "magic"}}), "cannot be read .*magic"),
        (model_of({**INFO, "classes": "0123456789"}), "cannot be read .*classes is not a list of names"),
        (model_of({**INFO, "classes": ["a", "a"]}), "cannot be read .*classes names one class twice"),
        (model_of({**INFO, "input": {"size": 0, "resize": "crop"}}), r"cannot be read .*input\.size is 0"),
        (model_of({**INFO, "input": {"size": 2049, "resize": "crop"}}), r"input\.size is 2049: .* from 1 to 2,048"),
        (model_of({**INFO, "temperature": float("nan")}), "cannot be read .*NaN is not a finite number"),
        (model_of({**INFO, "classes": []}), "cannot be read .*classes is not a list of names"),
        (model_of({**INFO, "temperature": "1"}), "cannot be read .*'1' is not a finite number"),
        (model_of({**INFO, "temperature": 0}), "cannot be read .*temperature is 0: it must be above 0"),
        (model_of({**INFO, "provenance": None}), "cannot be read .*provenance is not an object"),
        (model_of({**INFO, "temperature": 10**400}), "its contract cannot be read"),
        (field(7, b"") + field(14, field(1, b"classifier") + field(2, b"[" * 100_000)), "its contract cannot be read"),
        (model_of({**INFO, "golden": [SAMPLE]}), "cannot be read .*1 numbers for 2 classes"),
        (model_of({**INFO, "digest": "\ud800"}), "cannot be read .*digest is not 64 hexadecimal digits"),
        (model_of({**INFO, "format": True}), "contract format True is unknown"),
        (model_of({**INFO, "golden": {}}), "cannot be read .*golden is not a list"),
        (model_of({**INFO, "golden": [SAMPLE] * 65}), "cannot be read .*golden holds 65 samples: at most 64"),
    ],
    ids=["empty", "text", "no contract", "format", "resize mode", "no classes", "half a letter", "a list", "sets",
         "classes a text", "a class twice", "no size", "a huge size", "no temperature", "no class", "a text",
         "temperature 0", "provenance", "beyond floating point", "deep", "a golden sample of one class", "digest",
         "true", "golden", "many golden samples"],
)  # fmt: skip
def test_other_files_are_refused_with_the_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ContractError, match=reason) as error:
        contract.read(path)
    assert str(error.value).startswith(f"{path}: ")


GOLDEN = {**SAMPLE, "logits": [0.5, 0], "probabilities": [0.7, 0.3]}
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "facts",
    [
        {"cost": None}, {"metrics": []}, {"metrics": {"val/loss": NAN}},
        {"classes": ["a", ""]}, {"input": {"size": True, "resize": "crop"}},
        {"temperature": True}, {"temperature": INF},
        {"sets": {**INFO["sets"], "alpha": NAN}}, {"sets": {**INFO["sets"], "threshold": NAN}},
        {"unknown": {**INFO["unknown"], "threshold": NAN}},
        *({"golden": [{**GOLDEN, key: value}]} for key in ("logits", "probabilities")
          for value in ([1.0], "12", ["1", "2"], [NAN, 1])),
        {"golden": [{**GOLDEN, "file": "?"}]}, {"golden": [{**GOLDEN, "familiarity": NAN}]},
    ],
)  # fmt: skip
def test_no_part_of_it_may_be_anything(facts: dict[str, object]) -> None:
    """A threshold of NaN would leave every set with one label, and no picture unknown."""
    with pytest.raises(ContractError, match="its contract cannot be read"):
        contract.parse(model_of({**INFO, **facts}))


def test_numbers_of_thousands_of_digits_are_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Python's whole numbers have no end, and those that have no place in floating point ended `info`."""
    path = tmp_path / "m.onnx"
    path.write_bytes(model_of({**INFO, "cost": {"parameters": 10**15 - 1, "flops": -(10**400)}}))
    assert main(["info", str(path)]) == 0
    assert "999,999,999,999,999 parameters, -inf million operations" in capsys.readouterr().out


def test_a_net_may_see_one_pixel_and_know_one_picture() -> None:
    known = contract.parse(model_of({**INFO, "input": {"size": 1, "resize": "crop"}, "golden": [GOLDEN]}))
    assert known.size == 1
    assert known.golden == (contract.Golden("a", b"", "", "a", (0.5, 0.0), (0.7, 0.3)),)


def test_a_contract_without_end_is_not_read() -> None:
    """Parsed, its JSON would take twenty times as much memory; what other keys hold is not even copied."""
    text = json.dumps({**INFO, "padding": "x" * contract._MOST}).encode()
    others = field(14, field(1, b"other") + field(2, b"\xff" * 40_000_000))
    data = others + field(14, field(1, b"classifier") + field(2, text))
    tracemalloc.start()
    try:
        with pytest.raises(ContractError, match=r"its contract is of 32,\d+,\d+ bytes: more than 32,000,000"):
            contract.parse(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_file_that_is_too_large_for_onnx_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "backup.tar"
    path.write_bytes(bytes(1001))
    monkeypatch.setattr(contract, "MAX_BYTES", 1000)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read"))
    with pytest.raises(ContractError, match=r"backup\.tar: is of 1,001 bytes, and no ONNX file has more than 1,000$"):
        contract.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"m\.onnx: cannot be read \(No such file or directory\)"):
        contract.read(tmp_path / "m.onnx")


def largest_tensor(data: bytes) -> bytes:
    """Raw bytes of the model's largest weight."""
    (graph,) = (value for number, value in guard.fields(memoryview(data)) if number == 7)
    assert isinstance(graph, memoryview)
    tensors = [value for number, value in guard.fields(graph) if number == 5 and isinstance(value, memoryview)]
    raw = [bytes(v) for t in tensors for n, v in guard.fields(t) if n == 9 and isinstance(v, memoryview)]
    return max(raw, key=len)


def test_a_file_that_is_cut_off_is_refused_wherever_it_ends(model: Path) -> None:
    data = model.read_bytes()
    for length in np.random.default_rng(0).integers(0, len(data), 50):
        with pytest.raises(ContractError):
            contract.parse(data[:length])


def test_changed_weights_and_labels_are_damage(model: Path, changed: Callable[..., Path]) -> None:
    weights = largest_tensor(model.read_bytes())
    for old, new in ((weights[:1], bytes([weights[0] ^ 1])), (b'"7", "8"', b'"8", "7"')):
        with pytest.raises(ContractError, match="damaged or changed since it was exported"):
            Classifier(changed(old, new))


def test_golden_samples_find_a_change_that_was_sealed_anew(model: Path, changed: Callable[..., Path]) -> None:
    weights = largest_tensor(model.read_bytes())
    assert all(replay.ok for replay in Classifier(model).verify())
    assert not all(replay.ok for replay in Classifier(changed(weights, weights[::-1], seal=True)).verify())
    rotated = b'"classes": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]'
    wrong = b'"classes": ["9", "0", "1", "2", "3", "4", "5", "6", "7", "8"]'
    assert not any(replay.ok for replay in Classifier(changed(rotated, wrong, seal=True)).verify())
