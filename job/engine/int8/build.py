"""Converts the fake-quantized model to a model that oneDNN runs in INT8."""

import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from paddle import inference, static

from job.engine.inference.failure import reason_of
from job.engine.inference.paddle_format import attribute, is_int8
from job.engine.inference.predictor import HARMFUL_PASS, INT8, Predictor, configuration
from job.engine.inference.saved_model import NETWORK, PREFIX
from job.engine.int8.audit import WEIGHTED, Audit, Left, audit, read_ops, read_weights
from job.engine.int8.fused_sums import keep_wrong_sums_apart
from job.engine.int8.global_means import replace_global_means, use_native_means
from job.engine.int8.graph_fixes import (
    keep_unsigned_residuals_apart,
    skip_pools,
    widen_signed_residuals,
    write_factors_as_constants,
)
from job.engine.int8.known_scales import keep_sums_without_scale_apart
from job.engine.int8.repeated_products import keep_repeated_products_apart
from job.engine.int8.skip_ops import skip
from job.engine.int8.transposed_convolutions import copy_blocked_outputs
from job.engine.int8.weights import repack, restore_matrices
from job.engine.int8.zero_biases import add_zero_biases
from job.engine.quantize.grid import remove_steps
from job.engine.training.programs import cpu, load_inference_model, save_inference_model
from job.errors import QuantizationError
from job.host import read_host

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

# Op type in /quantize/quantize_op_types -> op types that Paddle's oneDNN passes replace it with.
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
    """Return the engine's op types that may run in INT8, for the trained op types."""
    return {name for kind in quantize_op_types for name in INT8_OP_TYPES[kind]}


def build(
    fake_quantized: Path,
    out: Path,
    quantize_op_types: Sequence[str],
    images: np.ndarray,
    *,
    quantized_ops: Collection[str] | None = None,
    skip_ops: Sequence[str] = (),
) -> tuple[Audit, tuple[np.ndarray, ...]]:
    """Write the INT8 model to ``out``/model.pdmodel and .pdiparams.

    Args:
        fake_quantized: prefix of the fake-quantized model.
        out: existing folder.
        quantize_op_types: op types that were quantized in training.
        images: float32 [N, C, H, W], to compare the outputs of the saved model.
        quantized_ops: the op types of ``quantize_op_types`` that run in INT8; None means all.
        skip_ops: further ops to keep in FP32, by type, name of the output, or ``#`` and index.

    Returns:
        The audit, and the outputs for ``images`` before the weights were packed. The saved model
        must have the same outputs.

    Raises:
        QuantizationError: no op was quantized, or Paddle cannot run the model in INT8.
        UsageError: an item of ``skip_ops`` matches no op.
    """
    work = out / "work"
    # Files of a killed attempt are removed, because Paddle would load a half-written graph.
    shutil.rmtree(work, ignore_errors=True)
    (out / NETWORK).unlink(missing_ok=True)
    work.mkdir()
    scope = static.Scope()
    with static.scope_guard(scope):
        executor = static.Executor(cpu())
        program, _, fetches = load_inference_model(fake_quantized, executor, scope)
        remove_steps(program)
        before = Counter(op.type for op in program.global_block().ops)
        skipped = skip(program, quantize_op_types, quantized_ops, skip_ops)
        widened = widen_signed_residuals(program, scope)
        keep_unsigned_residuals_apart(program)
        pools = skip_pools(program, widened)
        correct_graph(program, scope)
        save_inference_model(program, work / "prepared", fetches, executor)
    optimize(work / "prepared", work, int8_op_types(quantize_op_types), images)
    optimized = work / "_optimized"
    use_native_means(optimized)
    corrected = restore_matrices(optimized, fake_quantized, vnni=read_host().has_vnni)
    outputs = outputs_of(optimized, images)
    repack(optimized, out / PREFIX)
    model = Path(f"{optimized}.pdmodel")
    ops, weights = read_ops(model), read_weights(model)
    shutil.rmtree(work)
    kept = [*skipped, *(Left(name, "pool2d", "", reason) for name, reason in pools.items())]
    corrections = {"matrix_scales": corrected, "residual_sums": len(widened)}
    return audit(before, ops, kept, corrections, weights), outputs


def correct_graph(program: static.Program, scope: static.Scope) -> None:
    """Rewrite the parts of a program that Paddle's INT8 passes would compute wrongly."""
    replace_global_means(program)
    keep_sums_without_scale_apart(program)
    keep_wrong_sums_apart(program)
    keep_repeated_products_apart(program)
    copy_blocked_outputs(program)
    add_zero_biases(program, scope)
    write_factors_as_constants(program, scope)


def outputs_of(prefix: Path, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the outputs of an INT8 model for images, float32 [N, C, H, W].

    Raises:
        QuantizationError: Paddle cannot run the model.
    """
    with paddle_errors():
        return Predictor(configuration(prefix, INT8, threads=1)).outputs(images)


@contextmanager
def paddle_errors() -> Iterator[None]:
    """Translate errors of Paddle.

    Raises:
        QuantizationError: Paddle raised an error.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise QuantizationError(
            f"Paddle failed to build or run the INT8 model: {reason_of(error)}",
            "If the message names an op type, remove it from /quantize/quantize_op_types.",
        ) from error


def optimize(prefix: Path, cache: Path, op_types: set[str], images: np.ndarray) -> None:
    """Run Paddle's passes to build the INT8 graph, run the graph once and save it to ``cache``.

    Args:
        prefix: prefix of the prepared fake-quantized model.
        cache: folder for the optimized model.
        op_types: the engine's op types that may run in INT8.
        images: float32 [N, C, H, W].

    Raises:
        QuantizationError: Paddle failed.
    """
    config = inference.Config(f"{prefix}.pdmodel", f"{prefix}.pdiparams")
    config.set_cpu_math_library_num_threads(1)
    config.enable_mkldnn()
    config.enable_mkldnn_int8(op_types)
    config.delete_pass(HARMFUL_PASS)
    config.set_optim_cache_dir(str(cache))
    config.enable_save_optim_model(True)
    with paddle_errors():
        Predictor(config).scores(images)
