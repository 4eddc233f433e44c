"""Networks whose outputs depend on the batch are rejected, and the message names the place."""

import re

import numpy as np
import odd_networks
import pytest
import tiny

from job.engine.quantize import qat
from job.engine.training import baseline, programs, ready_names
from job.engine.training.batch_check import check_batches
from job.engine.training.eager_check import check_against_eager
from job.engine.training.kernel_check import check_kernels
from job.engine.training.program_checks import require_numbers
from job.errors import DataError, UsageError

pytestmark = pytest.mark.engine

paddle, static = programs.paddle, programs.static
READING_VALUES = ("whole_number", "array_of_numbers", "list_of_numbers", "choice_from_a_list")


def open_odd(name):
    target = f"odd_networks:{name}"
    return target, tiny.open_tiny(name=None, callable_=target, classes=10)


@pytest.mark.parametrize("name", ["mean_over_batch", "softmax_over_batch"])
def test_outputs_that_depend_on_other_images_are_rejected(name):
    target, session = open_odd(name)
    with pytest.raises(UsageError) as caught:
        check_batches(session, f"/model/callable: {target}")
    assert re.search(rf"{odd_networks.__file__}:\d+", caught.value.message)


def test_random_outputs_are_not_blamed_on_the_batch():
    target, session = open_odd("random_for_each_image")
    with pytest.raises(UsageError, match=rf"two calls .*{odd_networks.__file__}:\d+") as caught:
        check_batches(session, f"/model/callable: {target}")
    assert "self.training" in caught.value.hint


def test_a_squeezed_batch_is_rejected():
    target, session = open_odd("squeezed_scores")
    with pytest.raises(UsageError, match=r"\[10\] for one image"):
        check_batches(session, f"/model/callable: {target}")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("layer_that_counts", r"the layer 1 \(Counting\)"),
        ("counting_between_layers", r"before the call of the layer second\.0 "),
        ("counting_behind_layers", r"behind the layer first "),
    ],
)
def test_the_layer_that_differs_from_eager_execution_is_named(name, place):
    target, session = open_odd(name)
    with pytest.raises(UsageError, match=place):
        check_against_eager(session, target, 10)


def test_a_loop_over_the_images_is_rejected():
    with pytest.raises(UsageError, match=rf"{odd_networks.__file__}:\d+ loops over the images"):
        open_odd("loop_over_a_batch")


def test_a_loop_over_channels_has_the_right_number_of_steps():
    target, session = open_odd("loop_over_channels")
    assert check_against_eager(session, target, 10) < 1e-5


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        *((name, "reads the value of a tensor", "paddle.where") for name in READING_VALUES),
        ("length_of_a_batch", "calls len()", "x.shape[0]"),
        ("assigned_part", "assigns to a part of a tensor", "paddle.concat"),
    ],
)
def test_code_that_needs_values_is_explained(name, what, hint):
    with pytest.raises(UsageError) as caught:
        open_odd(name)
    assert re.search(rf"{odd_networks.__file__}:\d+: ", caught.value.message)
    assert what in caught.value.message
    assert hint in caught.value.hint


def save_ready(folder, call, dtype="float32"):
    program, startup, scope = static.Program(), static.Program(), static.Scope()
    with static.program_guard(program, startup), static.scope_guard(scope):
        x = static.data("x", [1, *tiny.SHAPE], dtype)
        scores = call(x)
        executor = static.Executor(programs.cpu())
        executor.run(startup)
        static.save_inference_model(str(folder / "model"), [x], [scores], executor)


def open_ready(folder):
    return tiny.open_tiny(name=None, inference_model=folder / "model", classes=10)


def test_a_model_exported_for_one_image_reads_any_number(tmp_path):
    save_ready(tmp_path, lambda x: paddle.nn.Linear(64, 10)(paddle.flatten(x, 1)))
    session = open_ready(tmp_path)
    assert check_batches(session, "/model/inference_model: net") < 1e-5
    images = np.zeros((5, *tiny.SHAPE), "float32")
    with session.active():
        feed = {programs.IMAGE: images}
        evaluation = session.classifier.evaluation
        (scores,) = session.executor.run(evaluation, feed, [session.classifier.logits])
    assert scores.shape == (5, 10)


# An export leaves out the outputs of these ops that only their gradients read.
SHORTENED = {
    "dropout": lambda: paddle.nn.Dropout(0.3, mode="downscale_in_infer"),
    "instance norm": lambda: paddle.nn.InstanceNorm2D(1),
}


@pytest.mark.parametrize("layer", SHORTENED)
def test_ops_that_an_export_shortens_are_trained(layer, tmp_path):
    def call(x):
        return paddle.nn.Linear(64, 10)(paddle.flatten(SHORTENED[layer]()(x), 1))

    save_ready(tmp_path, call)
    session = open_ready(tmp_path)
    images = np.random.default_rng(0).standard_normal((4, *tiny.SHAPE)).astype("float32")
    feed = {programs.IMAGE: images, ready_names.LABEL: np.arange(4).reshape(4, 1)}
    with session.active():
        tiny.recipe().add_optimizer(session.classifier)
        session.executor.run(session.classifier.startup)
        train, loss = session.classifier.train, session.classifier.loss
        losses = [float(session.executor.run(train, feed, [loss])[0]) for _ in range(4)]
    assert losses[-1] < losses[0] / 2


