"""Calibration: the starting point of quantization, without labels and without training.

Calibration equalizes channels, chooses the range of each activation, rounds weights by GPTQ, and
corrects the shift that rounding causes in the mean output of each layer.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from paddle import static
from paddle.static import Program

from job.engine.quantize import equalization, measurement
from job.engine.quantize.equalization import Junction, junctions_of
from job.engine.quantize.fake_quantize import DEFAULT_SCALE_FLOOR
from job.engine.quantize.gptq import LEVELS
from job.engine.quantize.graph import Graph
from job.engine.quantize.grid import UNSIGNED_STEPS, unsigned_values
from job.engine.quantize.layers import Layer, layers_of
from job.engine.quantize.measurement import Images, Model
from job.engine.quantize.moments import Mean
from job.engine.quantize.pact import clips
from job.engine.quantize.ranges import Histogram, choose_range
from job.engine.quantize.rounding import (
    correction,
    round_by_gptq,
    round_to_nearest,
    rounding_steps,
)
from job.engine.quantize.scales import scale_sources, weight_scales
from job.engine.training.loop import with_onednn
from job.engine.training.programs import (
    Classifier,
    persistables,
    read_variables,
    write_variables,
)

PER_CHANNEL = "channel_wise_abs_max"
# Images for covariances and for the largest values of channels. They bound the time: 128 images of
# 224 pixels, or more smaller images.
ENOUGH_IMAGES, MOST_IMAGES = 128, 2048
ENOUGH_VALUES = ENOUGH_IMAGES * 3 * 224 * 224
Progress = Callable[[int, int], None]
Group = Mapping[str, Sequence[Layer]]


@dataclass(frozen=True)
class Method:
    """How calibration works.

    Attributes:
        ranges: the algorithm of :func:`job.engine.quantize.ranges.choose_range`.
        gptq: round weights by GPTQ, not to the nearest step.
        correct_bias: correct the mean output of each layer.
        equalize: scale the channels of activations.
    """

    ranges: str = "mse"
    gptq: bool = True
    correct_bias: bool = True
    equalize: bool = True


DEFAULT = Method()


class Passes:
    """Counts the steps of all passes, and reports the progress.

    An image of a pass is a step. A rounded weight counts as the number of images that a pass
    processes in the same time.
    """

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def add(self, steps: int) -> None:
        """Count the steps of a batch or of a weight."""
        self.done += steps
        if self.progress is not None:
            self.progress(self.done, self.total)


def calibrate(
    classifier: Classifier,
    quantized: Program,
    scope: static.Scope,
    executor: static.Executor,
    images: Images,
    settings: Mapping[str, Any],
    method: Method = DEFAULT,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write scales, rounded weights and corrected biases to the scope.

    Bounds of PACT start at the ranges.

    Args:
        classifier: the FP32 programs.
        quantized: fake-quantized inference program, which names the scales.
        scope: contains the FP32 weights, and receives the results.
        executor: runs the FP32 program.
        images: calibration images.
        settings: configuration of ``quant_aware``.
        method: how to calibrate.
        progress: receives the steps done and all steps after each batch and each rounded weight. An
            exception that it raises ends the calibration.

    Returns:
        The numbers ``activation_scales``, ``gptq_weights`` (rounded by GPTQ),
        ``corrected_layers`` and ``equalized_activations``.

    Raises:
        QuantizationError: there is no image, or an activation is not finite.
    """
    evaluation = classifier.evaluation
    lift_bounds(evaluation, scope)
    model = Model(with_onednn(evaluation), scope, executor)
    activations, weights = quantized_variables(evaluation, quantized)
    layers = layers_of(evaluation, weights)
    groups = grouped(layers) if method.gptq else []
    junctions = junctions_of(evaluation, layers, classifier.outputs) if method.equalize else []
    few = images.some(enough(images.values.shape[1:]))
    rounding = sum(steps_of(evaluation, same[0]) for group in groups for same in group.values())
    shown = images.count + few.count * (bool(junctions) + len(groups)) + rounding
    passes, unsigned = Passes(shown, progress), unsigned_values(quantized)
    equalized = equalize(model, few, junctions, unsigned, passes)
    histograms, means = measure_all(model, images, activations, layers, passes)
    original = read_variables(scope, persistables(evaluation))
    per_channel = settings["weight_quantize_type"] == PER_CHANNEL
    changed = round_groups(model, few, groups, original, method, per_channel, passes)
    # Without GPTQ, the quantize op rounds the weights to the nearest step.
    rounded = changed or round_each(layers, original, per_channel)
    corrected = corrections(means, original, rounded) if method.correct_bias else {}
    write_variables(scope, {**changed, **corrected})
    write_ranges(evaluation, activations, ranges_of(histograms, unsigned, method.ranges), scope)
    write_variables(scope, weight_scales(quantized, scope))
    return {
        "activation_scales": len(activations),
        "gptq_weights": len(changed),
        "corrected_layers": len(corrected),
        "equalized_activations": equalized,
    }


