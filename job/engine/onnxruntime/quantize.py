"""Adds quantized weights and scales to a translated network, in ONNX Runtime's form."""

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import NodeProto, helper

from job.engine.onnxruntime.export import FIRST, Steps, Weight
from job.engine.onnxruntime.graph import OnnxGraph, attribute

WEIGHTED = ("Conv", "MatMul", "Gemm")
UNSIGNED_MAX = np.float32(255)
INT32_MAX = np.iinfo("int32").max
# Zero point of signed values in uint8, because kernels for unsigned activations are faster.
MIDDLE = 128


def fold_batch_norms(graph: OnnxGraph, weights: Mapping[str, Weight]) -> None:
    """Fold each batch norm into the scales and the bias of the convolution before it."""
    for norm in [node for node in graph.nodes if node.op_type == "BatchNormalization"]:
        conv = graph.producer(norm.input[0])
        if conv is None or conv.op_type != "Conv" or conv.input[1] not in weights:
            continue
        if len(graph.readers(conv.output[0])) > 1 or len(graph.readers(conv.input[1])) > 1:
            continue
        gamma, beta, mean, variance = (graph.tensors[name] for name in norm.input[1:5])
        factor = gamma / np.sqrt(variance + np.float32(attribute(norm, "epsilon")))
        weight = weights[conv.input[1]]
        weight.scale = weight.scale * np.abs(factor)
        negative = (factor < 0).reshape(-1, *[1] * (weight.values.ndim - 1))
        weight.values = np.where(negative, -weight.values, weight.values)
        old = graph.tensors[conv.input[2]] if len(conv.input) > 2 else np.float32(0)
        bias = graph.store(f"{conv.input[1]}.bias", (old - mean) * factor + beta)
        conv.input[:] = [*conv.input[:2], bias]
        graph.remove(norm)


def replace_clips(graph: OnnxGraph, clips: Sequence[Steps]) -> None:
    """Replace the clips that stand for pairs by QuantizeLinear and DequantizeLinear.

    Args:
        graph: the translated network.
        clips: the steps of each clip, by the number in its bounds.
    """
    for node in [node for node in graph.nodes if node.op_type == "Clip"]:
        bounds = [graph.tensors.get(name) for name in node.input[1:3]]
        if None in bounds or bounds[1] < FIRST or bounds[0] != -bounds[1]:
            continue
        graph.replace(node, pair(graph, node, clips[int(bounds[1]) - FIRST]))


def pair(graph: OnnxGraph, clip: NodeProto, steps: Steps) -> list[NodeProto]:
    """Return QuantizeLinear and DequantizeLinear to replace a clip.

    Args:
        graph: receives scale and zero point.
        clip: the clip.
        steps: size and start of the steps.
    """
    name, source = clip.output[0], clip.input[0]
    scale = graph.store(f"{name}.scale", np.array(steps.size, "float32"))
    zero = graph.store(f"{name}.zero", np.array(0 if steps.unsigned else MIDDLE, "uint8"))
    return [
        helper.make_node("QuantizeLinear", [source, scale, zero], [f"{name}.quantized"]),
        helper.make_node("DequantizeLinear", [f"{name}.quantized", scale, zero], [name]),
    ]


def drop_idle_activations(graph: OnnxGraph) -> None:
    """Remove each relu or clip that does not change the result of the quantizers after it.

    ONNX Runtime then fuses more ops.
    """
    for node in [node for node in graph.nodes if node.op_type in ("Relu", "Clip")]:
        readers = graph.readers(node.output[0])
        limits = (
            [0.0, np.inf]
            if node.op_type == "Relu"
            else [float(graph.tensors[name]) for name in node.input[1:3]]
        )
        if readers and all(clips_alike(graph, reader, limits) for reader in readers):
            graph.remove(node)


def clips_alike(graph: OnnxGraph, node: NodeProto, limits: list[float]) -> bool:
    """Return whether a node quantizes to unsigned steps from zero that end within the limits."""
    if node.op_type != "QuantizeLinear" or graph.tensors[node.input[2]] != 0:
        return False
    largest = float(graph.tensors[node.input[1]] * UNSIGNED_MAX)
    return limits[0] == 0 and largest <= limits[1] * (1 + 1e-6)


def count(graph: OnnxGraph) -> dict[str, int]:
    """Return the number of ``quantizers``, and of ``unsigned`` quantizers with zero point 0."""
    zeros = [graph.tensors[n.input[2]] for n in graph.nodes if n.op_type == "QuantizeLinear"]
    return {"quantizers": len(zeros), "unsigned": sum(int(zero == 0) for zero in zeros)}


def store_weights(graph: OnnxGraph, weights: Mapping[str, Weight]) -> int:
    """Store quantized weights as int8 and biases as int32; return the number of weights."""
    stored = 0
    for node in [node for node in graph.nodes if node.op_type in WEIGHTED]:
        name = node.input[1]
        if name not in weights:
            continue
        values, scale = weights[name].values, weights[name].scale
        before = graph.producer(node.input[0])
        step = None
        if len(node.input) > 2 and before is not None and before.op_type == "DequantizeLinear":
            step = graph.tensors[before.input[1]].astype("float64")
            bias = graph.tensors[node.input[2]]
            values, scale = with_room_for(bias, step, values, scale, weights[name].axis)
        node.input[1] = dequantized(graph, node, name, values, scale, weights[name].axis)
        stored += 1
        if step is None:
            continue
        whole = np.clip(np.rint(bias / (step * scale)), -INT32_MAX, INT32_MAX).astype("int32")
        sizes = np.broadcast_to(step * scale, whole.shape).astype("float32")
        node.input[2] = dequantized(graph, node, node.input[2], whole, sizes, 0)
    return stored


def with_room_for(
    bias: np.ndarray, step: np.ndarray, values: np.ndarray, scale: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """Enlarge the scales of weights for which the bias would not fit into 32 bits.

    The step of a bias is the step of the activations times the scale of the weights. It is tiny for
    pruned channels, and for activations that calibration never saw above zero.

    Args:
        bias: float32 [outputs].
        step: size of the steps of the activations.
        values: weights, int8.
        scale: float32 [outputs], or [1] for all outputs.
        axis: axis of the outputs in ``values``.

    Returns:
        Values and scales of about the same weights.
    """
    least = np.abs(bias) / (INT32_MAX * step)
    enlarged = np.maximum(scale, least if len(scale) > 1 else least.max(keepdims=True))
    # All weights of this output are 0, and its bias is too.
    enlarged[enlarged == 0] = 1
    shape = [1] * values.ndim
    shape[axis] = len(scale)
    rounded = np.rint(values * (scale / enlarged).reshape(shape))
    return rounded.astype(values.dtype), enlarged.astype("float32")


def dequantized(
    graph: OnnxGraph,
    node: NodeProto,
    name: str,
    values: np.ndarray,
    scale: np.ndarray,
    axis: int,
) -> str:
    """Store integers, and insert a DequantizeLinear before the node that reads them.

    Returns:
        The name of the dequantized tensor.
    """
    output = f"{node.output[0]}.{name}"
    integers = graph.store(f"{output}.integers", values)
    per_channel = len(scale) > 1
    step = graph.store(f"{output}.scale", scale if per_channel else scale.reshape(()))
    shape = scale.shape if per_channel else ()
    zero = graph.store(f"{output}.zero", np.zeros(shape, values.dtype))
    made = helper.make_node("DequantizeLinear", [integers, step, zero], [output])
    if per_channel:
        made.attribute.append(helper.make_attribute("axis", axis))
    graph.replace(node, [made, node])
    return output
