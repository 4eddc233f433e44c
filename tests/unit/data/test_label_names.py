"""Class names of image lists."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from job.data.label_names import label_names


def source(*entries: tuple[str, int]) -> Any:
    return SimpleNamespace(
        names=[name for name, _ in entries], labels=np.array([label for _, label in entries])
    )


def test_one_folder_for_each_class() -> None:
    listed = source(("train/dog/1.png", 1), ("train/cat/1.png", 0), ("more/dog/2.png", 1))
    assert label_names([listed], 2) == ("cat", "dog")


@pytest.mark.parametrize(
    "entries",
    [
        [("val/1.png", 0), ("val/2.png", 1)],
        [("1.png", 0), ("2.png", 1)],
        [("cat/1.png", 0), ("dog/1.png", 0), ("dog/2.png", 1)],
        [("cat/1.png", 0)],
    ],
    ids=["flat", "no folder", "a folder of two classes", "a class without images"],
)
def test_other_layouts_have_no_names(entries: Any) -> None:
    assert label_names([source(*entries)], 2) == ()


def test_packed_files_have_no_names() -> None:
    assert label_names([SimpleNamespace(labels=np.array([0, 1]))], 2) == ()
