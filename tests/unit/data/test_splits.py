import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_fakes import save_folders

from job.data import packed
from job.data.splits import Part, Splits, split, spread
from job.errors import DataError, UsageError
from job.manifest.spec import AugmentSpec, DataSpec


def spec(**changes: Any) -> DataSpec:
    augment = AugmentSpec("random_resized", (0.08, 1.0), (0.75, 1.33), 4, True)
    names = [f"{name}_{kind}" for name in ("train", "selection", "val") for kind in KINDS]
    settings: dict[str, Any] = dict.fromkeys(names) | {
        "format": "imagenet_list",
        "root": None,
        "train_labels": True,
        "selection_fraction": 0.1,
        "val_fraction": 0.2,
        "resize_short": None,
        "mean": (0.5,),
        "std": (0.5,),
        "augment": augment,
        "workers": 0,
        "max_bad_fraction": 0.0,
        "calibration_images": 20,
    }
    return DataSpec(**settings | changes)


KINDS = ("list", "dir", "file")


def cut(folder: Path, classes: int = 4, **changes: Any) -> Splits:
    shape = (3, 8, 8)
    return split(spec(**changes), classes, shape, lambda text: folder / text, folder / "cache")


def write_list(folder: Path, name: str, count: int, classes: int = 4) -> str:
    lines = [f"{name}/{number}.png {number % classes}\n" for number in range(count)]
    (folder / f"{name}.txt").write_text("".join(lines))
    return f"{name}.txt"


def members(part: Part) -> set[tuple[str, int]]:
    return {(part.source.names[0], index) for index in part.indices.tolist()}


def assert_apart(*parts: Part) -> None:
    everything = [member for part in parts for member in members(part)]
    assert len(everything) == len(set(everything))


def class_counts(part: Part) -> list[int]:
    return np.bincount(part.source.labels[part.indices]).tolist()


def test_digits_give_all_splits(tmp_path: Path) -> None:
    splits = cut(tmp_path, classes=10, format="digits")
    assert_apart(splits.train, splits.selection, splits.test)
    assert (len(splits.test), len(splits.selection), len(splits.train)) == (359, 180, 1258)
    assert members(splits.calibration) <= members(splits.train)
    assert len(splits.calibration) == 20
    assert min(class_counts(splits.test)) >= 33
    assert splits.test.how.startswith("20% of the digits, ")
    assert "the digits" in splits.train.how
    assert splits.calibration.how.startswith("20 of ")


def test_a_cut_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = (cut(tmp_path, classes=10, format="digits") for _ in range(2))
    for name in ("train", "calibration", "selection", "test"):
        one, other = getattr(first, name), getattr(second, name)
        np.testing.assert_array_equal(one.indices, other.indices)
        assert (np.diff(one.indices) > 0).all()


def test_given_lists_are_taken_whole(tmp_path: Path) -> None:
    names = {
        f"{name}_list": write_list(tmp_path, name, count)
        for name, count in (("train", 40), ("selection", 8), ("val", 12))
    }
    splits = cut(tmp_path, **names)
    assert [len(part) for part in (splits.train, splits.selection, splits.test)] == [40, 8, 12]
    assert splits.test.how == "all of val_list"
    assert splits.train.how == "all of train_list"
    assert class_counts(splits.calibration) == [5, 5, 5, 5]


def test_selection_is_cut_from_training_and_not_from_test(tmp_path: Path) -> None:
    names = {
        "train_list": write_list(tmp_path, "train", 40),
        "val_list": write_list(tmp_path, "val", 12),
    }
    splits = cut(tmp_path, **names, calibration_images=100)
    assert_apart(splits.train, splits.selection, splits.test)
    assert len(splits.test) == 12
    assert class_counts(splits.selection) == [1, 1, 1, 1]
    assert class_counts(splits.train) == [9, 9, 9, 9]
    assert splits.selection.how.startswith("10% of train_list, ")
    assert "36" in splits.calibration.how
    assert "100" in splits.calibration.how


def test_test_images_alone_give_calibration_and_selection(tmp_path: Path) -> None:
    splits = cut(tmp_path, classes=40, val_list=write_list(tmp_path, "val", 40, classes=40))
    assert_apart(splits.calibration, splits.selection, splits.test)
    assert len(splits.train) == 0
    assert splits.train.how == "none given"
    assert [len(splits.calibration), len(splits.selection), len(splits.test)] == [10, 4, 26]
    assert "20" in splits.calibration.how
    assert "quarter" in splits.calibration.how


