"""Rewrites of a fake-quantized program that let other engines run it in INT8 and fuse more ops.

Each function changes a network in place and returns the number of changes. A pair is a
``quantize_linear`` and the ``dequantize_linear`` ops that read its output.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from job.engine.inference.paddle_format import OpDesc
from job.engine.inference.saved_model import UNSIGNED_ZERO_POINT
from job.engine.rewrites.network import (
    DEQUANTIZE,
    QUANTIZE,
    Network,
    attribute,
    names,
    set_input,
)
from job.engine.rewrites.signs import never_negative_values

STEPS, UNSIGNED_STEPS = np.float32(127), np.float32(255)
CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
# Ops for which rounding before the op gives the same values as rounding behind it.
MOVABLE = (
    *("flatten_contiguous_range", "flatten2", "reshape2", "squeeze2", "unsqueeze2", "dropout"),
    "reduce_max",
)


class Pair(NamedTuple):
    """A quantize op and one dequantize op.

    Attributes:
        quantize: reads the value ``source``.
        dequantize: writes the value ``result``.
    """

    quantize: OpDesc
    dequantize: OpDesc

    @property
    def source(self) -> str:
        """The variable that is quantized."""
        return names(self.quantize.inputs, "X")[0]

    @property
    def result(self) -> str:
        """The dequantized variable."""
        return names(self.dequantize.outputs, "Y")[0]


def pairs(network: Network) -> list[Pair]:
    """Return all pairs of activations, in the order of the ops."""
    return [
        Pair(op, reader)
        for op in network.ops
        if op.type == QUANTIZE
        for reader in network.readers(names(op.outputs, "Y")[0])
        if reader.type == DEQUANTIZE
    ]


def steps(network: Network, op: OpDesc) -> tuple[float, int, int]:
    """Return the scale of a quantize or dequantize op, its largest step and its axis."""
    scale = network.values[names(op.inputs, "Scale")[0]]
    largest = attribute(op, "qmax")
    axis = attribute(op, "quant_axis")
    return float(scale.reshape(-1)[0]), largest.i if largest else 127, axis.i if axis else -1


def has_one_scale(network: Network, op: OpDesc) -> bool:
    """Return whether an op has one scale for the whole tensor."""
    return network.values[names(op.inputs, "Scale")[0]].size == 1


def drop_repeated_ops(network: Network) -> int:
    """Remove quantize and dequantize ops that compute a variable again.

    PaddleSlim inserts an equal pair, with the same variables, for each op that reads a value.
    """
    first: dict[str, OpDesc] = {}
    dropped = 0
    for op in [op for op in network.ops if op.type in (QUANTIZE, DEQUANTIZE)]:
        (name,) = names(op.outputs, "Y")
        known = first.setdefault(name, op)
        if known is op:
            continue
        if names(known.inputs) != names(op.inputs):
            raise AssertionError(f"two ops compute {name} from different variables")
        network.remove(op)
        dropped += 1
    return dropped


def merge_pairs(network: Network) -> int:
    """Merge pairs that quantize a variable several times in the same steps."""
    first: dict[tuple[str, tuple[float, int, int]], Pair] = {}
    merged = 0
    for pair in pairs(network):
        if not has_one_scale(network, pair.quantize):
            continue
        known = first.setdefault((pair.source, steps(network, pair.quantize)), pair)
        if known is pair:
            continue
        network.rename_reads(pair.result, known.result)
        network.remove(pair.dequantize)
        quantized = names(pair.quantize.outputs, "Y")[0]
        if pair.quantize is not known.quantize and not network.readers(quantized):
            network.remove(pair.quantize)
        # A reader can stand between the first pair's quantize op and its dequantize op.
        network.move_behind(known.dequantize, known.quantize)
        merged += 1
    return merged


def drop_idle_pools(network: Network) -> int:
    """Remove pools that do not change their input: adaptive to the input's size, or of 1 pixel."""
    dropped = 0
    for op in [op for op in network.ops if op.type == "pool2d"]:
        before, after = names(op.inputs, "X")[0], names(op.outputs, "Out")[0]
        window, stride, padding = (
            list(found.ints) if (found := attribute(op, name)) else []
            for name in ("ksize", "strides", "paddings")
        )
        adaptive, whole = attribute(op, "adaptive"), attribute(op, "global_pooling")
        if whole is not None and whole.b:
            continue
        if adaptive is not None and adaptive.b:
            idle = min(window) > 0 and list(network.shape(before)[2:]) == window
        else:
            idle = set(window) | set(stride) == {1} and not any(padding)
        if idle:
            network.rename_reads(after, before)
            network.remove(op)
            dropped += 1
    return dropped


