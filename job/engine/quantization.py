"""Fake-quantized programs: inserting, calibrating and converting them with PaddleSlim."""

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import static
from paddle.static import Program
from paddleslim.quant import convert as slim_convert
from paddleslim.quant import quant_aware, quant_post_static
from paddleslim.quant.quanter import get_pact_optimizer, pact

from job.engine.programs import (
    IMAGE,
    Classifier,
    cpu,
    load_inference_model,
    save_inference_model,
    write_variables,
)
from job.errors import QuantizationError

SKIP = "skip_quant"
QUANTIZE, DEQUANTIZE = "quantize_linear", "dequantize_linear"
# Moving averages start as if they had always seen the calibrated value: state = 1 + r + r^2 + ...
DEFAULT_SCALE_FLOOR = 1e-8

logging.getLogger("paddleslim").setLevel(logging.WARNING)


def keep_bias_adds_whole(program: Program) -> None:
    """Keep quantization away from adds of a bias, which the engine folds into the op before.

    Quantizing them would round the sum before its bias is in, at no gain.
    """
    block = program.global_block()
    for op in block.ops:
        if op.type == "elementwise_add" and block.var(op.input("Y")[0]).persistable:
            op._set_attr("op_namescope", f"/{SKIP}/")


def insert(
    program: Program,
    scope: static.Scope,
    executor: static.Executor,
    settings: Mapping[str, Any],
    *,
    for_test: bool,
    with_pact: bool,
) -> Program:
    """``program`` with quantize/dequantize ops before the inputs of the ops to be quantized.

    Args:
        settings: ``quant_aware``'s own configuration.
        for_test: False for a training program, whose optimizer is already in.
        with_pact: clip activations at a trained bound (PACT, arXiv:1805.06085).
    """
    patterns = settings["not_quant_pattern"]
    config = dict(settings, not_quant_pattern=sorted({*patterns, SKIP}))
    extra = (
        {
            "act_preprocess_func": pact,
            "optimizer_func": get_pact_optimizer,
            "executor": executor,
        }
        if with_pact
        else {}
    )
    return quant_aware(
        program,
        cpu(),
        config,
        scope=scope,
        for_test=for_test,
        return_program=True,
        **extra,
    )


def scale_sources(program: Program) -> dict[str, str]:
    """Scale variable -> the variable that it measures, for every quantize and observer op."""
    sources = {}
    for op in program.global_block().ops:
        if op.type == QUANTIZE:
            sources[op.input("Scale")[0]] = op.input("X")[0]
        elif op.type == "moving_average_abs_max_scale":
            sources[op.output("OutScale")[0]] = op.input("X")[0]
    return sources


def weight_scales(program: Program, scope: static.Scope) -> dict[str, np.ndarray]:
    """The largest magnitude of each quantized weight, per channel where the settings say so."""
    scales = {}
    block = program.global_block()
    for op in block.ops:
        if op.type != QUANTIZE or not block.var(op.input("X")[0]).persistable:
            continue
        weight = np.abs(np.array(scope.find_var(op.input("X")[0]).get_tensor()))
        axis = op.attr("quant_axis")
        others = tuple(i for i in range(weight.ndim) if i != axis)
        largest = weight.max(axis=others) if axis >= 0 else weight.max().reshape(1)
        scales[op.input("Scale")[0]] = np.maximum(largest, DEFAULT_SCALE_FLOOR).astype("float32")
    return scales


def calibrate(
    classifier: Classifier,
    quantized: Program,
    training: Program | None,
    scope: static.Scope,
    executor: static.Executor,
    batches: Iterable[np.ndarray],
    *,
    moving_rate: float,
) -> int:
    """Measure every scale on the FP32 model, before the first step of training.

    Activations get the mean over batches of the largest magnitude in a batch, which is what their
    moving average would converge to; weights their largest magnitude. The averages in
    ``training`` are warmed to that value.

    Args:
        batches: float32 images [N, C, H, W].

    Returns:
        The number of activation scales measured.
    """
    block = classifier.evaluation.global_block()
    sources = {
        scale: source
        for scale, source in scale_sources(quantized).items()
        if block.has_var(source) and not block.var(source).persistable
    }
    means = mean_largest(classifier.evaluation, sorted(set(sources.values())), executor, batches)
    scales = {
        scale: np.array([max(means[source], DEFAULT_SCALE_FLOOR)], "float32")
        for scale, source in sources.items()
    }
    write_variables(scope, {**scales, **weight_scales(quantized, scope)})
    if training is not None:
        write_variables(scope, warm_averages(training, scales, moving_rate))
    return len(scales)


