"""Each data format through the pipeline, bad images included."""

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import Run, draw_images, job, record_of, report_of, write_manifest

from job.data import packed

pytestmark = pytest.mark.e2e

COLOUR = {"name": "convnet", "classes": 3, "input_shape": [3, 8, 8], "width": 0.5}
SHORT = {"train": {"max_iters": 4, "batch_size": 8}}
PLAIN = {"crop": "none", "flip": True}


def of_images(folder: Path, data: dict[str, Any], **parts: Any) -> None:
    """A manifest for coloured images of three classes."""
    data = {"augment": PLAIN, **data}
    train = {"max_iters": 3, "batch_size": 8}
    write_manifest(folder, model=COLOUR, data=data, baseline=SHORT, train=train, **parts)


def folders(folder: Path) -> dict[str, Any]:
    draw_images(folder / "images/train", 16)
    draw_images(folder / "images/test", 6)
    data = {"format": "class_folders", "root": "images", "train_dir": "train", "val_dir": "test"}
    of_images(folder, data)
    return data


def planned(folder: Path) -> dict[str, dict[str, Any]]:
    """The plan of each stage."""
    plan = job("run", "m.json", "--dry-run", "--log-format", "json", cwd=folder)
    return {stage["stage"]: stage for stage in map(json.loads, plan.out.splitlines())}


class TestClassFolders:
    @pytest.mark.full
    @pytest.mark.usefixtures("needs_vnni")
    def test_whole_run_with_bad_images(self, tmp_path: Path) -> None:
        folders(tmp_path)
        in_test = tmp_path / "images/test/class1/002.png"
        in_test.write_bytes(in_test.read_bytes()[:90])
        in_training = tmp_path / "images/train/class2/003.png"
        in_training.write_text("no image")
        refused = job("run", "m.json", "--until", "baseline", cwd=tmp_path, expect=4)
        assert "data.max_bad_fraction" in refused.err
        assert "train/class2/003.png" in refused.err
        done = job("run", "m.json", "--set", "data.max_bad_fraction=0.5", cwd=tmp_path)
        assert "Table II" in done.out
        data = report_of(tmp_path / "out")["data"]
        bad = {image["path"]: image["reason"] for image in data["bad_images"]}
        assert set(bad) == {"test/class1/002.png", "train/class2/003.png"}
        assert data["splits"]["test"]["images"] == 17
        assert "train/class2/003.png" in (tmp_path / "out/report.md").read_text()

    @pytest.mark.full
    @pytest.mark.parametrize("suffix", ["tar.gz", "zip"])
    def test_archives(self, tmp_path: Path, suffix: str) -> None:
        data = folders(tmp_path)
        archive = tmp_path / f"images.{suffix}"
        if suffix == "zip":
            with zipfile.ZipFile(archive, "w") as zipped:
                for path in sorted((tmp_path / "images").rglob("*.png")):
                    zipped.write(path, path.relative_to(tmp_path / "images"))
        else:
            with tarfile.open(archive, "w:gz") as tar:
                for path in ("train", "test"):
                    tar.add(tmp_path / "images" / path, path)
        plain = job("run", "m.json", "--until", "prepare", "--output", "plain", cwd=tmp_path)
        assert plain.code == 0
        shutil.rmtree(tmp_path / "images")
        of_images(tmp_path, {**data, "root": archive.name})
        job("run", "m.json", "--until", "prepare", cwd=tmp_path)
        for name in ("test.bin", "selection.bin", "calibration.bin"):
            one, other = tmp_path / "plain/data" / name, tmp_path / "out/data" / name
            assert one.read_bytes() == other.read_bytes()
        archive.write_bytes(archive.read_bytes()[:-200])
        damaged = job("run", "m.json", "--until", "prepare", cwd=tmp_path, expect=4)
        assert f"{archive}: " in damaged.err

    @pytest.mark.full
    def test_changed_images(self, tmp_path: Path) -> None:
        """Only what is read counts: neither the output nor the manifest beside the images."""
        draw_images(tmp_path / "train", 16)
        draw_images(tmp_path / "test", 6)
        data = {"format": "class_folders", "train_dir": "train", "val_dir": "test"}
        of_images(tmp_path, data)
        job("run", "m.json", "--until", "prepare", cwd=tmp_path)
        assert planned(tmp_path)["prepare"]["action"] == "reuse"
        (tmp_path / "train/class0/000.png").unlink()
        stages = planned(tmp_path)
        assert {stage["action"] for stage in stages.values()} == {"run"}
        assert stages["prepare"]["reason"].startswith("train ")


