"""Names the first layer of a network that computes something else as a program than eagerly."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import paddle
from paddle import nn, static
from paddle.base.framework import Variable

from job.engine.training import network_programs, programs
from job.engine.training.objective import Labels
from job.engine.training.tracing import untranslated
from job.stats import relative_error


@dataclass(frozen=True)
class Call:
    """A call of a layer.

    Attributes:
        layer: name and type of the layer.
        inputs, outputs: the tensors of the call; as a static program, its variables.
    """

    layer: str
    inputs: list[Any]
    outputs: list[Any]


def first_different_layer(
    build: Callable[[], nn.Layer],
    classes: int,
    weights: dict[str, np.ndarray],
    images: np.ndarray,
    bound: float,
) -> str:
    """Return where a network first computes something else as a program; empty if unknown.

    Args:
        build: returns a new network.
        classes: number of classes.
        weights: values by the network's names.
        images: float32 [N, C, H, W].
        bound: relative error above which values are different.
    """
    traced = program_calls(build, classes, weights, images)
    eager = eager_calls(build, weights, images)
    for one, other in zip(traced, eager, strict=False):
        if one.layer != other.layer:
            return f"another layer is called in eager execution: {other.layer}, not {one.layer}"
        for found, expected, where in (
            (one.inputs, other.inputs, "code before the call of"),
            (one.outputs, other.outputs, "the code of"),
        ):
            if not same(found, expected, bound):
                return f"the first difference is in {where} the layer {one.layer}"
    if len(traced) != len(eager):
        return f"{len(eager)} layers are called in eager execution, {len(traced)} in the program"
    return f"the first difference is in code behind the layer {eager[-1].layer}" if eager else ""


def watched(network: nn.Layer, calls: list[Call]) -> nn.Layer:
    """Record the calls of the layers of a network."""

    def record(name: str, layer: nn.Layer, given: Any, returned: Any) -> None:
        described = f"{name} ({type(layer).__name__})"
        calls.append(Call(described, list(tensors(given)), list(tensors(returned))))

    for name, layer in network.named_sublayers():
        layer.register_forward_post_hook(partial(record, name))
    return network


def tensors(value: Any) -> Iterator[Any]:
    """Yield the float32 tensors in a value, which can be nested; eager tensors as arrays."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from tensors(each)
    elif isinstance(value, Variable | paddle.Tensor) and value.dtype == paddle.float32:
        # Copied now, because a later function can change the tensor in place.
        yield value.numpy() if isinstance(value, paddle.Tensor) else value


def program_calls(
    build: Callable[[], nn.Layer],
    classes: int,
    weights: dict[str, np.ndarray],
    images: np.ndarray,
) -> list[Call]:
    """Return the calls of a network as a static program, with values."""
    calls: list[Call] = []
    program, startup, scope = static.Program(), static.Program(), static.Scope()
    with static.program_guard(program, startup), paddle.utils.unique_name.guard():
        network = network_programs.trace(
            lambda: watched(build(), calls), images.shape[1:], Labels(classes, 0.0), training=False
        ).network
    names = {key: variable.name for key, variable in network.state_dict().items()}
    executor = static.Executor(programs.cpu())
    with static.scope_guard(scope):
        executor.run(startup)
        programs.write_variables(scope, {names[k]: v for k, v in weights.items() if k in names})
        fetched = sorted({v.name for call in calls for v in (*call.inputs, *call.outputs)})
        values = executor.run(program, {programs.IMAGE: images}, fetched)
    by_name = dict(zip(fetched, values, strict=True))

    def read(variables: Iterable[Variable]) -> list[Any]:
        return [by_name[variable.name] for variable in variables]

    return [Call(call.layer, read(call.inputs), read(call.outputs)) for call in calls]


def eager_calls(
    build: Callable[[], nn.Layer], weights: dict[str, np.ndarray], images: np.ndarray
) -> list[Call]:
    """Return the calls of a network in eager execution, with values."""
    calls: list[Call] = []
    paddle.disable_static()
    try:
        network = watched(build(), calls)
        network.eval()
        for key, tensor in network.state_dict().items():
            if key in weights:
                tensor.set_value(weights[key])
        with paddle.no_grad(), untranslated():
            network(paddle.to_tensor(images))
        return calls
    finally:
        paddle.enable_static()


def same(found: list[np.ndarray], expected: list[np.ndarray], bound: float) -> bool:
    """Return whether all values are equal, apart from rounding."""
    return len(found) == len(expected) and all(
        one.shape == other.shape and relative_error(one, other) <= bound
        for one, other in zip(found, expected, strict=True)
    )
