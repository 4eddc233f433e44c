"""The output must not be inside the images of the data set."""

import pytest
from sample_manifest import check, document

from job.api.output_checks import check_output
from job.errors import UsageError
from job.uri import parse

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


def test_an_output_elsewhere_is_not_inside() -> None:
    manifest = check(document(data__root="s3://bkt/set"))
    check_output(manifest, manifest.path("set/train"))
