"""A training step frees what oneDNN caches, and computes the same losses."""

import json
import subprocess
import sys

import pytest

from job.engine.training import onednn_cache
from job.process.environment import environment

pytestmark = pytest.mark.engine

BOTH = """
import json

import numpy as np
import tiny
from paddle import seed

from job.engine.training import loop as training
from job.engine.training import programs, ready_names
from job.engine.training.collective import SingleProcess
from job.engine.training.evaluation import TrainingBatch
from job.engine.training.stepper import Stepper
from job.process.memory import peak_rss_bytes

BATCH, STEPS = 16, 3


session = tiny.open_tiny(name="mobilenet_v1", classes=10, input_shape=(3, 96, 96), width=1.0)
classifier, scope = session.classifier, session.scope
images = np.random.default_rng(0).standard_normal((BATCH, 3, 96, 96)).astype("float32")
labels = np.arange(BATCH) % 10
feed = {programs.IMAGE: images, ready_names.LABEL: labels.reshape(-1, 1)}
losses, peaks = [[], []], []
with session.active():
    rate = training.add_optimizer(
        classifier.train, classifier.startup, classifier.loss, name="momentum", momentum=0.9,
        weight_decay=1e-4,
    )
    session.executor.run(classifier.startup)
    start = programs.read_variables(scope, programs.persistables(classifier.train))
    peaks.append(peak_rss_bytes())
    stepper = Stepper(
        training.with_onednn(classifier.train), classifier.loss, rate, session.feeds, scope,
        session.executor, SingleProcess(), 0,
    )
    for step in range(STEPS):
        losses[0].append(stepper.run(TrainingBatch(images, (labels,)), 0.01, step))
    peaks.append(peak_rss_bytes())
    programs.write_variables(scope, {**start, rate: np.array([0.01], "float32")})
    plain = training.with_onednn(classifier.train)
    for step in range(STEPS):
        seed(0)
        losses[1].append(float(session.executor.run(plain, feed, [classifier.loss])[0]))
    peaks.append(peak_rss_bytes())
print(json.dumps([losses, peaks]))
"""


def test_steps_need_half_the_memory_and_compute_the_same_losses() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOTH],
        env=environment(2),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (freed, plain), (base, less, more) = json.loads(done.stdout.splitlines()[-1])
    assert freed == plain
    assert len(set(freed)) == len(freed)
    assert less - base < 0.5 * (more - base)


def test_the_installed_paddle_exports_the_functions_of_the_cache() -> None:
    onednn_cache.select(onednn_cache.LIMITED, "x" * 15)
    onednn_cache.select(onednn_cache.UNLIMITED, "")
