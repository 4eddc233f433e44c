"""Data sets with objects in S3: a prefix, an archive, a tar file."""

import tarfile
from pathlib import Path
from typing import Any

import object_sets
import pytest
from unusual_s3 import BUCKET, Unusual

from job.data.s3.images import RemoteObjects, remote_of
from job.data.splits import Splits, split
from job.manifest import Manifest, parse
from job.pipeline.fetch_inputs import localized

SETS = {"train": object_sets.TRAIN, "test": object_sets.TEST}
VOC = {
    "format": "voc",
    "train_list": "ImageSets/Main/train.txt",
    "val_list": "ImageSets/Main/test.txt",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return object_sets.voc_tree(tmp_path / "voc", SETS)


def hold(server: Unusual, tree: Path) -> None:
    for path in tree.rglob("*"):
        if path.is_file():
            server.hold(f"set/{path.relative_to(tree)}", path.read_bytes())
    server.hold("set/runs/report.json", b"{}")


def manifest(server: Unusual, folder: Path, root: str = "set", **data: Any) -> Manifest:
    document = {
        "version": 1,
        "name": "tiny",
        "task": "detection",
        "model": {
            "name": "yolov3_mobilenet_v1",
            "classes": 2,
            "input_shape": [3, 32, 32],
            "random_weights": True,
        },
        "data": {"selection_fraction": 0.25, **data, "root": str(BUCKET / root)},
        "storage": {"endpoint_url": server.url, "scratch": str(folder / "scratch")},
    }
    return parse(document, "m.json", folder)


def opened(wanted: Manifest, folder: Path) -> Splits:
    return split(
        wanted.data, 2, (3, 32, 32), wanted.path, folder / "cache", remote=remote_of(wanted)
    )


def check(wanted: Manifest, folder: Path) -> None:
    with localized(wanted, lambda text: None) as ready:
        splits = opened(ready, folder)
        source: Any = splits.test.source
        image, objects = source.read_labelled(0)
    assert image.shape == (30, 40, 3)
    assert objects.boxes.tolist() == [[0, 0, 40, 30]]
    assert source.class_names == ("cat", "dog")
    assert [len(part) for part in (splits.train, splits.selection, splits.test)] == [3, 1, 2]


def test_voc_below_a_prefix(server: Unusual, tree: Path, tmp_path: Path) -> None:
    hold(server, tree)
    wanted = manifest(server, tmp_path, **VOC)
    check(wanted, tmp_path)
    with localized(wanted, lambda text: None) as ready:
        source = opened(ready, tmp_path).test.source
    assert isinstance(source, RemoteObjects)
    # An output below the prefix must not change the data set.
    assert not any(name.startswith("runs/") for name in source.index.names)


def test_lines_with_both_paths(server: Unusual, tree: Path, tmp_path: Path) -> None:
    for name, images in SETS.items():
        lines = [f"JPEGImages/{stem}.png Annotations/{stem}.xml\n" for stem in images]
        (tree / f"{name}.txt").write_text("".join(lines))
    hold(server, tree)
    lists = {"train_list": "train.txt", "val_list": "test.txt"}
    check(manifest(server, tmp_path, format="voc", **lists), tmp_path)


@pytest.mark.parametrize("folder", [None, "JPEGImages"])
def test_coco_below_a_prefix(
    server: Unusual, tree: Path, tmp_path: Path, folder: str | None
) -> None:
    for name, images in SETS.items():
        object_sets.coco_file(tree / f"{name}.json", images, ["cat", "dog"])
    if folder is None:
        for path in (tree / "JPEGImages").iterdir():
            path.rename(tree / path.name)
    hold(server, tree)
    keys = {"train_list": "train.json", "val_list": "test.json"}
    dirs = {"train_dir": folder, "val_dir": folder}
    check(manifest(server, tmp_path, format="coco", **keys, **dirs), tmp_path)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_an_archive_contains_its_lists(
    server: Unusual, tree: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"voc.{suffix}"
    with tarfile.open(path, "w:gz" if suffix == "tar.gz" else "w") as archive:
        archive.add(tree, ".")
    server.hold(f"voc.{suffix}", path.read_bytes())
    check(manifest(server, tmp_path, f"voc.{suffix}", **VOC), tmp_path)
