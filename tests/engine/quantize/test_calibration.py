"""Calibration: layers, moments, equalization, corrected biases, and what they gain."""

# ruff: noqa: TID251, I001
import numpy as np
import pytest

# The first import of the engine sets the flags of Paddle.
import tiny
from job.engine.quantize import equalization, measurement, qat
from job.engine.quantize.calibration import Method, calibrate, enough, quantized_variables
from job.engine.quantize.layers import Layer, layers_of, pixels_before_mean
from job.engine.quantize.measurement import Images, Model
from job.engine.quantize.moments import Moments
from job.engine.training import programs

import paddle
from paddle import nn

pytestmark = pytest.mark.engine

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.standard_normal((20, 1, 16, 16)).astype("float32")


class Various(nn.Layer):
    """Layers of every geometry that a patch can have."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2D(1, 8, 3, padding=1), nn.ReLU(),
            nn.Conv2D(8, 8, 3, stride=2, padding="SAME", groups=8, bias_attr=False),
            nn.BatchNorm2D(8), nn.ReLU6(),
            nn.Conv2D(8, 12, 1, bias_attr=False), nn.BatchNorm2D(12), nn.ReLU(),
            nn.Conv2D(12, 12, 3, padding=[2, 1, 0, 3], dilation=2, groups=3, bias_attr=False),
            nn.BatchNorm2D(12), nn.Hardswish(),
            nn.Conv2D(12, 6, (1, 2), padding="VALID", stride=(1, 2)), nn.ReLU(),
        )  # fmt: skip
        self.mean, self.last = nn.AdaptiveAvgPool2D(1), nn.Linear(6, tiny.CLASSES)

    def forward(self, x):
        return self.last(paddle.flatten(self.mean(self.layers(x)), 1))


class Shared(nn.Layer):
    """Two ops that read one weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2D(1, 8, 3, padding=1, bias_attr=False), nn.BatchNorm2D(8)
        )
        self.twice = nn.Conv2D(8, 8, 1, bias_attr=False)
        self.one, self.two = nn.BatchNorm2D(8), nn.BatchNorm2D(8)
        self.last = nn.Linear(8, tiny.CLASSES)

    def forward(self, x):
        x = nn.functional.relu(self.first(x))
        x = nn.functional.relu(self.one(self.twice(x)))
        x = nn.functional.relu(self.two(self.twice(x)))
        return self.last(x.mean([2, 3]))


