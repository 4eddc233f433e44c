import pytest
from paddle.base.proto import framework_pb2

from job.engine.inference.paddle_format import attribute, make_op

pytestmark = pytest.mark.engine


def test_the_last_of_two_attributes_counts_as_in_paddle():
    op = make_op("fused_conv2d", {}, {}, {})
    for value in ("", "relu"):
        op.attrs.add(name="fuse_activation", type=framework_pb2.STRING, s=value)
    assert attribute(op, "fuse_activation") == "relu"