def enough(shape: Sequence[int]) -> int:
    """Return the number of images of a shape [C, H, W] for covariances."""
    return min(MOST_IMAGES, max(ENOUGH_IMAGES, ENOUGH_VALUES // int(np.prod(shape))))


def measure_all(
    model: Model,
    images: Images,
    activations: Mapping[str, str],
    layers: Group,
    passes: Passes,
) -> tuple[dict[str, Histogram], list[Mean]]:
    """Measure the histograms of activations, and the mean inputs of layers."""
    every = [layer for same in layers.values() for layer in same]
    names = sorted(set(activations.values()))
    return measurement.measure(model, images, names, every, passes.add)


def round_each(
    layers: Group, original: Mapping[str, np.ndarray], per_channel: bool
) -> dict[str, np.ndarray]:
    """Round each weight to the nearest step."""
    return {
        name: round_to_nearest(original[name], same[0], per_channel=per_channel)
        for name, same in layers.items()
    }


def grouped(layers: Mapping[str, Sequence[Layer]]) -> list[Group]:
    """Divide layers, by the name of their weight, into groups that are measured together."""
    groups = measurement.groups_of(layers)
    return [{name: layers[name] for name in names} for names in groups]


def round_groups(
    model: Model,
    few: Images,
    groups: Sequence[Group],
    original: Mapping[str, np.ndarray],
    method: Method,
    per_channel: bool,
    passes: Passes,
) -> dict[str, np.ndarray]:
    """Round weights by GPTQ.

    Args:
        model: runs the FP32 inference program.
        few: images for the covariances.
        groups: layers by the name of their weight; one pass over the images measures one group.
        original: FP32 weights by name.
        method: how to calibrate.
        per_channel: whether each channel has its own scale.
        passes: counts the steps.

    Returns:
        Rounded weights by name.
    """
    rounded: dict[str, np.ndarray] = {}
    for group in groups:
        covariances = measurement.Covariances(model.program, group, few.count)
        covariances.measure(model, few, passes.add)
        for name, (layer, *_) in group.items():
            found = covariances.pop(name, corrected=method.correct_bias)
            rounded[name] = round_by_gptq(original[name], layer, found, per_channel=per_channel)
            passes.add(steps_of(model.program, layer))
    return rounded


def steps_of(evaluation: Program, layer: Layer) -> int:
    """Return the steps of :class:`Passes` for rounding the weight of a layer."""
    weight = evaluation.global_block().var(layer.weight)
    return rounding_steps(layer, int(np.prod(weight.shape)) // layer.inputs)


def ranges_of(
    histograms: Mapping[str, Histogram], unsigned: Collection[str], algorithm: str
) -> dict[str, float]:
    """Return the range of each activation; unsigned values have more steps."""
    return {
        name: choose_range(histogram, algorithm, UNSIGNED_STEPS if name in unsigned else LEVELS)
        for name, histogram in histograms.items()
    }


def use_ranges_behind_pools(
    evaluation: Program, ranges: Mapping[str, float]
) -> Mapping[str, float]:
    """Give a value that only a max pool reads the range of the output of the pool.

    Then no engine rounds the output again. Only values that pass the pool matter.

    Args:
        evaluation: FP32 inference program.
        ranges: range of each activation.
    """
    found = dict(ranges)
    graph = Graph(evaluation)
    for op in reversed(graph.block.ops):
        if op.type != "pool2d" or op.attr("pooling_type") != "max":
            continue
        (before,), (behind,) = op.input("X"), op.output("Out")
        if before in ranges and behind in ranges and graph.readers[before] == [op.type]:
            found[before] = found[behind]
    return found


def lift_bounds(evaluation: Program, scope: static.Scope) -> None:
    """Set the bounds of PACT so high that they clip no value during the measurement."""
    highest = np.array([np.finfo("float32").max], "float32")
    write_variables(
        scope, dict.fromkeys((bound for _, bound in clips(evaluation).values()), highest)
    )


def quantized_variables(
    evaluation: Program, quantized: Program
) -> tuple[dict[str, str], list[str]]:
    """Return scale -> activation, and the weights, of the quantize ops of a program."""
    block = evaluation.global_block()
    sources = {
        scale: name for scale, name in scale_sources(quantized).items() if block.has_var(name)
    }
    activations = {k: name for k, name in sources.items() if not block.var(name).persistable}
    weights = [name for name in sources.values() if block.var(name).persistable]
    return activations, weights


def equalize(
    model: Model,
    images: Images,
    junctions: Sequence[Junction],
    unsigned: Collection[str],
    passes: Passes,
) -> int:
    """Scale the channels of activations in the model's scope; return the number of activations."""
    if not junctions:
        return 0
    names = [name for junction in junctions for name in junction.activations]
    measured = measurement.measure_channels(model, images, names, passes.add)
    few = {n for n in names if measured[n].measured < equalization.ENOUGH_VALUES}
    reliable = [junction for junction in junctions if few.isdisjoint(junction.activations)]
    for junction in reliable:
        ranges = {
            name: measured[name].best_ranges(UNSIGNED_STEPS if name in unsigned else LEVELS)
            for name in junction.activations
        }
        factor = equalization.factors(junction, ranges)
        weights = [layer.weight for layer in junction.readers]
        parameters = [name for norm in junction.norms for name in norm]
        values = read_variables(model.scope, [*parameters, *weights])
        write_variables(model.scope, equalization.equalized(junction, factor, values))
    return sum(len(junction.activations) for junction in reliable)


def corrections(
    means: Sequence[Mean],
    original: Mapping[str, np.ndarray],
    changed: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return the corrected biases and running means.

    Args:
        means: mean inputs of the layers.
        original: values of the FP32 model.
        changed: rounded weights.
    """
    corrected = {}
    for mean in means:
        weight = mean.layer.weight
        found = correction(mean, changed[weight] - original[weight])
        if found is not None:
            name, shift = found
            corrected[name] = (original[name] + shift).astype(np.float32)
    return corrected


def write_ranges(
    evaluation: Program,
    activations: Mapping[str, str],
    ranges: Mapping[str, float],
    scope: static.Scope,
) -> None:
    """Write the scales of activations, and the bounds of PACT."""
    ranges = use_ranges_behind_pools(evaluation, ranges)
    clipped = clips(evaluation)
    values = {}
    for scale, name in activations.items():
        value = np.array([max(ranges[name], DEFAULT_SCALE_FLOOR)], "float32")
        values[scale] = value
        if name in clipped:
            values[clipped[name][1]] = value
    write_variables(scope, values)
