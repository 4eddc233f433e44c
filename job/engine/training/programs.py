"""Static programs of a network, and the programs of a saved inference model.

Paddle's quantization needs static programs of the legacy format. All code that trains or exports a
network uses the dataclass :class:`Classifier`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle import static
from paddle.static import Program

from job.engine.inference.decoding import find_decoding
from job.engine.inference.failure import reason_of
from job.engine.inference.paddle_format import put_in_order, read_program
from job.engine.inference.pir_format import legacy_model
from job.engine.training.bias_shapes import PLANES, fold_bias_shapes, write_out_axes
from job.engine.training.heads import graph_of
from job.engine.training.random_slopes import use_mean_slopes
from job.engine.training.ready_names import (
    APPENDED,
    IMAGE,
    SKIP,
    name_apart,
    rename_reserved,
)
from job.engine.training.transposed_weights import TRANSPOSED, transpose_weights
from job.errors import DataError

if TYPE_CHECKING:
    from job.engine.training.objective import Objective

# Called once per process, because every engine module that builds or runs programs imports this
# module.
paddle.enable_static()

# Ops that an exported FP32 model never contains.
QUANTIZED = {"quantize_linear", "dequantize_linear", "quantize", "dequantize", "fused_conv2d"}
RESHAPING = ("flatten_contiguous_range", "reshape2", "transpose2", "squeeze2", "unsqueeze2")
# Op type -> outputs that its gradient reads, and their data types.
FOR_GRADIENTS = {
    **{name: {"XShape": "float32"} for name in RESHAPING},
    "dropout": {"Mask": "uint8"},
    "instance_norm": {"SavedMean": "float32", "SavedVariance": "float32"},
}


@dataclass(frozen=True)
class Classifier:
    """The programs of a network, which share one scope.

    Attributes:
        train: forward pass and loss in training mode, without an optimizer.
        evaluation: forward pass in inference mode.
        startup: initializes the weights.
        loss: name of the scalar loss variable of ``train``; empty for a network without training.
        outputs: names of the float32 outputs of ``evaluation``; of a classifier, [N, classes].
        weight_names: the network's name -> the variable's name, for each weight of ``evaluation``.
        training_outputs: names of the same values in ``train``.
        transposed: variables that contain the transpose of the network's weight.
        generators: modules whose random numbers the call drew that built ``train``.
    """

    train: Program
    evaluation: Program
    startup: Program
    loss: str
    outputs: tuple[str, ...]
    weight_names: Mapping[str, str]
    training_outputs: tuple[str, ...]
    transposed: frozenset[str] = frozenset()
    generators: tuple[str, ...] = ()

    @property
    def logits(self) -> str:
        """Name of the only output of ``evaluation``."""
        (logits,) = self.outputs
        return logits

    @property
    def training_logits(self) -> str:
        """Name of the only output of ``train``."""
        (logits,) = self.training_outputs
        return logits

    def for_network(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the network's weights by its own names.

        Args:
            values: variable -> value.
        """
        return {key: self.turned(name, values[name]) for key, name in self.weight_names.items()}

    def turned(self, name: str, value: np.ndarray) -> np.ndarray:
        """Convert a weight between the layouts of the variable and of the network."""
        return value.T if name in self.transposed else value


def cpu() -> paddle.CPUPlace:
    """Return the CPU place; everything except training runs there."""
    return paddle.CPUPlace()


