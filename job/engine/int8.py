"""From the fake-quantized model to one that oneDNN runs in INT8, and the audit of what became of
its ops."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from paddle import inference, static
from paddle.base.proto import framework_pb2
from paddle.static import Program

from job.engine.predictor import HARMFUL_PASS, Predictor
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
    """

    ops_before: Mapping[str, int]
    ops_after: Mapping[str, int]
    int8_ops: int
    fp32_ops: int
    left_in_fp32: Sequence[Mapping[str, str]]
    folded: Mapping[str, int]


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

    def scale_of(self, name: str) -> str | None:
        """The scale variable of the pair behind variable ``name``."""
        for op in self.block.ops:
            if op.type == QUANTIZE and op.input("X")[0] == name:
                return op.input("Scale")[0]
        return None


def signed_residuals(program: Program) -> Iterator[tuple[str, str]]:
    """Outputs of relu(add(a, b)) with both a and b signed: (output, its scale variable).

    oneDNN's convolution with a folded add writes the type of its residual operand. Behind a relu
    Paddle computes the output's scale for u8, 255 steps; with a signed operand the values are then
    written as s8 and everything above 127 steps, half the range, is cut off.
    """
    graph = Graph(program)
    for op in program.global_block().ops:
        if op.type not in ("relu", "relu6"):
            continue
        add = graph.source(op.input("X")[0])
        if add is None or add.type != "elementwise_add":
            continue
        operands = [graph.source(name) for name in add.input_arg_names]
        if all(o is not None and o.type in ("batch_norm", *WEIGHTED) for o in operands):
            scale = graph.scale_of(op.output("Out")[0])
            if scale is not None:
                yield op.output("Out")[0], scale


def widen_signed_residuals(program: Program, scope: static.Scope) -> list[str]:
    """Scale such outputs so that 127 steps span their range; returns their names."""
    changed = []
    for output, scale in signed_residuals(program):
        value = np.array(scope.find_var(scale).get_tensor())
        widened = value * np.float32(UNSIGNED_MAX / SIGNED_MAX)
        write_variables(scope, {scale: widened})
        changed.append(output)
    return changed


def skip_pools_of(program: Program, outputs: Sequence[str]) -> list[str]:
    """Keep pools that read such an output in FP32: s8 data declared as u8 has no pooling kernel."""
    graph = Graph(program)
    skipped = []
    for op in program.global_block().ops:
        if op.type != "pool2d":
            continue
        source = graph.source(op.input("X")[0])
        if source is not None and set(source.output_arg_names) & set(outputs):
            op._set_attr("skip_quant", 1)
            skipped.append(op.output("Out")[0])
    return skipped


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
        The audit, and the just-in-time model's scores of ``images``.

    Raises:
        QuantizationError: nothing was quantized, or the saved model gives other scores.
    """
    work = out / "work"
    work.mkdir(exist_ok=True)
    scope = static.Scope()
    with static.scope_guard(scope):
        executor = static.Executor(cpu())
        program, _, logits = load_inference_model(fake_quantized, executor, scope)
        before = Counter(op.type for op in program.global_block().ops)
        widened = widen_signed_residuals(program, scope)
        skipped = skip_pools_of(program, widened)
        save_inference_model(program, work / "prepared", logits, executor)
    scores = just_in_time(work / "prepared", work, int8_op_types(quantize_op_types), images)
    for suffix in (".pdmodel", ".pdiparams"):
        (work / f"_optimized{suffix}").replace(out / f"{PREFIX}{suffix}")
    shutil.rmtree(work)
    return audit(before, read_ops(out / f"{PREFIX}.pdmodel"), skipped), scores


def just_in_time(prefix: Path, cache: Path, op_types: set[str], images: np.ndarray) -> np.ndarray:
    """Let Paddle's passes make the INT8 graph, saving it to ``cache``; returns its scores."""
    config = inference.Config(f"{prefix}.pdmodel", f"{prefix}.pdiparams")
    config.set_cpu_math_library_num_threads(1)
    config.enable_mkldnn()
    config.enable_mkldnn_int8(op_types)
    config.delete_pass(HARMFUL_PASS)
    config.set_optim_cache_dir(str(cache))
    config.enable_save_optim_model(True)
    return Predictor(config).scores(images)


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


def first(op: framework_pb2.OpDesc, slots: Sequence, name: str) -> str:
    """The first argument of a slot; empty when it has none."""
    return next((s.arguments[0] for s in slots if s.parameter == name and s.arguments), "")


def is_int8(op: framework_pb2.OpDesc) -> bool:
    """Whether an optimized op computes on 8-bit integers."""
    return attribute(op, "mkldnn_data_type") == "int8" and op.type not in ("quantize", "dequantize")


def audit(
    before: Mapping[str, int], ops: Sequence[framework_pb2.OpDesc], skipped_pools: Sequence[str]
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
    pool_reason = "its input is a signed residual sum, for which oneDNN has no pooling kernel"
    left += [{"op": name, "type": "pool2d", "reason": pool_reason} for name in skipped_pools]
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
            "residual_add": sum(bool(first(op, op.inputs, "ResidualData")) for op in ops),
        },
    )


ACTIVATIONS = ("relu", "relu6", "hard_swish", "hard_sigmoid", "swish", "sigmoid", "leaky_relu")


def why_fp32(op: framework_pb2.OpDesc) -> str:
    """Why a convolution or matrix product stayed in FP32."""
    if not attribute(op, "quantization_type") and op.type != "fc":
        return "not quantized in training (its type or its name scope was left out)"
    return "oneDNN's passes found no scale for its input or output"
