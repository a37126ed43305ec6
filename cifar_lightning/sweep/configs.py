"""Configs of trials, as `fit` reads them, and what a sweep asks of them."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from cifar_lightning.cli.choices import in_order
from cifar_lightning.cli.lightning_cli import CLI
from cifar_lightning.cli.run import run
from cifar_lightning.cli.settings import check_trainer, check_training
from cifar_lightning.error_source import said
from cifar_lightning.leaderboard.differences import Differences, flat
from cifar_lightning.sweep import space as spaces
from cifar_lightning.sweep.space import Space
from cifar_onnx import InputError

OPTIONS = ("config", "experiment", "trials", "monitor", "mode", "space", "sampler", "pruner", "storage")  # of a sweep


class _Read(BaseException):
    """All has been read that was asked for."""


class _Reader(CLI):
    """Puts the configs of command lines that differ in their endings into `found`, and does nothing else."""

    def __init__(self, *args: Any, endings: Sequence[list[str]], found: list[Namespace], **kwargs: Any) -> None:
        self.endings = endings
        self.found = found
        super().__init__(*args, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        for name in {*OPTIONS} - {"config", "experiment"}:  # so that they are suggested, too
            parser.add_argument(f"--{name}")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        common = [word for word in args if word not in self.endings[0]]
        every = (in_order([*common, *ending]) for ending in self.endings)  # as a trial will be read
        self.found += [parser.parse_args(self.words(words)).fit for words in every]
        raise _Read


def parsed(common: Sequence[str], endings: Sequence[list[str]]) -> list[Namespace]:
    """What command lines say that differ in their endings.

    Raises:
        SystemExit: one of them is mistaken; the parser has said why.
    """
    found: list[Namespace] = []
    with suppress(_Read):
        run([*common, *endings[0]], cli=partial(_Reader, endings=endings, found=found))
    return found


def at_edges(space: Space) -> list[list[str]]:
    """Options that try each edge of the space at least once, and where a class is searched, with each choice of it."""
    classes = [key for key in space if any(other.startswith(f"{key}.") for other in space)]
    rest = {key: part.edges for key, part in space.items() if key not in classes}
    return [
        spaces.words(
            {key: edges[number % len(edges)] for key, edges in rest.items()} | dict(zip(classes, each, strict=True))
        )
        for each in product(*(space[key].edges for key in classes))
        for number in range(max(map(len, rest.values())))
    ]


def check(config: Namespace, keys: Iterable[str]) -> None:
    """Refuse a trial that cannot be.

    Args:
        config: its config.
        keys: those that are searched.

    Raises:
        InputError: it would fail, take several devices, or leave nothing to compare.
    """
    try:
        check_trainer(config, "fit")
    except (TypeError, ValueError) as error:
        raise InputError(said(error)) from error
    devices = config.trainer.devices
    if (len(devices) if isinstance(devices, list) else str(devices)) not in (1, "1") or config.trainer.num_nodes != 1:
        raise InputError(
            "a trial trains on one device: leave trainer.devices at 1, or start one sweep per device, with "
            "--trainer.devices [0], [1] and so on"
        )
    if config.trainer.fast_dev_run:
        raise InputError("trainer.fast_dev_run leaves nothing to compare: leave it out")
    check_training(config, keys)


def check_comparable(configs: Sequence[Namespace], monitor: str) -> None:
    """Refuse trials that are not measured by the same.

    Args:
        configs: of trials that try each edge of the space.
        monitor: what is measured.

    Raises:
        InputError: their images differ or, where it is what is measured, their loss.
    """
    found = Differences([flat(config.as_dict()) for config in configs])
    if images := found.images():
        raise InputError(f"space: {images} cannot be searched: the images to validate on would not be the same")
    if monitor == "val/loss" and (losses := found.losses()):
        raise InputError(
            f"space: with {losses} the loss itself changes, so that val/loss cannot be compared: "
            "take --monitor val/accuracy --mode max"
        )
