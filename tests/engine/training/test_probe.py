"""What ``--dry-run --probe`` measures."""

import math
from pathlib import Path

import pytest
import tiny

from job.engine.training import zoo
from job.engine.training.yolov3 import YoloV3
from job.engine.training.zoo import nn, paddle
from job.manifest import parse
from job.pipeline.network_work import NETWORKS
from job.stages import probe

pytestmark = pytest.mark.engine

DOCUMENT = {
    "version": 1,
    "name": "tiny",
    "model": {"name": "convnet", "classes": 10, "input_shape": [1, 8, 8], "width": 0.25},
    "data": {"format": "digits", "mean": [0.5], "std": [0.5]},
    "train": {"batch_size": 8},
}


@pytest.mark.parametrize("trains", [True, False])
def test_speeds_are_measured(tmp_path: Path, monkeypatch, trains: bool) -> None:
    monkeypatch.setattr(probe, "_SECONDS", 0.05)
    train = {} if trains else {"baseline": {"train": {"epochs": 0}}, "train": {"epochs": 0}}
    found = probe.run(parse({**DOCUMENT, **train}, "m.json", tmp_path), {}, tmp_path, tiny.News())
    assert 0 < found["forward"] < 1
    assert found["layers"] == NETWORKS["convnet"].layers
    assert found["decode"] is None
    assert (found["train"] is not None) == trains
    if trains:
        assert found["forward"] < found["train"] < 10


@pytest.mark.parametrize(
    ("name", "build", "shape"),
    [
        (
            "lenet",
            lambda: zoo.build("lenet", classes=1000, channels=1, width=1.0),
            [1, 1, 28, 28],
        ),
        ("yolov3_mobilenet_v1", lambda: YoloV3(classes=80), [1, 3, 416, 416]),
    ],
)
def test_the_recorded_work_of_a_network(name, build, shape) -> None:
    """Counts multiplications from the shapes of the outputs."""
    counted = []

    def count(layer, inputs, output):
        per_output = math.prod(layer.weight.shape) / layer.weight.shape[linear_or_conv(layer)]
        counted.append(per_output * math.prod(output.shape))

    def linear_or_conv(layer):
        return 1 if isinstance(layer, nn.Linear) else 0

    paddle.disable_static()
    try:
        network = build()
        for layer in network.sublayers():
            if isinstance(layer, nn.Linear | nn.Conv2D):
                layer.register_forward_post_hook(count)
        network(paddle.zeros(shape))
    finally:
        paddle.enable_static()
    assert len(counted) == NETWORKS[name].layers
    assert sum(counted) / 1e9 == pytest.approx(NETWORKS[name].multiplications, abs=5e-5)
