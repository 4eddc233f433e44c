"""Addresses in S3."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from job.errors import UsageError
from job.uri import S3Uri, is_uri, parse


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
        ("s3:/bkt/key", r"begins with s3:// \(did you mean 's3://bkt/key'\?\)"),
        ("S3://bkt/key", r"did you mean 's3://bkt/key'\?"),
        ("s3:bkt", r"did you mean 's3://bkt'\?"),
        ("s3://", "cannot be a bucket's name"),
        ("s3:///key", "cannot be a bucket's name"),
        ("s3://Bkt/key", "cannot be a bucket's name"),
        ("s3://b/key", "cannot be a bucket's name"),
        ("s3://a..b/key", "cannot be a bucket's name"),
        ("s3://user:pass@host/key", "holds no user name and no password"),
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


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA:zebra@bkt/key",
        "s3://AKIA:zeb/bra@bkt/key",
        "s3://zebra@bkt/key",
        "https://AKIA:zebra@s3.example/bkt/key",
        "s3:/AKIA:zebra@bkt/key",
        "s3://bkt/key?X-Amz-Signature=zebra",
        "s3://bkt?AWSAccessKeyId=zebra&Signature=zebra",
        "https://bkt.s3.example/key?a=1&X-Amz-Credential=zebra/20260101",
    ],
)
def test_secrets_are_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text)
    assert not any(part in str(raised.value) for part in ("zeb", "bra", "AKIA"))


def test_keys_may_hold_what_users_and_passwords_do() -> None:
    assert parse("s3://bkt/12:30/me@home") == S3Uri("bkt", "12:30/me@home")


def test_joins() -> None:
    whole = parse("s3://bkt")
    assert str(whole / "a" / "b/c.txt") == "s3://bkt/a/b/c.txt"
    assert ((whole / "a").below, whole.below, (whole / "a/b").name) == ("a/", "", "b")
    for name in ("..", "../x", "", "/abs", "a//b"):
        with pytest.raises(UsageError, match="a key has no empty part"):
            _ = whole / "a" / name


def test_is_uri() -> None:
    assert is_uri("s3://b") and is_uri("http://x") and is_uri("S3://B") and is_uri("s3:/b")
    assert not is_uri("runs/s3") and not is_uri("C:\\x") and not is_uri("./s3:/b")


@given(st.text())
@example("/")
def test_any_text_is_taken_as_it_is_or_refused(text: str) -> None:
    try:
        found = parse(f"s3://bkt/{text}")
    except UsageError:
        return
    assert str(found).rstrip("/") == f"s3://bkt/{text}".removesuffix("/")
    assert parse(str(found)) == found
