"""Measures the error that each INT8 op adds.

The error is the error of one op for given inputs. The reference is the same op of the
fake-quantized model, computed in floating point with the trained weights. The input of the
reference is the value in the INT8 model before rounding to 8 bits. If INT8 ops read the output, the
output of the reference is rounded to its trained scale. Therefore the error of an op consists of
the rounding of its inputs and of errors in its integer arithmetic. If the op is kept in FP32, this
error is removed. Clipping by a scale is part of the error of the ops that read the clipped values.
If a scale differs from the trained scale, the difference is part of the error of the op that writes
with this scale.
"""

import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from job.engine.compare.probe import Probe
from job.engine.compare.reference_ops import Reference

# Number of pixels per run, because all intermediate values of both models are in memory at once.
CHUNK_PIXELS = 1 << 16
SMALLEST = 1e-30


@dataclass(frozen=True)
class Difference:
    """The error that one INT8 op adds.

    Attributes:
        op: name of the op's output in the fake-quantized model, as in ``/int8/skip_ops``.
        type: op type in the fake-quantized model.
        signal_to_noise_db: power of the expected values over the power of the errors, in decibels.
        largest_error: largest error as a fraction of the largest expected value.
    """

    op: str
    type: str
    signal_to_noise_db: float
    largest_error: float


def differences(fake: Path, int8: Path, images: np.ndarray) -> list[Difference]:
    """Return the INT8 ops that add an error, the lowest signal-to-noise ratio first.

    Args:
        fake: prefix of the fake-quantized model.
        int8: prefix of the INT8 model that was built from it.
        images: float32 [N, C, H, W].
    """
    chunk = max(1, CHUNK_PIXELS // (images.shape[2] * images.shape[3]))
    with closing(Reference(fake, int8)) as reference:
        probe = Probe(int8, reference.reads)
        sums = {each: Sums() for each in reference.outputs.values()}
        for start in range(0, len(images), chunk):
            values = probe.values(images[start : start + chunk])
            for each, expected in reference.expected(values):
                actual = values[each.output]
                # Paddle's passes merge reshaping ops into the op before, which changes the shape.
                if actual.size == expected.size:
                    sums[each].add(expected.reshape(actual.shape), actual)
    differing = [
        Difference(each.op, each.type, its.decibels, its.largest_error)
        for each, its in sums.items()
        if its.noise > 0
    ]
    return sorted(differing, key=lambda difference: difference.signal_to_noise_db)


@dataclass
class Sums:
    """Accumulated values and errors of one op."""

    signal: float = 0.0
    noise: float = 0.0
    largest_value: float = 0.0
    largest: float = 0.0

    def add(self, expected: np.ndarray, actual: np.ndarray) -> None:
        """Add expected and actual values of more images, float arrays of equal shape."""
        error = actual - expected
        self.signal += float(np.square(expected, dtype="float64").sum())
        self.noise += float(np.square(error, dtype="float64").sum())
        self.largest_value = max(self.largest_value, float(np.abs(expected).max()))
        self.largest = max(self.largest, float(np.abs(error).max()))

    @property
    def decibels(self) -> float:
        """Signal-to-noise ratio in decibels."""
        return 10 * math.log10(max(self.signal, SMALLEST) / self.noise)

    @property
    def largest_error(self) -> float:
        """Largest error as a fraction of the largest expected value."""
        return self.largest / max(self.largest_value, SMALLEST)
