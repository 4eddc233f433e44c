import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from job.detection.annotations import Annotations, Detections
from job.detection.comparison_page import MAX_IMAGES, chosen_images, comparison_page

OBJECTS = [Annotations.of([[2, 2, 10, 10]], [0]), Annotations.none()]
NAMES = ["<b>cat</b>", "dog"]


def found(*boxes: tuple[float, float, float, float], score: float = 0.9) -> Detections:
    return Detections.of(list(boxes), [score] * len(boxes), [0] * len(boxes))


def page(fp32: list[Detections], int8: list[Detections]) -> str:
    images = np.zeros((len(fp32), 3, 16, 24), np.float32)
    images[:, 0] = 1
    return comparison_page(images, OBJECTS, (fp32, int8), NAMES, normalisation=((0.5,), (0.5,)))


def test_boxes_of_one_model_only_are_marked_and_counted() -> None:
    box = (2.0, 2.0, 10.0, 10.0)
    text = page([found(box), found()], [found(), found()])
    assert text.count('class="fp32 only"') == 1
    assert "Test image 0: 1 detection " in text
    assert "Test image 1: 0 detections " in text
    assert text.count('class="object"') == 2  # the object of image 0, beside both models
    same = page([found(box), found()], [found((2.5, 2.0, 10.0, 10.0)), found()])
    assert 'class="fp32"' in same
    assert 'class="int8"' in same
    assert 'only"' not in same


def test_low_scores_are_not_shown() -> None:
    text = page([found((2, 2, 10, 10), score=0.1), found()], [found(), found()])
    assert 'class="fp32' not in text


def test_images_are_embedded_in_their_colours() -> None:
    text = page([found(), found()], [found(), found()])
    picture = re.findall(r"data:image/jpeg;base64,([^\"]+)", text)[0]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
    assert pixels.shape == (16, 24, 3)
    # 1 and 0 after normalization with 0.5 are the levels 255 and 127.5.
    assert pixels.mean(axis=(0, 1)) == pytest.approx([255, 128, 128], abs=3)
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", text)


def test_names_are_escaped() -> None:
    text = page([found((2, 2, 10, 10)), found()], [found(), found()])
    assert "<b>" not in text
    for figure in re.findall(r"<figure>.*?</figure>", text):
        ElementTree.fromstring(figure)  # noqa: S314 - our own text


def test_half_of_the_images_differ_most_and_none_is_shown_twice() -> None:
    differences = np.arange(1000)
    chosen = chosen_images(differences)
    assert len(chosen) == len(set(chosen)) == MAX_IMAGES
    assert chosen[0] == 999
    assert min(chosen) == 0
    assert chosen_images(np.zeros(3, np.int64)) == [0, 1, 2]
