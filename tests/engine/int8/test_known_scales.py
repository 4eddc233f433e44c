"""Residual sums are fused into convolutions if, and only if, Paddle has the scales for it."""

import pytest
import tiny

pytestmark = pytest.mark.engine

# Quantized op types -> fused sums of ResNet18. Without elementwise_add, the three sums of two
# convolutions have no scale of the residual value. Without pool2d, the last sum has no scale.
FUSED = {("conv2d", "matmul_v2"): 4, ("conv2d", "matmul_v2", "pool2d"): 5}


def test_all_sums_are_fused(resnet18):
    assert resnet18.audit.folded["residual_add"] == 8
    assert resnet18.audit.fp32_ops == 0


@pytest.mark.full
@pytest.mark.parametrize("types", FUSED, ids="+".join)
def test_sums_with_scales_are_fused(types, tmp_path):
    session = tiny.open_tiny(name="resnet18", classes=10, input_shape=(3, 32, 32), width=0.25)
    made = tiny.quantize(session, tmp_path, quantize_op_types=list(types))
    assert made.audit.folded["residual_add"] == FUSED[types]
    assert made.audit.fp32_ops == 0
