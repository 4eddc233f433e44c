"""Rules of the manifest that the schema cannot express."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from job.errors import Fault, UsageError
from job.manifest.label_rules import LABEL_RULES
from job.manifest.task_rules import DETECTORS, TASK_RULES
from job.uri import is_uri, parse

Rule = Callable[..., Iterator[Fault]]

_SPLITS = ("train", "selection", "val")
# The formats that have a kind of key, and for each format the kind of which it needs a key.
_FORMATS_OF_SUFFIX = {
    "list": ("imagenet_list", "voc", "coco"),
    "dir": ("class_folders", "coco", "images"),
    "file": ("packed",),
}
_SUFFIX_OF_FORMAT = {
    "imagenet_list": "list",
    "voc": "list",
    "coco": "list",
    "class_folders": "dir",
    "images": "dir",
    "packed": "file",
}
_SPLIT_KEYS = tuple(f"{split}_{suffix}" for suffix in _FORMATS_OF_SUFFIX for split in _SPLITS)
UNPUBLISHED = ("convnet", "lenet", "vgg11", "vgg13", *DETECTORS)
_DIGIT_CLASSES = 10
# Channels of gray and of RGB images.
_CHANNELS = (1, 3)
_SCALABLE = ("convnet", "mobilenet_", "resnet", "vgg", *DETECTORS)


def _one_source(name: str | None, callable_: str | None, inference: str | None) -> Iterator[Fault]:
    values = {"name": name, "callable": callable_, "inference_model": inference}
    given = [key for key, value in values.items() if value is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        yield Fault(
            "/model", f"expected exactly one of name, callable and inference_model, found {found}"
        )


def _weights(
    name: str | None, weights: str | None, digest: str | None, pretrained: bool
) -> Iterator[Fault]:
    if digest is not None and weights is None:
        yield Fault("/model/weights_sha256", "expected null, because /model/weights is not set")
    if not pretrained:
        return
    if weights is not None:
        yield Fault("/model/pretrained", "expected false, because /model/weights is set")
    if name is None:
        yield Fault("/model/pretrained", "expected false, because /model/name is not set")
    elif name in UNPUBLISHED:
        yield Fault("/model/pretrained", f"expected false: Paddle publishes no weights for {name}")


def _random(
    random: bool, weights: str | None, pretrained: bool, inference: str | None
) -> Iterator[Fault]:
    given = {"weights": weights, "pretrained": pretrained, "inference_model": inference}
    for key in (key for key, value in given.items() if random and value):
        yield Fault("/model/random_weights", f"expected false, because /model/{key} is set")


def _is_channels_last(shape: Sequence[int]) -> bool:
    return shape[0] not in _CHANNELS and shape[2] in _CHANNELS


def _channels_first(input_shape: Sequence[int]) -> Iterator[Fault]:
    if _is_channels_last(input_shape):
        height, width, channels = input_shape
        yield Fault(
            "/model/input_shape",
            f"expected [channels, height, width], channels first, found {list(input_shape)}",
            f"[{channels}, {height}, {width}]",
        )


def _shape(name: str | None, input_shape: Sequence[int]) -> Iterator[Fault]:
    if name is None or name == "convnet" or _is_channels_last(input_shape):
        return
    usual = 1 if name == "lenet" else 3
    if input_shape[0] != usual:
        count = "1 channel" if usual == 1 else f"{usual} channels"
        message = (
            f"expected [channels, height, width] with {count} for {name}, found {input_shape[0]}"
        )
        yield Fault("/model/input_shape", f"{message}; only convnet takes any number of channels")


def _width(name: str | None, width: float) -> Iterator[Fault]:
    scalable = name is not None and name.startswith(_SCALABLE)
    if width != 1 and not scalable:
        message = f"expected 1 for {name or 'a custom network'}, found {width:g}"
        accepted = f"only MobileNets, ResNets, VGGs, convnet and {DETECTORS[0]} accept other widths"
        yield Fault("/model/width", f"{message}; {accepted}")


def _data_keys(format_: str, *values: str | None) -> Iterator[Fault]:
    suffix = _SUFFIX_OF_FORMAT.get(format_)
    given = [key for key, value in zip(_SPLIT_KEYS, values, strict=True) if value is not None]
    for key in given:
        split, _, kind = key.rpartition("_")
        if format_ not in _FORMATS_OF_SUFFIX[kind]:
            yield Fault(
                f"/data/{key}",
                f"expected null: the key is for format {' or '.join(_FORMATS_OF_SUFFIX[kind])}, "
                f"but /data/format is {format_}",
                f"{split}_{suffix}" if suffix else "",
            )
    if suffix and not {f"train_{suffix}", f"val_{suffix}"} & set(given):
        yield Fault(
            "/data",
            f"expected train_{suffix}, val_{suffix} or both for format {format_}, found none",
        )


def _built_in(format_: str, root: str | None, classes: int) -> Iterator[Fault]:
    if format_ not in ("digits", "synthetic"):
        return
    if root is not None:
        yield Fault("/data/root", f"expected null: format {format_} is built in, without files")
    if format_ == "digits" and classes < _DIGIT_CLASSES:
        yield Fault(
            "/model/classes",
            f"expected at least {_DIGIT_CLASSES} for format digits, found {classes}",
        )


def _channels(key: str) -> Rule:
    def rule(shape: list[int], values: list[float]) -> Iterator[Fault]:
        if len(values) not in (1, shape[0]) and not _is_channels_last(shape):
            wanted = "1 value" if shape[0] == 1 else f"1 or {shape[0]} values"
            channels = "1 channel" if shape[0] == 1 else f"{shape[0]} channels"
            yield Fault(
                f"/data/{key}",
                f"expected {wanted}, because /model/input_shape has {channels}, "
                f"found {len(values)}",
            )

    return rule


def _resize(shape: list[int], short: int | None) -> Iterator[Fault]:
    if short is not None and short < max(shape[1:]):
        yield Fault(
            "/data/resize_short",
            f"expected at least {max(shape[1:])}, the larger side of /model/input_shape, "
            f"found {short}",
        )


def _ascending(pointer: str, strictly: bool) -> Rule:
    def rule(values: Sequence[float]) -> Iterator[Fault]:
        steps = itertools.pairwise(values)
        if any(low > high or (strictly and low == high) for low, high in steps):
            order = "strictly ascending" if strictly else "ascending"
            yield Fault(pointer, f"expected {order} values, found {list(values)}")

    return rule


def _strategy(strategy: str, weight_type: str, pact: bool) -> Iterator[Fault]:
    if strategy != "post":
        return
    if weight_type not in ("abs_max", "channel_wise_abs_max"):
        yield Fault(
            "/quantize/weight_quantize_type",
            f"expected abs_max or channel_wise_abs_max for strategy post, found {weight_type}",
            "channel_wise_abs_max",
        )
    if pact:
        yield Fault("/quantize/pact", "expected false: strategy post does not train")


def _scales(
    strategy: str, calibrate: bool, trainable: bool, epochs: int, max_iters: int | None
) -> Iterator[Fault]:
    if strategy != "aware" or calibrate:
        return
    unmeasured = "otherwise no step measures the scales"
    if (epochs if max_iters is None else max_iters) == 0:
        yield Fault(
            "/quantize/calibrate", f"expected true, because /train has no steps; {unmeasured}"
        )
    elif not trainable:
        yield Fault(
            "/quantize/calibrate",
            f"expected true, because /quantize/scale_trainable is false; {unmeasured}",
        )


def _synthetic(
    format_: str, epochs: int, baseline_iters: int | None, strategy: str, max_iters: int | None
) -> Iterator[Fault]:
    if format_ != "synthetic":
        return
    if epochs != 0:
        yield Fault("/baseline/train/epochs", f"expected 0 for synthetic images, found {epochs}")
    if baseline_iters:
        yield Fault(
            "/baseline/train/max_iters",
            f"expected null or 0 for synthetic images, found {baseline_iters}",
        )
    if strategy == "aware" and max_iters != 0:
        yield Fault(
            "/train/max_iters",
            f"expected 0 for synthetic images, found {json.dumps(max_iters)}",
        )


def _synthetic_fallback(format_: str, fallback: Mapping[str, Any] | None) -> Iterator[Fault]:
    if format_ == "synthetic" and fallback is not None:
        yield Fault("/quantize/fallback", "expected null: synthetic images give no accuracy")


def _engines(engines: Sequence[str]) -> Iterator[Fault]:
    if "paddle" not in engines:
        yield Fault("/benchmark/engines", "expected the list to contain paddle")


def _int8_ops(wanted: Sequence[str] | None, trained: Sequence[str]) -> Iterator[Fault]:
    for name in sorted(set(wanted or ()) - set(trained)):
        yield Fault(
            "/int8/quantized_ops",
            f"expected op types from /quantize/quantize_op_types, found {name}",
        )


def _endpoint(text: str | None) -> Iterator[Fault]:
    if text is None:
        return
    if "@" in text:
        # The message must not repeat the value, because it may contain a password.
        yield Fault(
            "/storage/endpoint_url",
            "expected no user name or password: boto3 reads credentials from its own sources",
        )
        return
    if not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._/-]*)?", text):
        yield Fault(
            "/storage/endpoint_url",
            f"expected http://HOST:PORT or https://HOST:PORT, found {text[:60]!a}",
        )


def _address(pointer: str) -> Rule:
    def rule(text: str | None) -> Iterator[Fault]:
        if text is None or not is_uri(text):
            return
        try:
            parse(text)
        except UsageError as error:
            yield Fault(pointer, error.message)

    return rule


def _under(parent: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{parent}/{name}" for name in names)


_MAY_BE_IN_S3 = (
    "/output",
    *_under("/model", "weights", "inference_model"),
    *_under("/data", "root", *(key for key in _SPLIT_KEYS if not key.endswith("_dir"))),
)

# Each rule with the values that it reads. A rule runs only if the schema accepts all its values.
RULES: tuple[tuple[Rule, tuple[str, ...]], ...] = (
    (_one_source, _under("/model", "name", "callable", "inference_model")),
    (_weights, _under("/model", "name", "weights", "weights_sha256", "pretrained")),
    (_random, _under("/model", "random_weights", "weights", "pretrained", "inference_model")),
    (_channels_first, ("/model/input_shape",)),
    (_shape, _under("/model", "name", "input_shape")),
    (_width, _under("/model", "name", "width")),
    (_data_keys, _under("/data", "format", *_SPLIT_KEYS)),
    (_built_in, ("/data/format", "/data/root", "/model/classes")),
    (_channels("mean"), ("/model/input_shape", "/data/mean")),
    (_channels("std"), ("/model/input_shape", "/data/std")),
    (
        _synthetic,
        (
            "/data/format",
            "/baseline/train/epochs",
            "/baseline/train/max_iters",
            "/quantize/strategy",
            "/train/max_iters",
        ),
    ),
    (
        _scales,
        (
            *_under("/quantize", "strategy", "calibrate", "scale_trainable"),
            *_under("/train", "epochs", "max_iters"),
        ),
    ),
    (_synthetic_fallback, ("/data/format", "/quantize/fallback")),
    (_engines, ("/benchmark/engines",)),
    (_endpoint, ("/storage/endpoint_url",)),
    *((_address(place), (place,)) for place in _MAY_BE_IN_S3),
    (_int8_ops, ("/int8/quantized_ops", "/quantize/quantize_op_types")),
    (_resize, ("/model/input_shape", "/data/resize_short")),
    (_ascending("/data/augment/scale", False), ("/data/augment/scale",)),
    (_ascending("/data/augment/ratio", False), ("/data/augment/ratio",)),
    (
        _ascending("/baseline/train/schedule/milestones", True),
        ("/baseline/train/schedule/milestones",),
    ),
    (_ascending("/train/schedule/milestones", True), ("/train/schedule/milestones",)),
    (
        _strategy,
        _under("/quantize", "strategy", "weight_quantize_type", "pact"),
    ),
    *TASK_RULES,
    *LABEL_RULES,
)


def rule_faults(document: Any, unsound: Sequence[str]) -> tuple[Fault, ...]:
    """Check every rule.

    Args:
        document: the manifest as JSON, with defaults; it may have faults.
        unsound: pointers with schema faults.
    """
    faults: list[Fault] = []
    for rule, places in RULES:
        if any(_touches(place, bad) for place in places for bad in unsound):
            continue
        faults += rule(*(_value(document, place) for place in places))
    return tuple(faults)


def _touches(place: str, bad: str) -> bool:
    return bad == place or bad.startswith(f"{place}/") or place.startswith(f"{bad}/")


def _value(document: Any, place: str) -> Any:
    for name in place.split("/")[1:]:
        document = document[name]
    return document
