"""Saves small networks as Paddle 3 does by default, with the scores of Paddle Inference.

Run as a program, ``python pir_networks.py FOLDER NAME...``, because Paddle reads
FLAGS_enable_pir_api while it is imported.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Name -> expression of the image ``x`` [N, 3, 8, 8], the convolution's output ``y`` [N, 8, 8, 8],
# and another convolution's output ``z`` [N, 8, 8, 8].
ACTIVATIONS = {
    "sigmoid": "F.sigmoid(y)",
    "hardswish": "F.hardswish(y)",
    "hardsigmoid": "F.hardsigmoid(y)",
    "swish": "F.swish(y)",
    "silu": "F.silu(y)",
    "gelu": "F.gelu(y) + F.gelu(y, approximate=True)",
    "softmax": "F.softmax(y, 1) + F.log_softmax(y, -1)",
    "relu6": "F.relu6(4 * y)",
    "leaky_relu": "F.leaky_relu(y, 0.2)",
    "elu": "F.elu(y, 0.7) + F.celu(y, 0.7) + F.selu(y)",
    "mish": "F.mish(y)",
    "softplus": "F.softplus(y, 2.0, 10.0)",
    "tanh": "F.tanh(y) + F.tanhshrink(y) + F.softsign(y)",
    "shrink": "F.hardtanh(y, -0.5, 0.6) + F.hardshrink(y) + F.softshrink(y)",
    "thresholded_relu": "F.thresholded_relu(y) + F.rrelu(y, training=False)",
    "log_sigmoid": "F.log_sigmoid(y)",
    "maxout": "F.maxout(y, 2)",
    "glu": "F.glu(y, 1)",
}
ARITHMETIC = {
    "binary": "y * z - z / (paddle.abs(y) + 1) + paddle.maximum(y, z) - paddle.minimum(y, z)",
    "powers": "paddle.pow(y, 2.0) + y**3 + paddle.sqrt(y.abs() + 1) + paddle.rsqrt(y.abs() + 1)",
    "logs": "paddle.log(y.abs() + 1) + paddle.log1p(y.abs()) + paddle.exp(y) + paddle.expm1(y)",
    "scale": "y * 0.5 + 1.5 - paddle.scale(y, 2.0, 3.0, bias_after_scale=False) + (1 - y) + 2 / y",
    "clip": "paddle.clip(y, -0.3, 0.4) + paddle.clip(y, min=0.1) + paddle.clip(y, max=0.2)",
    "rounding": "paddle.floor(y) + paddle.ceil(z) + paddle.round(3 * y) + paddle.sign(y)",
    "trigonometry": "paddle.sin(y) + paddle.cos(y) + paddle.erf(y) + paddle.atan(y)",
    "arcs": "paddle.asin(0.5 * F.sigmoid(y)) - paddle.acos(0.5 * F.sigmoid(z)) + paddle.tan(y)",
    "hyperbolic": "paddle.sinh(y) + paddle.cosh(y) + paddle.stanh(y) + paddle.square(y)",
    "logs_of_others": "paddle.log10(y.abs() + 1) + paddle.log2(y.abs() + 1)",
    "reciprocal": "paddle.reciprocal(y.abs() + 1) + paddle.assign(z)",
    "extremes": "paddle.fmax(y, z) - 2 * paddle.fmin(y, z) + paddle.amin(y, [2, 3], keepdim=True)",
    "integer_division": "paddle.mod(y, z.abs() + 1) + paddle.floor_divide(y, z.abs() + 1)",
    "where": "paddle.where(y > z, y, z * (y < 0.1).astype('float32'))",
    "logic": "(paddle.logical_and(y > 0, z > 0)).astype('float32') + (y <= z).astype('float32')",
    "comparisons": "(paddle.ceil(y) == paddle.ceil(z)).astype('float32') "
    "+ (y >= z).astype('float32') * z + (paddle.floor(y) != paddle.floor(z)).astype('float32') * 3",
    "more_logic": "(paddle.logical_or(y > 1, z > 1)).astype('float32') * y"
    " + paddle.logical_xor(y > 0, z > 0).astype('float32') * z"
    " + paddle.logical_not(y > 0.5).astype('float32') + paddle.isinf(y).astype('float32')",
    "infinite": "paddle.where(y > 0, y, paddle.full([1], float('-inf'))).exp()",
    "finite": "(paddle.isfinite(y)).astype('float32') + paddle.isnan(y).astype('float32')",
    "lerp": "paddle.lerp(y, z, 0.3) + paddle.add_n([y, z])",
    "matmul": "paddle.matmul(y, z, transpose_y=True) + paddle.matmul(y, z, transpose_x=True)",
    "bmm": "paddle.bmm(y.flatten(2), z.flatten(2).transpose([0, 2, 1]))",
    "einsum": "paddle.einsum('nchw,nchv->ncwv', y, z)",
    "cast": "y.astype('int32').astype('float32') + y.astype('float64').astype('float32')",
}
SHAPES = {
    "split": "paddle.split(y, [2, 6], axis=1)[1].sum(1) + paddle.split(y, 2, axis=1)[0].sum(1)",
    "concat": "paddle.concat([paddle.concat([y, z], axis=1), x], axis=1)",
    "stack": "paddle.stack([y, z], 1).flatten(1, 2)",
    "slice": "y[:, 1:5, ::2, 1:] + y[:, 2, 2:6, 1:].unsqueeze(1)",
    "squeeze": "y.mean([2, 3], keepdim=True).squeeze([2, 3]).unsqueeze([2, 3])",
    "reduce": "y.mean([2, 3]) + y.max([2, 3]) - y.min([2, 3]) + y.prod(-1).sum(-1)",
    "reduce_all": "y[:, :1] + y.mean() + y.sum()",
    "amax": "paddle.amax(y, [2, 3]) + paddle.logsumexp(y, [2, 3])",
    "norm": "F.normalize(y, axis=1) + paddle.linalg.norm(y, axis=1, keepdim=True)",
    "variance": "y.std([2, 3]) + y.var([2, 3])",
    "flatten": "y.flatten(1)",
    "reshape": "y.reshape([0, 4, 2, -1]).transpose([0, 2, 1, 3]).flatten(1)",
    "reshape_batch": "y.reshape([paddle.shape(y)[0], 8, 64])",
    "reshape_computed": "y.reshape([paddle.shape(y)[0], -1])",
    "expand": "y.mean([2, 3], keepdim=True).expand([-1, -1, 8, 8]) + y",
    "expand_as": "y.mean([2, 3], keepdim=True).expand_as(y) + paddle.tile(y, [1, 1, 1, 1])",
    "tile": "paddle.tile(y, [1, 2, 1, 3])",
    "roll": "paddle.roll(y, [1, 2], [2, 3]) + paddle.flip(y, [3])",
    "unbind": "paddle.unbind(y, 1)[3] + paddle.unstack(y, axis=1)[1]",
    "shuffle": "F.pixel_shuffle(y, 2).mean() + F.channel_shuffle(y, 2)",
    "unfold": "F.unfold(y, 3, paddings=1)",
    "choose": "y * paddle.argmax(y, 1, keepdim=True).astype('float32') + paddle.sort(y, 1)",
    "topk": "paddle.topk(y, 3, axis=1)[0]",
    "gather": "paddle.gather(y, paddle.to_tensor([0, 3]), axis=1)",
    "index_select": "paddle.index_select(y, paddle.to_tensor([1, 2]), axis=1)",
    "gather_nd": "paddle.gather_nd(y, paddle.to_tensor([[0, 1], [1, 2], [2, 5]]))",
    "take_along_axis": "paddle.take_along_axis(y, paddle.argmin(y, 1, keepdim=True), 1)",
    "repeat": "paddle.repeat_interleave(y, 2, 1)",
    "grid": "y + paddle.meshgrid(paddle.arange(8.0), paddle.arange(0.0, 4.0, 0.5))[0]",
    "grid_sample": "F.grid_sample(y, F.affine_grid("
    "paddle.to_tensor(3 * [[[1, 0.1, 0], [0, 0.9, 0.1]]]), [3, 8, 8, 8]))",
    "computed_shape": "y + paddle.full([paddle.shape(y)[0], 1, 1, 1], 0.5)",
    "one_hot": "F.one_hot(paddle.argmax(y.mean([2, 3]), 1), 8)",
    "constants": "y + paddle.full([1, 8, 1, 1], 0.5) + paddle.ones_like(y)",
    "ranges": "y + paddle.arange(8, dtype='float32') + paddle.linspace(-1, 1, 8)",
    "array": "y * paddle.to_tensor(np.linspace(-1, 1, 8, dtype='float32'))",
    "tril": "paddle.tril(y)",
    "cumsum": "paddle.cumsum(y, 1)",
    "dropout": "F.dropout(y, 0.3, training=False) + F.dropout2d(y, 0.3, training=False)",
    "dropout_scaled": "F.dropout(y, 0.3, training=False, mode='downscale_in_infer')",
    "several_outputs": "(y.mean([2, 3]), z * 2)",
}
POOLS = {
    "average": "F.avg_pool2d(y, 3, 2, 1) + F.avg_pool2d(y, 3, 2, 1, exclusive=False)",
    "maximum": "F.max_pool2d(y, 3, 2, 0, ceil_mode=True)",
    "maximum_mask": "F.max_pool2d(y, 2, 2, return_mask=True)[0]",
    "adaptive_average": "F.adaptive_avg_pool2d(y, 3) + F.adaptive_avg_pool2d(y, 1)",
    "adaptive_maximum": "F.adaptive_max_pool2d(y, 2)",
    "nearest": "F.interpolate(y, scale_factor=2, mode='nearest')",
    "bilinear": "F.interpolate(y, size=[12, 12], mode='bilinear')",
    "bilinear_corners": "F.interpolate(y, scale_factor=2, mode='bilinear', align_corners=True)",
    "bicubic": "F.interpolate(y, scale_factor=2, mode='bicubic')",
    "pad": "F.pad(y, [1, 2, 1, 0]) + F.pad(y, [1, 2, 1, 0], value=0.5)",
    "pad_reflect": "F.pad(y, [1, 2, 1, 1], mode='reflect')",
    "pad_replicate": "F.pad(y, [1, 2, 1, 1], mode='replicate')",
}
# Name -> layers that run one after the other on the convolution's output.
LAYERS = {
    "convolution": "nn.Conv2D(8, 8, 3, padding=[1, 0, 2, 1]), nn.Conv2D(8, 4, 3, padding='SAME')",
    "convolution_group": "nn.Conv2D(8, 8, 3, groups=2), nn.Conv2D(8, 8, 3, dilation=2)",
    "convolution_depthwise": "nn.Conv2D(8, 16, 3, groups=8, bias_attr=False)",
    "convolution_transpose": "nn.Conv2DTranspose(8, 4, 3, 2, 1, output_padding=1)",
    "convolution_transpose_depthwise": "nn.Conv2DTranspose(8, 8, 3, 2, 1, groups=8)",
    "batch_norm": "nn.BatchNorm2D(8), nn.ReLU()",
    "layer_norm": "nn.LayerNorm([8, 8]), nn.LayerNorm(8, weight_attr=False, bias_attr=False)",
    "group_norm": "nn.GroupNorm(2, 8), nn.InstanceNorm2D(8)",
    "prelu": "nn.PReLU(8), nn.PReLU()",
    "linear": "nn.Linear(8, 6), nn.Linear(6, 5, bias_attr=False)",
    "weight_norm": "nn.utils.weight_norm(nn.Conv2D(8, 8, 3))",
    "attention": "Tokens(), nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, activation='gelu')",
}
EXPRESSIONS: Mapping[str, str] = {**ACTIVATIONS, **ARITHMETIC, **SHAPES, **POOLS}
SPECIAL = ("embedding", "convolution_3d", "mobilenet_v1", "resnet18")
NAMES = (*EXPRESSIONS, *LAYERS, *SPECIAL)
# Networks that contain an op without translation, and the name of the op.
UNSUPPORTED = {"recurrent": "pd_op.rnn", "condition": "pd_op.if"}


def image_shape(name: str) -> list[int]:
    """Return the shape of a network's input, without the batch dimension."""
    return [3, 32, 32] if name in ("mobilenet_v1", "resnet18") else [3, 8, 8]


