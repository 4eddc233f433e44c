"""What the training of a network depends on its task for: outputs, targets and loss."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import paddle
from paddle import static
from paddle.static import Program

from job.detection.decode import Head
from job.engine.inference.decoding import Decoding, check_heads
from job.engine.training.heads import keep_in_fp32
from job.engine.training.ready_names import LABEL
from job.engine.training.tracing import logits_of
from job.engine.training.yolo_loss import BOXES as BOXES_INPUT
from job.engine.training.yolo_loss import CLASSES, append_yolo_loss
from job.tasks.task import BOXES, LABELS, NONE, Task

# Axis of the classes in scores [N, classes].
OF_CLASSES = (-1, 1)
Block = paddle.base.framework.Block


class Objective(Protocol):
    """Outputs, targets and loss of a task."""

    @property
    def feeds(self) -> tuple[str, ...]:
        """Inputs of the loss, in the order of a batch's targets."""

    @property
    def anchors(self) -> tuple[int, ...]:
        """Number of anchors of each head of the network."""

    def outputs_of(self, returned: Any) -> tuple[static.Variable, ...]:
        """Return the outputs among what a network returned."""

    def ends(
        self, block: Block, outputs: Sequence[str], decoding: Decoding | None
    ) -> tuple[str, ...]:
        """Return the variables of a saved model that training and quantization end at.

        Args:
            block: the model.
            outputs: its outputs.
            decoding: what an exported detector computes behind its network.
        """

    def check(self, shapes: Sequence[Sequence[int]]) -> tuple[str, str]:
        """Return what was found instead of the expected outputs, and a hint; empty if all fit."""

    def keep_in_fp32(self, program: Program, outputs: Sequence[str]) -> None:
        """Exclude ops from quantization that must stay in FP32."""

    def append_loss(self, outputs: Sequence[static.Variable]) -> static.Variable | None:
        """Append the loss to the current program; return None if nothing is trained."""


@dataclass(frozen=True)
class Labels:
    """Classification: one output of scores, and a label per image.

    Attributes:
        classes: number of classes.
        label_smoothing: share of the target that is spread over all classes, 0 to 1.
    """

    classes: int
    label_smoothing: float
    feeds: tuple[str, ...] = (LABEL,)
    anchors: tuple[int, ...] = ()

    def outputs_of(self, returned: Any) -> tuple[static.Variable, ...]:
        """Return the logits, without a final softmax: the loss needs logits."""
        scores = logits_of(returned)
        return (scores.block.var(before_softmax(scores.block, scores.name)),)

    def ends(
        self,
        block: Block,
        outputs: Sequence[str],
        decoding: Decoding | None,  # noqa: ARG002
    ) -> tuple[str, ...]:
        """Return the logits of the first output. Further outputs are ignored."""
        return (before_softmax(block, outputs[0]),)

    def check(self, shapes: Sequence[Sequence[int]]) -> tuple[str, str]:
        """Check for scores [N, classes]."""
        (shape,) = shapes
        if len(shape) == 2 and shape[1] == self.classes:
            return "", ""
        return (
            f"output has shape {list(shape)}, expected [-1, {self.classes}]",
            "a classifier with scores [N, classes], and set /model/classes to their number.",
        )

    def keep_in_fp32(self, program: Program, outputs: Sequence[str]) -> None:
        """Keep nothing."""

    def append_loss(self, outputs: Sequence[static.Variable]) -> static.Variable:
        """Append the mean cross entropy of the scores, float32 [N, classes]."""
        (logits,) = outputs
        label = static.data(LABEL, [None, 1], "int64")
        if self.label_smoothing == 0:
            return paddle.nn.functional.cross_entropy(logits, label)
        soft = paddle.nn.functional.label_smooth(
            paddle.nn.functional.one_hot(label.flatten(), self.classes),
            epsilon=self.label_smoothing,
        )
        return paddle.nn.functional.cross_entropy(logits, soft, soft_label=True)


