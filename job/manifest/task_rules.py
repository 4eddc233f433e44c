"""Rules of the manifest that depend on the task."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from job.errors import Fault

DETECTORS = ("yolov3_mobilenet_v1",)
# Coarsest stride of the heads of a detector, in pixels.
_STRIDE = 32
_FORMATS = {
    "classification": ("digits", "imagenet_list", "class_folders", "packed", "synthetic"),
    "detection": ("digit_scenes", "voc", "coco", "synthetic"),
    "outputs": ("images", "packed", "synthetic"),
}
GATES = {
    "classification": "max_top1_drop",
    "detection": "max_map_drop",
    "outputs": "int8_matches_fp32",
}
_DEFAULT_DROP = 1.0
_SCENE_CLASSES = 10


def _network(task: str, name: str | None, callable_: str | None) -> Iterator[Fault]:
    detector = name in DETECTORS
    if task == "detection" and name is not None and not detector:
        yield Fault(
            "/model/name",
            f"expected a detector or null for task detection, found {name}",
            DETECTORS[0],
        )
    if task == "classification" and detector:
        yield Fault("/task", f"expected detection, because {name} is a detector", "detection")
    if task == "outputs" and (name is not None or callable_ is not None):
        key = "name" if name is not None else "callable"
        yield Fault(f"/model/{key}", "expected null: task outputs needs model.inference_model")


def _classes(task: str, classes: int) -> Iterator[Fault]:
    if task == "classification" and classes < 2:
        yield Fault(
            "/model/classes",
            f"expected an integer of at least 2 for task classification, found {classes}",
        )


def _sides(task: str, shape: Sequence[int]) -> Iterator[Fault]:
    if task == "detection" and any(side % _STRIDE for side in shape[1:]):
        yield Fault(
            "/model/input_shape",
            f"expected height and width to be multiples of {_STRIDE} for task detection, "
            f"found {list(shape)}",
        )


def _training_sizes(
    task: str, shape: Sequence[int], sizes: Sequence[int] | None
) -> Iterator[Fault]:
    if task != "detection" or sizes is None:
        return
    pointer = "/detection/augment/sizes"
    if shape[1] != shape[2]:
        yield Fault(
            pointer, f"expected null, because /model/input_shape is not square: {list(shape)}"
        )
    if any(side % _STRIDE for side in sizes):
        yield Fault(pointer, f"expected multiples of {_STRIDE}, found {list(sizes)}")


def _format(task: str, format_: str) -> Iterator[Fault]:
    if format_ not in _FORMATS[task]:
        allowed = ", ".join(_FORMATS[task])
        yield Fault("/data/format", f"expected one of {allowed} for task {task}, found {format_}")


def _scenes(format_: str, root: str | None, classes: int) -> Iterator[Fault]:
    if format_ != "digit_scenes":
        return
    if root is not None:
        yield Fault("/data/root", "expected null: format digit_scenes is built in, without files")
    if classes != _SCENE_CLASSES:
        yield Fault(
            "/model/classes",
            f"expected {_SCENE_CLASSES} for format digit_scenes, found {classes}",
        )


def _resized(task: str, short: int | None) -> Iterator[Fault]:
    if task == "detection" and short is not None:
        yield Fault(
            "/data/resize_short",
            "expected null for task detection, because a crop would remove objects",
        )


def _smoothing(pointer: str) -> Callable[..., Iterator[Fault]]:
    def rule(task: str, smoothing: float) -> Iterator[Fault]:
        if task == "detection" and smoothing != 0:
            yield Fault(pointer, f"expected 0 for task detection, found {smoothing:g}")

    return rule


def _strategy(
    task: str, strategy: str, epochs: int, max_iters: int | None, fallback: Mapping[str, Any] | None
) -> Iterator[Fault]:
    if task != "classification" and fallback is not None:
        yield Fault("/quantize/fallback", "expected null: the search compares top-1")
    if task != "outputs":
        return
    if strategy != "post":
        yield Fault(
            "/quantize/strategy",
            f"expected post for task outputs, because its images have no labels, found {strategy}",
            "post",
        )
    key, steps = ("epochs", epochs) if max_iters is None else ("max_iters", max_iters)
    if steps != 0:
        yield Fault(f"/baseline/train/{key}", f"expected 0 for task outputs, found {steps}")


def _loss(task: str, loss: str | None) -> Iterator[Fault]:
    if task == "detection" and loss == "distill":
        yield Fault("/train/loss", "expected labels or null for task detection", "labels")


def _gates(
    task: str, top1: float | None, map_: float | None, fp32: float | None
) -> Iterator[Fault]:
    changed = {
        "max_top1_drop": top1 not in (None, _DEFAULT_DROP),
        "max_map_drop": map_ not in (None, _DEFAULT_DROP),
        "int8_matches_fp32": fp32 is not None,
    }
    for key, is_changed in changed.items():
        if is_changed and key != GATES[task]:
            owner = next(name for name, gate in GATES.items() if gate == key)
            yield Fault(
                f"/gates/{key}",
                f"expected null, because the key is for task {owner} and /task is {task}",
                GATES[task],
            )


def _names(task: str, names: Sequence[str] | None, classes: int) -> Iterator[Fault]:
    if task == "detection" and names is not None and len(names) != classes:
        yield Fault(
            "/detection/class_names",
            f"expected {classes} names, as many as /model/classes, found {len(names)}",
        )


TASK_RULES: tuple[tuple[Callable[..., Iterator[Fault]], tuple[str, ...]], ...] = (
    (_network, ("/task", "/model/name", "/model/callable")),
    (_classes, ("/task", "/model/classes")),
    (_sides, ("/task", "/model/input_shape")),
    (_training_sizes, ("/task", "/model/input_shape", "/detection/augment/sizes")),
    (_format, ("/task", "/data/format")),
    (_scenes, ("/data/format", "/data/root", "/model/classes")),
    (_resized, ("/task", "/data/resize_short")),
    (
        _smoothing("/baseline/train/label_smoothing"),
        ("/task", "/baseline/train/label_smoothing"),
    ),
    (_smoothing("/train/label_smoothing"), ("/task", "/train/label_smoothing")),
    (
        _strategy,
        (
            "/task",
            "/quantize/strategy",
            "/baseline/train/epochs",
            "/baseline/train/max_iters",
            "/quantize/fallback",
        ),
    ),
    (_loss, ("/task", "/train/loss")),
    (
        _gates,
        ("/task", "/gates/max_top1_drop", "/gates/max_map_drop", "/gates/int8_matches_fp32"),
    ),
    (_names, ("/task", "/detection/class_names", "/model/classes")),
)
