"""Mistakes in the names of options."""

import functools
import json
import random
import re
import string
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from torch import nn

from cifar_lightning.cli.lightning_cli import CLI
from cifar_lightning.cli.parser import Parser
from cifar_lightning.data import Digits
from cifar_lightning.module import Classifier
from cifar_lightning.nets import CNN
from tests.conftest import Run

OF_CLASSES = (
    *(f"model.net.init_args.{name}" for name in ("widths", "hidden", "dropout")),
    *(f"model.optimizer.init_args.{name}" for name in ("lr", "betas", "weight_decay", "amsgrad")),
    *(f"model.loss.init_args.{name}" for name in ("label_smoothing", "class_weights")),
    *(f"data.init_args.{name}" for name in ("root", "url", "batch_size", "augment", "val_fraction", "split_seed")),
)


class Built(Exception):
    """A parser has been built."""


@pytest.fixture
def parser(run: Run, monkeypatch: pytest.MonkeyPatch) -> Parser:
    """That of the command line, to be used more than once: to build it takes most of the time of a mistake."""
    found: list[Parser] = []

    def take(self: CLI, parser: Parser, args: object) -> None:
        found.append(parser)
        raise Built

    monkeypatch.setattr(CLI, "parse_arguments", take)
    with pytest.raises(Built):
        run("fit")
    return found[0]


def mutated(key: str, generator: random.Random) -> str:
    """A key with one or two letters put in, left out, replaced or swapped."""
    letters = list(key)
    while "".join(letters) == key:
        for _ in range(generator.choice((1, 2))):
            place, letter = generator.randrange(len(letters)), generator.choice(string.ascii_lowercase)
            match generator.randrange(4):
                case 0:
                    letters.insert(place, letter)
                case 1 if letters[place] != "." and len(letters) > 2:
                    del letters[place]
                case 2 if letters[place] != ".":
                    letters[place] = letter
                case 3 if place and "." not in letters[place - 1 : place + 1]:
                    letters[place - 1], letters[place] = letters[place], letters[place - 1]
    return "".join(letters)


def mutations(keys: set[str], count: int) -> Iterator[tuple[str, str]]:
    """Keys and what people type instead; never another valid key."""
    generator, names = random.Random(0), sorted(keys)
    while count:
        key = generator.choice(names)
        if (other := mutated(key, generator)) not in keys:
            yield key, other
            count -= 1


def nested(key: str, value: object) -> dict[str, object]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value  # type: ignore[return-value]


