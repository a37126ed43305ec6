"""Hyper-parameter search with Optuna, on validation only: every trial is a `fit` of its own."""

from collections.abc import Sequence

from cifar_onnx import InputError


def sweep(words: Sequence[str]) -> None:
    """Search, or go on with a search.

    Args:
        words: behind the command.

    Raises:
        InputError: it cannot be done as it was asked for, Optuna is not installed, or every trial has failed.
    """
    try:
        from cifar_lightning.sweep.search import search
    except ModuleNotFoundError as error:
        raise InputError(f'sweep needs {error.name}: pip install "cifar-lightning[sweep]"') from None
    search(words)
