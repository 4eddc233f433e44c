"""YOLOv3 with MobileNetV1, with the parameter names and taps of PaddleDetection.

The network has 241 weights and statistics, such as ``backbone.conv1._conv.weight``,
``neck.yolo_block.0.tip.batch_norm._mean`` and ``yolo_head.yolo_output.2.bias``. Weights that
PaddleDetection's ``yolov3_mobilenet_v1`` configurations train therefore load by name.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import paddle
from paddle import nn, static
from paddle.vision.models import MobileNetV1
from paddle.vision.ops import ConvNormActivation

# Blocks of the backbone whose output the neck reads, counted from 0. Other blocks have the same
# numbers of channels, so a wrong number changes no shape and no name.
TAPS = (3, 5, 12)
# Channels of the taps at width 1, and of the neck's blocks from the coarsest to the finest.
TAP_CHANNELS, NECK_CHANNELS = (256, 512, 1024), (512, 256, 128)
# Pixels of the image per cell of each head, in the order of the outputs.
STRIDES = (32, 16, 8)
SLOPE = 0.1
# Name scope of the heads. Ops of this scope stay in FP32.
HEAD_SCOPE = "yolo_output"
# Values of a box before its classes: tx, ty, tw, th, objectness.
BOX_VALUES, OBJECTNESS = 5, 4
# Initial bias of the objectness. Nearly all cells are empty, so a network that starts at 0 first
# learns that there are no objects, and stays there.
EMPTY = -4.0
HEAD_STD = 0.01


class Backbone(MobileNetV1):
    """Paddle's MobileNetV1 without classifier; its layers have PaddleDetection's names."""

    def __init__(self, width: float) -> None:
        super().__init__(scale=width, num_classes=0, with_pool=False)
        for layer in self.sublayers():
            if isinstance(layer, ConvNormActivation):
                names = ("_conv", "_batch_norm", "_activation")
                layer._sub_layers = OrderedDict(zip(names, layer._sub_layers.values(), strict=True))

    def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Map [N, 3, H, W] float32 to the taps, of strides 8, 16 and 32."""
        x = self.conv1(x)
        taps = []
        for number, block in enumerate(self.dwsl):
            x = block(x)
            if number in TAPS:
                taps.append(x)
        return taps


class ConvNormLeaky(nn.Layer):
    """Convolution, batch norm and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2D(inputs, outputs, size, padding=size // 2, bias_attr=False)
        self.batch_norm = nn.BatchNorm2D(outputs)
        self.activation = nn.LeakyReLU(SLOPE)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map [N, inputs, H, W] float32 to [N, outputs, H, W]."""
        return self.activation(self.batch_norm(self.conv(x)))


class Block(nn.Layer):
    """Block of the neck: five convolutions, whose output goes to a head and to the next block."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv_module = nn.Sequential(
            ("conv0", ConvNormLeaky(inputs, channels, 1)),
            ("conv1", ConvNormLeaky(channels, 2 * channels, 3)),
            ("conv2", ConvNormLeaky(2 * channels, channels, 1)),
            ("conv3", ConvNormLeaky(channels, 2 * channels, 3)),
            ("route", ConvNormLeaky(2 * channels, channels, 1)),
        )
        self.tip = ConvNormLeaky(channels, 2 * channels, 3)

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Map [N, inputs, H, W] to route [N, channels, H, W] and tip [N, 2 * channels, H, W]."""
        route = self.conv_module(x)
        return route, self.tip(route)


class Neck(nn.Layer):
    """Feature pyramid of YOLOv3: each block also reads the upsampled route of the coarser block."""

    def __init__(self, taps: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        upsampled = [size // 2 for size in channels[:-1]]
        inputs = [tap + route for tap, route in zip(taps[::-1], [0, *upsampled], strict=True)]
        self.yolo_block = nn.LayerList(map(Block, inputs, channels))
        self.yolo_transition = nn.LayerList(
            ConvNormLeaky(size, route, 1) for size, route in zip(channels, upsampled, strict=False)
        )

    def forward(self, taps: Sequence[paddle.Tensor]) -> list[paddle.Tensor]:
        """Map the taps, the finest first, to the tips, the coarsest first."""
        x, tips = taps[-1], []
        for number, block in enumerate(self.yolo_block):
            route, tip = block(x)
            tips.append(tip)
            if number < len(self.yolo_transition):
                route = nn.functional.interpolate(
                    self.yolo_transition[number](route), scale_factor=2, mode="nearest"
                )
                x = paddle.concat([route, taps[-2 - number]], axis=1)
        return tips


class Heads(nn.Layer):
    """One 1x1 convolution for each tip."""

    def __init__(self, inputs: Sequence[int], anchors: Sequence[int], classes: int) -> None:
        super().__init__()
        self.yolo_output = nn.LayerList(
            nn.Conv2D(
                channels,
                count * (BOX_VALUES + classes),
                1,
                weight_attr=nn.initializer.Normal(0.0, HEAD_STD),
                bias_attr=nn.initializer.Assign(initial_bias(count, classes)),
            )
            for channels, count in zip(inputs, anchors, strict=True)
        )

    def forward(self, tips: Sequence[paddle.Tensor]) -> list[paddle.Tensor]:
        """Map each tip [N, C, H, W] to [N, anchors * (5 + classes), H, W]."""
        with static.name_scope(HEAD_SCOPE):
            return [head(tip) for head, tip in zip(self.yolo_output, tips, strict=True)]


class YoloV3(nn.Layer):
    """YOLOv3 with MobileNetV1.

    Args:
        classes: number of classes.
        anchors: number of anchors of each head, the coarsest head first.
        width: multiplier of the channels of backbone and neck.
    """

    def __init__(
        self, *, classes: int, anchors: Sequence[int] = (3, 3, 3), width: float = 1.0
    ) -> None:
        super().__init__()
        # MobileNetV1 rounds down.
        taps = [int(channels * width) for channels in TAP_CHANNELS]
        necks = [max(8, round(channels * width)) for channels in NECK_CHANNELS]
        self.backbone = Backbone(width)
        self.neck = Neck(taps, necks)
        self.yolo_head = Heads([2 * channels for channels in necks], anchors, classes)

    def forward(self, image: paddle.Tensor) -> list[paddle.Tensor]:
        """Map [N, 3, H, W] float32, sides multiples of 32, to one output per head.

        Returns:
            Outputs [N, anchors * (5 + classes), H / stride, W / stride] for the strides 32, 16, 8.
        """
        return self.yolo_head(self.neck(self.backbone(image)))


def initial_bias(anchors: int, classes: int) -> np.ndarray:
    """Return the initial bias of a head: ``EMPTY`` for each objectness, otherwise 0."""
    bias = np.zeros((anchors, BOX_VALUES + classes), "float32")
    bias[:, OBJECTNESS] = EMPTY
    return bias.reshape(-1)
