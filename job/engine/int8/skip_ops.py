"""Which trained ops stay in FP32 at the user's wish, and how they are kept there."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from paddle.static import Program

from job.engine.int8.audit import Left
from job.engine.int8.graph_fixes import Graph, keep_apart
from job.errors import UsageError
from job.text_format import close_matches

MATRIX_PRODUCTS = ("mul", "matmul", "matmul_v2")
ID = "#"


def skip(
    program: Program,
    trained: Collection[str],
    quantized_ops: Collection[str] | None,
    skip_ops: Sequence[str],
) -> list[Left]:
    """Mark the ops that the user leaves in FP32, so that Paddle's passes leave them there too.

    Args:
        program: the fake-quantized program.
        trained: op types that were trained to be quantized.
        quantized_ops: those of them that run in INT8; None means all.
        skip_ops: further ops to leave out, by type, name of output, or ``#`` and index.

    Raises:
        UsageError: an item of ``skip_ops`` matches no op.
    """
    graph = Graph(program)
    named = {
        index: [item for item in skip_ops if item in (op.type, f"{ID}{index}", output_of(op))]
        for index, op in enumerate(graph.block.ops)
        if op.type in trained and not is_bias_add(graph, op)
    }
    require_matches(graph, named, skip_ops)
    skipped = []
    for index, items in named.items():
        op = graph.block.ops[index]
        if items:
            reason = f"/int8/skip_ops has {items[0]}"
        elif quantized_ops is not None and op.type not in quantized_ops:
            reason = f"/int8/quantized_ops does not have {op.type}"
        else:
            continue
        skipped.append((op, Left(output_of(op), op.type, weight_of(graph, op), reason)))
    for op, _ in skipped:
        keep_in_fp32(graph, op)
    program._sync_with_cpp()
    return [what for _, what in skipped]


def is_bias_add(graph: Graph, op: Any) -> bool:
    """Whether an op adds a bias, which is never quantized by itself."""
    operands = [graph.block.var(name) for name in op.input_arg_names]
    return op.type == "elementwise_add" and any(operand.persistable for operand in operands)


def output_of(op: Any) -> str:
    """The name of an op's first output."""
    return op.output_arg_names[0] if op.output_arg_names else ""


def weight_of(graph: Graph, op: Any) -> str:
    """The parameter that an op reads, seen through its dequantizing; empty if it reads none."""
    for name in op.input_arg_names:
        for source in sources(graph, name):
            if graph.block.var(source).persistable:
                return source
    return ""


def sources(graph: Graph, name: str) -> Iterator[str]:
    """A variable and what it was quantized and dequantized from."""
    yield name
    producer = graph.producers.get(name)
    if producer is not None and "Scale" in producer.input_names:
        yield producer.input("X")[0]


def require_matches(graph: Graph, named: dict[int, list[str]], skip_ops: Sequence[str]) -> None:
    """Make sure that each item names an op.

    Raises:
        UsageError: with the most similar names.
    """
    found = {item for items in named.values() for item in items}
    for item in skip_ops:
        if item in found:
            continue
        ops = [graph.block.ops[index] for index in named]
        names = [*sorted({op.type for op in ops}), *map(output_of, ops)]
        close = close_matches(item, names, 3) or names[:3]
        raise UsageError(
            f"/int8/skip_ops: {item!r} is no quantized op of this model",
            f"Among them are {', '.join(close)}; the report's audit names more of them.",
        )


def keep_in_fp32(graph: Graph, op: Any) -> None:
    """Keep Paddle's passes from quantizing one op."""
    op._set_attr("skip_quant", 1)
    if op.type == "elementwise_add":
        # Folded into a convolution it would be computed in the convolution's INT8.
        keep_apart(graph, op)
    if op.type in MATRIX_PRODUCTS:
        copy_input(graph.block, op)


def copy_input(block: Any, op: Any) -> None:
    """Let a matrix product read a copy of its input.

    Paddle makes an fc of it, which forgets the mark; a copy has no scale, without which an fc is
    not quantized.
    """
    name = op.input("X")[0]
    copy = f"{name}.fp32"
    if not block.has_var(copy):
        block.create_var(name=copy, shape=block.var(name).shape, dtype="float32")
        index = block.ops.index(op)
        block._insert_op(index, type="assign", inputs={"X": [name]}, outputs={"Out": [copy]})
    op._rename_input(name, copy)
