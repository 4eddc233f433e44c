"""Builds the static programs of a classifier from a network."""

from collections.abc import Callable, Sequence

import paddle
from paddle import static
from paddle.static import Program

from job.engine.training.evaluation_trace import named_like, same_ops
from job.engine.training.programs import (
    IMAGE,
    Classifier,
    append_loss,
    fold_bias_shapes,
    persistables,
    skip_computed_weights,
)
from job.engine.training.tracing import WarningAction, eager_semantics, logits_of
from job.engine.training.transposed_weights import transpose_initial_values, transpose_weights
from job.errors import UsageError


def from_network(
    build: Callable[[], paddle.nn.Layer],
    *,
    input_shape: Sequence[int],
    classes: int,
    label_smoothing: float,
    seed: int,
    own_code: bool = False,
) -> Classifier:
    """Build the programs of a network.

    Args:
        build: returns a new network; called in static mode.
        input_shape: (channels, height, width).
        classes: expected number of classes.
        label_smoothing: share of the target that is spread over all classes, 0 to 1.
        seed: random seed of the initial weights.
        own_code: whether a user wrote the network. Its code can differ between training and
            evaluation, so it is called for each.

    Raises:
        UsageError: the network's output does not have shape [N, classes], or its code cannot be
            traced.
    """
    train, startup = Program(), Program()
    startup.random_seed = seed
    paddle.seed(seed)
    with static.program_guard(train, startup), paddle.utils.unique_name.guard():
        network, logits = trace(build, input_shape, training=True)
        if len(logits.shape) != 2 or logits.shape[1] != classes:
            raise UsageError(
                f"/model/classes: the network's output has shape {list(logits.shape)}, "
                f"expected [-1, {classes}]",
                "Return scores [N, classes], and set /model/classes to their number.",
            )
        evaluation = train.clone(for_test=True)._prune([logits])
        scores = logits.name
        if own_code:
            evaluation, scores = evaluation_of(build, input_shape, evaluation, scores)
        transposed = transpose_weights([train, evaluation])
        transpose_initial_values(startup, transposed)
        for program in (train, evaluation):
            skip_computed_weights(program)
        weight_names = {
            key: value.name
            for key, value in network.state_dict().items()
            if evaluation.global_block().has_var(value.name)
        }
        loss = append_loss(logits, classes, label_smoothing)
    return Classifier(
        train=train,
        evaluation=evaluation,
        startup=startup,
        loss=loss.name,
        logits=scores,
        weight_names=weight_names,
        training_logits=logits.name,
        transposed=transposed,
    )


def trace(
    build: Callable[[], paddle.nn.Layer],
    input_shape: Sequence[int],
    *,
    training: bool,
    in_place: WarningAction = "ignore",
) -> tuple[paddle.nn.Layer, static.Variable]:
    """Append a network's ops to the current program; return the network and its logits."""
    image = static.data(IMAGE, [None, *input_shape], "float32")
    with eager_semantics(in_place):
        network = build()
        network.train() if training else network.eval()
        logits = logits_of(network(image))
    program = static.default_main_program()
    add_batch_norm_parameters(program)
    fold_bias_shapes(program)
    return network, logits


def evaluation_of(
    build: Callable[[], paddle.nn.Layer],
    input_shape: Sequence[int],
    cloned: Program,
    logits: str,
) -> tuple[Program, str]:
    """Trace a network in evaluation mode.

    Args:
        build: returns a new network.
        input_shape: (channels, height, width).
        cloned: evaluation program made from the training program.
        logits: name of the logits in ``cloned``.

    Returns:
        The evaluation program and the name of its logits: ``cloned`` if it computes the same.

    Raises:
        UsageError: the two traces have different weights.
    """
    traced, unused = Program(), Program()
    with static.program_guard(traced, unused), paddle.utils.unique_name.guard():
        _, own = trace(build, input_shape, training=False)
    traced = traced.clone(for_test=True)._prune([own])
    if same_ops(traced, cloned):
        return cloned, logits
    block, known = traced.global_block(), static.default_main_program().global_block()
    unknown = [
        name
        for name in persistables(traced)
        if not known.has_var(name) or known.var(name).shape != block.var(name).shape
    ]
    if unknown:
        raise UsageError(
            f"/model/callable: the network has other weights in evaluation than in training: "
            f"{', '.join(unknown[:5])}",
            "Create all layers in the constructor, the same ones at each call.",
        )
    renamed, names = named_like(traced, cloned)
    return renamed, names[own.name]


def add_batch_norm_parameters(program: Program) -> None:
    """Give scale 1 and shift 0 to batch norms without them, because Paddle's kernel reads both."""
    for op in program.global_block().ops:
        if op.type != "batch_norm":
            continue
        shape = program.global_block().var(op.input("Mean")[0]).shape
        for slot, value in (("Scale", 1.0), ("Bias", 0.0)):
            if not op.input(slot):
                attributes = paddle.ParamAttr(
                    initializer=paddle.nn.initializer.Constant(value), trainable=False
                )
                parameter = static.create_parameter(list(shape), "float32", attr=attributes)
                op.desc.set_input(slot, [parameter.name])
    program._sync_with_cpp()