def build(name: str) -> Any:
    """Return a network in evaluation mode with random weights and statistics."""
    import paddle  # noqa: TID251
    import paddle.nn.functional as F  # noqa: N812, TID251
    from paddle import nn  # noqa: TID251
    from paddle.vision import models  # noqa: TID251

    class Network(nn.Layer):
        def __init__(self, forward: Callable[..., object], *layers: nn.Layer) -> None:
            super().__init__()
            self.layers = nn.LayerList(layers)
            self.run = forward

        def forward(self, x: paddle.Tensor) -> object:
            return self.run(x, *self.layers)

    class Tokens(nn.Layer):
        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return x.flatten(2).transpose([0, 2, 1])

    def convolution() -> nn.Layer:
        return nn.Conv2D(3, 8, 3, padding=1)

    known = {"paddle": paddle, "F": F, "nn": nn, "np": np, "Tokens": Tokens}
    paddle.seed(3)
    if name in EXPRESSIONS:
        body = eval(f"lambda x, y, z: {EXPRESSIONS[name]}", known)  # noqa: S307
        network = Network(lambda x, a, b: body(x, a(x), b(x)), convolution(), convolution())
    elif name in LAYERS:
        network = nn.Sequential(convolution(), *eval(f"({LAYERS[name]},)", known))  # noqa: S307
    elif name == "embedding":
        network = Network(
            lambda x, table: table((x.abs() * 3).astype("int64").clip(0, 15).flatten(1)),
            nn.Embedding(16, 8),
        )
    elif name == "convolution_3d":
        network = Network(
            lambda x, layer: F.avg_pool3d(layer(x.unsqueeze(1)), 2), nn.Conv3D(1, 4, 3, padding=1)
        )
    elif name == "recurrent":
        network = Network(lambda x, layer: layer(x.flatten(2))[0], nn.LSTM(64, 8))
    elif name == "condition":
        network = Network(
            lambda x: paddle.static.nn.cond(x.mean() > 0, lambda: x * 2, lambda: x * 3)
        )
    else:
        width = {"scale": 0.25} if name == "mobilenet_v1" else {}
        network = getattr(models, name)(num_classes=4, **width)
    network.eval()
    for key, value in network.state_dict().items():
        if key.endswith("_mean"):
            value.set_value(paddle.randn(value.shape) * 0.1)
        elif key.endswith("_variance"):
            value.set_value(paddle.rand(value.shape) * 0.5 + 0.75)
        elif value.ndim <= 1:
            value.set_value(paddle.rand(value.shape) * 0.5 + 0.5)
    return network


