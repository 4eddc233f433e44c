"""Builds small random networks from a seed, for images of [3, 16, 16] and 10 classes."""

# ruff: noqa: TID251, I001
import random
from collections.abc import Callable

# Before paddle, because it selects the legacy program format.
import job.engine  # noqa: F401
import paddle
from paddle import nn
from paddle.nn import functional

SHAPE, CLASSES = (3, 16, 16), 10
WIDTHS = (8, 12, 16, 24, 32)
ACTIVATIONS = (
    *(functional.relu, functional.relu, functional.relu, functional.relu6, functional.hardswish),
    *(functional.sigmoid, functional.hardsigmoid, functional.swish, functional.gelu),
    *(functional.leaky_relu, functional.tanh, functional.elu, functional.mish),
)
FACTORS = (0.17, 0.5, 2.0, 8.0, -1.0)


class RandomNetwork(nn.Layer):
    """A network whose layers and connections are drawn with a seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.draw = random.Random(seed)  # noqa: S311
        self.steps: list[str] = []
        self.layers_ = nn.LayerList()
        self.channels, self.side = 3, 16
        parts = [self.convolution()]
        parts += [self.draw.choice(self.kinds())() for _ in range(self.draw.randint(1, 6))]
        parts.append(self.draw.choice((self.pooled, self.pooled, self.flat, self.attention))())
        self.parts = parts

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x

    def kinds(self) -> tuple[Callable[[], Callable], ...]:
        """Return the methods that add a part between the first convolution and the last layers."""
        return (
            *(self.convolution, self.convolution, self.depthwise, self.residual, self.residual),
            *(self.concatenation, self.pool, self.factor, self.gate, self.shuffle, self.dropout),
        )

    def keep(self, layer):
        """Register a layer."""
        self.layers_.append(layer)
        return layer

    def activation(self) -> Callable:
        """Return an activation, or the identity."""
        if self.draw.random() < 0.15:
            return lambda x: x
        chosen = self.draw.choice(ACTIVATIONS)
        self.steps.append(chosen.__name__)
        return chosen

    def filter(self, outputs: int, **options) -> Callable:
        """Return a convolution, with bias or batch norm or neither."""
        inputs = self.channels
        biased = self.draw.random() < 0.4
        layer = self.keep(
            nn.Conv2D(inputs, outputs, bias_attr=None if biased else False, **options)
        )
        norm = self.keep(nn.BatchNorm2D(outputs)) if self.draw.random() < 0.6 else (lambda x: x)
        self.channels = outputs
        return lambda x: norm(layer(x))

    def convolution(self) -> Callable:
        """Return a convolution with activation; any kernel, stride, dilation and groups."""
        kernel = self.draw.choice((1, 3, 3, 5))
        dilation = self.draw.choice((1, 1, 2)) if kernel == 3 else 1
        stride = self.draw.choice((1, 1, 2)) if self.side > 4 else 1
        outputs = self.draw.choice(WIDTHS)
        groups = self.draw.choice((1, 1, 2, 4))
        if self.channels % groups or outputs % groups:
            groups = 1
        padding = dilation * (kernel // 2)
        self.steps.append(f"conv{kernel}s{stride}d{dilation}g{groups}x{outputs}")
        layer = self.filter(
            outputs,
            kernel_size=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )
        self.side = -(-self.side // stride)
        activation = self.activation()
        return lambda x: activation(layer(x))

    def depthwise(self) -> Callable:
        """Return a depthwise and a pointwise convolution."""
        kernel, outputs = self.draw.choice((3, 5)), self.draw.choice(WIDTHS)
        self.steps.append(f"depthwise{kernel}")
        each = self.filter(
            self.channels, kernel_size=kernel, padding=kernel // 2, groups=self.channels
        )
        first = self.activation()
        mix = self.filter(outputs, kernel_size=1)
        second = self.activation()
        return lambda x: second(mix(first(each(x))))

    def residual(self) -> Callable:
        """Return the sum of the input and a branch, sometimes with a factor."""
        width, factor = self.channels, self.draw.choice((1.0, 1.0, 0.17))
        self.steps.append(f"residual*{factor}")
        first = self.filter(self.draw.choice(WIDTHS), kernel_size=1)
        between = self.activation()
        second = self.filter(width, kernel_size=3, padding=1)
        after = self.activation()
        if factor == 1.0:
            return lambda x: after(x + second(between(first(x))))
        return lambda x: after(x + factor * second(between(first(x))))

    def concatenation(self) -> Callable:
        """Return the concatenation of the input and a branch."""
        width = self.channels
        self.steps.append("concat")
        branch = self.filter(self.draw.choice(WIDTHS), kernel_size=3, padding=1)
        activation = self.activation()
        self.channels += width
        return lambda x: paddle.concat([x, activation(branch(x))], axis=1)

    def pool(self) -> Callable:
        """Return a max or average pool."""
        if self.side < 4:
            return self.convolution()
        kind = self.draw.choice((functional.max_pool2d, functional.avg_pool2d))
        self.steps.append(kind.__name__)
        self.side //= 2
        return lambda x: kind(x, 2, 2)

    def factor(self) -> Callable:
        """Return a multiplication, division or addition of a number."""
        number = self.draw.choice(FACTORS)
        kind = self.draw.randrange(3)
        self.steps.append(f"{'*/+'[kind]}{number}")
        return (lambda x: x * number, lambda x: x / number, lambda x: x + number)[kind]

    def gate(self) -> Callable:
        """Return squeeze and excite."""
        width = self.channels
        self.steps.append("gate")
        down, up = (
            self.keep(nn.Conv2D(*sizes, kernel_size=1)) for sizes in ((width, 8), (8, width))
        )
        gate = self.draw.choice((functional.sigmoid, functional.hardsigmoid))

        def call(x):
            y = functional.adaptive_avg_pool2d(x, 1)
            return x * gate(up(functional.relu(down(y))))

        return call

    def shuffle(self) -> Callable:
        """Return a channel shuffle, or a split with a branch."""
        width = self.channels
        if width % 2:
            return self.convolution()
        self.steps.append("shuffle")

        def call(x):
            images, channels, height, side = x.shape
            x = x.reshape([images, 2, channels // 2, height, side]).transpose([0, 2, 1, 3, 4])
            return x.reshape([images, channels, height, side])

        return call

    def dropout(self) -> Callable:
        """Return a dropout that scales in training or in evaluation."""
        mode = self.draw.choice(("upscale_in_train", "downscale_in_infer"))
        self.steps.append(mode)
        return self.keep(nn.Dropout(0.3, mode=mode))

    def pooled(self) -> Callable:
        """Return a mean over positions and fully connected layers."""
        return self.connected(self.channels, lambda x: functional.adaptive_avg_pool2d(x, 1))

    def flat(self) -> Callable:
        """Return fully connected layers of all positions."""
        side = min(self.side, 2)
        return self.connected(
            self.channels * side * side, lambda x: functional.adaptive_avg_pool2d(x, side)
        )

    def connected(self, width: int, before: Callable) -> Callable:
        """Return fully connected layers; some are square."""
        hidden = [self.keep(nn.Linear(width, width)) for _ in range(self.draw.randint(0, 2))]
        last = self.keep(nn.Linear(width, CLASSES))
        self.steps.append(f"connected{len(hidden) + 1}x{width}")
        activation = self.activation()

        def call(x):
            x = before(x).flatten(1)
            for layer in hidden:
                x = activation(layer(x))
            return last(x)

        return call

    def attention(self) -> Callable:
        """Return attention of one or two heads, and a fully connected layer."""
        width, heads = self.channels, self.draw.choice((1, 2))
        heads = heads if width % heads == 0 else 1
        self.steps.append(f"attention{heads}")
        qkv = self.keep(nn.Linear(width, 3 * width))
        out, last = self.keep(nn.Linear(width, width)), self.keep(nn.Linear(width, CLASSES))
        norm = self.keep(nn.LayerNorm(width))

        def call(x):
            x = x.flatten(2).transpose([0, 2, 1])
            tokens = x.shape[1]
            parts = qkv(norm(x)).reshape([-1, tokens, 3, heads, width // heads])
            q, k, v = parts.transpose([2, 0, 3, 1, 4])
            weights = functional.softmax(q @ k.transpose([0, 1, 3, 2]) * width**-0.5)
            y = (weights @ v).transpose([0, 2, 1, 3]).reshape([-1, tokens, width])
            return last((x + out(y)).mean(1))

        return call
