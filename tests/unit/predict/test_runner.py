"""Checks of the tester before it starts a child process, and its JSON object."""

from dataclasses import replace
from pathlib import Path

import pytest

from job.errors import DataError, MachineError
from job.predict import runner
from job.predict.runner import Trial, find_model
from job.ui.choose import make_ui


def model(prefix: Path) -> Path:
    for suffix in (".pdmodel", ".pdiparams"):
        Path(f"{prefix}{suffix}").write_bytes(b"")
    return prefix


def test_a_model_is_found_by_folder_prefix_and_file(tmp_path: Path) -> None:
    prefix = model(tmp_path / "resnet.v1")
    for given in (
        tmp_path,
        prefix,
        tmp_path / "resnet.v1.pdmodel",
        tmp_path / "resnet.v1.pdiparams",
    ):
        assert find_model(given) == prefix


def test_a_model_of_paddle_3_is_found(tmp_path: Path) -> None:
    for name in ("config.json", "inference.json", "inference.pdiparams"):
        (tmp_path / name).write_bytes(b"")
    for given in ("", "inference", "inference.json", "inference.pdiparams"):
        assert find_model(tmp_path / given) == tmp_path / "inference"


@pytest.mark.parametrize(
    ("files", "given", "message"),
    [
        ((), "", r"\.pdmodel.*none"),
        (("a.pdmodel", "b.pdmodel"), "", r"\.pdmodel.*a\.pdmodel, b\.pdmodel"),
        (("a.pdmodel",), "", r"/a\.pdiparams"),
        ((), "a", r"/a\.pdmodel"),
        (("__model__", "model.json"), "", r"__model__"),
    ],
)
def test_a_missing_model_is_named(
    tmp_path: Path, files: tuple[str, ...], given: str, message: str
) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=message):
        find_model(tmp_path / given)


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    (tmp_path / "data.bin").write_bytes(b"")
    return Trial(infer_model=model(tmp_path / "model"), infer_data=tmp_path / "data.bin")


def test_missing_data_is_named(trial: Trial, tmp_path: Path) -> None:
    with make_ui("text") as ui, pytest.raises(DataError, match=r"none\.bin"):
        runner.predict(replace(trial, infer_data=tmp_path / "none.bin"), ui)


def test_each_thread_needs_a_core(trial: Trial) -> None:
    with make_ui("text") as ui, pytest.raises(MachineError, match=r"--num-threads: .*5000 threads"):
        runner.predict(replace(trial, num_threads=5000), ui)


def test_the_document_counts_and_divides(trial: Trial) -> None:
    result = {
        "images": 57,
        "iterations": 6,
        "top1": 30,
        "top5": None,
        "milliseconds": [1.0, 4.0, 2.0, 3.0, 10.0],
        "kind": "int8",
        "classes": 8,
        "input_shape": [1, 8, 8],
        "accuracy_layer": True,
        "file_images": 60,
        "batch_size": 10,
        "load_seconds": 0.5,
        "paddle": "3.2.2",
    }
    document = runner.document(trial, result)
    assert document["accuracy"] == {
        "images": 57,
        "top1_correct": 30,
        "top5_correct": None,
        "top1": 100 * 30 / 57,
        "top5": None,
    }
    assert document["speed"] == {
        "images_per_second": 1000 * 50 / 20,
        "latency_ms": {"p50": 3.0, "p90": 10.0, "p99": 10.0},
        "calls": 5,
        "load_seconds": 0.5,
    }
