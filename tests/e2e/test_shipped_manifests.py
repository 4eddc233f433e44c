"""Every manifest of the project passes ``--dry-run`` with its files faked."""

import json
import tarfile
from pathlib import Path

import pytest
from tiny_run import STAGES, job

pytestmark = pytest.mark.e2e

MANIFESTS = sorted((Path(__file__).parents[2] / "manifests").glob("*.json"))


def fake_inputs(document: dict[str, dict[str, str]], folder: Path) -> list[str]:
    """Make what a manifest reads; returns the options that point there."""
    data, model = document["data"], document["model"]
    pointers = {}
    if data["format"] == "imagenet_list":
        root = folder / "images"
        root.mkdir()
        for name in (data["train_list"], data["val_list"]):
            (root / name).write_text("a.JPEG 0\nb.JPEG 999\n")
        pointers["data.root"] = root
    if data["format"] == "class_folders":
        pointers["data.root"] = folder / Path(data["root"]).name
        with tarfile.open(pointers["data.root"], "w:gz"):
            pass
    if "weights" in model:
        pointers["model.weights"] = folder / "w.pdparams"
        pointers["model.weights"].write_bytes(b"weights")
    return [text for key, path in pointers.items() for text in ("--set", f"{key}={path}")]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_dry_run(path: Path, tmp_path: Path) -> None:
    options = fake_inputs(json.loads(path.read_bytes()), tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = ("run", path, *options, "--output", "out", "--dry-run", "--log-format", "json")
    done = job(*arguments, cwd=empty)
    planned = [json.loads(line) for line in done.out.splitlines()]
    models = len(json.loads(path.read_bytes()).get("matrix", [None]))
    assert [stage["stage"] for stage in planned] == models * [*STAGES, "report"]
    assert all(stage["action"] == "run" and not stage["missing"] for stage in planned)
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_missing_files_are_named(path: Path, tmp_path: Path) -> None:
    if json.loads(path.read_bytes())["data"]["format"] in ("digits", "synthetic"):
        pytest.skip("reads no files")
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    done = job("run", path.name, "--dry-run", cwd=tmp_path, expect=4)
    assert done.err.startswith("error: ")
    assert str(tmp_path) in done.err
