"""COCO files made by the tests."""

import io
import json
from typing import Any

import hostile
import pytest
from hypothesis import given

from job.detection import coco
from job.errors import DataError


def content(**changes: Any) -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "b.jpg", "width": 640, "height": 480},
            {"id": 3, "file_name": "a/a.jpg", "width": 100, "height": 50},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 90,
                "bbox": [10, 20, 30.5, 40],
                "area": 700.5,
                "iscrowd": 1,
                "segmentation": {"counts": "x"},
            },
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 640, 480]},
        ],
        **changes,
    }


def read(value: Any) -> coco.CocoSet:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return coco.read(io.BytesIO(data), "gt.json")


def annotation(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], **changes}


def test_images_and_classes_by_ascending_id():
    found = read(content())
    assert [(image.id, image.name, image.size) for image in found.images] == [
        (3, "a/a.jpg", (50, 100)),
        (7, "b.jpg", (480, 640)),
    ]
    assert (found.classes, found.category_ids) == (("person", "toothbrush"), (1, 90))


def test_boxes_areas_and_crowds():
    without, image = read(content()).images
    assert len(without.annotations) == 0
    objects = image.annotations
    assert objects.boxes.tolist() == [[10, 20, 40.5, 60], [0, 0, 640, 480]]
    assert objects.classes.tolist() == [1, 0]
    assert objects.crowd.tolist() == [True, False]
    assert objects.area.tolist() == [700.5, 640 * 480]
    assert not objects.difficult.any()


def test_empty_boxes_are_dropped_and_counted():
    boxes = ([1, 1, 0, 5], [1, 1, 5, -2], [1, 1, 1, 1])
    rows = [annotation(id=number, bbox=box) for number, box in enumerate(boxes)]
    found = read(content(annotations=rows))
    assert (found.empty, len(found.images[1].annotations)) == (2, 1)


def test_equal_boxes_with_other_ids_are_kept():
    found = read(content(annotations=[annotation(id=1), annotation(id=2)]))
    assert len(found.images[1].annotations) == 2


def test_unknown_size_and_no_annotations():
    images = [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "b", "width": 0, "height": 0}]
    found = read(content(images=images, annotations=[]))
    assert [image.size for image in found.images] == [None, None]


def test_a_box_may_exceed_its_image_by_a_pixel():
    assert read(content(annotations=[annotation(bbox=[-0.5, 0, 641, 480])])).empty == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", "gt.json:1: not valid JSON"),
        (b'{\n"a": }', "gt.json:2: not valid JSON: .* column 6"),
        (b"\xff\xff\xff\xff\xff", "gt.json"),
        (b"[" * 100_000, "gt.json"),
        (b'{"images": ' + b"9" * 5000 + b"}", "gt.json"),
        ([], "expected an object"),
        ({"images": []}, "'categories' is missing"),
        (content(images=[]), "/images: .*empty"),
        (content(images={}), "/images: expected a list"),
        (content(images=[3]), "/images/0: expected an object, found 3"),
        (
            content(images=[{"id": 1, "file_name": "a", "width": 1e30, "height": 1}]),
            r"/images/0/width: .* 1e\+30",
        ),
        (content(images=[{"id": 1, "file_name": "\ud800"}]), r"/images/0/file_name: .*\\ud800"),
        (
            content(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]),
            'categories 1 and 2 .* "a"',
        ),
        (content(annotations=[annotation(bbox=[1e308, 2, 1e308, 4])]), "/annotations/0/bbox"),
        (content(images=[{"file_name": "a"}]), "/images/0: .*'id' is missing"),
        (content(images=[{"id": "1"}]), '/images/0/id: expected a whole number, found "1"'),
        (content(images=[{"id": 1}]), "/images/0: .*'file_name' is missing"),
        (content(images=[{"id": 1, "file_name": ""}]), "/images/0/file_name"),
        (
            content(images=[{"id": 1, "file_name": "a", "width": 1.5, "height": 1}]),
            "/images/0/width: .* 1.5",
        ),
        (content(images=2 * [{"id": 1, "file_name": "a"}]), "/images/1: id 1 .* /images/0"),
        (
            content(images=[{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}]),
            'images 1 and 2 .* "a"',
        ),
        (content(images=[{"id": 1, "file_name": "../a"}]), "image 1 leads out"),
        (content(categories=2 * [{"id": 1, "name": "a"}]), "/categories/1: id 1"),
        (content(annotations=2 * [annotation()]), "/annotations/1: id 1 .* /annotations/0"),
        (content(annotations=[annotation(image_id=5)]), "/annotations/0/image_id: .* image .* 5"),
        (content(annotations=[annotation(category_id=2)]), "/annotations/0/category_id: .* 2"),
        (content(annotations=[annotation(bbox=[1, 2, 3])]), r"/annotations/0/bbox: .* \[1, 2, 3\]"),
        (content(annotations=[annotation(bbox=[1, 2, "3", 4])]), "/annotations/0/bbox"),
        (b'{"annotations":[{"id":1,"bbox":[NaN,1,1,1]}],"images":[],"categories":[]}', "gt.json"),
        (content(annotations=[annotation(iscrowd=2)]), "/annotations/0/iscrowd: .* 2"),
        (content(annotations=[annotation(area=-1)]), "/annotations/0/area: .* -1"),
        (
            content(annotations=[annotation(bbox=[630, 2, 13, 4])]),
            r'/annotations/0/bbox \("b.jpg"\): the box 630 2 13 4 .* 640x480',
        ),
    ],
)
def test_faults_name_file_and_place(value, expected):
    with pytest.raises(DataError, match=expected) as caught:
        read(value)
    assert caught.value.hint


@hostile.examples(3000)
@given(hostile.damaged([json.dumps(content()).encode()], b"1e400", b"-Infinity", b"1e308", b"true"))
def test_damaged_files(data):
    hostile.judged("COCO annotations", lambda: read(data), DataError)
