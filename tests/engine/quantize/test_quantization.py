"""Post-training quantization, PACT, name patterns, and inference models as the FP32 model."""

import numpy as np
import pytest
import tiny
from tiers import full_but

from job.engine.int8 import build as int8
from job.engine.quantize import fake_quantize, qat, scales
from job.engine.quantize import pact as clipping
from job.engine.quantize.calibration import Method
from job.engine.training import checkpoints, network_programs, programs
from job.engine.training.baseline import export
from job.engine.training.objective import Labels
from job.errors import DataError, QuantizationError, UsageError
from job.manifest.schema import properties, schema

pytestmark = pytest.mark.engine

IMAGES, LABELS = tiny.examples(60, 2)
ALGORITHMS = ["hist", "KL", "mse", "avg", "abs_max"]

WITH_SCOPE = """
import paddle
from paddle import nn

class Network(nn.Layer):
    def __init__(self, classes):
        super().__init__()
        self.one = nn.Conv2D(1, 8, 3, padding=1, bias_attr=False)
        self.two = nn.Conv2D(8, 8, 3, padding=1, bias_attr=False)
        self.head = nn.Linear(8 * 64, classes)

    def forward(self, x):
        x = nn.functional.relu(self.one(x))
        with paddle.static.name_scope("keep_me"):
            x = self.two(x)
        return self.head(nn.functional.relu(x).flatten(1))

def network(num_classes):
    return Network(num_classes)

def no_network():
    return 7
"""


@pytest.fixture(scope="module")
def fp32(tmp_path_factory):
    return tiny.train_baseline(tmp_path_factory.mktemp("quantization") / "fp32", max_iters=24)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_scope.py").write_text(WITH_SCOPE)
    monkeypatch.syspath_prepend(tmp_path)


def convert_and_build(folder, out, session=None, *, settings=None, pact=False):
    """Write the fake-quantized and the INT8 model of the best weights in ``folder``."""
    settings = settings or tiny.SETTINGS
    session = session or tiny.open_tiny()
    out.mkdir(exist_ok=True)
    record = qat.convert(session, settings, best=folder / "best.npz", pact=pact, out=out)
    (out / "int8").mkdir()
    audit, (scores,) = int8.build(
        out / "model", out / "int8", settings["quantize_op_types"], IMAGES[:16]
    )
    return record, audit, scores


def op_types(prefix):
    return [op.type for op in int8.read_ops(prefix.with_suffix(".pdmodel"))]


def top1(prefix, mode):
    return 100 * (tiny.scores(prefix, mode, IMAGES).argmax(1) == LABELS).mean()


def test_fixed_settings_are_the_schemas_only_values():
    keys = properties(schema())["quantize"]["properties"]
    only = {name: key["enum"][0] for name, key in keys.items() if len(key.get("enum", "ab")) == 1}
    assert only == fake_quantize.FIXED_SETTINGS


@tiny.needs_vnni
def test_qat_keeps_the_accuracy_to_int8(fp32, tmp_path):
    record = tiny.train_qat(fp32, tmp_path / "qat")
    assert record["calibrated"] is True
    converted, audit, _ = convert_and_build(tmp_path / "qat", tmp_path / "out")
    assert converted["quantized"]["conv2d"] == 10
    assert (audit.int8_ops, audit.fp32_ops) == (11, 0)
    expected = fp32.record["best_top1"]
    assert top1(tmp_path / "out/model", "fake_quantized") == pytest.approx(expected, abs=4)
    assert top1(tmp_path / "out/int8/model", "int8") == pytest.approx(expected, abs=4)


def test_no_observer_is_left(fp32, tmp_path):
    tiny.train_qat(fp32, tmp_path / "qat", max_iters=1)
    convert_and_build(tmp_path / "qat", tmp_path / "out")
    types = op_types(tmp_path / "out/model")
    assert "moving_average_abs_max_scale" not in types
    for op in int8.read_ops(tmp_path / "out/model.pdmodel"):
        assert not int8.attribute(op, "only_observer")


@tiny.needs_vnni
@pytest.mark.parametrize("algorithm", full_but(ALGORITHMS, ["abs_max"]))
def test_post_training_quantization(fp32, tmp_path, algorithm):
    out = tmp_path / "out"
    (out / "int8").mkdir(parents=True)
    calibration = tiny.pack(tmp_path / "c.bin", 48, 4)
    method = Method(ranges=algorithm)
    record = tiny.convert_without_training(fp32.out, calibration, out, method, tiny.CLASSES)
    assert record["quantized"]["conv2d"] == 10
    types = tiny.SETTINGS["quantize_op_types"]
    audit, (scores,) = int8.build(out / "model", out / "int8", types, IMAGES)
    assert (audit.int8_ops, audit.fp32_ops) == (11, 0)
    expected = tiny.scores(fp32.out / "model", "native", IMAGES)
    # KL cuts the largest values off; 48 images are few for it.
    assert tiny.error(scores, expected) < (0.35 if algorithm == "KL" else 0.15)


