import re

import own_networks
import pytest
import tiny
from tiers import full_but

from job.engine.training import baseline, programs
from job.engine.training.eager_check import check_against_eager
from job.errors import QuantizationError, UsageError

pytestmark = pytest.mark.engine

WORKING = [
    *("attention_by_function", "attention_by_operator", "batch_norm_without_affine", "buffers"),
    *("class_token", "dict_output", "dropped_channels", "flat_by_batch_size"),
    *("shuffled_channels", "sigmoid_gate", "stochastic_depth", "shared_layer", "activations"),
    *("pooled_branches", "tied_weight", "tied_weight_first", "other_types", "same_padding"),
]
REJECTED = {
    "branch_on_value": "/model/callable",
    "loop_over_images": "/model/callable",
    "random_in_evaluation": "/model/callable",
    "number_of_tensor": "/model/callable",
    "channels_last": "/model",
    "no_tensor": "/model/callable",
}
NAMES_A_LINE = ("branch_on_value", "number_of_tensor")


def open_own(name):
    target = f"own_networks:{name}"
    return target, tiny.open_tiny(name=None, callable_=target, classes=10)


@pytest.mark.parametrize("name", WORKING)
def test_static_program_computes_what_eager_execution_computes(name):
    target, session = open_own(name)
    assert check_against_eager(session, target, 10) < 1e-5


@pytest.mark.parametrize(("name", "pointer"), REJECTED.items())
def test_code_that_a_program_cannot_hold_is_rejected(name, pointer):
    with pytest.raises(UsageError) as caught:
        target, session = open_own(name)
        check_against_eager(session, target, 10)
    assert caught.value.message.startswith(f"{pointer}:")
    if name in NAMES_A_LINE:
        assert re.search(rf"{own_networks.__file__}:\d+", caught.value.message)


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


@pytest.mark.parametrize("name", full_but(WORKING, ["stochastic_depth", "class_token"]))
def test_int8_model_computes_what_was_trained(name, tmp_path):
    made = tiny.quantize(open_own(name)[1], tmp_path)
    assert tiny.error(made.fake, made.fp32) < 0.1
    assert tiny.error(made.int8, made.fake) < 0.1


def test_network_that_onednn_computes_wrong_is_rejected(tmp_path):
    session = open_own("wrong_in_onednn")[1]
    baseline.export(session, tmp_path)
    with pytest.raises(QuantizationError):
        baseline.check_kernels(tmp_path, tiny.SHAPE)


def test_weights_load_into_buffers():
    classifier = open_own("buffers")[1].classifier
    block = classifier.train.global_block()
    assert block.var(classifier.weight_names["mean"]).stop_gradient
    assert block.var(classifier.weight_names["index"]).dtype == programs.paddle.int64
