"""What oneDNN's description of a layer's shape says of its size and of its work.

The notation is benchdnn's: https://github.com/uxlfoundation/oneDNN/tree/main/tests/benchdnn/doc
"""

import math
import re
from collections.abc import Mapping

_PART = re.compile(r"([a-z]+)(\d+)")


def sizes(shape: str) -> dict[str, int]:
    """The named sizes of a convolution, pooling or inner product; none for other shapes.

    ``g144mb1_ic144oc144_ih56oh28kh3sh2dh0ph1`` has ``g`` groups, ``mb`` images, ``ic`` input and
    ``oc`` output channels, and along the height ``ih`` pixels in, ``oh`` out, kernel ``kh``,
    stride ``sh``, dilation ``dh`` and padding ``ph``; ``d`` and ``w`` likewise.
    """
    return {} if ":" in shape else {name: int(size) for name, size in _PART.findall(shape)}


def is_depthwise(shape: str) -> bool:
    """Whether each channel of a convolution is computed from one channel alone."""
    found = sizes(shape)
    return found.get("g", 1) > 1 and found["g"] == found.get("ic") == found.get("oc")


def work(shape: str) -> tuple[int, int, int]:
    """A layer's multiplications, weights, and values read and written, weights apart.

    All are 0 for a shape that is none of a convolution, an inner product or a matrix product.
    """
    if ":" in shape:
        return _product_work(shape)
    found = sizes(shape)
    if "oc" not in found:
        return 0, 0, 0
    kernel = found["ic"] // found.get("g", 1) * _volume(found, "k")
    if "kh" not in found:
        # An inner product's kernel covers its whole input.
        kernel *= _volume(found, "i")
    weights = found["oc"] * kernel
    outputs = _volume(found, "o")
    read = found["mb"] * found["ic"] * _volume(found, "i")
    written = found["mb"] * found["oc"] * outputs
    return written * kernel, weights, read + written


def _product_work(shape: str) -> tuple[int, int, int]:
    """As ``work``, of a matrix product such as ``8x512:512x1000``."""
    left, right = ([int(n) for n in part.split("x")] for part in shape.split(":")[:2])
    rows, columns = math.prod(left), right[-1]
    return rows * columns, math.prod(right), rows + rows // left[-1] * columns


def _volume(found: Mapping[str, int], prefix: str) -> int:
    return math.prod(found.get(f"{prefix}{axis}", 1) for axis in "dhw")


def words(shape: str) -> str:
    """A layer's shape for people, such as ``3×3/2 64→128, 56×56``: kernel, stride, channels, input.

    Other shapes come back as they are, such as ``1×64×56×56``.
    """
    found = sizes(shape)
    if "ic" not in found:
        return shape.replace("x", "×").replace(":", " · ")
    channels = f"{found['ic']}→{found['oc']}" if "oc" in found else f"{found['ic']}"
    sides = f", {found['ih']}×{found.get('iw', 1)}" if "ih" in found else ""
    if "kh" not in found:
        return f"{channels}{sides}"
    kernel = f"{found['kh']}×{found.get('kw', 1)}"
    stride = f"/{found['sh']}" if found.get("sh", 1) > 1 else ""
    if is_depthwise(shape):
        return f"{kernel}{stride} depthwise {found['oc']}{sides}"
    groups = f" in {found['g']} groups" if found.get("g", 1) > 1 else ""
    return f"{kernel}{stride} {channels}{groups}{sides}"
