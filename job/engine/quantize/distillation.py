"""Distillation: trains a quantized network to give the scores of the FP32 network.

The training program contains the FP32 network as the teacher. Training needs no labels.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import paddle
from paddle import static
from paddle.static import Program

from job.engine.quantize.gptq import LEVELS
from job.engine.training.loop import TEACHER
from job.engine.training.programs import SKIP, Classifier
from job.engine.training.ready_names import APPENDED, IMAGE, LABEL, name_apart
from job.errors import UsageError


def distil(classifier: Classifier) -> Classifier:
    """Return a classifier whose training loss compares its scores with a teacher's scores.

    The loss is the mean Kullback-Leibler divergence of the class probabilities. The teacher is a
    copy of the FP32 evaluation program. Its variables have the prefix ``TEACHER``.

    This function must precede the optimizer and all changes for quantization.

    Raises:
        UsageError: the network has loops or branches.
    """
    train = classifier.train.clone()
    remove_label_loss(train)
    teacher = add_teacher(train, classifier.evaluation, classifier.logits)
    name_apart(train)
    with static.program_guard(train, classifier.startup), paddle.utils.unique_name.guard(APPENDED):
        block = train.global_block()
        target = paddle.nn.functional.softmax(block.var(teacher))
        target.stop_gradient = True
        divergence = [
            paddle.nn.functional.cross_entropy(
                block.var(scores), target, soft_label=True, reduction="mean"
            )
            for scores in (classifier.training_logits, teacher)
        ]
        loss = divergence[0] - divergence[1]
    return replace(classifier, train=train, loss=loss.name)


def remove_label_loss(program: Program) -> None:
    """Remove the ops that depend on labels."""
    block, dependent = program.global_block(), {LABEL}
    doomed = []
    for index, op in enumerate(block.ops):
        if not dependent.isdisjoint(op.input_arg_names):
            dependent |= set(op.output_arg_names)
            doomed.append(index)
    for index in reversed(doomed):
        block._remove_op(index, sync=False)
    for name in dependent:
        block._remove_var(name, sync=False)
    program._sync_with_cpp()


def add_teacher(train: Program, evaluation: Program, logits: str) -> str:
    """Append the ops of an evaluation program to a training program; return the logits' name.

    Raises:
        UsageError: the network has loops or branches.
    """
    source, block = evaluation.global_block(), train.global_block()

    def named(name: str) -> str:
        if name == IMAGE:
            return name
        if not block.has_var(TEACHER + name):
            old = source.var(name)
            block.create_var(
                name=TEACHER + name,
                shape=old.shape,
                dtype=old.dtype,
                persistable=old.persistable,
                stop_gradient=True,
            )
        return TEACHER + name

    for op in source.ops:
        if op.type in ("feed", "fetch"):
            continue
        if op.has_attr("sub_block"):
            raise UsageError(
                f"/train/loss: distill does not support networks with loops or branches, found the "
                f"op {op.type}",
                "Set /train/loss to labels.",
            )
        # A copy of the description, because append_op requires outputs that exported models lack.
        copy = block.desc.append_op()
        copy.copy_from(op.desc)
        for name in {*op.input_arg_names}:
            copy._rename_input(name, named(name))
        for name in {*op.output_arg_names}:
            copy._rename_output(name, named(name))
        copy._set_attr("op_namescope", f"/{SKIP}/")
    train._sync_with_cpp()
    return TEACHER + logits


def has_teacher(program: Program) -> bool:
    """Return whether a training program contains a teacher."""
    return any(name.startswith(TEACHER) for name in program.global_block().vars)


def teacher_values(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the FP32 weights under the names of the teacher's variables."""
    return {TEACHER + name: value for name, value in values.items()}


def use_relative_rates(program: Program, values: Mapping[str, np.ndarray]) -> None:
    """Make the learning rate a share of each parameter's quantization step.

    Adam changes a parameter by about its learning rate. The step of a parameter is the mean of the
    steps of its output channels.

    Args:
        program: training program without an optimizer.
        values: values of the parameters.
    """
    for parameter in program.all_parameters():
        if parameter.name not in values:
            # Weight norm computes a weight from two others, and leaves the parameter unused.
            continue
        value = np.abs(values[parameter.name])
        # Only the rank matters here: convolutions have the outputs first, and products last.
        axes = {4: (1, 2, 3), 2: (0,)}.get(value.ndim)
        step = float(np.mean(value.max(axis=axes))) / LEVELS
        # A network can set the rate of a parameter itself, for example to 0.
        parameter.optimize_attr["learning_rate"] *= max(step, np.finfo(np.float32).tiny)
