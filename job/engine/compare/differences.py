"""How far each INT8 op is from what the fake-quantized model computes in its place.

The difference is local: the error that an op adds, given its inputs. It is measured against the
same op of the fake-quantized model, with the trained weights and in floating point, on what the
INT8 model gave the op to read before that was rounded to 8 bits for it. The reference is rounded
to its trained scale where INT8 ops read it. So what counts for an op is the rounding of its inputs
and whatever goes wrong in its integer arithmetic: what leaving it in FP32 takes away. A scale that
cuts values off counts for the ops that read them, a scale other than the trained one for the op
that writes with it.
"""

import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from job.engine.compare.probe import Probe
from job.engine.compare.reference_ops import Reference

# Of images with so many pixels everything that both models compute is in memory at once.
CHUNK_PIXELS = 1 << 16
SMALLEST = 1e-30


@dataclass(frozen=True)
class Difference:
    """The error that one INT8 op adds.

    Attributes:
        op: the name of its output in the fake-quantized model, which ``/int8/skip_ops`` knows.
        type: its type there.
        signal_to_noise_db: power of the right values over that of the errors, in decibels.
        largest_error: as a share of the largest right value.
    """

    op: str
    type: str
    signal_to_noise_db: float
    largest_error: float


def differences(fake: Path, int8: Path, images: np.ndarray) -> list[Difference]:
    """The INT8 ops that add an error, the worst first.

    Args:
        fake: prefix of the fake-quantized model.
        int8: prefix of the INT8 model that was made of it.
        images: float32 [N, C, H, W].
    """
    chunk = max(1, CHUNK_PIXELS // (images.shape[2] * images.shape[3]))
    with closing(Reference(fake, int8)) as reference:
        probe = Probe(int8, reference.reads)
        sums = {each: Sums() for each in reference.outputs.values()}
        for start in range(0, len(images), chunk):
            values = probe.values(images[start : start + chunk])
            for each, expected in reference.expected(values):
                sums[each].add(expected, values[each.output])
    found = [
        Difference(each.op, each.type, its.decibels, its.largest_error)
        for each, its in sums.items()
        if its.noise > 0
    ]
    return sorted(found, key=lambda difference: difference.signal_to_noise_db)


@dataclass
class Sums:
    """One op's errors, over all images so far."""

    signal: float = 0.0
    noise: float = 0.0
    largest_value: float = 0.0
    largest: float = 0.0

    def add(self, expected: np.ndarray, found: np.ndarray) -> None:
        """Count the values of more images."""
        error = found - expected
        self.signal += float(np.square(expected, dtype="float64").sum())
        self.noise += float(np.square(error, dtype="float64").sum())
        self.largest_value = max(self.largest_value, float(np.abs(expected).max()))
        self.largest = max(self.largest, float(np.abs(error).max()))

    @property
    def decibels(self) -> float:
        """Signal-to-noise ratio."""
        return 10 * math.log10(max(self.signal, SMALLEST) / self.noise)

    @property
    def largest_error(self) -> float:
        """The largest error as a share of the largest value."""
        return self.largest / max(self.largest_value, SMALLEST)
