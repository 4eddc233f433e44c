"""Post-training quantization: measures scales with PaddleSlim, without training."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import static
from paddle.static import Program

from job.engine.quantize.fake_quantize import QUANTIZE, convert, insert, keep_bias_adds_whole
from job.engine.quantize.grid import use_unsigned_steps
from job.engine.quantize.scales import scale_sources, weight_scales
from job.engine.quantize.shared_weights import read_copies
from job.engine.training.programs import (
    IMAGE,
    cpu,
    load_inference_model,
    read_variables,
    save_inference_model,
    skip_computed_weights,
    write_variables,
)
from job.engine.training.ready_names import name_apart

# Algorithms that compute a range from a histogram of magnitudes.
OF_HISTOGRAMS = ("hist", "KL")


def post_training(
    fp32: Path,
    out: Path,
    batches: Sequence[np.ndarray],
    settings: Mapping[str, Any],
    algorithm: str,
) -> Program:
    """Quantize a saved FP32 model by ``quant_post_static``, without training.

    Args:
        fp32: prefix of the FP32 model.
        out: prefix of the fake-quantized model to write.
        batches: calibration images, float32 [N, C, H, W] each.
        settings: configuration of ``quant_aware``.
        algorithm: method that determines activation ranges: ``hist``, ``KL``, ``mse``, ``avg`` or
            ``abs_max``.

    Returns:
        The fake-quantized program.
    """
    from paddleslim.quant import quant_post_static

    raw, source = out.parent / "raw", out.parent / "source"
    executor, measured = static.Executor(cpu()), static.Scope()
    write_apart(fp32, source / fp32.name, executor)
    with static.scope_guard(measured):
        quant_post_static(
            executor,
            str(source),
            str(raw),
            data_loader=lambda: ({IMAGE: images} for images in batches),
            model_filename=f"{fp32.name}.pdmodel",
            params_filename=f"{fp32.name}.pdiparams",
            batch_nums=len(batches),
            scope=measured,
            algo=algorithm,
            quantizable_op_type=list(settings["quantize_op_types"]),
            weight_quantize_type=settings["weight_quantize_type"],
            activation_quantize_type="range_abs_max",
            onnx_format=True,
        )
    shutil.rmtree(raw)
    shutil.rmtree(source)
    # Only the scales of PaddleSlim's model are used, because the observers in its program have the
    # names of other quantize ops.
    scope = static.Scope()
    with static.scope_guard(scope):
        program, _, logits = load_inference_model(fp32, executor, scope)
        mark_excluded(program)
        quantized = insert(program, scope, settings, for_test=True)
        use_unsigned_steps(quantized)
        names = [op.input("Scale")[0] for op in quantized.global_block().ops if op.type == QUANTIZE]
        scales = read_variables(measured, names)
        if algorithm in OF_HISTOGRAMS:
            offsets = smallest_magnitudes(fp32, scale_sources(quantized), batches)
            scales |= {name: scales[name] + offset for name, offset in offsets.items()}
        write_variables(scope, {name: scale.reshape(-1) for name, scale in scales.items()})
        # PaddleSlim can measure a weight along the axis of another op that reads the weight.
        write_variables(scope, weight_scales(quantized, scope))
        program = convert(quantized, scope)
        save_inference_model(program, out, logits, executor)
    return program


def mark_excluded(program: Program) -> None:
    """Mark the ops that are not quantized; the saved FP32 model lacks some of these marks."""
    keep_bias_adds_whole(program)
    skip_computed_weights(program)


def write_apart(fp32: Path, out: Path, executor: static.Executor) -> None:
    """Write a copy of an FP32 model in which excluded ops share no weight with quantized ops.

    Args:
        fp32: prefix of the model.
        out: prefix of the copy.
        executor: runs on the CPU.
    """
    scope = static.Scope()
    with static.scope_guard(scope):
        program, _, logits = load_inference_model(fp32, executor, scope)
        mark_excluded(program)
        read_copies(program)
        out.parent.mkdir()
        save_inference_model(program, out, logits, executor)


def smallest_magnitudes(
    fp32: Path, sources: Mapping[str, str], batches: Sequence[np.ndarray]
) -> dict[str, np.float32]:
    """Return the smallest magnitude of each activation.

    PaddleSlim's histograms begin at this magnitude, but its ranges are computed as if they began at
    zero. Values that are never near zero, such as the results of a sigmoid, would be clipped.

    Args:
        fp32: prefix of the FP32 model.
        sources: scale variable -> variable.
        batches: calibration images, float32 [N, C, H, W] each.

    Returns:
        Scale variable of each activation -> smallest magnitude.
    """
    executor, scope = static.Executor(cpu()), static.Scope()
    with static.scope_guard(scope):
        program, _, _ = load_inference_model(fp32, executor, scope)
        block = program.global_block()
        wanted = {scale: name for scale, name in sources.items() if not block.var(name).persistable}
        name_apart(program)
        with static.program_guard(program):
            fetches = [paddle.min(paddle.abs(block.var(name))) for name in wanted.values()]
        found = [executor.run(program, {IMAGE: images}, fetches) for images in batches]
    return dict(zip(wanted, np.array(found, "float32").min(axis=0).reshape(-1), strict=True))
