"""What is specific to a task, such as classification. Stages and report work with any task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

# The saved models of a run by their names in the report. Other models are INT8 in other engines.
MODELS = ("fp32", "qat_fake", "int8")
# A model's outputs for a batch, in the order of the saved model; the first axis is the image.
Outputs = tuple[NDArray[Any], ...]
# Arrays by name. The arrays of two batches can be concatenated.
Results = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Metric:
    """A measure of a model's quality, in percent.

    Attributes:
        key: name in records: the accuracy record contains ``KEY``, ``KEY_interval``, ``KEY_drop``
            and ``KEY_drop_interval``.
        name: name in texts.
    """

    key: str
    name: str


@dataclass(frozen=True)
class Task:
    """What is specific to a task.

    Attributes:
        primary: the metric that models are compared by.
        results: (outputs, targets, reference) -> results of a batch. ``targets`` are the labels of
            the batch, ``reference`` are the outputs of FP32 for the same images.
        accuracy: (results of all images by model, targets) -> the record of stage accuracy.
        predictions: (results of all images by model, targets) -> the arrays of predictions.npz.
        not_judged: (accuracy record, number of classes) -> why FP32 is too bad to compare INT8
            with it; empty if both can be compared.
    """

    primary: Metric
    results: Callable[[Outputs, NDArray[Any], Outputs], Results]
    accuracy: Callable[[Mapping[str, Results], NDArray[Any]], dict[str, Any]]
    predictions: Callable[[Mapping[str, Results], NDArray[Any]], dict[str, NDArray[Any]]]
    not_judged: Callable[[Mapping[str, Any], int], str]

    @property
    def gate(self) -> str:
        """The gate of the primary metric: its key in ``gates`` of manifest and report."""
        return f"max_{self.primary.key}_drop"
