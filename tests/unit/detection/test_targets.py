import numpy as np

from job.detection.annotations import Annotations
from job.detection.targets import targets


def test_boxes_are_centres_and_sides_as_shares_of_the_image() -> None:
    found = targets([Annotations.of([[10, 20, 30, 60]], [3])], (100, 50))
    np.testing.assert_allclose(found.boxes, [[[0.4, 0.4, 0.4, 0.4]]])
    assert found.classes.tolist() == [[3]]
    assert (found.boxes.dtype, found.classes.dtype) == (np.float32, np.int32)


def test_images_with_fewer_objects_end_with_rows_of_zeros() -> None:
    two = Annotations.of([[0, 0, 8, 8], [2, 2, 4, 4]], [1, 2])
    found = targets([two, Annotations.none(), two.take(np.array([1]))], (8, 8))
    assert found.boxes.shape == (3, 2, 4)
    assert (found.boxes[1] == 0).all()
    assert (found.boxes[2, 1] == 0).all()
    assert found.classes.tolist() == [[1, 2], [0, 0], [2, 0]]


def test_a_batch_without_objects_has_one_row_of_zeros() -> None:
    found = targets([Annotations.none()], (8, 8))
    assert found.boxes.tolist() == [[[0, 0, 0, 0]]]
    assert found.classes.tolist() == [[0]]


def test_crowds_are_omitted_and_boxes_end_at_the_image() -> None:
    objects = Annotations.of(
        [[0, 0, 8, 8], [-1, 2, 9, 4], [9, 9, 12, 12]], [1, 2, 3], crowd=[True, False, False]
    )
    found = targets([objects], (8, 8))
    np.testing.assert_allclose(found.boxes, [[[0.5, 0.375, 1, 0.25]]])
    assert found.classes.tolist() == [[2]]
