"""What became of the fake-quantized model's ops in the INT8 model."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle.base.proto import framework_pb2

from job.engine.quantize.fake_quantize import DEQUANTIZE, QUANTIZE
from job.errors import QuantizationError

WEIGHTED = ("conv2d", "fused_conv2d", "depthwise_conv2d", "fc", "mul", "matmul_v2", "fused_matmul")
ACTIVATIONS = ("relu", "relu6", "hard_swish", "hard_sigmoid", "swish", "sigmoid", "leaky_relu")


@dataclass(frozen=True)
class Left:
    """A trained op that was kept in FP32.

    Attributes:
        op: the name of its output in the fake-quantized model.
        type: its type there.
        weight: the name of its weight; empty if it has none.
        reason: why it was.
    """

    op: str
    type: str
    weight: str
    reason: str


@dataclass(frozen=True)
class Audit:
    """What became of the model's ops.

    Attributes:
        ops_before: ops of the fake-quantized model by type, quantize/dequantize apart.
        ops_after: ops of the INT8 model by type.
        int8_ops: ops of the INT8 model that compute on 8-bit integers.
        fp32_ops: convolutions and matrix products left in FP32.
        left_in_fp32: op, type and reason of each of those, and of skipped pools.
        folded: batch norms, activations and residual adds folded into other ops.
        corrected: ``matrix_scales`` and ``residual_sums`` that Paddle's passes get wrong.
    """

    ops_before: Mapping[str, int]
    ops_after: Mapping[str, int]
    int8_ops: int
    fp32_ops: int
    left_in_fp32: Sequence[Mapping[str, str]]
    folded: Mapping[str, int]
    corrected: Mapping[str, int]


def read_ops(model: Path) -> list[framework_pb2.OpDesc]:
    """The ops of a saved program, with the attributes that Paddle's Python API hides."""
    description = framework_pb2.ProgramDesc()
    description.ParseFromString(model.read_bytes())
    return [op for op in description.blocks[0].ops if op.type not in ("feed", "fetch")]


def attribute(op: framework_pb2.OpDesc, name: str) -> object:
    """An attribute's value by name; None when it is not set."""
    for item in op.attrs:
        if item.name == name:
            values = {0: item.i, 1: item.f, 2: item.s, 3: item.ints, 4: item.floats, 6: item.b}
            value = values.get(item.type)
            return list(value) if item.type in (3, 4) else value
    return None


def is_int8(op: framework_pb2.OpDesc) -> bool:
    """Whether an optimized op computes on 8-bit integers."""
    # Paddle does not mark adds of two activations; it only gives them a scale.
    marked = attribute(op, "mkldnn_data_type") == "int8" or attribute(op, "scale_out") is not None
    return marked and op.type not in ("quantize", "dequantize")


def audit(
    before: Mapping[str, int],
    ops: Sequence[framework_pb2.OpDesc],
    kept: Sequence[Left],
    corrected: Mapping[str, int],
) -> Audit:
    """Account for every op of the model.

    Args:
        before: ops of the fake-quantized model by type.
        ops: of the INT8 model.
        kept: ops that were to stay in FP32.
        corrected: what of Paddle's work was corrected.

    Raises:
        QuantizationError: no convolution or matrix product runs in INT8, or one does that was to
            stay in FP32.
    """
    after = Counter(op.type for op in ops)
    int8 = [op for op in ops if is_int8(op)]
    weighted = [op for op in ops if op.type in WEIGHTED]
    kept_weights = Counter(one.weight for one in kept if one.weight)
    left = [{"op": one.op, "type": one.type, "reason": one.reason} for one in kept]
    left += [
        {"op": op.outputs[0].arguments[0], "type": op.type, "reason": why_fp32(op)}
        for op in weighted
        if not is_int8(op) and kept_weights.keys().isdisjoint(inputs_of(op))
    ]
    if not any(op.type in WEIGHTED for op in int8):
        raise QuantizationError(
            f"no convolution or matrix product of {len(weighted)} was quantized",
            "Check /quantize/quantize_op_types and /quantize/not_quant_pattern.",
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
    )


def require_kept(weights: Mapping[str, int], ops: Sequence[framework_pb2.OpDesc]) -> None:
    """Make sure that what was to stay in FP32 did.

    Args:
        weights: how many uses of each weight were to stay; others may run in INT8.
        ops: of the INT8 model, those with weights.

    Raises:
        QuantizationError: a use of a weight runs in INT8.
    """
    uses = Counter((name, is_int8(op)) for op in ops for name in inputs_of(op))
    wrong = [name for name, n in weights.items() if uses[name, True] and uses[name, False] < n]
    if wrong:
        raise QuantizationError(
            f"these ops were to stay in FP32 and run in INT8: {', '.join(sorted(wrong))}",
            "This is a fault of the installed Paddle: run `job doctor`.",
        )


def inputs_of(op: framework_pb2.OpDesc) -> list[str]:
    """Names of all inputs of an op."""
    return [name for slot in op.inputs for name in slot.arguments]


def why_fp32(op: framework_pb2.OpDesc) -> str:
    """Why a convolution or matrix product stayed in FP32."""
    if not attribute(op, "quantization_type") and op.type != "fc":
        return "not quantized in training (its type or its name scope was left out)"
    return "oneDNN's passes found no scale for its input or output"