class Pools(nn.Layer):
    """A max pool that alone reads a value, and one whose input has another reader."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2D(n, 8, 3, padding=1) for n in (1, 8, 8))
        self.norm = nn.BatchNorm2D(8)
        self.last = nn.Linear(8, tiny.CLASSES)

    def forward(self, x):
        x = nn.functional.max_pool2d(nn.functional.relu(self.norm(self.one(x))), 2)
        x = nn.functional.relu(self.two(x))
        pooled = self.three(nn.functional.max_pool2d(x, 2))
        return self.last(pooled.mean([2, 3]) + x.mean([2, 3]))


def make_extreme(session: tiny.Session) -> None:
    """Give a network two dead channels, and one whose values are 100 times as large."""
    (norm, *_) = [
        op for op in session.classifier.evaluation.global_block().ops if op.type == "batch_norm"
    ]
    names = [norm.input(slot)[0] for slot in ("Scale", "Bias")]
    for name, value in programs.read_variables(session.scope, names).items():
        value[[1, 2]] = 0
        value[3] *= 100
        programs.write_variables(session.scope, {name: value})


class Opened:
    """A session of a network, with batch-norm statistics of its own activations."""

    def __init__(self, build) -> None:
        self.session = tiny.session_of(build, (1, 16, 16), tiny.CLASSES)
        with self.session.active():
            tiny.settle(self.session, IMAGES, 0.5)
            make_extreme(self.session)
            qat.prepare(self.session, tiny.SETTINGS, pact=False)
            self.quantized = qat.quantized_evaluation(self.session, tiny.SETTINGS)
        self.program = self.session.classifier.evaluation
        _, weights = quantized_variables(self.program, self.quantized)
        self.layers = layers_of(self.program, weights)
        self.weights = weights
        self.model = Model(self.program, self.session.scope, self.session.executor)

    def run(self, names, program=None):
        with self.session.active():
            return self.session.executor.run(program or self.program, {"image": IMAGES}, names)

    def value(self, name: str) -> np.ndarray:
        return programs.read_variables(self.session.scope, [name])[name]

    def calibrate(self, method: Method) -> dict[str, int]:
        with self.session.active():
            return calibrate(
                self.session.classifier, self.quantized, self.session.scope, self.session.executor,
                Images(IMAGES), tiny.SETTINGS, method,
            )  # fmt: skip

    def scores(self) -> np.ndarray:
        """Scores of the fake-quantized program."""
        return self.run([self.session.classifier.logits], self.quantized)[0]


def inputs_of(opened: Opened, layer: Layer) -> np.ndarray:
    return IMAGES if layer.source == "image" else opened.run([layer.source])[0]


def test_patches_times_the_weight_are_the_output() -> None:
    opened = Opened(Various)
    found = [layer for same in opened.layers.values() for layer in same]
    assert len(found) == len(opened.weights) == 6
    for layer in found:
        matrix = layer.matrix(opened.value(layer.weight))
        patches = layer.patches(inputs_of(opened, layer))
        computed = patches @ matrix.transpose(0, 2, 1)
        (output,) = opened.run([layer.output])
        if layer.window is not None:
            # [N, groups * outputs, rows, columns] -> [groups, N * patches, outputs]
            count, channels = output.shape[:2]
            output = output.reshape(count, layer.groups, channels // layer.groups, -1)
            output = output.transpose(1, 0, 3, 2).reshape(computed.shape)
        np.testing.assert_allclose(computed.reshape(output.shape), output, rtol=1e-3, atol=1e-4)
        restored = layer.restored(matrix, opened.value(layer.weight).shape)
        np.testing.assert_array_equal(restored, opened.value(layer.weight))


def test_moments_are_those_of_the_patches() -> None:
    opened = Opened(Various)
    every = [layer for same in opened.layers.values() for layer in same]
    _, means = measurement.measure(opened.model, Images(IMAGES), [], every, lambda _: None)
    covariances = measurement.Covariances(opened.program, opened.layers, len(IMAGES))
    covariances.measure(opened.model, Images(IMAGES), lambda _: None)
    for mean in means:
        layer = mean.layer
        patches = layer.patches(inputs_of(opened, layer)).astype("float64")
        np.testing.assert_allclose(mean.patch(), patches.mean(axis=1), rtol=1e-4, atol=1e-5)
        (found,) = covariances.pop(layer.weight, corrected=True)
        pixels = pixels_before_mean(opened.program, layer)
        assert (pixels is not None) == layer.weight.startswith("linear")
        for group, values in enumerate(patches):
            expected = np.cov(values.T, bias=True)
            if pixels is not None:
                before = pixels.patches(inputs_of(opened, pixels))
                expected = expected + np.cov(before[0].T, bias=True) * len(IMAGES) / before.shape[1]
            np.testing.assert_allclose(found[group], expected, rtol=1e-2, atol=1e-3)


def test_a_small_variance_around_a_large_mean_is_measured() -> None:
    layer = Layer("w", "x", "y", None, 1, 3, None)
    values = 1e4 + np.random.default_rng(0).normal(0, [0.01, 1, 2], (4000, 3))
    moments = Moments(layer, images=4000)
    for part in np.split(values.astype("float32"), 10):
        moments.add(part, RANDOM)
    (found,) = moments.covariances(centred=True)
    np.testing.assert_allclose(np.diagonal(found[0])[1:], [1, 4], rtol=0.1)
    (found,) = moments.covariances(centred=False)
    np.testing.assert_allclose(found, 1e8, rtol=1e-3)


def test_every_layer_with_a_bias_or_a_norm_keeps_its_mean_output() -> None:
    opened = Opened(Various)
    readers = {
        layer.output: next(
            op.output_arg_names
            for op in opened.program.global_block().ops
            if layer.output in op.input_arg_names
        )
        for same in opened.layers.values()
        for layer in same
    }
    names = [
        name
        for outputs in readers.values()
        for name in outputs
        if name.endswith((".tmp_2", ".tmp_1", ".tmp_3"))
        and len(opened.program.global_block().var(name).shape) != 1
    ]
    assert len(names) >= 6
    before = opened.run(names)
    counts = opened.calibrate(Method(equalize=False))
    assert counts["corrected_layers"] == 6
    # With FP32 activations: only the weights differ.
    for name, one, other in zip(names, before, opened.run(names), strict=True):
        axes = (0, *range(2, one.ndim))
        np.testing.assert_allclose(
            other.mean(axes), one.mean(axes), atol=0.02 * one.std(), err_msg=name
        )


class Chain(nn.Layer):
    """A chain of two sums behind a max pool, and a branch whose factors nothing can divide."""

    def __init__(self):
        super().__init__()

        def norm(*sizes, **options):
            conv = nn.Conv2D(*sizes, bias_attr=False, **options)
            return nn.Sequential(conv, nn.BatchNorm2D(sizes[1]))

        self.stem = nn.Sequential(norm(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2D(2))
        self.first = norm(8, 8, 3, padding=1)
        self.inner = nn.Sequential(norm(8, 8, 3, padding=1, groups=8), nn.ReLU6())
        self.second = norm(8, 8, 1)
        self.behind = nn.Sequential(norm(8, 6, 1), nn.Sigmoid())
        self.last = nn.Linear(6, tiny.CLASSES)

    def forward(self, x):
        x = self.stem(x)
        x = nn.functional.relu(x + self.first(x))
        x = x + self.second(self.inner(x))
        return self.last(self.behind(x).mean([2, 3]))


@pytest.mark.parametrize(
    ("build", "expected"), [(Various, [(1, 1, 1), (1, 1, 1)]), (Chain, [(5, 3, 3), (1, 1, 1)])]
)
def test_equalization_keeps_the_scores(build, expected) -> None:
    opened = Opened(build)
    junctions = equalization.junctions_of(
        opened.program, opened.layers, opened.session.classifier.outputs
    )
    # The activation of a hardswish or a sigmoid, and those behind a bias, cannot be scaled.
    found = [(len(j.activations), len(j.norms), len(j.readers)) for j in junctions]
    assert sorted(found, reverse=True) == expected
    scores = [opened.session.classifier.logits]
    (before,) = opened.run(scores)
    names = [name for junction in junctions for name in junction.activations]
    values = dict(zip(names, opened.run(names), strict=True))
    largest = {name: abs(value).max(axis=(0, 2, 3)) for name, value in values.items()}
    changed = 0
    for junction in junctions:
        factor = equalization.factors(junction, largest)
        changed += int((factor > 1.01).sum())
        for name in junction.activations:
            assert (largest[name] * factor).max() <= 1.001 * largest[name].max()
        names = [name for norm in junction.norms for name in norm]
        names += [layer.weight for layer in junction.readers]
        values = programs.read_variables(opened.session.scope, names)
        new = equalization.equalized(junction, factor, values)
        programs.write_variables(opened.session.scope, new)
    assert changed > 5
    np.testing.assert_allclose(opened.run(scores)[0], before, rtol=1e-3, atol=1e-4)


def test_an_output_of_the_network_is_not_scaled() -> None:
    opened = Opened(Various)
    classifier = opened.session.classifier
    (first, second) = equalization.junctions_of(opened.program, opened.layers, classifier.outputs)
    outputs = (*classifier.outputs, *first.activations)
    assert equalization.junctions_of(opened.program, opened.layers, outputs) == [second]


def test_channels_with_few_values_are_not_scaled(monkeypatch) -> None:
    """The range of a channel with few values is too small for other images."""
    found = []
    for least in (IMAGES[:, 0].size + 1, 0):
        monkeypatch.setattr(equalization, "ENOUGH_VALUES", least)
        counts = Opened(Various).calibrate(Method(gptq=False, correct_bias=False))
        found.append(counts["equalized_activations"])
    assert found == [0, 2]


def test_values_that_only_a_max_pool_reads_have_the_range_of_its_output() -> None:
    opened = Opened(Pools)
    opened.calibrate(Method())
    scales, _ = quantized_variables(opened.program, opened.quantized)
    ranges = {name: float(opened.value(scale)[0]) for scale, name in scales.items()}
    pools = [op for op in opened.program.global_block().ops if op.type == "pool2d"]
    found = [(ranges[op.input("X")[0]], ranges[op.output("Out")[0]]) for op in pools]
    (one, behind_one), (two, behind_two) = found
    assert one == behind_one
    assert two != behind_two


METHODS = {
    "ranges only": Method(gptq=False, correct_bias=False, equalize=False),
    "bias": Method(gptq=False, equalize=False),
    "gptq without bias": Method(correct_bias=False, equalize=False),
    "gptq": Method(equalize=False),
    "all": Method(),
}


@pytest.mark.parametrize("build", [Various, Shared], ids=lambda build: build.__name__)
@pytest.mark.parametrize("weights", ["channel_wise_abs_max", "abs_max"])
def test_networks_of_every_kind_are_calibrated(build, weights, monkeypatch) -> None:
    monkeypatch.setitem(tiny.SETTINGS, "weight_quantize_type", weights)
    monkeypatch.setattr(equalization, "ENOUGH_VALUES", 0)
    errors = {}
    for name, method in METHODS.items():
        opened = Opened(build)
        (expected,) = opened.run([opened.session.classifier.logits])
        opened.calibrate(method)
        errors[name] = tiny.error(opened.scores(), expected)
    assert max(errors.values()) < 0.3, errors
    # One scale for all weights cannot express channels that equalization made small.
    for name in ("gptq without bias", "gptq"):
        assert errors[name] < 1.2 * errors["ranges only"], errors


def test_without_corrected_biases_only_weights_change() -> None:
    opened = Opened(Various)
    names = [v for v in programs.persistables(opened.program) if v not in opened.weights]
    before = programs.read_variables(opened.session.scope, [*names, *opened.weights])
    counts = opened.calibrate(Method(correct_bias=False, equalize=False))
    assert (counts["gptq_weights"], counts["corrected_layers"]) == (6, 0)
    after = programs.read_variables(opened.session.scope, [*names, *opened.weights])
    for name in names:
        np.testing.assert_array_equal(after[name], before[name])
    assert all((after[name] != before[name]).any() for name in opened.weights)


def test_without_corrected_biases_the_mean_counts_as_an_error() -> None:
    opened = Opened(Various)
    covariances = measurement.Covariances(opened.program, opened.layers, len(IMAGES))
    covariances.measure(opened.model, Images(IMAGES), lambda _: None)
    for weight, (layer,) in opened.layers.items():
        if pixels_before_mean(opened.program, layer) is not None:
            continue
        patches = layer.patches(inputs_of(opened, layer)).astype("float64")
        (found,) = covariances.pop(weight, corrected=False)
        expected = patches.transpose(0, 2, 1) @ patches / patches.shape[1]
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3)


def test_groups_of_weights_have_bounded_covariances() -> None:
    opened = Opened(Various)
    one = [*measurement.groups_of(opened.layers)]
    each = [*measurement.groups_of(opened.layers, covariance_bytes=1)]
    assert one == [list(opened.layers)]
    assert each == [[name] for name in opened.layers]


@pytest.mark.parametrize(
    ("shape", "count"), [((3, 224, 224), 128), ((3, 512, 512), 128), ((1, 8, 8), 2048)]
)
def test_more_small_images_are_measured(shape, count):
    assert enough(shape) == count


def test_part_of_no_images_is_empty():
    assert Images(IMAGES[:0]).some(4).count == 0
    assert Images(IMAGES).some(7).count == 7
