import inspect
import re
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import own_networks
import pytest
import tiny
from tiers import full_but

from job.engine.inference import predictor
from job.engine.int8 import build as int8
from job.engine.training import baseline, programs
from job.engine.training.eager_check import check_against_eager
from job.engine.training.kernel_check import check_kernels
from job.engine.training.legacy_functions import legacy_functions
from job.engine.training.network_weights import load_weights
from job.engine.training.program_checks import require_trainable
from job.engine.training.tracing import logits_of
from job.engine.weights.match import read_weights
from job.errors import UsageError
from job.host import read_host
from job.profile.record import trace
from job.tasks.classification import agreement

pytestmark = pytest.mark.engine

paddle, static = programs.paddle, programs.static
WORKING = [
    *("attention_by_function", "attention_by_operator", "batch_norm_without_affine", "buffers"),
    *("class_token", "dict_output", "dropped_channels", "flat_by_batch_size"),
    *("shuffled_channels", "sigmoid_gate", "stochastic_depth", "shared_layer", "activations"),
    *("pooled_branches", "tied_weight", "tied_weight_first", "other_types", "same_padding"),
    *("factor_between", "scaled_residual", "square_matrix", "separable", "transposed_matrices"),
    *("matrices_without_bias", "sum_read_by_difference", "sum_read_by_concatenation"),
    *("normalized_weights", "deformed", "gated_by_axis"),
]
# Networks without any product in FP32.
WHOLLY_INT8 = [
    *("transposed_matrices", "matrices_without_bias"),
    *("sum_read_by_difference", "sum_read_by_concatenation"),
]
REJECTED = {
    "branch_on_value": "/model/callable",
    "loop_over_images": "/model/callable",
    "random_in_evaluation": "/model/callable",
    "number_of_tensor": "/model/callable",
    "channels_last": "/model",
    "no_tensor": "/model/callable",
    "changed_in_place": "/model/callable",
}
NAMES_A_LINE = ("branch_on_value", "number_of_tensor", "channels_last")


def open_own(name):
    target = f"own_networks:{name}"
    return target, tiny.open_tiny(name=None, callable_=target, classes=10)


@pytest.mark.parametrize("name", WORKING)
def test_static_program_computes_what_eager_execution_computes(name):
    target, session = open_own(name)
    assert check_against_eager(session, target, 10) < 1e-5
    require_trainable(session.classifier)


@pytest.mark.parametrize(("name", "pointer"), REJECTED.items())
def test_code_that_a_program_cannot_hold_is_rejected(name, pointer):
    with pytest.raises(UsageError) as caught:
        target, session = open_own(name)
        check_against_eager(session, target, 10)
    assert caught.value.message.startswith(f"{pointer}:")
    if name in NAMES_A_LINE:
        assert re.search(rf"{own_networks.__file__}:\d+", caught.value.message)


Named = namedtuple("Named", "loss scores")


@dataclass
class Record:
    loss: object
    out: object


LOGITS, OTHER = paddle.zeros([1, 10]), paddle.zeros([1, 3])


@pytest.mark.parametrize(
    "outputs",
    [
        *((None, LOGITS), [LOGITS, OTHER], Named(None, LOGITS), Named(OTHER, LOGITS)),
        *(Record(None, LOGITS), Record(OTHER, LOGITS), {"loss": None, "classes": [LOGITS]}),
    ],
)
def test_logits_are_found_among_the_outputs(outputs):
    assert logits_of(outputs) is LOGITS


@pytest.mark.parametrize(
    ("outputs", "found"),
    [
        *((None, "NoneType"), ((None, None), "tuple"), ({"a": LOGITS, "b": OTHER}, "'a', 'b'")),
        ((None, Record("text", None)), "str"),
    ],
)
def test_outputs_without_logits_are_named(outputs, found):
    with pytest.raises(UsageError, match=found):
        logits_of(outputs)


def test_values_keep_their_training_names_if_evaluation_has_other_ops():
    classifier = open_own("stochastic_depth")[1].classifier
    training, evaluation = classifier.train.global_block(), classifier.evaluation.global_block()
    assert "elementwise_mul" not in {op.type for op in evaluation.ops}
    names = {
        block: {
            op.output("Output")[0]: op.input("Filter")
            for op in block.ops
            if "Filter" in op.input_names
        }
        for block in (training, evaluation)
    }
    assert {k: v for k, v in names[training].items() if k in names[evaluation]} == names[evaluation]
    sums = [op.output("Out")[0] for op in evaluation.ops if op.type == "elementwise_add"]
    assert set(sums) <= {name for op in training.ops for name in op.output_arg_names}


@pytest.mark.parametrize(
    ("name", "found"),
    [("random_outside_paddle", " random "), ("skipped_in_training", "batch_norm2d_1.w_0")],
)
def test_network_that_one_trace_cannot_train_is_rejected(name, found):
    classifier = open_own(name)[1].classifier
    with pytest.raises(UsageError, match=found):
        require_trainable(classifier)


