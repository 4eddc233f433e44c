"""Time estimates of a plan: pure functions of the manifest, the images and the speeds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_manifest import check, document

from job.data.splits import split
from job.errors import DataError
from job.host import read_host
from job.manifest.schema import schema
from job.pipeline.estimate import Speeds, estimates, rough_speeds, total_of
from job.pipeline.network_work import NETWORKS, work_of
from job.pipeline.workload import Images, Training, count_images, training_of

HOST = replace(read_host(), flags=(), affinity=2, quota_cores=None)
SPEEDS = Speeds(forward=0.01, train=0.1, decode=0.004, layers=20, measured=True)
IMAGES = Images(train=640, calibration=100, selection=64, test=128)


def seconds(stage: str, *, speeds: Speeds = SPEEDS, images: Images = IMAGES, **keys: Any) -> float:
    found = estimates(check(document(**keys)), images, speeds, HOST)[stage]
    assert found.seconds is not None
    return found.seconds


def test_every_network_has_its_work() -> None:
    names = schema()["properties"]["model"]["properties"]["name"]["enum"]
    assert set(NETWORKS) == {name for name in names if name}


def test_a_probe_does_not_measure_the_training_of_a_detector() -> None:
    speeds = replace(SPEEDS, train=None)
    keys = {"baseline__train__epochs": 1}
    assert estimates(check(document(**keys)), IMAGES, speeds, HOST)["baseline"].unknown


def test_work_grows_with_the_area_and_the_width() -> None:
    def work(**keys: Any) -> float:
        found = work_of(check(document(**keys)).model)
        assert found is not None
        return found.multiplications

    small = work(model__name="resnet18", model__input_shape=[3, 112, 112])
    assert work(model__name="resnet18", model__input_shape=[3, 224, 224]) == pytest.approx(
        4 * small
    )
    assert work(model__width=2.0) == pytest.approx(4 * work())


def test_steps_of_a_training() -> None:
    train = check(document(train__epochs=3, train__batch_size=64)).train
    assert training_of(train, IMAGES) == Training(30, 64, 3 * train.evaluations_per_epoch)
    limited = check(document(train__max_iters=7, train__batch_size=1000)).train
    assert training_of(limited, IMAGES).steps == 7
    assert training_of(limited, IMAGES).batch_size == 640


@pytest.mark.parametrize(
    ("stage", "less", "more"),
    [
        ("baseline", {"baseline__train__epochs": 1}, {"baseline__train__epochs": 2}),
        ("qat", {"quantize__strategy": "post"}, {"quantize__strategy": "aware"}),
        ("calibrate", {"quantize__weight_rounding": "nearest"}, {}),
        ("benchmark", {"benchmark__batch_sizes": [1]}, {"benchmark__batch_sizes": [1, 50]}),
        ("benchmark", {"benchmark__min_seconds": 1}, {"benchmark__min_seconds": 10}),
    ],
)
def test_settings_change_the_time_of_their_stage(
    stage: str, less: dict[str, Any], more: dict[str, Any]
) -> None:
    assert seconds(stage, **less) < seconds(stage, **more)


def test_larger_training_images_take_longer() -> None:
    def training(sizes: list[int] | None) -> float:
        return seconds(
            "baseline",
            task="detection",
            model={"name": "yolov3_mobilenet_v1", "classes": 10, "input_shape": [3, 96, 96]},
            data={"format": "digit_scenes"},
            detection={"augment": {"sizes": sizes}},
            baseline={"train": {"max_iters": 1000}},
        )

    assert training([64, 96]) < training([96]) == training(None) < training([96, 128])


@pytest.mark.parametrize("stage", ["prepare", "accuracy", "calibrate", "baseline"])
def test_more_images_take_longer(stage: str) -> None:
    twice = Images(*(2 * count for count in vars(IMAGES).values()))
    keys = {"baseline__train__epochs": 2}
    assert seconds(stage, **keys) < seconds(stage, images=twice, **keys)


def test_what_is_unknown_is_named() -> None:
    manifest = check(document(model__name=None, model__inference_model="net"))
    speeds = rough_speeds(manifest, HOST)
    found = estimates(manifest, IMAGES, speeds, HOST)
    for stage in ("calibrate", "accuracy"):
        assert found[stage].seconds is None
        assert "--probe" in found[stage].unknown
    # The images are known, and so is the shortest time of the benchmark.
    assert found["prepare"].unknown == ""
    assert found["benchmark"].seconds
    total = total_of(tuple(found.values()))
    assert total.unknown.count("--probe") == 1
    without = estimates(manifest, None, SPEEDS, HOST, why="inputs are missing")
    assert without["prepare"].seconds is None
    assert "inputs are missing" in without["prepare"].unknown


def test_the_search_of_a_fallback_has_a_limit() -> None:
    keys = {"quantize__fallback": {"max_top1_drop": 1.0, "max_minutes": 7}}
    found = estimates(check(document(**keys)), IMAGES, SPEEDS, HOST)["int8"]
    assert "7 min" in found.unknown


def test_the_digits_are_counted_without_loading_them() -> None:
    manifest = check(
        document(
            data={"format": "digits", "mean": [0.5], "std": [0.5]},
            model__classes=10,
            model__input_shape=[1, 8, 8],
        )
    )
    parts = split(manifest.data, 10, (1, 8, 8), manifest.path, Path("none"))
    real = (parts.train, parts.calibration, parts.selection, parts.test)
    assert count_images(manifest) == Images(*(len(part) for part in real))


def test_an_archive_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "d.tar").write_bytes(b"")
    manifest = check(document(data__root=str(tmp_path / "d.tar")))
    with pytest.raises(DataError, match="unpacked"):
        count_images(manifest)
    assert [path.name for path in tmp_path.iterdir()] == ["d.tar"]
