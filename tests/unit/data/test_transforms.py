import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from job.data.transforms import (
    Augment,
    Draw,
    Evaluate,
    Transform,
    centre_crop,
    generator,
    normalize,
    random_box,
    resize,
    resized_centre,
)
from job.errors import UsageError


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def test_normalize_is_the_textbook_formula() -> None:
    images = picture(5, 7)[np.newaxis].repeat(2, axis=0)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    result = normalize(images, mean, std)
    expected = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    one = normalize(images, (0.5,), (0.5,))
    np.testing.assert_allclose(one, (images.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5, atol=1e-6)


def test_resize_is_pillows_bilinear_for_bytes_and_floats() -> None:
    image = picture(40, 30)
    expected = np.asarray(Image.fromarray(image).resize((9, 7), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize(image, (7, 9)), expected)
    as_float = resize(image.astype(np.float32), (7, 9))
    assert as_float.dtype == np.float32
    np.testing.assert_allclose(as_float, expected, atol=1)
    assert resize(picture(4, 4, 1), (7, 9)).shape == (7, 9, 1)


@pytest.mark.parametrize(("height", "width"), [(40, 30), (30, 40), (10, 400)])
def test_evaluation_cuts_the_centre(height: int, width: int) -> None:
    image = picture(height, width)
    result = Evaluate((14, 14), resize_short=16)(image)
    scale = 16 / min(height, width)
    whole = resize(image, (int(height * scale), int(width * scale)))
    np.testing.assert_array_equal(result, centre_crop(whole, (14, 14)))
    assert result.shape == (14, 14, 3)


@pytest.mark.parametrize(("height", "width"), [(3, 900), (900, 3), (30, 17), (17, 31), (1, 40)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_the_centre_is_the_same_without_the_rest(height: int, width: int, kind: type) -> None:
    image = picture(height, width).astype(kind)
    for scaled in ((2 * height, 3 * width), (16 * height // 3, 16 * width // 3), (61, 53)):
        size = (min(5, scaled[0]), min(4, scaled[1]))
        part = resized_centre(image, scaled, size)
        assert part.dtype == kind
        # Both round to 8 bits twice, with other last bits of the filter's weights.
        whole = centre_crop(resize(image, scaled), size)
        np.testing.assert_allclose(part.astype(float), whole.astype(float), atol=1)


STRIPS = [(1, 30_000), (30_000, 1), (2, 300_000), (400_000, 1), (1, 1_000_000)]
TRANSFORMS = [
    Evaluate((224, 224), resize_short=256),
    Evaluate((224, 224)),
    *(Augment(Evaluate((224, 224), resize_short=256), crop=crop) for crop in ("pad", "none")),
    Augment(Evaluate((224, 224)), crop="random_resized", ratio=(0.0001, 10000.0)),
    Augment(Evaluate((224, 224)), crop="random_resized"),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_strips_need_little_memory(transform: Transform) -> None:
    images = [picture(*size, channels) for size in STRIPS for channels in (1, 3)]
    with little_memory(300 << 20):
        for image in images:
            result = transform(image, Draw(0, 0, 0))
            assert result.shape == (224, 224, image.shape[2])


@contextmanager
def little_memory(spare: int) -> Iterator[None]:
    """Let this process use ``spare`` bytes more than it uses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_evaluation_without_resize_short_ignores_proportions() -> None:
    image = picture(40, 30)
    np.testing.assert_array_equal(Evaluate((8, 9))(image), resize(image, (8, 9)))
    np.testing.assert_array_equal(Evaluate((40, 30))(image), image)


def test_resize_short_must_leave_enough_to_cut() -> None:
    with pytest.raises(UsageError, match=r"/data/resize_short: .*224.* 200"):
        Evaluate((224, 224), resize_short=200)


@pytest.mark.parametrize("crop", ["random_resized", "pad", "none"])
def test_augmentation_depends_on_the_draw_alone(crop: str) -> None:
    augment = Augment(Evaluate((8, 8)), crop=crop)
    image = picture(20, 16)
    draws = [Draw(seed, epoch, index) for seed in (0, 1) for epoch in (0, 1) for index in range(9)]
    first = [augment(image, draw) for draw in draws]
    again = [augment(image, draw) for draw in reversed(draws)]
    for one, other in zip(first, reversed(again), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.shape == (8, 8, 3)
    kinds = len({one.tobytes() for one in first})
    assert kinds == 2 if crop == "none" else kinds > 20


def test_augmentation_serves_packed_floats() -> None:
    image = np.random.default_rng(0).random((8, 8, 2), np.float32)
    for crop in ("random_resized", "pad", "none"):
        result = Augment(Evaluate((8, 8)), crop=crop)(image, Draw(0, 0, 0))
        assert result.shape == (8, 8, 2)
        assert result.dtype == np.float32


def test_no_flip_means_none() -> None:
    image = picture(8, 8)
    plain = Augment(Evaluate((8, 8)), crop="none", flip=False)
    for index in range(8):
        np.testing.assert_array_equal(plain(image, Draw(0, 0, index)), image)


def test_pad_shifts_by_at_most_the_padding() -> None:
    image = np.full((6, 6, 1), 255, np.uint8)
    augment = Augment(Evaluate((6, 6)), crop="pad", padding=2, flip=False)
    whites = {int((augment(image, Draw(0, 0, index)) > 0).sum()) for index in range(200)}
    assert whites == {a * b for a in (4, 5, 6) for b in (4, 5, 6)}


def test_random_boxes_keep_to_their_bounds() -> None:
    settings = Augment(Evaluate((8, 8)), scale=(0.2, 0.9), ratio=(0.5, 2.0))
    for index in range(300):
        top, left, height, width = random_box(60, 80, settings, generator(0, index))
        assert top >= 0
        assert left >= 0
        assert top + height <= 60
        assert left + width <= 80
        assert 0.18 <= height * width / 4800 <= 0.92
        assert 0.47 <= width / height <= 2.1


def test_a_box_that_never_fits_becomes_the_largest_centred_one() -> None:
    settings = Augment(Evaluate((8, 8)), scale=(1.0, 1.0), ratio=(0.75, 1.33))
    assert random_box(10, 100, settings, generator(0)) == (0, 43, 10, 13)
    assert random_box(100, 9, settings, generator(0)) == (44, 0, 12, 9)
    assert random_box(1, 1, settings, generator(0)) == (0, 0, 1, 1)
