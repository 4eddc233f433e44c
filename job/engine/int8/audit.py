"""Compares the ops of the INT8 model with the ops of the fake-quantized model."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddle.base.proto import framework_pb2

from job.engine.inference.paddle_format import attribute, inputs_of, is_int8, read_program
from job.engine.int8.fp32_types import types_in_fp32
from job.engine.quantize.fake_quantize import DEQUANTIZE, QUANTIZE
from job.errors import QuantizationError

PRODUCTS = ("mul", "matmul", "matmul_v2", "fused_matmul")
WEIGHTED = ("conv2d", "fused_conv2d", "depthwise_conv2d", "fc", *PRODUCTS)
TRANSPOSING = ("trans_y", "transpose_Y")
EXCLUDED = "not quantized: excluded by /quantize/quantize_op_types or /quantize/not_quant_pattern"
NAMED = 3
# Number of leading axes of an input [N, H, W, C] that a fully connected layer treats as rows.
# Paddle's fc_onednn_pass enables oneDNN for it only if an activation is fused into the layer.
ROWS_OF_4D = 3
ACTIVATIONS = ("relu", "relu6", "hard_swish", "hard_sigmoid", "swish", "sigmoid", "leaky_relu")


@dataclass(frozen=True)
class Left:
    """An op that was quantized in training and is kept in FP32.

    Attributes:
        op: name of the op's output in the fake-quantized model.
        type: op type in the fake-quantized model.
        weight: name of the op's weight; empty for an op without a weight.
        reason: why the op is kept in FP32, for the report.
    """

    op: str
    type: str
    weight: str
    reason: str


@dataclass(frozen=True)
class Audit:
    """Counts of ops before and after the conversion to INT8.

    Attributes:
        ops_before: number of ops of the fake-quantized model by type, without quantize and
            dequantize ops.
        ops_after: number of ops of the INT8 model by type.
        int8_ops: number of ops of the INT8 model that compute on 8-bit integers.
        fp32_ops: number of convolutions and matrix products that run in FP32.
        left_in_fp32: ``op``, ``type`` and ``reason`` of each op that ``fp32_ops`` counts, and of
            each other op that is kept in FP32, such as a pool or a sum.
        folded: number of batch norms, activations and residual adds that were fused into other ops.
        types_in_fp32: ``type``, ``count`` and ``reason`` of op types that no INT8 model quantizes.
        corrected: number of ``matrix_scales`` and ``residual_sums`` whose wrong scales were
            corrected.
    """

    ops_before: Mapping[str, int]
    ops_after: Mapping[str, int]
    int8_ops: int
    fp32_ops: int
    left_in_fp32: Sequence[Mapping[str, str]]
    folded: Mapping[str, int]
    corrected: Mapping[str, int]
    types_in_fp32: Sequence[Mapping[str, Any]]


def read_ops(model: Path) -> list[framework_pb2.OpDesc]:
    """Read the ops of a saved program, with the attributes that Paddle's Python API drops."""
    return [op for op in read_program(model).blocks[0].ops if op.type not in ("feed", "fetch")]


def read_weights(model: Path) -> set[str]:
    """Return the names of the weights of a saved program."""
    return {each.name for each in read_program(model).blocks[0].vars if each.persistable}


