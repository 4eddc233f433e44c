import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from job.data import packed_objects
from job.data.decode import UnreadableImageError
from job.data.labelled_transforms import AugmentObjects, ResizeObjects
from job.data.loader import Batch, Loader, Normalisation
from job.data.objects import ObjectTable, checked
from job.data.scene_images import SceneImages
from job.data.transforms import Draw, Transform
from job.detection.annotations import Annotations
from job.detection.scenes import Scenes, SceneSettings
from job.errors import DataError

SIZE = (48, 48)
AUGMENT = AugmentObjects((32, 64), distort=1, expand=2, crop=0.5, flip=("horizontal",))


@pytest.fixture(scope="module")
def scenes() -> SceneImages:
    digits = np.zeros((4, 8, 8), np.uint8)
    digits[:, 1:7, 3:5] = 255
    settings = SceneSettings(size=SIZE, small=(1, 3, 8, 14), large=(0, 1, 20, 24))
    return SceneImages(
        Scenes(digits, np.arange(4), 7, settings), np.zeros(20, np.int64), part="train"
    )


def objects() -> list[Annotations]:
    return [
        Annotations.of([[0, 0, 4, 4], [1, 2, 3, 4]], [1, 0], difficult=[True, False]),
        Annotations.none(),
        Annotations.of([[5, 5, 9, 8]], [2], crowd=[True], area=[7]),
    ]


def one_box(box: list[float], size: tuple[int, int] | None) -> ObjectTable:
    return ObjectTable.of([Annotations.of([box], [0])], [size])


def same(first: Annotations, second: Annotations) -> bool:
    fields = ("boxes", "classes", "difficult", "crowd", "area")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in fields)


def batches(
    source: SceneImages, transform: Transform, start: int = 0, **options: Any
) -> list[Batch]:
    normal = Normalisation((0.5,), (0.5,))
    order = np.arange(len(source))
    with Loader(source, order, transform, normal, batch_size=8, **options) as loader:
        return list(loader.batches(epoch=1, start_batch=start))


def test_a_table_returns_the_objects_of_an_image_also_in_another_process() -> None:
    copied = pickle.dumps(ObjectTable.of(objects(), [(9, 8), None, (7, 6)], empty=3))
    table = pickle.loads(copied)  # noqa: S301 - our own bytes
    assert (len(table), table.empty) == (3, 3)
    assert table.sizes.tolist() == [[9, 8], [0, 0], [7, 6]]
    assert all(same(table[index], each) for index, each in enumerate(objects()))


def test_objects_of_a_packed_file_are_read_as_written(tmp_path: Path) -> None:
    packed_objects.write(tmp_path / "test.bin", objects())
    assert (tmp_path / "test.bin.objects.npz").exists()
    found = packed_objects.read(tmp_path / "test.bin")
    assert all(same(first, second) for first, second in zip(found, objects(), strict=True))


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 not a zip file", b"\x93NUMPY"])
def test_a_missing_or_damaged_file_of_objects_is_named(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "test.bin.objects.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"test\.bin\.objects\.npz"):
        packed_objects.read(tmp_path / "test.bin")


def test_objects_without_an_array_are_rejected(tmp_path: Path) -> None:
    np.savez(tmp_path / "test.bin.objects.npz", counts=np.array([0]))
    with pytest.raises(DataError, match=r"objects\.npz"):
        packed_objects.read(tmp_path / "test.bin")


def test_a_box_outside_the_image_names_the_image() -> None:
    with pytest.raises(DataError, match=r"photo\.jpg"):
        checked(np.zeros((10, 10, 3), np.uint8), one_box([0, 0, 10, 12], None), 0, "photo.jpg")


@pytest.mark.parametrize("size", [(20, 10), (10, 20), (11, 10)])
def test_annotations_for_another_size_make_the_image_bad(size: tuple[int, int]) -> None:
    image, table = np.zeros((10, 20, 3), np.uint8), one_box([0, 0, 10, 5], size)
    if size == image.shape[:2]:
        assert len(checked(image, table, 0, "photo.jpg")[1]) == 1
        return
    with pytest.raises(UnreadableImageError) as caught:
        checked(image, table, 0, "photo.jpg")
    assert "20x10" in caught.value.reason
    assert ("EXIF" in caught.value.reason) == (size == (20, 10))


def test_the_targets_of_labels_are_the_labels() -> None:
    labels = np.array([3, 1])
    (found,) = Batch(np.zeros((2, 1, 4, 4), np.float32), labels, labels).targets
    assert found is labels


def test_the_targets_of_objects_are_boxes_and_classes(scenes: SceneImages) -> None:
    first = batches(scenes, ResizeObjects((96, 48)))[0]
    boxes, classes = first.targets
    assert first.objects is not None
    most = max(map(len, first.objects))
    assert (boxes.shape, classes.shape) == ((8, most, 4), (8, most))
    _, expected = scenes.read_labelled(0)
    # Only the height was doubled, so the shares of the sides are those of the scene.
    x0, y0, x1, y1 = expected.boxes[0] / 48
    np.testing.assert_allclose(boxes[0, 0], [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], 1e-6)
    assert first.objects[0].boxes[0, 3] == 2 * expected.boxes[0, 3]


def test_decoding_processes_give_the_same_images_and_objects(scenes: SceneImages) -> None:
    here = batches(scenes, AUGMENT, shuffle=True)
    there = batches(scenes, AUGMENT, shuffle=True, workers=1)
    assert len(here) == len(there) == 3
    for first, second in zip(here, there, strict=True):
        assert np.array_equal(first.images, second.images)
        assert first.objects is not None
        assert second.objects is not None
        assert all(map(same, first.objects, second.objects))


def test_ten_batches_have_one_of_the_training_sizes(scenes: SceneImages) -> None:
    sizes = (32, 64, 96)
    augment = AugmentObjects((96, 96), distort=0, expand=1, crop=1, flip=())
    source = replace(scenes, labels=np.zeros(160, np.int64))
    found = batches(source, augment, sizes=sizes, shuffle=True, seed=2)
    sides = [batch.images.shape[2:] for batch in found]
    assert sides == [(64, 64)] * 10 + [(96, 96)] * 10
    whole = batches(source, augment, shuffle=True, seed=2)
    for one, other in zip(found, whole, strict=True):
        # The targets are shares of the sides.
        assert all(map(np.array_equal, one.targets[1:], other.targets[1:]))
        np.testing.assert_allclose(one.targets[0], other.targets[0], atol=1e-6)
    again = batches(source, augment, sizes=sizes, shuffle=True, seed=2, start=7)
    assert [batch.images.shape[2:] for batch in again] == sides[7:]


def test_augmentation_changes_with_the_epoch_and_keeps_boxes_inside(scenes: SceneImages) -> None:
    image, found = scenes.read_labelled(2)
    results = [AUGMENT.labelled(image, found, Draw(0, epoch, 2)) for epoch in range(6)]
    assert len({pixels.tobytes() for pixels, _ in results}) > 1
    for pixels, moved in results:
        assert pixels.shape == (32, 64, 3)
        assert (moved.boxes >= 0).all()
        assert (moved.boxes <= [64, 32, 64, 32]).all()


def test_neutral_augmentation_only_resizes(scenes: SceneImages) -> None:
    image, found = scenes.read_labelled(0)
    neutral = AugmentObjects(SIZE, distort=0, expand=1, crop=1, flip=())
    pixels, moved = neutral.labelled(image, found, Draw(0, 0, 0))
    assert np.array_equal(pixels, image)
    assert same(moved, found)