@pytest.mark.parametrize("name", full_but(WORKING, ["stochastic_depth", "class_token"]))
def test_int8_model_computes_what_was_trained(name, tmp_path):
    made = tiny.quantize(open_own(name)[1], tmp_path)
    assert tiny.error(made.fake, made.fp32) < 0.1
    # Without VNNI oneDNN halves the weights, and eight layers in a row lose another half bit.
    assert tiny.error(made.int8, made.fake) < (0.1 if read_host().has_vnni else 0.15)


@pytest.mark.parametrize("name", WHOLLY_INT8)
def test_every_product_runs_in_int8(name, tmp_path):
    made = tiny.quantize(open_own(name)[1], tmp_path)
    assert made.audit.fp32_ops == 0
    ran = trace(tmp_path / int8.PREFIX, predictor.INT8, tiny.SHAPE)
    products = [each for each in ran if each.kind in ("convolution", "inner_product", "matmul")]
    assert products
    assert all(each.is_int8 for each in products)
    assert agreement((made.int8,), (made.fake,)).signal_to_noise_db > 20


@pytest.mark.parametrize(
    ("name", "construct"),
    [
        ("wrong_in_onednn", "nearest"),
        ("shared_by_convolutions", "conv2d_0.w_0"),
        ("called_twice", "linear_0.w_0"),
    ],
)
def test_network_that_onednn_computes_wrong_is_rejected(name, construct, tmp_path):
    session = open_own(name)[1]
    baseline.export(session, tmp_path)
    with pytest.raises(UsageError) as caught:
        check_kernels(session, tmp_path)
    assert construct in caught.value.hint
    # The place names the function of the network.
    lines, first = inspect.getsourcelines(getattr(own_networks, name))
    line = int(re.search(rf"{own_networks.__file__}:(\d+)", caught.value.message)[1])
    assert first <= line < first + len(lines)


@pytest.mark.parametrize("name", ["deformed", "gated_by_axis"])
def test_onednn_computes_ops_with_an_axis_before_an_activation(name, tmp_path):
    session = open_own(name)[1]
    baseline.export(session, tmp_path)
    assert check_kernels(session, tmp_path) < 1e-5


def test_functions_that_change_a_tensor_in_place_are_named():
    target, session = open_own("changed_in_place")
    with pytest.raises(UsageError) as caught:
        check_against_eager(session, target, 10)
    assert "relu_" in caught.value.hint
    assert "add_" in caught.value.hint


def test_transposed_weights_are_loaded_and_exported_as_the_network_has_them(tmp_path):
    target, session = open_own("transposed_matrices")
    baseline.export(session, tmp_path)
    exported = read_weights(tmp_path / "weights.pdparams", None).arrays
    assert exported["wide"].shape == (96, 64)
    other = tiny.open_tiny(name=None, callable_=target, classes=10, seed=5)
    programs.write_variables(
        other.scope, {n: np.zeros_like(v) for n, v in weights_of(other).items()}
    )
    load_weights(other, tmp_path / "weights.pdparams", sha256=None, reset_classifier=False)
    for name, value in weights_of(session).items():
        np.testing.assert_array_equal(weights_of(other)[name], value)


def weights_of(session):
    names = programs.persistables(session.classifier.evaluation)
    return programs.read_variables(session.scope, names)


def test_transposed_weights_of_a_ready_model_are_turned(tmp_path):
    image = np.random.default_rng(0).standard_normal((4, *tiny.SHAPE)).astype("float32")
    program, startup, scope = static.Program(), static.Program(), static.Scope()
    with static.program_guard(program, startup), static.scope_guard(scope), legacy_functions():
        x = static.data("x", [None, *tiny.SHAPE], "float32")
        weight = static.create_parameter([10, 64], "float32", name="weight")
        scores = paddle.matmul(x.flatten(1), weight, transpose_y=True)
        executor = static.Executor(programs.cpu())
        executor.run(startup)
        static.save_inference_model(str(tmp_path / "model"), [x], [scores], executor)
        (expected,) = executor.run(program, {"x": image}, [scores])
    session = tiny.open_tiny(name=None, inference_model=tmp_path / "model", classes=10)
    classifier = session.classifier
    with session.active():
        feed = {programs.IMAGE: image}
        (found,) = session.executor.run(classifier.evaluation, feed, [classifier.logits])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    made = tiny.quantize(session, tmp_path)
    assert made.audit.fp32_ops == 0


def test_weights_load_into_buffers():
    classifier = open_own("buffers")[1].classifier
    block = classifier.train.global_block()
    assert block.var(classifier.weight_names["mean"]).stop_gradient
    assert block.var(classifier.weight_names["index"]).dtype == programs.paddle.int64
