"""Regression tests of INT8 models: each network runs INT8 kernels and is close to FP32."""

import sys

import numpy as np
import pytest
import tiny
from tiers import full_but
from tiny import NETWORKS, needs_vnni

from job import isa
from job.doctor import smoke
from job.engine.compare.differences import differences
from job.engine.inference import paddle_format, predictor
from job.engine.int8 import build as int8
from job.engine.int8.audit import require_kept
from job.engine.training import programs
from job.errors import DataError, QuantizationError, UsageError
from job.profile import onednn_log
from job.profile import record as record_

pytestmark = pytest.mark.engine


# Rounding to 8 bits alone causes a larger error than this in each op.
ROUNDED_DB = 30
ENDS = ["plain", "relu", "relu6", "swish", "hard_swish", "leaky_relu"]

OWN = """
import paddle
from paddle import nn

F = nn.functional
ENDS = {
    "plain": lambda y: y,
    "relu": F.relu,
    "relu6": F.relu6,
    "swish": F.swish,
    "hard_swish": F.hardswish,
    "leaky_relu": lambda y: F.leaky_relu(y, 0.3),
}

def convolution(inputs, outputs, size, norm):
    layer = nn.Conv2D(inputs, outputs, size, padding=size // 2, bias_attr=False if norm else None)
    return nn.Sequential(layer, nn.BatchNorm2D(outputs)) if norm else layer

class Residual(nn.Layer):
    def __init__(self, signed, end, norm, pool):
        super().__init__()
        self.stem = convolution(3, 16, 3, norm)
        self.long = nn.Sequential(
            convolution(16, 16, 3, norm), nn.ReLU(), convolution(16, 16, 3, norm)
        )
        self.short = convolution(16, 16, 1, norm) if signed else nn.Identity()
        self.last = convolution(16, 16, 3, norm)
        self.head = nn.Linear(16, 10)
        self.end, self.pool = ENDS[end], pool

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = self.end(self.long(x) + self.short(x))
        if self.pool:
            y = F.max_pool2d(y, 2, 2)
        return self.head(F.adaptive_avg_pool2d(F.relu(self.last(y)), 1).flatten(1))

class Concat(nn.Layer):
    def __init__(self):
        super().__init__()
        self.stem = convolution(3, 16, 3, True)
        self.one, self.two = convolution(16, 16, 3, True), convolution(16, 16, 1, True)
        self.last = convolution(32, 16, 3, True)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = paddle.concat([self.one(x), F.relu(self.two(x))], 1)
        return self.head(F.adaptive_avg_pool2d(F.relu(self.last(y)), 1).flatten(1))

class Twice(nn.Layer):
    def __init__(self):
        super().__init__()
        self.stem = convolution(3, 16, 3, True)
        self.shared = nn.Conv2D(16, 16, 3, padding=1, bias_attr=False)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = F.relu(self.shared(F.relu(self.shared(F.relu(self.stem(x))))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_blocks.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        # Imported after the engine, which sets Paddle's flags.
        import own_blocks

        yield own_blocks
    sys.modules.pop("own_blocks")


@pytest.fixture(scope="module", params=full_but(NETWORKS, ["convnet", "mobilenet_v2", "resnet18"]))
def network(request, tmp_path_factory):
    name = request.param
    side, width, *_ = NETWORKS[name]
    shape = (1 if name == "lenet" else 3, side, side)
    session = tiny.open_tiny(name=name, classes=10, input_shape=shape, width=width, seed=0)
    return name, tiny.quantize(session, tmp_path_factory.mktemp(name), bias=1.0)


@needs_vnni
def test_network_is_close_to_fp32_in_int8(network):
    name, quantized = network
    _, _, int8_ops, fp32_ops, bound = NETWORKS[name]
    left = quantized.audit.left_in_fp32
    assert all(op["reason"] for op in left)
    weighted = sum(
        int8.is_int8(op)
        for op in int8.read_ops(quantized.folder / "model.pdmodel")
        if op.type in int8.WEIGHTED
    )
    assert (weighted, quantized.audit.fp32_ops) == (int8_ops, fp32_ops)
    tiny.assert_close(quantized, bound)
    found = differences(quantized.folder / "fake", quantized.folder / "model", quantized.images[:4])
    assert len(found) >= int8_ops
    assert found[0].signal_to_noise_db > ROUNDED_DB
    saved = tiny.scores(quantized.folder / "model", "int8", quantized.images)
    np.testing.assert_array_equal(saved, quantized.int8)
    if name == "vgg16":
        assert "elementwise_add" not in quantized.audit.ops_after
        assert any("windows of different sizes" in op["reason"] for op in left)


@needs_vnni
@pytest.mark.parametrize("norm", full_but([True, False], [True]), ids=["norm", "bias"])
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("end", full_but(ENDS, ["plain", "relu", "swish"]))
def test_residual_sums_are_right(own, tmp_path, norm, signed, end):
    session = tiny.session_of(lambda: own.Residual(signed, end, norm, pool=False))
    tiny.assert_close(tiny.quantize(session, tmp_path), 0.25)


@needs_vnni
def test_pool_after_a_signed_residual_sum_stays_in_fp32(own, tmp_path):
    session = tiny.session_of(lambda: own.Residual(True, "relu", norm=True, pool=True))
    quantized = tiny.quantize(session, tmp_path)
    tiny.assert_close(quantized, 0.15)
    reasons = [op["reason"] for op in quantized.audit.left_in_fp32 if op["type"] == "pool2d"]
    assert any("signed residual sum" in reason for reason in reasons)


@needs_vnni
@pytest.mark.parametrize("types", [[], ["concat"]], ids=["fp32", "int8"])
def test_concatenation_of_signed_and_unsigned(own, tmp_path, types):
    session = tiny.session_of(own.Concat)
    settings = tiny.SETTINGS["quantize_op_types"] + types
    tiny.assert_close(tiny.quantize(session, tmp_path, quantize_op_types=settings), 0.15)


@needs_vnni
@pytest.mark.parametrize(
    ("remedy", "signed", "end"),
    [
        ("widen_signed_residuals", True, "relu"),
        ("keep_unsigned_residuals_apart", False, "plain"),
    ],
)
def test_paddle_still_has_the_fault_without_the_remedy(
    own, tmp_path, monkeypatch, remedy, signed, end
):
    """If this test fails, Paddle was fixed and the correction can be removed."""
    monkeypatch.setattr(int8, remedy, lambda *_: [])
    session = tiny.session_of(lambda: own.Residual(signed, end, norm=True, pool=False))
    quantized = tiny.quantize(session, tmp_path)
    assert quantized.int8_error > 2 * quantized.fake_error


def test_onednn_computes_no_global_mean_in_int8(own, tmp_path):
    """oneDNN has only a slow reference kernel for them."""
    session = tiny.session_of(lambda: own.Residual(False, "relu", norm=True, pool=False))
    tiny.quantize(session, tmp_path)
    assert "reduce_mean" in {op.type for op in int8.read_ops(tmp_path / "model.pdmodel")}
    ran = record_.trace(tmp_path / "model", predictor.INT8, session.input_shape)
    kinds = {primitive.kind for primitive in ran}
    assert "convolution" in kinds
    assert "reduction" not in kinds


@needs_vnni
def test_int8_kernels_ran(own, tmp_path):
    session = tiny.session_of(lambda: own.Residual(True, "relu", norm=True, pool=False))
    tiny.quantize(session, tmp_path)
    ran = record_.trace(tmp_path / "model", predictor.INT8, session.input_shape)
    computed = [p for p in ran if p.kind in onednn_log.COMPUTE]
    assert len(computed) == 6
    assert all(p.is_int8 for p in computed)
    assert onednn_log.isa(ran) >= "avx512_core"
    fp32 = record_.trace(tmp_path / "fake", predictor.FAKE_QUANTIZED, session.input_shape)
    assert not any(p.is_int8 for p in fp32)


@needs_vnni
@pytest.mark.parametrize("optimize", [True, False])
def test_model_loads_in_plain_paddle_inference(own, tmp_path, optimize):
    session = tiny.session_of(lambda: own.Residual(True, "relu", norm=True, pool=False))
    quantized = tiny.quantize(session, tmp_path)
    prefix = tmp_path / "model"
    config = predictor.inference.Config(f"{prefix}.pdmodel", f"{prefix}.pdiparams")
    config.enable_mkldnn()
    config.switch_ir_optim(optimize)
    found = predictor.Predictor(config).scores(quantized.images)
    np.testing.assert_array_equal(found, quantized.int8)


def test_model_that_paddle_cannot_run_is_no_crash(tmp_path):
    session = tiny.open_tiny()
    tiny.quantize(session, tmp_path)
    images = np.zeros((1, 3, 8, 8), "float32")
    with pytest.raises(QuantizationError, match=r"Paddle .*INT8.*fused_conv2d"):
        int8.build(tmp_path / "fake", tmp_path, tiny.SETTINGS["quantize_op_types"], images)


def test_model_that_does_not_run_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.pdmodel"):
        record_.trace(tmp_path / "nowhere", predictor.INT8, (3, 8, 8))


@needs_vnni
def test_smoke_names_kernels_and_isa():
    found = smoke.run()
    assert found["kernels"]
    assert found["isa"] in isa.ISA_ORDER
    assert 0 < found["relative_error"] < smoke.MAX_RELATIVE_ERROR
    assert found["versions"]["paddlepaddle"]


def relative(error, values):
    return float(np.linalg.norm(error) / np.linalg.norm(values))


def fake_types(folder):
    """Return the op types of the fake-quantized program, in order."""
    scope = programs.static.Scope()
    executor = programs.static.Executor(programs.cpu())
    program, _, _ = programs.load_inference_model(folder / "fake", executor, scope)
    return [op.type for op in program.global_block().ops]


def build_again(resnet18, out, **choice):
    types = tiny.SETTINGS["quantize_op_types"]
    return int8.build(resnet18.folder / "fake", out, types, resnet18.images, **choice)


SKIPPING = {
    "type": (["pool2d"], {"pool2d"}),
    "name": (["conv2d_1.tmp_0"], {"conv2d"}),
    "id": (["#"], {"conv2d"}),
    "matrix": (["matmul_v2"], {"matmul_v2"}),
    "add": (["elementwise_add"], {"elementwise_add"}),
}


@needs_vnni
@pytest.mark.parametrize("case", SKIPPING)
def test_skipped_ops_stay_in_fp32(case, resnet18, tmp_path):
    skip_ops, types = SKIPPING[case]
    if case == "id":
        skip_ops = [f"#{fake_types(resnet18.folder).index('conv2d')}"]
    audit, scores = build_again(resnet18, tmp_path, skip_ops=skip_ops)
    skipped = [op for op in audit.left_in_fp32 if "/int8/skip_ops" in op["reason"]]
    assert {op["type"] for op in skipped} == types
    assert all(op["reason"].endswith(f" {skip_ops[0]}") for op in skipped)
    if case == "add":
        assert (resnet18.audit.folded["residual_add"], audit.folded["residual_add"]) == (8, 0)
    else:
        assert audit.int8_ops < resnet18.audit.int8_ops
    assert relative(scores - resnet18.fp32, resnet18.fp32) < 0.15


@needs_vnni
def test_one_use_of_a_shared_weight_stays_in_fp32(own, tmp_path):
    skipped = "conv2d_1.tmp_0"
    quantized = tiny.quantize(tiny.session_of(own.Twice), tmp_path, skip_ops=[skipped])
    assert [op["op"] for op in quantized.audit.left_in_fp32 if "skip_ops" in op["reason"]] == [
        skipped
    ]
    assert (quantized.audit.int8_ops, quantized.audit.fp32_ops) == (3, 1)
    tiny.assert_close(quantized, 0.15)


def test_weight_that_was_to_stay_in_fp32_is_named():
    def use(marks):
        return paddle_format.make_op("conv2d", {"Filter": "w"}, {"Output": "y"}, marks)

    fp32, in_int8 = use({}), use({"scale_out": 1})
    require_kept({"w": 1}, [fp32, in_int8])
    for kept, ops in ((1, [in_int8]), (2, [fp32, in_int8])):
        with pytest.raises(QuantizationError, match=r"FP32.* w\b"):
            require_kept({"w": kept}, ops)


@needs_vnni
def test_only_the_wanted_op_types_run_in_int8(resnet18, tmp_path):
    audit, _ = build_again(resnet18, tmp_path, quantized_ops=["conv2d"])
    reasons = {op["reason"] for op in audit.left_in_fp32}
    assert any("/int8/quantized_ops" in r and "matmul_v2" in r for r in reasons)
    assert audit.int8_ops == audit.ops_after["fused_conv2d"]


def test_unknown_op_to_skip_is_refused(resnet18, tmp_path):
    with pytest.raises(UsageError, match=r"/int8/skip_ops: 'conv2d_1\.tmp'") as no:
        build_again(resnet18, tmp_path, skip_ops=["conv2d_1.tmp"])
    assert "conv2d_1.tmp_0" in str(no.value)


def test_index_of_another_op_to_skip_names_that_op(resnet18, tmp_path):
    types = fake_types(resnet18.folder)
    relu, conv = types.index("relu"), types.index("conv2d")
    with pytest.raises(UsageError, match=rf"#{relu}.* relu ") as no:
        build_again(resnet18, tmp_path, skip_ops=[f"#{relu}"])
    assert f"#{conv} (" in no.value.hint
