"""PACT: clips activations at trained bounds (arXiv:1805.06085)."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import paddle
from paddle import static
from paddle.static import Program

from job.engine.quantize.fake_quantize import DEFAULT_SCALE_FLOOR, QUANTIZE, remove_ops
from job.engine.training.programs import (
    IMAGE,
    SKIP,
    Classifier,
    read_variables,
    write_variables,
)

THRESHOLD = ".pact_threshold"
# Initial bound without calibration, equal to PaddleSlim's.
INITIAL_THRESHOLD = 20.0


def clip_activations(classifier: Classifier, settings: Mapping[str, Any]) -> None:
    """Clip the inputs of the ops to be quantized at trained bounds.

    PaddleSlim's PACT cannot be inserted into an evaluation program of this format. This function
    must precede the optimizer, so that the bounds are trained with the weights.
    """
    with static.program_guard(classifier.train, classifier.startup):
        clip_inputs(classifier.train, settings)
    # The bounds are initialized by the training program's startup program.
    with static.program_guard(classifier.evaluation, Program()):
        clip_inputs(classifier.evaluation, settings)


def clip_inputs(program: Program, settings: Mapping[str, Any]) -> None:
    """Insert max(min(x, bound), -bound) before each input x of the ops to be quantized."""
    block = program.global_block()
    clipped: dict[str, str] = {}
    for op in list(block.ops):
        scopes = op.attr("op_namescope") if op.has_attr("op_namescope") else ""
        excluded = any(pattern in scopes for pattern in (*settings["not_quant_pattern"], SKIP))
        if op.type not in settings["quantize_op_types"] or excluded:
            continue
        for name in set(op.input_arg_names):
            if name == IMAGE or block.var(name).persistable:
                continue
            if name not in clipped:
                clipped[name] = insert_clip(block, block.ops.index(op), name)
            op._rename_input(name, clipped[name])
    program._sync_with_cpp()


def insert_clip(block: Any, index: int, name: str) -> str:
    """Insert ops that clip a variable before op ``index``; return the clipped variable's name."""
    bound = static.create_parameter(
        [1],
        "float32",
        name=f"{name}{THRESHOLD}",
        default_initializer=paddle.nn.initializer.Constant(INITIAL_THRESHOLD),
    ).name
    shape = block.var(name).shape
    outputs = {f"{bound}.negative": [1], f"{name}.below": shape, f"{name}.clipped": shape}
    for output, its_shape in outputs.items():
        block.create_var(name=output, shape=its_shape, dtype="float32")
    negative, below, both = outputs
    for kind, inputs, output, attributes in (
        ("elementwise_max", {"X": [below], "Y": [negative]}, both, {"axis": -1}),
        ("scale", {"X": [bound]}, negative, {"scale": -1.0}),
        ("elementwise_min", {"X": [name], "Y": [bound]}, below, {"axis": -1}),
    ):
        block._insert_op(
            index, type=kind, inputs=inputs, outputs={"Out": [output]}, attrs=attributes
        )
    return both


def clips(program: Program) -> dict[str, tuple[str, str]]:
    """Return clipped variable -> (original variable, bound), for each clip of a program."""
    ops = program.global_block().ops
    below = {
        op.output("Out")[0]: (op.input("X")[0], op.input("Y")[0])
        for op in ops
        if op.type == "elementwise_min" and op.input("Y")[0].endswith(THRESHOLD)
    }
    return {
        op.output("Out")[0]: below[op.input("X")[0]]
        for op in ops
        if op.type == "elementwise_max" and op.input("X")[0] in below
    }


def strip_clips(program: Program, scope: static.Scope) -> None:
    """Remove the clips, and limit the scales of their quantize ops to the bounds.

    The result is the same, because a quantize op clips at its scale.
    """
    ops = program.global_block().ops
    clipped = clips(program)
    scales = {}
    for op in ops:
        if op.type == QUANTIZE and op.input("X")[0] in clipped:
            source, bound = clipped[op.input("X")[0]]
            name = op.input("Scale")[0]
            values = read_variables(scope, [name, bound])
            scales[name] = np.minimum(values[name], np.maximum(values[bound], DEFAULT_SCALE_FLOOR))
            op._rename_input(op.input("X")[0], source)
    write_variables(scope, scales)
    read = {name for op in ops for name in op.input_arg_names}
    bounds = {bound for output, (_, bound) in clipped.items() if output not in read}
    remove_ops(program, [is_of_clip(op, bounds) for op in ops])


def is_of_clip(op: Any, bounds: Collection[str]) -> bool:
    """Return whether an op is part of a clip at one of these bounds."""
    names = {*bounds, *(f"{bound}.negative" for bound in bounds)}
    kinds = ("elementwise_min", "elementwise_max", "scale")
    return op.type in kinds and not names.isdisjoint(op.input_arg_names)