def transpose_weights(network: Network) -> int:
    """Store int8 weights of fully connected layers with one row per output."""
    transposed = 0
    for op in [op for op in network.ops if op.type == "matmul_v2"]:
        restored = names(op.inputs, "Y")[0]
        dequantize, flag = network.producer(restored), attribute(op, "trans_y")
        if dequantize is None or dequantize.type != DEQUANTIZE or flag is None or flag.b:
            continue
        weight = names(dequantize.inputs, "X")[0]
        value, axis = network.values.get(weight), attribute(dequantize, "quant_axis")
        readers = (*network.readers(weight), *network.readers(restored))
        if value is None or value.ndim != 2 or len(readers) != 2 or axis is None:
            continue
        network.store(weight, np.ascontiguousarray(value.T))
        network.set_shape(restored, value.T.shape)
        flag.b = True
        if axis.i >= 0:
            axis.i = 1 - axis.i
        transposed += 1
    return transposed


def quantize_before_reshapes(network: Network) -> int:
    """Move pairs in front of ops that only move or select values, where OpenVINO can fuse them.

    OpenVINO 2025.0 and 2026.4 compute wrong values for a pair behind ``reduce_max``.

    A pair behind a transposed value stays, because it would separate the transpose and the reshape
    of a channel shuffle, which OpenVINO fuses.
    """
    moved = 0
    while found := next(movable(network), None):
        pair, reshape = found
        before, after = names(reshape.inputs, "X")[0], names(reshape.outputs, "Out")[0]
        network.rename_reads(pair.result, after)
        set_input(pair.quantize, "X", before)
        set_input(reshape, "X", pair.result)
        for name in (names(pair.quantize.outputs, "Y")[0], pair.result):
            network.set_shape(name, network.shape(before))
        network.move_behind(reshape, pair.dequantize)
        moved += 1
    return moved


def movable(network: Network) -> Iterator[tuple[Pair, OpDesc]]:
    """Yield each pair that can be moved in front of the op that writes its source, and this op."""
    for pair in pairs(network):
        op = network.producer(pair.source)
        if op is None or op.type not in MOVABLE or not has_one_scale(network, pair.quantize):
            continue
        before = network.producer(names(op.inputs, "X")[0])
        if before is not None and before.type == "transpose2":
            continue
        alone = len(network.readers(names(pair.quantize.outputs, "Y")[0])) == 1
        keeps = op.type != "dropout" or is_idle_dropout(op)
        if alone and keeps and len(network.readers(pair.source)) == 1:
            yield pair, op


def is_idle_dropout(op: OpDesc) -> bool:
    """Return whether a dropout does not scale at inference."""
    kind = attribute(op, "dropout_implementation")
    return kind is not None and kind.s == "upscale_in_train"


def drop_repeated_pairs(network: Network) -> int:
    """Remove pairs behind a max pool whose input has the same steps."""
    dropped = 0
    for pair in pairs(network):
        pool = network.producer(pair.source)
        if pool is None or pool.type != "pool2d":
            continue
        kind, before = attribute(pool, "pooling_type"), names(pool.inputs, "X")[0]
        earlier = network.producer(before)
        if kind is None or kind.s != "max" or earlier is None or earlier.type != DEQUANTIZE:
            continue
        if has_one_scale(network, earlier) and steps(network, earlier) == steps(
            network, pair.quantize
        ):
            network.rename_reads(pair.result, pair.source)
            network.remove(pair.dequantize)
            if not network.readers(names(pair.quantize.outputs, "Y")[0]):
                network.remove(pair.quantize)
            dropped += 1
    return dropped


def drop_pairs_in_fused_sums(network: Network) -> int:
    """Remove the pair between a convolution and the sum of its result and a quantized value.

    OpenVINO computes such a sum inside the convolution, before it rounds. With the pair, it would
    scale and clip the result before it adds the other operand, which takes time. If both operands
    are results of convolutions, one pair remains.
    """
    dropped = 0
    for add in [op for op in network.ops if op.type == "elementwise_add"]:
        operands = [name for slot in "XY" for name in names(add.inputs, slot)]
        writers = [network.producer(name) for name in operands]
        if not all(op is not None and op.type == DEQUANTIZE for op in writers):
            continue
        behind = (pair_behind_convolution(network, name) for name in operands)
        pair = next((found for found in behind if found is not None), None)
        if pair is not None:
            network.rename_reads(pair.result, pair.source)
            network.remove(pair.dequantize)
            network.remove(pair.quantize)
            dropped += 1
    return dropped


