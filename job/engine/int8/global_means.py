"""Global means of the INT8 model, which are computed in FP32."""

from pathlib import Path

from paddle.static import Program

from job.engine.inference.paddle_format import read_program
from job.engine.int8.graph_fixes import is_global

MEAN = "reduce_mean"


def replace_global_means(program: Program) -> int:
    """Replace the global means that stay in FP32 by ``reduce_mean``, which computes the same.

    Paddle's passes give the output of every pool the scale of its input, also in FP32. A mean is
    much smaller than the largest input, so the op behind it would read few of the 255 steps.

    Returns:
        The number of replaced pools.
    """
    block = program.global_block()
    replaced = 0
    for index, op in enumerate(list(block.ops)):
        if op.type != "pool2d" or op.attr("pooling_type") != "avg" or not op.has_attr("skip_quant"):
            continue
        sides = block.var(op.input("X")[0]).shape[2:]
        if not is_global(op, sides) or any(op.attr("paddings")):
            continue
        inputs, outputs = {"X": op.input("X")}, {"Out": op.output("Out")}
        attributes = {"dim": [2, 3], "keep_dim": True, "reduce_all": False}
        block._remove_op(index)
        block._insert_op(index, type=MEAN, inputs=inputs, outputs=outputs, attrs=attributes)
        replaced += 1
    program._sync_with_cpp()
    return replaced


def use_native_means(prefix: Path) -> None:
    """Let Paddle's kernel compute the means of an optimized model instead of oneDNN's.

    INT8 convolutions write the channels innermost. oneDNN has only a reference kernel for means of
    this layout. It took 0.9 of 7.5 ms of MobileNetV1 (width 0.75, batch 1, 1 thread, AVX2), and 21
    of 52 ms of PP-OCR's text detector, which has ten squeeze-and-excitation blocks. The results of
    both kernels were equal.

    Args:
        prefix: prefix of the model.
    """
    path = Path(f"{prefix}.pdmodel")
    program = read_program(path)
    for op in program.blocks[0].ops:
        for item in op.attrs if op.type == MEAN else ():
            if item.name in ("use_mkldnn", "use_onednn"):
                item.b = False
    path.write_bytes(program.SerializeToString())