def test_without_training_calibration_prefers_the_selection_split(tmp_path: Path) -> None:
    names = {
        "selection_list": write_list(tmp_path, "selection", 80),
        "val_list": write_list(tmp_path, "val", 12),
    }
    splits = cut(tmp_path, **names)
    assert_apart(splits.calibration, splits.selection, splits.test)
    assert [len(splits.calibration), len(splits.selection), len(splits.test)] == [20, 60, 12]


def test_too_few_images_to_cut_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train_list has only 2 images.* 2,"):
        cut(tmp_path, train_list=write_list(tmp_path, "train", 2))
    with pytest.raises(DataError, match=r"val_list has only 2 images"):
        cut(tmp_path, val_list=write_list(tmp_path, "val", 2))


def test_an_image_in_two_splits_is_an_error(tmp_path: Path) -> None:
    same = write_list(tmp_path, "train", 40)
    message = r"train/0\.png of .* is in data\.train_list and data\.val_list"
    with pytest.raises(DataError, match=message):
        cut(tmp_path, train_list=same, val_list=same)
    (tmp_path / "twice.txt").write_text("a.png 0\nb.png 1\n./a.png 0\n")
    with pytest.raises(DataError, match=r"a\.png of .* is twice in data\.train_list"):
        cut(tmp_path, train_list="twice.txt")


def test_neither_training_nor_test_is_an_error(tmp_path: Path) -> None:
    selection = write_list(tmp_path, "selection", 8)
    with pytest.raises(UsageError, match="/data: "):
        cut(tmp_path, selection_list=selection)


def test_a_wrong_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root .*gone "):
        cut(tmp_path, root="gone", val_list="a.txt")
    (tmp_path / "a.rar").touch()
    with pytest.raises(DataError, match=r"a\.rar: "):
        cut(tmp_path, root="a.rar", val_list="a.txt")


def test_class_folders_are_read_out_of_an_archive(tmp_path: Path) -> None:
    save_folders(tmp_path / "set/train", ["cat", "dog"], 10)
    save_folders(tmp_path / "set/test", ["cat", "dog"], 3)
    (tmp_path / "set/test/dog/notes.txt").touch()
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "set", "set")
    folders = {"format": "class_folders", "train_dir": "set/train", "val_dir": "set/test"}
    splits = cut(tmp_path, classes=2, root="set.tar.gz", **folders)
    assert [len(splits.train), len(splits.selection), len(splits.test)] == [18, 2, 6]
    assert splits.test.how.startswith("all of val_dir (")
    assert " 1 " in splits.test.how
    assert splits.test.source.where == str(tmp_path / "set.tar.gz")
    assert splits.test.source.names[0] == "set/test/cat/0.png"
    assert splits.test.source.read(0).shape == (10, 12, 3)


def test_class_folders_must_have_the_same_classes(tmp_path: Path) -> None:
    save_folders(tmp_path / "train", ["cat", "dog"], 10)
    save_folders(tmp_path / "test", ["cat", "cow"], 3)
    folders = {"format": "class_folders", "train_dir": "train", "val_dir": "test"}
    with pytest.raises(DataError, match=r"train and test .* cow, dog"):
        cut(tmp_path, classes=2, **folders)


def test_packed_files_are_checked(tmp_path: Path) -> None:
    images = np.zeros((20, 3, 8, 8), np.float32)
    batch = [(images, np.arange(20) % 4)]
    packed.write(tmp_path / "val.bin", batch, shape=(3, 8, 8), transform="none")
    splits = cut(tmp_path, format="packed", val_file="val.bin")
    assert splits.test.source.normalised
    assert len(splits.test) == 13
    with pytest.raises(DataError, match=r"5 of 20 labels.*0 to 2.*label 3 of image 3"):
        cut(tmp_path, classes=3, format="packed", val_file="val.bin")
    with pytest.raises(
        DataError, match=r"val\.bin of .* is in data\.train_file and data\.val_file"
    ):
        cut(tmp_path, format="packed", val_file="val.bin", train_file="./val.bin")


def test_every_stretch_of_a_spread_holds_each_class_in_proportion() -> None:
    labels = np.repeat(np.arange(3), (600, 300, 100))
    order = spread(labels, np.arange(1000), 9)
    assert sorted(order.tolist()) == list(range(1000))
    for start in range(0, 1000, 100):
        counts = np.bincount(labels[order[start : start + 100]], minlength=3)
        assert np.abs(counts - (60, 30, 10)).max() <= 2
    assert (spread(labels, np.arange(1000), 8) != order).any()