def from_inference_model(prefix: Path, scope: static.Scope, objective: "Objective") -> Classifier:
    """Build the programs of a saved inference model and load its weights into ``scope``.

    Batch norms keep their statistics, and weights become trainable. A classifier's softmax at the
    end is removed, because the loss needs logits. Copies of outputs are removed too.

    Args:
        prefix: path without ``.pdmodel`` or ``.json``, and without ``.pdiparams``.
        scope: receives the weights.
        objective: outputs and loss.

    Raises:
        DataError: the model cannot be read, is quantized, or has other outputs than expected.
    """
    executor = static.Executor(cpu())
    evaluation, feeds, fetches = load_inference_model(prefix, executor, scope)
    block = evaluation.global_block()
    quantized = sorted({op.type for op in block.ops} & QUANTIZED)
    if quantized:
        raise DataError(
            f"{prefix}: expected an FP32 model, found a quantized or optimized model with "
            f"{quantized[0]} ops",
            "Set /model/inference_model to the FP32 model that this model was made from.",
        )
    # Without these ops the program can also read a label, and can be saved with other outputs.
    for index in reversed(range(len(block.ops))):
        if block.ops[index].type in ("feed", "fetch"):
            block._remove_op(index, sync=False)
    evaluation._sync_with_cpp()
    decoding = find_decoding(graph_of(evaluation, feeds, fetches), prefix)
    names = rename_reserved(evaluation, scope, image_input(evaluation, feeds, prefix))
    if decoding is not None:
        decoding = replace(decoding, ends=tuple(names[name] for name in decoding.ends))
    outputs = objective.ends(block, [names[name] for name in fetches], decoding)
    evaluation = evaluation._prune([block.var(name) for name in outputs])
    use_mean_slopes(evaluation)
    accept_any_batch(evaluation.global_block())
    found, hint = objective.check([evaluation.global_block().var(name).shape for name in outputs])
    if found:
        raise DataError(f"{prefix}: the model's {found}", f"Give {hint}")
    fold_bias_shapes(evaluation)
    write_out_axes(evaluation)
    transposed = transpose_weights([evaluation])
    stored = read_variables(scope, sorted(transposed))
    write_variables(scope, {name: value.T for name, value in stored.items()})
    skip_computed_weights(evaluation)
    objective.keep_in_fp32(evaluation, outputs)
    train = evaluation.clone()
    add_outputs_for_gradients(train)
    weights = {old: new for old, new in names.items() if is_weight(train, new)}
    frozen = batch_norm_statistics(train)
    startup = Program()
    name_apart(train)
    with static.program_guard(train, startup), paddle.utils.unique_name.guard(APPENDED):
        for name in weights.values():
            make_trainable(train, name, trainable=name not in frozen)
        loss = objective.append_loss([train.global_block().var(name) for name in outputs])
    name = "" if loss is None else loss.name
    return Classifier(train, evaluation, startup, name, outputs, weights, outputs, transposed)


def image_input(program: Program, feeds: Sequence[str], prefix: Path) -> str:
    """Return the name of the input [N, C, H, W] among the inputs of a model.

    Exported detectors also read the sizes of images, and the order of the inputs is the exporter's.

    Raises:
        DataError: not exactly one input has four dimensions, or it is not float32.
    """
    block = program.global_block()
    shapes = {name: list(block.var(name).shape) for name in feeds}
    images = [name for name, shape in shapes.items() if len(shape) == PLANES]
    if len(images) == 1 and block.var(images[0]).dtype != paddle.float32:
        raise DataError(
            f"{prefix}: the input {images[0]} has the data type {block.var(images[0]).dtype}, "
            "expected float32",
            "Export the network with an input of normalized images, float32 [N, C, H, W].",
        )
    if len(images) != 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError(
            f"{prefix}: expected exactly one input [N, C, H, W], found the inputs {found}",
            "Give a model that reads one batch of images.",
        )
    return images[0]


def accept_any_batch(block: paddle.base.framework.Block) -> None:
    """Let a model that was exported for a fixed number of images read any number.

    Ops that contain the number, such as a reshape, keep it. ``check_batches`` finds such models.
    """
    image = block.var(IMAGE)
    if image.shape[0] == -1:
        return
    image.desc.set_shape([-1, *image.shape[1:]])
    for op in block.ops:
        op.desc.infer_shape(block.desc)


def is_weight(program: Program, name: str) -> bool:
    """Return whether a variable of a program is a floating-point weight or statistic."""
    block = program.global_block()
    return (
        name in persistables(program)
        and block.has_var(name)
        and block.var(name).dtype == paddle.float32
    )


def add_outputs_for_gradients(program: Program) -> None:
    """Add to ops the outputs that only gradient ops read, because a saved model lacks them."""
    block = program.global_block()
    for op in block.ops:
        for slot, dtype in FOR_GRADIENTS.get(op.type, {}).items():
            if slot not in op.output_names:
                name = f"{op.output_arg_names[0]}.{slot.lower()}"
                shape = block.var(op.input("X")[0]).shape
                shape = [0, *shape] if slot == "XShape" else shape
                block.create_var(name=name, shape=shape, dtype=dtype)
                op.desc.set_output(slot, [name])
    program._sync_with_cpp()


