"""Finds the layers with weights in a program: convolutions and matrix products.

A layer reads patches of its input. A patch has one value per weight of an output channel. With the
weight as a matrix, a layer computes ``patches @ weight.T``, apart from its bias.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from paddle.static import Program

from job.engine.quantize.graph import Graph
from job.engine.training.programs import SKIP

CONVOLUTION_TYPES = {"conv2d", "depthwise_conv2d"}
# Matrix product -> attributes that transpose its operands.
PRODUCT_TYPES = {
    "mul": (),
    "matmul": ("transpose_X", "transpose_Y"),
    "matmul_v2": ("trans_x", "trans_y"),
}
NAME_SCOPE = "op_namescope"
SHAPE_TYPES = ("flatten_contiguous_range", "flatten2", "reshape2", "squeeze2", "dropout")


@dataclass(frozen=True)
class Window:
    """Geometry of a two-dimensional convolution.

    Attributes:
        kernel, strides, dilations: (height, width) each.
        paddings: (top, bottom, left, right), or the name of an algorithm, ``SAME`` or ``VALID``.
        groups: number of groups of channels.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    paddings: tuple[int, int, int, int] | str
    groups: int

    def padded(self, images: np.ndarray) -> np.ndarray:
        """Return images [N, C, H, W] with the zeros that the convolution pads."""
        if self.paddings == "VALID":
            return images
        if isinstance(self.paddings, tuple):
            top, bottom, left, right = self.paddings
        else:
            (top, bottom), (left, right) = (
                same_padding(size, kernel, stride)
                for size, kernel, stride in zip(
                    images.shape[2:], self.kernel, self.strides, strict=True
                )
            )
        return np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)))

    def windows(self, images: np.ndarray) -> np.ndarray:
        """Return all patches of images [N, C, H, W] as a view [N, C, rows, columns, kh, kw]."""
        reach = [1 + d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True)]
        view = np.lib.stride_tricks.sliding_window_view(
            self.padded(images), tuple(reach), axis=(2, 3)
        )
        (down, right), (dy, dx) = self.strides, self.dilations
        return view[:, :, ::down, ::right, ::dy, ::dx]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return Paddle's padding before and after, for the algorithm SAME."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@dataclass(frozen=True)