@dataclass(frozen=True)
class Boxes:
    """Detection: an output per head, and the boxes and classes of each image's objects.

    Attributes:
        classes: number of classes.
        heads: the heads in the order of the outputs.
    """

    classes: int
    heads: tuple[Head, ...]
    feeds: tuple[str, ...] = (BOXES_INPUT, CLASSES)

    @property
    def anchors(self) -> tuple[int, ...]:
        """Number of anchors of each head."""
        return tuple(len(head.anchors) for head in self.heads)

    def outputs_of(self, returned: Any) -> tuple[static.Variable, ...]:
        """Return all outputs."""
        return tuple(returned)

    def ends(
        self, block: Block, outputs: Sequence[str], decoding: Decoding | None
    ) -> tuple[str, ...]:
        """Return the outputs of the heads, also if the model decodes them."""
        if decoding is not None:
            check_heads(decoding, self.heads, self.classes, "the model")
        return network_ends(block, outputs, decoding)

    def check(self, shapes: Sequence[Sequence[int]]) -> tuple[str, str]:
        """Check for an output [N, anchors * (5 + classes), H, W] per head."""
        expected = [head.channels(self.classes) for head in self.heads]
        found = [list(shape) for shape in shapes]
        if [shape[1:2] for shape in found] == [[channels] for channels in expected]:
            return "", ""
        return (
            f"outputs have shapes {found}, expected {expected} channels in this order",
            "a detector with one output [N, anchors * (5 + classes), H, W] per head, and set "
            "/model/classes and /detection/anchors to its classes and anchors.",
        )

    def keep_in_fp32(self, program: Program, outputs: Sequence[str]) -> None:
        """Keep the heads: rounding them reduces accuracy, and they take little time."""
        keep_in_fp32(program, outputs)

    def append_loss(self, outputs: Sequence[static.Variable]) -> static.Variable:
        """Append the loss of YOLOv3."""
        return append_yolo_loss(outputs, self.heads, classes=self.classes)


@dataclass(frozen=True)
class Nothing:
    """Any outputs, without training."""

    feeds: tuple[str, ...] = ()
    anchors: tuple[int, ...] = ()

    def outputs_of(self, returned: Any) -> tuple[static.Variable, ...]:
        """Return all outputs."""
        return tuple(returned) if isinstance(returned, list | tuple) else (returned,)

    def ends(
        self, block: Block, outputs: Sequence[str], decoding: Decoding | None
    ) -> tuple[str, ...]:
        """Return the values that are decoded, or that the outputs are copies of."""
        return network_ends(block, outputs, decoding)

    def check(self, shapes: Sequence[Sequence[int]]) -> tuple[str, str]:  # noqa: ARG002
        """Accept any outputs."""
        return "", ""

    def keep_in_fp32(self, program: Program, outputs: Sequence[str]) -> None:
        """Keep nothing."""

    def append_loss(self, outputs: Sequence[static.Variable]) -> None:
        """Append nothing."""


def objective_of(task: Task, *, classes: int, label_smoothing: float) -> Objective:
    """Return the objective of a task.

    Args:
        task: the task.
        classes: number of classes.
        label_smoothing: share of a label's target that is spread over all classes, 0 to 1.
    """
    objectives: Mapping[str, Callable[[], Objective]] = {
        LABELS: lambda: Labels(classes, label_smoothing),
        BOXES: lambda: Boxes(classes, task.heads),
        NONE: Nothing,
    }
    return objectives[task.loss]()


def network_ends(
    block: Block, outputs: Sequence[str], decoding: Decoding | None
) -> tuple[str, ...]:
    """Return the variables where the network of a model ends, without copies."""
    ends = outputs if decoding is None else decoding.ends
    return tuple(before_copies(block, name) for name in ends)


def before_softmax(block: Block, output: str) -> str:
    """Return the variable before a final softmax over classes or a copy; else the output itself."""
    before = before_copies(block, output)
    for op in reversed(block.ops):
        if before in op.output_arg_names:
            over_classes = op.type == "softmax" and op.attr("axis") in OF_CLASSES
            return op.input("X")[0] if over_classes else before
    return before


def before_copies(block: Block, output: str) -> str:
    """Return the variable that an output is a copy of; without copies, the output itself.

    Older Paddle versions save a copy of each output. Paddle also adds a copy when a loaded model is
    saved again.
    """
    for op in reversed(block.ops):
        if output not in op.output_arg_names:
            continue
        if not copies(op):
            break
        output = op.input("X")[0]
    return output


def copies(op: paddle.base.framework.Operator) -> bool:
    """Return whether an op copies its input to its output."""
    if op.type == "scale":
        # The factor can be a second input.
        return len(op.input_arg_names) == 1 and (op.attr("scale"), op.attr("bias")) == (1, 0)
    return op.type == "assign"
