"""A network of the user's own, which runs code and is therefore not run unasked."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import MANIFEST, Run, job, write_manifest

pytestmark = pytest.mark.e2e

NETWORK = """
from pathlib import Path

from paddle import nn

Path("imported").touch()

def network(num_classes):
    return nn.Sequential(nn.Conv2D(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, num_classes))
"""

WITH_RATE = """
from paddle import ParamAttr, nn

def network(num_classes, rate=RATE):
    scaled = ParamAttr(learning_rate=rate)
    return nn.Sequential(
        nn.Conv2D(1, 8, 3, weight_attr=scaled), nn.Flatten(), nn.Linear(288, num_classes)
    )

def full_rate(num_classes):
    return network(num_classes, 1.0)
"""


@pytest.fixture
def folder(copy_until: Callable[..., Run]) -> Path:
    """The digits are prepared; the network's module lies beside the manifest."""
    folder = copy_until("data").folder
    (folder / "mine.py").write_text(NETWORK)
    model = {**MANIFEST["model"], "name": None, "width": 1.0, "callable": "mine:network"}
    write_manifest(folder, model=model)
    return folder


def test_refused_unasked(folder: Path) -> None:
    done = job("run", "m.json", cwd=folder, expect=2)
    assert "'mine:network'" in done.err
    assert "--allow-code" in done.err
    assert not (folder / "imported").exists()


def test_beside_the_manifest(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run = ("run", folder / "m.json", "--allow-code", "--output", folder / "out")
    plan = job(*run, "--dry-run", cwd=elsewhere)
    assert str(folder / "mine.py") in plan.out
    assert not (elsewhere / "imported").exists()
    job(*run, "--until", "convert", cwd=elsewhere)
    with (folder / "mine.py").open("a") as file:
        file.write("# edited\n")
    planned = job(*run, "--dry-run", "--log-format", "json", cwd=elsewhere).out.splitlines()
    stages = {stage["stage"]: stage for stage in map(json.loads, planned)}
    assert stages["baseline"]["action"] == "run"
    assert "mine.py " in stages["baseline"]["reason"]


@pytest.mark.full
def test_what_only_training_feels_is_trained_again(folder: Path) -> None:
    untrained = (
        "--set",
        "baseline.train.max_iters=0",
        "--set",
        "model.random_weights=true",
        "--set",
        # With labels, because a few steps of distillation do not change the rounded weights.
        "train.base_lr=0.05",
        "--until",
        "convert",
        "--log-format",
        "json",
    )

    def run(function: str, rate: float) -> list[str]:
        (folder / "mine.py").write_text(WITH_RATE.replace("RATE", str(rate)))
        network = ("--set", f"model.callable=mine:{function}", "--allow-code")
        done = job("run", "m.json", *untrained, *network, "--log-format", "json", cwd=folder)
        return done.of("stage_started")

    def losses() -> list[float]:
        lines = (folder / "out/qat/metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines if "loss" in line]

    run("network", 1.0)
    trained = losses()
    assert run("network", 1.0) == []
    assert run("network", 0.0) == ["baseline", "calibrate", "qat", "convert"]
    assert losses() != trained
    assert run("full_rate", 0.0) == ["baseline", "calibrate", "qat", "convert"]
    assert losses() == trained


@pytest.mark.full
def test_in_the_current_directory(folder: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "package").mkdir(parents=True)
    shutil.move(folder / "mine.py", here / "package/nets.py")
    module = ("--set", "model.callable=package.nets:network", "--allow-code")
    output = ("--output", folder / "out", "--until", "baseline", "--allow-slow-isa")
    script = ("-c", "import sys; sys.path.pop(0); from job.cli.main import main; main()")
    job("run", folder / "m.json", *module, *output, cwd=here, command=script)
    assert (folder / "out/fp32/model.pdmodel").exists()


@pytest.mark.full
@pytest.mark.parametrize(
    ("target", "name"), [("none:network", "none:network"), ("mine:net", "'net'")]
)
def test_not_there(folder: Path, target: str, name: str) -> None:
    arguments = ("--set", f"model.callable={target}", "--allow-code")
    done = job("run", "m.json", *arguments, cwd=folder, expect=2)
    assert name in done.err
