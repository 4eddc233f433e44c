"""Replaces weights that ops compute from other weights, such as by weight norm, by their values.

PaddleSlim and Paddle's oneDNN passes quantize only stored weights. An op with a computed weight
would stay in FP32.
"""

from typing import Any

from paddle import static
from paddle.static import Program

from job.engine.training.programs import SKIP
from job.engine.training.ready_names import IMAGE

# Op type -> slot of the weight.
WEIGHT_SLOTS = {
    "conv2d": "Filter",
    "depthwise_conv2d": "Filter",
    "matmul": "Y",
    "matmul_v2": "Y",
    "mul": "Y",
}
# Attribute of ops that compute random numbers.
RANDOM = "seed"


def store_computed_weights(
    program: Program, scope: static.Scope, executor: static.Executor
) -> Program:
    """Return an inference program that reads computed weights from variables.

    Args:
        program: inference program, not changed.
        scope: contains the weights; receives the computed weights.
        executor: runs the program.

    Returns:
        ``program`` itself if it computes no weight.
    """
    names = computed_weights(program)
    if not names:
        return program
    # The pruned program does not read the image.
    sources = program._prune([program.global_block().var(name) for name in names])
    with static.scope_guard(scope):
        values = executor.run(sources, fetch_list=names)
    stored = program.clone(for_test=True)
    block = stored.global_block()
    for index in reversed(range(len(block.ops))):
        if not set(names).isdisjoint(block.ops[index].output_arg_names):
            block._remove_op(index, sync=False)
    # skip_computed_weights excluded these ops from quantization. Their weights are stored now.
    for op in block.ops:
        if not set(names).isdisjoint(weights_of(op)):
            op._set_attr("op_namescope", op.attr("op_namescope").replace(f"{SKIP}/", ""))
    for name, value in zip(names, values, strict=True):
        block.var(name).persistable = True
        scope.var(name).get_tensor().set(value, static.cpu_places(1)[0])
    stored._sync_with_cpp()
    return stored


def computed_weights(program: Program) -> list[str]:
    """Return the weights of convolutions and matrix products that depend on other weights only."""
    block = program.global_block()
    # Values that cannot be stored: they depend on the image or on random numbers.
    varying = {IMAGE}
    for op in block.ops:
        if op.has_attr(RANDOM) or not varying.isdisjoint(op.input_arg_names):
            varying |= set(op.output_arg_names)
    return sorted(
        {
            name
            for op in block.ops
            for name in weights_of(op)
            if name not in varying and not block.var(name).persistable
        }
    )


def weights_of(op: Any) -> list[str]:
    """Return the inputs of an op that can be its weight."""
    return list(op.input(WEIGHT_SLOTS[op.type])) if op.type in WEIGHT_SLOTS else []
