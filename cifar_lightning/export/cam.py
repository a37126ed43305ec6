"""Class activation maps as an output of an ONNX graph, where its net allows it.

Notation: `B` batch, `K` classes, `C` channels and `h w` size of the last map of features.
"""

from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper


def with_cam(model: ModelProto) -> ModelProto:
    """Add `cam`, class activation maps `(B, K, h, w)`, where the logits are a linear layer of a map's mean.

    That layer without its bias is applied at every place, so that `logits = mean over h, w of cam + bias` (Zhou et al.
    2016, https://arxiv.org/abs/1512.04150). Any other net, and one whose map is a single place, stays as it is.
    """
    graph = model.graph
    if (found := _linear_of_mean(graph)) is None:
        return model
    features, (height, width), weight, transposed = found
    if not transposed:
        graph.node.append(helper.make_node("Transpose", [weight], ["cam/weight"], perm=[1, 0]))
        weight = "cam/weight"  # (K, C)
    graph.initializer.append(helper.make_tensor("cam/axes", TensorProto.INT64, [2], [2, 3]))
    graph.node.append(helper.make_node("Unsqueeze", [weight, "cam/axes"], ["cam/kernel"]))  # (K, C, 1, 1)
    graph.node.append(helper.make_node("Conv", [features, "cam/kernel"], ["cam"]))
    batch, classes = graph.output[0].type.tensor_type.shape.dim
    shape = [batch.dim_param, classes.dim_value, height, width]
    graph.output.append(helper.make_tensor_value_info("cam", TensorProto.FLOAT, shape))
    return model


def _linear_of_mean(graph: GraphProto) -> tuple[str, list[int], str, bool] | None:
    """The map of features, its `[h, w]`, the layer's weight, and whether that is `(K, C)`; None in any other net."""
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.value_info}

    linear = makers["logits"]
    if linear.op_type == "Add" and any(name in constants for name in linear.input):
        linear = next((makers[name] for name in linear.input if name in makers), linear)
    settings = _settings(linear)
    if linear.op_type not in ("Gemm", "MatMul") or settings.get("alpha", 1) != 1 or settings.get("transA"):
        return None
    mean = makers.get(linear.input[0])
    while mean and mean.op_type in ("Flatten", "Identity", "Reshape", "Squeeze"):
        mean = makers.get(mean.input[0])
    if not mean or not all(name in constants for name in linear.input[1:]):
        return None
    shape, transposed = shapes.get(mean.input[0], []), bool(settings.get("transB"))
    if len(shape) != 4 or shape[2:] == [1, 1] or not _is_of_all_places(mean, shape, constants):
        return None
    if constants[linear.input[1]].dims[1 if transposed else 0] != shape[1]:  # means of several maps are joined
        return None
    return mean.input[0], shape[2:], linear.input[1], transposed


def _is_of_all_places(mean: NodeProto, shape: list[int], constants: dict[str, TensorProto]) -> bool:
    """Whether a node takes the mean of a map `(B, C, h, w)` over h and w; torch says it in several ways."""
    if mean.op_type == "ReduceMean":
        axes = [numpy_helper.to_array(constants[name]).tolist() for name in mean.input[1:] if name in constants]
        return [sorted(axis % 4 for axis in each) for each in axes] == [[2, 3]]
    settings = _settings(mean)
    if mean.op_type == "AveragePool":
        return settings["kernel_shape"] == shape[2:] and not any(settings.get("pads", []))
    return mean.op_type == "GlobalAveragePool"


def _settings(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
