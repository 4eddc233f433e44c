"""Rules for training images without labels."""

from collections.abc import Callable, Iterator, Sequence

from job.errors import Fault

_SUFFIXES = {"imagenet_list": "list", "class_folders": "dir"}
_SPLITS = ("train_list", "val_list", "train_dir", "val_dir")


def _splits(labelled: bool, format_: str, *names: str | None) -> Iterator[Fault]:
    if labelled:
        return
    suffix = _SUFFIXES.get(format_)
    if suffix is None:
        yield Fault(
            "/data/train_labels",
            f"expected true for format {format_}; only {' and '.join(_SUFFIXES)} can have training "
            "images without labels",
        )
        return
    given = dict(zip(_SPLITS, names, strict=True))
    for key in (f"train_{suffix}", f"val_{suffix}"):
        if given[key] is None:
            yield Fault(
                f"/data/{key}", "expected a path, because /data/train_labels is false, found null"
            )


def _losses(
    labelled: bool,
    strategy: str,
    loss: str | None,
    base_lr: float | None,
    epochs: int,
    iterations: int | None,
) -> Iterator[Fault]:
    if labelled:
        return
    reason = "because /data/train_labels is false"
    if (epochs if iterations is None else iterations) != 0:
        key = "epochs" if iterations is None else "max_iters"
        yield Fault(f"/baseline/train/{key}", f"expected 0, {reason}: FP32 training needs labels")
    if strategy != "aware":
        return
    if loss == "labels":
        yield Fault("/train/loss", f"expected distill, {reason}", "distill")
    elif loss is None and base_lr is not None:
        yield Fault(
            "/train/base_lr", f"expected null, so that /train/loss is distill, {reason}", "null"
        )


LABEL_RULES: Sequence[tuple[Callable[..., Iterator[Fault]], tuple[str, ...]]] = (
    (_splits, ("/data/train_labels", "/data/format", *(f"/data/{key}" for key in _SPLITS))),
    (
        _losses,
        (
            "/data/train_labels",
            "/quantize/strategy",
            "/train/loss",
            "/train/base_lr",
            "/baseline/train/epochs",
            "/baseline/train/max_iters",
        ),
    ),
)
