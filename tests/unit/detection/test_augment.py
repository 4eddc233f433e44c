"""Random changes: their ranges, their seeds, and boxes that stay with their objects."""

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
from tiers import cases

from job.detection import augment, boxes
from job.detection.annotations import Annotations
from job.detection.augment import Colours, CropSettings, Distortion


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(height: int = 30, width: int = 50, channels: int = 3) -> np.ndarray:
    return rng().integers(0, 256, (height, width, channels), np.uint8)


def one_colour(*levels: int) -> np.ndarray:
    return np.full((2, 3, len(levels)), levels, np.uint8)


OBJECTS = Annotations.of([[5, 5, 20, 25], [30, 2, 48, 12]], [0, 1])


def test_default_colours_change_nothing():
    assert np.array_equal(augment.recoloured(picture(), Colours()), picture())
    gray = picture(channels=1)
    assert np.array_equal(augment.recoloured(gray, Colours()), gray)


@pytest.mark.parametrize(
    ("levels", "colours", "expected"),
    [
        ((100, 50, 200), Colours(brightness=1.5), (150, 75, 255)),
        ((100,), Colours(brightness=0.5), (50,)),
        ((100, 50, 200), Colours(shift=(-20, 10, 60)), (80, 60, 255)),
        ((100, 50, 200), Colours(saturation=0), (82, 82, 82)),
        ((100, 50, 200), Colours(hue=360), (100, 50, 200)),
        ((90, 90, 90), Colours(hue=77, saturation=1.5), (90, 90, 90)),
        ((90, 90, 90), Colours(contrast=0.5), (90, 90, 90)),
    ],
)
def test_colours(levels, colours, expected):
    assert augment.recoloured(one_colour(*levels), colours)[1, 2].tolist() == list(expected)


def test_contrast_moves_levels_from_the_mean_of_the_image():
    image = np.array([[[100], [140]]], np.uint8)
    assert augment.recoloured(image, Colours(contrast=1.5)).ravel().tolist() == [90, 150]
    dark = augment.recoloured(image, Colours(contrast=1.5, brightness=0.5))
    assert dark.ravel().tolist() == [45, 75]


def test_hue_turns_colours_as_on_the_colour_wheel():
    red = one_colour(200, 80, 80)
    for degrees in (-18, 18):
        turned = augment.recoloured(red, Colours(hue=degrees))[0, 0] / 255
        hue = 360 * colorsys.rgb_to_hsv(*turned)[0]
        # The angle in YIQ and the angle in HSV are similar, not equal.
        assert abs((hue + 180) % 360 - 180 - degrees) < 12


def test_distort_draws_each_change_with_its_probability():
    gray = one_colour(100)
    settings = Distortion(contrast=(1, 1), brightness=(1.2, 1.2))
    levels = [int(augment.distort(gray, settings, rng(seed))[0, 0, 0]) for seed in range(200)]
    assert set(levels) == {100, 120}
    assert 70 < levels.count(120) < 130


def test_distort_stays_in_its_ranges():
    always = Distortion((0.8, 1.2), (1, 1), (1, 1), (0, 0), shift=20, probability=1)
    levels = [augment.distort(one_colour(100, 100, 100), always, rng(k))[0, 0] for k in range(200)]
    assert 60 <= np.min(levels) < 70
    assert 130 < np.max(levels) <= 140


def changes() -> dict[str, Callable[[np.ndarray, Annotations, np.random.Generator], object]]:
    return {
        "expand": lambda *given: augment.random_expand(*given, probability=1),
        "crop": augment.random_crop,
        "flip": lambda *given: augment.random_flip(*given, vertical=0.5, transposed=0.5),
        "distort": lambda image, found, draw: (
            augment.distort(image, Distortion(), draw),
            found,
        ),
    }


@pytest.mark.parametrize("name", changes())
def test_the_generator_decides(name):
    change = changes()[name]
    results = [change(picture(), OBJECTS, rng(seed)) for seed in (1, 1, 2, 3, 4)]
    images = [image for image, _ in results]
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(results[0][1].boxes, results[1][1].boxes)
    assert not all(np.array_equal(images[0], image) for image in images[2:])


@pytest.mark.parametrize("name", changes())
def test_boxes_stay_on_their_objects(name):
    """Each object is painted in its own level, and nothing else has this level."""
    for seed in range(cases(300)):
        image = np.zeros((30, 50, 3), np.uint8)
        for box, level in zip(OBJECTS.boxes.astype(int), (100, 200), strict=True):
            image[box[1] : box[3], box[0] : box[2]] = level
        changed, found = changes()[name](image, OBJECTS, rng(seed))
        if name == "distort":
            continue
        for box, label in zip(found.boxes, found.classes, strict=True):
            rows, columns = np.nonzero(changed[..., 0] == (100, 200)[label])
            painted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == painted, f"seed {seed}"


def test_expand_stays_in_its_range():
    shapes = [
        augment.random_expand(picture(), OBJECTS, rng(seed), largest=3)[0].shape
        for seed in range(200)
    ]
    assert 70 < shapes.count((30, 50, 3)) < 130
    assert max(shape[0] for shape in shapes) in range(80, 91)
    ratios = [shape[1] / shape[0] for shape in shapes]
    assert max(ratios) - min(ratios) < 0.1


def test_crop_has_the_wanted_overlap():
    settings = CropSettings(thresholds=(0.5,))
    sizes = set()
    for seed in range(100):
        image, found = augment.random_crop(picture(), OBJECTS, rng(seed), settings)
        sizes.add(image.shape)
        assert len(found)
        if image.shape != picture().shape:
            whole = np.array([[0.0, 0, image.shape[1], image.shape[0]]])
            kept = OBJECTS.take(found.classes)
            limited = boxes.areas(found.boxes) / (
                boxes.areas(whole) + boxes.areas(kept.boxes) - boxes.areas(found.boxes)
            )
            assert limited.max() >= 0.5
    assert len(sizes) > 20


def test_crop_keeps_an_image_without_objects():
    given = picture()
    image, found = augment.random_crop(given, Annotations.none(), rng())
    assert image is given
    assert len(found) == 0


def test_crop_of_one_pixel():
    given = Annotations.of([[0, 0, 1, 1]], [0])
    for seed in range(20):
        image, found = augment.random_crop(picture(1, 1), given, rng(seed))
        assert (image.shape, len(found)) == ((1, 1, 3), 1)


def test_flip_probabilities():
    image, found = augment.random_flip(
        picture(), OBJECTS, rng(), horizontal=1, vertical=1, transposed=1
    )
    assert np.array_equal(image, picture()[::-1, ::-1].transpose(1, 0, 2))
    assert found.boxes[0].tolist() == [5, 30, 25, 45]
    image, _ = augment.random_flip(picture(), OBJECTS, rng(), horizontal=0)
    assert np.array_equal(image, picture())


def test_batch_sizes():
    drawn = {augment.batch_size_of((320, 416, 608), rng(seed)) for seed in range(50)}
    assert drawn == {(320, 320), (416, 416), (608, 608)}
