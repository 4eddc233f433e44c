"""From the fake-quantized model to one that oneDNN runs in INT8, and the audit of what became of
its ops."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from paddle import inference, static
from paddle.base.proto import framework_pb2
from paddle.static import Program

from job.engine.int8_weights import correct_matrix_scales, repack
from job.engine.predictor import HARMFUL_PASS, INT8, Predictor, configuration
from job.engine.programs import (
    cpu,
    load_inference_model,
    save_inference_model,
    write_variables,
)
from job.engine.quantization import DEQUANTIZE, QUANTIZE
from job.errors import QuantizationError

# A quantize op type of the settings -> the op types that oneDNN's passes make of it.
INT8_OP_TYPES = {
    "conv2d": ("conv2d", "fused_conv2d"),
    "depthwise_conv2d": ("depthwise_conv2d", "fused_conv2d"),
    "mul": ("fc",),
    "matmul": ("matmul", "fused_matmul", "fc"),
    "matmul_v2": ("matmul_v2", "fused_matmul", "fc"),
    "elementwise_add": ("elementwise_add", "fused_elementwise_add"),
    "pool2d": ("pool2d",),
    "concat": ("concat",),
}
WEIGHTED = ("conv2d", "fused_conv2d", "depthwise_conv2d", "fc", "mul", "matmul_v2", "fused_matmul")
UNSIGNED = ("relu", "relu6", "sigmoid", "hard_sigmoid")
KEEPING_SIGN = ("pool2d", "concat", "dropout", "reshape2", "transpose2", "flatten_contiguous_range")
ACTIVATIONS = ("relu", "relu6", "hard_swish", "hard_sigmoid", "swish", "sigmoid", "leaky_relu")
# An axis means nothing between operands of equal shape, but the folding pass refuses this one.
NOT_FOLDED_AXIS = 2
UNSIGNED_MAX, SIGNED_MAX = 255.0, 127.0
PREFIX = "model"


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


def int8_op_types(quantize_op_types: Sequence[str]) -> set[str]:
    """The op types that may run in INT8: those that were trained to, under the engine's names."""
    return {name for kind in quantize_op_types for name in INT8_OP_TYPES[kind]}


class Graph:
    """Producers of a program's variables, seen through quantize/dequantize pairs."""

    def __init__(self, program: Program) -> None:
        self.block = program.global_block()
        self.producers = {n: op for op in self.block.ops for n in op.output_arg_names}

    def source(self, name: str):
        """The op that computes ``name``, or None for inputs and weights."""
        op = self.producers.get(name)
        while op is not None and op.type in (QUANTIZE, DEQUANTIZE):
            op = self.producers.get(op.input("X")[0])
        return op

    def is_unsigned(self, name: str) -> bool:
        """Whether ``name`` holds no negative values, so that Paddle quantizes it to u8."""
        op = self.source(name)
        if op is None or op.type in UNSIGNED:
            return op is not None
        if op.type not in KEEPING_SIGN:
            return False
        inputs = [n for n in op.input_arg_names if not self.block.var(n).persistable]
        return all(self.is_unsigned(n) for n in inputs)

    def scale_of(self, name: str) -> str | None:
        """The scale variable of the pair behind variable ``name``."""
        for op in self.block.ops:
            if op.type == QUANTIZE and op.input("X")[0] == name:
                return op.input("Scale")[0]
        return None


def residual_adds(graph: Graph) -> Iterator[Any]:
    """The adds of two activations; adds of a bias are none."""
    for op in graph.block.ops:
        of_weight = any(graph.block.var(name).persistable for name in op.input_arg_names)
        if op.type == "elementwise_add" and not of_weight:
            yield op