def audit(
    before: Mapping[str, int],
    ops: Sequence[framework_pb2.OpDesc],
    kept: Sequence[Left],
    corrected: Mapping[str, int],
    weights: Collection[str],
) -> Audit:
    """Count the ops of an INT8 model, and list the ops that stay in FP32.

    Args:
        before: number of ops of the fake-quantized model by type.
        ops: ops of the INT8 model.
        kept: ops that must run in FP32.
        corrected: number of corrected scales, see :class:`Audit`.
        weights: names of the weights of the INT8 model.

    Raises:
        QuantizationError: no convolution or matrix product runs in INT8, or an op of ``kept`` runs
            in INT8.
    """
    after = Counter(op.type for op in ops)
    int8 = [op for op in ops if is_int8(op)]
    weighted = [op for op in ops if op.type in WEIGHTED]
    kept_weights = Counter(one.weight for one in kept if one.weight)
    left = [{"op": one.op, "type": one.type, "reason": one.reason} for one in kept]
    left += [
        {"op": op.outputs[0].arguments[0], "type": op.type, "reason": why_fp32(op, weights)}
        for op in weighted
        if not is_int8(op) and kept_weights.keys().isdisjoint(inputs_of(op))
    ]
    if not any(op.type in WEIGHTED for op in int8):
        reasons = [f"{each['op']}: {each['reason']}." for each in left]
        raise QuantizationError(
            f"none of the model's {len(weighted)} convolutions and matrix products runs in INT8",
            " ".join(reasons[:NAMED])
            or "Check /quantize/quantize_op_types and /quantize/not_quant_pattern.",
        )
    require_kept(kept_weights, weighted)
    activations = sum(count for name, count in before.items() if name in ACTIVATIONS)
    return Audit(
        ops_before={n: c for n, c in sorted(before.items()) if n not in (QUANTIZE, DEQUANTIZE)},
        ops_after=dict(sorted(after.items())),
        int8_ops=len(int8),
        fp32_ops=sum(not is_int8(op) for op in weighted),
        left_in_fp32=left,
        folded={
            "batch_norm": before.get("batch_norm", 0) - after.get("batch_norm", 0),
            "activation": activations - sum(after.get(name, 0) for name in ACTIVATIONS),
            "residual_add": sum(
                any(slot.parameter == "ResidualData" and slot.arguments for slot in op.inputs)
                for op in ops
            ),
        },
        corrected=corrected,
        types_in_fp32=types_in_fp32(ops),
    )


def require_kept(weights: Mapping[str, int], ops: Sequence[framework_pb2.OpDesc]) -> None:
    """Check that the ops to be kept in FP32 run in FP32.

    Args:
        weights: weight -> number of its uses that must run in FP32; other uses may run in INT8.
        ops: ops of the INT8 model that have weights.

    Raises:
        QuantizationError: too many uses of a weight run in INT8.
    """
    uses = Counter((name, is_int8(op)) for op in ops for name in inputs_of(op))
    wrong = [name for name, n in weights.items() if uses[name, True] and uses[name, False] < n]
    if wrong:
        raise QuantizationError(
            f"ops that /int8 keeps in FP32 run in INT8; their weights: {', '.join(sorted(wrong))}",
            "Run `job doctor` to check the installed Paddle version, and report this as a bug.",
        )


def why_fp32(op: framework_pb2.OpDesc, weights: Collection[str]) -> str:
    """Return why a convolution or matrix product runs in FP32."""
    slots = {slot.parameter: slot.arguments[0] for slot in op.inputs if slot.arguments}
    if op.type in PRODUCTS:
        return why_product_fp32(op, slots["X"], slots["Y"], weights)
    if not attribute(op, "quantization_type") and op.type != "fc":
        return (
            f"{EXCLUDED}; or it computes an output of a detector, which stays in FP32; or other "
            f"ops compute its weight {slots['Filter']}"
        )
    if op.type == "fc" and attribute(op, "in_num_col_dims") == ROWS_OF_4D:
        return (
            f"its input {slots['Input']} has 4 dimensions, and Paddle's oneDNN passes "
            "use INT8 for fully connected layers with 2 or 3: reshape [N, H, W, C] to [N, H*W, C] "
            "before the layer; the OpenVINO engine in Paddle runs it in INT8"
        )
    return (
        f"Paddle's oneDNN passes found no scale for its input {slots['Input']}, or for the "
        "residual value that is added to its output"
    )


def why_product_fp32(
    op: framework_pb2.OpDesc, left: str, right: str, weights: Collection[str]
) -> str:
    """Return why the product of ``left`` and ``right`` runs in FP32."""
    if left in weights:
        return (
            f"its weight {left} is the left operand, and INT8 kernels support weights on the right "
            "only: multiply the transposed input by the transposed weight"
        )
    if right in weights and any(attribute(op, name) for name in TRANSPOSING):
        return (
            f"it reads its weight {right} transposed, and another op reads the weight as well: "
            "give the product a weight [inputs, outputs] of its own"
        )
    if right in weights:
        return f"{EXCLUDED}; or other ops compute its weight {right}"
    return (
        "not quantized, or no INT8 op computes its inputs: Paddle's oneDNN passes run "
        "a product of two activations in INT8 only behind an INT8 op"
    )
