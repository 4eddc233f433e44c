"""Networks with unusual residual sums: each close to FP32, and nothing left in FP32 unasked."""

import pytest
import tiny

from job.engine import programs, qat, quantization
from job.engine.baseline import export
from job.host import read_host

nn, F = programs.paddle.nn, programs.paddle.nn.functional

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        not read_host().has_vnni, reason="/proc/cpuinfo lacks avx512_vnni: INT8 is inexact here"
    ),
]


def convolution(inputs, outputs, size):
    layer = nn.Conv2D(inputs, outputs, size, padding=size // 2, bias_attr=False)
    return nn.Sequential(layer, nn.BatchNorm2D(outputs))


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
    return quantization.quantized_ops(program)["elementwise_add"]


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
    assert record["quantized"]["elementwise_add"] == 2
