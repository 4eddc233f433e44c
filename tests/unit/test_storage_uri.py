"""Addresses in S3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.errors import UsageError
from job.storage.uri import S3Uri, is_uri, parse


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        ("s3://bkt", "bkt", ""),
        ("s3://bkt/", "bkt", ""),
        ("s3://my.data-1/a/b.tar", "my.data-1", "a/b.tar"),
        ("s3://bkt/runs/digits/", "bkt", "runs/digits"),
        ("s3://bkt/ä b/%20+", "bkt", "ä b/%20+"),
    ],
)
def test_taken(text: str, bucket: str, key: str) -> None:
    assert parse(text) == S3Uri(bucket, key)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://bkt/key", "begins with s3://"),
        ("S3://bkt/key", "begins with s3://"),
        ("gs://bkt/key", "begins with s3://"),
        ("s3:/bkt/key", "begins with s3://"),
        ("s3://", "cannot be a bucket's name"),
        ("s3:///key", "cannot be a bucket's name"),
        ("s3://Bkt/key", "cannot be a bucket's name"),
        ("s3://b/key", "cannot be a bucket's name"),
        ("s3://a..b/key", "cannot be a bucket's name"),
        ("s3://user:pass@host/key", "cannot be a bucket's name"),
        ("s3://bkt/../other/key", "none that is '.' or '..'"),
        ("s3://bkt/a/./b", "none that is '.' or '..'"),
        ("s3://bkt//a", "no empty part"),
        ("s3://bkt/a//b", "no empty part"),
        ("s3://bkt/a?versionId=1", "no '\\?'"),
        ("s3://bkt/a#b", "no '\\?'"),
        ("s3://bkt/a\\b", "no '\\?'"),
        ("s3://bkt/a\nb", "cannot be printed"),
        ("s3://bkt/" + "a" * 1025, "at most 1024 bytes"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_joins() -> None:
    whole = parse("s3://bkt")
    assert str(whole / "a" / "b/c.txt") == "s3://bkt/a/b/c.txt"
    assert ((whole / "a").below, whole.below, (whole / "a/b").name) == ("a/", "", "b")
    for name in ("..", "../x", "", "/abs", "a//b"):
        with pytest.raises(UsageError, match="a key has no empty part"):
            _ = whole / "a" / name


def test_is_uri() -> None:
    assert is_uri("s3://b") and is_uri("http://x") and is_uri("S3://B")
    assert not is_uri("runs/s3") and not is_uri("C:\\x") and not is_uri("s3:/b")


@given(st.text())
def test_any_text_is_taken_as_it_is_or_refused(text: str) -> None:
    try:
        found = parse(f"s3://bkt/{text}")
    except UsageError:
        return
    assert str(found).rstrip("/") == f"s3://bkt/{text}".removesuffix("/")
    assert parse(str(found)) == found
