"""Measures the FP32 model on calibration images, in bounded memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from paddle import static
from paddle.static import Program

from job.engine.quantize.gptq import blocks_of
from job.engine.quantize.layers import Layer, pixels_before_mean
from job.engine.quantize.moments import Mean, Moments
from job.engine.quantize.ranges import ChannelHistograms, Histogram
from job.engine.training.programs import IMAGE
from job.errors import QuantizationError

# Bytes of the covariances that are measured together.
COVARIANCE_BYTES = 1 << 30
RANDOM_SEED = 0
# Values of the images that are run together: four images of 224 pixels, or at most 64 smaller ones.
# All activations of a batch are in memory.
BATCH_VALUES, LARGEST_BATCH = 4 * 3 * 224 * 224, 64


@dataclass(frozen=True)
class Images:
    """Calibration images, float32 [N, C, H, W]; a memory-mapped file is read batch by batch."""

    values: np.ndarray

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.values)

    def some(self, largest: int) -> "Images":
        """Return at most ``largest`` of the images, evenly spread."""
        step = max(1, -(-self.count // largest))
        return Images(self.values[::step])

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the images in small batches."""
        fitting = BATCH_VALUES // int(np.prod(self.values.shape[1:]))
        batch = max(1, min(LARGEST_BATCH, fitting))
        for start in range(0, self.count, batch):
            yield np.array(self.values[start : start + batch])


@dataclass(frozen=True)
class Model:
    """An inference program, FP32 or fake-quantized; ``scope`` contains its weights."""

    program: Program
    scope: static.Scope
    executor: static.Executor

    def run(
        self,
        names: Sequence[str],
        images: Images,
        receive: Callable[[Mapping[str, np.ndarray]], None],
    ) -> None:
        """Run all images, and give the values of variables of each batch to ``receive``.

        Raises:
            QuantizationError: there is no image, or a value is not finite.
        """
        fetched = sorted({*names} - {IMAGE})
        if images.count == 0:
            raise QuantizationError(
                "calibration failed: found no calibration image, expected at least one",
                "Give training images in /data.",
            )
        for batch in images.batches():
            results = self.executor.run(self.program, {IMAGE: batch}, fetched, scope=self.scope)
            values = {**dict(zip(fetched, results, strict=True)), IMAGE: batch}
            bad = [name for name, value in values.items() if not np.isfinite(value).all()]
            if bad:
                raise QuantizationError(
                    f"calibration failed: activations that are not finite: {', '.join(bad[:5])}",
                    "Check the calibration images and the FP32 weights.",
                )
            receive(values)


def measure(
    model: Model,
    images: Images,
    names: Sequence[str],
    layers: Sequence[Layer],
    progress: Callable[[int], None],
) -> tuple[dict[str, Histogram], list[Mean]]:
    """Measure the histograms of activations and the mean inputs of layers.

    Args:
        model: the FP32 model.
        images: calibration images.
        names: names of the activations.
        layers: the layers.
        progress: receives the number of images of each batch.

    Returns:
        The histogram of each activation, and the layers' means.
    """
    histograms = {name: Histogram() for name in names}
    means = [Mean(layer) for layer in layers]

    def receive(values: Mapping[str, np.ndarray]) -> None:
        for name, histogram in histograms.items():
            histogram.add(values[name])
        for mean in means:
            mean.add(values[mean.layer.source])
        progress(len(values[IMAGE]))

    model.run([*names, *(layer.source for layer in layers)], images, receive)
    return histograms, means


def groups_of(
    layers: Mapping[str, Sequence[Layer]], covariance_bytes: int = COVARIANCE_BYTES
) -> Iterator[list[str]]:
    """Yield the weights in groups whose covariances fit into memory together."""
    group: list[str] = []
    used = 0
    for weight, same in layers.items():
        needed = sum(covariance_size(layer) for layer in same)
        if group and used + needed > covariance_bytes:
            yield group
            group, used = [], 0
        group.append(weight)
        used += needed
    if group:
        yield group


def covariance_size(layer: Layer) -> int:
    """Return the bytes of a layer's covariances."""
    return 4 * layer.groups * sum((b.stop - b.start) ** 2 for b in blocks_of(layer.inputs))


class Covariances:
    """Covariances of the inputs of layers, one weight after the other.

    If the input of a product is a mean over pixels, the covariance of the pixels divided by their
    number is added. It is the covariance of the mean if pixels are independent. The means of a few
    images alone have too few samples.

    Args:
        program: FP32 inference program.
        layers: weight -> layers that read it.
        images: number of images that will be measured.
    """

    def __init__(
        self, program: Program, layers: Mapping[str, Sequence[Layer]], images: int
    ) -> None:
        self.inputs = {
            name: [Moments(each, images) for each in same] for name, same in layers.items()
        }
        self.pixels = {
            name: [
                Moments(before, images)
                for before in (pixels_before_mean(program, layer) for layer in same)
                if before is not None
            ]
            for name, same in layers.items()
        }
        self.positions: dict[str, int] = {}

    def measure(self, model: Model, images: Images, progress: Callable[[int], None]) -> None:
        """Run the FP32 model on all images."""
        random = np.random.default_rng(RANDOM_SEED)
        every = [m for found in (self.inputs, self.pixels) for same in found.values() for m in same]

        def receive(values: Mapping[str, np.ndarray]) -> None:
            for moments in every:
                source = moments.layer.source
                moments.add(values[source], random)
                self.positions[source] = moments.layer.positions(values[source])
            progress(len(values[IMAGE]))

        model.run([moments.layer.source for moments in every], images, receive)

    def pop(self, weight: str, *, corrected: bool) -> list[np.ndarray]:
        """Return the covariance of each block of inputs of a weight, and free the memory.

        Args:
            weight: name of the weight.
            corrected: whether the shift of the mean output is corrected where a layer allows it.
        """
        inputs = self.inputs.pop(weight)
        centred = corrected and all(moments.layer.correction is not None for moments in inputs)
        parts = [moments.covariances(centred=centred) for moments in inputs]
        for moments in self.pixels.pop(weight):
            share = 1 / self.positions[moments.layer.source]
            parts.append([block * share for block in moments.covariances(centred=True)])
        return [np.sum(blocks, axis=0) for blocks in zip(*parts, strict=True)]


def measure_channels(
    model: Model, images: Images, names: Sequence[str], progress: Callable[[int], None]
) -> dict[str, ChannelHistograms]:
    """Measure the channels of activations [N, C, H, W]; return them by name."""
    found: dict[str, ChannelHistograms] = {}

    def receive(values: Mapping[str, np.ndarray]) -> None:
        for name in names:
            channels = values[name].shape[1]
            found.setdefault(name, ChannelHistograms(channels)).add(values[name])
        progress(len(values[IMAGE]))

    model.run(names, images, receive)
    return found
