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


def depthwise_transposed(num_classes):
    up = nn.Conv2DTranspose(16, 16, 2, 2, groups=16)
    return nn.Sequential(conv(1, 16, 2), up, nn.ReLU(), conv(16, 16), head(16, num_classes))
