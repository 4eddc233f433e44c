"""Read a COCO JSON file with the boxes of a data set.

COCO gives ``x y width height`` from the upper left pixel edge, so ``x y x+width y+height`` is the
box in the convention of ``job.detection.boxes``. Category ids may have gaps. The class with number
0 is the category with the smallest id.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from job.detection.annotations import Annotations
from job.detection.boxes import MAX_SIDE, Size, check_inside
from job.errors import DataError

# instances_train2017.json has 448 MB.
MAX_JSON_BYTES = 1 << 30

_LONGEST_SHOWN = 60
_MAX_ID = 2**63
# JSON can contain half of a surrogate pair, which no file or terminal can represent.
_SURROGATE = re.compile("[\ud800-\udfff]")
# Outlines and run lengths need 90% of the memory, and no function reads them.
_UNUSED = ("segmentation", "keypoints")


@dataclass(frozen=True, eq=False)
class CocoImage:
    """One image of the file.

    Attributes:
        id: the image's id.
        name: ``file_name``.
        size: height and width; None if the file gives 0 or no size.
        annotations: the objects; in the order of the file.
    """

    id: int
    name: str
    size: Size | None
    annotations: Annotations


@dataclass(frozen=True, eq=False)
class CocoSet:
    """The content of the file.

    Attributes:
        images: by ascending id, which is the order of pycocotools. The order decides between
            detections with equal scores.
        classes: names of the categories by ascending id.
        category_ids: id of each class.
        empty: number of objects that were dropped, because their box has no width or no height.
    """

    images: tuple[CocoImage, ...]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    empty: int


@dataclass
class _Objects:
    """The objects of one image while the file is read."""

    boxes: list[tuple[float, ...]]
    classes: list[int]
    crowd: list[bool]
    area: list[float]

    def annotations(self) -> Annotations:
        return Annotations.of(self.boxes, self.classes, crowd=self.crowd, area=self.area)


def read(file: BinaryIO, named: str) -> CocoSet:
    """Read a COCO JSON file.

    Images without annotations are valid. An annotation without ``iscrowd`` is not a crowd, and one
    without ``area`` has the area of its box. An annotation whose width or height is not positive is
    dropped and counted.

    Args:
        file: the JSON file.
        named: the file's name in messages.

    Raises:
        DataError: the file is too large or not JSON, lacks a key, has a value of another type, an
            id, a file name or a category's name twice, an annotation of an unknown image or
            category, a box that exceeds its image by more than a pixel, a file name that leads out
            of the data set, no image or no category.
    """
    content = _content(file, named)
    categories = _rows(content, "categories", named)
    names = {
        _id(row, "id", where): _name(row, "name", where)
        for row, where in _unique(categories, named, "categories", "id")
    }
    _check_category_names(names, named)
    images = {
        _id(row, "id", where): (_name(row, "file_name", where), _size(row, where))
        for row, where in _unique(_rows(content, "images", named), named, "images", "id")
    }
    _check_file_names(images, named)
    class_of = {identity: number for number, identity in enumerate(sorted(names))}
    objects = {identity: _Objects([], [], [], []) for identity in images}
    rows = _rows(content, "annotations", named)
    empty = 0
    for row, where in _unique(rows, named, "annotations", "id"):
        owner = _known(row, "image_id", where, images)
        label = class_of[_known(row, "category_id", where, class_of)]
        box = _box(row, where)
        if box[2] <= box[0] or box[3] <= box[1]:
            empty += 1
            continue
        name, size = images[owner]
        if size is not None:
            check_inside(box, size, f"{where}/bbox ({_shown(name)})", tuple(row["bbox"]))
        _add(objects[owner], row, where, box, label)
    return CocoSet(
        images=tuple(
            CocoImage(identity, *images[identity], objects[identity].annotations())
            for identity in sorted(images)
        ),
        classes=tuple(names[identity] for identity in sorted(names)),
        category_ids=tuple(sorted(names)),
        empty=empty,
    )


def _content(file: BinaryIO, named: str) -> dict[str, Any]:
    content = file.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise DataError(
            f"{named}: the file has more than {MAX_JSON_BYTES >> 30} GiB", "Split the data set."
        )
    try:
        loaded = json.loads(content, object_hook=_without_unused)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{named}:{error.lineno}: not valid JSON: {error.msg}, column {error.colno}",
            "Correct the file, or copy it again.",
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{named}: byte {error.start} is not UTF-8 text", "Save the file as UTF-8."
        ) from error
    except (ValueError, RecursionError) as error:
        # Integers of more than 4,300 digits, and thousands of nested lists.
        raise DataError(
            f"{named}: the JSON cannot be read: {str(error)[:_LONGEST_SHOWN]}",
            "Check that the file is a COCO annotation file.",
        ) from error
    if not isinstance(loaded, dict):
        raise _wrong(named, "an object with images, annotations and categories", loaded)
    return loaded


def _without_unused(row: dict[str, Any]) -> dict[str, Any]:
    for name in _UNUSED:
        row.pop(name, None)
    return row


def _rows(content: dict[str, Any], key: str, named: str) -> list[Any]:
    if key not in content:
        raise DataError(
            f"{named}: the key {key!r} is missing",
            "Check that the file contains boxes. Files such as image_info and captions do not.",
        )
    rows = content[key]
    if not isinstance(rows, list):
        raise _wrong(f"{named}: /{key}", "a list", rows)
    if not rows and key != "annotations":
        raise DataError(f"{named}: /{key}: the list is empty", "Add at least one entry.")
    return rows


def _unique(rows: list[Any], named: str, key: str, unique: str) -> list[tuple[dict[str, Any], str]]:
    """Return the rows with their places; each has another id."""
    seen: dict[int, int] = {}
    result = []
    for number, row in enumerate(rows):
        where = f"{named}: /{key}/{number}"
        if not isinstance(row, dict):
            raise _wrong(where, "an object", row)
        identity = _id(row, unique, where)
        if identity in seen:
            raise DataError(
                f"{where}: id {identity} is also the id of /{key}/{seen[identity]}",
                "Remove one of the two entries, or change one id.",
            )
        seen[identity] = number
        result.append((row, where))
    return result


def _check_category_names(names: dict[int, str], named: str) -> None:
    owners: dict[str, int] = {}
    for identity, name in names.items():
        if name in owners:
            raise DataError(
                f"{named}: the categories {owners[name]} and {identity} have the same name "
                f"{_shown(name)}",
                "Rename one of the categories, or use one id for both.",
            )
        owners[name] = identity


def _check_file_names(images: dict[int, tuple[str, Size | None]], named: str) -> None:
    owners: dict[str, int] = {}
    for identity, (name, _) in images.items():
        if name in owners:
            raise DataError(
                f"{named}: images {owners[name]} and {identity} have the same file_name "
                f"{_shown(name)}",
                "Remove one of the two images, because an image must not count twice.",
            )
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise DataError(
                f"{named}: the file_name {_shown(name)} of image {identity} leads out of the data "
                f"set",
                "Write a path inside the folder of the images.",
            )
        owners[name] = identity


def _size(row: dict[str, Any], where: str) -> Size | None:
    sides = []
    for key in ("height", "width"):
        value = row.get(key, 0)
        if not _is_number(value) or not 0 <= value <= MAX_SIDE or value != int(value):
            raise _wrong(f"{where}/{key}", f"a whole number from 0 to {MAX_SIDE:,}", value)
        sides.append(int(value))
    return (sides[0], sides[1]) if all(sides) else None


def _known(row: dict[str, Any], key: str, where: str, known: dict[int, Any]) -> int:
    identity = _id(row, key, where)
    if identity not in known:
        noun = "image" if key == "image_id" else "category"
        raise DataError(
            f"{where}/{key}: the file has no {noun} with id {identity}",
            f"Remove the annotation, or add the {noun}.",
        )
    return identity


def _box(row: dict[str, Any], where: str) -> tuple[float, float, float, float]:
    value = _value(row, "bbox", where)
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_pixels, value)):
        expected = f"four numbers x, y, width and height, up to {MAX_SIDE:,}"
        raise _wrong(f"{where}/bbox", expected, value)
    x, y, width, height = (float(number) for number in value)
    return x, y, x + width, y + height


def _add(
    objects: _Objects, row: dict[str, Any], where: str, box: tuple[float, ...], label: int
) -> None:
    crowd = row.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise _wrong(f"{where}/iscrowd", "0 or 1", crowd)
    area = row.get("area", (box[2] - box[0]) * (box[3] - box[1]))
    if not _is_number(area) or area < 0:
        raise _wrong(f"{where}/area", "a number of at least 0", area)
    objects.boxes.append(box)
    objects.classes.append(label)
    objects.crowd.append(bool(crowd))
    objects.area.append(float(area))


def _id(row: dict[str, Any], key: str, where: str) -> int:
    return int(_typed(row, key, where, "a whole number", _is_id))


def _name(row: dict[str, Any], key: str, where: str) -> str:
    return str(_typed(row, key, where, "a text", _is_name))


def _typed(
    row: dict[str, Any], key: str, where: str, expected: str, fits: Callable[[Any], Any]
) -> Any:
    value = _value(row, key, where)
    if not fits(value):
        raise _wrong(f"{where}/{key}", expected, value)
    return value


def _value(row: dict[str, Any], key: str, where: str) -> Any:
    if key not in row:
        raise DataError(f"{where}: the key {key!r} is missing", f"Add {key!r} to the file.")
    return row[key]


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_MAX_ID <= value < _MAX_ID


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != "" and not _SURROGATE.search(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # A larger integer has no float.
    return math.isfinite(value) if isinstance(value, float) else -_MAX_ID <= value < _MAX_ID


def _is_pixels(value: Any) -> bool:
    return _is_number(value) and abs(value) <= MAX_SIDE


def _wrong(where: str, expected: str, found: Any) -> DataError:
    return DataError(
        f"{where}: expected {expected}, found {_shown(found)}", "Correct the value in the file."
    )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
