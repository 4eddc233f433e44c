"""Builds random networks with rarer constructs than random_networks, for the same images."""

# ruff: noqa: TID251, I001
from collections.abc import Callable

import numpy as np

# Before paddle, because it selects the legacy program format.
import job.engine  # noqa: F401
import paddle
from paddle import nn
from paddle.nn import functional
from random_networks import FACTORS, WIDTHS, RandomNetwork

LARGEST_SIDE = 16


class WideNetwork(RandomNetwork):
    """A random network of common parts and of parts that fewer networks have."""

    def kinds(self) -> tuple[Callable[[], Callable], ...]:
        """Return the methods that add a part between the first convolution and the last layers."""
        return (
            *(self.convolution, self.depthwise, self.residual, self.pool),
            *(self.larger, self.larger, self.learned_activation, self.normalization),
            *(self.split, self.branches, self.branches, self.shared, self.learned_factor),
            *(self.spatial_gate, self.fixed_tensor, self.padded, self.scaled_activation),
        )

    def larger(self) -> Callable:
        """Return a transposed convolution or an interpolation to twice the size."""
        if 2 * self.side > LARGEST_SIDE:
            return self.pool()
        self.side *= 2
        kind = self.draw.choice(("transposed", "bilinear", "nearest"))
        self.steps.append(kind)
        if kind != "transposed":
            return lambda x: functional.interpolate(x, scale_factor=2, mode=kind)
        outputs, grouped = self.draw.choice(WIDTHS), self.draw.random() < 0.3
        outputs = self.channels if grouped else outputs
        groups = self.channels if grouped else 1
        layer = self.keep(nn.Conv2DTranspose(self.channels, outputs, 2, 2, groups=groups))
        self.channels = outputs
        activation = self.activation()
        return lambda x: activation(layer(x))

    def learned_activation(self) -> Callable:
        """Return a convolution with PReLU, or with a maximum or product of two halves."""
        kind = self.draw.choice(("prelu", "maxout", "glu"))
        self.steps.append(kind)
        outputs = self.draw.choice(WIDTHS)
        if kind == "prelu":
            act = self.keep(nn.PReLU(self.draw.choice((1, outputs))))
            layer = self.filter(outputs, kernel_size=3, padding=1)
            return lambda x: act(layer(x))
        layer = self.filter(2 * outputs, kernel_size=3, padding=1)
        self.channels = outputs
        halves = functional.glu if kind == "glu" else functional.maxout
        options = {"axis": 1} if kind == "glu" else {"groups": 2}
        return lambda x: halves(layer(x), **options)

    def normalization(self) -> Callable:
        """Return a convolution behind or before another norm than batch norm."""
        kind = self.draw.choice(("group", "instance", "batch", "l2"))
        self.steps.append(kind)
        layer = self.filter(self.draw.choice(WIDTHS), kernel_size=3, padding=1)
        norms = {
            "group": lambda: nn.GroupNorm(4, self.channels),
            "instance": lambda: nn.InstanceNorm2D(self.channels),
            "batch": lambda: nn.BatchNorm2D(self.channels),
        }
        activation = self.activation()
        if kind == "l2":
            return lambda x: activation(3.0 * functional.normalize(layer(x), axis=1))
        norm = self.keep(norms[kind]())
        return lambda x: norm(activation(layer(x)))

    def split(self) -> Callable:
        """Return a split of the channels, of which one part passes a convolution."""
        first = self.draw.randint(1, self.channels - 1)
        rest = self.channels - first
        self.steps.append(f"split{first}")
        self.channels = first
        layer, activation = self.filter(first, kernel_size=3, padding=1), self.activation()
        self.channels = first + rest

        def call(x):
            one, other = paddle.split(x, [first, rest], axis=1)
            return paddle.concat([other, activation(layer(one))], axis=1)

        return call

    def branches(self) -> Callable:
        """Return a sum, difference, product, maximum or concatenation of two branches."""
        inputs, outputs = self.channels, self.draw.choice(WIDTHS)
        one, first = self.filter(outputs, kernel_size=1), self.activation()
        self.channels = inputs
        two, second = self.filter(outputs, kernel_size=3, padding=1), self.activation()
        kind = self.draw.choice(("add", "subtract", "multiply", "maximum", "concat"))
        self.steps.append(kind)
        if kind == "concat":
            self.channels = 2 * outputs
            return lambda x: paddle.concat([first(one(x)), second(two(x))], axis=1)
        combine, after = getattr(paddle, kind), self.activation()
        return lambda x: after(combine(first(one(x)), second(two(x))))

    def shared(self) -> Callable:
        """Return a convolution that is called twice with the same weights."""
        self.steps.append("shared")
        layer = self.filter(self.channels, kernel_size=3, padding=1)
        activation = self.activation()
        return lambda x: x + activation(layer(activation(layer(x))))

    def learned_factor(self) -> Callable:
        """Return a factor or a term for each channel, for each position, or for all values."""
        shape = self.draw.choice(([1, self.channels, 1, 1], [1], [1, 1, self.side, self.side]))
        self.steps.append(f"learned{shape}")
        initial = nn.initializer.Uniform(0.3, 2.0)
        self.parameters_ = getattr(self, "parameters_", nn.ParameterList())
        weight = self.create_parameter(shape, default_initializer=initial)
        self.parameters_.append(weight)
        if self.draw.random() < 0.5:
            return lambda x: x * weight
        return lambda x: x + weight

    def spatial_gate(self) -> Callable:
        """Return a gate for each position, from the mean and the maximum over channels."""
        self.steps.append("spatial gate")
        layer = self.keep(nn.Conv2D(2, 1, 3, padding=1))

        def call(x):
            means = paddle.concat([x.mean(1, keepdim=True), x.max(1, keepdim=True)], axis=1)
            return x * functional.sigmoid(layer(means))

        return call

    def fixed_tensor(self) -> Callable:
        """Return a sum or product with a tensor that is no weight."""
        self.steps.append("fixed")
        fixed = np.linspace(0.2, 2.0, self.channels, dtype="float32").reshape([1, -1, 1, 1])
        add = self.draw.random() < 0.5

        def call(x):
            values = paddle.to_tensor(fixed)
            return x + values if add else x * values

        return call

    def padded(self) -> Callable:
        """Return a convolution behind a padding of its own."""
        mode = self.draw.choice(("constant", "reflect", "replicate"))
        value = self.draw.choice((0.0, 0.5)) if mode == "constant" else 0.0
        self.steps.append(f"{mode} padding")
        layer, activation = self.filter(self.draw.choice(WIDTHS), kernel_size=3), self.activation()
        return lambda x: activation(layer(functional.pad(x, [1] * 4, mode=mode, value=value)))

    def scaled_activation(self) -> Callable:
        """Return a convolution whose activation is written with factors."""
        factor = self.draw.choice(FACTORS)
        self.steps.append(f"relu6 written out*{factor}")
        layer = self.filter(self.draw.choice(WIDTHS), kernel_size=1)

        def call(x):
            x = layer(x) * factor
            return x * functional.relu6(x + 3.0) / 6.0

        return call
