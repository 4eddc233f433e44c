"""Read the XML files and the image sets of Pascal VOC.

VOC counts pixels from 1, and both corners belong to the box. Pixel k spans k - 1 to k in the
convention of ``job.detection.boxes``. Therefore ``xmin ymin xmax ymax`` becomes
``xmin - 1, ymin - 1, xmax, ymax``, and a box over a whole image of 640x480 pixels, which is
``1 1 640 480`` in the file, becomes ``0 0 640 480``. The IoU of converted boxes equals the IoU of
the devkit, which adds a pixel to each side.

Some tools count from 0 or write fractions. Their boxes are up to a pixel too far to the upper left,
and may exceed the image by this pixel.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml import ElementTree as SafeTree

from job.detection.annotations import Annotations
from job.detection.boxes import MAX_SIDE, Size, check_inside
from job.errors import DataError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_XML_BYTES = 16 << 20
MAX_SET_BYTES = 256 << 20

_NUMBER = re.compile(r"[+-]?([0-9]{1,15}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?", re.ASCII)
# The paths of an image and of its annotations; both may contain spaces.
_PAIR = re.compile(r"(\S.*?\.(?:jpe?g|png|bmp|webp|gif|tiff?|p[gp]m))\s+(\S.*\.xml)", re.IGNORECASE)
_EXTENSION = re.compile(r".*\.(jpe?g|png|bmp|xml)", re.IGNORECASE)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SHOWN_CLASSES = 20
_LONGEST_SHOWN = 60
_LINE_END = re.compile(r"\r\n|\r|\n")
_FLAGGED = re.compile(r".*\S\s+(-1|0|1)")
_FLAG = re.compile(r"\s+(-1|0|1)$")


@dataclass(frozen=True, eq=False)
class VocImage:
    """The content of one XML file.

    Attributes:
        annotations: the objects.
        size: height and width according to the file; None if the file has no size or a size of 0.
        empty: number of objects that were dropped, because their box has no width or no height.
    """

    annotations: Annotations
    size: Size | None
    empty: int


def read(
    file: BinaryIO, named: str, classes: Mapping[str, int], *, image_size: Size | None = None
) -> VocImage:
    """Read the annotations of one image.

    An object without ``difficult`` is not difficult. An object whose ``xmax`` is not greater than
    ``xmin``, or ``ymax`` than ``ymin``, is dropped and counted. A file without objects is valid.

    Args:
        file: the XML file.
        named: the file's name in messages.
        classes: number of each class by name.
        image_size: height and width of the image itself, in pixels. If it is None, boxes are
            compared with the size in the file. If the file has no size, they are not compared.

    Raises:
        DataError: the file is too large or not XML, contains entities, lacks an element, has
            a value that is not a number or an unknown class, or a box exceeds its image by more
            than a pixel.
    """
    root = _root(file, named)
    written_size = _size(root, named)
    size = image_size or written_size
    found: list[tuple[tuple[float, ...], int, bool]] = []
    empty = 0
    for number, element in enumerate(root.findall("object"), 1):
        where = f"{named}: object[{number}]"
        label = _label(element, where, classes)
        difficult = _difficult(element, where)
        corners = _corners(element, where)
        if corners[2] <= corners[0] or corners[3] <= corners[1]:
            empty += 1
            continue
        box = (corners[0] - 1, corners[1] - 1, corners[2], corners[3])
        if size is not None:
            check_inside(box, size, f"{where}/bndbox", corners)
        found.append((box, label, difficult))
    annotations = Annotations.of(
        [box for box, _, _ in found],
        [label for _, label, _ in found],
        difficult=[difficult for _, _, difficult in found],
    )
    return VocImage(annotations, written_size, empty)


def image_set(file: BinaryIO, named: str) -> tuple[str, ...]:
    """Return the names in an image set, such as ``ImageSets/Main/trainval.txt``.

    Each line is the name of an image without folder and extension, or the paths of an image and of
    its annotations, which are returned as one text. An image set of a single class has
    a second column with -1, 0 or 1. The function ignores this column if every line has one.

    Args:
        file: the list, UTF-8.
        named: the file's name in messages.

    Raises:
        DataError: the list is empty or not UTF-8, has a name twice, or a name leads out of the
            data set.
    """
    content = file.read(MAX_SET_BYTES + 1)
    if len(content) > MAX_SET_BYTES:
        raise _too_large(named, MAX_SET_BYTES, "Check that the file is an image set.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{named}:{at}: the line is not UTF-8 text", "Check that the file is an image set."
        ) from error
    lines = [(n, line.strip()) for n, line in enumerate(_LINE_END.split(text), 1) if line.strip()]
    if not lines:
        raise DataError(
            f"{named}: the image set is empty",
            "Write the name of one image per line, without its extension, such as 2007_000027.",
        )
    # Names such as "im 0" and "im 1" are no flags, because an image must not count twice.
    flagged = all(_FLAGGED.fullmatch(line) for _, line in lines) and len(
        {_FLAG.sub("", line) for _, line in lines}
    ) == len({line for _, line in lines})
    first_lines: dict[str, int] = {}
    for number, line in lines:
        name = _FLAG.sub("", line) if flagged else line
        _check_name(name, f"{named}:{number}")
        if name in first_lines:
            raise DataError(
                f"{named}:{number}: {_shown(name)} is also in line {first_lines[name]}",
                "Remove one of the lines, because an image must not count twice.",
            )
        first_lines[name] = number
    return tuple(first_lines)


def pair_of(line: str) -> tuple[str, str] | None:
    """Return the paths of an image and of its annotations; None if the line is a name."""
    found = _PAIR.fullmatch(line)
    return found and (found[1], found[2])


def _check_name(name: str, where: str) -> None:
    if _EXTENSION.fullmatch(name) and pair_of(name) is None:
        raise DataError(
            f"{where}: expected a name without extension, found {_shown(name)}",
            "Write the name of an image without folder and extension, such as 2007_000027.",
        )
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise DataError(
            f"{where}: {_shown(name)} leads out of the data set",
            "Write the name of an image without folder and extension.",
        )


def _root(file: BinaryIO, named: str) -> "Element":
    content = file.read(MAX_XML_BYTES + 1)
    if len(content) > MAX_XML_BYTES:
        raise _too_large(named, MAX_XML_BYTES, "Check that the file is an annotation of VOC.")
    if not content.strip():
        raise DataError(f"{named}: the file is empty", "Copy the file again.")
    root = _parsed(content, named)
    if root.tag != "annotation":
        raise DataError(
            f"{named}: expected the root element <annotation>, found <{_cut(root.tag)}>",
            "Check that the file is an annotation of VOC.",
        )
    return root


def _parsed(content: bytes, named: str) -> "Element":
    try:
        root: Element = SafeTree.fromstring(content)
    except SafeTree.ParseError as error:
        raise DataError(
            f"{named}:{error.position[0]}: not valid XML: {error}",
            "Correct the file, or copy it again.",
        ) from error
    except DefusedXmlException as error:
        raise DataError(
            f"{named}: the file declares an entity or refers to another file, which is not allowed",
            "Remove the DOCTYPE from the file.",
        ) from error
    except (ValueError, LookupError) as error:
        # Unknown or multi-byte encodings.
        raise DataError(
            f"{named}: the XML cannot be decoded: {error}", "Save the file as UTF-8."
        ) from error
    return root


def _size(root: "Element", named: str) -> Size | None:
    element = root.find("size")
    if element is None:
        return None
    sides = []
    for name in ("height", "width"):
        value = _number(_text(element, name, f"{named}: size"), f"{named}: size/{name}")
        if value < 0 or value != int(value):
            raise DataError(
                f"{named}: size/{name}: expected a whole number of at least 0, found {value:g}",
                "Write the size of the image in pixels.",
            )
        sides.append(int(value))
    return (sides[0], sides[1]) if all(sides) else None


def _label(element: "Element", where: str, classes: Mapping[str, int]) -> int:
    name = _text(element, "name", where)
    if not name:
        raise DataError(f"{where}/name: the name is empty", "Write the name of the class.")
    if name not in classes:
        known = list(classes)
        more = ", ..." if len(known) > _SHOWN_CLASSES else ""
        raise DataError(
            f"{where}/name: unknown class {_shown(name)}; the classes are "
            f"{', '.join(map(repr, known[:_SHOWN_CLASSES]))}{more}",
            "Add the class to /detection/class_names and /model/classes, or correct the name.",
        )
    return classes[name]


def _difficult(element: "Element", where: str) -> bool:
    text = (element.findtext("difficult") or "").strip()
    if text not in ("", "0", "1"):
        raise DataError(
            f"{where}/difficult: expected 0 or 1, found {_shown(text)}", "Write 0 or 1."
        )
    return text == "1"


def _corners(element: "Element", where: str) -> tuple[float, ...]:
    box = element.find("bndbox")
    if box is None:
        raise _missing(where, "bndbox")
    inside = f"{where}/bndbox"
    return tuple(_number(_text(box, name, inside), f"{inside}/{name}") for name in _CORNERS)


def _text(element: "Element", name: str, where: str) -> str:
    text = element.findtext(name)
    if text is None:
        raise _missing(where, name)
    return text.strip()


def _number(text: str, where: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not abs(value) <= MAX_SIDE:
        raise DataError(
            f"{where}: expected a number up to {MAX_SIDE:,}, found {_shown(text)}",
            "Write the value in pixels.",
        )
    return value


def _missing(where: str, name: str) -> DataError:
    return DataError(f"{where}: the element <{name}> is missing", f"Add <{name}> to the file.")


def _too_large(named: str, limit: int, hint: str) -> DataError:
    return DataError(f"{named}: the file has more than {limit >> 20} MiB", hint)


def _shown(text: str) -> str:
    return repr(_cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
