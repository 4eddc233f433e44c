"""The objects of the detection example belong to two heads, so none of the two is idle.

The network of the test finds every object, each with the anchor that training assigns it to. What
it loses without a head is therefore the share of the head's objects.
"""

from collections.abc import Sequence

import numpy as np
import pytest
from switch_off_heads import map_without

from job.data.scene_images import digit_scenes
from job.detection.annotations import Annotations
from job.detection.decode import Head
from job.manifest.load import load
from job.manifest.spec import Manifest
from job.stages.task import task_of
from job.tasks.task import Outputs

SCENES = 100
LEAST_COST = 5.0
# Logits of a network that is certain.
YES, NO = 12.0, -12.0


@pytest.fixture(scope="module")
def example() -> Manifest:
    return load("detection-digits")


@pytest.fixture(scope="module")
def objects(example: Manifest) -> list[Annotations]:
    scenes = digit_scenes(example.model.input_shape)["val"]
    return [scenes.read_labelled(number)[1] for number in range(SCENES)]


def best_anchor(width: float, height: float, heads: Sequence[Head]) -> tuple[int, int]:
    """Number of the head, and of the anchor in the head, whose IoU with a box is highest."""

    def iou(anchor: tuple[float, float]) -> float:
        common = min(width, anchor[0]) * min(height, anchor[1])
        return common / (width * height + anchor[0] * anchor[1] - common)

    every = [(h, a) for h, head in enumerate(heads) for a in range(len(head.anchors))]
    return max(every, key=lambda place: iou(heads[place[0]].anchors[place[1]]))


def perfect_outputs(
    objects: Sequence[Annotations], heads: Sequence[Head], side: int, classes: int
) -> Outputs:
    """Outputs of the heads that decode to the objects of square images."""
    outputs = [
        np.full((len(objects), len(head.anchors), 5 + classes, *2 * (side // head.stride,)), NO)
        for head in heads
    ]
    for image, each in enumerate(objects):
        for (x0, y0, x1, y1), label in zip(each.boxes, each.classes, strict=True):
            number, anchor = best_anchor(x1 - x0, y1 - y0, heads)
            head = heads[number]
            (column, x), (row, y) = (divmod((a + b) / 2 / head.stride, 1) for a, b in
                                     ((x0, x1), (y0, y1)))  # fmt: skip
            values = outputs[number][image, anchor, :, int(row), int(column)]
            shares = np.clip([x, y], 1e-6, 1 - 1e-6)
            values[:2] = np.log(shares / (1 - shares))
            values[2:4] = np.log(np.array([x1 - x0, y1 - y0]) / head.anchors[anchor])
            values[4], values[5 + label] = YES, YES
    return tuple(each.reshape(len(each), -1, *each.shape[3:]).astype("float32") for each in outputs)


def test_switching_off_either_of_two_heads_costs_at_least_5_points(
    example: Manifest, objects: list[Annotations]
) -> None:
    task = task_of(example)
    side, classes = example.model.input_shape[1], example.model.classes
    outputs = perfect_outputs(objects, task.heads, side, classes)
    all_heads = map_without(task, outputs, objects, None)
    assert all_heads > 97
    costs = {
        head.stride: all_heads - map_without(task, outputs, objects, number)
        for number, head in enumerate(task.heads)
    }
    assert min(costs[8], costs[16]) >= LEAST_COST, costs