def signed_residuals(program: Program) -> Iterator[tuple[str, str]]:
    """Outputs of relu(add(a, b)) with both a and b signed: (output, its scale variable).

    oneDNN's convolution with a folded add writes the type of its residual operand. Behind a relu
    Paddle computes the output's scale for u8, 255 steps; with a signed operand the values are then
    written as s8 and everything above 127 steps, half the range, is cut off.
    """
    graph = Graph(program)
    adds = {op.output("Out")[0]: op for op in residual_adds(graph)}
    for op in program.global_block().ops:
        if op.type not in ("relu", "relu6"):
            continue
        source = graph.source(op.input("X")[0])
        add = adds.get(source.output_arg_names[0]) if source is not None else None
        if add is None or any(graph.is_unsigned(name) for name in add.input_arg_names):
            continue
        scale = graph.scale_of(op.output("Out")[0])
        if scale is not None:
            yield op.output("Out")[0], scale


def keep_unsigned_residuals_apart(program: Program) -> list[str]:
    """Keep oneDNN from folding adds of an unsigned residual whose sum may be negative.

    The convolution would write the sum in its residual's type, u8, and cut it off at zero. As an
    op of its own the add runs in INT8 and is right. Returns the sums' names.
    """
    graph = Graph(program)
    readers = {n: op.type for op in graph.block.ops for n in op.input_arg_names}
    apart = []
    for add in residual_adds(graph):
        output = add.output("Out")[0]
        unsigned = [graph.is_unsigned(name) for name in add.input_arg_names]
        if any(unsigned) and not all(unsigned) and readers.get(output) not in ("relu", "relu6"):
            add._set_attr("axis", NOT_FOLDED_AXIS)
            apart.append(output)
    return apart


def widen_signed_residuals(program: Program, scope: static.Scope) -> list[str]:
    """Scale such outputs so that 127 steps span their range; returns their names."""
    changed = []
    for output, scale in signed_residuals(program):
        value = np.array(scope.find_var(scale).get_tensor())
        widened = value * np.float32(UNSIGNED_MAX / SIGNED_MAX)
        write_variables(scope, {scale: widened})
        changed.append(output)
    return changed


def skip_pools(program: Program, widened: Sequence[str]) -> dict[str, str]:
    """Keep the pools in FP32 that have no INT8 kernel; output -> reason."""
    graph = Graph(program)
    skipped = {}
    for op in program.global_block().ops:
        if op.type != "pool2d":
            continue
        source = graph.source(op.input("X")[0])
        sides = graph.block.var(op.input("X")[0]).shape[2:]
        if source is not None and set(source.output_arg_names) & set(widened):
            reason = "its input is a signed residual sum, for which oneDNN has no pooling kernel"
        elif op.attr("pooling_type") == "avg" and is_global(op, sides):
            reason = "the mean of a whole plane would be rounded to the steps of its largest value"
        elif op.attr("adaptive") and has_uneven_windows(sides, op.attr("ksize")):
            reason = "it is adaptive with windows of different sizes, which oneDNN does not know"
        else:
            continue
        op._set_attr("skip_quant", 1)
        skipped[op.output("Out")[0]] = reason
    return skipped


def is_global(op: Any, sides: Sequence[int]) -> bool:
    """Whether a pool's window is its whole input."""
    whole = [1, 1] if op.attr("adaptive") else list(sides)
    return op.attr("global_pooling") or list(op.attr("ksize")) == whole


def has_uneven_windows(sides: Sequence[int], outputs: Sequence[int]) -> bool:
    """Whether an adaptive pool's output is no whole fraction of its input."""
    return any(side % output != 0 for side, output in zip(sides, outputs, strict=True))


