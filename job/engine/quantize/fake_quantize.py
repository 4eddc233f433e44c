"""Makes fake-quantized programs with PaddleSlim and converts them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from paddle import static
from paddle.base import core, unique_name
from paddle.base.framework import IrGraph
from paddle.static import Program
from paddle.static.quantization import QuantWeightPass

from job.engine.inference.package_code import skip_package_code
from job.engine.training.programs import (
    SKIP,
    cpu,
    read_variables,
    write_variables,
)
from job.engine.training.ready_names import APPENDED

OBSERVER = "moving_average_abs_max_scale"
# The moving rate of the op quantize_linear, which has no attribute for it.
FIXED_RATE = 0.9
QUANTIZE, DEQUANTIZE = "quantize_linear", "dequantize_linear"
DEFAULT_SCALE_FLOOR = 1e-8
# The part of quant_aware's configuration for which the manifest allows one value.
FIXED_SETTINGS: Mapping[str, Any] = {
    "activation_quantize_type": "moving_average_abs_max",
    "weight_bits": 8,
    "activation_bits": 8,
    "window_size": 10000,
    "dtype": "int8",
    "onnx_format": True,
    "for_tensorrt": False,
    "is_full_quantize": False,
}


def keep_bias_adds_whole(program: Program) -> None:
    """Exclude adds of a bias from quantization, because the engine fuses them into the op before.

    Quantizing such an add would round the sum before the bias is added, without any speedup.
    """
    block = program.global_block()
    for op in block.ops:
        if op.type == "elementwise_add" and block.var(op.input("Y")[0]).persistable:
            op._set_attr("op_namescope", f"/{SKIP}/")


def insert(
    program: Program, scope: static.Scope, settings: Mapping[str, Any], *, for_test: bool
) -> Program:
    """Insert quantize and dequantize ops before the inputs of the ops to be quantized.

    Args:
        program: FP32 program, not changed.
        scope: contains the weights; receives the initial scales.
        settings: configuration of ``quant_aware``; overrides ``FIXED_SETTINGS``.
        for_test: False for a training program, which must already have its optimizer.

    Returns:
        The fake-quantized program.
    """
    # Imported here because the import takes time, and most engine processes do not insert quantize
    # ops. The code of the packages imports scikit-learn and others, for 1.7 s of CPU time.
    skip_package_code("paddleslim", "paddleslim.quant")
    from paddleslim.quant.quanter import quant_aware

    patterns = settings["not_quant_pattern"]
    config = {**FIXED_SETTINGS, **settings, "not_quant_pattern": sorted({*patterns, SKIP})}
    with unique_name.guard(APPENDED), _unchecked_links():
        quantized = quant_aware(
            program, cpu(), config, scope=scope, for_test=for_test, return_program=True
        )
    # PaddleSlim's observers are removed, because they cost time in each step and no op reads their
    # results.
    block = quantized.global_block()
    observed = {n for op in block.ops if op.type == OBSERVER for n in op.output_arg_names}
    remove_ops(quantized, [op.type == OBSERVER for op in block.ops])
    read = {name for op in block.ops for name in (*op.input_arg_names, *op.output_arg_names)}
    for name in observed - read:
        block._remove_var(name, sync=False)
    name_averages(quantized, scope)
    return quantized


@contextmanager
def _unchecked_links() -> Iterator[None]:
    """Let PaddleSlim connect nodes of a graph without a search for both nodes.

    ``IrGraph.link_to`` lists all nodes of the graph twice per call, only for two asserts.
    PaddleSlim connects each node that it inserts, so its time grew with the square of the network's
    size.
    """

    def link_to(_: IrGraph, source: Any, target: Any) -> None:
        source.append_output(target)
        target.append_input(source)

    checked, IrGraph.link_to = IrGraph.link_to, link_to
    try:
        yield
    finally:
        IrGraph.link_to = checked


def name_averages(program: Program, scope: static.Scope) -> None:
    """Name the state of each moving average after its scale.

    PaddleSlim numbers these variables in an order that differs from process to process, but
    checkpoints store them by name. A tensor that a convolution and a sum both read has two quantize
    ops with one scale: the first op updates the scale, the second op only uses it.
    """
    block = program.global_block()
    moved: set[str] = set()
    for op in block.ops:
        if not averages(op):
            continue
        (scale,) = op.input("Scale")
        old = {slot: op.input(f"In{slot}")[0] for slot in ("State", "Accum")}
        if scale in moved:
            only_quantize(op)
        else:
            moved.add(scale)
            for slot, name in old.items():
                new = f"{scale}@{slot.lower()}"
                block.create_var(name=new, shape=[1], dtype="float32", persistable=True)
                write_variables(scope, {new: read_variables(scope, [name])[name]})
                op._rename_input(name, new)
                op._rename_output(name, new)
        for name in old.values():
            block._remove_var(name, sync=False)
    program._sync_with_cpp()


def only_quantize(op: Any) -> None:
    """Make a quantize op use its scale without updating it."""
    op._set_attr("is_test", True)
    for slot in ("InAccum", "InState"):
        op.desc.remove_input(slot)
    for slot in ("OutAccum", "OutState", "OutScale"):
        op.desc.remove_output(slot)


def averages(op: Any) -> bool:
    """Return whether an op is a quantize op with a moving average."""
    return op.type == QUANTIZE and "InState" in op.input_names and bool(op.input("InState"))


def measures_images(op: Any) -> bool:
    """Return whether an op updates a moving average of its input.

    Quantize ops of per-channel weights have the inputs of a moving average, but do not update it.
    Quantize ops of per-tensor weights do update it.
    """
    return averages(op) and int(op.attr("quant_axis")) < 0


def measure_apart(program: Program, moving_rate: float) -> int:
    """Update the moving averages of a training program in separate ops.

    A ``quantize_linear`` op measures, averages and quantizes. Its moving rate is always 0.9,
    because the op has no attribute for the rate. After this function, these ops only quantize. Two
    ops are inserted before each of them: one op measures and averages, and a division computes the
    scale.

    Args:
        program: fake-quantized training program.
        moving_rate: share of the old value that is kept at each step, 0 to 1.

    Returns:
        The number of moving averages.
    """
    block = program.global_block()
    averaging = [i for i, op in enumerate(block.ops) if measures_images(op)]
    for index in reversed(averaging):
        op = block.ops[index]
        (source,), (scale,) = op.input("X"), op.input("Scale")
        (total,), (state,) = op.input("InAccum"), op.input("InState")
        only_quantize(op)
        block._insert_op(
            index,
            type="elementwise_div",
            inputs={"X": [total], "Y": [state]},
            outputs={"Out": [scale]},
            attrs={"axis": -1, "op_role": 0},
        )
        block._insert_op(
            index,
            type=OBSERVER,
            inputs={"X": [source], "InAccum": [total], "InState": [state]},
            outputs={"OutScale": [scale], "OutAccum": [total], "OutState": [state]},
            attrs={"moving_rate": moving_rate, "is_test": False, "op_role": 0},
        )
    program._sync_with_cpp()
    return len(averaging)


def remove_ops(program: Program, doomed: Sequence[bool]) -> None:
    """Remove the ops of the first block whose entry in ``doomed`` is True."""
    block = program.global_block()
    for index in reversed(range(len(doomed))):
        if doomed[index]:
            block._remove_op(index, sync=False)
    program._sync_with_cpp()


def freeze_batch_norm(program: Program) -> int:
    """Make every batch norm of a training program use and keep its running statistics.

    This must precede the backward pass, which reads other variables for a frozen batch norm.

    Returns:
        The number of batch norms.
    """
    norms = [op for op in program.global_block().ops if op.type == "batch_norm"]
    for op in norms:
        op._set_attr("use_global_stats", True)
    return len(norms)


def convert(quantized: Program, scope: static.Scope) -> Program:
    """Return the fake-quantized inference program: int8 weights, quantize and dequantize ops.

    PaddleSlim's ``convert`` is not used, because it adds observers that no engine needs.

    Args:
        quantized: program of :func:`insert` with ``for_test``.
        scope: contains the weights, which become int8 values.
    """
    graph = IrGraph(core.Graph(quantized.desc), for_test=True)
    QuantWeightPass(scope, cpu()).apply(graph)
    program = graph.to_program()
    read_dequantized(program)
    return program


def read_dequantized(program: Program) -> int:
    """Make ops that are not quantized read the dequantized value of a weight they share.

    Such a weight has int8 values now, because another op that reads it is quantized.

    Returns:
        The number of changed ops.
    """
    block = program.global_block()
    restored = {
        op.input("X")[0]: op
        for op in block.ops
        if op.type == DEQUANTIZE and block.var(op.input("X")[0]).persistable
    }
    changed = 0
    for op in list(block.ops):
        for name in [name for name in op.input_arg_names if name in restored]:
            if op.type == DEQUANTIZE:
                continue
            restoring = restored[name]
            if block.ops.index(restoring) > block.ops.index(op):
                restored[name] = move_to_front(block, restoring)
            op._rename_input(name, restored[name].output("Y")[0])
            changed += 1
    program._sync_with_cpp()
    return changed


def move_to_front(block: Any, op: Any) -> Any:
    """Move an op that reads weights only to the front of its block; return the new op."""
    inputs = {slot: op.input(slot) for slot in op.input_names}
    outputs = {slot: op.output(slot) for slot in op.output_names}
    attributes = {name: op.attr(name) for name in op.attr_names if name != "op_callstack"}
    kind = op.type
    block._remove_op(block.ops.index(op))
    return block._insert_op(0, type=kind, inputs=inputs, outputs=outputs, attrs=attributes)


def quantized_ops(program: Program) -> dict[str, int]:
    """Return, by type, the number of ops whose inputs are all quantized values or parameters."""
    block = program.global_block()
    dequantized = {
        name for op in block.ops if op.type == DEQUANTIZE for name in op.output_arg_names
    }
    counts: dict[str, int] = {}
    for op in block.ops:
        inputs = [n for n in op.input_arg_names if op.type not in (QUANTIZE, DEQUANTIZE)]
        known = all(n in dequantized or block.var(n).persistable for n in inputs)
        if known and any(n in dequantized for n in inputs):
            counts[op.type] = counts.get(op.type, 0) + 1
    return counts
