"""The work of the built-in networks: multiplications of one image, and layers with weights.

The figures were counted from the shapes of paddle.vision.models (convolutions and fully connected
layers, 1000 classes), and of the detector with 80 classes. ``tests/engine/training/test_probe.py``
counts two of them again.
"""

from dataclasses import dataclass

from job.manifest.spec import ModelSpec

# Side in pixels of the image for which the multiplications were counted.
_SIDES = {"inception_v3": 299, "lenet": 28, "convnet": 32, "yolov3_mobilenet_v1": 416}
_SIDE = 224


@dataclass(frozen=True)
class Work:
    """The work of a network.

    Attributes:
        multiplications: multiply-accumulate operations for one image, in units of 1e9.
        layers: number of convolutions and fully connected layers.
    """

    multiplications: float
    layers: int


NETWORKS = {
    "alexnet": Work(0.7142, 8),
    "convnet": Work(0.0116, 11),
    "densenet121": Work(2.8342, 121),
    "densenet161": Work(7.7279, 161),
    "densenet169": Work(3.3598, 169),
    "densenet201": Work(4.2914, 201),
    "densenet264": Work(5.7517, 265),
    "googlenet": Work(1.4372, 64),
    "inception_v3": Work(5.7132, 95),
    "lenet": Work(0.0004, 5),
    "mobilenet_v1": Work(0.5687, 28),
    "mobilenet_v2": Work(0.3008, 53),
    "mobilenet_v3_large": Work(0.2166, 64),
    "mobilenet_v3_small": Work(0.0565, 54),
    "resnet18": Work(1.8141, 21),
    "resnet34": Work(3.6638, 37),
    "resnet50": Work(4.0892, 54),
    "resnet101": Work(7.8014, 105),
    "resnet152": Work(11.5136, 156),
    "resnext50_32x4d": Work(4.2305, 54),
    "resnext50_64x4d": Work(7.9812, 54),
    "resnext101_32x4d": Work(7.97, 105),
    "resnext101_64x4d": Work(15.4603, 105),
    "resnext152_32x4d": Work(11.7095, 156),
    "resnext152_64x4d": Work(22.9393, 156),
    "wide_resnet50_2": Work(11.398, 54),
    "wide_resnet101_2": Work(22.7531, 105),
    "shufflenet_v2_x0_25": Work(0.0176, 57),
    "shufflenet_v2_x0_33": Work(0.0225, 57),
    "shufflenet_v2_x0_5": Work(0.0405, 57),
    "shufflenet_v2_x1_0": Work(0.1449, 57),
    "shufflenet_v2_x1_5": Work(0.2958, 57),
    "shufflenet_v2_x2_0": Work(0.5644, 57),
    "shufflenet_v2_swish": Work(0.1449, 57),
    "squeezenet1_0": Work(0.7772, 26),
    "squeezenet1_1": Work(0.3495, 26),
    "vgg11": Work(7.6091, 11),
    "vgg13": Work(11.3085, 13),
    "vgg16": Work(15.4703, 16),
    "vgg19": Work(19.6321, 19),
    "yolov3_mobilenet_v1": Work(10.3743, 50),
}


def work_of(model: ModelSpec) -> Work | None:
    """Return the work of a manifest's network for its input shape; None for other networks."""
    known = NETWORKS.get(model.name or "")
    if known is None:
        return None
    side = _SIDES.get(str(model.name), _SIDE)
    _, height, width = model.input_shape
    scale = height * width / side**2 * model.width**2
    return Work(known.multiplications * scale, known.layers)
