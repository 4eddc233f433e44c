"""Keeps a repeated matrix product in FP32.

oneDNN's kernel of the op ``fc`` caches its memory by the names of its input and its weight. If two
ops read the same input and weight and write different data types, the second op reads the memory of
the first.
"""

from paddle.static import Program

from job.engine.int8.fused_sums import PRODUCTS, read_copy
from job.engine.quantize.graph import Graph


def keep_repeated_products_apart(program: Program) -> list[str]:
    """Make each product that repeats the input and the weight of another read a copy.

    The copy has no scale, so Paddle keeps the product in FP32.

    Returns:
        The names of the products.
    """
    graph = Graph(program)
    seen: set[tuple[str, str]] = set()
    repeated = []
    for op in list(graph.block.ops):
        if op.type not in (*PRODUCTS, "mul"):
            continue
        (source,), (weight,) = op.input("X"), op.input("Y")
        key = (graph.plain(source), weight)
        if key in seen:
            read_copy(graph.block, op, source)
            repeated.append(op.output("Out")[0])
        seen.add(key)
    program._sync_with_cpp()
    return repeated