@tiny.needs_vnni
def test_pact_is_trained_and_leaves_no_op_behind(fp32, tmp_path):
    tiny.train_qat(fp32, tmp_path / "qat", pact=True)
    best = checkpoints.read_arrays(tmp_path / "qat/best.npz")
    bounds = {name: v for name, v in best.items() if name.endswith(clipping.THRESHOLD)}
    assert len(bounds) > 10
    _, audit, scores = convert_and_build(tmp_path / "qat", tmp_path / "out", pact=True)
    types = op_types(tmp_path / "out/model")
    assert {"elementwise_min", "elementwise_max", "scale"}.isdisjoint(types)
    assert (audit.int8_ops, audit.fp32_ops) == (11, 0)
    expected = tiny.scores(fp32.out / "model", "native", IMAGES[:16])
    assert tiny.error(scores, expected) < 0.2


def test_pact_bounds_the_scale(fp32, tmp_path):
    tiny.train_qat(fp32, tmp_path / "qat", pact=True, max_iters=1)
    best = checkpoints.read_arrays(tmp_path / "qat/best.npz")
    name = next(n for n in sorted(best) if n.endswith(clipping.THRESHOLD))
    best[name] = np.array([0.125], "float32")
    checkpoints.write_arrays(tmp_path / "qat/best.npz", best)
    convert_and_build(tmp_path / "qat", tmp_path / "out", pact=True)
    scope = programs.static.Scope()
    executor = programs.static.Executor(programs.cpu())
    program, _, _ = programs.load_inference_model(tmp_path / "out/model", executor, scope)
    source = name.removesuffix(clipping.THRESHOLD)
    found = [s for s, x in scales.scale_sources(program).items() if x == source]
    assert found
    for scale in found:
        assert programs.read_variables(scope, [scale])[scale] == pytest.approx(0.125)


@pytest.mark.full
def test_pact_bounds_start_calibrated_and_move(fp32, tmp_path):
    folders = [tmp_path / "short", tmp_path / "long"]
    for folder, steps in zip(folders, (1, 12), strict=True):
        tiny.train_qat(fp32, folder, pact=True, max_iters=steps, checkpoint_seconds=0.0)
    short, long = map(tiny.trained_values, folders)
    names = [name for name in short if name.endswith(clipping.THRESHOLD)]
    assert all(0 < short[name][0] < clipping.INITIAL_THRESHOLD for name in names)
    assert any(short[name][0] != long[name][0] for name in names)


@tiny.needs_vnni
def test_matching_name_scope_stays_in_fp32_and_the_audit_says_why(own_module, tmp_path):
    session = tiny.open_tiny(name=None, callable_="own_scope:network")
    quantized = tiny.quantize(session, tmp_path, not_quant_pattern=["skip_quant", "keep_me"])
    (left,) = quantized.audit.left_in_fp32
    assert left["type"] in ("conv2d", "fused_conv2d")
    assert "/quantize/not_quant_pattern" in left["reason"]
    assert (quantized.audit.int8_ops, quantized.audit.fp32_ops) == (2, 1)
    assert quantized.int8_error < 0.1


def test_nothing_quantized_is_an_error(fp32, tmp_path):
    tiny.train_qat(fp32, tmp_path / "qat", max_iters=1)
    settings = {**tiny.SETTINGS, "quantize_op_types": ["mul"]}
    with pytest.raises(UsageError, match=r"no op.* mul"):
        convert_and_build(tmp_path / "qat", tmp_path / "out", settings=settings)
    with pytest.raises(QuantizationError, match=r"11 convolutions"):
        (tmp_path / "int8").mkdir()
        int8.build(fp32.out / "model", tmp_path / "int8", ["conv2d"], IMAGES[:2])


