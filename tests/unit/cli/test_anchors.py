"""``job anchors`` prints anchors that fit the training images."""

import json
import re
from pathlib import Path

import object_sets
import pytest
from click.testing import Result
from typer.testing import CliRunner

from job.cli.main import app
from job.errors import DataError, UsageError
from job.manifest import load

BOXES = [("cat", (1, 1, 10, 15), ""), ("dog", (1, 1, 20, 30), ""), ("cat", (1, 1, 40, 30), "")]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    object_sets.voc_tree(tmp_path / "voc", {"train": dict.fromkeys("abcdefgh", BOXES)})
    document = {
        "version": 1,
        "name": "tiny",
        "task": "detection",
        "model": {"name": "yolov3_mobilenet_v1", "classes": 2, "input_shape": [3, 32, 64]},
        "data": {"format": "voc", "root": "voc", "train_list": "ImageSets/Main/train.txt"},
    }
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    return path


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(app, ["anchors", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


def anchors(*arguments: str) -> str:
    return run(*arguments).stdout


def test_anchors_are_in_pixels_of_the_input_and_can_be_pasted(manifest: Path) -> None:
    printed = anchors(str(manifest), "--count", "3")
    # Images of 40x30 pixels become 64x32.
    found = json.loads(f"{{{printed}}}")["anchors"]
    assert found == [[[16, 16]], [[32, 32]], [[64, 32]]]
    loaded = load(str(manifest), [f"detection.anchors={json.dumps(found)}"])
    assert loaded.detection.anchors == (((16, 16),), ((32, 32),), ((64, 32),))


def test_the_share_of_each_head_is_printed(manifest: Path) -> None:
    shares = run(str(manifest), "--count", "3").stderr.splitlines()[-1]
    assert [int(share) for share in re.findall(r"(\d+)%", shares)] == [33, 33, 33]


def test_impossible_requests_are_rejected(manifest: Path) -> None:
    with pytest.raises(UsageError, match="--count 4"):
        anchors(str(manifest), "--count", "4")
    with pytest.raises(DataError, match="found 3"):
        anchors(str(manifest), "--count", "6")
    with pytest.raises(UsageError, match="digits"):
        anchors("digits")
