import copy
from typing import Any

import pytest
from sample_manifest import check, document, faults

LISTS = {"format": "imagenet_list", "train_list": "photos.txt", "val_list": "val.txt"}
UNLABELLED: dict[str, Any] = {
    "data": LISTS | {"train_labels": False},
    "baseline": {"train": {"epochs": 0}},
    "train": {"max_iters": 10},
}


def of(**changes: Any) -> dict[str, Any]:
    base = copy.deepcopy(UNLABELLED)
    return document(**base | {"model__random_weights": True} | changes)


def test_distillation_needs_no_labels() -> None:
    manifest = check(of())
    assert (manifest.data.train_labels, manifest.train.used_loss) == (False, "distill")


def test_training_images_have_labels_by_default() -> None:
    assert check(document()).data.train_labels


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"train__loss": "labels"}, "/train/loss"),
        ({"train__base_lr": 0.1}, "/train/base_lr"),
        ({"baseline__train__epochs": 1}, "/baseline/train/epochs"),
        ({"baseline__train__max_iters": 1}, "/baseline/train/max_iters"),
        ({"data__val_list": None, "data__selection_list": "val.txt"}, "/data/val_list"),
        ({"data__train_list": None}, "/data/train_list"),
        ({"data": {"format": "digits", "train_labels": False}}, "/data/train_labels"),
    ],
)
def test_what_needs_labels(changes: dict[str, Any], pointer: str) -> None:
    assert set(faults(of(**changes))) == {pointer}