def pair_behind_convolution(network: Network, name: str) -> Pair | None:
    """Return the pair that quantizes the result of a convolution for one reader of ``name``.

    Returns:
        The pair; None if ``name`` is another value, or if other ops read a value on the way.
    """
    dequantize = network.producer(name)
    if dequantize is None or dequantize.type != DEQUANTIZE:
        return None
    (quantized,) = names(dequantize.inputs, "X")
    quantize = network.producer(quantized)
    if quantize is None:
        return None
    pair = Pair(quantize, dequantize)
    read_once = [name, quantized]
    source = pair.source
    while (op := network.producer(source)) is not None:
        read_once.append(source)
        if op.type in CONVOLUTIONS:
            return pair if all(len(network.readers(each)) == 1 for each in read_once) else None
        is_bias = op.type == "elementwise_add" and names(op.inputs, "Y")[0] in network.values
        if not is_bias and op.type != "batch_norm":
            return None
        source = names(op.inputs, "X")[0]
    return None


def round_before_products(network: Network) -> int:
    """Let products read the rounded result of a convolution, if another op reads it rounded.

    A gate multiplies the result of a convolution by values that are computed from it, as in a
    squeeze-and-excitation block. If the convolution has no bias, the OpenVINO 2025.0 in Paddle
    computes a wrong product with the result before it is rounded (2.4 dB in the neck of PP-OCRv4's
    text detector). OpenVINO 2026.4 computes the right product.
    """
    changed = 0
    for pair in pairs(network):
        convolution = network.producer(pair.source)
        if convolution is None or convolution.type not in CONVOLUTIONS:
            continue
        for product in network.readers(pair.source):
            if product.type != "elementwise_mul":
                continue
            for slot in product.inputs:
                slot.arguments[:] = [
                    pair.result if name == pair.source else name for name in slot.arguments
                ]
            network.move_behind(pair.quantize, convolution)
            network.move_behind(pair.dequantize, pair.quantize)
            changed += 1
    return changed


def halve_weights(network: Network) -> int:
    """Store int8 weights in half of their steps, with twice their scale.

    Without AVX512_VNNI, OpenVINO's kernels add two products in 16 bits. The sum of two products of
    activations up to 255 and weights up to 127 can saturate. oneDNN halves the weights of Paddle's
    own INT8 model for the same reason.
    """
    halved = 0
    for op in network.ops:
        weight = names(op.inputs, "X")[0] if op.type == DEQUANTIZE else ""
        if weight not in network.values:
            continue
        # New names, because other ops can read the same weight or the same scale.
        (scale,) = names(op.inputs, "Scale")
        steps_of_weight = np.rint(network.values[weight] / 2).astype("int8")
        set_input(op, "X", network.store(f"{weight}@halved", steps_of_weight))
        set_input(op, "Scale", network.store(f"{scale}@halved", 2 * network.values[scale]))
        halved += 1
    return halved


def use_unsigned_steps(network: Network) -> int:
    """Give never-negative values 255 steps from 0 to their scale, by a zero point of -128.

    The fake-quantized model marks values that oneDNN stores as unsigned bytes by 255 steps
    (job.engine.quantize.grid). OpenVINO ignores this mark, but its frontend subtracts the zero
    point. Paddle's kernels ignore the zero point, so only OpenVINO computes this model correctly.

    Other never-negative values, such as a concatenation of relus, get the 255 steps, too. With
    signed steps, OpenVINO computes wrong scores for Inception v3.
    """
    changed = 0
    never_negative = never_negative_values(network)
    for op in network.ops:
        if op.type not in (QUANTIZE, DEQUANTIZE):
            continue
        largest = attribute(op, "qmax")
        is_marked = largest is not None and largest.i == UNSIGNED_STEPS
        if not is_marked and names(op.inputs, "X")[0] not in never_negative:
            continue
        scale = names(op.inputs, "Scale")[0]
        narrow = (network.values[scale] * (STEPS / UNSIGNED_STEPS)).astype("float32")
        zero = np.full(1, -128, "int32")
        set_input(op, "Scale", network.store(f"{scale}@unsigned", narrow))
        set_input(op, "ZeroPoint", network.store(f"{scale}{UNSIGNED_ZERO_POINT}", zero))
        kept = [each for each in op.attrs if each.name not in ("qmin", "qmax")]
        del op.attrs[:]
        op.attrs.extend(kept)
        changed += op.type == QUANTIZE
    return changed
