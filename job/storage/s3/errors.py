"""Translation of the errors of boto3, botocore and urllib3."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from job.errors import (
    ObjectChanged,
    ObjectMissing,
    StorageError,
    TransferFailed,
    UploadMissing,
)
from job.storage.s3.foreign_server import NEEDS_TLS, USE_TLS, NotS3, expects_tls
from job.uri import S3Uri, on_server

_WAIT = "Run the same command again: it resumes where it stopped."
_CREDENTIALS = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role."
)
# Error codes for which a retry can help, although the status is neither 429 nor 5xx.
_TEMPORARY = {
    "RequestTimeout": "the server timed out waiting for the request",
    "IncompleteBody": "the server received an incomplete body",
    "BadDigest": "the server received a body with another checksum",
    "XAmzContentSHA256Mismatch": "the server received a body with another checksum",
    "XAmzContentChecksumMismatch": "the server received a body with another checksum",
    "OperationAborted": "the request conflicts with another request",
    "ConditionalRequestConflict": "the request conflicts with another request",
}
_THROTTLED = ("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded")
_REFUSED = {
    "AccessDenied": "access is denied",
    "AllAccessDisabled": "access is disabled",
    "AccountProblem": "the account has a problem",
    "InvalidAccessKeyId": "the access key does not exist on the server",
    "InvalidToken": "the session token is not valid",
    "ExpiredToken": "the session token has expired",
    "SignatureDoesNotMatch": "the signature does not match; the secret key may be wrong",
}
_WRONG_REGION = ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException")


@contextmanager
def s3_errors(uri: S3Uri, server: str) -> Iterator[None]:
    """Translate the errors of a request about an object.

    Args:
        uri: the object, for messages.
        server: the URL of the server, for messages.

    Raises:
        TransferFailed: timeouts, broken connections, truncated responses, 5xx, throttling.
        ObjectMissing: the object does not exist.
        UploadMissing: the multipart upload does not exist.
        ObjectChanged: the ETag of the object is not the requested one.
        StorageError: another error, for which a retry cannot help.
    """
    # Importing botocore takes a third of a second, which runs on a local disk do not need.
    from botocore import exceptions
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    place = on_server(uri, server)
    try:
        yield
    except exceptions.ClientError as error:
        raise _of_answer(uri, place, error.response, error.operation_name) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise StorageError(f"{place}: no credentials found", _CREDENTIALS) from error
    except NotS3 as error:
        raise StorageError(f"{place}: {error.message}", error.hint) from error
    except exceptions.SSLError as error:
        raise _of_tls(place, error) from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError, HTTPError) as error:
        if "Invalid header value" in str(error):
            # The rest of the error's text is the header itself, with credentials.
            raise StorageError(
                f"{place}: cannot send requests: a credential contains a line break",
                "Correct the AWS_* variables or the profile.",
            ) from None
        url = str(getattr(error, "kwargs", {}).get("endpoint_url", ""))
        if isinstance(error, exceptions.ConnectionClosedError) and expects_tls(url):
            raise StorageError(f"{place}: {NEEDS_TLS}", USE_TLS) from error
        raise TransferFailed(
            f"{place}: {described(error)}{_reason(error)}",
            f"Check the network and the endpoint. {_WAIT}",
        ) from error
    except ResponseParserError as error:
        raise TransferFailed(f"{place}: the server's response is incomplete", _WAIT) from error
    except exceptions.IncompleteReadError as error:
        raise TransferFailed(f"{place}: the received object is incomplete", _WAIT) from error
    except exceptions.BotoCoreError as error:
        raise StorageError(
            f"{place}: {described(error)}",
            "Correct the storage section of the manifest, or the AWS_* variables.",
        ) from error


def _of_tls(place: str, error: Exception) -> StorageError:
    """Return the error for a failed TLS handshake.

    A server that restarts, or a load balancer without a server, closes the connection during the
    handshake. A retry can help only then.
    """
    reason = described(error)
    if "WRONG_VERSION_NUMBER" in reason or "record layer failure" in reason:
        return StorageError(
            f"{place}: the server does not support TLS on this port",
            "Replace https:// by http:// in the endpoint, or correct its port.",
        )
    if "EOF" in reason:
        return TransferFailed(
            f"{place}: the server closed the connection during the TLS handshake",
            f"Check the network and the endpoint. {_WAIT}",
        )
    return StorageError(
        f"{place}: cannot verify the server's certificate: {reason}",
        "Set storage.ca_bundle or AWS_CA_BUNDLE to the server's CA certificates.",
    )


def _of_answer(uri: S3Uri, place: str, response: Mapping[str, Any], operation: str) -> StorageError:
    """Return the error for a response that is not a success.

    Args:
        uri: the object.
        place: the object and its server, for the message.
        response: the response.
        operation: the operation of S3, such as GetObject.
    """
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(response.get("Error", {}).get("Code", status))
    if reason := _temporary(status, code):
        return TransferFailed(f"{place}: {reason}", _WAIT)
    if code in ("NoSuchBucket", "NoSuchUpload") or status == 404:
        return _missing(uri, place, status, code, operation)
    if status == 412:
        return ObjectChanged(
            f"{place}: the object changed while it was read", "Run the same command again."
        )
    if code == "RequestTimeTooSkewed":
        return StorageError(
            f"{place}: this machine's clock differs too much from the server's", "Set the clock."
        )
    if code == "InvalidObjectState":
        return StorageError(
            f"{place}: the object is archived, so it cannot be read ({status} {code})",
            "Restore the object, or copy it to a storage class that can be read at once.",
        )
    if code in _WRONG_REGION:
        region = str(response["Error"].get("Region") or "")[:50]
        expected = f"; the server expects region {region}" if region else ""
        return StorageError(
            f"{place}: the request was signed for another region ({status} {code}){expected}",
            "Set storage.region, or AWS_REGION, to the region of the bucket.",
        )
    if status in (401, 403) or code in _REFUSED:
        reason = _REFUSED.get(code, "access is denied")
        return StorageError(
            f"{place}: {reason} ({operation}: {status} {code})",
            "Check which credentials are used, and their permissions in this bucket.",
        )
    message = str(response.get("Error", {}).get("Message") or "no message")[:200]
    return StorageError(
        f"{place}: the server rejected the request with {status} ({code}): {message}",
        "Check that the server supports the settings in the storage section of the manifest.",
    )


def _missing(uri: S3Uri, place: str, status: int, code: str, operation: str) -> StorageError:
    """Return the error for a bucket, an upload or an object that does not exist."""
    if code == "NoSuchBucket":
        return StorageError(
            f"{place}: bucket {uri.bucket} does not exist",
            "Create the bucket, or correct its name and the endpoint.",
        )
    if code == "NoSuchUpload":
        return UploadMissing(
            f"{place}: the unfinished multipart upload does not exist any more ({code})",
            "Check whether a lifecycle rule or another program aborts unfinished uploads. "
            "Run the same command again.",
        )
    if status == 404 and operation == "ListObjectsV2":
        return StorageError(
            f"{place}: cannot list the bucket: the server returned {status} ({code})",
            "Check the endpoint. Its URL must not contain the bucket.",
        )
    return ObjectMissing(
        f"{place}: the object does not exist", "Correct bucket and key, or upload the object."
    )


def _temporary(status: int, code: str) -> str:
    """Return the reason of an error that can end by itself; empty for other errors."""
    if code in _TEMPORARY:
        return f"{_TEMPORARY[code]} ({code})"
    if status == 429 or code in _THROTTLED:
        return f"the server throttles requests ({code})"
    if status >= 500 and status != 501:
        return f"the server answered with an internal error (HTTP {status}, {code})"
    return ""


def _reason(error: Exception) -> str:
    """Return the reason of the system why a server cannot be reached, which botocore leaves out."""
    cause = str(getattr(error, "kwargs", {}).get("error", ""))
    found = re.search(r"\[Errno -?\d+\] ([^)]*)", cause)
    return f" ({found[1]})" if found else ""


def described(error: Exception) -> str:
    """Return the first line of an error, without user, password and query of an endpoint.

    If the first line ends with a colon, the second line is appended, because it has the reason.
    """
    first, *others = str(error).splitlines() or [type(error).__name__]
    line = " ".join([first, *others[:1]] if first.endswith(":") else [first])[:300]
    return re.sub(r"(?<=[^\s?])\?[^\s`'\"]*", "?...", re.sub(r"//[^/@\s]+@", "//", line))
