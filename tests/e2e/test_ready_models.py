"""Models that Paddle 3 saved, as users give them to the command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pir_networks
import pytest
from pir_program import op, program, save, value
from tiny_run import job, write_manifest

from job.data import packed
from job.process.environment import environment

pytestmark = pytest.mark.e2e
SHAPE = pir_networks.image_shape("mobilenet_v1")
DATA = {"format": "synthetic", "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paddle3")
    subprocess.run(
        [sys.executable, pir_networks.__file__, str(folder), "mobilenet_v1"],
        env=environment(1) | {"FLAGS_enable_pir_api": "1"},
        check=True,
        capture_output=True,
    )
    return folder / "mobilenet_v1"


def write(folder: Path) -> None:
    model = {"name": None, "inference_model": "net", "classes": 4, "input_shape": SHAPE, "width": 1}
    still = {"max_iters": 0}
    write_manifest(folder, model=model, data=DATA, baseline={"train": still}, train=still)


def test_a_run_starts_from_a_model_of_paddle_3(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "net")
    write(tmp_path)
    assert "net/inference.json" in job("run", "m.json", "--dry-run", cwd=tmp_path).out
    job("run", "m.json", "--until", "convert", cwd=tmp_path)
    assert (tmp_path / "out/qat_fake/model.pdmodel").is_file()
    again = job("run", "m.json", "--until", "convert", "--log-format", "json", cwd=tmp_path)
    assert not again.worked
    document = json.loads((tmp_path / "net/inference.json").read_text())
    (tmp_path / "net/inference.json").write_text(json.dumps(document, indent=1))
    planned = job("run", "m.json", "--dry-run", cwd=tmp_path).out
    assert "inference.json changed" in planned


def test_predict_gives_the_answers_of_paddle_3(saved: Path, tmp_path: Path) -> None:
    images = np.load(saved / "images.npy")
    (scores,) = np.load(saved / "scores.npz").values()
    labels = scores.argmax(1)
    # One of three labels is wrong, so top-1 is neither 0 nor 100%.
    labels[0] = (labels[0] + 1) % scores.shape[1]
    packed.write(tmp_path / "data.bin", [(images, labels)], shape=tuple(SHAPE), transform="none")
    done = job(
        *("predict", "--infer-model", saved, "--infer-data", tmp_path / "data.bin", "--json"),
        cwd=tmp_path,
    )
    assert json.loads(done.out)["accuracy"]["top1_correct"] == 2


@pytest.mark.parametrize("command", [["validate", "m.json"], ["run", "m.json", "--dry-run"]])
def test_an_unsupported_op_is_rejected_before_any_stage(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "net").mkdir()
    rnn = op("1.rnn", [2], value(3, -1, 4))
    save(tmp_path / "net/inference", program(rnn, last=3))
    write(tmp_path)
    done = job(*command, cwd=tmp_path, expect=4)
    assert "pd_op.rnn" in done.err
    assert "FLAGS_enable_pir_api=0" in done.err
    assert not (tmp_path / "out").exists()
