"""Ops of each type, and each op that the report names, can stay in FP32."""

import pytest
import tiny
from short_networks import shortened
from tiers import full_but

from job.engine.compare.differences import differences
from job.engine.int8 import build as int8
from job.engine.int8.expected import expected_outputs

pytestmark = pytest.mark.engine

# Network -> side, width, types of its quantized ops.
SEPARABLE = ("conv2d", "depthwise_conv2d", "matmul_v2")
NETWORKS = {
    "mobilenet_v1": (64, 0.25, SEPARABLE),
    "mobilenet_v2": (64, 0.35, (*SEPARABLE, "elementwise_add")),
    "mobilenet_v3_small": (64, 0.5, (*SEPARABLE, "elementwise_add", "pool2d")),
    "shufflenet_v2_x0_25": (64, 1.0, (*SEPARABLE, "pool2d")),
    "resnet18": (64, 0.25, ("conv2d", "matmul_v2", "elementwise_add", "pool2d")),
}
TYPES = tiny.SETTINGS["quantize_op_types"]
NAMED = 3


@pytest.mark.parametrize("name", full_but(NETWORKS, ["mobilenet_v2"]))
def test_ops_of_every_type_and_the_worst_ops_stay_in_fp32(name, tmp_path):
    side, width, types = NETWORKS[name]
    session = tiny.session_of(lambda: shortened(name, width), shape=(3, side, side))
    made = tiny.quantize(session, tmp_path, 1.0)
    fake = tmp_path / "fake"
    worst = differences(fake, tmp_path / "model", made.images[:4])
    assert len(worst) >= NAMED
    base = tiny.error(tiny.scores(tmp_path / "model", "int8", made.images), made.fake)
    named = [each.op for each in worst[:NAMED]]
    for number, items in enumerate([*([each] for each in types), named]):
        folder = tmp_path / str(number)
        folder.mkdir()
        audit, _ = int8.build(fake, folder, TYPES, made.images, skip_ops=items)
        (expected,) = expected_outputs(fake, made.images, TYPES, skip_ops=items)
        found = tiny.error(tiny.scores(folder / "model", "int8", made.images), expected)
        assert found < 1.5 * base + 0.02, items
        left_in_fp32 = {each for left in audit.left_in_fp32 for each in (left["op"], left["type"])}
        assert set(items) <= left_in_fp32
