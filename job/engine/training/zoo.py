"""Builds networks by name, with class count, input channels and width."""

import importlib
import inspect
from collections.abc import Sequence

import paddle
from paddle import nn
from paddle.vision import models
from paddle.vision.models.vgg import cfgs as vgg_plans
from paddle.vision.models.vgg import make_layers as vgg_features

from job.engine.training.yolov3 import YoloV3
from job.errors import UsageError

VGG_PLANS = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}
RESNET_LAYERS = {"resnet18": 18, "resnet34": 34, "resnet50": 50, "resnet101": 101, "resnet152": 152}
CLASSIFIERS_WITH_SCALE = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
)


class ResidualBlock(nn.Layer):
    """Two 3x3 convolutions with batch norm and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(inputs, outputs, 3, stride, 1, bias_attr=False)
        self.bn1 = nn.BatchNorm2D(outputs)
        self.conv2 = nn.Conv2D(outputs, outputs, 3, 1, 1, bias_attr=False)
        self.bn2 = nn.BatchNorm2D(outputs)
        self.relu = nn.ReLU()
        self.shortcut = (
            nn.Sequential(
                nn.Conv2D(inputs, outputs, 1, stride, bias_attr=False), nn.BatchNorm2D(outputs)
            )
            if stride != 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map [N, inputs, H, W] float32 to [N, outputs, H/stride, W/stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ConvNet(nn.Layer):
    """A small residual network for images of 8 to 64 pixels.

    Most of its layers run after the first halving of the resolution, because activations at full
    resolution need much memory traffic on CPUs.
    """

    def __init__(self, channels: int, num_classes: int, width: float) -> None:
        super().__init__()
        stem, *stages = (max(8, round(base * width)) for base in (16, 32, 64, 128))
        self.stem = nn.Sequential(
            nn.Conv2D(channels, stem, 3, 1, 1, bias_attr=False), nn.BatchNorm2D(stem), nn.ReLU()
        )
        blocks = [
            ResidualBlock(inputs, outputs, 2)
            for inputs, outputs in zip([stem, *stages], stages, strict=False)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(stages[-1], num_classes)
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map [N, channels, H, W] float32 to logits [N, num_classes]."""
        return self.head(self.blocks(self.stem(x)))


class ScaledResNet(models.ResNet):
    """Paddle's ResNet with the channel count of every stage multiplied by ``width``."""

    def __init__(self, layers: int, num_classes: int, width: float) -> None:
        self.multiplier = width
        block = models.resnet.BasicBlock if layers < 50 else models.resnet.BottleneckBlock
        super().__init__(block, layers, num_classes=num_classes)
        self.fc = nn.Linear(self.inplanes, num_classes)

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        scaled = max(8, round(planes * self.multiplier))
        if not hasattr(self, "layer1"):
            self.inplanes = scaled
            self.conv1 = nn.Conv2D(3, scaled, 7, stride=2, padding=3, bias_attr=False)
            self.bn1 = nn.BatchNorm2D(scaled)
        return super()._make_layer(block, scaled, blocks, stride, dilate)


def scaled_vgg(name: str, num_classes: int, width: float) -> nn.Layer:
    """Return Paddle's VGG with channels and hidden units multiplied by ``width``."""
    plan = [
        max(8, round(step * width)) if isinstance(step, int) else step
        for step in vgg_plans[VGG_PLANS[name]]
    ]
    network = models.VGG(vgg_features(plan, batch_norm=False), num_classes=num_classes)
    hidden = max(8, round(4096 * width))
    last = [step for step in plan if isinstance(step, int)][-1]
    network.classifier = nn.Sequential(
        nn.Linear(last * 7 * 7, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, num_classes),
    )
    return network


def build(
    name: str, *, classes: int, channels: int, width: float = 1.0, anchors: Sequence[int] = ()
) -> nn.Layer:
    """Build a network of the zoo with initial weights.

    Args:
        name: a name of ``paddle.vision.models``, or ``convnet``.
        classes: number of classes.
        channels: input channels; only ``convnet`` accepts any number.
        width: multiplier of the channel counts.
        anchors: number of anchors of each head of a detector.

    Raises:
        UsageError: the network does not support this width or number of channels.
    """
    if name == "convnet":
        return ConvNet(channels, classes, width)
    usual = 1 if name == "lenet" else 3
    if channels != usual:
        raise UsageError(
            f"/model/input_shape: {name} expects {usual} input channels, found {channels}",
            "Change input_shape, or use convnet, which accepts any number.",
        )
    if name == "yolov3_mobilenet_v1":
        return YoloV3(classes=classes, anchors=anchors, width=width)
    if name in CLASSIFIERS_WITH_SCALE:
        return getattr(models, name)(scale=width, num_classes=classes)
    if width == 1.0:
        factory = models.LeNet if name == "lenet" else getattr(models, name)
        return factory(num_classes=classes)
    if name in RESNET_LAYERS:
        return ScaledResNet(RESNET_LAYERS[name], classes, width)
    if name in VGG_PLANS:
        return scaled_vgg(name, classes, width)
    raise UsageError(
        f"/model/width: {name} supports width 1 only, found {width}",
        "Set /model/width to 1, or choose a MobileNet, ResNet, VGG or convnet.",
    )


def from_callable(target: str, *, classes: int) -> nn.Layer:
    """Build a user's network.

    Args:
        target: ``package.module:function``. The function is called with ``num_classes`` if it has
            such a parameter, otherwise without arguments.
        classes: number of classes.

    Raises:
        UsageError: the function cannot be imported or does not return a ``paddle.nn.Layer``.
    """
    module_name, _, function_name = target.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        missing = getattr(error, "name", None) or module_name
        hint = "Add the folder of the module to PYTHONPATH."
        if not f"{module_name}.".startswith(f"{missing}."):
            hint = f"Install {missing}, which the module of the network imports."
        raise UsageError(f"/model/callable: cannot import {target}: {error}", hint) from error
    takes_classes = "num_classes" in inspect.signature(function).parameters
    network = function(num_classes=classes) if takes_classes else function()
    if not isinstance(network, nn.Layer):
        raise UsageError(
            f"/model/callable: {target} returned {type(network).__name__}, "
            "expected a paddle.nn.Layer",
            "Return the network from the function.",
        )
    return network
