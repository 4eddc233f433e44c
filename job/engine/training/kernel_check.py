"""Checks that Paddle's oneDNN kernels compute the FP32 model as its native kernels do."""

import tempfile
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle
from paddle import static

from job.engine.inference.failure import reason_of
from job.engine.inference.paddle_format import OpDesc, attribute, read_program
from job.engine.inference.predictor import NATIVE, ONEDNN, Predictor, configuration
from job.engine.inference.saved_model import PREFIX
from job.engine.training.programs import cpu, load_inference_model, save_inference_model
from job.engine.training.session import Session
from job.engine.training.tracing import place_of
from job.engine.training.transposed_weights import MATRIX_PRODUCTS, TRANSPOSED
from job.errors import UsageError
from job.stats import relative_error
from job.tasks.task import flat

Op = paddle.base.framework.Operator

# Rounding differs by about 1e-6. Deep networks with random weights multiply it.
MAX_KERNEL_ERROR = 1e-2
# Number of axes of a window.
PLANE_AXES = 2
# Op types whose results oneDNN was seen to compute wrong behind a convolution.
NEAREST = ("nearest_interp", "nearest_interp_v2")


def check_kernels(session: Session, out: Path) -> float:
    """Compare the outputs of the FP32 model in oneDNN and in Paddle's native kernels.

    For some networks, Paddle's oneDNN passes change the result, without an error.

    Args:
        session: the network.
        out: folder of the saved model.

    Returns:
        The norm of the differences over the norm of the native outputs.

    Raises:
        UsageError: the outputs differ, or oneDNN cannot run the network.
    """
    images = np.random.default_rng(0).standard_normal((2, *session.input_shape))
    images = images.astype("float32")
    try:
        error = kernel_error(out / PREFIX, images)
    except (ValueError, RuntimeError) as failure:
        raise UsageError(
            f"/model: Paddle's oneDNN kernels cannot run this network: {reason_of(failure)}; first "
            f"in the op {first_different_op(session, out / PREFIX, images)}",
            "Write this op, or the ops before it, with other functions of Paddle.",
        ) from failure
    if not error <= MAX_KERNEL_ERROR:
        op = first_different_op(session, out / PREFIX, images)
        raise UsageError(
            f"/model: Paddle's oneDNN kernels compute other FP32 values of this network than its "
            f"native kernels, first in the op {op}: relative error of the outputs {error:.2g}, "
            f"expected at most {MAX_KERNEL_ERROR:g}",
            f"An INT8 model would be wrong, too. {likely_causes(out)}",
        )
    return error


def kernel_error(prefix: Path, images: np.ndarray) -> float:
    """Return the norm of the differences of the outputs over the norm of the native outputs.

    Args:
        prefix: prefix of a saved model.
        images: float32 [N, C, H, W].
    """
    native, onednn = (
        flat(Predictor(configuration(prefix, mode, threads=1)).outputs(images))
        for mode in (NATIVE, ONEDNN)
    )
    return relative_error(onednn, native)


def first_different_op(session: Session, prefix: Path, images: np.ndarray) -> str:
    """Return type and place of the first op at which a shortened model computes other values.

    The ops before the result of a bisection compute the same values, as far as errors remain
    visible in all later ops.

    Args:
        session: the network.
        prefix: prefix of the saved model, whose outputs differ.
        images: float32 [N, C, H, W].
    """
    scope, executor = static.Scope(), static.Executor(cpu())
    with static.scope_guard(scope), tempfile.TemporaryDirectory() as folder:
        program, _, _ = load_inference_model(prefix, executor, scope)
        ends = [(op, name) for op in program.global_block().ops for name in values_of(op)]

        def differs(end: tuple[Op, str]) -> bool:
            short = Path(folder) / PREFIX
            save_inference_model(program, short, [end[1]], executor)
            try:
                return not kernel_error(short, images) <= MAX_KERNEL_ERROR
            except (ValueError, RuntimeError):
                # An op that oneDNN cannot run is at fault, too.
                return True

        # The outputs of the whole model differ.
        op, name = ends[bisect_left(ends[:-1], True, key=differs)]
    traced = session.classifier.evaluation.global_block().ops
    places = [place_of(each) for each in traced if name in each.output_arg_names]
    return f"{op.type} ({''.join(places[:1]) or name})"


def values_of(op: Op) -> list[str]:
    """Return the outputs of an op that are values of each image."""
    if op.type in ("feed", "fetch"):
        return []
    variables = [op.block.var(name) for name in op.output_arg_names if op.block.has_var(name)]
    return [
        each.name
        for each in variables
        if each.dtype == paddle.float32 and each.shape[:1] == (-1,) and not each.persistable
    ]


def likely_causes(out: Path) -> str:
    """Name the parts of a model for which wrong results of oneDNN were seen.

    Args:
        out: folder of the model.
    """
    ops = read_program(out / f"{PREFIX}.pdmodel").blocks[0].ops
    causes = shared_weights(ops)
    causes += [
        f"the nearest interpolation {op.outputs[0].arguments[0]}: use another mode"
        for op in ops
        if op.type in NEAREST
    ]
    causes += [
        f"the transposed matrix product {op.outputs[0].arguments[0]}: transpose the operand instead"
        for op in ops
        if op.type in TRANSPOSED and attribute(op, TRANSPOSED[op.type])
    ]
    causes += [
        f"the average pool {op.outputs[0].arguments[0]}, which counts padding (exclusive=False) "
        "that is not the same on both sides: pad with paddle.nn.functional.pad and pool without "
        "padding, or set exclusive=True"
        for op in ops
        if op.type == "pool2d" and counts_uneven_padding(op)
    ]
    if not causes:
        return "Write this op, or the ops before it, with other functions of Paddle."
    known = "; ".join(causes)
    return f"Parts of this network that caused such differences in other networks: {known}."


def shared_weights(ops: Sequence[OpDesc]) -> list[str]:
    """Describe weights of several convolutions, and products that are computed several times."""
    convolutions: dict[str, list[str]] = defaultdict(list)
    products: dict[tuple[str, str], list[str]] = defaultdict(list)
    computed = {name for op in ops for slot in op.outputs for name in slot.arguments}
    for op in ops:
        inputs = {slot.parameter: slot.arguments[0] for slot in op.inputs if slot.arguments}
        if "Filter" in inputs:
            convolutions[inputs["Filter"]].append(op.outputs[0].arguments[0])
        elif op.type in MATRIX_PRODUCTS and inputs["Y"] not in computed:
            products[inputs["X"], inputs["Y"]].append(op.outputs[0].arguments[0])
    found = [
        f"the weight {weight}, which the convolutions {', '.join(outputs)} share: give each "
        "convolution a weight of its own"
        for weight, outputs in convolutions.items()
        if len(outputs) > 1
    ]
    return found + [
        f"the fully connected layer with weight {weight}, which the network calls "
        f"{len(outputs)} times with {value}: call it once and use its result {len(outputs)} times"
        for (value, weight), outputs in products.items()
        if len(outputs) > 1
    ]


def counts_uneven_padding(pool: OpDesc) -> bool:
    """Return whether a pool averages over padding that can differ between opposite sides."""
    if attribute(pool, "pooling_type") != "avg" or attribute(pool, "exclusive") is not False:
        return False
    if attribute(pool, "ceil_mode") or attribute(pool, "padding_algorithm") == "SAME":
        return True
    # The order is top, bottom, left, right. If there are two values, they are for the height and
    # the width.
    sides = attribute(pool, "paddings")
    return isinstance(sides, list) and len(sides) > PLANE_AXES and sides[::2] != sides[1::2]
