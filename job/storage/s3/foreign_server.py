"""Recognize servers and ports that do not answer as an S3 server does.

An endpoint can name a web server, a TLS port, or a proxy that redirects every request. Without
these checks, botocore retries such responses, or its code for regions recurses without end.
"""

import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from http import HTTPMethod, HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from job.uri import without_secrets

_PAGE = re.compile(rb"\s*(?:<!doctype html|<html)", re.IGNORECASE)
_NEEDS_TLS = re.compile(rb"HTTP request[^<]*HTTPS (?:server|port)|plain HTTP to|requires TLS")
_REDIRECTS = range(300, 400)
_PROBE_SECONDS = 2.0
NEEDS_TLS = "the server expects TLS on this port, but the endpoint begins with http://"
USE_TLS = "Replace http:// by https:// in the endpoint, or correct its port."


class NotS3(Exception):
    """A response that no S3 server sends.

    Args:
        message: what the server returned.
        hint: what to do.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def reject_foreign(client: Any) -> None:
    """Make a boto3 client raise :class:`NotS3` for responses that no S3 server sends."""

    def check(response_dict: Mapping[str, Any], operation_model: Any, **_: Any) -> None:
        _check(response_dict, operation_model.http["method"])

    # The handler of botocore changes the status 200 of a page to 500, so it must run later. The
    # event's wildcards determine the order.
    client.meta.events.register_first("before-parse.*.*", check)


def _check(response: Mapping[str, Any], method: str) -> None:
    status, headers, body = response["status_code"], response["headers"], response["body"]
    content = body if isinstance(body, bytes) else b""
    if _NEEDS_TLS.search(content[:4096]) and status == HTTPStatus.BAD_REQUEST:
        raise NotS3(NEEDS_TLS, USE_TLS)
    # botocore asks for the region of a redirect with HEAD. It repeats HEAD until it has the region.
    if (
        status in _REDIRECTS
        and method == HTTPMethod.HEAD
        and not headers.get("x-amz-bucket-region")
    ):
        target = without_secrets(headers.get("location", "")).partition("?")[0]
        raise NotS3(
            f"the server redirects the request (HTTP {status}) to "
            f"{target[:200] or 'no address'} without the region of the bucket",
            "Set storage.endpoint_url, or AWS_ENDPOINT_URL_S3, to the URL of the S3 server itself, "
            "and storage.region to the region of the bucket.",
        )
    temporary = status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500
    streamed_page = not isinstance(body, bytes) and "etag" not in headers
    is_page = _PAGE.match(content) or (
        streamed_page and headers.get("content-type", "").startswith("text/html")
    )
    if is_page and not temporary and status not in _REDIRECTS:
        raise NotS3(
            f"the server returned an HTML page (HTTP {status}) instead of an S3 response",
            "Set storage.endpoint_url, or AWS_ENDPOINT_URL_S3, to the URL of the S3 server. A web "
            "console usually has another port.",
        )


def expects_tls(url: str) -> bool:
    """Return whether the port of an ``http://`` URL answers a TLS handshake.

    Many TLS servers close the connection of a plain HTTP request without a response.
    """
    parts = urlsplit(url)
    return (
        parts.scheme == "http"
        and bool(parts.hostname)
        and _answers_tls(str(parts.hostname), parts.port or 80)
    )


@cache
def _answers_tls(host: str, port: int) -> bool:
    """Try a TLS handshake. Once is enough, because an HTTP server delays it by two seconds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Nothing is sent on this connection.
    context.verify_mode = ssl.CERT_NONE
    with (
        suppress(OSError),
        socket.create_connection((host, port), _PROBE_SECONDS) as connection,
        context.wrap_socket(connection),
    ):
        return True
    return False