def mean_largest(
    program: Program,
    names: Sequence[str],
    executor: static.Executor,
    batches: Iterable[np.ndarray],
) -> dict[str, float]:
    """Mean over batches of max(|x|), for each variable in ``names``."""
    probe = program.clone(for_test=True)
    with static.program_guard(probe):
        # Reduced inside the program: fetching whole activations would need gigabytes.
        fetches = [paddle.max(paddle.abs(probe.global_block().var(name))) for name in names]
    totals, count = np.zeros(len(names)), 0
    for images in batches:
        totals += np.array(executor.run(probe, {IMAGE: images}, fetches)).reshape(-1)
        count += 1
    if count == 0 or not np.isfinite(totals).all():
        bad = [n for n, total in zip(names, totals, strict=True) if not np.isfinite(total)]
        raise QuantizationError(
            f"calibration failed: {count} batches, not finite: {', '.join(bad[:5]) or 'none'}",
            "Check the calibration images and the FP32 weights.",
        )
    return dict(zip(names, (totals / count).tolist(), strict=True))


def warm_averages(
    training: Program, scales: Mapping[str, np.ndarray], moving_rate: float
) -> dict[str, np.ndarray]:
    """State and accumulator of each moving average, as after infinitely many equal batches."""
    state = np.array([1.0 / (1.0 - moving_rate)], "float32")
    values = {}
    for op in training.global_block().ops:
        if op.type == QUANTIZE and "InState" in op.input_names and op.input("InState"):
            scale = op.input("Scale")[0]
        elif op.type == "moving_average_abs_max_scale" and op.input("InState"):
            scale = op.output("OutScale")[0]
        else:
            continue
        if scale in scales:
            values[op.input("InState")[0]] = state
            values[op.input("InAccum")[0]] = state * scales[scale]
    return values


def freeze_batch_norm(program: Program) -> int:
    """Make every batch norm of a training program use, and keep, its running statistics."""
    count = 0
    for op in program.global_block().ops:
        if op.type in ("batch_norm", "batch_norm_grad"):
            op._set_attr("use_global_stats", True)
            count += op.type == "batch_norm"
    return count


def convert(
    quantized: Program, scope: static.Scope, settings: Mapping[str, Any], logits: str
) -> tuple[Program, str]:
    """The fake-quantized inference program: int8 weights, quantize/dequantize ops.

    PaddleSlim's convert also puts an observer pair after nearly every op, which the settings did
    not ask for and training never saw; those are removed again, as are PACT's clips, whose bound
    becomes a bound of the scale.

    Returns:
        The program and the name of its logits.
    """
    program = slim_convert(quantized, cpu(), dict(settings), scope=scope)
    logits = strip_observers(program, logits)
    return program, logits


def strip_observers(program: Program, logits: str) -> str:
    """Remove quantize/dequantize pairs that only observe; returns the logits' name after that."""
    block = program.global_block()
    renamed: dict[str, str] = {}
    doomed = []
    for index, op in enumerate(block.ops):
        for name in op.input_arg_names:
            if name in renamed:
                op._rename_input(name, renamed[name])
        if op.type in (QUANTIZE, DEQUANTIZE) and op.has_attr("only_observer"):
            if op.attr("only_observer"):
                renamed[op.output("Y")[0]] = op.input("X")[0]
                doomed.append(index)
    for index in reversed(doomed):
        block._remove_op(index, sync=False)
    program._sync_with_cpp()
    return renamed.get(logits, logits)


def post_training(
    fp32: Path,
    out: Path,
    batches: Sequence[np.ndarray],
    settings: Mapping[str, Any],
    algorithm: str,
) -> Program:
    """Quantize a saved FP32 model without training, by ``quant_post_static``.

    Args:
        fp32: prefix of the FP32 model.
        out: prefix of the fake-quantized model to write.
        batches: calibration images, float32 [N, C, H, W] each.
        algorithm: how activation ranges are chosen: hist, KL, mse, avg or abs_max.
    """
    scope = static.Scope()
    raw = out.parent / "raw"
    with static.scope_guard(scope):
        executor = static.Executor(cpu())
        quant_post_static(
            executor,
            str(fp32.parent),
            str(raw),
            batch_generator=lambda: ([images] for images in batches),
            model_filename=f"{fp32.name}.pdmodel",
            params_filename=f"{fp32.name}.pdiparams",
            batch_nums=len(batches),
            scope=scope,
            algo=algorithm,
            quantizable_op_type=list(settings["quantize_op_types"]),
            weight_quantize_type=settings["weight_quantize_type"],
            activation_quantize_type="range_abs_max",
            onnx_format=True,
        )
    clean = static.Scope()
    with static.scope_guard(clean):
        program, _, logits = load_inference_model(raw / "model", executor, clean)
        logits = strip_observers(program, logits)
        save_inference_model(program, out, logits, executor)
    shutil.rmtree(raw)
    return program


def quantized_ops(program: Program) -> dict[str, int]:
    """How many ops of each type read only quantized values (and, at most, biases)."""
    block = program.global_block()
    dequantized = {
        name for op in block.ops if op.type == DEQUANTIZE for name in op.output_arg_names
    }
    counts: dict[str, int] = {}
    for op in block.ops:
        inputs = [n for n in op.input_arg_names if op.type not in (QUANTIZE, DEQUANTIZE)]
        if inputs and all(n in dequantized or block.var(n).persistable for n in inputs):
            if any(n in dequantized for n in inputs):
                counts[op.type] = counts.get(op.type, 0) + 1
    return counts
