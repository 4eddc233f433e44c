"""Reads sizes and amount of work from oneDNN's description of a layer's shape.

The notation is benchdnn's: https://github.com/uxlfoundation/oneDNN/tree/main/tests/benchdnn/doc
"""

import math
import re
from collections.abc import Mapping

_PART = re.compile(r"([a-z]+)(\d+)")


def sizes(shape: str) -> dict[str, int]:
    """Return the named sizes of a convolution, pooling or inner product; empty for other shapes.

    ``g144mb1_ic144oc144_ih56oh28kh3sh2dh0ph1`` has ``g`` groups, ``mb`` images, ``ic`` input and
    ``oc`` output channels, and along the height ``ih`` pixels in, ``oh`` out, kernel ``kh``,
    stride ``sh``, dilation ``dh`` and padding ``ph``; ``d`` and ``w`` likewise.
    """
    return {} if ":" in shape else {name: int(size) for name, size in _PART.findall(shape)}


def is_depthwise(shape: str) -> bool:
    """Return whether each output channel of a convolution depends on one input channel only."""
    named = sizes(shape)
    return named.get("g", 1) > 1 and named["g"] == named.get("ic") == named.get("oc")


def work(shape: str) -> tuple[int, int, int]:
    """Return a layer's number of multiplications, of weights, and of inputs plus outputs.

    All are 0 for shapes other than convolutions, inner products and matrix products.
    """
    if ":" in shape:
        return _product_work(shape)
    named = sizes(shape)
    if "oc" not in named:
        return 0, 0, 0
    kernel = named["ic"] // named.get("g", 1) * _volume(named, "k")
    if "kh" not in named:
        # An inner product's kernel covers its whole input.
        kernel *= _volume(named, "i")
    weights = named["oc"] * kernel
    outputs = _volume(named, "o")
    read = named["mb"] * named["ic"] * _volume(named, "i")
    written = named["mb"] * named["oc"] * outputs
    return written * kernel, weights, read + written


def _product_work(shape: str) -> tuple[int, int, int]:
    """Return the result of ``work`` for a matrix product such as ``8x512:512x1000``."""
    left, right = ([int(n) for n in part.split("x")] for part in shape.split(":")[:2])
    rows, columns = math.prod(left), right[-1]
    return rows * columns, math.prod(right), rows + rows // left[-1] * columns


def _volume(named: Mapping[str, int], prefix: str) -> int:
    return math.prod(named.get(f"{prefix}{axis}", 1) for axis in "dhw")


def words(shape: str) -> str:
    """Return a readable shape: kernel, stride, channels, input, such as ``3×3/2 64→128, 56×56``.

    Other shapes keep their form, such as ``1×64×56×56``.
    """
    named = sizes(shape)
    if "ic" not in named:
        return shape.replace("x", "×").replace(":", " · ")
    channels = f"{named['ic']}→{named['oc']}" if "oc" in named else f"{named['ic']}"
    sides = f", {named['ih']}×{named.get('iw', 1)}" if "ih" in named else ""
    if "kh" not in named:
        return f"{channels}{sides}"
    kernel = f"{named['kh']}×{named.get('kw', 1)}"
    stride = f"/{named['sh']}" if named.get("sh", 1) > 1 else ""
    if is_depthwise(shape):
        return f"{kernel}{stride} depthwise {named['oc']}{sides}"
    groups = f" in {named['g']} groups" if named.get("g", 1) > 1 else ""
    return f"{kernel}{stride} {channels}{groups}{sides}"
