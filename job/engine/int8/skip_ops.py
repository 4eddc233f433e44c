"""Keeps the ops of /int8/skip_ops and outside /int8/quantized_ops in FP32."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from paddle.static import Program

from job.engine.int8.audit import Left
from job.engine.int8.graph_fixes import keep_apart
from job.engine.quantize.graph import Graph
from job.engine.training.transposed_weights import MATRIX_PRODUCTS
from job.errors import UsageError
from job.text_format import close_matches

ID = "#"


def skip(
    program: Program,
    trained: Collection[str],
    quantized_ops: Collection[str] | None,
    skip_ops: Sequence[str],
) -> list[Left]:
    """Mark ops so that Paddle's passes keep them in FP32.

    Args:
        program: the fake-quantized program.
        trained: op types that were quantized in training.
        quantized_ops: the op types of ``trained`` that run in INT8; None means all.
        skip_ops: further ops to keep in FP32, by type, name of the output, or ``#`` and index.

    Returns:
        The ops that are kept in FP32.

    Raises:
        UsageError: an item of ``skip_ops`` matches no op.
    """
    graph = Graph(program)
    selected = select(graph, trained, quantized_ops, skip_ops)
    for op, _ in selected:
        keep_in_fp32(graph, op)
    program._sync_with_cpp()
    return [left for _, left in selected]


def select(
    graph: Graph,
    trained: Collection[str],
    quantized_ops: Collection[str] | None,
    skip_ops: Sequence[str],
) -> list[tuple[Any, Left]]:
    """Return the ops to keep in FP32, with the reason; arguments as for :func:`skip`.

    Raises:
        UsageError: an item of ``skip_ops`` matches no op.
    """
    named = {
        index: [item for item in skip_ops if item in (op.type, f"{ID}{index}", output_of(op))]
        for index, op in quantizable(graph, trained)
    }
    require_matches(graph, named, skip_ops)
    selected = []
    for index, items in named.items():
        op = graph.block.ops[index]
        if items:
            reason = f"/int8/skip_ops contains {items[0]}"
        elif quantized_ops is not None and op.type not in quantized_ops:
            reason = f"/int8/quantized_ops does not contain {op.type}"
        else:
            continue
        selected.append((op, Left(output_of(op), op.type, weight_of(graph, op), reason)))
    return selected


def quantizable(graph: Graph, trained: Collection[str]) -> list[tuple[int, Any]]:
    """Return index and op of each op that can run in INT8, in the order of the program."""
    return [
        (index, op)
        for index, op in enumerate(graph.block.ops)
        if op.type in trained and not is_bias_add(graph, op)
    ]


def is_bias_add(graph: Graph, op: Any) -> bool:
    """Return whether an op adds a bias; such adds are never quantized separately."""
    operands = [graph.block.var(name) for name in op.input_arg_names]
    return op.type == "elementwise_add" and any(operand.persistable for operand in operands)


def output_of(op: Any) -> str:
    """Return the name of an op's first output; empty for an op without outputs."""
    return op.output_arg_names[0] if op.output_arg_names else ""


def weight_of(graph: Graph, op: Any) -> str:
    """Return the parameter that an op reads, directly or dequantized; empty without parameter."""
    for name in op.input_arg_names:
        for source in sources(graph, name):
            if graph.block.var(source).persistable:
                return source
    return ""


def sources(graph: Graph, name: str) -> Iterator[str]:
    """Yield a variable and the variable that it was quantized or dequantized from, if any."""
    yield name
    producer = graph.producers.get(name)
    if producer is not None and "Scale" in producer.input_names:
        yield producer.input("X")[0]


def require_matches(graph: Graph, named: dict[int, list[str]], skip_ops: Sequence[str]) -> None:
    """Check that each item of ``skip_ops`` matches an op.

    Raises:
        UsageError: an item matches no op; the hint has the most similar names.
    """
    matched = {item for items in named.values() for item in items}
    for item in skip_ops:
        if item in matched:
            continue
        ops = [graph.block.ops[index] for index in named]
        names = [*sorted({op.type for op in ops}), *map(output_of, ops)]
        wanted = index_of(item)
        if wanted is not None:
            # The nearest indexes, because numbers close to each other are not similar as text.
            nearest = sorted(named, key=lambda index: abs(index - wanted))[:3]
            close = [f"{ID}{index} ({output_of(graph.block.ops[index])})" for index in nearest]
        else:
            close = close_matches(item, names, 3) or names[:3]
        raise UsageError(
            f"/int8/skip_ops: {item!r} matches no quantized op of this model"
            f"{described_index(graph, item)}",
            f"Similar ops are {', '.join(close)}. The audit in the report names more ops.",
        )


def index_of(item: str) -> int | None:
    """Return the index of an item ``#`` and index; None for other items."""
    return int(item[1:]) if item.startswith(ID) and item[1:].isdecimal() else None


def described_index(graph: Graph, item: str) -> str:
    """Return which op an item ``#`` and index selects; empty if there is none."""
    index = index_of(item)
    if index is None or index >= len(graph.block.ops):
        return ""
    op = graph.block.ops[index]
    return f": it is {op.type} ({output_of(op)}), which is not quantized"


def keep_in_fp32(graph: Graph, op: Any) -> None:
    """Mark one op so that Paddle's passes do not quantize it."""
    op._set_attr("skip_quant", 1)
    if op.type == "elementwise_add":
        # An add that is fused into a convolution would run in the convolution's INT8.
        keep_apart(graph, op)
    if op.type in MATRIX_PRODUCTS:
        copy_input(graph.block, op)


def copy_input(block: Any, op: Any) -> None:
    """Make a matrix product read a copy of its input.

    Paddle replaces the matrix product by an fc op and loses the mark. The copy has no scale, and
    Paddle does not quantize an fc op without an input scale.
    """
    name = op.input("X")[0]
    copy = f"{name}.fp32"
    if not block.has_var(copy):
        block.create_var(name=copy, shape=block.var(name).shape, dtype="float32")
        index = block.ops.index(op)
        block._insert_op(index, type="assign", inputs={"X": [name]}, outputs={"Out": [copy]})
    op._rename_input(name, copy)
