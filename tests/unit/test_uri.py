"""S3 URIs."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from job.errors import UsageError
from job.uri import S3Uri, is_uri, on_server, parse


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
    ("text", "value"),
    [
        ("http://bkt/key", " s3://$"),
        ("S3://bkt/key", " s3:// .*'s3://bkt/key'"),
        ("gs://bkt/key", " s3://$"),
        ("s3:/bkt/key", " s3:// .*'s3://bkt/key'"),
        ("s3:bkt", " s3:// .*'s3://bkt'"),
        ("s3://", "'' .*bucket"),
        ("s3:///key", "'' .*bucket"),
        ("s3://Bkt/key", "'Bkt' .*bucket"),
        ("s3://b/key", "'b' .*bucket"),
        ("s3://a..b/key", r"'a\.\.b' .*bucket"),
        ("s3://user:pass@host/key", "AWS_ACCESS_KEY_ID"),
        ("s3://bkt/../other/key", r"empty, '\.' or '\.\.'"),
        ("s3://bkt/a/./b", r"empty, '\.' or '\.\.'"),
        ("s3://bkt//a", "empty"),
        ("s3://bkt/a//b", "empty"),
        ("s3://bkt/a?versionId=1", r"'\?', '#'"),
        ("s3://bkt/a#b", r"'\?', '#'"),
        ("s3://bkt/a\\b", r"'\?', '#'"),
        ("s3://bkt/a\nb", "unprintable"),
        ("s3://bkt/" + "a" * 1026, "1024 bytes, found 1026"),
    ],
)
def test_refused(text: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"(?m){value}"):
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


def test_a_place_names_its_server() -> None:
    place = on_server(parse("s3://bkt/a"), "http://127.0.0.1:9")
    assert place == "s3://bkt/a on http://127.0.0.1:9"


def test_joins() -> None:
    whole = parse("s3://bkt")
    assert str(whole / "a" / "b/c.txt") == "s3://bkt/a/b/c.txt"
    assert ((whole / "a").below, whole.below, (whole / "a/b").name) == ("a/", "", "b")
    for name in ("..", "../x", "", "/abs", "a//b"):
        with pytest.raises(UsageError, match=r"empty, '\.' or"):
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