def main(folder: Path, names: list[str]) -> None:
    """Write ``folder``/NAME/inference.json, inference.pdiparams, images.npy and scores.npz."""
    os.environ["FLAGS_enable_pir_api"] = "1"  # noqa: SIM112
    import paddle  # noqa: TID251
    from paddle import inference  # noqa: TID251

    for name in names:
        shape, prefix = image_shape(name), folder / name / "inference"
        spec = paddle.static.InputSpec([None, *shape], "float32", "x")
        paddle.jit.save(build(name), str(prefix), [spec])
        images = np.random.default_rng(0).standard_normal((3, *shape)).astype("float32")
        config = inference.Config(f"{prefix}.json", f"{prefix}.pdiparams")
        config.disable_glog_info()
        config.disable_mkldnn()
        config.enable_new_ir(True)
        config.enable_new_executor(True)
        predictor = inference.create_predictor(config)
        handle = predictor.get_input_handle(predictor.get_input_names()[0])
        handle.reshape(images.shape)
        handle.copy_from_cpu(images)
        predictor.run()
        outputs = [predictor.get_output_handle(key) for key in predictor.get_output_names()]
        np.save(prefix.with_name("images.npy"), images)
        np.savez(prefix.with_name("scores.npz"), *(each.copy_to_cpu() for each in outputs))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
