"""Adds weight norm to a layer of a static program.

Paddle's own function computes the initial values in the main program, so that each step of a static
program would reset the weights.
"""

import paddle
from paddle import nn, static
from paddle.base.framework import Variable
from paddle.nn.utils.weight_norm_hook import WeightNorm

# Paddle's value, so that the norm of a weight of zeros has a gradient.
SMALLEST = 1e-12
_original = WeightNorm.apply


def apply(layer: nn.Layer, name: str, dim: int | None) -> WeightNorm:
    """Replace a layer's weight by a norm and a direction, as ``WeightNorm.apply`` does.

    Args:
        layer: the layer.
        name: name of the weight.
        dim: axis that is not normalized; None or -1 for one norm of the whole weight.
    """
    weight = getattr(layer, name)
    if not isinstance(weight, Variable):
        return _original(layer, name, dim)
    axis = -1 if dim in (None, -1) else dim % len(weight.shape)
    others = [each for each in range(len(weight.shape)) if each != axis]
    hook = WeightNorm(name, axis)
    del layer._parameters[name]
    direction = layer.create_parameter(list(weight.shape), dtype=weight.dtype)
    norm = layer.create_parameter([] if axis == -1 else [weight.shape[axis]], dtype=weight.dtype)
    layer.add_parameter(f"{name}_v", direction)
    layer.add_parameter(f"{name}_g", norm)
    startup = static.default_startup_program()
    initial, first_direction, first_norm = (
        startup.global_block().var(each.name) for each in (weight, direction, norm)
    )
    with static.program_guard(startup):
        paddle.assign(initial, output=first_direction)
        squares = paddle.sum(paddle.square(initial), axis=others)
        paddle.assign(paddle.sqrt(squares + SMALLEST), output=first_norm)
    setattr(layer, name, hook.compute_weight(layer))
    layer.register_forward_pre_hook(hook)
    return hook
