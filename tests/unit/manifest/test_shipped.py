import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from job.manifest import entries, load
from job.manifest.schema import SCHEMA_FILE, schema

FOLDER = Path(__file__).parents[3] / "manifests"
FILES = sorted(FOLDER.glob("*.json"))

# The networks of the tutorial's tables.
TUTORIAL = ("mobilenet_v1", "mobilenet_v2", "resnet50", "resnet101", "vgg16", "vgg19")


def test_folder_holds_the_promised_manifests() -> None:
    names = {path.stem for path in FILES}
    imagenet = {f"{model}-imagenet" for model in TUTORIAL}
    assert names >= {"digits", "cifar10", "tutorial-tables", *imagenet}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_manifest_is_valid(path: Path) -> None:
    manifest = load(str(path))
    assert manifest.name == path.stem
    assert manifest.output == f"runs/{path.stem}"
    assert manifest.base == FOLDER


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_editors_find_the_schema_and_agree(path: Path) -> None:
    document = json.loads(path.read_text())
    assert (path.parent / document["$schema"]).resolve() == SCHEMA_FILE.resolve()
    assert list(Draft202012Validator(schema()).iter_errors(document)) == []


@pytest.mark.parametrize("model", TUTORIAL)
def test_tutorials_models_use_imagenet_lists_and_gates(model: str) -> None:
    manifest = load(str(FOLDER / f"{model}-imagenet.json"))
    assert manifest.model.name == model
    assert manifest.model.input_shape == (3, 224, 224)
    assert manifest.model.classes == 1000
    assert manifest.data.format == "imagenet_list"
    assert manifest.gates.max_top1_drop == 0.5
    assert manifest.gates.min_speedup == 2.0


def test_tutorials_tables_need_no_data_and_name_what_was_published() -> None:
    manifest = load(str(FOLDER / "tutorial-tables.json"))
    models = entries(manifest)
    assert sorted(model.model.name or "" for model in models) == sorted(TUTORIAL)
    for model in models:
        assert model.model.name == model.name
        assert (model.model.input_shape, model.model.classes) == ((3, 224, 224), 1000)
        assert (model.data.format, model.train.max_iters) == ("synthetic", 0)
        assert model.benchmark.batch_sizes == (1, 50)
        assert model.benchmark.threads == (1,)
        assert model.benchmark.isa == ("avx512_core_vnni", "all")
    published = [entry.published for entry in manifest.matrix or ()]
    ratios = [
        round(p.int8_images_per_second / p.fp32_images_per_second, 2)
        for p in published
        if p and p.int8_images_per_second and p.fp32_images_per_second
    ]
    # The tutorial prints 3.07 for the last network, from unrounded figures.
    assert ratios == [3.08, 2.39, 3.73, 3.75, 3.04, 3.06]
    changes = [
        round(p.int8_top1 - p.qat_fake_top1, 2)
        for p in published
        if p and p.int8_top1 and p.qat_fake_top1
    ]
    assert changes == [0.06, 0.10, -0.27, -0.09, 0.01, -0.21]


def test_the_voc_manifest_has_the_schedules_of_paddledetection() -> None:
    manifest = load(str(FOLDER / "yolov3_mobilenet_v1_voc.json"))
    fp32, qat = manifest.baseline.train, manifest.train
    for train, steps, rate, milestones in (
        (fp32, 70_000, 0.001, [55_000, 62_000]),
        (qat, 30_000, 0.0001, [10_000]),
    ):
        assert (train.max_iters, train.base_lr, train.schedule.gamma) == (steps, rate, 0.1)
        assert [share * steps for share in train.schedule.milestones] == pytest.approx(milestones)
        assert (train.optimizer, train.momentum, train.weight_decay) == ("momentum", 0.9, 0.0005)
    assert fp32.schedule.warmup_fraction * 70_000 == pytest.approx(1000)
    changed = load(
        str(FOLDER / "yolov3_mobilenet_v1_voc.json"),
        ["train.max_iters=9", "baseline.train.base_lr=0.01", "detection.nms_threshold=0.5"],
    )
    assert (changed.train.max_iters, changed.baseline.train.base_lr) == (9, 0.01)
    assert changed.detection.nms_threshold == 0.5
