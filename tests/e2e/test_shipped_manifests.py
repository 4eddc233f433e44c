"""Every manifest of the project passes ``--dry-run`` with its files faked."""

import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tiers import full_but
from tiny_run import STAGES, job

from job.manifest.spec import BUILT_IN

pytestmark = pytest.mark.e2e

FOLDER = Path(__file__).parents[2] / "manifests"
CHOSEN = {"cifar10", "tutorial-tables"}
MANIFESTS = full_but(sorted(path.stem for path in FOLDER.glob("*.json")), CHOSEN)


def fake_inputs(document: dict[str, dict[str, str]], folder: Path) -> list[str]:
    """Make what a manifest reads; returns the options that point there."""
    data, model = document["data"], document["model"]
    pointers = {}
    packed = data.get("root", "").endswith(".tar.gz")
    if data["format"] in ("imagenet_list", "voc") and not packed:
        root = folder / "images"
        root.mkdir()
        for name in (data["train_list"], data["val_list"]):
            (root / name).write_text("a.JPEG 0\nb.JPEG 999\n")
        pointers["data.root"] = root
    if packed:
        pointers["data.root"] = folder / Path(data["root"]).name
        with tarfile.open(pointers["data.root"], "w:gz"):
            pass
    if "weights" in model:
        pointers["model.weights"] = folder / "w.pdparams"
        pointers["model.weights"].write_bytes(pickle.dumps({"w": np.zeros(1, "float32")}))
    return [text for key, path in pointers.items() for text in ("--set", f"{key}={path}")]


@pytest.mark.parametrize("name", MANIFESTS)
def test_dry_run(name: str, tmp_path: Path) -> None:
    path = FOLDER / f"{name}.json"
    options = fake_inputs(json.loads(path.read_bytes()), tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = ("run", path, *options, "--output", "out", "--dry-run", "--log-format", "json")
    done = job(*arguments, cwd=empty)
    planned = [json.loads(line) for line in done.out.splitlines()]
    models = len(json.loads(path.read_bytes()).get("matrix", [None]))
    # The shipped manifests have the default engines, and the tiny run has oneDNN only.
    at = STAGES.index("accuracy")
    stages = [*STAGES[:at], "paddle_openvino", *STAGES[at:], "report"]
    assert [stage["stage"] for stage in planned] == models * stages
    assert all(stage["action"] == "run" and not stage["missing"] for stage in planned)
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("name", MANIFESTS)
def test_missing_files_are_named(name: str, tmp_path: Path) -> None:
    path = FOLDER / f"{name}.json"
    if json.loads(path.read_bytes())["data"]["format"] in BUILT_IN:
        pytest.skip("reads no files")
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    done = job("run", path.name, "--dry-run", cwd=tmp_path, expect=4)
    assert done.err.startswith("error: ")
    assert str(tmp_path) in done.err
