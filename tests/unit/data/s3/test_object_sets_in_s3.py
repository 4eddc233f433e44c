"""Images with objects in S3 give the same images and boxes as in a folder."""

from pathlib import Path
from typing import Any

import numpy as np
import object_sets
import pytest
from object_sets import TEST, TRAIN
from unusual_s3 import BUCKET, Unusual

from job.data.s3.images import remote_of
from job.data.splits import Splits, split
from job.manifest import parse
from job.pipeline.fetch_inputs import localized

SETS = {"train": TRAIN, "test": TEST}
DIRS = {"train_dir": "JPEGImages", "val_dir": "JPEGImages"}
FORMATS: dict[str, dict[str, str]] = {
    "voc": {"train_list": "ImageSets/Main/train.txt", "val_list": "ImageSets/Main/test.txt"},
    "coco": {"train_list": "train.json", "val_list": "test.json", **DIRS},
    "images": {"val_dir": "JPEGImages"},
}


@pytest.fixture
def tree(tmp_path: Path, server: Unusual) -> Path:
    """A data set below ``set`` in a folder, and on the server."""
    root = object_sets.voc_tree(tmp_path / "set", SETS)
    for name, images in SETS.items():
        object_sets.coco_file(root / f"{name}.json", images, ["cat", "dog"])
    for path in root.rglob("*.*"):
        server.hold(f"set/{path.relative_to(root).as_posix()}", path.read_bytes())
    return root


def opened(base: Path, root: str, url: str, form: str) -> Splits:
    model: dict[str, Any] = {"classes": 2, "input_shape": [3, 32, 32]}
    if form == "images":
        task, model = "outputs", {**model, "classes": 1, "inference_model": "m"}
    else:
        task, model = "detection", {**model, "name": "yolov3_mobilenet_v1"}
    manifest = parse(
        {
            "version": 1,
            "name": "tiny",
            "task": task,
            "model": model,
            "data": {"format": form, "root": root, "selection_fraction": 0.25, **FORMATS[form]},
            "quantize": {"strategy": "post"},
            "storage": {"endpoint_url": url, "scratch": str(base / "scratch")},
        },
        "m.json",
        base,
    )
    with localized(manifest, lambda text: None) as ready:
        return split(
            ready.data,
            ready.model.classes,
            ready.model.input_shape,
            ready.path,
            base / "cache",
            remote=remote_of(ready),
        )


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_as_in_a_folder(server: Unusual, tree: Path, form: str) -> None:
    local, remote = (
        opened(tree.parent, root, server.url, form) for root in ("set", str(BUCKET / "set"))
    )
    for part, other in ((local.train, remote.train), (local.test, remote.test)):
        one: Any = part.source
        two: Any = other.source
        assert [*one.names] == [*two.names]
        assert len(one) > 0
        for index in range(len(one)):
            np.testing.assert_array_equal(one.read(index), two.read(index))
            if form != "images":
                np.testing.assert_array_equal(one.objects[index].boxes, two.objects[index].boxes)
