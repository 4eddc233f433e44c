import numpy as np
import pytest
from numpy.typing import NDArray

from job.tasks.outputs import OUTPUTS
from job.tasks.task import Outputs, Results, Scored, flat

IMAGES = 7
LABELS = np.zeros(IMAGES, np.int64)


def outputs(noise: float) -> Outputs:
    """Two outputs of different shapes; FP32's have a power of 4 per value."""
    generator = np.random.default_rng(0)
    shapes = ((IMAGES, 3, 2, 2), (IMAGES, 5))
    exact = [2 * generator.choice([-1.0, 1.0], shape) for shape in shapes]
    return tuple((each * (1 + noise)).astype(np.float32) for each in exact)


def found(batch: int) -> dict[str, Results]:
    merged = {}
    for name, noise in (("fp32", 0.0), ("qat_fake", 0.0), ("int8", 0.1)):
        parts = [
            OUTPUTS.results(
                tuple(each[first : first + batch] for each in outputs(noise)),
                LABELS[first : first + batch],
                tuple(each[first : first + batch] for each in outputs(0)),
            )
            for first in range(0, IMAGES, batch)
        ]
        merged[name] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return merged


def test_models_are_compared_over_all_outputs() -> None:
    record = OUTPUTS.accuracy(found(IMAGES), LABELS)
    assert record["images"] == IMAGES
    ratios = {name: each["signal_to_noise_db"] for name, each in record["closeness"].items()}
    assert ratios == {"qat_fake": 200, "int8": pytest.approx(20, abs=1e-3)}


def test_the_record_does_not_depend_on_the_size_of_batches() -> None:
    small, whole = (OUTPUTS.accuracy(found(batch), LABELS) for batch in (3, IMAGES))
    assert small["closeness"]["int8"] == pytest.approx(whole["closeness"]["int8"])


def test_two_models_agree_by_their_signal_to_noise_ratio_only() -> None:
    agreement = OUTPUTS.agreement(outputs(0.1), outputs(0))
    assert agreement.signal_to_noise_db == pytest.approx(20, abs=1e-3)
    assert agreement.same_top1 is None


def test_a_large_output_does_not_hide_a_wrong_small_one() -> None:
    large, small = outputs(0)
    large = 1000 * large
    fp32, fake = (large, small), (large * 1.01, small * 1.01)
    right, wrong = (large * 1.02, small * 1.02), (large * 1.02, -small)
    assert OUTPUTS.agreement(right, fake, fp32).signal_to_noise_db > 35
    assert OUTPUTS.agreement(wrong, fake).signal_to_noise_db > 35
    assert OUTPUTS.agreement(wrong, fake, fp32).signal_to_noise_db < 0


def test_an_evaluation_needs_a_reference() -> None:
    def scored(reference: NDArray[np.float32] | None) -> Scored:
        return Scored(outputs(0.1), LABELS, reference)

    assert OUTPUTS.evaluate([scored(None)]) == {"signal_to_noise_db": None}
    ratio = OUTPUTS.evaluate([scored(flat(outputs(0)))])["signal_to_noise_db"]
    assert ratio == pytest.approx(20, abs=1e-3)