def test_synthetic_images_are_random_enough_for_calibration_and_the_same_each_time(
    tmp_path: Path,
) -> None:
    found = cut(tmp_path, format="synthetic", calibration_images=20)
    sizes = [len(p) for p in (found.train, found.calibration, found.selection, found.test)]
    assert sizes == [0, 20, 16, 16]
    assert all(part.how.startswith("synthetic: ") for part in (found.train, found.test))
    assert_apart(found.calibration, found.selection, found.test)
    image = found.test.source.read(int(found.test.indices[0]))
    assert (image.dtype, image.shape) == (np.uint8, (8, 8, 3))
    again = cut(tmp_path, format="synthetic", calibration_images=20)
    np.testing.assert_array_equal(again.test.source.read(36), found.test.source.read(36))
    assert (found.test.source.read(37) != image).any()
    assert 100 < np.mean([found.test.source.read(index) for index in range(20)]) < 155


@pytest.mark.parametrize("format_", ["class_folders", "imagenet_list"])
def test_a_test_folder_that_is_a_link_to_the_training_folder_is_noticed(
    tmp_path: Path, format_: str
) -> None:
    save_folders(tmp_path / "train", "abcd", 5)
    (tmp_path / "val").symlink_to("train")
    for name in ("train", "val"):
        (tmp_path / f"{name}.txt").write_text(f"{name}/a/0.png 0\n{name}/b/{name[0]}.png 1\n")
    kind = "dir" if format_ == "class_folders" else "list"
    suffix = "" if kind == "dir" else ".txt"
    given = {f"{name}_{kind}": f"{name}{suffix}" for name in ("train", "val")}
    with pytest.raises(
        DataError, match=rf"val/a/0\.png of .* is in data\.train_{kind} and data\.val_"
    ):
        cut(tmp_path, format=format_, **given)


def test_a_test_image_that_is_a_link_to_a_training_image_is_noticed(tmp_path: Path) -> None:
    save_folders(tmp_path / "train", "abcd", 5)
    save_folders(tmp_path / "val", "abcd", 1)
    (tmp_path / "val/a/7.png").symlink_to("../../train/a/3.png")
    with pytest.raises(
        DataError, match=r"val/a/7\.png of .* is in data\.train_dir and data\.val_dir"
    ):
        cut(tmp_path, format="class_folders", train_dir="train", val_dir="val")


def test_a_packed_test_file_that_is_the_training_file_is_noticed(tmp_path: Path) -> None:
    batch = [(np.zeros((20, 3, 8, 8), np.float32), np.arange(20) % 4)]
    packed.write(tmp_path / "train.bin", batch, shape=(3, 8, 8), transform="none")
    (tmp_path / "val.bin").hardlink_to(tmp_path / "train.bin")
    with pytest.raises(
        DataError, match=r"val\.bin of .* is in data\.train_file and data\.val_file"
    ):
        cut(tmp_path, format="packed", train_file="train.bin", val_file="val.bin")


def test_training_images_without_labels(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a b/1.png\nplain/2.png\n\nplain/3.png 7\n")
    val = write_list(tmp_path, "val", 40)
    splits = cut(tmp_path, train_labels=False, train_list="train.txt", val_list=val)
    assert splits.train.source.names == ("a b/1.png", "plain/2.png", "plain/3.png 7")
    assert len(splits.train) == len(splits.calibration) == 3
    assert class_counts(splits.selection) == [1, 1, 1, 1]
    assert class_counts(splits.test) == [9, 9, 9, 9]
    assert splits.selection.how.startswith("10% of val_list")


def test_an_unlabelled_folder_has_images_at_any_depth(tmp_path: Path) -> None:
    save_folders(tmp_path / "photos", ["2024", "2025"], 2)
    save_folders(tmp_path / "val", ["cat", "dog"], 10)
    given = {"format": "class_folders", "root": ".", "train_dir": "photos", "val_dir": "val"}
    splits = cut(tmp_path, classes=2, train_labels=False, **given)
    assert len(splits.train) == 4
    assert not splits.train.source.labels.any()
    assert class_counts(splits.test) == [9, 9]


def test_one_labelled_image_is_too_few_for_selection_and_test(tmp_path: Path) -> None:
    write_list(tmp_path, "val", 1)
    (tmp_path / "train.txt").write_text("1.png\n")
    with pytest.raises(DataError, match="val_list"):
        cut(tmp_path, train_labels=False, train_list="train.txt", val_list="val.txt")
