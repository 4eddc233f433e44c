from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from job.engine.weights.detector import match_detector
from job.errors import DataError

CONV, NORM = "backbone.conv1._conv.weight", "backbone.conv1._batch_norm._mean"
NECK, HEAD = "neck.yolo_transition.0.conv.weight", "yolo_head.yolo_output.0.weight"
WANTED: dict[str, tuple[int, ...]] = {
    CONV: (8, 3, 3, 3),
    NORM: (8,),
    NECK: (4, 8, 1, 1),
    HEAD: (27, 8, 1, 1),
}


def arrays(**changed: tuple[int, ...]) -> dict[str, NDArray[Any]]:
    return {name: np.zeros(shape) for name, shape in {**WANTED, **changed}.items()}


def backbone() -> dict[str, NDArray[Any]]:
    cut = {name.removeprefix("backbone."): value for name, value in arrays().items()}
    return {
        "conv1._conv.weight": cut["conv1._conv.weight"],
        "conv1._batch_norm._mean": cut["conv1._batch_norm._mean"],
        "fc.weight": np.zeros((8, 1000)),
    }


def test_a_file_of_the_detector_sets_every_weight() -> None:
    extra = {"epoch": np.zeros(1)}
    found = match_detector({**arrays(), **extra}, WANTED, source="w", reset_heads=False)
    assert list(found.arrays) == list(WANTED)
    assert (found.missing, found.unused) == ((), ("epoch",))


def test_a_file_of_a_backbone_sets_the_backbone() -> None:
    found = match_detector(backbone(), WANTED, source="w", reset_heads=False)
    assert list(found.arrays) == [CONV, NORM]
    assert found.missing == (NECK, HEAD)
    assert found.unused == ("fc.weight",)


def test_heads_with_other_classes_are_refused_or_reset() -> None:
    given = arrays(**{HEAD: (255, 8, 1, 1)})
    with pytest.raises(DataError, match=HEAD):
        match_detector(given, WANTED, source="w", reset_heads=False)
    found = match_detector(given, WANTED, source="w", reset_heads=True)
    assert found.missing == (HEAD,)
    assert found.unused == ()


@pytest.mark.parametrize("reset_heads", [False, True])
@pytest.mark.parametrize("name", [CONV, NECK, HEAD])
def test_a_missing_weight_is_named(name: str, reset_heads: bool) -> None:
    given = arrays()
    del given[name]
    with pytest.raises(DataError, match=name):
        match_detector(given, WANTED, source="w", reset_heads=reset_heads)


def test_a_backbone_must_be_complete() -> None:
    given = backbone()
    del given["conv1._batch_norm._mean"]
    with pytest.raises(DataError, match=NORM):
        match_detector(given, WANTED, source="w", reset_heads=False)


@pytest.mark.parametrize("name", [CONV, NECK])
def test_another_width_is_refused(name: str) -> None:
    given = arrays(**{name: (16, *WANTED[name][1:])})
    with pytest.raises(DataError, match=name):
        match_detector(given, WANTED, source="w", reset_heads=True)


def test_a_file_of_another_network_is_refused() -> None:
    with pytest.raises(DataError, match=r"fc\.weight"):
        match_detector({"fc.weight": np.zeros(3)}, WANTED, source="w", reset_heads=False)
