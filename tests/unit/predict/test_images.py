"""Images of deployed models: the transform of deploy.json and the probabilities."""

from pathlib import Path
from typing import Any

import numpy as np
from data_fakes import save_image

from job.data.decode import decode
from job.data.transforms import Evaluate, normalize
from job.predict.image_main import answers, prepared, probabilities

DEPLOY: dict[str, Any] = {
    "input": {"shape": [None, 3, 8, 8]},
    "transform": {
        "resize": {"mode": "short_side", "size": 9},
        "mean": [0.5],
        "std": [0.25],
    },
    "output": {"meaning": "scores"},
}


class Brightness:
    """A model whose class 1 wins on bright images."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def scores(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        mean = images.mean(axis=(1, 2, 3))
        return np.stack([0 * mean, mean], axis=1).astype(np.float32)


def test_the_transform_is_the_evaluation_transform(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", 3)
    pixels = np.asarray(Evaluate((8, 8), 9)(decode(tmp_path / "a.png", 3)))[None]
    expected = normalize(pixels.astype(np.uint8), (0.5,), (0.25,))
    assert (prepared(tmp_path / "a.png", DEPLOY) == expected).all()


def test_unreadable_images_keep_their_place(tmp_path: Path) -> None:
    for name in ("a", "c", "d"):
        save_image(tmp_path / f"{name}.png", ord(name))
    (tmp_path / "b.png").write_text("no image")
    model = Brightness()
    files = [str(tmp_path / f"{name}.png") for name in "abcd"]
    rows = [row for batch in answers(model, DEPLOY, files, 2) for row in batch]
    assert ["error" in row for row in rows] == [False, True, False, False]
    assert model.batches == [1, 2]


def test_scores_become_probabilities() -> None:
    shares = probabilities(np.array([[1000.0, 1000.0]], np.float32), "scores")
    assert shares.tolist() == [[0.5, 0.5]]
    given = np.array([[0.25, 0.75]], np.float32)
    assert probabilities(given, "probabilities").tolist() == [[0.25, 0.75]]
