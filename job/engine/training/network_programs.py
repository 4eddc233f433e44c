"""Builds the static programs of a network."""

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle import static
from paddle.static import Program

from job.engine.training.bias_shapes import fold_bias_shapes, write_out_axes
from job.engine.training.evaluation_trace import named_like, same_ops
from job.engine.training.objective import Objective
from job.engine.training.programs import (
    IMAGE,
    Classifier,
    persistables,
    skip_computed_weights,
)
from job.engine.training.random_slopes import use_mean_slopes
from job.engine.training.tracing import WarningAction, eager_semantics
from job.engine.training.transposed_weights import transpose_initial_values, transpose_weights
from job.errors import UsageError


class Trace(NamedTuple):
    """A network and the ops of one call.

    Attributes:
        network: the network.
        outputs: its outputs.
        generators: modules whose random numbers the call drew.
    """

    network: paddle.nn.Layer
    outputs: tuple[static.Variable, ...]
    generators: tuple[str, ...]


def from_network(
    build: Callable[[], paddle.nn.Layer],
    *,
    input_shape: Sequence[int],
    objective: Objective,
    seed: int,
    own_code: bool = False,
) -> Classifier:
    """Build the programs of a network.

    Args:
        build: returns a new network; called in static mode.
        input_shape: (channels, height, width).
        objective: outputs and loss.
        seed: random seed of the initial weights.
        own_code: whether a user wrote the network. Its code can differ between training and
            evaluation, so it is called for each.

    Raises:
        UsageError: the network has other outputs than expected, or its code cannot be traced.
    """
    train, startup = Program(), Program()
    startup.random_seed = seed
    paddle.seed(seed)
    with static.program_guard(train, startup), paddle.utils.unique_name.guard():
        network, outputs, generators = trace(build, input_shape, objective, training=True)
        found, hint = objective.check([output.shape for output in outputs])
        if found:
            raise UsageError(f"/model/classes: the network's {found}", f"Return {hint}")
        evaluation = train.clone(for_test=True)._prune(list(outputs))
        names = tuple(output.name for output in outputs)
        own_names = names
        if own_code:
            evaluation, own_names = evaluation_of(build, input_shape, objective, evaluation, names)
        use_mean_slopes(evaluation)
        transposed = transpose_weights([train, evaluation])
        transpose_initial_values(startup, transposed)
        for program in (train, evaluation):
            skip_computed_weights(program)
        objective.keep_in_fp32(train, names)
        objective.keep_in_fp32(evaluation, own_names)
        weight_names = {
            key: value.name
            for key, value in network.state_dict().items()
            if evaluation.global_block().has_var(value.name)
        }
        loss = objective.append_loss(outputs)
    return Classifier(
        train=train,
        evaluation=evaluation,
        startup=startup,
        loss=loss.name,
        outputs=own_names,
        weight_names=weight_names,
        training_outputs=names,
        transposed=transposed,
        generators=generators,
    )


def trace(
    build: Callable[[], paddle.nn.Layer],
    input_shape: Sequence[int],
    objective: Objective,
    *,
    training: bool,
    in_place: WarningAction = "ignore",
) -> Trace:
    """Append a network's ops to the current program."""
    image = static.data(IMAGE, [None, *input_shape], "float32")
    with eager_semantics(in_place):
        network = build()
        network.train() if training else network.eval()
        before = generator_states()
        outputs = objective.outputs_of(network(image))
        generators = tuple(
            name for name, state in generator_states().items() if state != before[name]
        )
    program = static.default_main_program()
    add_batch_norm_parameters(program)
    fold_bias_shapes(program)
    write_out_axes(program)
    return Trace(network, outputs, generators)


def generator_states() -> dict[str, Any]:
    """Return the states of the random generators that Python code of a network can use."""
    kind, keys, *others = np.random.get_state()
    return {"random": random.getstate(), "numpy.random": (kind, keys.tolist(), *others)}


def evaluation_of(
    build: Callable[[], paddle.nn.Layer],
    input_shape: Sequence[int],
    objective: Objective,
    cloned: Program,
    outputs: tuple[str, ...],
) -> tuple[Program, tuple[str, ...]]:
    """Trace a network in evaluation mode.

    Args:
        build: returns a new network.
        input_shape: (channels, height, width).
        objective: selects the outputs.
        cloned: evaluation program made from the training program.
        outputs: names of the outputs in ``cloned``.

    Returns:
        The evaluation program and the names of its outputs: ``cloned`` if it computes the same.

    Raises:
        UsageError: the two traces have different weights.
    """
    traced, unused = Program(), Program()
    with static.program_guard(traced, unused), paddle.utils.unique_name.guard():
        own = trace(build, input_shape, objective, training=False).outputs
    traced = traced.clone(for_test=True)._prune(list(own))
    if same_ops(traced, cloned):
        return cloned, outputs
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
    return renamed, tuple(names[output.name] for output in own)


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
