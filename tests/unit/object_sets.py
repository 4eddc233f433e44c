"""Small data sets with objects, in the formats of Pascal VOC and COCO."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_fakes import save_image

# Class name, corners as in the file, and further elements.
Box = tuple[str, tuple[int, int, int, int], str]

IMAGE = (40, 30)
# Train: two classes, an image without objects, a difficult and an empty box.
TRAIN: Mapping[str, Sequence[Box]] = {
    "a": [("dog", (1, 1, 20, 20), ""), ("cat", (5, 5, 40, 30), "<difficult>1</difficult>")],
    "b": [],
    "c": [("cat", (3, 3, 3, 9), ""), ("dog", (2, 2, 9, 9), "")],
    "d": [("cat", (10, 10, 30, 30), "")],
}
TEST: Mapping[str, Sequence[Box]] = {
    "e": [("cat", (1, 1, 40, 30), "")],
    "f": [("dog", (11, 6, 30, 25), "")],
}


def annotation(boxes: Sequence[Box]) -> str:
    corners = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{name}</name>{more}<bndbox>"
        + "".join(f"<{key}>{value}</{key}>" for key, value in zip(corners, box, strict=True))
        + "</bndbox></object>"
        for name, box, more in boxes
    )
    width, height = IMAGE
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{objects}</annotation>"


def voc_tree(root: Path, sets: Mapping[str, Mapping[str, Sequence[Box]]]) -> Path:
    """Write images, annotations and the given image sets below ``root``."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for seed, (name, images) in enumerate(sets.items()):
        (root / f"ImageSets/Main/{name}.txt").write_text("".join(f"{stem}\n" for stem in images))
        for number, (stem, boxes) in enumerate(images.items()):
            save_image(root / f"JPEGImages/{stem}.png", 100 * seed + number, IMAGE)
            (root / f"Annotations/{stem}.xml").write_text(annotation(boxes))
    return root


def coco_file(path: Path, images: Mapping[str, Sequence[Box]], names: Sequence[str]) -> None:
    """Write the JSON file of images that ``voc_tree`` wrote; ids of categories have gaps."""
    ids = {name: 10 * (number + 1) for number, name in enumerate(names)}
    rows: list[dict[str, Any]] = []
    for number, boxes in enumerate(images.values()):
        for name, (x0, y0, x1, y1), _ in boxes:
            box = [x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1]
            rows.append(
                {"id": len(rows), "image_id": number, "category_id": ids[name], "bbox": box}
            )
    content = {
        "images": [
            {"id": number, "file_name": f"{stem}.png", "width": IMAGE[0], "height": IMAGE[1]}
            for number, stem in enumerate(images)
        ],
        "annotations": rows,
        "categories": [{"id": ids[name], "name": name} for name in names],
    }
    path.write_text(json.dumps(content))
