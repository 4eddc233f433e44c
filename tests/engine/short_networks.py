"""Networks of the zoo with fewer blocks, which have ops of the same kinds and run faster."""

from paddle.vision.models import (  # noqa: TID251
    mobilenetv2,
    mobilenetv3,
    resnet,
    shufflenetv2,
)

from job.engine.training import zoo


def repeats(block):
    """Return whether a block maps its input to the same shape, so that others fit without it."""
    if isinstance(block, resnet.BasicBlock):
        return block.downsample is None
    if isinstance(block, mobilenetv2.InvertedResidual | mobilenetv3.InvertedResidual):
        return block.use_res_connect
    return isinstance(block, shufflenetv2.InvertedResidual)


def shortened(name, width):
    """Build a network in which one such block is left: the others add ops of the same kinds."""
    network = zoo.build(name, classes=10, channels=3, width=width)
    for block in list(filter(repeats, network.sublayers()))[1:]:
        block.forward = lambda x: x
    return network
