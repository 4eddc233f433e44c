"""Collects means and covariances of what a layer reads, in bounded memory."""

from dataclasses import dataclass, field

import numpy as np

from job.engine.quantize.gptq import blocks_of
from job.engine.quantize.layers import Layer

# Samples for a covariance: at least this number, and this number per input.
SAMPLES, SAMPLES_PER_INPUT = 8192, 32


@dataclass
class Mean:
    """Mean input of a layer, over images.

    Attributes:
        layer: the layer.
        count: number of images, or of rows of a product's input.
        total: float64, the sum: [C, H, W] for a convolution, [C] for a product.
    """

    layer: Layer
    count: int = 0
    total: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def add(self, values: np.ndarray) -> None:
        """Add a batch of the layer's input: [N, C, H, W], or [..., C] for a product."""
        rows = self.layer.rows_of(values)
        self.total = self.total + rows.sum(axis=0, dtype=np.float64)
        self.count += len(rows)

    def patch(self) -> np.ndarray:
        """Return the mean over images and patches, float64 [groups, inputs]."""
        return self.layer.mean_patch(self.total / self.count)


@dataclass
class Moments:
    """Sums over samples of the patches that a layer reads.

    Attributes:
        layer: the layer.
        images: number of images that will be added.
        count: number of samples.
        origin: float32 [groups, inputs], the mean of the first batch. It is subtracted from all
            samples, because sums of products of large means would hide small variances.
        total: float64 [groups, inputs], the sum of the shifted samples.
        products: for each block of inputs, float32 [groups, inputs, inputs], the sum of products of
            the shifted samples.
    """

    layer: Layer
    images: int
    count: int = 0
    origin: np.ndarray = field(default_factory=lambda: np.zeros(()))
    total: np.ndarray = field(default_factory=lambda: np.zeros(()))
    products: list[np.ndarray] = field(default_factory=list)

    def add(self, values: np.ndarray, random: np.random.Generator) -> None:
        """Add samples of a batch of the layer's input: [N, C, H, W], or [..., C] for a product."""
        samples = self.layer.patches(values, self._chosen(values, random))
        groups, count, inputs = samples.shape
        blocks = blocks_of(inputs)
        if not self.products:
            self.origin = samples.mean(axis=1)
            sizes = [block.stop - block.start for block in blocks]
            self.products = [np.zeros((groups, size, size), np.float32) for size in sizes]
        samples = samples - self.origin[:, np.newaxis]
        self.count += count
        self.total = self.total + samples.sum(axis=1, dtype=np.float64)
        for block, products in zip(blocks, self.products, strict=True):
            part = samples[:, :, block]
            products += np.matmul(part.transpose(0, 2, 1), part)

    def _chosen(self, values: np.ndarray, random: np.random.Generator) -> np.ndarray | None:
        """Return the positions of the samples; None for all."""
        positions = self.layer.positions(values)
        wanted = -(-max(SAMPLES, SAMPLES_PER_INPUT * self.layer.inputs) // self.images)
        if self.layer.window is None:
            # The positions of a product are the rows of all images of the batch.
            wanted *= len(values)
        if wanted >= positions:
            return None
        return np.sort(random.choice(positions, wanted, replace=False))

    def covariances(self, *, centred: bool) -> list[np.ndarray]:
        """Return the covariance of each block, or the mean products if not ``centred``.

        Covariances are right if the shift of the layer's mean output is corrected.
        """
        shifts = (self.total / self.count).astype(np.float32)
        means = shifts + self.origin
        results = []
        for block, products in zip(blocks_of(means.shape[1]), self.products, strict=True):
            shift, mean = shifts[:, block], means[:, block]
            result = products / self.count
            result -= shift[:, :, np.newaxis] * shift[:, np.newaxis, :]
            if not centred:
                result += mean[:, :, np.newaxis] * mean[:, np.newaxis, :]
            results.append(result)
        return results
