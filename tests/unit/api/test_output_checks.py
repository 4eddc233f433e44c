"""The output must not be inside the images of the data set, and its keys must not be too long."""

from typing import Any

import pytest
from sample_manifest import check, document

from job.api.output_checks import LONGEST_NAME_BYTES, check_output
from job.errors import UsageError
from job.uri import S3Uri, parse

INSIDE = ("s3://bkt/set/train", "s3://bkt/set/train/out", "s3://bkt/set/train/a/out")
OUTSIDE = (
    "s3://bkt/set",
    "s3://bkt/set/out",
    "s3://bkt/set/train2",
    "s3://bkt",
    "s3://other/set/train/out",
)


@pytest.mark.parametrize("output", INSIDE)
def test_inside_in_s3(output: str) -> None:
    manifest = check(document(data__root="s3://bkt/set"))
    with pytest.raises(UsageError, match="s3://bkt/set/train") as raised:
        check_output(manifest, parse(output))
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("output", OUTSIDE)
def test_outside_in_s3(output: str) -> None:
    check_output(check(document(data__root="s3://bkt/set")), parse(output))


@pytest.mark.parametrize("folder", [".", "./"])
def test_the_root_has_the_images(folder: str) -> None:
    manifest = check(document(data__root="s3://bkt/set", data__train_dir=folder))
    with pytest.raises(UsageError, match="s3://bkt/set"):
        check_output(manifest, parse("s3://bkt/set/out"))


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({}, 0),
        ({"accuracy__shards": 16}, len("/shards/15")),
        ({"matrix": [{"name": name, "set": {"train.seed": 1}} for name in ("n" * 90, "m")]}, 91),
    ],
)
def test_keys_of_the_output_must_not_be_too_long(changes: dict[str, Any], more: int) -> None:
    """Two bytes of UTF-8 count as two."""
    manifest = check(document(**changes))
    longest = 1024 - LONGEST_NAME_BYTES - more
    check_output(manifest, S3Uri("bkt", "é" * (longest // 2) + "a" * (longest % 2)))
    with pytest.raises(UsageError) as raised:
        check_output(manifest, S3Uri("bkt", "é" * (longest // 2) + "a" * (longest % 2 + 1)))
    assert raised.value.exit_code == 2
    assert "1,025 bytes" in raised.value.message
    assert "at least 1 byte" in raised.value.hint


def test_an_output_elsewhere_is_not_inside() -> None:
    manifest = check(document(data__root="s3://bkt/set"))
    check_output(manifest, manifest.path("set/train"))
