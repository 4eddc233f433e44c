import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import object_sets
import pytest
from data_fakes import save_image
from object_sets import TEST, TRAIN

from job.data.decode import UnreadableImageError
from job.data.objects import ObjectFiles
from job.data.sources import ImageFiles
from job.data.splits import Splits, split
from job.errors import DataError
from job.manifest import parse

LISTS = {"train_list": "ImageSets/Main/train.txt", "val_list": "ImageSets/Main/test.txt"}


def opened(folder: Path, task: str = "detection", classes: int = 2, **data: Any) -> Splits:
    names = data.pop("class_names", None)
    model = {"name": "yolov3_mobilenet_v1"} if task == "detection" else {"inference_model": "m"}
    document = {
        "version": 1,
        "name": "tiny",
        "task": task,
        "model": {**model, "classes": classes, "input_shape": [3, 32, 32]},
        "data": {"selection_fraction": 0.25, **data},
        "detection": {"class_names": names},
        "quantize": {"strategy": "post"},
    }
    manifest = parse(document, "m.json", folder)
    model_spec = manifest.model
    return split(
        manifest.data,
        model_spec.classes,
        model_spec.input_shape,
        manifest.path,
        folder / "cache",
        class_names=manifest.detection.class_names,
    )


def boxes(source: Any, name: str) -> dict[str, list[float]]:
    """Return the box of each class of an image."""
    assert isinstance(source, ObjectFiles)
    found = source.objects[[Path(each).stem for each in source.names].index(name)]
    classes = [source.class_names[number] for number in found.classes]
    return {each: box.tolist() for each, box in zip(classes, found.boxes, strict=True)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return object_sets.voc_tree(tmp_path / "voc", {"train": TRAIN, "test": TEST})


def test_voc_has_the_classes_of_its_objects(tree: Path) -> None:
    splits = opened(tree.parent, format="voc", root="voc", **LISTS)
    source = splits.train.source
    assert isinstance(source, ObjectFiles)
    assert source.class_names == ("cat", "dog")
    assert boxes(source, "a") == {"dog": [0, 0, 20, 20], "cat": [4, 4, 40, 30]}
    assert source.objects[0].difficult.tolist() == [False, True]
    assert (boxes(source, "b"), source.objects.empty) == ({}, 1)
    assert boxes(splits.test.source, "e") == {"cat": [0, 0, 40, 30]}
    assert (len(splits.train), len(splits.selection), len(splits.test)) == (3, 1, 2)
    image, _ = source.read_labelled(0)
    assert image.shape == (30, 40, 3)


def test_given_class_names_set_the_numbers(tree: Path) -> None:
    splits = opened(tree.parent, format="voc", root="voc", class_names=["dog", "cat"], **LISTS)
    source: Any = splits.test.source
    assert [source.objects[index].classes.tolist() for index in range(2)] == [[1], [0]]


def test_an_archive_contains_its_lists(tree: Path) -> None:
    with tarfile.open(tree.parent / "voc.tar.gz", "w:gz") as archive:
        archive.add(tree, "VOC2007")
    lists = {key: f"VOC2007/{name}" for key, name in LISTS.items()}
    splits = opened(tree.parent, format="voc", root="voc.tar.gz", **lists)
    assert boxes(splits.test.source, "f") == {"dog": [10, 5, 30, 25]}


def test_lines_with_both_paths_are_read(tree: Path) -> None:
    lines = [f"voc/JPEGImages/{name}.png voc/Annotations/{name}.xml" for name in TRAIN]
    (tree.parent / "pairs.txt").write_text("\n".join(lines))
    splits = opened(tree.parent, format="voc", train_list="pairs.txt", val_fraction=0.25)
    assert boxes(splits.train.source, "d") == {"cat": [9, 9, 30, 30]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("Annotations/c.xml", "<annotation><object></annotation>"),
        ("Annotations/c.xml", object_sets.annotation([("dog", (1, 1, 90, 20), "")])),
        ("Annotations/c.xml", object_sets.annotation([("cow", (1, 1, 9, 20), "")])),
        ("ImageSets/Main/train.txt", "../../secret\n"),
        ("ImageSets/Main/train.txt", ""),
        ("ImageSets/Main/train.txt", "a.png ../c.xml\n"),
    ],
)
def test_a_faulty_file_is_named(tree: Path, name: str, content: str) -> None:
    (tree / name).write_text(content)
    with pytest.raises(DataError, match=name.rpartition("/")[2]):
        opened(tree.parent, format="voc", root="voc", class_names=["cat", "dog"], **LISTS)


