import pytest

from job.engine.inference.paddle_format import attribute, make_op

pytestmark = pytest.mark.engine


def test_the_last_of_two_attributes_counts_as_in_paddle():
    op = make_op("fused_conv2d", {}, {}, {"fuse_activation": 1})
    op.attrs.add().CopyFrom(op.attrs[0])
    op.attrs[1].i = 2
    assert attribute(op, "fuse_activation") == 2
