import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from job.manifest import load
from job.manifest_schema import SCHEMA_FILE, schema

FOLDER = Path(__file__).parents[2] / "manifests"
FILES = sorted(FOLDER.glob("*.json"))

# The models of the tutorial's tables
TUTORIAL = ("mobilenet_v1", "mobilenet_v2", "resnet50", "resnet101", "vgg16", "vgg19")


def test_folder_holds_the_promised_manifests() -> None:
    names = {path.stem for path in FILES}
    assert names >= {"digits", "cifar10", *(f"{model}-imagenet" for model in TUTORIAL)}


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
