"""Scales measured on the FP32 model, before a fake-quantized one is trained."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import paddle
from paddle import static
from paddle.static import Program

from job.engine.quantize.fake_quantize import DEFAULT_SCALE_FLOOR, QUANTIZE, measures_images
from job.engine.quantize.pact import clips
from job.engine.training.programs import IMAGE, Classifier, read_variables, write_variables
from job.errors import QuantizationError


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
    ``training`` are warmed to that value, and PACT's bounds start there.

    Args:
        batches: float32 images [N, C, H, W].

    Returns:
        The number of activation scales measured.
    """
    block = classifier.evaluation.global_block()
    clipped = clips(classifier.evaluation)
    sources = {
        scale: clipped[source][0] if source in clipped else source
        for scale, source in scale_sources(quantized).items()
        if block.has_var(source) and not block.var(source).persistable
    }
    # A bound that is not measured yet would cut off what is to be measured.
    unbounded = np.array([np.finfo("float32").max], "float32")
    initial = read_variables(scope, [bound for _, bound in clipped.values()])
    write_variables(scope, dict.fromkeys(initial, unbounded))
    means = mean_largest(classifier.evaluation, sorted(set(sources.values())), executor, batches)
    scales = {
        scale: np.array([max(means[source], DEFAULT_SCALE_FLOOR)], "float32")
        for scale, source in sources.items()
    }
    bounds = {
        clipped[source][1]: scales[scale]
        for scale, source in scale_sources(quantized).items()
        if source in clipped
    }
    of_weights = weight_scales(quantized, scope)
    write_variables(scope, {**initial, **scales, **bounds, **of_weights})
    if training is not None:
        write_variables(scope, warm_averages(training, {**scales, **of_weights}, moving_rate))
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
        if not measures_images(op):
            continue
        scale = op.input("Scale")[0]
        if scale in scales:
            values[op.input("InState")[0]] = state
            values[op.input("InAccum")[0]] = state * scales[scale]
    return values


def scale_sources(program: Program) -> dict[str, str]:
    """Scale variable -> the variable that it measures, for every quantize op."""
    return {
        op.input("Scale")[0]: op.input("X")[0]
        for op in program.global_block().ops
        if op.type == QUANTIZE
    }


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
