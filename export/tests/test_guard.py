"""Hostile and damaged files: refused on their bytes, or in a trial that may die of them."""

import io
import json
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from handmade import INFO, field, model_of

from cifar_onnx import Classifier, ContractError, contract, guard, probe
from cifar_onnx.__main__ import main


def tensor(*dims: int, raw: bytes | None = None) -> bytes:
    """A float tensor."""
    data = b"".join(field(1, dim) for dim in dims) + field(2, 1)
    return data if raw is None else data + field(9, raw)


def node(operation: str, *attributes: bytes, domain: str = "") -> bytes:
    """A node within a graph."""
    inner = field(4, operation.encode()) + field(7, domain.encode()) + b"".join(field(5, each) for each in attributes)
    return field(1, inner)


def shaped(side: int) -> bytes:
    """What a graph says of a value with one side."""
    return field(2, field(1, field(2, field(1, field(1, side)))))


WEIGHT = field(5, tensor(2, raw=bytes(8)))
HOSTILE = {
    "external data": (field(5, field(13, b"x")), "weights outside the file"),
    "external data in a field of its own": (field(5, field(14, 1)), "weights outside the file"),
    "external data in an attribute": (node("Constant", field(5, field(14, 1))), "weights outside the file"),
    "external data in a list": (node("Constant", field(10, field(13, b""))), "weights outside the file"),
    "a loop": (node("Loop"), "loops or branches"),
    "a branch": (node("If"), "loops or branches"),
    "a scan": (node("Scan"), "loops or branches"),
    "a map over a sequence": (node("SequenceMap"), "loops or branches"),
    "a graph in a graph": (node("Custom", field(6, WEIGHT)), "graphs within its graph"),
    "graphs in a graph": (node("Custom", field(11, WEIGHT)), "graphs within its graph"),
    "a domain": (node("Evil", domain="com.evil"), "needs operations of 'com.evil'"),
    "sparse weights": (field(15, b""), "sparse weights"),
    "sparse attribute": (node("Constant", field(22, b"")), "sparse weights"),
    "sparse attributes": (node("Constant", field(23, b"")), "sparse weights"),
    "weights in segments": (field(5, field(3, b"")), "weights in segments"),
    "a huge side": (field(5, tensor(2**29 + 1)), "is too large"),
    "a huge side beside none": (field(5, tensor(2**40, 0)), "is too large"),
    "a huge product": (field(5, tensor(2**20, 2**20)), "is too large"),
    "a negative side": (field(5, tensor(2**64 - 1)), "is too large"),
    "packed sides": (field(5, field(1, b"\x80\x80\x80\x80\x10\x02")), "is too large"),
    "more sides than numpy knows": (field(5, field(1, b"\x01" * 65)), "is too large"),
    "more sides one by one": (field(5, field(1, 1) * 65), "is too large"),
    # Putting it together would take time that grows with the square of its length.
    "a side without an end": (field(5, field(1, b"\x80" * 100_000)), "not an ONNX file, or a damaged one"),
    "a side of eleven bytes": (field(5, b"\x08" + b"\x80" * 10 + b"\x00"), "not an ONNX file, or a damaged one"),
    "a side that is cut off": (field(5, field(1, b"\x02\x80")), "not an ONNX file, or a damaged one"),
    "too few bytes": (field(5, tensor(3, raw=bytes(8))), "bytes do not fit its size"),
    "too many bytes": (field(5, tensor(3, raw=bytes(16))), "bytes do not fit its size"),
    "a huge input": (field(11, shaped(2**40)), "is too large"),
    "a huge output": (field(12, shaped(2**40)), "is too large"),
    "a huge value in between": (field(13, shaped(2**40)), "is too large"),
    "many nodes": (node("Relu") * (guard.MAX_NODES + 1), "20,001 operations"),
    "a number for a graph": (field(1, 7), "not an ONNX file, or a damaged one"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_before_onnxruntime_sees_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    graph, reason = HOSTILE[name]
    (tmp_path / "m.onnx").write_bytes(model_of(INFO, WEIGHT + graph))
    with pytest.raises(ContractError, match=reason):
        Classifier(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        (field(20, b""), "training information"),
        (field(25, field(7, node("Relu"))), "functions of its own"),
        (field(8, field(1, b"ai.onnx.ml") + field(2, 3)), "needs operations of 'ai.onnx.ml'"),
    ],
)
def test_files_with_more_than_a_graph_are_refused(rest: bytes, reason: str) -> None:
    with pytest.raises(ContractError, match=reason):
        contract.parse(model_of(INFO) + rest)


@pytest.mark.parametrize(
    "more",
    [
        field(2, b"") * 301,  # which is seen while the contract is looked for
        field(14, field(3, b"") * 301),
        field(7, field(11, field(3, b"") * 99) * 4),
    ],
    ids=["in the file", "beside the contract", "together"],
)
def test_a_file_of_too_many_fields_is_refused(more: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_FIELDS", 300)
    with pytest.raises(ContractError, match="holds more than 300 fields"):
        contract.parse(contract.seal(more + field(14, field(1, b"classifier") + field(2, json.dumps(INFO).encode()))))


@pytest.mark.parametrize(
    ("outside", "inside"),
    [
        (field(7 + 2**29, node("Loop")), b""),  # whose lower half is the number of a graph
        (field(0, b""), b""),
        (field(7, node("Relu")), b""),  # merged with the other, and so beyond bounds that neither exceeds
        (b"", node("Constant", field(5, tensor(2**20)) + field(5, tensor(2**20)))),
        (b"", field(11, shaped(1) + shaped(1))),
        (b"", field(11, field(2, 2 * field(1, b"")))),
        (b"", field(11, field(2, field(1, 2 * field(2, b""))))),
        (b"", field(5, field(14, 1 + 2**32))),
        (b"", field(5, field(1, 3) + field(2, 2) + field(2, 1) + field(9, bytes(3)))),  # the last of them counts
        (b"", field(5, field(1, 3) + field(2, 1 + 2**32) + field(9, bytes(8)))),
    ],
)
def test_what_onnxruntime_would_read_otherwise_is_refused(outside: bytes, inside: bytes) -> None:
    with pytest.raises(ContractError, match=r"not an ONNX file|weights outside|bytes do not fit"):
        contract.parse(model_of(INFO, WEIGHT + inside, outside))


def test_sides_without_end_take_no_memory() -> None:
    """As numbers they would take eight times their bytes, or more, before they are counted."""
    data = model_of(INFO, field(5, field(1, b"\x01" * 500_000) + field(1, b"\x01" * 500_000)))
    tracemalloc.start()
    try:
        with pytest.raises(ContractError, match="is too large"):
            guard.check(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_plain_file_passes() -> None:
    inside = field(5, field(14, 0) + tensor(1, raw=bytes(4)))
    contract.parse(model_of(INFO, WEIGHT + node("Relu") + node("Conv", inside)))


def test_bounds_are_passed_by_nothing_that_reaches_them() -> None:
    nodes = node("Relu", domain="ai.onnx") * guard.MAX_NODES
    contract.parse(model_of(INFO, nodes + field(5, tensor(2**29)) + field(11, shaped(2**29))))


@pytest.mark.parametrize(
    ("size", "kinds"), [(1, (2, 3, 9)), (2, (4, 5, 10, 16)), (4, (1, 6, 12)), (8, (7, 11, 13, 14)), (16, (15,))]
)
def test_elements_of_every_type_have_their_size(size: int, kinds: tuple[int, ...]) -> None:
    """onnx.TensorProto.DataType: 6 is INT32, 10 FLOAT16, 14 COMPLEX64; and sides may be packed or not."""
    for kind in kinds:
        for sides in (field(1, 3) + field(1, 300), field(1, b"\x03\xac\x02")):
            contract.parse(model_of(INFO, field(5, sides + field(2, kind) + field(9, bytes(900 * size)))))
            with pytest.raises(ContractError, match="bytes do not fit"):
                contract.parse(model_of(INFO, field(5, sides + field(2, kind) + field(9, bytes(900 * size - 1)))))


def test_numbers_of_a_fixed_length_are_passed_over() -> None:
    message = bytes([1 << 3 | 1, *range(8), 2 << 3 | 5, *range(4), 3 << 3, 7])
    assert list(guard.fields(memoryview(message))) == [(1, bytes(range(8))), (2, bytes(range(4))), (3, 7)]


def test_of_a_thousand_bit_flips_a_thousand_are_refused(model: Path) -> None:
    data = model.read_bytes()
    generator = np.random.default_rng(0)
    for position in generator.choice(len(data), 1000, replace=False):
        broken = bytearray(data)
        broken[position] ^= 1 << int(generator.integers(8))
        with pytest.raises(ContractError):
            contract.parse(bytes(broken))


def test_mutants_meet_with_nothing_but_a_clean_refusal() -> None:
    """Bytes changed, cut out, doubled and cut off, and the digest made right again, so that all else is looked at."""
    seeds = [model_of(INFO, WEIGHT + graph) for graph, _ in HOSTILE.values() if len(graph) < 1000]
    seeds.append(model_of(INFO, WEIGHT + node("Conv", field(5, tensor(1, raw=bytes(4))))))
    digests = [contract.parse(seeds[-1]).digest.encode(), contract.BLANK.encode()]
    generator = np.random.default_rng(1)
    taken = 0
    for number in range(20_000):
        data = bytearray(seeds[number % len(seeds)].replace(*digests))
        for _ in range(generator.integers(1, 4)):
            at, length = (int(x) for x in generator.integers(0, [max(len(data), 1), 9]))
            match generator.integers(4):
                case 0:
                    data[at : at + length] = generator.bytes(length)
                case 1:
                    del data[at : at + length]
                case 2:
                    data[at:at] = data[at : at + length]
                case _:
                    data[at : at + 1] = bytes([generator.choice([0, 1, 0x7F, 0x80, 0xFF])])
        try:
            contract.parse(contract.seal(bytes(data)))
        except ContractError:
            continue
        taken += 1
    assert taken < 5000


def bomb(model: Path, amount: int, by_level: bool = False) -> bytes:
    """The classifier of digits with more: a tensor of zeros of so many elements, which the guard lets pass.

    By level there are so many for each grey level of the brightest pixel.
    """
    import struct

    data = model.read_bytes()
    digest = contract.parse(data).digest
    shape = field(1, 1) + field(2, 7) + field(8, b"bomb/shape") + field(9, struct.pack("<q", amount))
    brightest = field(1, b"image") + field(2, b"bomb/max") + field(4, b"ReduceMax")
    brightest += field(5, field(1, b"keepdims") + field(3, 0) + field(20, 2))
    level = field(1, b"bomb/max") + field(2, b"bomb/level") + field(4, b"Cast")
    level += field(5, field(1, b"to") + field(3, 7) + field(20, 2))
    times = field(1, b"bomb/shape") + field(1, b"bomb/level") + field(2, b"bomb/times") + field(4, b"Mul")
    making = field(1, b"bomb/times" if by_level else b"bomb/shape") + field(2, b"bomb") + field(4, b"ConstantOfShape")
    spending = field(1, b"bomb") + field(2, b"bomb/sum") + field(4, b"ReduceSum")
    output = field(1, b"bomb/sum") + field(2, field(1, field(1, 1)))
    counting = b"".join(field(1, each) for each in (brightest, level, times)) if by_level else b""
    more = field(5, shape) + counting + field(1, making) + field(1, spending) + field(12, output)
    parts = [
        (number, bytes(each) if isinstance(each, memoryview) else each)
        for number, each in guard.fields(memoryview(data))
    ]
    whole = b"".join(field(number, each + more if number == 7 else each) for number, each in parts)
    return contract.seal(whole.replace(digest.encode(), contract.BLANK.encode()))


def test_a_trial_spends_its_memory_on_the_file(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine of many CPUs the threads of numpy alone would take more than it may have."""
    begun: dict[str, str] = {}
    run = probe.subprocess.run
    monkeypatch.setattr(probe.subprocess, "run", lambda *args, **kept: begun.update(kept["env"]) or run(*args, **kept))
    probe.run(model.read_bytes(), "m")
    assert begun["OPENBLAS_NUM_THREADS"] == "1"


def test_a_trial_imports_nothing_from_where_the_user_is(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cifar_onnx", "resource"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])  # as in a notebook, and by python -m
    probe.run(model.read_bytes(), "m.onnx")


def test_a_trial_finds_packages_where_its_parent_does(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook that has put a folder into sys.path, or an app that brings its packages along."""
    (tmp_path / "brought_along.py").write_text("def trial(): raise SystemExit('this one')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path, ""])
    monkeypatch.setattr(probe, "_TRIAL", probe._TRIAL.replace("cifar_onnx.probe", "brought_along"))
    with pytest.raises(ContractError, match=r"refused: its trial .* this one"):
        probe.run(model.read_bytes(), "m.onnx")


def test_a_trial_does_not_look_where_the_user_is_for_what_is_nowhere_else(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nearby.py").write_text("def trial(): raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, ""])
    monkeypatch.setattr(probe, "_TRIAL", probe._TRIAL.replace("cifar_onnx.probe", "nearby"))
    with pytest.raises(ContractError, match="No module named 'nearby'"):
        probe.run(model.read_bytes(), "m.onnx")


def test_a_trial_keeps_to_limits_that_are_lower_than_its_own(model: Path, said: Callable[..., str]) -> None:
    """A login node's, for one, which no process may raise."""
    pytest.importorskip("resource")
    lower = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (9, 9))"
    words = [sys.executable, "-P", "-c", f"{lower}; from cifar_onnx.probe import trial; trial()"]
    done = subprocess.run(words, input=model.read_bytes(), capture_output=True)
    assert (done.returncode, said(done.stderr)) == (0, "")


def test_a_trial_on_macos_sets_no_limit_that_is_refused_there(monkeypatch: pytest.MonkeyPatch) -> None:
    resource, taken = pytest.importorskip("resource"), {}

    def setrlimit(kind: int, limits: tuple[int, int]) -> None:
        if kind == resource.RLIMIT_AS:
            raise ValueError("current limit exceeds maximum limit")
        taken[kind] = limits

    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    monkeypatch.setattr(sys, "platform", "darwin")
    probe._limit(probe.MEMORY)
    assert {*taken} == {resource.RLIMIT_CPU, resource.RLIMIT_CORE}
    assert 0 < taken[resource.RLIMIT_CPU][0] <= 20


def test_what_the_guard_lets_pass_is_tried_in_a_process_of_its_own(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.onnx"
    path.write_bytes(bomb(model, 2**33))
    contract.read(path)
    with pytest.raises(ContractError, match=r"bomb\.onnx: refused: its trial with 2 GB of memory and 20 s of CPU"):
        Classifier(path, untrusted=True)
    path.write_bytes(bomb(model, 8))
    assert Classifier(path, untrusted=True).verify()[0].ok


@pytest.mark.parametrize(("amount", "refused"), [(2**26, True), (8, False)])
def test_it_is_tried_with_bright_pictures_too(model: Path, amount: int, refused: bool) -> None:
    """A black one would cost nothing, and a white one 64 GB."""
    data = bomb(model, amount, by_level=True)
    if refused:
        with pytest.raises(ContractError, match="the model: refused: its trial"):
            probe.run(data, "the model")
    else:
        probe.run(data, "the model")


def test_large_nets_have_the_time_that_four_pictures_take(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4.5 s each, on one thread."""
    threads = []
    monkeypatch.setattr(
        Classifier,
        "run",
        lambda self, _: threads.append(self._session.get_session_options().intra_op_num_threads),
    )
    probe._try(model.read_bytes())
    assert set(threads) == {1}
    assert 4.5 * len(threads) <= probe.SECONDS


def test_bytes_are_tried_as_a_file_is(model: Path) -> None:
    """As the server gives them: its file may be another by then."""
    with pytest.raises(ContractError, match="the model: refused: its trial"):
        Classifier(bomb(model, 2**33), untrusted=True)


def test_the_server_tries_what_it_serves(model: Path, tmp_path: Path) -> None:
    serving = pytest.importorskip("cifar_onnx.serving.model")
    path = tmp_path / "bomb.onnx"
    path.write_bytes(bomb(model, 2**33))
    with pytest.raises(ContractError, match=rf"^{re.escape(str(path))}: refused: its trial"):
        serving.ModelFile(path, serving.Settings(8, 10**6, 1), serving.Metrics())


def test_a_large_file_may_take_more_memory(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resource")
    limits = []
    monkeypatch.setattr(probe, "_limit", limits.append)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(model.read_bytes())))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=io.BytesIO()))
    probe.trial()
    assert limits == [2 * 2**30 + 5 * model.stat().st_size]


def test_a_trial_that_does_not_end_is_ended(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SECONDS", 0.01)
    with pytest.raises(ContractError, match="its trial has not ended after"):
        probe.run(model.read_bytes(), "m.onnx")


@pytest.mark.parametrize("executable", ["/bin/true", "/bin/nowhere", "", None])
def test_without_python_nothing_passes_as_tried(executable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app with Python inside may have a `sys.executable` that is the app, or none."""
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(ContractError, match=rf"^m\.onnx: refused: no Python .* \(sys.executable is {executable!r}\)$"):
        probe.run(b"anything", "m.onnx")


def test_a_frozen_app_is_not_started_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyInstaller and cx_Freeze say `sys.frozen`, and `sys.executable` is the app."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(probe.subprocess, "run", lambda *_, **__: pytest.fail("the app has started itself"))
    with pytest.raises(ContractError, match=r"^m\.onnx: refused: no Python was found to try it in"):
        probe.run(model.read_bytes(), "m.onnx")


def test_the_commands_try_it_if_asked(
    model: Path, tmp_path: Path, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bomb.onnx"
    path.write_bytes(bomb(model, 2**33))
    assert main(["verify", str(path), "--untrusted"]) == 2
    assert "refused: its trial" in capsys.readouterr().err
    assert main(["classify", "--model", str(model), "--untrusted", str(digits)]) == 0
