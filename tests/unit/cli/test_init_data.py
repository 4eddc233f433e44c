"""``job init`` finds the format, the splits and the classes of a data set."""

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import object_sets
import pytest

from job.cli.found_data import FoundData
from job.cli.init_data import find_data
from job.errors import DataError, JobError


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"content")
    return folder


def as_folder(folder: Path) -> Path:
    return folder


def as_tar(folder: Path) -> Path:
    target = folder.with_suffix(".tar.gz")
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, arcname=".")
    return target


def as_zip(folder: Path) -> Path:
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return target


EVERY = pytest.mark.parametrize("packed", [as_folder, as_tar, as_zip])
Pack = Callable[[Path], Path]


def folders(**keys: str) -> dict[str, str]:
    return {"format": "class_folders", **keys}


def split(name: str) -> tuple[str, str]:
    return f"{name}/cat/1.jpg", f"{name}/dog/2.jpg"


@EVERY
@pytest.mark.parametrize(
    ("names", "keys", "images"),
    [
        (("Größe 1/ü.jpg", "写真/2.jpg", "写真/3.JPG"), folders(train_dir="."), 3),
        ((*split("train"), *split("val")), folders(train_dir="train", val_dir="val"), 4),
        (
            (*split("Training"), *split("Testing")),
            folders(train_dir="Training", val_dir="Testing"),
            4,
        ),
        (
            (*split("d/train"), *split("d/valid"), *split("d/test")),
            folders(train_dir="d/train", selection_dir="d/valid", val_dir="d/test"),
            6,
        ),
        # The images to label have no class.
        ((*split("train"), "test/1.jpg"), folders(train_dir="train"), 2),
        # A vehicle.
        (("train/1.jpg", "car/2.jpg", "bus/3.jpg"), folders(train_dir="."), 3),
    ],
)
def test_class_folders(
    tmp_path: Path, packed: Pack, names: tuple[str, ...], keys: dict[str, str], images: int
) -> None:
    data = packed(write(tmp_path / "d", *names))
    found = find_data(str(data))
    assert (found.keys, found.classes, found.images) == (keys, len(found.folders), images)
    plain = {name.split("/")[0] for name in names}
    assert set(found.folders) == (plain if keys == folders(train_dir=".") else {"cat", "dog"})
    assert list(found.folders) == sorted(found.folders)


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("1.jpg", "cat/2.jpg", "dog/3.jpg"), r"1\.jpg"),
        (("1.jpg", "2.jpg"), r"one folder \('\.'\)"),
        (("cat/1.jpg", "cat/2.jpg"), r"one folder \('cat'\)"),
        (("images/train/1.jpg", "images/val/2.jpg"), r"train/1\.jpg"),
        ((*split("train"), "train/cover.jpg", *split("val")), r"train/cover\.jpg"),
        ((*split("train"), "val/cat/3.jpg"), "dog"),
        ((*split("train"), *split("val"), "val/elk/4.jpg"), "elk"),
        ((*split("val"), *split("test")), "train/"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, names: tuple[str, ...], named: str) -> None:
    write(tmp_path / "d", *names)
    with pytest.raises(DataError, match=rf"--data .*{named}"):
        find_data(str(tmp_path / "d"))


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    data = write(tmp_path / "d", "cat/1.jpg", "dog/2.jpg")
    other = write(tmp_path / "elsewhere", "3.jpg").rename(tmp_path / "elk")
    for link, target in (("elk", other), ("cat/up", data), ("cat/other", data / "dog")):
        (data / link).symlink_to(target)
    found = find_data(str(data))
    assert (found.keys["train_dir"], found.classes) == (".", 3)


def test_links_in_an_archive_are_rejected(tmp_path: Path) -> None:
    data = write(tmp_path / "d", "cat/1.jpg", "dog/2.jpg")
    (data / "dog/3.jpg").symlink_to("2.jpg")
    with pytest.raises(DataError, match=r"dog/3\.jpg.* link"):
        find_data(str(as_tar(data)))


@EVERY
def test_lists(tmp_path: Path, packed: Pack) -> None:
    data = write(tmp_path / "d", "a/1.jpg", "a/2.jpg", "b/3.jpg")
    (data / "train_list.txt").write_text("a/1.jpg 0\nb/3.jpg 4\n")
    keys = {"format": "imagenet_list", "train_list": "train_list.txt"}
    assert find_data(str(packed(data))) == FoundData(keys, 5, 2)


def coco(root: Path, **files: Any) -> Path:
    """A COCO data set; ``files`` gives the JSON file and the folder of the images of each split."""
    object_sets.voc_tree(root, {"train": object_sets.TRAIN, "test": object_sets.TEST})
    pictures = {path.name: path.read_bytes() for path in (root / "JPEGImages").iterdir()}
    for folder in ("JPEGImages", "Annotations", "ImageSets"):
        (root / folder).rename(root.parent / folder)
    for split, (file, folder) in files.items():
        images = object_sets.TRAIN if split == "train" else object_sets.TEST
        write(root, file)
        object_sets.coco_file(root / file, images, ("dog", "cat"))
        write(root, *(f"{folder}/{stem}.png" for stem in images))
        for stem in images:
            (root / folder / f"{stem}.png").write_bytes(pictures[f"{stem}.png"])
    return root


@EVERY
def test_coco(tmp_path: Path, packed: Pack) -> None:
    data = coco(
        tmp_path / "d",
        train=("annotations/instances_train2017.json", "train2017"),
        test=("annotations/instances_val2017.json", "val2017"),
    )
    write(data, "annotations/captions_train2017.json")
    keys = {
        "format": "coco",
        "train_list": "annotations/instances_train2017.json",
        "train_dir": "train2017",
        "val_list": "annotations/instances_val2017.json",
        "val_dir": "val2017",
    }
    found = find_data(str(packed(data)))
    assert found == FoundData(keys, 2, 6, ("dog", "cat"))


def test_coco_with_the_file_beside_the_images(tmp_path: Path) -> None:
    splits = {role: (f"{role}/_annotations.coco.json", role) for role in ("train", "valid", "test")}
    found = find_data(str(coco(tmp_path / "d", **splits)))
    assert found.keys == {
        "format": "coco",
        "train_list": "train/_annotations.coco.json",
        "train_dir": "train",
        "selection_list": "valid/_annotations.coco.json",
        "selection_dir": "valid",
        "val_list": "test/_annotations.coco.json",
        "val_dir": "test",
    }


@pytest.mark.parametrize(
    "content", [b"{", b'{"images": [], "annotations": [], "categories": []}', None]
)
def test_a_coco_file_without_its_images(tmp_path: Path, content: bytes | None) -> None:
    data = coco(tmp_path / "d", train=("annotations/instances.json", "."))
    if content is not None:
        (data / "annotations/instances.json").write_bytes(content)
    for picture in data.glob("*.png"):
        picture.unlink()
    with pytest.raises(DataError, match=r"annotations/instances\.json"):
        find_data(str(data))


@pytest.mark.parametrize("name", ["d.tar", "d.zip", "d.tgz", "d.rar", "d.jpg"])
def test_a_file_that_is_no_archive(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    with pytest.raises(JobError, match=name):
        find_data(str(tmp_path / name))
