"""Processes that time models import Paddle Inference only, and compute what all of Paddle does."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from job.engine import noop_model
from job.engine.training.baseline import export
from job.process.environment import environment

pytestmark = pytest.mark.engine

ALONE = """
import json
import sys
from pathlib import Path

import numpy as np

from job.engine.inference.inference_only import import_inference_only

import_inference_only()
from job.engine import noop_model
from job.engine.inference import runtime
from job.engine.inference.predictor import Predictor, configuration

images = np.load(sys.argv[1])
prefix = Path(sys.argv[2])
scores = [
    Predictor(configuration(prefix, mode, threads=1)).scores(images).tolist()
    for mode in ("native", "onednn")
]
scores.append(noop_model.open_model(images.shape[1:], 1).scores(images).tolist())
whole = sorted({"paddle.nn", "paddle.static", "paddle.base.framework"} & set(sys.modules))
print(json.dumps([scores, whole, runtime.VERSION]))
"""


def test_scores_are_equal_and_the_rest_of_paddle_is_not_imported(tmp_path: Path) -> None:
    export(tiny.open_tiny(), tmp_path)
    images, _ = tiny.examples(4, seed=1)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", ALONE, tmp_path / "images.npy", tmp_path / "model"]
    done = subprocess.run(command, env=environment(1), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (native, onednn, first), imported, version = json.loads(done.stdout.splitlines()[-1])
    for mode, scores in (("native", native), ("onednn", onednn)):
        expected = tiny.scores(tmp_path / "model", mode, images)
        np.testing.assert_array_equal(np.array(scores, "float32"), expected, err_msg=mode)
    assert np.ravel(first) == images[0, 0, 0, 0]
    assert noop_model.open_model(images.shape[1:], 1).scores(images).ravel() == images[0, 0, 0, 0]
    assert (imported, version) == ([], __import__("paddle").__version__)
