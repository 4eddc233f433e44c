"""What boto3 and botocore raise, translated in one place."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from job.errors import ObjectChanged, ObjectMissing, StorageError, TransferFailed
from job.uri import S3Uri

_WAIT = "Run the same command again: nothing that is done is lost."
_CREDENTIALS = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role is given."
)
# Codes that come with other statuses than 429 and 5xx.
_PASSING = {
    "RequestTimeout": "the server waited too long for the request",
    "IncompleteBody": "what was sent arrived cut off",
    "BadDigest": "what was sent arrived changed",
    "XAmzContentSHA256Mismatch": "what was sent arrived changed",
    "XAmzContentChecksumMismatch": "what was sent arrived changed",
    "OperationAborted": "another request was changing it",
    "ConditionalRequestConflict": "another request was changing it",
}
_THROTTLED = ("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded")
_REFUSED = {
    "AccessDenied": "access is denied",
    "AllAccessDisabled": "access is switched off",
    "AccountProblem": "the account has a problem",
    "InvalidAccessKeyId": "the access key is not known there",
    "InvalidToken": "the session token is not valid there",
    "ExpiredToken": "the session token has expired",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
}


@contextmanager
def s3_errors(uri: S3Uri) -> Iterator[None]:
    """Translate what a request about an object raises.

    Raises:
        TransferFailed: time-outs, broken connections, truncated answers, 5xx, throttling.
        ObjectMissing: there is no such object.
        ObjectChanged: its ETag is not the one that was asked for.
        StorageError: anything else; trying again would not help.
    """
    # botocore takes a third of a second to import: not for runs on a local disk
    from botocore import exceptions
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except exceptions.ClientError as error:
        raise _of_answer(uri, error.response) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise StorageError(f"{uri}: no credentials were found", _CREDENTIALS) from error
    except exceptions.SSLError as error:
        if "WRONG_VERSION_NUMBER" in str(error) or "record layer failure" in str(error):
            raise StorageError(
                f"{uri}: the server does not speak TLS",
                "Write http:// for https:// in the endpoint, or correct its port.",
            ) from error
        raise StorageError(
            f"{uri}: the server's certificate cannot be trusted: {described(error)}",
            "Give the certificates of your authority with storage.ca_bundle or AWS_CA_BUNDLE.",
        ) from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError, HTTPError) as error:
        if "Invalid header value" in str(error):
            # The text goes on with the header itself, credentials and all.
            raise StorageError(
                f"{uri}: no request can be written: a credential holds a line break",
                "Set the AWS_* variables, or the profile, anew.",
            ) from None
        raise TransferFailed(
            f"{uri}: {described(error)}", f"Check the network and the endpoint. {_WAIT}"
        ) from error
    except ResponseParserError as error:
        raise TransferFailed(f"{uri}: the server's answer was cut off", _WAIT) from error
    except exceptions.IncompleteReadError as error:
        raise TransferFailed(f"{uri}: the object arrived cut off", _WAIT) from error
    except exceptions.BotoCoreError as error:
        raise StorageError(
            f"{uri}: {described(error)}",
            "Correct the storage section of the manifest, or the AWS_* variables.",
        ) from error


def _of_answer(uri: S3Uri, response: Mapping[str, Any]) -> StorageError:
    """Return the error for an answer that is none of success."""
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(response.get("Error", {}).get("Code", status))
    if code in _PASSING:
        return TransferFailed(f"{uri}: {_PASSING[code]} ({code})", _WAIT)
    if status == 429 or code in _THROTTLED:
        return TransferFailed(f"{uri}: the server asks for fewer requests ({code})", _WAIT)
    if status >= 500 and status != 501:
        return TransferFailed(f"{uri}: the server failed with {status} ({code})", _WAIT)
    if code == "NoSuchBucket":
        return StorageError(
            f"{uri}: there is no bucket {uri.bucket}",
            "Create it, or correct its name and the endpoint.",
        )
    if status == 404:
        return ObjectMissing(
            f"{uri}: there is no such object", "Correct bucket and key, or put it there."
        )
    if status == 412:
        return ObjectChanged(f"{uri}: it changed while it was read", "Run the same command again.")
    if code == "RequestTimeTooSkewed":
        return StorageError(
            f"{uri}: this machine's clock differs too much from the server's", "Set the clock."
        )
    if status in (401, 403) or code in _REFUSED:
        why = _REFUSED.get(code, "access is denied")
        return StorageError(
            f"{uri}: {why} ({status} {code})",
            "Check which credentials are used, and what they may do in this bucket.",
        )
    said = str(response.get("Error", {}).get("Message", ""))[:200]
    return StorageError(
        f"{uri}: the server refused with {status} ({code}): {said}",
        "Check the storage section of the manifest against what the server supports.",
    )


def described(error: Exception) -> str:
    """Return an error's first line, without name, password and query that an endpoint may hold."""
    line = (str(error).splitlines() or [type(error).__name__])[0][:300]
    return re.sub(r"(?<=[^\s?])\?[^\s`'\"]*", "?...", re.sub(r"//[^/@\s]+@", "//", line))
