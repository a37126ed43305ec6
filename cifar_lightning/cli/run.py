"""A command of the LightningCLI, from its words to its end."""

import sys
from collections.abc import Callable, Sequence

import torch
from lightning.pytorch import Callback

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning import malloc
from cifar_lightning.callbacks import Curves, EpochLines, FirstBatch, Record, Resume
from cifar_lightning.cli.command import read
from cifar_lightning.cli.lightning_cli import CLI
from cifar_lightning.cli.parser import Parser
from cifar_lightning.trusted_classes import check_classes
from cifar_onnx import InputError
from cifar_onnx.cpus import usable_cpus


def run(args: Sequence[str], callbacks: Sequence[Callback] | None = None, cli: Callable[..., CLI] = CLI) -> CLI:
    """Run a command of the LightningCLI.

    Args:
        args: the command and its options.
        callbacks: for `fit`, in the place of those that show progress; then nothing is drawn on a terminal.
        cli: CLI, or what stands in for it: called with CLI's arguments.
    """
    malloc.keep()
    if (cpus := usable_cpus()) < torch.get_num_threads():  # torch looks at no limit of a container
        torch.set_num_threads(cpus)
    for word in args:
        if word.encode(errors="replace").decode() != word:
            raise InputError(f"{word!r} is not valid UTF-8: rename the file or folder")
    command = read(args)
    for place in command.import_folders:  # nets of the user's own may lie there
        if (folder := str(place.resolve())) not in sys.path:
            sys.path.append(folder)
    checkpoint = None
    if command.ckpt_path:
        checkpoint = checkpoints.load(command.ckpt_path)
        check_classes(checkpoint, command.ckpt_path, command.allow_custom, named=command.named)
    terminal = sys.stdout.isatty() and callbacks is None
    if callbacks is None:
        callbacks = [EpochLines()]
    return cli(
        command,
        checkpoint,
        args=command.words,
        parser_class=Parser,
        parser_kwargs={"prog": "python -m cifar_lightning", "allow_abbrev": False},
        seed_everything_default=0,
        auto_configure_optimizers=False,
        trainer_defaults={
            "max_epochs": 50,
            "devices": 1,
            "enable_progress_bar": terminal,
            "enable_model_summary": terminal,
            "callbacks": [Resume(), Record(), FirstBatch(), Curves(), *callbacks],
        },
    )
