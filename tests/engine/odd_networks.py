"""Networks with unusual code; each has images of [1, 8, 8] and is called as odd_networks:NAME."""

# ruff: noqa: TID251, I001
# Before paddle, because it selects the legacy program format.
import job.engine  # noqa: F401
import paddle
from own_networks import Network, conv, head
from paddle import nn
from paddle.nn import functional


def mean_over_batch(num_classes):
    def call(m, x):
        x = m.first(x)
        x = x - x.mean(0, keepdim=True)
        return m.head(x)

    return Network(call, first=conv(1, 16), head=head(16, num_classes))


def softmax_over_batch(num_classes):
    def call(m, x):
        return functional.softmax(m.head(m.first(x)), axis=0)

    return Network(call, first=conv(1, 16), head=head(16, num_classes))


def random_for_each_image(num_classes):
    def call(m, x):
        x = m.first(x)
        return m.head(x + paddle.randn([x.shape[0], 16, 8, 8]))

    return Network(call, first=conv(1, 16), head=head(16, num_classes))


def squeezed_scores(num_classes):
    def call(m, x):
        return m.last(m.pool(m.first(x))).squeeze()

    pool, last = nn.AdaptiveAvgPool2D(1), nn.Conv2D(16, num_classes, 1)
    return Network(call, first=conv(1, 16), pool=pool, last=last)


class Counting(nn.Layer):
    def forward(self, x):
        for _ in range(x.shape[0]):
            x = x + 1.0
        return x


def layer_that_counts(num_classes):
    return nn.Sequential(conv(1, 16), Counting(), head(16, num_classes))


def counting_between_layers(num_classes):
    def call(m, x):
        y = m.first(x)
        for _ in range(x.shape[0]):
            y = y + 1.0
        return m.second(y)

    return Network(call, first=conv(1, 16), second=head(16, num_classes))


def counting_behind_layers(num_classes):
    def call(m, x):
        y = m.first(x)
        for _ in range(x.shape[0]):
            y = y * paddle.to_tensor([2.0] * num_classes)
        return y

    return Network(call, first=nn.Sequential(conv(1, 16), head(16, num_classes)))


def loop_over_a_batch(num_classes):
    def call(m, x):
        return m.head(paddle.stack([image * 2.0 for image in m.first(x)]))

    return Network(call, first=conv(1, 16), head=head(16, num_classes))


def loop_over_channels(num_classes):
    def call(m, x):
        planes = [plane * (1.0 + n) for n, plane in enumerate(m.first(x).transpose([1, 0, 2, 3]))]
        return m.head(paddle.stack(planes, axis=1))

    return Network(call, first=conv(1, 16), head=head(16, num_classes))


def changed_by(change):
    """Return a function that builds a network with a change behind its first layer."""

    def build(num_classes):
        return Network(
            lambda m, x: m.head(change(m.first(x))), first=conv(1, 16), head=head(16, num_classes)
        )

    return build


def zero_the_first(x):
    x[:, 0] = 0.0
    return x


whole_number = changed_by(lambda x: x * int(x.max()))
array_of_numbers = changed_by(lambda x: x * x.max().numpy())
list_of_numbers = changed_by(lambda x: x * x.max().tolist())
choice_from_a_list = changed_by(lambda x: x * [1.0, 2.0][x.max().astype("int64")])
length_of_a_batch = changed_by(lambda x: x * len(x))
assigned_part = changed_by(zero_the_first)


def images_of_wrong_size(num_classes):
    def call(m, x):
        return m.head(m.first(x).reshape([2, 16, 8, 8]))

    return Network(call, first=conv(1, 16), head=head(16, num_classes))


def branch_in_program(num_classes):
    def call(m, x):
        y = m.first(x)
        y = paddle.static.nn.cond(y.mean() > 0, lambda: y * 2.0, lambda: y)
        return m.head(y)

    return Network(call, first=conv(1, 16), head=head(16, num_classes))


def chosen_classes(num_classes):
    def call(m, x):
        return functional.one_hot(m.head(m.first(x)).argmax(1), num_classes).astype("int64")

    return Network(call, first=conv(1, 16), head=head(16, num_classes))


def layers_in_a_list(num_classes):
    network = Network(lambda m, x: m.head(m.plain[1](m.plain[0](x))), head=head(16, num_classes))
    network.plain = [conv(1, 16), conv(16, 16)]
    return network


def layer_made_late(num_classes):
    def call(m, x):
        y = m.first(x)
        if m.late is None:
            m.late = head(16, num_classes)
        return m.late(y)

    return Network(call, first=conv(1, 16), late=None)


def weight_named_label(num_classes):
    named = nn.Conv2D(1, 16, 3, bias_attr=paddle.ParamAttr(name="label"))
    return nn.Sequential(named, head(16, num_classes))


class Translated(nn.Layer):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Sequential(conv(1, 16), head(16, num_classes))

    @paddle.jit.to_static
    def forward(self, x):
        return self.body(x)


def translated_method(num_classes):
    return Translated(num_classes)


def translated_network(num_classes):
    return paddle.jit.to_static(nn.Sequential(conv(1, 16), head(16, num_classes)))


def error_in_context(num_classes):
    def call(m, x):
        with paddle.amp.auto_cast():
            return m.head(m.first(x))

    return Network(call, first=conv(1, 16), head=head(16, num_classes))


def probabilities(num_classes):
    return nn.Sequential(conv(1, 16), head(16, num_classes), nn.Softmax())


def without_weights(num_classes):
    return Network(lambda m, x: x.flatten(1)[:, :num_classes] * 2.0)