@pytest.mark.full
def test_distillation_on_images_without_labels(tmp_path: Path) -> None:
    draw_images(tmp_path / "photos", 16)
    draw_images(tmp_path / "test", 6)
    data = {"format": "class_folders", "train_dir": "photos", "val_dir": "test"}
    write_manifest(
        tmp_path,
        model=COLOUR | {"random_weights": True},
        data={"augment": PLAIN, "train_labels": False, **data},
        baseline={"train": {"max_iters": 0}},
        train={"max_iters": 3, "batch_size": 8},
    )
    job("run", "m.json", "--until", "qat", cwd=tmp_path)
    splits = record_of(tmp_path / "out", "data")["splits"]
    assert [splits[name]["images"] for name in ("train", "selection", "test")] == [48, 2, 16]
    training = record_of(tmp_path / "out", "qat")["training"]
    assert (training["selected_by"], training["steps"]) == ("divergence", 3)


class TestImagenetList:
    def test_until_baseline(self, tmp_path: Path) -> None:
        root = tmp_path / "imagenet"
        for name, count in (("train", 16), ("val", 6)):
            names = draw_images(root / name, count, suffix="JPEG")
            lines = [f"{name}/{path} {path[5]}\n" for path in names]
            (root / f"{name}_list.txt").write_text("".join(lines))
        lists = {"train_list": "train_list.txt", "val_list": "val_list.txt"}
        data = {"format": "imagenet_list", "root": "imagenet", "resize_short": 9, **lists}
        of_images(tmp_path, data)
        job("run", "m.json", "--until", "baseline", cwd=tmp_path)
        splits = record_of(tmp_path / "out", "data")["splits"]
        assert (splits["test"]["images"], splits["train"]["images"]) == (18, 43)
        assert record_of(tmp_path / "out", "fp32")["training"]["steps"] == 4
        missing = root / "train/class0/001.JPEG"
        missing.unlink()
        gone = job("run", "m.json", "--until", "baseline", cwd=tmp_path, expect=4)
        assert "train/class0/001.JPEG" in gone.err


@pytest.mark.full
class TestPacked:
    @pytest.fixture
    def folder(self, tmp_path: Path, copy_until: Callable[..., Run]) -> Path:
        """The digits in packed files."""
        digits = copy_until("data").output / "data"
        shutil.copy(digits / "calibration.bin", tmp_path / "train.bin")
        shutil.copy(digits / "test.bin", tmp_path / "val.bin")
        files = {"train_file": "train.bin", "val_file": "val.bin"}
        write_manifest(tmp_path, data={"format": "packed", **files})
        return tmp_path

    @pytest.mark.usefixtures("needs_vnni")
    def test_until_accuracy(self, folder: Path) -> None:
        job("run", "m.json", "--until", "accuracy", cwd=folder)
        assert record_of(folder / "out", "accuracy")["images"] == 359
        content = packed.open_packed(folder / "val.bin", (1, 8, 8))
        images, labels = np.array(content.images), np.array(content.labels)
        labels[0] = (labels[0] + 1) % 10
        packed.write(folder / "val.bin", [(images, labels)], shape=(1, 8, 8), transform="as is")
        stages = planned(folder)
        assert stages["prepare"]["reason"].startswith("val.bin ")
        assert stages["accuracy"]["action"] == "run"

    def test_truncated(self, folder: Path) -> None:
        path = folder / "val.bin"
        path.write_bytes(path.read_bytes()[:-1000])
        done = job("run", "m.json", cwd=folder, expect=4)
        for name in (f"{path}: ", "94,784 bytes", "359 images"):
            assert name in done.err

    def test_label_outside_the_classes(self, folder: Path) -> None:
        done = job("run", "m.json", "--set", "model.classes=5", cwd=folder, expect=4)
        assert "0 to 4" in done.err
        assert "model.classes" in done.err


@pytest.mark.full
def test_post_training_quantization(copy: Run) -> None:
    post = ("--set", "quantize.strategy=post", "--until", "accuracy")
    done = job("run", "m.json", *post, "--log-format", "json", cwd=copy.folder)
    assert done.of("stage_started") == ["qat", "convert", "int8", "accuracy"]
    accuracy = record_of(copy.output, "accuracy")
    assert accuracy["int8"]["top1"] > accuracy["fp32"]["top1"] - 5
    assert record_of(copy.output, "int8")["int8_ops"] > 0
