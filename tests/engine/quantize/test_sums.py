"""Networks with unusual residual sums are close to FP32, with no unexpected op in FP32."""

import pytest
import tiny
from tiers import full_but

from job.engine.quantize import fake_quantize, qat
from job.engine.training import programs
from job.engine.training.baseline import export
from job.host import read_host

paddle = programs.paddle
nn, F = programs.paddle.nn, programs.paddle.nn.functional

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        not read_host().has_vnni, reason="/proc/cpuinfo lacks avx512_vnni: INT8 is inexact here"
    ),
]

GATES = {
    "relu": lambda of, x: F.relu(of.short(x)),
    "relu6": lambda of, x: F.relu6(of.short(x)),
    "relu6_alone": lambda of, x: F.relu6(of.short(x) * 1.5),
    "hard_sigmoid": lambda of, x: F.hardsigmoid(of.short(x)),
    "concat": lambda of, x: paddle.concat([F.relu(of.left(x)), F.relu(of.right(x))], 1),
    "pool": lambda of, x: F.max_pool2d(F.relu(of.short(x)), 3, 1, 1),
}
ENDS = {"relu": F.relu, "relu6": F.relu6, "plain": lambda y: y}


def convolution(inputs, outputs, size):
    layer = nn.Conv2D(inputs, outputs, size, padding=size // 2, bias_attr=False)
    return nn.Sequential(layer, nn.BatchNorm2D(outputs))


def branch():
    """Two convolutions, because Paddle does not fuse a sum into a convolution of the residual."""
    return nn.Sequential(convolution(16, 16, 3), nn.ReLU(), convolution(16, 16, 3))


class Network(nn.Layer):
    """A stem, a block of 16 channels, and a head."""

    def __init__(self):
        super().__init__()
        self.stem = convolution(1, 16, 3)
        self.last = convolution(16, 16, 3)
        self.head = nn.Linear(16, tiny.CLASSES)

    def forward(self, x):
        y = self.last(self.block(F.relu(self.stem(x))))
        return self.head(F.adaptive_avg_pool2d(F.relu(y), 1).flatten(1))


class PreActivation(Network):
    """A batch norm, which is not quantized, reads the residual before the sum does."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2D(16)
        self.inner = nn.Conv2D(16, 16, 3, padding=1, bias_attr=False)

    def block(self, x):
        return self.inner(F.relu(self.norm(x))) + x


class Attention(Network):
    """A mean, which is not quantized, reads the residual before the sum does."""

    def __init__(self):
        super().__init__()
        self.inner = convolution(16, 16, 3)
        self.weigh = nn.Conv2D(16, 16, 1, bias_attr=False)

    def block(self, x):
        weights = F.hardsigmoid(self.weigh(x.mean([2, 3], keepdim=True)))
        return self.inner(x * weights) + x


@pytest.fixture(params=[PreActivation, Attention])
def early_reader(request):
    return tiny.session_of(request.param, tiny.SHAPE, tiny.CLASSES)


def quantized_adds(prefix):
    scope = programs.static.Scope()
    executor = programs.static.Executor(programs.cpu())
    program, _, _ = programs.load_inference_model(prefix, executor, scope)
    return fake_quantize.quantized_ops(program)["elementwise_add"]


def test_early_reader_leaves_the_sum_quantized(early_reader, tmp_path):
    quantized = tiny.quantize(early_reader, tmp_path)
    assert quantized_adds(tmp_path / "fake") == 1
    assert quantized.audit.fp32_ops == 0
    tiny.assert_close(quantized, 0.25)


def test_early_reader_leaves_the_sum_quantized_without_training(early_reader, tmp_path):
    (tmp_path / "fp32").mkdir()
    (tmp_path / "out").mkdir()
    export(early_reader, tmp_path / "fp32")
    record = qat.convert_post_training(
        tmp_path / "fp32",
        tiny.SETTINGS,
        calibration=tiny.pack(tmp_path / "c.bin", 16, 4),
        input_shape=tiny.SHAPE,
        algorithm="abs_max",
        out=tmp_path / "out",
    )
    assert record["quantized"]["elementwise_add"] == 1


class Gated(Network):
    """A residual without negative values, which Paddle can treat as signed."""

    def __init__(self, gate, end):
        super().__init__()
        self.left, self.right = convolution(16, 8, 1), convolution(16, 8, 1)
        self.short, self.inner = convolution(16, 16, 1), branch()
        self.gate, self.end = GATES[gate], ENDS[end]

    def block(self, x):
        gate = self.gate(self, x)
        return self.end(self.inner(gate) + gate)


class TwoReaders(Network):
    """A sum of an unsigned residual, read by a relu and by a convolution, in either order."""

    def __init__(self, relu_last):
        super().__init__()
        self.inner, self.next = branch(), branch()
        self.relu_last = relu_last

    def block(self, x):
        y = self.inner(x) + x
        if self.relu_last:
            following = self.next(y)
            return following + F.relu(y)
        positive = F.relu(y)
        return self.next(y) + positive


class Broadcast(Network):
    """A sum of an unsigned residual and a plane with one value per channel."""

    def __init__(self):
        super().__init__()
        self.squeeze = nn.Conv2D(16, 16, 1, bias_attr=False)
        self.excite = nn.Conv2D(16, 16, 1, bias_attr=False)

    def block(self, x):
        return x + self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1))))


CONCAT = [*tiny.SETTINGS["quantize_op_types"], "concat"]


@pytest.mark.parametrize("end", full_but(ENDS, ["relu"]))
@pytest.mark.parametrize("gate", GATES)
def test_residual_is_taken_for_what_paddle_takes_it(tmp_path, gate, end):
    session = tiny.session_of(lambda: Gated(gate, end), tiny.SHAPE, tiny.CLASSES)
    tiny.assert_close(tiny.quantize(session, tmp_path), 0.1)


@pytest.mark.parametrize("end", ENDS)
def test_concatenation_in_int8_is_a_residual(tmp_path, end):
    session = tiny.session_of(lambda: Gated("concat", end), tiny.SHAPE, tiny.CLASSES)
    tiny.assert_close(tiny.quantize(session, tmp_path, quantize_op_types=CONCAT), 0.1)


@pytest.mark.parametrize("relu_last", [True, False])
def test_sum_with_two_readers_keeps_its_negative_values(tmp_path, relu_last):
    session = tiny.session_of(lambda: TwoReaders(relu_last), tiny.SHAPE, tiny.CLASSES)
    tiny.assert_close(tiny.quantize(session, tmp_path), 0.1)


@pytest.mark.parametrize("skip_ops", [[], ["elementwise_add"]], ids=["int8", "skipped"])
def test_broadcasting_sum_runs(tmp_path, skip_ops):
    session = tiny.session_of(Broadcast, tiny.SHAPE, tiny.CLASSES)
    tiny.assert_close(tiny.quantize(session, tmp_path, skip_ops=skip_ops), 0.15)
