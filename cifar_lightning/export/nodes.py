"""Nodes of an ONNX graph, written as calls."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

Value = str | float | Sequence[int]  # a name, or a constant


class Nodes:
    """Nodes in the order in which they run, and their constants: `op.Add(x, 0.5)` appends one and is its output's name.

    A number among the inputs becomes a constant, a float of float32 and anything else of int64.

    Args:
        prefix: of all names.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def __getattr__(self, kind: str) -> Callable[..., str]:
        def append(*inputs: Value, **attributes: Any) -> str:
            names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
            output = f"{self.prefix}/{kind}_{len(self.nodes)}"
            self.nodes.append(helper.make_node(kind, names, [output], **attributes))
            return output

        return append

    def _constant(self, value: float | Sequence[int]) -> str:
        name = f"{self.prefix}/{value}"  # 1 and 1.0 are two
        array = np.array(value, np.float32 if isinstance(value, float) else np.int64)
        self.constants[name] = numpy_helper.from_array(array, name)
        return name
