"""The task of a manifest."""

from collections.abc import Callable, Mapping

from job.detection.decode import Head, Selection
from job.manifest import Manifest
from job.tasks.classification import CLASSIFICATION
from job.tasks.detection import STRIDES, detection_task
from job.tasks.outputs import OUTPUTS
from job.tasks.task import Task


def task_of(manifest: Manifest) -> Task:
    """Return what is specific to the manifest's task."""
    return _TASKS[manifest.task](manifest)


def _detection(manifest: Manifest) -> Task:
    spec, (_, height, width) = manifest.detection, manifest.model.input_shape
    by_stride = zip(STRIDES, spec.anchors, strict=True)
    heads = [Head(stride, tuple((float(w), float(h)) for w, h in own)) for stride, own in by_stride]
    return detection_task(
        # The network's first output is the coarsest.
        heads[::-1],
        size=(height, width),
        classes=manifest.model.classes,
        settings=Selection(score_threshold=spec.score_threshold, nms_threshold=spec.nms_threshold),
    )


_TASKS: Mapping[str, Callable[[Manifest], Task]] = {
    "classification": lambda _: CLASSIFICATION,
    "detection": _detection,
    "outputs": lambda _: OUTPUTS,
}
