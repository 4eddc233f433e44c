"""Post-training quantization: measures scales with PaddleSlim, without training."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from paddle import static
from paddle.static import Program

from job.engine.quantize.fake_quantize import QUANTIZE, convert, insert, keep_bias_adds_whole
from job.engine.quantize.grid import use_unsigned_steps
from job.engine.training.programs import (
    IMAGE,
    cpu,
    load_inference_model,
    read_variables,
    save_inference_model,
    skip_computed_weights,
    write_variables,
)


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

    raw = out.parent / "raw"
    executor, measured = static.Executor(cpu()), static.Scope()
    with static.scope_guard(measured):
        quant_post_static(
            executor,
            str(fp32.parent),
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
    # Only the scales of PaddleSlim's model are used, because the observers in its program have the
    # names of other quantize ops.
    scope = static.Scope()
    with static.scope_guard(scope):
        program, _, logits = load_inference_model(fp32, executor, scope)
        # A saved program lacks the marks of ops that are not quantized.
        keep_bias_adds_whole(program)
        skip_computed_weights(program)
        quantized = insert(program, scope, settings, for_test=True)
        use_unsigned_steps(quantized)
        names = [op.input("Scale")[0] for op in quantized.global_block().ops if op.type == QUANTIZE]
        scales = read_variables(measured, names)
        write_variables(scope, {name: scale.reshape(-1) for name, scale in scales.items()})
        program = convert(quantized, scope)
        save_inference_model(program, out, logits, executor)
    return program
