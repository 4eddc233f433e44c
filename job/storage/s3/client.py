"""Settings and creation of the S3 client."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from job.errors import StorageError
from job.storage.s3.errors import described
from job.storage.s3.foreign_server import reject_foreign
from job.storage.s3.pace import limit_client
from job.storage.s3.retry import BUDGET_SECONDS, Limits, Retry
from job.uri import without_secrets

CONNECTIONS = 16
_ENDPOINT = (
    "Set storage.endpoint_url in the manifest, or AWS_ENDPOINT_URL_S3, to http://HOST:PORT or "
    "https://HOST:PORT."
)
_CONNECT_SECONDS = 10
# Time without any byte from the server, not the time of the whole response. In the same time, a
# response must also reach the least speed.
_READ_SECONDS = 20


@dataclass(frozen=True)
class S3Settings:
    """How to connect to S3. boto3's credential chain finds the credentials; a manifest has none.

    Attributes:
        endpoint_url: the server; None means AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or AWS.
        region: None means AWS_REGION, the profile's region, or the server's default.
        addressing: ``path`` (server/bucket/key), ``virtual`` (bucket.server/key) or ``auto``.
        ca_bundle: a file of trusted certificates; None means AWS_CA_BUNDLE or boto3's default.
        retry_seconds: how long to retry a request that fails.
    """

    endpoint_url: str | None = None
    region: str | None = None
    addressing: str = "auto"
    ca_bundle: str | None = None
    retry_seconds: float = BUDGET_SECONDS


def make_retry(settings: S3Settings, say: Callable[[str], None] | None = None) -> Retry:
    """Return the limits of retries: the settings, AWS_MAX_ATTEMPTS and AWS_RETRY_MODE.

    Args:
        settings: contains the time budget.
        say: callback for messages about requests that fail.

    Raises:
        UsageError: a variable has an invalid value.
    """
    limits = Limits.of_environment()
    return Retry(settings.retry_seconds, limits.attempts, say=say)


def make_session() -> Any:
    """Return a botocore session, which finds the credentials."""
    from botocore.session import get_session

    session = get_session()
    parsers = lenient_parsers()
    parsers.set_parser_defaults(timestamp_parser=parsed_time)
    session.register_component("response_parser_factory", parsers)
    return session


def lenient_parsers() -> Any:
    """Return a factory of botocore's parsers that keeps the text of an invalid integer.

    botocore's own parsers raise a ValueError, also for fields that the job does not read.
    :func:`job.storage.s3.responses.size_of` rejects the text of a field that the job reads, and
    names the object.
    """
    from botocore.parsers import ResponseParserFactory, RestXMLParser

    class Lenient(RestXMLParser):  # type: ignore[misc]
        def _handle_integer(self, shape: Any, text: Any) -> Any:
            try:
                return super()._handle_integer(shape, text)
            except ValueError:
                return getattr(text, "text", text) or ""

        _handle_long = _handle_integer

    class Factory(ResponseParserFactory):  # type: ignore[misc]
        def create_parser(self, protocol_name: str) -> Any:
            if protocol_name == "rest-xml":
                return Lenient(**self._defaults)
            return super().create_parser(protocol_name)

    return Factory()


def parsed_time(value: Any) -> datetime | str:
    """Parse a time in a response; a time without a time zone is in UTC.

    botocore's own parser takes a third of the CPU time of a listing, and raises an error without
    the object's name, also for fields that the job does not read.

    Args:
        value: text, or seconds since 1970.

    Returns:
        The time; the text of an invalid time, which :func:`job.storage.s3.responses.time_of`
        rejects.
    """
    from botocore.utils import parse_timestamp

    try:
        time: datetime = _iso_time(value) or parse_timestamp(value)
    except ValueError:
        return str(value)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _iso_time(value: Any) -> datetime | None:
    """Parse the format of listings; None for another format."""
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None


def make_client(
    settings: S3Settings,
    *,
    session: Any = None,
    connect_seconds: float = _CONNECT_SECONDS,
    read_seconds: float = _READ_SECONDS,
) -> Any:
    """Return a boto3 client, which threads may share.

    The client does not retry requests. :class:`job.storage.s3.retry.Retry` retries them, also when
    the body of a response is incomplete.

    Args:
        settings: how to connect.
        session: see :func:`make_session`; None: a new session is created.
        connect_seconds: timeout of connecting.
        read_seconds: timeout of waiting for the next byte, and interval of the least speed (see
            :mod:`job.storage.s3.pace`).

    Raises:
        StorageError: the settings or the AWS_* variables are invalid, or the file of trusted
            certificates is missing.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=connect_seconds,
        read_timeout=read_seconds,
        max_pool_connections=CONNECTIONS,
        retries={
            "mode": "adaptive" if Limits.of_environment().adaptive else "standard",
            "total_max_attempts": 1,
        },
        # Every server verifies a signed SHA-256 of the body; not all support the newer checksums.
        s3={"addressing_style": settings.addressing, "payload_signing_enabled": True},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session = session or make_session()
    _check_certificates(settings.ca_bundle or session.get_config_variable("ca_bundle"))
    try:
        client = boto3.session.Session(botocore_session=session).client(
            "s3",
            endpoint_url=settings.endpoint_url,
            region_name=settings.region,
            verify=settings.ca_bundle,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        hint = "Correct the storage section of the manifest, or the AWS_* variables."
        hint = _ENDPOINT if "Invalid endpoint" in str(error) else hint
        raise StorageError(f"cannot create an S3 client: {described(error)}", hint) from error
    _check_endpoint(str(client.meta.endpoint_url))
    reject_foreign(client)
    limit_client(client)
    return client


def _check_endpoint(url: str) -> None:
    """Check the URL of the server, which AWS_* variables or a profile can set.

    Raises:
        StorageError: botocore would reject the URL at each request.
    """
    parts = urlsplit(url)
    try:
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port
        valid = False
    if not valid:
        raise StorageError(f"the endpoint {without_secrets(url)[:100]!a} is invalid", _ENDPOINT)


def _check_certificates(path: str | None) -> None:
    """Check that a file of trusted certificates exists; the error of OpenSSL has no file name.

    Raises:
        StorageError: it does not exist.
    """
    if path and not Path(path).exists():
        raise StorageError(
            f"the file of trusted certificates {path} does not exist",
            "Correct storage.ca_bundle in the manifest, or AWS_CA_BUNDLE.",
        )
