from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from job.tasks.classification import CLASSIFICATION
from job.tasks.task import Results

CLASSES, IMAGES = 6, 23
LABELS = np.random.default_rng(0).integers(0, CLASSES, IMAGES)


def scores(seed: int, certainty: float) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(size=(IMAGES, CLASSES))
    result: NDArray[np.float32] = (noise + certainty * np.eye(CLASSES)[LABELS]).astype(np.float32)
    return result


def found(batch: int, names: tuple[str, ...]) -> dict[str, Results]:
    """The results of all images, in batches: FP32 first, then worse and worse models."""
    every = {name: scores(seed, 2 - seed / 2) for seed, name in enumerate(names)}
    cuts = [slice(first, first + batch) for first in range(0, IMAGES, batch)]
    merged = {}
    for name, own in every.items():
        parts = [
            CLASSIFICATION.results((own[cut],), LABELS[cut], (every["fp32"][cut],)) for cut in cuts
        ]
        merged[name] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return merged


def record(batch: int) -> dict[str, Any]:
    names = ("fp32", "qat_fake", "int8", "openvino")
    return CLASSIFICATION.accuracy(found(batch, names), LABELS)


def test_the_record_does_not_depend_on_the_size_of_batches() -> None:
    assert record(5) == record(IMAGES)


def test_the_record_counts_right_answers() -> None:
    rows = record(IMAGES)
    top1 = {
        name: 100 * float((each["choice"] == LABELS).mean())
        for name, each in found(IMAGES, ("fp32", "qat_fake", "int8")).items()
    }
    assert rows["images"] == IMAGES
    assert {name: rows[name]["top1"] for name in top1} == pytest.approx(top1)
    assert rows["engines"].keys() == {"openvino"}
    assert rows["closeness"].keys() == {"qat_fake", "int8", "openvino"}
    np.testing.assert_allclose(rows["paired"]["top1_drop"], top1["fp32"] - top1["int8"])
    np.testing.assert_allclose(rows["paired_fake"]["top1_drop"], top1["fp32"] - top1["qat_fake"])


def test_the_record_uses_the_key_of_the_primary_metric() -> None:
    key = CLASSIFICATION.primary.key
    assert {key, f"{key}_interval"} <= record(IMAGES)["fp32"].keys()
    assert {f"{key}_drop", f"{key}_drop_interval"} <= record(IMAGES)["paired"].keys()


def test_predictions_contain_a_class_per_image_and_model() -> None:
    arrays = CLASSIFICATION.predictions(found(5, ("fp32", "int8")), LABELS)
    assert arrays.keys() == {"labels", "fp32", "int8"}
    assert all(array.shape == (IMAGES,) for array in arrays.values())


def agreement(found: NDArray[Any], fake: NDArray[Any], fp32: NDArray[Any]) -> float:
    compared = ((each.astype(np.float32),) for each in (found, fake, fp32))
    return CLASSIFICATION.agreement(*compared).signal_to_noise_db


def test_scores_that_all_images_share_do_not_hide_a_wrong_model() -> None:
    fp32 = np.linspace(-50, 50, CLASSES) + scores(0, 2)
    fake, rounding = fp32 + 0.01 * scores(1, 2), 0.01 * scores(2, 2)
    assert agreement(fp32.mean(axis=0) + scores(3, 2), fake, fp32) < 10
    assert agreement(fake + rounding, fake, fp32) > 50


def test_differences_between_images_that_quantization_loses_are_not_judged() -> None:
    fp32 = np.linspace(-50, 50, CLASSES) + 0.1 * scores(0, 2)
    fake = fp32 + 0.1 * scores(1, 2)
    assert agreement(fake + 0.1 * scores(2, 2), fake, fp32) > 40


def test_a_shift_of_all_images_lowers_the_agreement() -> None:
    fp32 = scores(0, 2)
    assert agreement(fp32 + np.linspace(-1, 1, CLASSES), fp32, fp32) < 15


def test_equal_scores_of_all_images_agree() -> None:
    same = np.tile(scores(0, 2)[:1], (IMAGES, 1))
    assert agreement(same, same, same) == 200