class Layer:
    """An op with a weight.

    Attributes:
        weight: name of the weight.
        source: name of the input.
        output: name of the output.
        window: the geometry of a convolution; None for a matrix product.
        rows: for a product, the number of leading dimensions of the input that are rows.
        inputs: number of values of a patch.
        correction: variable that can absorb a shift of the layer's output, and the sign of the
            change: a batch norm's running mean (+1) or a bias (-1). None if there is none.
    """

    weight: str
    source: str
    output: str
    window: Window | None
    rows: int
    inputs: int
    correction: tuple[str, int] | None

    @property
    def groups(self) -> int:
        """Number of groups of input channels, 1 for a product."""
        return 1 if self.window is None else self.window.groups

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """Return a weight as [groups, outputs per group, values of a patch]."""
        if self.window is None:
            return weight.T[np.newaxis]
        return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)

    def restored(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the weight of a given shape from :meth:`matrix`."""
        return matrix[0].T if self.window is None else matrix.reshape(shape)

    def rows_of(self, values: np.ndarray) -> np.ndarray:
        """Return the input, reshaped so that its mean over the first axis fits :meth:`mean_patch`.

        The shape is [N, C, H, W] for a convolution and [rows, C] for a product.
        """
        if self.window is not None:
            return values
        return values.reshape(int(np.prod(values.shape[: self.rows])), -1)

    def patches(self, values: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
        """Return patches of the input as [groups, patches, values of a patch].

        Args:
            values: the input: [N, C, H, W] for a convolution, [..., C] for a product.
            chosen: positions of patches in an image, in the order of rows and columns; None
                returns all patches.
        """
        if self.window is None:
            flat = self.rows_of(values)
            return flat[np.newaxis] if chosen is None else flat[np.newaxis, chosen]
        windows = self.window.windows(values)
        count, channels, height, width = windows.shape[:4]
        if chosen is None:
            chosen = np.arange(height * width)
        # [N, C, patches, kh, kw] -> [groups, N * patches, C / groups * kh * kw]
        picked = windows[:, :, chosen // width, chosen % width]
        picked = picked.reshape(count, self.groups, channels // self.groups, len(chosen), -1)
        picked = picked.transpose(1, 0, 3, 2, 4)
        return picked.reshape(self.groups, count * len(chosen), -1)

    def positions(self, values: np.ndarray) -> int:
        """Return the number of patches per image, or of rows of a product's input."""
        if self.window is None:
            return len(self.rows_of(values))
        height, width = self.window.windows(values[:1]).shape[2:4]
        return height * width

    def mean_patch(self, mean: np.ndarray) -> np.ndarray:
        """Return the mean over patches, [groups, values of a patch].

        Args:
            mean: the mean of :meth:`rows_of`, [C, H, W] for a convolution, [C] for a product.
        """
        if self.window is None:
            return mean[np.newaxis]
        # Paddle pads zeros, and the mean of the patches at the border includes them.
        means = self.window.windows(mean[np.newaxis]).mean(axis=(0, 2, 3))
        return means.reshape(self.groups, -1)


def layers_of(program: Program, weights: Collection[str]) -> dict[str, list[Layer]]:
    """Return the layers that read each weight, by the weight's name.

    Ops that are excluded from quantization are ignored. A weight is missing from the result if a
    layer reads it in a way that :class:`Layer` cannot express, such as a product with a transposed
    input.

    Args:
        program: FP32 inference program.
        weights: names of the quantized weights.
    """
    graph = Graph(program)
    found: dict[str, list[Layer]] = {}
    odd: set[str] = set()
    for op in graph.block.ops:
        excluded = op.has_attr(NAME_SCOPE) and SKIP in op.attr(NAME_SCOPE)
        for name in set() if excluded else set(op.input_arg_names) & set(weights):
            layer = _layer(graph, op, name)
            if layer is not None:
                found.setdefault(name, []).append(layer)
            elif op.type in CONVOLUTION_TYPES | PRODUCT_TYPES.keys():
                odd.add(name)
    return {name: layers for name, layers in found.items() if name not in odd}


def _layer(graph: Graph, op: Any, weight: str) -> Layer | None:
    """Return the layer of an op; None for other ops."""
    block = graph.block
    if op.type in CONVOLUTION_TYPES and op.input("Filter") == [weight]:
        (source,), (output,) = op.input("Input"), op.output("Output")
        window, inputs = _window(op, block), int(np.prod(block.var(weight).shape[1:]))
        return Layer(weight, source, output, window, 0, inputs, _correction(graph, output))
    if op.type in PRODUCT_TYPES and op.input("Y") == [weight]:
        (source,), (output,) = op.input("X"), op.output("Out")
        if any(map(op.attr, PRODUCT_TYPES[op.type])) or len(block.var(weight).shape) != 2:
            return None
        rows = op.attr("x_num_col_dims") if op.type == "mul" else len(block.var(source).shape) - 1
        inputs = block.var(weight).shape[0]
        return Layer(weight, source, output, None, rows, inputs, _correction(graph, output))
    return None


def _window(op: Any, block: Any) -> Window:
    height, width = block.var(op.input("Filter")[0]).shape[2:]
    paddings: Any = op.attr("padding_algorithm")
    dilations = tuple(op.attr("dilations"))
    if paddings == "SAME":
        # Paddle ignores dilations with this algorithm.
        dilations = (1, 1)
    elif paddings != "VALID":
        paddings = tuple(op.attr("paddings"))
        if len(paddings) == 2:
            paddings = (paddings[0], paddings[0], paddings[1], paddings[1])
    return Window(
        (height, width), tuple(op.attr("strides")), dilations, paddings, op.attr("groups")
    )


def _correction(graph: Graph, output: str) -> tuple[str, int] | None:
    """Return the variable behind a layer that can absorb a shift of its output, and the sign."""
    readers = [op for op in graph.block.ops if output in op.input_arg_names]
    if len(readers) != 1:
        return None
    (reader,) = readers
    if reader.type == "batch_norm":
        name, sign = reader.input("Mean")[0], 1
    elif reader.type == "elementwise_add" and reader.input("X") == [output]:
        name, sign = reader.input("Y")[0], -1
        if not graph.block.var(name).persistable or len(graph.block.var(name).shape) != 1:
            return None
    else:
        return None
    # A variable that other ops read too must keep its value. A batch norm also writes it.
    used = [op for op in graph.block.ops if name in op.input_arg_names]
    return (name, sign) if len(used) == 1 else None


def pixels_before_mean(program: Program, layer: Layer) -> Layer | None:
    """Return a layer that reads the pixels whose mean is the input of a product; None without.

    Args:
        program: FP32 inference program.
        layer: the product.
    """
    if layer.window is not None:
        return None
    graph = Graph(program)
    op = graph.source(layer.source)
    while op is not None and op.type in SHAPE_TYPES:
        op = graph.source(op.input("X")[0])
    if op is None or not takes_global_mean(op):
        return None
    pixel = Window((1, 1), (1, 1), (1, 1), "VALID", 1)
    return replace(layer, source=op.input("X")[0], window=pixel, correction=None)


def takes_global_mean(op: Any) -> bool:
    """Return whether an op computes the mean over the pixels of each channel."""
    if op.type == "pool2d":
        whole = op.attr("global_pooling") or (op.attr("adaptive") and op.attr("ksize") == [1, 1])
        return op.attr("pooling_type") == "avg" and bool(whole)
    return op.type == "reduce_mean" and sorted(op.attr("dim")) == [2, 3]