def test_ready_inference_model_is_a_source(fp32, tmp_path):
    def open_ready():
        return tiny.open_tiny(name=None, inference_model=fp32.out / "model")

    session = open_ready()
    (tmp_path / "fp32").mkdir()
    export(session, tmp_path / "fp32")
    expected = tiny.scores(fp32.out / "model", "native", IMAGES)
    found = tiny.scores(tmp_path / "fp32/model", "native", IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    ready = tiny.Trained(tmp_path / "fp32", {}, session)
    tiny.pack(tmp_path / "selection.bin", 60, 2)
    tiny.train_qat(ready, tmp_path / "qat", open_=open_ready, checkpoint_seconds=0.0)
    start = checkpoints.read_arrays(tmp_path / "qat/start.npz")
    before = checkpoints.read_arrays(tmp_path / "fp32/weights.npz")
    after = tiny.trained_values(tmp_path / "qat")
    statistics = programs.batch_norm_statistics(session.classifier.evaluation)
    assert len(statistics) == 20
    for name in before:
        assert np.array_equal(start[name], after[name]) == (name in statistics), name
    _, audit, _ = convert_and_build(tmp_path / "qat", tmp_path / "out", open_ready())
    assert (audit.int8_ops, audit.fp32_ops) == (11, 0)


@pytest.mark.parametrize(
    "copy",
    [
        lambda scores: scores,
        lambda scores: programs.paddle.scale(scores, 1.0),
        lambda scores: programs.paddle.assign(programs.paddle.scale(scores, 1.0)),
    ],
)
@pytest.mark.parametrize("last", [programs.paddle.nn.functional.softmax, lambda logits: logits])
def test_softmax_at_the_end_is_cut(fp32, tmp_path, last, copy):
    """Older Paddle versions save a copy of each output, as does saving a loaded model again."""
    session = fp32.session
    program = session.classifier.evaluation.clone(for_test=True)
    with session.active(), programs.static.program_guard(program):
        logits = program.global_block().var(session.classifier.logits)
        output = copy(last(logits))
        programs.save_inference_model(program, tmp_path / "soft", [output.name], session.executor)
    ready = tiny.open_tiny(name=None, inference_model=tmp_path / "soft")
    (tmp_path / "out").mkdir()
    export(ready, tmp_path / "out")
    found = tiny.scores(tmp_path / "out/model", "native", IMAGES)
    expected = tiny.scores(fp32.out / "model", "native", IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [{"scale": 2.0}, {"bias": 1.0}])
def test_a_scale_that_changes_scores_stays(fp32, tmp_path, scale):
    session = fp32.session
    program = session.classifier.evaluation.clone(for_test=True)
    with session.active(), programs.static.program_guard(program):
        output = programs.paddle.scale(
            program.global_block().var(session.classifier.logits), **{"scale": 1.0, **scale}
        )
        programs.save_inference_model(program, tmp_path / "scaled", [output.name], session.executor)
    ready = tiny.open_tiny(name=None, inference_model=tmp_path / "scaled")
    (tmp_path / "out").mkdir()
    export(ready, tmp_path / "out")
    found = tiny.scores(tmp_path / "out/model", "native", IMAGES)
    expected = tiny.scores(fp32.out / "model", "native", IMAGES)
    wanted = expected * scale.get("scale", 1) + scale.get("bias", 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_inference_model_that_does_not_fit_is_refused(fp32, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.pdmodel"):
        tiny.open_tiny(name=None, inference_model=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"\[-1, 4\].*\[-1, 5\]"):
        tiny.open_tiny(name=None, inference_model=fp32.out / "model", classes=5)
    for suffix in (".pdmodel", ".pdiparams"):
        content = (fp32.out / f"model{suffix}").read_bytes()
        (tmp_path / f"cut{suffix}").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="/cut: "):
        tiny.open_tiny(name=None, inference_model=tmp_path / "cut")


def test_callable_is_checked(own_module):
    for target, message in (
        ("own_scope:no_network", "own_scope:no_network .*int"),
        ("own_scope:nothing", "own_scope:nothing.*'nothing'"),
        ("no_such_module:network", "no_such_module:network.*No module named"),
    ):
        with pytest.raises(UsageError, match=message):
            tiny.open_tiny(name=None, callable_=target)
    with pytest.raises(UsageError, match=r"\[-1, 5\].*\[-1, 4\]"):
        tiny.open_tiny(
            name=None, callable_="paddle.vision.models:LeNet", input_shape=(1, 28, 28), classes=5
        ) and None
        network_programs.from_network(
            lambda: programs.paddle.nn.Sequential(
                programs.paddle.nn.Flatten(), programs.paddle.nn.Linear(64, 5)
            ),
            input_shape=tiny.SHAPE,
            objective=Labels(4, 0.0),
            seed=0,
        )
