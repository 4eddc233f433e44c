"""What is specific to a task, such as classification. Stages and report work with any task."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from job.detection.annotations import Annotations
from job.detection.decode import Head

# The saved models of a run by their names in the report. Other models are INT8 in other engines.
MODELS = ("fp32", "qat_fake", "int8")
# What networks are trained by.
LABELS, BOXES, NONE = "labels", "boxes", "none"
# A model's outputs for a batch, in the order of the saved model; the first axis is the image.
Outputs = tuple[NDArray[Any], ...]
# What is known about each image: labels int64 [N], or the objects of N images.
Targets = NDArray[np.int64] | Sequence[Annotations]
# Arrays by name. The arrays of two batches can be concatenated.
Results = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Metric:
    """A measure of a model's quality, in percent; of outputs, in decibels.

    Attributes:
        key: name in records: the accuracy record contains ``KEY``, ``KEY_interval``, ``KEY_drop``
            and ``KEY_drop_interval``.
        name: name in texts.
    """

    key: str
    name: str


@dataclass(frozen=True)
class Agreement:
    """How well two models agree on some images.

    Attributes:
        signal_to_noise_db: power of the reference outputs over the power of the differences, in
            decibels. Of a classifier's scores, the mean of each image is subtracted before, because
            it changes neither the order nor the softmax of the scores.
        same_top1: images for which both models choose the same class, in percent; None without
            classes.
    """

    signal_to_noise_db: float
    same_top1: float | None


class Comparison(Protocol):
    """Compares the outputs of a model with the outputs of a reference model."""

    def __call__(
        self, outputs: Outputs, reference: Outputs, exact: Outputs | None = None
    ) -> Agreement:
        """Return how well the models agree.

        Args:
            outputs: outputs of the model.
            reference: outputs of the reference model for the same images.
            exact: outputs of FP32 for the same images, to find differences between images that
                quantization keeps and the model loses, see ``closeness.lower_ratio``.
        """


@dataclass(frozen=True)
class Scored:
    """A model's outputs for a batch.

    Attributes:
        outputs: the outputs.
        targets: the targets of the images.
        reference: outputs of FP32 for the same images, see :func:`flat`; None without.
    """

    outputs: Outputs
    targets: Targets
    reference: NDArray[Any] | None


@dataclass(frozen=True)
class Task:
    """What is specific to a task.

    Attributes:
        primary: the metric that models are compared by.
        criteria: loss of the training with quantization -> the value of ``evaluate`` that its
            weights are selected by.
        results: (outputs, targets, reference) -> results of a batch. ``reference`` are the outputs
            of FP32 for the same images.
        accuracy: (results of all images by model, targets) -> the record of stage accuracy.
        predictions: (results of all images by model, targets) -> the arrays of predictions.npz.
        not_judged: (accuracy record, number of classes) -> why FP32 is not accurate enough
            for a comparison with INT8; empty if both can be compared.
        evaluate: scored batches -> the quality of a model during training by name: ``primary.key``,
            ``signal_to_noise_db`` and others; None for values that need a missing reference.
        agreement: compares the outputs of two models.
        loss: what a network is trained by: ``LABELS``, ``BOXES`` or ``NONE``.
        right: (outputs, labels) -> number of images with the right class. None if models are
            compared by the signal-to-noise ratio only.
        heads: heads of a detector in the order of its outputs; empty for other networks.
        page: (images, results of all images by model, targets, class names) -> a page of test
            images as HTML. The keyword is ``normalisation``, see ``job.detection.comparison_page``.
            None for a task without such a page.
    """

    primary: Metric
    criteria: Mapping[str, str]
    results: Callable[[Outputs, Any, Outputs], Results]
    accuracy: Callable[[Mapping[str, Results], Any], dict[str, Any]]
    predictions: Callable[[Mapping[str, Results], Any], dict[str, NDArray[Any]]]
    not_judged: Callable[[Mapping[str, Any], int], str]
    evaluate: Callable[[Iterable[Scored]], Mapping[str, float | None]]
    agreement: Comparison
    loss: str
    right: Callable[[Outputs, NDArray[np.int64]], int] | None = None
    heads: tuple[Head, ...] = ()
    page: Callable[..., str] | None = None


def flat(outputs: Outputs) -> NDArray[Any]:
    """Return all values of each image in one row, [N, values per image]."""
    return np.concatenate([each.reshape(len(each), -1) for each in outputs], axis=1)
