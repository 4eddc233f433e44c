"""Images of deployed models: the transform of deploy.json and the probabilities."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_fakes import save_image
from typer.testing import CliRunner

from job.cli.main import app
from job.data.decode import decode
from job.data.transforms import Evaluate, normalize
from job.errors import DataError, UsageError
from job.predict.deployed import folder_of
from job.predict.image_main import answers, box_rows, prepared, probabilities
from job.predict.images import image_files

DEPLOY: dict[str, Any] = {
    "input": {"shape": [None, 3, 8, 8]},
    "transform": {
        "resize": {"mode": "short_side", "size": 9},
        "mean": [0.5],
        "std": [0.25],
    },
    "output": {"meaning": "scores"},
    "class_names": ["dark", "bright"],
}


class Brightness:
    """A model whose class 1 wins on bright images."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def outputs(self, images: np.ndarray) -> tuple[np.ndarray]:
        self.batches.append(len(images))
        mean = images.mean(axis=(1, 2, 3))
        return (np.stack([0 * mean, mean], axis=1).astype(np.float32),)


@pytest.mark.parametrize("given", ["int8", "int8/model", "int8/model.pdmodel"])
def test_a_model_is_a_folder_or_a_file_with_or_without_suffix(tmp_path: Path, given: str) -> None:
    (tmp_path / "int8").mkdir()
    (tmp_path / "int8/model.pdmodel").touch()
    assert folder_of(tmp_path / given) == tmp_path / "int8"


@pytest.mark.parametrize("given", ["int", "int8/mod", "no/model"])
def test_the_path_of_no_model_is_kept_for_the_message(tmp_path: Path, given: str) -> None:
    (tmp_path / "int8").mkdir()
    (tmp_path / "int8/model.pdmodel").touch()
    assert folder_of(tmp_path / given) == tmp_path / given


def test_the_transform_is_the_evaluation_transform(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", 3)
    pixels = np.asarray(Evaluate((8, 8), 9)(decode(tmp_path / "a.png", 3)))[None]
    expected = normalize(pixels.astype(np.uint8), (0.5,), (0.25,))
    assert (prepared(decode(tmp_path / "a.png", 3), DEPLOY) == expected).all()


def test_unreadable_images_keep_their_place(tmp_path: Path) -> None:
    for name in ("a", "c", "d"):
        save_image(tmp_path / f"{name}.png", ord(name))
    (tmp_path / "b.png").write_text("no image")
    model = Brightness()
    files = [str(tmp_path / f"{name}.png") for name in "abcd"]
    rows = [row for batch in answers(model, DEPLOY, files, 2) for row in batch]
    assert ["error" in row for row in rows] == [False, True, False, False]
    assert model.batches == [1, 2]


def test_a_folder_gives_its_images_only(tmp_path: Path) -> None:
    names = ("b/2.PNG", "1.jpg", "._1.jpg", "@eaDir/1.jpg", ".thumbs/3.png", "notes.txt")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"content")
    (tmp_path / "album.png").mkdir()
    with image_files(str(tmp_path)) as files:
        assert list(files.values()) == [tmp_path / "1.jpg", tmp_path / "b/2.PNG"]
    with pytest.raises(DataError, match=r"album\.png"), image_files(str(tmp_path / "album.png")):
        pass


