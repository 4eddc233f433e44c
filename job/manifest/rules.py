"""What a manifest must hold to beyond its schema."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from job.errors import Fault, UsageError
from job.uri import is_uri, parse

Rule = Callable[..., Iterator[Fault]]

_SPLITS = ("train", "selection", "val")
_FORMAT_OF_SUFFIX = {"list": "imagenet_list", "dir": "class_folders", "file": "packed"}
_SUFFIX_OF_FORMAT = {name: suffix for suffix, name in _FORMAT_OF_SUFFIX.items()}
_SPLIT_KEYS = tuple(f"{split}_{suffix}" for suffix in _FORMAT_OF_SUFFIX for split in _SPLITS)
UNPUBLISHED = ("convnet", "lenet", "vgg11", "vgg13")
_DIGIT_CLASSES = 10
_SCALABLE = ("convnet", "mobilenet_", "resnet", "vgg")


def _one_source(name: str | None, callable_: str | None, inference: str | None) -> Iterator[Fault]:
    given = {"name": name, "callable": callable_, "inference_model": inference}
    found = [key for key, value in given.items() if value is not None]
    if len(found) != 1:
        what = " and ".join(found) or "none"
        yield Fault(
            "/model", f"expected exactly one of name, callable and inference_model, found {what}"
        )


def _weights(
    name: str | None, weights: str | None, digest: str | None, pretrained: bool
) -> Iterator[Fault]:
    if digest is not None and weights is None:
        yield Fault("/model/weights_sha256", "given without /model/weights, the file it belongs to")
    if not pretrained:
        return
    if weights is not None:
        yield Fault("/model/pretrained", "expected false beside /model/weights: give one of them")
    if name is None:
        yield Fault("/model/pretrained", "expected false: only networks with /model/name have it")
    elif name in UNPUBLISHED:
        yield Fault("/model/pretrained", f"expected false: no weights are published for {name}")


def _shape(name: str | None, input_shape: Sequence[int]) -> Iterator[Fault]:
    if name is None or name == "convnet":
        return
    usual = 1 if name == "lenet" else 3
    if input_shape[0] != usual:
        message = f"expected {usual} channels first for {name}, found {input_shape[0]}"
        yield Fault("/model/input_shape", f"{message}; convnet takes any number")


def _width(name: str | None, width: float) -> Iterator[Fault]:
    scalable = name is not None and name.startswith(_SCALABLE)
    if width != 1 and not scalable:
        message = f"expected 1 for {name or 'a network of your own'}, found {width:g}"
        yield Fault("/model/width", f"{message}; only MobileNets, ResNets, VGGs and convnet scale")


def _data_keys(format_: str, *values: str | None) -> Iterator[Fault]:
    suffix = _SUFFIX_OF_FORMAT.get(format_)
    given = [key for key, value in zip(_SPLIT_KEYS, values, strict=True) if value is not None]
    for key in given:
        split, _, kind = key.rpartition("_")
        if kind != suffix:
            yield Fault(
                f"/data/{key}",
                f"belongs to format {_FORMAT_OF_SUFFIX[kind]}, and /data/format is {format_}",
                f"{split}_{suffix}" if suffix else "",
            )
    if suffix and not {f"train_{suffix}", f"val_{suffix}"} & set(given):
        yield Fault(
            "/data",
            f"expected train_{suffix}, val_{suffix} or both for format {format_}, found neither",
        )


def _built_in(format_: str, root: str | None, classes: int) -> Iterator[Fault]:
    if format_ not in ("digits", "synthetic"):
        return
    if root is not None:
        yield Fault("/data/root", f"expected null: format {format_} is built in and reads no files")
    if format_ == "digits" and classes < _DIGIT_CLASSES:
        yield Fault("/model/classes", f"expected at least 10 for format digits, found {classes}")


def _channels(key: str) -> Rule:
    def rule(shape: list[int], values: list[float]) -> Iterator[Fault]:
        if len(values) not in (1, shape[0]):
            wanted = "1 value" if shape[0] == 1 else f"1 value, or {shape[0]}"
            yield Fault(
                f"/data/{key}",
                f"expected {wanted} for the {shape[0]} channels of /model/input_shape, "
                f"found {len(values)}",
            )

    return rule


def _resize(shape: list[int], short: int | None) -> Iterator[Fault]:
    if short is not None and short < min(shape[1:]):
        yield Fault(
            "/data/resize_short",
            f"expected at least {min(shape[1:])}, the size cut out of it "
            f"(/model/input_shape), found {short}",
        )


def _ascending(pointer: str, strictly: bool) -> Rule:
    def rule(values: Sequence[float]) -> Iterator[Fault]:
        steps = itertools.pairwise(values)
        if any(low > high or (strictly and low == high) for low, high in steps):
            yield Fault(pointer, f"expected ascending values, found {list(values)}")

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
        yield Fault("/quantize/pact", "expected false for strategy post, which trains nothing")


def _scales(
    strategy: str, calibrate: bool, trainable: bool, epochs: int, max_iters: int | None
) -> Iterator[Fault]:
    if strategy != "aware" or calibrate:
        return
    nowhere = "scales would be measured nowhere"
    if (epochs if max_iters is None else max_iters) == 0:
        yield Fault("/quantize/calibrate", f"expected true where /train trains nothing: {nowhere}")
    elif not trainable:
        yield Fault(
            "/quantize/calibrate",
            f"expected true where /quantize/scale_trainable is false: {nowhere}",
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
        found = json.dumps(max_iters)
        yield Fault(
            "/train/max_iters",
            f"expected 0 for synthetic images, which nothing can be trained on, found {found}",
        )


def _synthetic_gate(
    format_: str, drop: float | None, fallback: Mapping[str, Any] | None
) -> Iterator[Fault]:
    if format_ != "synthetic":
        return
    for place, value in (("/gates/max_top1_drop", drop), ("/quantize/fallback", fallback)):
        if value is not None:
            yield Fault(place, "expected null: synthetic images have no accuracy")


def _engines(engines: Sequence[str]) -> Iterator[Fault]:
    if "paddle" not in engines:
        yield Fault("/benchmark/engines", "expected paddle among them; the others stand beside it")


def _int8_ops(wanted: Sequence[str] | None, trained: Sequence[str]) -> Iterator[Fault]:
    for name in sorted(set(wanted or ()) - set(trained)):
        yield Fault(
            "/int8/quantized_ops",
            f"expected op types of /quantize/quantize_op_types, which training quantizes, "
            f"found {name}",
        )


def _endpoint(text: str | None) -> Iterator[Fault]:
    if text is None:
        return
    if "@" in text:
        # The value itself is not repeated: it may hold a password.
        yield Fault(
            "/storage/endpoint_url", "expected no user name or password: boto3 finds credentials"
        )
        return
    found = re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._/-]*)?", text)
    if found is None:
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

# Each rule with the values that it looks at; it is asked only when all of them are sound.
RULES: tuple[tuple[Rule, tuple[str, ...]], ...] = (
    (_one_source, _under("/model", "name", "callable", "inference_model")),
    (_weights, _under("/model", "name", "weights", "weights_sha256", "pretrained")),
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
    (_synthetic_gate, ("/data/format", "/gates/max_top1_drop", "/quantize/fallback")),
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
)


def rule_faults(document: Any, unsound: Sequence[str]) -> tuple[Fault, ...]:
    """Check a document that is filled with defaults against every rule.

    Args:
        document: the manifest as JSON, perhaps with faults.
        unsound: pointers at which the schema found faults.
    """
    found: list[Fault] = []
    for rule, places in RULES:
        if any(_touches(place, bad) for place in places for bad in unsound):
            continue
        found += rule(*(_value(document, place) for place in places))
    return tuple(found)


def _touches(place: str, bad: str) -> bool:
    return bad == place or bad.startswith(f"{place}/") or place.startswith(f"{bad}/")


def _value(document: Any, place: str) -> Any:
    for name in place.split("/")[1:]:
        document = document[name]
    return document