def test_a_missing_annotation_is_named(tree: Path) -> None:
    (tree / "Annotations/d.xml").unlink()
    with pytest.raises(DataError, match=r"Annotations/d\.xml"):
        opened(tree.parent, format="voc", root="voc", **LISTS)


def test_another_number_of_classes_names_the_rarest_and_its_file(tree: Path) -> None:
    typo = object_sets.annotation([("Cat", (1, 1, 9, 9), "")])
    (tree / "Annotations/e.xml").write_text(typo)
    with pytest.raises(DataError, match=r"'Cat' \(1 object, first in Annotations/e\.xml"):
        opened(tree.parent, format="voc", root="voc", **LISTS)


def test_two_images_of_one_name_are_rejected(tree: Path) -> None:
    save_image(tree / "JPEGImages/a.jpg", 0, object_sets.IMAGE)
    with pytest.raises(DataError, match=r"a\.jpg and .*a\.png"):
        opened(tree.parent, format="voc", root="voc", **LISTS)


def test_an_image_of_another_size_than_its_annotations_is_bad(tree: Path) -> None:
    save_image(tree / "JPEGImages/a.png", 0, (80, 60))
    source: Any = opened(tree.parent, format="voc", root="voc", **LISTS).train.source
    with pytest.raises(UnreadableImageError, match=r"80x60.*40x30"):
        source.read_labelled(0)


def test_a_box_outside_the_real_image_names_the_image(tree: Path) -> None:
    save_image(tree / "JPEGImages/a.png", 0, (20, 15))
    annotation = tree / "Annotations/a.xml"
    annotation.write_text(re.sub("<size>.*</size>", "", annotation.read_text()))
    source: Any = opened(tree.parent, format="voc", root="voc", **LISTS).train.source
    with pytest.raises(DataError, match=r"JPEGImages/a\.png"):
        source.read_labelled(0)


@pytest.mark.parametrize("names", [["dog", "cat"], None])
def test_coco_gives_the_same_boxes(tree: Path, names: list[str] | None) -> None:
    object_sets.coco_file(tree / "train.json", TRAIN, ["cat", "dog"])
    object_sets.coco_file(tree / "test.json", TEST, ["dog", "cat"])
    given = {"format": "coco", "root": "voc", "train_list": "train.json", "val_list": "test.json"}
    dirs = {"train_dir": "JPEGImages", "val_dir": "JPEGImages"}
    splits = opened(tree.parent, class_names=names, **given, **dirs)
    assert boxes(splits.train.source, "d") == {"cat": [9, 9, 30, 30]}
    assert boxes(splits.test.source, "f") == {"dog": [10, 5, 30, 25]}
    train: Any = splits.train.source
    assert train.class_names == tuple(names or ["cat", "dog"])
    assert train.read(0).shape == (30, 40, 3)


def test_other_categories_name_the_file(tree: Path) -> None:
    object_sets.coco_file(tree / "train.json", TRAIN, ["cat", "dog"])
    object_sets.coco_file(tree / "test.json", TEST, ["cat", "dog", "cow"])
    with pytest.raises(DataError, match=r"test\.json"):
        opened(tree, format="coco", train_list="train.json", val_list="test.json")
    object_sets.coco_file(tree / "test.json", {}, ["cat", "cow"])
    with pytest.raises(DataError, match=r"test\.json"):
        opened(tree, format="coco", train_list="train.json", val_list="test.json")


def test_a_folder_of_images_needs_no_labels(tmp_path: Path) -> None:
    for number in range(12):
        save_image(tmp_path / f"photos/{number % 2}/{number}.png", number)
    (tmp_path / "photos/readme.txt").write_text("x")
    splits = opened(tmp_path, "outputs", 1, format="images", val_dir="photos")
    assert isinstance(splits.test.source, ImageFiles)
    assert not isinstance(splits.test.source, ObjectFiles)
    parts = (splits.calibration, splits.selection, splits.test)
    assert sorted(np.concatenate([part.indices for part in parts]).tolist()) == list(range(12))


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="photos"):
        opened(tmp_path, "outputs", 1, format="images", val_dir="photos")
    with pytest.raises(DataError, match="paintings"):
        opened(tmp_path, "outputs", 1, format="images", val_dir="paintings")
