"""What the documentation names is there: tests, links, files, commands, options and versions."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch.callbacks
import pytest
import torch

import cifar_onnx
from cifar_lightning import augment, callbacks, data, loss, mix, nets
from cifar_lightning.cli import usage
from cifar_lightning.cli.parser import _options
from cifar_lightning.leaderboard.command import _parser as leaderboard
from cifar_lightning.sweep.configs import OPTIONS as SWEEP
from cifar_onnx.__main__ import _parser
from tests.conftest import Run

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "configs/README.md", "export/README.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
CLASSES = {  # where those are that an option of the command line chooses
    "data": [data],
    "data.augment": [augment],
    "data.mix": [mix],
    "model.net": [nets],
    "model.loss": [loss],
    "model.optimizer": [torch.optim],
    "model.scheduler": [torch.optim.lr_scheduler],
    "trainer.callbacks": [callbacks, lightning.pytorch.callbacks],
}
OWN = {"model.net.width"}  # of the net that docs/experiments.md writes


def found(pattern: str) -> set[tuple[str, str]]:
    """The page and what a pattern finds in it."""
    return {(_name(page), each) for page in PAGES for each in re.findall(pattern, page.read_text(), re.MULTILINE)}


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def receiving(page: Path) -> Iterator[list[str]]:
    """Words behind `python -m cifar_onnx` in lines of code and between backticks, with those that may be left out."""
    text = re.sub(r"\s*\\\n\s*", " ", page.read_text())
    lines = re.findall(r"^ {4,}(?:\$ )?python -m cifar_onnx (.+)$", text, re.MULTILINE)
    for line in [*lines, *re.findall(r"`python -m cifar_onnx\s([^`]+)`", text)]:
        yield shlex.split(re.sub(r"\s#.*|[\[\]]", "", line))


def test_the_command_beside_each_promise_selects_tests() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    text = text.replace("`... ", "`pytest export/tests/test_hostile_clients.py ")
    commands = re.findall(r'`pytest ((?:[\w/]+\.py ?)+)(?:-k "?([^"`]+))?', text)
    assert len(commands) > 30
    for files, words in commands:
        source = "".join((ROOT / file).read_text() for file in files.split()).lower()
        names = " ".join(re.findall(r"(?:def|class) (test\w+)", source))
        for word in words.lower().split(" or "):
            assert word in names, f"no test of {files}is called {word}"


def test_links_lead_somewhere() -> None:
    """To a file or folder of the repository and, behind #, to a heading, as GitHub names them."""
    pages = [*PAGES, ROOT / "CHANGELOG.md"]
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text())]
    assert len(links) > 40
    for page, link in links:
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{_name(page)}: {link}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in slugs, f"{_name(page)}: {link}"


def test_files_are_there() -> None:
    files = found(r"\b(?:benchmarks|configs|export|tests)/[\w/]+\.(?:mjs|py|yaml)\b")
    assert len(files) > 20
    assert [each for each in files if not (ROOT / each[1]).exists() and each[1] != "configs/X.yaml"] == []


def test_commands_of_the_receiver_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [(_name(page), words) for page in PAGES for words in receiving(page)]
    assert {words[0] for _, words in commands} >= {"classify", "compare", "evaluate", "serve", "verify", "web"}
    for page, words in commands:
        try:
            _parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{page}: {shlex.join(words)}: {capsys.readouterr().err}")


def test_options_of_training_are_taken(run: Run) -> None:
    listed = set(re.findall(r"--([\w.]+)", run("fit", "--help_all").out))
    for group, modules in CLASSES.items():
        classes = {cls for module in modules for cls in vars(module).values() if isinstance(cls, type)}
        listed |= {f"{group}.{name}" for cls in classes for name in _options(cls)}
    named = found(r"--((?:data|model|trainer|checkpoint|last)\.[\w.]*\w)")
    assert len(named) > 60
    assert [each for each in named if each[1] not in listed | OWN] == []
    # Those without a dot stand behind commands, or by themselves between backticks, as some of the receiver's do.
    (receiver,) = (each for each in _parser()._actions if isinstance(each.choices, dict))
    parsers = [*receiver.choices.values(), leaderboard()]
    texts = [*usage.OPTIONS.values(), *(each.format_help() for each in parsers)]
    listed |= {*re.findall(r"--([\w.-]+)", "".join(texts)), *SWEEP}
    begin = "|".join([*usage.OPTIONS, *receiver.choices, "runs", "--"])
    lines = found(rf"(?:^ {{4,}}python -m cifar_lightning |`(?={begin}))([^`\n]+(?:\\\n[^\n]+)?)")
    named = {(page, each) for page, line in lines for each in re.findall(r"(?:^| )--([a-z][\w-]+)(?!\S*\.)", line)}
    assert {each for _, each in named} >= {"ckpt_path", "experiment", "max-body", "others", "precision", "sort"}
    assert [each for each in named if each[1] not in listed] == []


def test_versions_are_those_that_are_installed() -> None:
    wanted = json.loads((ROOT / "export/js/package.json").read_text())["dependencies"]
    packages = found(r"\b((?:onnxruntime-web|sharp)@[\d.]*\d)")
    assert {each for _, each in packages} == {f"{name}@{version}" for name, version in wanted.items()}
    assert {each for _, each in found(r"cifar_onnx-([\d.]+)-py3")} == {cifar_onnx.__version__}
