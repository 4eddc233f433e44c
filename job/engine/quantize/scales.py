"""Calibration: measures scales on the FP32 model before quantization-aware training."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import paddle
from paddle import static
from paddle.static import Program

from job.engine.quantize.fake_quantize import DEFAULT_SCALE_FLOOR, QUANTIZE, measures_images
from job.engine.quantize.pact import clips
from job.engine.training.programs import IMAGE, Classifier, read_variables, write_variables
from job.engine.training.ready_names import name_apart
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

    The scale of an activation is the mean over batches of the largest magnitude in a batch. Its
    moving average would converge to this value. The scale of a weight is its largest magnitude.
    Moving averages in ``training`` and bounds of PACT start at the measured values.

    Args:
        classifier: the FP32 programs.
        quantized: fake-quantized inference program, which names the scales.
        training: fake-quantized training program, or None.
        scope: contains the weights; receives the scales.
        executor: runs the FP32 program.
        batches: float32 images [N, C, H, W].
        moving_rate: moving rate of the averages in ``training``.

    Returns:
        The number of activation scales measured.

    Raises:
        QuantizationError: there is no batch, or an activation is not finite.
    """
    block = classifier.evaluation.global_block()
    clipped = clips(classifier.evaluation)
    sources = {
        scale: clipped[source][0] if source in clipped else source
        for scale, source in scale_sources(quantized).items()
        if block.has_var(source) and not block.var(source).persistable
    }
    # Without a measured bound, PACT would clip the values to be measured.
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
    """Return the mean over batches of max(|x|) for each variable in ``names``.

    Raises:
        QuantizationError: there is no batch, or a value is not finite.
    """
    probe = program.clone(for_test=True)
    name_apart(probe)
    with static.program_guard(probe):
        # The program computes the maxima, because fetching whole activations would need gigabytes.
        fetches = [paddle.max(paddle.abs(probe.global_block().var(name))) for name in names]
    totals, count = np.zeros(len(names)), 0
    for images in batches:
        totals += np.array(executor.run(probe, {IMAGE: images}, fetches)).reshape(-1)
        count += 1
    if count == 0 or not np.isfinite(totals).all():
        bad = [n for n, total in zip(names, totals, strict=True) if not np.isfinite(total)]
        raise QuantizationError(
            f"calibration failed after {count} batches; activations that are not finite: "
            f"{', '.join(bad[:5]) or 'none'}",
            "Check the calibration images and the FP32 weights.",
        )
    return dict(zip(names, (totals / count).tolist(), strict=True))


def warm_averages(
    training: Program, scales: Mapping[str, np.ndarray], moving_rate: float
) -> dict[str, np.ndarray]:
    """Return state and sum of each moving average, as their limits for many equal batches."""
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
    """Return scale variable -> quantized variable, for every quantize op."""
    return {
        op.input("Scale")[0]: op.input("X")[0]
        for op in program.global_block().ops
        if op.type == QUANTIZE
    }


def weight_scales(program: Program, scope: static.Scope) -> dict[str, np.ndarray]:
    """Return the largest magnitude of each quantized weight, per channel or per tensor."""
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
