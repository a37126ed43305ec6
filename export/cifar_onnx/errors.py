"""Errors in what a user gave. Each message is one sentence: what is wrong, and what would be right."""

from collections.abc import Sequence
from typing import Any, get_args

EMPTY = "an empty file: was it copied or downloaded to its end?"
_NAMED = 10  # of many


class InputError(ValueError):
    """A file, key or value given by the user cannot be used. Commands print it and end with exit code 2."""


class ImageError(InputError):
    """A picture cannot be decoded, or is of a kind that is not accepted.

    Attributes:
        reason: why.
        name: of its file, before the reason in the message; maybe empty.
    """

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__(reason, name)
        self.reason, self.name = reason, name

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}" if self.name else self.reason


class ReadError(ImageError):
    """A picture's file cannot be read, or not now: nothing is known of what it holds."""


class ContractError(InputError):
    """An ONNX file holds no contract, one of an unknown format, or is damaged."""


class NoContractError(ContractError):
    """An ONNX file holds no contract."""


class ProviderError(InputError):
    """The execution provider asked for is not active on this machine."""


def some(names: Sequence[str]) -> str:
    """Names for a sentence, of which the first stand for many."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def one_line(message: object) -> str:
    """A message of other programs, such as onnxruntime's, in one line."""
    return " ".join(str(message).split())


def check_choice(name: str, value: object, choices: Any) -> None:
    """Refuse what is none of the values of a Literal.

    Raises:
        InputError: it is none.
    """
    if value not in get_args(choices):
        raise InputError(f"{name} is {value!r}: it must be one of {', '.join(get_args(choices))}")
