import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import object_sets
import pytest
from data_fakes import save_folders, save_image

from job.data import packed, packed_objects
from job.errors import DataError
from job.manifest import parse
from job.pipeline.build_report import data_notes
from job.stages import prepare


@dataclass
class Listener:
    """Receives events."""

    messages: list[tuple[str, str]] = field(default_factory=list)
    stopping: bool = False

    def progress(self, *_: object) -> None:
        pass

    def message(self, text: str, level: str = "info") -> None:
        self.messages.append((level, text))


def run(folder: Path, classes: int = 2, **data: Any) -> tuple[Any, list[tuple[str, str]]]:
    """Run the stage; returns its record and its messages."""
    model = {"name": "convnet", "classes": classes, "input_shape": [3, 8, 8]}
    return run_task(folder, {"task": "classification", "model": model}, **data)


def run_task(folder: Path, task: dict[str, Any], **data: Any) -> tuple[Any, list[tuple[str, str]]]:
    """Run the stage with the given keys; returns its record and its messages."""
    document = {
        "version": 1,
        "name": "tiny",
        **task,
        "data": {"workers": 1, "mean": [0.5], "std": [0.5], "calibration_images": 4, **data},
    }
    out = folder / "out/.partial/prepare"
    out.mkdir(parents=True)
    events = Listener()
    record = prepare.run(parse(document, "m.json", folder), {}, out, events)
    return record, events.messages


def write_list(folder: Path, name: str, labels: list[int]) -> str:
    for number in range(len(labels)):
        save_image(folder / f"{name}/{number}.png", 1000 * len(name) + number)
    lines = [f"{name}/{number}.png {label}\n" for number, label in enumerate(labels)]
    (folder / f"{name}.txt").write_text("".join(lines))
    return f"{name}.txt"


def test_copies_are_reported_by_name(tmp_path: Path) -> None:
    save_folders(tmp_path / "train", ["cat", "dog"], 10)
    save_image(tmp_path / "val/cat/0.png", 500)
    (tmp_path / "val/dog").mkdir()
    for number in range(5):
        shutil.copy(tmp_path / f"train/cat/{number}.png", tmp_path / f"val/dog/again{number}.png")
    given = {"format": "class_folders", "train_dir": "train", "val_dir": "val"}
    record, messages = run(tmp_path, **given, selection_fraction=0.05)
    copied = [each for each in record["copies"] if each["other"] == "train"]
    assert [(each["split"], each["images"]) for each in copied] == [("test", 5)]
    assert ["val/dog/again0.png", "train/cat/0.png"] in copied[0]["names"]
    warnings = [text for level, text in messages if level == "warning"]
    assert warnings == data_notes(record)
    assert any("val/dog/again0.png" in text for text in warnings)


def test_distinct_images_give_no_warning(tmp_path: Path) -> None:
    train, val = write_list(tmp_path, "train", [0, 1] * 10), write_list(tmp_path, "val", [0, 1])
    record, messages = run(tmp_path, format="imagenet_list", train_list=train, val_list=val)
    assert (record["copies"], record["empty_classes"], messages) == ([], [], [])
    assert data_notes(record) == []


@pytest.mark.parametrize(
    ("labels", "classes", "empty"),
    [([1, 2, 3], 4, [0]), ([0, 1, 3], 5, [2, 4]), ([1, 2], 4, [0, 3]), ([0, 1], 2, [])],
)
def test_classes_without_training_images_are_reported(
    tmp_path: Path, labels: list[int], classes: int, empty: list[int]
) -> None:
    train = write_list(tmp_path, "train", labels * 10)
    record, messages = run(tmp_path, classes, format="imagenet_list", train_list=train)
    assert record["empty_classes"] == empty
    assert [level for level, _ in messages] == ["warning"] * bool(empty)
    assert ("start at 1" in "".join(data_notes(record))) == (0 in empty)


@pytest.mark.parametrize(("labels", "empty"), [([1, 2, 3], [0]), ([1, 3], []), ([0, 1], [])])
def test_of_a_test_split_only_labels_from_one_are_reported(
    tmp_path: Path, labels: list[int], empty: list[int]
) -> None:
    val = write_list(tmp_path, "val", labels * 10)
    assert run(tmp_path, 4, format="imagenet_list", val_list=val)[0]["empty_classes"] == empty


def test_images_in_system_folders_are_counted(tmp_path: Path) -> None:
    save_folders(tmp_path / "train", ["cat", "dog", "@eaDir", "cat/__MACOSX"], 10)
    record, messages = run(tmp_path, format="class_folders", train_dir="train")
    for text in (record["splits"]["train"]["how"], messages[0][1]):
        assert "20" in text
        assert "@eaDir" in text
        assert "__MACOSX" in text


def detector(classes: int, **keys: Any) -> dict[str, Any]:
    shape = [3, 32, 32]
    model = {"name": "yolov3_mobilenet_v1", "classes": classes, "input_shape": shape}
    return {"task": "detection", "model": model, **keys}


def test_scenes_are_packed_with_their_objects(tmp_path: Path) -> None:
    record, _ = run_task(tmp_path, detector(10), format="digit_scenes")
    out = tmp_path / "out/.partial/prepare"
    assert record["class_names"] == list("0123456789")
    assert record["splits"]["train"]["images"] == 20_000
    for name in ("test", "selection", "calibration"):
        packed_images = packed.open_packed(out / f"{name}.bin", (3, 32, 32))
        objects = packed_objects.read(out / f"{name}.bin")
        assert len(objects) == record["splits"][name]["images"] == len(packed_images.labels)
        assert not packed_images.labels.any()
        assert min(map(len, objects)) >= 1
        # A digit is brighter than the background, so its box has the brightest pixels.
        x0, y0, x1, y1 = objects[0].boxes[0].astype(int)
        image = packed_images.images[0]
        assert image[:, y0:y1, x0:x1].max() > image.mean() + image.std()


def test_classes_of_a_list_are_named_by_their_folders(tmp_path: Path) -> None:
    save_folders(tmp_path / "train", ["cat", "dog"], 4)
    lines = [f"train/{name}/{n}.png {label}\n" for label, name in enumerate(("cat", "dog"))
             for n in range(4)]  # fmt: skip
    (tmp_path / "train.txt").write_text("".join(lines))
    given = {"format": "imagenet_list", "train_list": "train.txt"}
    record, _ = run(tmp_path, **given, val_list=write_list(tmp_path, "val", [0, 1]))
    assert record["class_names"] == ["cat", "dog"]


@pytest.mark.parametrize("difficult", [False, True])
def test_a_test_split_without_objects_that_count_is_rejected(
    tmp_path: Path, difficult: bool
) -> None:
    box: object_sets.Box = ("cat", (1, 1, 9, 9), "<difficult>1</difficult>")
    tests = {"e": [box] if difficult else [], "f": []}
    object_sets.voc_tree(tmp_path / "voc", {"train": object_sets.TRAIN, "test": tests})
    model = {"name": "yolov3_mobilenet_v1", "classes": 2, "input_shape": [3, 32, 32]}
    lists = {"train_list": "ImageSets/Main/train.txt", "val_list": "ImageSets/Main/test.txt"}
    with pytest.raises(DataError, match=r"the test split .* has"):
        run_task(tmp_path, {"task": "detection", "model": model}, format="voc", root="voc", **lists)
