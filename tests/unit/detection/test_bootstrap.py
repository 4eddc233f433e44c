"""The bootstrap compared with scoring the sampled images from the start."""

from collections.abc import Callable

import numpy as np
import pytest
from random_detections import RandomSet, random_set
from tiers import cases

from job.detection import bootstrap, coco_metric, voc_metric
from job.detection.annotations import Annotations, Detections
from job.detection.precision_recall import (
    Average,
    Ranking,
    area,
    average_precisions,
    eleven_points,
    hundred_one_points,
    mean,
)

Rankings = tuple[Ranking, ...]


def voc(given: RandomSet) -> Rankings:
    return voc_metric.rankings(given.annotations, given.detections, given.classes)


def coco(given: RandomSet) -> Rankings:
    return coco_metric.match(given.annotations, given.detections, given.classes).rankings()


@pytest.mark.parametrize(
    ("rankings", "average"),
    [(voc, area), (voc, eleven_points), (coco, hundred_one_points)],
)
def test_weights_equal_repeated_images(
    rankings: Callable[[RandomSet], Rankings], average: Average
) -> None:
    """An image that was sampled three times counts as three images."""
    for seed in range(cases(200)):
        given = distinct_scores(random_set(seed))
        count = len(given.annotations)
        sampled = np.sort(np.random.default_rng(seed).integers(0, count, count))
        repeated = RandomSet(
            [given.annotations[k] for k in sampled],
            [given.detections[k] for k in sampled],
            given.classes,
        )
        weights = np.bincount(sampled, minlength=count)
        found = mean(average_precisions(rankings(given), average, weights))
        expected = mean(average_precisions(rankings(repeated), average))
        assert found == pytest.approx(expected, abs=1e-9), f"seed {seed}"


def distinct_scores(given: RandomSet) -> RandomSet:
    """The same set without equal scores, whose order repeated images would change."""
    rng = np.random.default_rng(0)
    detections = [
        Detections.of(each.boxes, rng.random(len(each)), each.classes) for each in given.detections
    ]
    return RandomSet(given.annotations, detections, given.classes)


def detector(seed: int, images: int, recall: float) -> tuple[list[Annotations], list[Detections]]:
    """A model that finds each object with a probability; the objects do not depend on the seed."""
    objects = np.random.default_rng(7)
    rng = np.random.default_rng(seed)
    annotations, detections = [], []
    for _ in range(images):
        count = int(objects.integers(1, 5))
        low = objects.uniform(0, 400, (count, 2))
        boxes = np.hstack([low, low + objects.uniform(20, 90, (count, 2))])
        annotations.append(Annotations.of(boxes, objects.integers(0, 3, count)))
        found = rng.random(count) < recall
        boxes = np.where(found[:, None], boxes, boxes + 500)
        detections.append(Detections.of(boxes, rng.random(count), annotations[-1].classes))
    return annotations, detections


def rankings(seed: int, images: int, recall: float) -> Rankings:
    annotations, detections = detector(seed, images, recall)
    return voc_metric.rankings(annotations, detections, 3)


def test_a_clear_difference():
    found = bootstrap.compare(rankings(1, 300, 0.9), rankings(2, 300, 0.7), resamples=200)
    assert found is not None
    assert found.drop_interval is not None
    assert found.drop == found.fp32_map - found.int8_map
    low, high = found.drop_interval
    assert 0 < low < found.drop < high
    assert high - low < 20


def test_equal_models_have_no_drop():
    same = rankings(1, 50, 0.9)
    found = bootstrap.compare(same, same, resamples=100)
    assert found is not None
    assert (found.drop, found.drop_interval) == (0, (0, 0))


def test_the_seed_decides():
    models = rankings(1, 40, 0.9), rankings(2, 40, 0.9)
    results = [bootstrap.compare(*models, resamples=100, seed=seed) for seed in (3, 3, 4)]
    assert results[0] == results[1] != results[2]


@pytest.mark.full
def test_the_interval_covers_no_drop_for_equally_good_models():
    """19 of 20 intervals on average; the bounds are 4 standard deviations away."""
    covered = 0
    for seed in range(100):
        first, second = rankings(2 * seed, 80, 0.8), rankings(2 * seed + 1, 80, 0.8)
        found = bootstrap.compare(first, second, resamples=100, seed=seed)
        assert found is not None
        assert found.drop_interval is not None
        covered += found.drop_interval[0] <= 0 <= found.drop_interval[1]
    assert 86 <= covered <= 100


def test_one_image_has_no_interval():
    found = bootstrap.compare(rankings(1, 1, 1), rankings(2, 1, 1), resamples=20)
    assert found is not None
    assert found.drop_interval is None


def test_no_objects():
    nothing = voc_metric.rankings([Annotations.none()] * 3, [Detections.of([], [], [])] * 3, 2)
    assert bootstrap.compare(nothing, nothing, resamples=10) is None


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="same images"):
        bootstrap.compare(rankings(1, 5, 1), rankings(1, 6, 1))