def test_a_model_that_reshapes_to_one_image_is_rejected(tmp_path):
    save_ready(tmp_path, lambda x: paddle.nn.Linear(64, 10)(paddle.reshape(x, [1, 64])))
    with pytest.raises(UsageError, match="batch of 3 images"):
        check_batches(open_ready(tmp_path), "/model/inference_model: net")


def test_an_input_of_other_type_is_rejected(tmp_path):
    save_ready(
        tmp_path,
        lambda x: paddle.nn.Linear(64, 10)(paddle.flatten(paddle.cast(x, "float32"), 1)),
        "uint8",
    )
    with pytest.raises(DataError, match=r"input x .*uint8"):
        open_ready(tmp_path)


def test_control_flow_is_rejected():
    with pytest.raises(UsageError, match=rf"conditional_block.*{odd_networks.__file__}:\d+"):
        open_odd("branch_in_program")


def test_outputs_of_integers_are_rejected():
    with pytest.raises(UsageError, match="int64"):
        open_odd("chosen_classes")


def test_a_network_without_weights_is_rejected():
    with pytest.raises(UsageError, match="no weights"):
        open_odd("without_weights")


def test_the_bias_of_a_depthwise_transposed_convolution_keeps_its_axis(tmp_path):
    session = open_odd("depthwise_transposed")[1]
    baseline.export(session, tmp_path)
    assert check_kernels(session, tmp_path) < 1e-5


@pytest.mark.parametrize(
    "name", ["mean_with_last_row", "mean_with_right_padding", "mean_with_same_padding"]
)
def test_a_mean_over_uneven_padding_is_rejected_with_a_remedy(name, tmp_path):
    session = open_odd(name)[1]
    baseline.export(session, tmp_path)
    with pytest.raises(UsageError, match="pool2d") as caught:
        check_kernels(session, tmp_path)
    assert "exclusive=True" in caught.value.hint


def test_random_slopes_have_their_mean_in_evaluation(tmp_path):
    target, session = open_odd("random_slopes")
    assert check_against_eager(session, target, 10) < 1e-5
    assert "rrelu" in {op.type for op in session.classifier.train.global_block().ops}
    baseline.export(session, tmp_path)
    assert check_kernels(session, tmp_path) < 1e-5


def test_weights_that_are_not_numbers_are_named():
    session = open_odd("weights_of_nan")[1]
    with pytest.raises(UsageError, match=r"linear_0\.b_0"):
        require_numbers(session.classifier.evaluation, session.scope)


def test_a_network_without_ops_to_quantize_is_rejected():
    program = open_odd("nothing_to_quantize")[1].classifier.evaluation
    with pytest.raises(UsageError, match="/quantize/quantize_op_types"):
        qat.require_quantized(program, tiny.SETTINGS["quantize_op_types"])


@pytest.mark.parametrize(
    ("name", "weight"), [("layers_in_a_list", ".w_0"), ("layer_made_late", "late.2.weight")]
)
def test_weights_that_are_not_registered_are_named(name, weight):
    target, session = open_odd(name)
    with pytest.raises(UsageError) as caught:
        check_against_eager(session, target, 10)
    assert weight in caught.value.hint


def test_a_weight_with_the_name_of_an_input_is_named():
    with pytest.raises(UsageError, match="'label'"):
        open_odd("weight_named_label")


@pytest.mark.parametrize("name", ["translated_method", "translated_network"])
def test_functions_for_to_static_are_called_as_written(name):
    target, session = open_odd(name)
    assert check_against_eager(session, target, 10) < 1e-5


def test_an_error_inside_a_context_manager_names_a_line_of_the_network():
    with pytest.raises(UsageError, match=rf"{odd_networks.__file__}:\d+"):
        open_odd("error_in_context")


def test_all_models_of_a_network_end_before_its_softmax(tmp_path):
    target, session = open_odd("probabilities")
    assert check_against_eager(session, target, 10) < 1e-5
    baseline.export(session, tmp_path)
    images = np.random.default_rng(0).standard_normal((4, *tiny.SHAPE)).astype("float32")
    found = tiny.scores(tmp_path / "model", "native", images)
    assert not np.allclose(found.sum(1), 1, atol=0.01)
    again = open_ready(tmp_path)
    with again.active():
        feed = {programs.IMAGE: images}
        evaluation = again.classifier.evaluation
        (scores,) = again.executor.run(evaluation, feed, [again.classifier.logits])
    np.testing.assert_allclose(scores, found, rtol=1e-4, atol=1e-5)
