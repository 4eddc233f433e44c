"""Networks as users write them; each has images of [1, 8, 8] and is called as own_networks:NAME."""

# ruff: noqa: TID251, I001
import random

import numpy as np

# Before paddle, because it selects the legacy program format.
import job.engine  # noqa: F401
import paddle
from paddle import nn
from paddle.base.layer_helper import LayerHelper
from paddle.nn import functional
from paddle.vision.ops import DeformConv2D


class Network(nn.Layer):
    """Named layers, and a function of them."""

    def __init__(self, call, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._call = call

    def forward(self, x):
        return self._call(self, x)


def conv(inputs, outputs, stride=1, act=nn.ReLU, **options):
    layers = [nn.Conv2D(inputs, outputs, 3, stride, 1, bias_attr=False, **options)]
    return nn.Sequential(*layers, nn.BatchNorm2D(outputs), *([act()] if act else []))


def head(channels, classes):
    return nn.Sequential(nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(channels, classes))


class Attention(nn.Layer):
    def __init__(self, width, heads, product):
        super().__init__()
        self.heads, self.product = heads, product
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        _, tokens, width = x.shape
        each = width // self.heads
        qkv = self.qkv(self.norm(x)).reshape([-1, tokens, 3, self.heads, each])
        q, k, v = qkv.transpose([2, 0, 3, 1, 4])
        weights = functional.softmax(self.product(q * each**-0.5, k.transpose([0, 1, 3, 2])))
        y = self.product(weights, v).transpose([0, 2, 1, 3]).reshape([-1, tokens, width])
        return x + self.out(y)


def transformer(num_classes, product):
    def call(m, x):
        x = m.patches(x).flatten(2).transpose([0, 2, 1])
        return m.head(m.norm(m.blocks(x)).mean(1))

    return Network(
        call,
        patches=nn.Conv2D(1, 32, 2, 2),
        blocks=nn.Sequential(Attention(32, 4, product), Attention(32, 4, product)),
        norm=nn.LayerNorm(32),
        head=nn.Linear(32, num_classes),
    )


def attention_by_function(num_classes):
    return transformer(num_classes, paddle.matmul)


def attention_by_operator(num_classes):
    return transformer(num_classes, lambda a, b: a @ b)


def class_token(num_classes):
    def call(m, x):
        x = m.patches(x).flatten(2).transpose([0, 2, 1])
        token = m.token.expand([x.shape[0], -1, -1])
        return m.head(m.block(paddle.concat([token, x], axis=1))[:, 0])

    network = Network(
        call,
        patches=nn.Conv2D(1, 32, 2, 2),
        block=Attention(32, 4, paddle.matmul),
        head=nn.Linear(32, num_classes),
    )
    network.token = network.create_parameter(
        [1, 1, 32], default_initializer=nn.initializer.Normal()
    )
    return network


def sigmoid_gate(num_classes):
    def call(m, x):
        x = m.first(x)
        gate = functional.sigmoid(m.up(functional.relu(m.down(m.pool(x)))))
        return m.head(x * gate)

    return Network(
        call,
        first=conv(1, 16),
        pool=nn.AdaptiveAvgPool2D(1),
        down=nn.Conv2D(16, 4, 1),
        up=nn.Conv2D(4, 16, 1),
        head=head(16, num_classes),
    )


def batch_norm_without_affine(num_classes):
    return nn.Sequential(
        nn.Conv2D(1, 16, 3, bias_attr=False),
        nn.BatchNorm2D(16, weight_attr=False, bias_attr=False),
        nn.ReLU(),
        conv(16, 32, 2),
        head(32, num_classes),
    )


def stochastic_depth(num_classes):
    def call(m, x):
        x = m.first(x)
        y = m.block(x)
        if m.training:
            y = y * (paddle.rand([1]) < 0.8).astype("float32") / 0.8
        return m.head(functional.relu(x + y))

    block = nn.Sequential(conv(16, 16), conv(16, 16, act=None))
    return Network(call, first=conv(1, 16), block=block, head=head(16, num_classes))


def dropped_channels(num_classes):
    return nn.Sequential(conv(1, 16), nn.Dropout2D(0.3), conv(16, 16), head(16, num_classes))


class Normalized(nn.Layer):
    def __init__(self, num_classes):
        super().__init__()
        self.register_buffer("mean", paddle.full([1, 1, 1, 1], 0.1))
        self.register_buffer("index", paddle.to_tensor(np.arange(64)[::-1].copy()))
        self.body = nn.Sequential(conv(1, 16), conv(16, 32, 2), head(32, num_classes))

    def forward(self, x):
        x = paddle.gather(x.flatten(1), self.index, axis=1).reshape([-1, 1, 8, 8])
        return self.body(x - self.mean)


def buffers(num_classes):
    return Normalized(num_classes)


def dict_output(num_classes):
    def call(m, x):
        return {"features": m.first(x), "logits": m.head(m.first(x))}

    return Network(call, first=conv(1, 16), head=head(16, num_classes))


def flat_by_batch_size(num_classes):
    def call(m, x):
        return m.head(m.first(x).reshape([x.shape[0], -1]))

    return Network(call, first=conv(1, 16, 2), head=nn.Linear(256, num_classes))


def shuffled_channels(num_classes):
    def call(m, x):
        images, channels, height, width = m.first(x).shape
        y = m.first(x).reshape([images, 2, channels // 2, height, width])
        y = y.transpose([0, 2, 1, 3, 4]).reshape([images, channels, height, width])
        return m.head(m.second(y))

    return Network(
        call, first=conv(1, 16), second=conv(16, 16, groups=2), head=head(16, num_classes)
    )


def factor_between(num_classes):
    def call(m, x):
        return m.head(m.second(m.first(x) * 8.0))

    return Network(call, first=conv(1, 16), second=conv(16, 32, 2), head=head(32, num_classes))


def square_matrix(num_classes):
    columns = np.random.default_rng(0).normal(0, 0.06, (256, 256)) * np.geomspace(0.1, 3, 256)
    initial = nn.initializer.Assign(columns.astype("float32"))
    square = nn.Linear(256, 256, weight_attr=paddle.ParamAttr(initializer=initial))
    return nn.Sequential(
        conv(1, 16, 2), nn.Flatten(), square, nn.ReLU(), nn.Linear(256, num_classes)
    )


def separable(num_classes):
    return nn.Sequential(
        conv(1, 16), conv(16, 16, groups=16), conv(16, 32, 2), head(32, num_classes)
    )


def shared_layer(num_classes):
    def call(m, x):
        x = m.first(x)
        return m.head(m.second(m.second(x)) * functional.sigmoid(m.second(x)))

    return Network(
        call, first=conv(1, 16), second=conv(16, 16, act=None), head=head(16, num_classes)
    )


def activations(num_classes):
    kinds = (nn.Hardswish, nn.Swish, nn.Mish, nn.GELU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh)
    layers = [conv(16 if number else 1, 16, act=kind) for number, kind in enumerate(kinds)]
    return nn.Sequential(*layers, head(16, num_classes))


def pooled_branches(num_classes):
    def call(m, x):
        x = m.first(x)
        pools = [functional.max_pool2d(x, 3, 1, 1), functional.avg_pool2d(x, 3, 1, 1)]
        return m.head(m.last(paddle.concat([m.branch(x) * 4.0, *pools], axis=1)))

    return Network(
        call,
        first=conv(1, 16),
        branch=conv(16, 16),
        last=conv(48, 16),
        head=head(16, num_classes),
    )


def tied_weight(num_classes):
    def call(m, x):
        y = functional.relu(m.up(x.flatten(1)))
        z = paddle.matmul(y, m.up.weight, transpose_y=True)
        return m.head(functional.relu(z) + x.flatten(1))

    return Network(call, up=nn.Linear(64, 48), head=nn.Linear(64, num_classes))


def tied_weight_first(num_classes):
    def call(m, x):
        z = paddle.matmul(x.flatten(1)[:, :48], m.up.weight, transpose_y=True)
        return m.head(functional.relu(m.up(functional.relu(z))))

    return Network(call, up=nn.Linear(64, 48), head=nn.Linear(48, num_classes))


def other_types(num_classes):
    def call(m, x):
        x = m.first(x)
        index = (x.mean([1, 2, 3]) > 0).astype("int64") * 2 + 1
        gain = (x.astype("float64") * 0.5 + 0.25).astype("float32")
        return m.head(m.second(gain)) + m.table(index)

    return Network(
        call,
        first=conv(1, 16),
        second=conv(16, 16),
        table=nn.Embedding(4, num_classes),
        head=head(16, num_classes),
    )


def same_padding(num_classes):
    def call(m, x):
        return m.head(m.second(functional.avg_pool2d(m.first(x), 8, 1, padding="SAME")))

    return Network(call, first=conv(1, 16), second=conv(16, 16), head=head(16, num_classes))


def scaled_residual(num_classes):
    def call(m, x):
        x = m.first(x)
        x = functional.relu(x + 0.17 * m.mix(m.block(x)))
        return m.head(m.last(x))

    return Network(
        call,
        first=conv(1, 16),
        block=conv(16, 16),
        mix=nn.Conv2D(16, 16, 1),
        last=conv(16, 32, 2),
        head=head(32, num_classes),
    )


def values_far_from_zero(num_classes):
    def call(m, x):
        gate = functional.sigmoid(m.gate(x)) + 1.0
        return m.head(m.second(gate)) / 2 + m.head.weight.sum(0) + 3.0

    return Network(
        call,
        gate=nn.Conv2D(1, 16, 3, padding=1),
        second=nn.Sequential(conv(16, 16), nn.AdaptiveAvgPool2D(1), nn.Flatten()),
        head=nn.Linear(16, num_classes),
    )


def matrix(network, shape, spread):
    """Add a weight whose rows and columns have different ranges to a network."""
    values = np.random.default_rng(0).normal(0, 0.1, shape)
    values *= np.geomspace(0.1, spread, shape[0])[:, None]
    initial = nn.initializer.Assign(values.astype("float32"))
    return network.create_parameter(list(shape), default_initializer=initial)


def transposed_matrices(num_classes):
    def call(m, x):
        y = functional.relu(paddle.matmul(x.flatten(1), m.wide, transpose_y=True) + m.bias)
        y = functional.relu(paddle.matmul(y, m.square, transpose_y=True))
        return paddle.matmul(y, m.last, transpose_y=True)

    network = Network(call)
    network.wide, network.square = matrix(network, (96, 64), 3), matrix(network, (96, 96), 3)
    network.last = matrix(network, (num_classes, 96), 1)
    network.bias = network.create_parameter([96], is_bias=True)
    return network


def matrices_without_bias(num_classes):
    def call(m, x):
        x = m.patches(x).flatten(2).transpose([0, 2, 1])
        x = functional.relu(m.first(x))
        return m.last((x + m.second(x)).mean(1))

    return Network(
        call,
        patches=nn.Conv2D(1, 32, 2, 2),
        first=nn.Linear(32, 32, bias_attr=False),
        second=nn.Linear(32, 32, bias_attr=False),
        last=nn.Linear(32, num_classes, bias_attr=False),
    )


def sum_read_by_difference(num_classes):
    def call(m, x):
        x = m.first(x)
        y = x + m.second(functional.relu(1.0 - x)) - 0.5 * x
        return m.head(functional.relu(m.last(y)))

    return Network(
        call,
        first=nn.Conv2D(1, 16, 3, padding=1),
        second=nn.Conv2D(16, 16, 3, padding=1),
        last=nn.Conv2D(16, 16, 3, padding=1),
        head=head(16, num_classes),
    )


def sum_read_by_concatenation(num_classes):
    def call(m, x):
        for left, right in (m.one, m.two):
            a, b = paddle.split(m.first(x) if left is m.one[0] else x, 2, axis=1)
            y = left(a) + b
            x = paddle.concat([functional.relu(right(functional.relu(y)) + y), y], axis=1)
        return m.head(x)

    one, two = (nn.LayerList([conv(16, 16, act=None) for _ in range(2)]) for _ in range(2))
    return Network(call, first=conv(1, 32), one=one, two=two, head=head(32, num_classes))


def normalized_weights(num_classes):
    def call(m, x):
        x = functional.relu(m.second(functional.relu(m.first(x))))
        x = functional.relu(m.third(x)).mean([2, 3])
        return functional.linear(functional.relu(m.up(x)), m.up.weight.t()[:, :num_classes])

    return Network(
        call,
        first=conv(1, 16),
        second=nn.utils.weight_norm(nn.Conv2D(16, 16, 3, padding=1)),
        third=nn.utils.spectral_norm(nn.Conv2D(16, 16, 3, padding=1)),
        up=nn.Linear(16, 24),
    )


def weight_on_the_left(num_classes):
    def call(m, x):
        x = m.first(x).flatten(2).transpose([0, 2, 1])
        x = functional.relu(paddle.matmul(m.mix, x)) + x
        return m.head(x.mean(1))

    network = Network(call, first=conv(1, 16, 2), head=nn.Linear(16, num_classes))
    network.mix = matrix(network, (16, 16), 3)
    return network


def wrong_in_onednn(num_classes):
    def call(m, x):
        x = functional.interpolate(m.first(x), size=[12, 12], mode="nearest")
        return m.head(m.second(x))

    return Network(
        call, first=conv(1, 16, act=None), second=conv(16, 16), head=head(16, num_classes)
    )


def shared_by_convolutions(num_classes):
    def call(m, x):
        x = m.first(x)
        y = functional.conv2d(x, m.second.weight, m.second.bias, padding=2, dilation=2)
        return m.head(paddle.concat([functional.relu(m.second(x)), functional.relu(y)], axis=1))

    second = nn.Conv2D(16, 16, 3, padding=1)
    return Network(call, first=conv(1, 16), second=second, head=head(32, num_classes))


# From here on: networks that a static program cannot hold.


def times(values, gates):
    """Multiply [N, C, H, W] with [N, C], as exports of old Paddle versions do."""
    if paddle.in_dynamic_mode():
        return values * gates.unsqueeze([2, 3])
    helper = LayerHelper("elementwise_mul")
    out = helper.create_variable_for_type_inference("float32")
    inputs = {"X": [values], "Y": [gates]}
    helper.append_op(
        type="elementwise_mul", inputs=inputs, outputs={"Out": [out]}, attrs={"axis": 0}
    )
    return out


def gated_by_axis(num_classes):
    def call(m, x):
        x = m.first(x)
        gates = functional.sigmoid(m.gates(x.mean([2, 3])))
        return m.head(m.second(functional.relu(times(x, gates))))

    return Network(
        call,
        first=conv(1, 16, act=None),
        gates=nn.Linear(16, 16),
        second=conv(16, 16),
        head=head(16, num_classes),
    )


def called_twice(num_classes):
    def call(m, x):
        x = functional.relu(m.first(x)).mean([2, 3])
        x = paddle.concat([functional.relu(m.shared(x)), functional.tanh(m.shared(x))], -1)
        return m.head(x)

    return Network(
        call,
        first=nn.Conv2D(1, 16, 3, padding=1),
        shared=nn.Linear(16, 16),
        head=nn.Linear(32, num_classes),
    )


def random_outside_paddle(num_classes):
    def call(m, x):
        x = m.first(x)
        return m.head(m.second(x) if random.random() < 2 else x)  # noqa: S311

    return Network(call, first=conv(1, 8), second=conv(8, 8), head=head(8, num_classes))


def skipped_in_training(num_classes):
    def call(m, x):
        x = m.first(x)
        return m.head(x if m.training else m.second(x))

    return Network(call, first=conv(1, 8), second=conv(8, 8), head=head(8, num_classes))


def deformed(num_classes):
    class Deformed(nn.Layer):
        def __init__(self):
            super().__init__()
            self.first, self.offsets = nn.Conv2D(1, 16, 3, 1, 1), nn.Conv2D(16, 18, 3, 1, 1)
            self.deformed = DeformConv2D(16, 16, 3, padding=1)
            self.head = head(16, num_classes)

        def forward(self, x):
            x = functional.relu(self.first(x))
            return self.head(functional.relu(self.deformed(x, self.offsets(x))))

    return Deformed()


def norm_of_planes(num_classes):
    def call(m, x):
        x = m.first(x)
        return m.head(x / paddle.norm(x, 2, [2, 3], keepdim=True))

    return Network(call, first=conv(1, 8, act=None), head=head(8, num_classes))


def branch_on_value(num_classes):
    def call(m, x):
        y = m.first(x)
        if y.mean() > 0:
            y = y + 1.0
        return m.head(y)

    return Network(call, first=conv(1, 16), head=head(16, num_classes))


def loop_over_images(num_classes):
    def call(m, x):
        y = m.first(x).mean([2, 3])
        for _ in range(x.shape[0]):
            y = y + 1.0
        return m.head(y)

    return Network(call, first=conv(1, 16), head=nn.Linear(16, num_classes))


def random_in_evaluation(num_classes):
    def call(m, x):
        return m.head(m.first(x) + paddle.randn([1, 16, 8, 8]))

    return Network(call, first=conv(1, 16), head=head(16, num_classes))


def number_of_tensor(num_classes):
    def call(m, x):
        return m.head(m.first(x) * float(x.mean()))

    return Network(call, first=conv(1, 16), head=head(16, num_classes))


def changed_in_place(num_classes):
    def call(m, x):
        y = m.first(x)
        z = m.second(y)
        functional.relu_(y)
        z.add_(y)
        return m.head(z)

    first, second = conv(1, 16, act=None), conv(16, 16, act=None)
    return Network(call, first=first, second=second, head=head(16, num_classes))


def channels_last(num_classes):
    def call(m, x):
        return m.head(functional.relu(m.first(x.transpose([0, 2, 3, 1]))).mean([1, 2]))

    return Network(
        call,
        first=nn.Conv2D(1, 16, 3, data_format="NHWC"),
        head=nn.Linear(16, num_classes),
    )


def no_tensor(num_classes):
    return Network(lambda m, x: "scores", head=head(1, num_classes))