def make_trainable(program: Program, name: str, *, trainable: bool) -> None:
    """Replace a persistable variable by a parameter of the same name."""
    block = program.global_block()
    variable = block.var(name)
    shape, dtype = variable.shape, variable.dtype
    block._remove_var(name, sync=False)
    parameter = paddle.base.framework.Parameter(
        block, shape=shape, dtype=dtype, name=name, trainable=trainable
    )
    parameter.stop_gradient = not trainable


def batch_norm_statistics(program: Program) -> set[str]:
    """Return the names of the running means and variances, which no optimizer may change."""
    return {
        name
        for op in program.global_block().ops
        if op.type == "batch_norm"
        for slot in ("Mean", "Variance")
        for name in op.input(slot)
    }


def load_inference_model(
    prefix: Path, executor: static.Executor, scope: static.Scope
) -> tuple[Program, list[str], tuple[str, ...]]:
    """Read ``prefix``.pdmodel or ``prefix``.json, and ``prefix``.pdiparams, into ``scope``.

    Returns:
        The program, the names of its inputs, and the names of its outputs.

    Raises:
        DataError: a file is missing or corrupt, or contains ops that cannot be translated.
    """
    try:
        with static.scope_guard(scope), legacy_model(prefix) as legacy:
            program, feeds, fetches = static.load_inference_model(str(legacy), executor)
    except (ValueError, RuntimeError, OSError) as error:
        raise DataError(
            f"{prefix}: Paddle cannot read the inference model: {reason_of(error)}",
            "Copy both files again if one is incomplete. Otherwise export the model again.",
        ) from error
    return program, feeds, tuple(variable.name for variable in fetches)


def skip_computed_weights(program: Program) -> None:
    """Exclude ops from quantization whose weights PaddleSlim or the engine would misread.

    These are ops that compute weights, such as spectral norm, convolutions whose filter other ops
    compute, and products with a weight on the left or with a transposed weight. PaddleSlim would
    quantize such weights as activations or along the wrong axis.
    """
    block, of_image = program.global_block(), {IMAGE}
    for op in block.ops:
        computed = not of_image.isdisjoint(op.input_arg_names)
        if computed:
            of_image |= set(op.output_arg_names)
        filters = op.input("Filter") if "Filter" in op.input_names else []
        if (
            not computed
            or any(not block.var(name).persistable for name in filters)
            or (op.type in TRANSPOSED and reads_unusual_weight(block, op))
        ):
            op._set_attr("op_namescope", f"{op.attr('op_namescope') or '/'}{SKIP}/")


def reads_unusual_weight(block: paddle.base.framework.Block, op: Any) -> bool:
    """Return whether a matrix product has a weight on the left, or a transposed weight."""
    (left,), (right,) = op.input("X"), op.input("Y")
    return block.var(left).persistable or (
        block.var(right).persistable and bool(op.attr(TRANSPOSED[op.type]))
    )


def persistables(program: Program) -> list[str]:
    """Return the sorted names of weights, statistics, optimizer state and scales."""
    skipped = {"feed", "fetch"}
    return sorted(v.name for v in program.list_vars() if v.persistable and v.name not in skipped)


def read_variables(scope: static.Scope, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return copies of the initialized variables among ``names``."""
    values = {}
    for name in names:
        variable = scope.find_var(name)
        if variable is not None and variable.get_tensor()._is_initialized():
            values[name] = np.array(variable.get_tensor())
    return values


def write_variables(scope: static.Scope, values: Mapping[str, np.ndarray]) -> None:
    """Set variables, and create missing ones."""
    for name, value in values.items():
        # np.ascontiguousarray would give a single number an axis.
        scope.var(name).get_tensor().set(np.asarray(value, order="C"), cpu())


def save_inference_model(
    program: Program, prefix: Path, outputs: Sequence[str], executor: static.Executor
) -> None:
    """Write ``prefix``.pdmodel and ``prefix``.pdiparams with the current scope's weights.

    Args:
        program: the inference program, whose input is ``IMAGE``.
        prefix: path without suffix.
        outputs: names of the outputs.
        executor: runs the program.
    """
    block = program.global_block()
    static.save_inference_model(
        str(prefix),
        [block.var(IMAGE)],
        [block.var(name) for name in outputs],
        executor,
        program=program,
    )
    path = Path(f"{prefix}.pdmodel")
    saved = read_program(path)
    put_in_order(saved)
    path.write_bytes(saved.SerializeToString())
