"""Finds the weights of torchvision's networks for the networks of paddle.vision.models.

ResNets, VGGs and MobileNetV2 have equal names in both libraries. The networks of this module have
the same layers, but other names. Two networks of torchvision compute something else than Paddle's,
so their weights are rejected.
"""

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
# Returns the name of a layer in torchvision; None if the layer belongs to another network.
Rename = Callable[[str], str | None]

_ALEXNET = {
    "_conv1._conv": "features.0",
    "_conv2._conv": "features.3",
    "_conv3": "features.6",
    "_conv4": "features.8",
    "_conv5._conv": "features.10",
    "_fc6": "classifier.1",
    "_fc7": "classifier.4",
    "_fc8": "classifier.6",
}
# Position of the first module of each convolution in a branch of ShuffleNetV2.
_SHUFFLE_PARTS = {
    "_conv_dw_1": ("branch1", 0),
    "_conv_linear_1": ("branch1", 2),
    "_conv_pw_2": ("branch2", 0),
    "_conv_dw_2": ("branch2", 3),
    "_conv_linear_2": ("branch2", 5),
    "_conv_pw": ("branch2", 0),
    "_conv_dw": ("branch2", 3),
    "_conv_linear": ("branch2", 5),
}
_SHUFFLE_ENDS = {"_conv1": "conv1", "_last_conv": "conv5"}
_DENSE_ENDS = {
    "conv1_func._conv": "features.conv0",
    "conv1_func._batch_norm": "features.norm0",
    "batch_norm": "features.norm5",
    "out": "classifier",
}
_DENSE_PARTS = {"_batch_norm": "norm", "_conv": "conv"}
_MIXED = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
_INCEPTION_PARTS = {"0": "conv", "1": "bn"}
# Paddle's dropout layers of these networks multiply by 1 - p in inference, torchvision's do not.
# Therefore the weights behind a dropout layer are divided by 1 - p.
_BEHIND_DROPOUT = {"_fc6.weight": 0.5, "_fc7.weight": 0.5}
_BEHIND_DROPOUT_OF_INCEPTION = {"fc.weight": 0.8}
# torchvision builds Inception v3 with an epsilon of 1e-3 in batch norms, Paddle with 1e-5.
_INCEPTION_EPSILON = 1e-3 - 1e-5
_VARIANCE = "._variance"
# Order of the parts of a MobileNetV3 block.
_MOBILE_PARTS = ("expand_conv", "bottleneck_conv", "mid_se", "linear_conv")
# torchvision's published DenseNet weights have names such as `denselayer1.norm.1`.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")

# Networks of /model/name with other layers in torchvision: a name in torchvision, the difference.
_DIFFERENT = {
    "squeezenet1_0": ("features.3.squeeze.weight", "torchvision's pooling rounds sizes up"),
    "squeezenet1_1": ("features.3.squeeze.weight", "torchvision's first layer has no padding"),
    "googlenet": ("inception3a.branch1.conv.weight", "torchvision's network has batch norms"),
}


def difference(network: str | None, names: Container[str]) -> str:
    """Return how torchvision's network differs from Paddle's; empty if the weights can fit.

    Args:
        network: value of /model/name.
        names: names of the weights in the file.
    """
    name, text = _DIFFERENT.get(network or "", ("", ""))
    return text if name in names else ""


def from_torchvision(given: Arrays, wanted: Sequence[str]) -> Arrays:
    """Return arrays by the names of the network, if they have the names of torchvision.

    Args:
        given: arrays by the names of the file, with Paddle's names of batch-norm statistics.
        wanted: the names of the network's weights.

    Returns:
        The arrays by the names of the network; ``given`` if no network of torchvision fits.
    """
    renamed = {_OLD_DENSENET.sub(r"\1\2.", name): values for name, values in given.items()}
    for rename in torchvision_renamings(wanted):
        names = {name: whole_name(name, rename) for name in wanted}
        if names and all(theirs in renamed for theirs in names.values()):
            arrays = {name: renamed[str(theirs)] for name, theirs in names.items()}
            return _same_results(arrays, inception=rename is _inception)
    return given


