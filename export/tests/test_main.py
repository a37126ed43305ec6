"""The receiver's command line."""

import csv
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import zlib
from collections.abc import Callable
from errno import EINVAL, ENOSPC
from pathlib import Path, PureWindowsPath
from unittest.mock import Mock

import pytest
from handmade import INFO, colours, with_info
from PIL import Image

from cifar_onnx import InputError, Prediction, contract, shell
from cifar_onnx.__main__ import main
from cifar_onnx.folders import files

Said = Callable[..., str]
SAMPLES = [
    *("1-plain.png", "2-wide.png", "3-tall.png", "4-grey.png", "5-16-bit grey.png"),
    *("6-transparent.png", "7-rotated.png", "8-JPEG.jpg"),
]


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that holds `model.onnx`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(model.read_bytes())


def test_classify_prints_a_row_for_every_picture(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "digits"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 8
    for row in rows:
        path, label, probability, percent = re.match(r"(\S+)\s+(\d)\s+([\d.]+)(%)", row).groups()  # type: ignore[union-attr]
        assert Path(path).stem[-1] == label
        assert 10 < float(probability) <= 100
        assert percent == "%"


@pytest.mark.parametrize(
    ("labels", "unknown", "said"),
    [
        (("0",), False, " 50.0%"),
        (("0", "1"), False, "not sure: 0 or 1"),
        (tuple("0123456789"), False, "not sure: 0 or 1 or 2 or 3 or 6 more"),
        (("0",), True, "unknown: unlike the pictures it was trained on"),
    ],
)
def test_doubts_are_said_behind_the_label(
    labels: tuple[str, ...],
    unknown: bool,
    said: str,
    digits: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = Prediction("0", 0.5, ("0", "1"), (0.5, 0.5), labels, unknown, 1.0)
    monkeypatch.setattr("cifar_onnx.Classifier.stream", lambda *_: iter([answer] * 8))
    assert main(["classify", "digits"]) == 0
    assert all(line.endswith(said) for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(("alpha", "share"), [(0.1, "90%"), (0.025, "97.5%"), (0.001, "99.9%")])
def test_what_sets_promise_is_not_rounded_up(
    alpha: float, share: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.onnx").write_bytes(colours(sets={**INFO["sets"], "alpha": alpha}))
    assert main(["info", str(tmp_path / "m.onnx")]) == 0
    assert f"sets are made to hold the right label for at least {share} of pictures" in capsys.readouterr().out


def test_a_bad_file_is_a_row_and_the_others_go_on(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.jpg").write_text("no picture")
    first = sorted(digits.iterdir())[0]
    assert main(["classify", "bad.jpg", "nowhere.png", "*.gif", str(first)]) == 1
    rows = capsys.readouterr().out.splitlines()
    assert re.match(r"bad\.jpg +error: not a picture", rows[0])
    assert re.match(r"nowhere\.png +error: no such file", rows[1])
    assert re.match(r"\*\.gif +error: .*no file matches", rows[2])
    assert "error" not in rows[3]


def test_so_is_a_name_that_no_file_can_have(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = sorted(digits.iterdir())[0]
    assert main(["classify", "x" * 300, str(first)]) == 1
    long, row = capsys.readouterr().out.splitlines()
    assert long.startswith("x" * 300 + "  error: ")
    assert "error" not in row


def test_json_lines(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "digits", "nowhere.png", "--json", "--top-k", "3"]) == 1
    *answers, error = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for answer in answers:
        assert answer["label"] == Path(answer["path"]).stem[-1]
        assert answer["top"][0] == {"label": answer["label"], "probability": answer["probability"]}
        assert len(answer["top"]) == 3
    assert error == {"path": "nowhere.png", "error": "no such file"}


def test_csv(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "digits/*.png", "nowhere.png", "--csv", "--top-k", "2"]) == 1
    *answers, error = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert len(answers) == 8
    for answer in answers:
        assert answer["label"] == Path(answer["path"]).stem[-1]
        assert float(answer["probability"]) >= float(answer["probability_2"])
        assert answer["error"] == ""
    assert (error["label"], error["error"]) == ("", "no such file")


def test_columns_of_csv_end_with_the_classes_whatever_is_asked_for(  # type: ignore[no-untyped-def]
    digits: Path, capsys: pytest.CaptureFixture[str], changed
) -> None:
    """More labels than there are, and all of them in the set."""
    path = changed(b'"threshold": 0.', b'"threshold": 1.', seal=True)
    assert main(["classify", "digits", "--model", str(path), "--csv", "--top-k", "200000"]) == 0
    for answer in csv.DictReader(io.StringIO(capsys.readouterr().out)):
        assert None not in answer
        assert [name for name in answer if name.startswith("label_")] == [f"label_{rank}" for rank in range(2, 11)]
        assert answer["error"] == ""
        assert sorted(answer["labels"].split("|")) == list("0123456789")
        assert answer["unknown"] in ("true", "false")


def test_many_pictures_run_in_several_batches(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(path) for path in sorted(digits.iterdir())] * 40
    assert main(["classify", *paths, "--csv"]) == 0
    answers = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [answer["path"] for answer in answers] == paths
    assert all(answer["label"] == Path(answer["path"]).stem[-1] for answer in answers)


def test_info_in_words_as_json_and_with_samples(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["info", "--samples", "samples"]) == 0
    out = capsys.readouterr().out
    made = "image: uint8 [batch, height, width, 3], RGB of any size, resized to 32 x 32 in the graph (stretch)"
    for words in ("classes   10: 0, 1, 2", made, "metric    val/accuracy 1.0", "8 samples"):
        assert words in out
    assert sorted(path.name for path in Path("samples").iterdir()) == SAMPLES
    assert main(["info", "model.onnx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == 1


def test_samples_stay_in_the_folder_that_is_named(changed, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = changed(b'"name": "plain"', b'"name": "../in"', seal=True)
    assert main(["info", str(path), "--samples", "samples/here"]) == 0
    assert (tmp_path / "samples/here/1--in.png").exists()
    assert [each.name for each in (tmp_path / "samples").iterdir()] == ["here"]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("commands", "classify digits"),
        ("commands", "verify"),
        ("evaluation.subject", "evaluate model.onnx digits"),
        ("evaluation.subject", "compare model.onnx model.onnx digits"),
    ],
)
def test_threads_and_providers_are_those_that_were_typed(
    module: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if module != "commands":
        pytest.importorskip("sklearn")
    made = Mock(side_effect=InputError("seen"))
    monkeypatch.setattr(f"cifar_onnx.{module}.Classifier", made)
    assert main([*words.split(), "--threads", "3", "--provider", "cuda", "--provider", "cpu"]) == 2
    assert capsys.readouterr().err == "error: seen\n"
    given = made.call_args.kwargs
    assert (given["threads"], given["providers"]) == (3, ["cuda", "cpu"])


def test_verify_replays_the_golden_samples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify"]) == 0
    assert "8 of 8 golden samples give the expected answer, by onnxruntime" in capsys.readouterr().out


def test_verify_finds_wrong_answers(changed, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    right, wrong = (json.dumps(order).encode() for order in (list("0123456789"), list("1032547698")))
    assert main(["verify", str(changed(right, wrong, seal=True))]) == 1
    out = capsys.readouterr().out
    assert "WRONG, expected" in out
    assert "0 of 8 golden samples" in out


@pytest.mark.parametrize("stage", ["familiarity", "probabilities"])
def test_where_the_label_is_right_none_is_expected(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    data, known = contract.read("model.onnx")
    sample = known.info["golden"][0]
    off = {"familiarity": 1e6, "probabilities": [0.9 * p + 0.01 for p in sample["probabilities"]]}
    golden = [{**sample, stage: off[stage]}]
    Path("unlike.onnx").write_bytes(with_info(data, {**known.info, "digest": contract.BLANK, "golden": golden}))
    assert main(["verify", "unlike.onnx"]) == 1
    assert f": WRONG: the stage that differs is {stage}\n" in capsys.readouterr().out


def test_a_file_without_golden_samples_is_not_verified(capsys: pytest.CaptureFixture[str]) -> None:
    data, known = contract.read("model.onnx")
    Path("none.onnx").write_bytes(with_info(data, {**known.info, "digest": contract.BLANK, "golden": []}))
    assert main(["verify", "none.onnx"]) == 1
    assert "0 of 0 golden samples" in capsys.readouterr().out


def test_verify_refuses_a_changed_byte(changed, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert main(["verify", str(changed(b'"seed": 0', b'"seed": 1'))]) == 2
    assert "changed.onnx: damaged or changed since it was exported" in capsys.readouterr().err


def test_a_folder_may_be_called_as_a_model_is(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = digits.rename(digits.with_name("digits.onnx"))
    assert main(["classify", str(named)]) == 0
    assert "digits.onnx" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["fit", "--data", "x"], "fit is a command of the package that trains: python -m cifar_lightning"),
        (["classify", "x.png", "--model", "nowhere.onnx"], "error: nowhere.onnx: cannot be read"),
        (["classify", "x.png", "--provider", "warp"], "error: unknown execution provider 'warp'"),
        (["classify", "b.ONNX", "x.png"], "error: b.ONNX is a model, not a picture: name it by --model"),
        (["classify", "x.png", "--threads", "0"], "'0' is not a whole number from 1 up"),
        (["evaluate", "m.onnx", "x", "--resamples", "9999999999"], "is not a whole number from 1 to 100000"),
        (["evaluate", "m.onnx", "x", "--size", "100000"], "'100000' is not a whole number from 1 to 2048"),
        (["classify"], "PATH"),
        (["clasify", "x.png"], "classify"),
    ],
)
def test_mistakes_end_with_exit_code_2(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    assert sentence in capsys.readouterr().err


def test_a_full_disk_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> int:
        raise OSError(ENOSPC, os.strerror(ENOSPC))

    monkeypatch.setattr("cifar_onnx.commands.info", full)
    assert main(["info"]) == 2
    assert capsys.readouterr().err == "error: what was to be written: No space left on device\n"


@pytest.mark.skipif(os.name != "posix", reason="a pipe of POSIX")
def test_a_reader_that_has_seen_enough_is_no_mistake(digits: Path, said: Said) -> None:
    """As `head` does: exit code 0, and not a word."""
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "cifar_onnx", "classify", "digits", "--json"]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, said(done.stderr)) == (0, "")


@pytest.mark.parametrize(
    ("platform", "error", "closed"),
    [
        ("linux", BrokenPipeError(), True),
        ("win32", OSError(EINVAL, "Invalid argument"), True),
        ("win32", OSError(EINVAL, "Invalid argument", "con?.png"), False),
        ("win32", OSError(ENOSPC, "No space left on device"), False),
        ("linux", OSError(EINVAL, "Invalid argument"), False),
    ],
)
def test_on_windows_a_reader_that_has_gone_is_an_invalid_argument(
    platform: str, error: OSError, closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert shell.pipe_closed(error) == closed
    if closed:  # and is left to who ends the process
        monkeypatch.setattr("cifar_onnx.commands.info", Mock(side_effect=error))
        with pytest.raises(type(error)):
            main(["info"])


def test_a_duration_has_the_units_that_matter() -> None:
    seconds = {0.4: "0 s", 59.6: "1 min 00 s", 3599: "59 min 59 s", 3600: "1 h 00 min", 30 * 3600: "30 h 00 min"}
    assert [shell.duration(each) for each in seconds] == [*seconds.values()]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize(
    "words", ["classify digits", "classify digits --csv", "classify digits nowhere.png --csv", "--help"]
)
def test_an_output_that_cannot_be_written_is_one_sentence(words: str, digits: Path, said: Said) -> None:
    """Exit code 1 would mean that a picture failed."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "cifar_onnx", *words.split()]
        env = {**os.environ, "PYTHONUNBUFFERED": ""}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=env)
    assert done.returncode == 2
    assert re.fullmatch("error: .*: No space left on device\n", said(done.stderr))


@pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
@pytest.mark.parametrize("words", ["info", "classify digits --csv"])
def test_without_an_output_there_is_still_an_exit_code(words: str, digits: Path, said: Said) -> None:
    words = f"{shlex.quote(sys.executable)} -m cifar_onnx {words} >&-"
    done = subprocess.run(words, shell=True, stderr=subprocess.PIPE)
    assert (done.returncode, said(done.stderr)) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_names_of_files_need_not_be_text(digits: Path, said: Said) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    next(digits.iterdir()).rename(name)
    words = [sys.executable, "-m", "cifar_onnx", "classify", name]
    done = subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert (done.returncode, said(done.stderr)) == (0, "")
    assert done.stdout.startswith(b"caf\\udce9.png ")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files may not have these letters")
def test_a_pipe_gets_utf_8_where_the_locale_is_another(digits: Path, said: Said) -> None:
    next(digits.iterdir()).rename("café 猫.png")
    locale = "sys.stdout.reconfigure(encoding='cp1252'); sys.stderr.reconfigure(encoding='cp1252')"
    code = f"import runpy, sys; {locale}; runpy.run_module('cifar_onnx', run_name='__main__', alter_sys=True)"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    words = [sys.executable, "-c", code, "classify", "--csv", "café 猫.png"]
    done = subprocess.run(words, capture_output=True, env=env)
    assert done.stdout.decode().splitlines()[1].startswith("café 猫.png,")
    words[3:] = ["info", "猫.onnx"]
    done = subprocess.run(words, capture_output=True, env=env)
    assert said(done.stderr).startswith("error: 猫.onnx: ")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files may not have these letters")
def test_a_pipe_gets_the_encoding_that_is_asked_for(digits: Path, said: Said) -> None:
    words = [sys.executable, "-m", "cifar_onnx", "info", "café 猫.onnx"]
    done = subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "cp1252"})
    assert said(done.stderr, "cp1252").startswith(r"error: café \u732b.onnx: ")


def test_of_large_pictures_each_gets_its_sentence_and_pillow_says_nothing(digits: Path, said: Said) -> None:
    """Pillow warns from 89 million pixels on, and refuses twice as many by a sentence that names its own limit."""
    png = next(digits.iterdir()).read_bytes()
    for side in (9_900, 15_000):
        header = b"IHDR" + side.to_bytes(4, "big") * 2 + b"\x08\0\0\0\0"
        png = png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]
        Path(f"{side}.png").write_bytes(png)
    Image.new("RGB", (8, 8)).save("exif.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08")  # rotten, of which it warns, too
    words = [sys.executable, "-m", "cifar_onnx", "classify", "9900.png", "15000.png", "exif.jpg"]
    done = subprocess.run(words, capture_output=True)
    assert (done.returncode, said(done.stderr)) == (1, "")
    first, second, third = done.stdout.decode().splitlines()
    assert first.startswith("9900.png   error: cannot be decoded")  # its pixels are not there
    assert second == "15000.png  error: it has more pixels than the limit of 100,000,000"
    assert "error" not in third


def test_names_from_anybody_do_not_steer_the_terminal(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences in a model's class names and provenance, and a line break in the name of a file."""
    data, known = contract.read("model.onnx")
    (golden, *_) = known.info["golden"]
    classes = ["\x1b]0;mine\x07", *known.classes[1:]]
    info = {**known.info, "digest": contract.BLANK, "classes": classes, "provenance": {"\x1b[2J": "\x9b2J"}}
    Path("odd.onnx").write_bytes(with_info(data, {**info, "golden": [{**golden, "name": "a\r"}]}))
    path = next(digits.iterdir())
    path = path.rename(path.parent / "a\nb.png") if os.name == "posix" else path
    for words in (["classify", str(path), "--top-k", "10", "--model", "odd.onnx"], ["info", "odd.onnx"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert r"\x1b]0;mine\x07" in out
        assert all(line.isprintable() for line in out.splitlines())
        assert words[0] == "info" or len(out.splitlines()) == 1
    main(["verify", "odd.onnx"])
    assert capsys.readouterr().out.startswith(r"a\x0d")
    assert main(["info", "\x1b[2J.onnx"]) == 2
    assert r"error: \x1b[2J.onnx: cannot be read" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_an_interruption_is_one_word(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("cifar_onnx.commands.info", interrupted)
    monkeypatch.setattr(sys, "argv", ["cifar_onnx", "info"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("cifar_onnx", run_name="__main__")
    assert (stop.value.code, capsys.readouterr().err) == (130, "interrupted\n")


def test_facts_of_any_form_are_told(changed, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    path = changed(b'"cost": {"parameters"', b'"cost": {"pyrameters"', seal=True)
    assert main(["info", str(path)]) == 0
    assert "golden    8 samples" in capsys.readouterr().out


def test_what_is_left_out_of_a_folder_is_named(model: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.HEIC", "notes.txt"):
        (digits / name).touch()
    assert main(["classify", "--model", str(model), str(digits)]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 8
    assert err == f"{digits}: skipped 2 files whose names do not end like a picture's, such as {digits / 'a.HEIC'}\n"


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png", "b/.hidden/3.png", "elsewhere/4.png", "elsewhere/.5.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for link, target in (("a/more", "elsewhere"), ("a/up", "."), ("a/b", "b"), ("b/a", "a")):
        (tmp_path / link).symlink_to(tmp_path / target)
    found = [str(path.relative_to(tmp_path)) for path in files(tmp_path / "a")]
    assert found == ["a/1.png", "a/b/2.png", "a/more/4.png"]


def test_nothing_is_fetched(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--model", str(model), "https://host/a.jpg"]) == 1
    assert "https://host/a.jpg  error: nothing is fetched from elsewhere" in capsys.readouterr().out


@pytest.mark.parametrize("asked", [{}, {"ORT_DISABLE_TELEMETRY": "0"}], ids=["by default", "asked"])
def test_onnxruntime_sends_nothing_unless_it_is_asked_to(asked: dict[str, str], tmp_path: Path) -> None:
    """Where it does, as version 1.32, it leaves an identifier of the machine in the home folder once it is loaded."""
    own = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    words = [sys.executable, "-c", "import os, cifar_onnx; print(os.environ['ORT_DISABLE_TELEMETRY'])"]
    done = subprocess.run(words, capture_output=True, text=True, env={**own, **asked, "HOME": str(tmp_path)})
    assert done.stdout == ("0\n" if asked else "1\n"), done.stderr
    assert asked or not list(tmp_path.rglob("deviceid"))


def test_commands_to_paste_are_quoted_as_the_shells_of_the_machine_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("python", PureWindowsPath(r"my runs\a b.onnx"), r"c\d.onnx", '{"a": 1}')
    assert shlex.split(shell.line(*words)) == ["python", "my runs/a b.onnx", r"c\d.onnx", '{"a": 1}']
    monkeypatch.setattr(sys, "platform", "win32")
    assert shell.line(*words[:3]) == r'python "my runs/a b.onnx" c\d.onnx'


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert re.fullmatch(r"cifar-onnx \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_help_says_what_is_missing_before_a_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Classify pictures with a model.onnx; check, measure and serve it." in said
    assert "(needs the extra [evaluate]) compare compare two models on the same pictures (needs [evaluate])" in said
    assert "with a page for people (needs [serve])" in said
