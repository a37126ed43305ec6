"""Whether data is of the kind that a net has learnt from."""

from collections.abc import Mapping, Sequence
from typing import Any

from cifar_lightning.data.base import ImageData
from cifar_onnx import InputError
from cifar_onnx.errors import some


def check_match(name: str, classes: Sequence[str], input_rule: Mapping[str, Any], data: ImageData) -> None:
    """Refuse data of other classes, or whose pictures become square images otherwise.

    Args:
        name: of the net, in the sentence.
        classes: those that it knows, in its order.
        input_rule: of the data that it was trained on, as far as it matters.
        data: the data.

    Raises:
        InputError: it differs.
    """
    if [*classes] != data.classes:
        raise InputError(f"{name} knows the classes {some(classes)}; the data has {some(data.classes)}")
    for key, value in input_rule.items():
        if (now := getattr(data, key)) != value:
            raise InputError(f"{name} was trained with data.{key} {value}, and the data has {now}")
