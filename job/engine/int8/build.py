"""From the fake-quantized model to one that oneDNN runs in INT8."""

import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from paddle import inference, static

from job.engine.inference.predictor import HARMFUL_PASS, INT8, Predictor, configuration
from job.engine.inference.saved_model import PREFIX
from job.engine.int8.audit import WEIGHTED, Audit, Left, attribute, audit, is_int8, read_ops
from job.engine.int8.graph_fixes import (
    keep_unsigned_residuals_apart,
    skip_pools,
    widen_signed_residuals,
)
from job.engine.int8.skip_ops import skip
from job.engine.int8.weights import correct_matrix_scales, repack
from job.engine.training.programs import cpu, load_inference_model, save_inference_model
from job.errors import QuantizationError

__all__ = [
    "PREFIX",
    "WEIGHTED",
    "Audit",
    "QuantizationError",
    "attribute",
    "build",
    "is_int8",
    "read_ops",
]

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


def int8_op_types(quantize_op_types: Sequence[str]) -> set[str]:
    """The op types that may run in INT8: those that were trained to, under the engine's names."""
    return {name for kind in quantize_op_types for name in INT8_OP_TYPES[kind]}


def build(
    fake_quantized: Path,
    out: Path,
    quantize_op_types: Sequence[str],
    images: np.ndarray,
    *,
    quantized_ops: Collection[str] | None = None,
    skip_ops: Sequence[str] = (),
) -> tuple[Audit, np.ndarray]:
    """Write the INT8 model to ``out``/model.pdmodel and .pdiparams.

    Args:
        fake_quantized: prefix of the fake-quantized model.
        out: an existing folder.
        quantize_op_types: op types that were trained to be quantized.
        images: float32 [N, C, H, W], to check the saved model against the just-in-time one.
        quantized_ops: those of ``quantize_op_types`` that run in INT8; None means all.
        skip_ops: further ops to leave in FP32, by type, name of output, or ``#`` and index.

    Returns:
        The audit, and the model's scores of ``images`` before its weights were packed; those of
        the saved model must be the same.

    Raises:
        QuantizationError: nothing was quantized, or Paddle cannot run the model in INT8.
        UsageError: an item of ``skip_ops`` matches no op.
    """
    work = out / "work"
    # Of an attempt that was killed nothing is used: Paddle would take a half-written graph.
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    scope = static.Scope()
    with static.scope_guard(scope):
        executor = static.Executor(cpu())
        program, _, logits = load_inference_model(fake_quantized, executor, scope)
        before = Counter(op.type for op in program.global_block().ops)
        skipped = skip(program, quantize_op_types, quantized_ops, skip_ops)
        widened = widen_signed_residuals(program, scope)
        keep_unsigned_residuals_apart(program)
        pools = skip_pools(program, widened)
        save_inference_model(program, work / "prepared", logits, executor)
    optimize(work / "prepared", work, int8_op_types(quantize_op_types), images)
    optimized = work / "_optimized"
    corrected = correct_matrix_scales(optimized)
    scores = Predictor(configuration(optimized, INT8, threads=1)).scores(images)
    repack(optimized, out / PREFIX)
    ops = read_ops(Path(f"{optimized}.pdmodel"))
    shutil.rmtree(work)
    left = [*skipped, *(Left(name, "pool2d", "", reason) for name, reason in pools.items())]
    corrections = {"matrix_scales": corrected, "residual_sums": len(widened)}
    return audit(before, ops, left, corrections), scores


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
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise QuantizationError(
            f"Paddle cannot run this model in INT8: {reason}",
            "Leave the op type that it names out of /quantize/quantize_op_types.",
        ) from error