def whole_name(name: str, rename: Rename) -> str | None:
    """Return the name of a weight in torchvision; None if its layer has none."""
    layer, _, weight = name.rpartition(".")
    theirs = rename(layer)
    return None if theirs is None else f"{theirs}.{weight}"


def torchvision_renamings(wanted: Sequence[str]) -> Iterator[Rename]:
    """Yield the renaming of each network, for a network with the weights ``wanted``."""
    yield _ALEXNET.get
    yield from (_densenet, _inception, _shufflenet, partial(_mobilenet_v3, wanted))


def _densenet(layer: str) -> str | None:
    if layer in _DENSE_ENDS:
        return _DENSE_ENDS[layer]
    if found := re.fullmatch(r"tr_conv(\d)_blk\.conv_ac_func\.(_conv|_batch_norm)", layer):
        return f"features.transition{int(found[1]) - 1}.{_DENSE_PARTS[found[2]]}"
    found = re.fullmatch(r"db_conv_(\d)\.conv\d_(\d+)\.bn_ac_func(\d)\.(_conv|_batch_norm)", layer)
    if found is None:
        return None
    place = f"features.denseblock{int(found[1]) - 1}.denselayer{found[2]}"
    return f"{place}.{_DENSE_PARTS[found[4]]}{found[3]}"


def _inception(layer: str) -> str | None:
    if layer == "fc":
        return layer
    if found := re.fullmatch(r"inception_stem\.conv_(\w+)\.([01])", layer):
        return f"Conv2d_{found[1]}.{_INCEPTION_PARTS[found[2]]}"
    found = re.fullmatch(r"inception_block_list\.(\d+)\.(\w+)\.([01])", layer)
    if found is None:
        return None
    branch = found[2].replace("branch_pool_conv", "branch_pool")
    return f"Mixed_{_MIXED[int(found[1])]}.{branch}.{_INCEPTION_PARTS[found[3]]}"


def _same_results(arrays: Arrays, *, inception: bool) -> Arrays:
    """Return arrays that give torchvision's results with Paddle's dropout and epsilon."""
    kept = _BEHIND_DROPOUT_OF_INCEPTION if inception else _BEHIND_DROPOUT
    shift = _INCEPTION_EPSILON if inception else 0.0
    return {
        name: values / values.dtype.type(kept[name])
        if name in kept
        else values + values.dtype.type(shift)
        if shift and name.endswith(_VARIANCE)
        else values
        for name, values in arrays.items()
    }


def _shufflenet(layer: str) -> str | None:
    if layer == "_fc":
        return "fc"
    first, _, rest = layer.partition(".")
    if first in _SHUFFLE_ENDS:
        return f"{_SHUFFLE_ENDS[first]}.{rest}"
    found = re.fullmatch(r"(\d)_(\d)\.(\w+)\.(\d)", layer)
    if found is None or found[3] not in _SHUFFLE_PARTS:
        return None
    branch, start = _SHUFFLE_PARTS[found[3]]
    return f"stage{found[1]}.{int(found[2]) - 1}.{branch}.{start + int(found[4])}"


def _mobilenet_v3(wanted: Sequence[str], layer: str) -> str | None:
    first, _, rest = layer.partition(".")
    if first == "classifier":
        return layer
    blocks = [int(name.split(".")[1]) for name in wanted if name.startswith("blocks.")]
    if first in ("conv", "lastconv"):
        return f"features.{0 if first == 'conv' else max(blocks, default=0) + 2}.{rest}"
    found = re.fullmatch(r"(blocks\.(\d+)\.)(\w+)\.(\w+)", layer)
    if found is None:
        return None
    present = [
        part for part in _MOBILE_PARTS if any(n.startswith(f"{found[1]}{part}.") for n in wanted)
    ]
    if found[3] not in present:
        return None
    return f"features.{int(found[2]) + 1}.block.{present.index(found[3])}.{found[4]}"