@pytest.mark.slow
def test_two_hundred_misspelt_keys_are_refused_and_95_percent_answered_with_the_right_one(
    parser: Parser, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = parser._subcommands_action._name_parser_map["fit"]  # type: ignore[union-attr]
    options = {action.dest for action in fit._actions if not action.dest.endswith("help")}
    groups = {".".join(option.split(".")[:-1]) for option in options}
    keys = {*(options - groups - {"config", "print_config", "model.classes"}), *OF_CLASSES}
    right, wrong = 0, []
    ways = (lambda key: [f"--{key}", "1"], lambda key: ["--config", json.dumps(nested(key, 1))])
    for (key, other), way in product(mutations(keys, 200), ways):
        words = way(other)
        with pytest.raises(SystemExit) as stop:
            parser.parse_args(["fit", *words])
        message = capsys.readouterr().err
        assert stop.value.code == 2
        assert message.startswith("error: ")
        assert message.count("\n") == 1
        hint = re.search(r"did you mean '(.*)'\?", message)
        same = hint and hint[1].replace(".init_args", "") == key.replace(".init_args", "")
        if same or (hint and key in OF_CLASSES and key.endswith(f".{hint[1]}")):
            right += 1
        else:
            wrong.append((key, other, message))
    assert right >= 380, wrong


class TestRefused:
    @pytest.mark.parametrize(
        "words", [["--trainer.max_ep", "3"], ["--exp", "x"], ["--ckpt", "x"], ["--conf", "x.yaml"]]
    )
    def test_an_abbreviation(self, run: Run, words: list[str]) -> None:
        result = run("fit", *words)
        assert result.code == 2
        assert f"there is no option {words[0][2:]!r}" in result.err

    @pytest.mark.parametrize(
        ("words", "right"),
        [
            (["--data", "ImageFolder", "--image_size", "64"], "data.image_size"),
            (["--config", "c.yaml", "--lr", "0.1"], "model.optimizer.lr"),
            (["--config", "c.yaml", "--dropout", "0.1"], "model.net.dropout"),
            (["--model.lr", "0.1"], "model.optimizer.lr"),
            (["--trainer.epochs", "3"], "trainer.max_epochs"),
            (["c.yaml"], "--config c.yaml"),
        ],
        ids=" ".join,
    )
    def test_an_option_out_of_its_place(self, run: Run, words: list[str], right: str) -> None:
        Path("c.yaml").write_text("data: Digits\nmodel: {net: {class_path: CNN}, optimizer: {class_path: Adam}}")
        result = run("fit", *words)
        assert result.code == 2
        assert result.err.splitlines()[-1].endswith(f": did you mean {right!r}?")

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("trainer: {max_epochs: 3}\ntrainer: {max_epochs: 4}\n", "'trainer' is given twice"),
            ("trainer:\n  max_epochs: 3\n  max_epochs: 4\n", "'max_epochs' is given twice"),
            (
                "data: {class_path: Digits, init_args: {augment: [{class_path: Mirror, class_path: Cutout}]}}",
                "class_path",
            ),
        ],
    )
    def test_a_key_that_is_given_twice(self, run: Run, text: str, name: str) -> None:
        Path("c.yaml").write_text(text)
        result = run("fit", "--config", "c.yaml")
        assert result.code == 2
        assert "c.yaml: not a YAML file" in result.err
        assert name in result.err
        assert "line" in result.err

    @pytest.mark.parametrize(
        "words",
        [
            ["--trainer.accelerator", "gpuu"],
            ["--trainer.strategy", "dpd"],
            ["--trainer.precision", "17"],
            ["--trainer.devices", "0"],
            ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitr", "x"],
            ["--model.net.dropuot", "1"],
            ["--data.augment+", "Miror"],
            ["--data.batch_size", "x"],
            ["--checkpoint.mode", "maxx"],
            ["--experiment", "../x"],
        ],
        ids=" ".join,
    )
    def test_before_data_or_model_is_built(self, run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
        for cls in (Digits, CNN, Classifier):
            monkeypatch.setattr(cls, "__init__", unbuilt(cls))
        result = run("fit", "--data", "Digits", *words)
        assert result.code == 2
        assert result.err.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in result.err
        assert "it is built" not in result.err
        assert not list(Path().iterdir())

    def test_where_there_is_no_mistake_they_are_built(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Digits, "__init__", unbuilt(Digits))
        result = run("fit", "--data", "Digits", "--data.batch_size", 32, "--model.net.dropout", 0.1)
        assert result.code == 2
        assert "it is built" in result.err


def unbuilt(cls: type) -> Callable[..., None]:
    """A constructor with the signature of a class."""

    @functools.wraps(cls.__init__)  # type: ignore[misc]
    def construct(self: object, *args: object, **kwargs: object) -> None:
        raise AssertionError("it is built")

    return construct


def test_of_classes_of_one_name_that_of_this_project_is_meant(run: Run) -> None:
    """torchvision has a CutMix of its own, once somebody has imported it; and the order of classes is arbitrary."""
    others = [type("CutMix", (nn.Module,), {}) for _ in range(50)]
    result = run("fit", "--data.augment+", others[0].__name__)
    assert result.err.splitlines()[-1] == "error: data.augment: CutMix is a class of another kind, Mixing"


def test_for_a_sweep_no_option_of_a_run_is_suggested_whatever_was_parsed_before(run: Run) -> None:
    assert "did you mean 'model.net.dropout'?" in run("fit", "--dropout", 0.1).err
    Path("s.yaml").write_text("dropout: 0.1\nspace: {data.batch_size: [8, 16]}\n")
    assert run("sweep", "--config", "s.yaml").err == "error: there is no option 'dropout'\n"