@pytest.mark.parametrize("option", ["--infer-model", "--image", "--infer-data"])
def test_a_uri_is_no_path(option: str) -> None:
    given = {"--infer-model": "int8", option: "s3://bucket/key"}
    arguments = ["predict", *(text for pair in given.items() for text in pair)]
    with pytest.raises(UsageError, match="job fetch"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_scores_become_probabilities() -> None:
    shares = probabilities(np.array([[1000.0, 1000.0]], np.float32), "scores")
    assert shares.tolist() == [[0.5, 0.5]]
    given = np.array([[0.25, 0.75]], np.float32)
    assert probabilities(given, "probabilities").tolist() == [[0.25, 0.75]]


class Detector:
    """A detector with two heads of two classes; it finds one object of class 1."""

    def outputs(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        coarse = np.full((len(images), 7, 1, 1), -10, np.float32)
        fine = np.full((len(images), 7, 2, 2), -10, np.float32)
        # The upper right cell, with the size of the anchor.
        fine[:, :4, 0, 1] = 0
        fine[:, [4, 6], 0, 1] = 10
        return coarse, fine


def test_objects_are_in_pixels_of_the_file(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", 3, size=(40, 20))
    deploy = {
        "input": {"shape": [None, 3, 8, 8]},
        "transform": {"resize": {"mode": "exact", "size": [8, 8]}, "mean": [0.5], "std": [0.25]},
        "output": {"meaning": "heads"},
        "detection": {
            "heads": [{"stride": 8, "anchors": [[8, 8]]}, {"stride": 4, "anchors": [[4, 2]]}],
            "score_threshold": 0.01,
            "nms_threshold": 0.45,
        },
    }
    ((row,),) = answers(Detector(), deploy, [str(tmp_path / "a.png")], 1)
    (found,) = row["objects"]
    assert found["number"] == 1
    assert found["score"] > 0.99
    width, height = 40, 20
    centre = (0.75 * width, 0.25 * height)
    sides = (4 / 8 * width, 2 / 8 * height)
    expected = [
        centre[0] - sides[0] / 2, centre[1] - sides[1] / 2,
        centre[0] + sides[0] / 2, centre[1] + sides[1] / 2,
    ]  # fmt: skip
    np.testing.assert_allclose(found["box"], expected, atol=1.0)


class WholeDetector:
    """A detector that decodes; it finds the whole file, once per brightness of the image."""

    names = ("counts", "found")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, given: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        self.batches.append(len(given["picture"]))
        sides = given["im_shape"] / given["scale_factor"]
        rows = [[1, 0.5, 0, 0, width, height] for height, width in sides for _ in range(2)]
        rows[0][1] = 0.25
        rows += [[-1, 0, 0, 0, 0, 0]] * 2
        counts = [2] * (len(sides) - 1) + [4]
        return np.array(counts, np.int32), np.array(rows, np.float32)


def test_boxes_of_a_deployed_detector_are_in_pixels_of_the_file(tmp_path: Path) -> None:
    for name in "abc":
        save_image(tmp_path / f"{name}.png", ord(name))
    output = {"meaning": "boxes", "boxes": "found", "counts": "counts"}
    image = {"name": "picture", "shape": [None, 3, 32, 32]}
    resize = {"mode": "exact", "size": [32, 32]}
    deploy = DEPLOY | {
        "input": image,
        "output": output,
        "transform": DEPLOY["transform"] | {"resize": resize},
    }
    files = [str(tmp_path / f"{name}.png") for name in "abc"]
    height, width, _ = decode(tmp_path / "a.png", 3).shape
    model = WholeDetector()
    rows = [row for batch in answers(model, deploy, files, 2) for row in batch]
    assert model.batches == [2, 1]
    assert [each["score"] for each in rows[0]["objects"]] == [0.5, 0.25]
    for row in rows:
        assert [each["number"] for each in row["objects"]] == [1, 1]
        for each in row["objects"]:
            np.testing.assert_allclose(each["box"], [0, 0, width, height], rtol=1e-6)
    # Without the number of boxes of each image, images run one by one.
    alone = WholeDetector()
    fixed = deploy | {"output": {"meaning": "boxes", "boxes": "found"}}
    assert len([row for batch in answers(alone, fixed, files, 2) for row in batch]) == 3
    assert alone.batches == [1, 1, 1]


def test_a_detector_without_a_result_has_no_objects() -> None:
    assert box_rows(np.array([[-1.0]], np.float32)) == {"objects": []}
    assert box_rows(np.zeros((0, 6), np.float32)) == {"objects": []}
