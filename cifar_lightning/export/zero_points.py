"""Zero points of quantised weights."""

import numpy as np
from onnx import ModelProto, numpy_helper


def uniform(net: ModelProto) -> ModelProto:
    """Give filters of zeros, whose zero point the quantizer leaves at 0, that of the layer's others: they stay zeros.

    Else onnxruntime before 1.27 loads the file but cannot run it, where channels are unsigned: "zero point of
    per-channel filter must be same" (https://github.com/microsoft/onnxruntime/issues/28447).
    """
    constants = {each.name: each for each in net.graph.initializer}
    for node in net.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        weights, zeros = (constants[node.input[place]] for place in (0, 2))
        filters, points = (numpy_helper.to_array(each).copy() for each in (weights, zeros))
        empty = points == 0
        if empty.any() and not empty.all():
            axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
            np.moveaxis(filters, axis, 0)[empty] = points[empty] = points.max()
            weights.CopyFrom(numpy_helper.from_array(filters, weights.name))
            zeros.CopyFrom(numpy_helper.from_array(points, zeros.name))
    return net
