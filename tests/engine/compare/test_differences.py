"""The error of each INT8 op, and the effect of keeping the op in FP32."""

import numpy as np
import pytest
import tiny

from job.engine.compare.differences import differences
from job.engine.inference import paddle_format
from job.engine.inference.predictor import INT8, ONEDNN
from job.engine.int8 import build as int8
from job.engine.quantize import qat
from job.host import read_host
from job.stages import fallback_search

pytestmark = pytest.mark.engine

needs_vnni = pytest.mark.skipif(
    not read_host().has_vnni, reason="/proc/cpuinfo lacks avx512_vnni: INT8 is inexact here"
)
# What rounding to 8 bits alone costs is above this.
HEALTHY_DB = 30
TYPES = tiny.SETTINGS["quantize_op_types"]
WITH_SUMS = """
from paddle import nn

F = nn.functional

class Network(nn.Layer):
    def __init__(self):
        super().__init__()
        self.stem, self.last = nn.Conv2D(1, 8, 3, padding=1), nn.Conv2D(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.max_pool2d(x, 2, 2) + F.avg_pool2d(x, 2, 2)
        return self.head(F.adaptive_avg_pool2d(F.relu(self.last(x)), 1).flatten(1))
"""


SOUND = ["attention_by_operator", "shared_layer", "activations", "pooled_branches", "sigmoid_gate"]
# Without VNNI, oneDNN rounds more.
SOUND_DB = 20


@pytest.mark.parametrize("name", SOUND)
def test_no_op_of_a_sound_network_has_a_large_error(name, tmp_path):
    session = tiny.open_tiny(name=None, callable_=f"own_networks:{name}", classes=10)
    made = tiny.quantize(session, tmp_path)
    found = differences(tmp_path / "fake", tmp_path / "model", made.images[:8])
    assert len(found) > 1
    assert found[0].signal_to_noise_db > SOUND_DB


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a trained network, fp32/model, and its fake-quantized model, fake/model."""
    folder = tmp_path_factory.mktemp("trained")
    fp32 = tiny.train_baseline(folder / "fp32", max_iters=60)
    tiny.write_start(fp32, folder)
    (folder / "fake").mkdir()
    best = folder / qat.START
    qat.convert(tiny.open_tiny(), tiny.SETTINGS, best=best, pact=False, out=folder / "fake")
    return folder


@needs_vnni
@pytest.mark.parametrize("remedy", [True, False])
def test_a_fault_of_the_engine_is_named(trained, tmp_path, monkeypatch, remedy):
    """Residual sums that are clipped at half their range, see ``widen_signed_residuals``."""
    if not remedy:
        monkeypatch.setattr(int8, "widen_signed_residuals", lambda *_: [])
    images, _ = tiny.examples(16, seed=9)
    int8.build(trained / "fake/model", tmp_path, TYPES, images)
    found = differences(trained / "fake/model", tmp_path / "model", images)
    faulty = {each.op for each in found if each.signal_to_noise_db < HEALTHY_DB}
    sums = {"conv2d_2.tmp_0", "conv2d_5.tmp_0", "conv2d_8.tmp_0"}
    assert faulty == (set() if remedy else sums)
    assert len(found) == sum(map(int8.is_int8, int8.read_ops(tmp_path / "model.pdmodel")))


@needs_vnni
def test_ops_without_weights_are_found_by_what_they_read(tmp_path, monkeypatch):
    (tmp_path / "own_sums.py").write_text(WITH_SUMS)
    monkeypatch.syspath_prepend(tmp_path)
    made = tiny.quantize(tiny.open_tiny(name=None, callable_="own_sums:Network"), tmp_path)
    found = differences(tmp_path / "fake", tmp_path / "model", made.images)
    # The largest of 8-bit integers is exact; the mean of four and the sum of two are not.
    assert sorted(each.op for each in found) == [
        "conv2d_0.tmp_0",
        "conv2d_1.tmp_0",
        "linear_0.tmp_0",
        "pool2d_1.tmp_0",
        "tmp_0",
    ]
    assert found[0].signal_to_noise_db > HEALTHY_DB
    assert made.audit.int8_ops == 6


def spoil(fake, out, value):
    """Make the scale of a value far too small, so that most of its range is clipped."""
    program = paddle_format.read_program(fake.with_suffix(".pdmodel"))
    parameters = paddle_format.read_parameters(fake.with_suffix(".pdiparams"), program)
    parameters[f"{value}@scale"] = parameters[f"{value}@scale"] * np.float32(0.03)
    paddle_format.write_model(out, program, parameters)


# Value -> ops that must be in FP32 so that the value is not rounded: the ops that read it. A
# convolution with a fused residual sum cannot write FP32, so it must be in FP32 if it writes the
# value.
SPOILED = {
    "image": ["conv2d_0.tmp_0"],
    "relu_0.tmp_0": ["conv2d_1.tmp_0", "conv2d_3.tmp_0"],
    "relu_2.tmp_0": ["conv2d_2.tmp_0", "conv2d_4.tmp_0", "conv2d_6.tmp_0"],
    "relu_3.tmp_0": ["conv2d_5.tmp_0"],
}


@needs_vnni
@pytest.mark.parametrize("value", SPOILED)
def test_a_spoiled_scale_is_named_and_fp32_restores_accuracy(trained, tmp_path, value):
    fake, fp32 = tmp_path / "fake", trained / "fp32/model"
    spoil(trained / "fake/model", fake, value)
    images, labels = tiny.examples(120, seed=9)

    def top1(prefix, mode):
        return 100 * (tiny.scores(prefix, mode, images).argmax(1) == labels).mean()

    def score(ops):
        out = tmp_path / f"int8-{len(ops)}"
        out.mkdir()
        int8.build(fake, out, TYPES, images[:16], skip_ops=ops)
        worst = differences(fake, out / "model", images[:16])[0].op
        return fallback_search.Score(top1(fp32, ONEDNN) - top1(out / "model", INT8), 0.0, worst)

    found = fallback_search.search(score, max_top1_drop=1, max_seconds=600, on_try=lambda _: None)
    assert found.tries[0].top1_drop > 5
    assert found.tries[0].worst in SPOILED[value]
    assert sorted(found.ops) == SPOILED[value]
    assert found.tries[-1].top1_drop <= 1
    healed = differences(fake, tmp_path / f"int8-{found.kept}/model", images[:16])
    assert healed[0].signal_to_noise_db > HEALTHY_DB