def build(
    fake_quantized: Path,
    out: Path,
    quantize_op_types: Sequence[str],
    images: np.ndarray,
) -> tuple[Audit, np.ndarray]:
    """Write the INT8 model to ``out``/model.pdmodel and .pdiparams.

    Args:
        fake_quantized: prefix of the fake-quantized model.
        out: an existing folder.
        quantize_op_types: op types that were trained to be quantized.
        images: float32 [N, C, H, W], to check the saved model against the just-in-time one.

    Returns:
        The audit, and the model's scores of ``images`` before its weights were packed; those of
        the saved model must be the same.

    Raises:
        QuantizationError: nothing was quantized, or Paddle cannot run the model in INT8.
    """
    work = out / "work"
    work.mkdir(exist_ok=True)
    scope = static.Scope()
    with static.scope_guard(scope):
        executor = static.Executor(cpu())
        program, _, logits = load_inference_model(fake_quantized, executor, scope)
        before = Counter(op.type for op in program.global_block().ops)
        widened = widen_signed_residuals(program, scope)
        keep_unsigned_residuals_apart(program)
        skipped = skip_pools(program, widened)
        save_inference_model(program, work / "prepared", logits, executor)
    optimize(work / "prepared", work, int8_op_types(quantize_op_types), images)
    optimized = work / "_optimized"
    corrected = correct_matrix_scales(optimized)
    scores = Predictor(configuration(optimized, INT8, threads=1)).scores(images)
    repack(optimized, out / PREFIX)
    ops = read_ops(Path(f"{optimized}.pdmodel"))
    shutil.rmtree(work)
    corrections = {"matrix_scales": corrected, "residual_sums": len(widened)}
    return audit(before, ops, skipped, corrections), scores


def optimize(prefix: Path, cache: Path, op_types: set[str], images: np.ndarray) -> None:
    """Let Paddle's passes make the INT8 graph, run it once and save it to ``cache``."""
    config = inference.Config(f"{prefix}.pdmodel", f"{prefix}.pdiparams")
    config.set_cpu_math_library_num_threads(1)
    config.enable_mkldnn()
    config.enable_mkldnn_int8(op_types)
    config.delete_pass(HARMFUL_PASS)
    config.set_optim_cache_dir(str(cache))
    config.enable_save_optim_model(True)
    try:
        Predictor(config).scores(images)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise QuantizationError(
            f"Paddle cannot run this model in INT8: {reason}",
            "Leave the op type that it names out of /quantize/quantize_op_types.",
        ) from error


def read_ops(model: Path) -> list[framework_pb2.OpDesc]:
    """The ops of a saved program, with the attributes that Paddle's Python API hides."""
    description = framework_pb2.ProgramDesc()
    description.ParseFromString(model.read_bytes())
    return [op for op in description.blocks[0].ops if op.type not in ("feed", "fetch")]


def attribute(op: framework_pb2.OpDesc, name: str) -> object:
    """An attribute's value by name; None when it is not set."""
    for item in op.attrs:
        if item.name == name:
            value = {0: item.i, 1: item.f, 2: item.s, 6: item.b}.get(item.type)
            return list(item.floats) if item.type == 4 else value
    return None


def is_int8(op: framework_pb2.OpDesc) -> bool:
    """Whether an optimized op computes on 8-bit integers."""
    return attribute(op, "mkldnn_data_type") == "int8" and op.type not in ("quantize", "dequantize")


def audit(
    before: Mapping[str, int],
    ops: Sequence[framework_pb2.OpDesc],
    skipped: Mapping[str, str],
    corrected: Mapping[str, int],
) -> Audit:
    """Account for every op of the model.

    Raises:
        QuantizationError: no convolution or matrix product runs in INT8.
    """
    after = Counter(op.type for op in ops)
    int8 = [op for op in ops if is_int8(op)]
    weighted = [op for op in ops if op.type in WEIGHTED]
    left = [
        {"op": op.outputs[0].arguments[0], "type": op.type, "reason": why_fp32(op)}
        for op in weighted
        if not is_int8(op)
    ]
    left += [{"op": name, "type": "pool2d", "reason": why} for name, why in skipped.items()]
    if not any(op.type in WEIGHTED for op in int8):
        raise QuantizationError(
            f"no convolution or matrix product of {len(weighted)} was quantized",
            "Check /quantize/quantize_op_types and /quantize/not_quant_pattern.",
        )
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


def why_fp32(op: framework_pb2.OpDesc) -> str:
    """Why a convolution or matrix product stayed in FP32."""
    if not attribute(op, "quantization_type") and op.type != "fc":
        return "not quantized in training (its type or its name scope was left out)"
    return "oneDNN's passes found no scale for its input or output"
