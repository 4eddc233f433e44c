"""``job init`` writes a valid manifest, or names what is missing."""

import json
import shlex
import tarfile
from pathlib import Path

import numpy as np
import object_sets
import pytest
import torch_files
from moto_server import S3Server
from typer.testing import CliRunner

from job.api.execution import load_with_output
from job.cli.init_model import (
    assumed_keys,
    check_order,
    preprocessed_shape,
    preprocessing_of,
)
from job.cli.main import app
from job.errors import DataError, UsageError
from job.manifest import load
from job.uri import S3Uri, on_server


def images(folder: Path, *names: str) -> None:
    """Write each image, and a copy, because a data set of two images has too few for its splits."""
    for path in (folder / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        for copy in (path, path.with_stem(f"{path.stem}-copy")):
            copy.write_bytes(b"")


def init(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> str:
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, ["init", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def dry_run() -> None:
    """Plan the manifest m.json of the current folder."""
    done = CliRunner().invoke(app, ["run", "m.json", "--dry-run"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (("cat/1.jpg", "dog/2.png", ".git/x.jpg"), {"train_dir": "."}),
        (("photos/cat/1.jpg", "photos/dog/2.jpg"), {"train_dir": "photos"}),
        (
            ("train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg", "val/dog/4.jpg"),
            {"train_dir": "train", "val_dir": "val"},
        ),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_class_folders(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...],
    keys: dict[str, str],
    packed: bool,
) -> None:
    images(tmp_path / "d", *names)
    data = "d"
    if packed:
        data = "d.tar"
        with tarfile.open(tmp_path / data, "w") as archive:
            archive.add(tmp_path / "d", arcname=".")
    init(monkeypatch, tmp_path, "--data", data)
    manifest = load("m.json")
    assert manifest.model.classes == 2
    assert manifest.data.format == "class_folders"
    assert manifest.path(str(manifest.data.root)) == tmp_path / data
    for key in ("train_dir", "val_dir"):
        assert getattr(manifest.data, key) == keys.get(key)
    dry_run()


def test_lists_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images(tmp_path / "d", "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "d/train_list.txt").write_text("a.jpg 0\nb.jpg 2\n")
    (tmp_path / "d/val_list.txt").write_text("c.jpg 1\n")
    torch_files.save(tmp_path / "w.pth", {"classifier.6.weight": np.zeros((3, 8), "float32")})
    init(monkeypatch, tmp_path, "--data", "d", "--model", "vgg11", "--weights", "w.pth")
    manifest = load("m.json")
    assert (manifest.model.name, manifest.model.weights) == ("vgg11", "w.pth")
    assert manifest.name == "job-d"
    assert (manifest.model.classes, manifest.data.val_list) == (3, "val_list.txt")


@pytest.mark.parametrize(("inputs", "classes"), [(512, 2), (512, 1000), (2, 1000)])
def test_weights_for_other_classes_are_fine_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: int, classes: int
) -> None:
    images(tmp_path / "d", "cat/1.jpg", "dog/2.jpg")
    weights = {
        "fc.weight": np.zeros((classes, inputs), "float32"),
        "fc.bias": np.zeros(classes, "float32"),
    }
    torch_files.save(tmp_path / "w.pth", weights)
    init(monkeypatch, tmp_path, "--data", "d", "--weights", "w.pth")
    manifest = load("m.json")
    assert manifest.model.reset_classifier == (classes != 2)
    assert manifest.baseline.train.has_steps == (classes != 2)


def test_weights_that_cannot_be_read_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(tmp_path / "d", "cat/1.jpg", "dog/2.jpg")
    (tmp_path / "w.onnx").write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x052.0.0")
    for option in ("--weights", "--inference-model"):
        with pytest.raises(DataError, match=r"w\.onnx: .*ONNX"):
            init(monkeypatch, tmp_path, "--data", "d", option, "w.onnx")
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize("option", ["--weights", "--inference-model"])
@pytest.mark.parametrize("name", ["none", "empty"])
def test_a_model_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, name: str
) -> None:
    images(tmp_path / "d", "cat/1.jpg", "dog/2.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=name):
        init(monkeypatch, tmp_path, "--data", "d", option, name)
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize(
    ("names", "error"),
    [
        ((), DataError),
        (("readme.txt",), DataError),
        (("cat/1.jpg",), DataError),
        (("1.jpg", "cat/2.jpg"), DataError),
        (("train/cat/1.jpg", "val/cat/1.jpg"), DataError),
        (("cat/1.jpg", "dog/1.jpg", "elk/readme.txt"), DataError),
        (("Annotations/1.xml", "JPEGImages/1.jpg"), DataError),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], error: type[Exception]
) -> None:
    (tmp_path / "d").mkdir()
    images(tmp_path / "d", *names)
    with pytest.raises(error, match="--data d: "):
        init(monkeypatch, tmp_path, "--data", "d")
    assert not (tmp_path / "m.json").exists()


def test_too_few_images_for_the_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images(tmp_path / "d", "cat/1.jpg", "dog/2.jpg")
    for copy in (tmp_path / "d").rglob("*-copy.jpg"):
        copy.unlink()
    with pytest.raises(DataError, match="2 images"):
        init(monkeypatch, tmp_path, "--data", "d")
    assert not (tmp_path / "m.json").exists()


def test_any_name_of_data_and_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images(tmp_path / "Meine Fotos ä 写真", "große Katze/1.jpg", "Hund's/2.jpg")
    (tmp_path / "o p").mkdir()
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(
        app, ["init", "--data", "Meine Fotos ä 写真", "--output", "o p/m.json"]
    )
    assert done.exit_code == 0, done.output
    (run,) = [line for line in done.output.splitlines() if line.startswith("Run: ")]
    command = shlex.split(run.removeprefix("Run: job "))
    assert command[:2] == ["run", "o p/m.json"]
    assert "../Meine Fotos ä 写真" in (tmp_path / "o p/m.json").read_text()
    done = CliRunner().invoke(app, [*command, "--dry-run"])
    assert done.exit_code == 0, done.output


def test_results_never_become_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images(tmp_path / "d", "cat/1.jpg", "dog/2.jpg")
    with pytest.raises(UsageError, match="runs/job-d"):
        init(monkeypatch, tmp_path / "d", "--data", ".")
    init(monkeypatch, tmp_path, "--data", "d")
    for output in ("d/out", "d/cat/out", str(tmp_path / "d")):
        with pytest.raises(UsageError, match="/data/train_dir"):
            load_with_output("m.json", (), output)
    assert load_with_output("m.json", (), "data-out")[1] == Path("data-out")


def test_a_missing_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="none"):
        init(monkeypatch, tmp_path, "--data", "none")


def test_the_example_runs_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init(monkeypatch, tmp_path, "--example", "digits")
    assert load("m.json").resolved == load("digits").resolved
    schema = json.loads((tmp_path / "m.json").read_text())["$schema"]
    assert Path(schema.removeprefix("file://")).is_file()
    with pytest.raises(UsageError, match=r"m\.json"):
        init(monkeypatch, tmp_path, "--example", "digits")


def test_preprocessing_of_an_export(tmp_path: Path) -> None:
    (tmp_path / "inference.yml").write_text(
        "PreProcess:\n  transform_ops:\n  - ResizeImage: {resize_short: 256}\n"
        "  - CropImage: {size: 240}\n"
        "  - NormalizeImage: {mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2], order: ''}\n"
    )
    assert preprocessed_shape(tmp_path) == [3, 240, 240]
    assert preprocessing_of(tmp_path) == {
        "resize_short": 256,
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
    }
    (tmp_path / "inference.yml").write_text(
        "PreProcess:\n  transform_ops:\n  - ResizeImage: {size: [320, 224]}\n"
    )
    assert preprocessed_shape(tmp_path) == [3, 224, 320]
    assert preprocessing_of(tmp_path) == {"resize_short": None}
    (tmp_path / "inference.yml").write_text("PreProcess:\n  transform_ops:\n  - ToCHWImage: null\n")
    assert preprocessed_shape(tmp_path) is None
    (tmp_path / "inference.yml").write_text("a: !!python/object/apply:os.getpid []\n")
    with pytest.raises(DataError, match=r"inference\.yml"):
        preprocessing_of(tmp_path)


def test_values_that_an_export_does_not_contain_are_named(tmp_path: Path) -> None:
    every = ["model.input_shape", "data.mean", "data.std", "data.resize_short"]
    assert assumed_keys(tmp_path) == every
    (tmp_path / "inference.yml").write_text(
        "PreProcess:\n  transform_ops:\n  - CropImage: {size: 224}\n"
        "  - NormalizeImage: {mean: [0.5], std: [0.5]}\n"
    )
    assert assumed_keys(tmp_path) == ["data.resize_short"]


def test_the_classes_of_an_export_have_the_order_of_the_folders(tmp_path: Path) -> None:
    text = "PostProcess:\n  Topk:\n    label_list: [dog, cat]\n"
    (tmp_path / "inference.yml").write_text(text)
    with pytest.raises(UsageError, match="dog, cat"):
        check_order(tmp_path, ("cat", "dog"))
    check_order(tmp_path, ("dog", "cat"))
    # The names in the export may be others, such as words in another language.
    check_order(tmp_path, ("Hund", "Katze"))
    (tmp_path / "inference.yml").unlink()
    check_order(tmp_path, ("cat", "dog"))


@pytest.mark.parametrize("packed", [False, True])
def test_class_folders_in_s3(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bucket: S3Uri,
    s3_server: S3Server,
    packed: bool,
) -> None:
    images(tmp_path / "d", "train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg", "val/dog/4.jpg")
    data = bucket / "photos"
    if packed:
        data = bucket / "d.tar"
        with tarfile.open(tmp_path / "d.tar", "w") as archive:
            archive.add(tmp_path / "d", arcname=".")
        s3_server.store.put(data, (tmp_path / "d.tar").read_bytes())
    else:
        for path in (tmp_path / "d").rglob("*.jpg"):
            name = path.relative_to(tmp_path / "d").as_posix()
            s3_server.store.put(data / name, path.read_bytes())
    init(monkeypatch, tmp_path, "--data", str(data))
    manifest = load("m.json")
    assert manifest.data.root == str(data)
    dry_run()
    assert (manifest.model.classes, manifest.data.train_dir, manifest.data.val_dir) == (
        2,
        "train",
        "val",
    )


def test_lists_in_s3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: S3Uri, s3_server: S3Server
) -> None:
    s3_server.store.put(bucket / "d/train_list.txt", b"a.jpg 0\nb.jpg 2\n")
    init(monkeypatch, tmp_path, "--data", str(bucket / "d"))
    manifest = load("m.json")
    assert (manifest.model.classes, manifest.data.train_list) == (3, "train_list.txt")


def test_nothing_in_s3_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: S3Uri, s3_server: S3Server
) -> None:
    for place in (bucket / "none", bucket / "none.tar", S3Uri("no-such-bucket-21", "d")):
        with pytest.raises(DataError, match=str(place)):
            init(monkeypatch, tmp_path, "--data", str(place))
    with pytest.raises(UsageError, match="uncompressed"):
        init(monkeypatch, tmp_path, "--data", str(bucket / "d.tar.gz"))
    broken = bucket / "broken.tar"
    s3_server.store.put(broken, b"no tar file")
    with pytest.raises(DataError, match=on_server(broken, s3_server.url)):
        init(monkeypatch, tmp_path, "--data", str(broken))
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_a_voc_data_set_gives_a_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    sets = {"train": object_sets.TRAIN, "test": object_sets.TEST}
    object_sets.voc_tree(tmp_path / "VOC2007", sets)
    data = "VOC2007"
    if packed:
        data = "voc.tar.gz"
        with tarfile.open(tmp_path / data, "w:gz") as archive:
            archive.add(tmp_path / "VOC2007", arcname="VOC2007")
    assert "job anchors m.json" in init(monkeypatch, tmp_path, "--data", data)
    manifest = load("m.json")
    top = "VOC2007/" * packed
    assert manifest.task == "detection"
    assert (manifest.model.name, manifest.model.classes) == ("yolov3_mobilenet_v1", 2)
    assert manifest.detection.class_names == ("cat", "dog")
    assert manifest.data.train_list == f"{top}ImageSets/Main/train.txt"
    assert manifest.data.val_list == f"{top}ImageSets/Main/test.txt"


def test_of_two_years_the_one_with_both_splits_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = {"trainval": object_sets.TRAIN, "test": object_sets.TEST}
    object_sets.voc_tree(tmp_path / "d/VOC2012", sets)
    object_sets.voc_tree(tmp_path / "d/VOC2007", {"trainval": {"x": [("cow", (1, 1, 9, 9), "")]}})
    printed = init(monkeypatch, tmp_path, "--data", "d")
    manifest = load("m.json")
    assert manifest.data.train_list == "VOC2012/ImageSets/Main/trainval.txt"
    assert manifest.detection.class_names == ("cat", "dog")
    assert "VOC2007/ImageSets/Main/trainval.txt" in printed


def test_a_built_in_detector_needs_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_sets.voc_tree(tmp_path / "d", {"test": object_sets.TEST})
    with pytest.raises(DataError, match="training images"):
        init(monkeypatch, tmp_path, "--data", "d")
    assert not (tmp_path / "m.json").exists()


def test_a_classifier_cannot_be_trained_on_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_sets.voc_tree(tmp_path / "d", {"train": object_sets.TRAIN})
    with pytest.raises(UsageError, match="--model resnet18"):
        init(monkeypatch, tmp_path, "--data", "d", "--model", "resnet18")


def test_a_detector_needs_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images(tmp_path / "photos", *(f"{kind}/{n}.png" for kind in "ab" for n in range(9)))
    with pytest.raises(UsageError, match="--model yolov3_mobilenet_v1"):
        init(monkeypatch, tmp_path, "--data", "photos", "--model", "yolov3_mobilenet_v1")
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "found neither"),
        (("--data", "photos", "--example", "digits"), "found both"),
        (("--example", "digits", "--output", "none/m.json"), "none does not exist"),
    ],
)
def test_wrong_options_are_named(
    arguments: tuple[str, ...], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=named):
        init(monkeypatch, tmp_path, *arguments)


def test_voc_in_s3_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: S3Uri, s3_server: S3Server
) -> None:
    s3_server.store.put(bucket / "VOC2007/Annotations/1.xml", b"<annotation/>")
    s3_server.store.put(bucket / "VOC2007/JPEGImages/1.jpg", b"")
    with pytest.raises(UsageError, match="copy on this machine"):
        init(monkeypatch, tmp_path, "--data", str(bucket / "VOC2007"))