def weights_of_nan(num_classes):
    broken = paddle.ParamAttr(initializer=nn.initializer.Constant(float("nan")))
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes, bias_attr=broken))


def nothing_to_quantize(num_classes):
    network = Network(lambda m, x: x.flatten(1)[:, :num_classes] * m.factor)
    network.factor = network.create_parameter([num_classes])
    return network


def product_with_sum(num_classes, add):
    """Attention scores of two heads with a term, read by a layer that runs in INT8."""

    def call(m, x):
        x = m.patches(x).flatten(2).transpose([0, 2, 1])
        q, k = (
            each(x).reshape([-1, 16, 2, 8]).transpose([0, 2, 1, 3]) for each in (m.query, m.key)
        )
        scores = add(m, x, q @ k.transpose([0, 1, 3, 2]))
        return m.last(m.mix(scores.reshape([-1, 16, 32])).mean(1))

    network = Network(
        call,
        patches=nn.Conv2D(1, 16, 2, 2),
        query=nn.Linear(16, 16),
        key=nn.Linear(16, 16),
        term=nn.Linear(16, 32),
        mix=nn.Linear(32, 16),
        last=nn.Linear(16, num_classes),
    )
    network.table = network.create_parameter(
        [4, 2, 16, 16], default_initializer=nn.initializer.Normal(0, 2.0)
    )
    return network


def layers_of_tokens(num_classes, call):
    """Two linear layers of 16 tokens of 16 values; ``call`` combines them for a third."""

    def forward(m, x):
        x = m.patches(x).flatten(2).transpose([0, 2, 1])
        return m.last(m.mix(call(m, x)).mean(1))

    return Network(
        forward,
        patches=nn.Conv2D(1, 16, 2, 2),
        one=nn.Linear(16, 16),
        two=nn.Linear(16, 16),
        mix=nn.Linear(16, 16),
        last=nn.Linear(16, num_classes),
    )


def small_layer_plus_large(num_classes):
    return layers_of_tokens(num_classes, lambda m, x: m.one(x.mean(1, keepdim=True)) + m.two(x))


def activation_plus_small_layer(num_classes):
    return layers_of_tokens(num_classes, lambda m, x: x + m.one(x.mean(1, keepdim=True)))


def repeated_layer(num_classes):
    return layers_of_tokens(
        num_classes, lambda m, x: (m.one(x) + m.two(x)) @ (m.one(x) - x).transpose([0, 2, 1])
    )


def pixels_plus_small_convolution(num_classes):
    def call(m, x):
        x = m.first(x)
        return m.head(m.last(functional.relu(m.wide(x) + m.small(m.pool(x)))))

    return Network(
        call,
        first=conv(1, 16),
        wide=conv(16, 16, act=None),
        pool=nn.AdaptiveAvgPool2D(1),
        small=nn.Conv2D(16, 16, 1),
        last=conv(16, 16),
        head=head(16, num_classes),
    )


def product_with_activation(num_classes):
    return product_with_sum(
        num_classes, lambda m, x, scores: scores + m.term(x).reshape([-1, 2, 16, 16])
    )


def product_with_entry_of_table(num_classes):
    return product_with_sum(
        num_classes, lambda m, _, scores: m.table[paddle.to_tensor([1])] + scores
    )


def random_slopes(num_classes):
    first = conv(1, 16, act=lambda: nn.RReLU(0.2, 0.4))
    return nn.Sequential(first, conv(16, 16), head(16, num_classes))


def pooled(pool):
    """Return a function that builds a network with a pool."""
    return lambda num_classes: nn.Sequential(conv(1, 16), pool, head(16, num_classes))


mean_with_last_row = pooled(nn.AvgPool2D(3, 2, ceil_mode=True, exclusive=False))
mean_with_right_padding = pooled(nn.AvgPool2D(3, 2, [0, 1, 0, 1], exclusive=False))
mean_with_same_padding = pooled(nn.AvgPool2D(3, 2, "SAME", exclusive=False))


def transposed_by_blocks(num_classes):
    up = nn.Conv2DTranspose(16, 16, 3, bias_attr=False)
    layers = (conv(1, 16), up, nn.BatchNorm2D(16), nn.ReLU(), conv(16, 16))
    return nn.Sequential(*layers, head(16, num_classes))


def transposed_with_shortcut(num_classes):
    def call(m, x):
        x = m.first(x)
        return m.head(m.last(paddle.concat([functional.gelu(m.up(x)), x], axis=1)))

    up, last = nn.Conv2DTranspose(16, 16, 3, padding=1), conv(32, 16)
    return Network(call, first=conv(1, 16), up=up, last=last, head=head(16, num_classes))


def depthwise_transposed(num_classes):
    up = nn.Conv2DTranspose(16, 16, 2, 2, groups=16)
    return nn.Sequential(conv(1, 16, 2), up, nn.ReLU(), conv(16, 16), head(16, num_classes))


def layer_of_pixels(num_classes):
    """A fully connected layer of values [N, H, W, C], with a factor behind it."""

    def call(m, x):
        x = m.pixels(m.first(x).transpose([0, 2, 3, 1])) * m.factor
        return m.last(x.mean([1, 2]))

    network = Network(
        call, first=nn.Conv2D(1, 8, 2, 2), pixels=nn.Linear(8, 8), last=nn.Linear(8, num_classes)
    )
    network.factor = network.create_parameter(
        [8], default_initializer=nn.initializer.Uniform(0.5, 1.5)
    )
    return network
